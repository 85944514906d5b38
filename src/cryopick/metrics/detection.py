"""Precision, recall, F1, average precision and the whole curve, from one-to-one assignment of picks to labels.

The rule: a pick assigned to a particle within the tolerance is a true positive. A pick left over is ignored when an
`uncertain` label lies within the tolerance, otherwise it is a false positive. A particle left over is a false negative.
Counts are pooled over micrographs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.pairing import UNPAIRED, Pairs, candidates_within, pair_candidates, pair_one_by_one


@dataclass(frozen=True)
class Counts:
    """Picks and labels by outcome.

    Parameters
    ----------
    true_positive, false_positive, ignored : picks, by outcome
    false_negative : particles without a pick
    duplicate : those left-over picks (ignored or false) that lie within the tolerance of a particle that has its pick
    """

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    ignored: int = 0
    duplicate: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.ignored + other.ignored,
            self.duplicate + other.duplicate,
        )

    @property
    def precision(self) -> float:
        """Share of the counted picks that are particles; NaN without picks."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the particles that were picked; NaN without particles."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when either is; NaN when there is nothing to count."""
        return _ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)


def pooled(counts: Iterable[Counts]) -> Counts:
    """The sum over micrographs."""
    return sum(counts, Counts())


@dataclass(frozen=True, eq=False)
class Match:
    """How the picks of one micrograph fit its labels.

    Parameters
    ----------
    pairs : pick index, particle index and their distance in px
    is_ignored, is_duplicate : (n,) bool, over the picks; see `Counts`
    counts : the same as numbers
    """

    pairs: Pairs
    is_ignored: NDArray[np.bool_]
    is_duplicate: NDArray[np.bool_]
    counts: Counts


def match_picks(
    picks_xy_px: NDArray[np.float64],
    particles_xy_px: NDArray[np.float64],
    uncertain_xy_px: NDArray[np.float64],
    *,
    max_distance_px: float,
) -> Match:
    """Match the picks of one micrograph to its labels.

    Parameters
    ----------
    picks_xy_px, particles_xy_px, uncertain_xy_px : (n, 2), (m, 2), (k, 2), in one frame
    max_distance_px : tolerance; exactly this distance still counts
    """
    pairs = pair_candidates(candidates_within(picks_xy_px, particles_xy_px, max_distance=max_distance_px))
    is_left_over = np.ones(len(picks_xy_px), dtype=bool)
    is_left_over[pairs.first] = False
    is_ignored = is_left_over & is_near(picks_xy_px, uncertain_xy_px, max_distance_px=max_distance_px)
    # With as many pairs as possible, every particle near a left-over pick has a pick already.
    is_duplicate = is_left_over & is_near(picks_xy_px, particles_xy_px, max_distance_px=max_distance_px)
    ignored = int(is_ignored.sum())
    counts = Counts(
        true_positive=len(pairs),
        false_positive=int(is_left_over.sum()) - ignored,
        false_negative=len(particles_xy_px) - len(pairs),
        ignored=ignored,
        duplicate=int(is_duplicate.sum()),
    )
    return Match(pairs, is_ignored, is_duplicate, counts)


def is_near(
    xy_px: NDArray[np.float64], others_xy_px: NDArray[np.float64], *, max_distance_px: float
) -> NDArray[np.bool_]:
    """(n,) True where one of `others_xy_px` is no further away than `max_distance_px`."""
    from scipy.spatial import cKDTree

    if len(xy_px) == 0 or len(others_xy_px) == 0:
        return np.zeros(len(xy_px), dtype=bool)
    _, nearest = cKDTree(others_xy_px).query(xy_px)
    return np.asarray(np.hypot(*(xy_px - others_xy_px[nearest]).T) <= max_distance_px)


@dataclass(frozen=True, eq=False)
class RankedOutcomes:
    """What each candidate of one micrograph adds to the counts when the threshold is lowered past its score.

    Parameters
    ----------
    score : (n,) float64, descending
    is_true, is_false : (n,) bool; neither where the candidate (or the one that it displaced) is ignored
    is_paired : (n,) bool, True where the candidate is a true positive once all candidates are in
    particle_count : particles in the micrograph
    """

    score: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    is_false: NDArray[np.bool_]
    is_paired: NDArray[np.bool_]
    particle_count: int


def rank_outcomes(
    picks_xy_px: NDArray[np.float64],
    score: NDArray[np.floating],
    particles_xy_px: NDArray[np.float64],
    uncertain_xy_px: NDArray[np.float64],
    *,
    max_distance_px: float,
) -> RankedOutcomes:
    """Outcomes by descending score, such that the sums down to any threshold equal `match_picks` above that threshold.

    Parameters
    ----------
    score : (n,), finite, higher is better
    others : as in `match_picks`

    Raises
    ------
    ValueError
        If a score is NaN: such picks have no place on a curve.
    """
    scores: NDArray[np.float64] = np.asarray(score, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} picks have no score; a curve needs one for each")
    order = np.argsort(-scores, kind="stable")
    xy_px = np.asarray(picks_xy_px, dtype=np.float64).reshape(-1, 2)[order]
    near_uncertain = is_near(xy_px, uncertain_xy_px, max_distance_px=max_distance_px)
    candidates = candidates_within(xy_px, particles_xy_px, max_distance=max_distance_px)
    dropped = np.fromiter(pair_one_by_one(candidates), dtype=np.intp, count=len(xy_px))
    is_true = dropped == UNPAIRED
    is_false = ~is_true & ~near_uncertain[dropped] if len(xy_px) else is_true.copy()
    is_paired = np.ones(len(xy_px), dtype=bool)
    is_paired[dropped[~is_true]] = False
    return RankedOutcomes(scores[order], is_true, is_false, is_paired, len(particles_xy_px))


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Pooled counts at every distinct score, thresholds descending: what `score >= threshold` would give.

    Parameters
    ----------
    threshold, true_positive, false_positive : (n,)
    particle_count : particles in all micrographs
    """

    threshold: NDArray[np.float64]
    true_positive: NDArray[np.float64]
    false_positive: NDArray[np.float64]
    particle_count: float

    @property
    def precision(self) -> NDArray[np.float64]:
        """(n,) NaN where all picks so far are ignored."""
        return _divide(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(n,) never falls with the threshold; NaN without particles."""
        if self.particle_count == 0:
            return np.full(len(self.threshold), np.nan)
        recall: NDArray[np.float64] = self.true_positive / self.particle_count
        return recall

    @property
    def f1(self) -> NDArray[np.float64]:
        """(n,) NaN where there is nothing to count."""
        return _divide(2 * self.true_positive, self.true_positive + self.false_positive + self.particle_count)

    @property
    def average_precision(self) -> float:
        """Area under the curve as a sum of steps, sum_i (R_i - R_(i-1)) P_i, without interpolation.

        NaN without particles. Particles that no candidate reaches add nothing, so it is at most the largest recall.
        """
        if self.particle_count == 0:
            return float("nan")
        precision = np.nan_to_num(self.precision, nan=0.0)  # all ignored so far: no recall is gained there either
        return float(np.sum(np.diff(self.recall, prepend=0.0) * precision))

    def best_f1(self) -> tuple[float, float]:
        """(F1, threshold) where F1 is largest: chosen on the labels, so a bound, not a result; NaN if undefined."""
        if len(self.threshold) == 0 or np.isnan(self.f1).all():
            return float("nan"), float("nan")
        best = int(np.nanargmax(self.f1))
        return float(self.f1[best]), float(self.threshold[best])


def precision_recall_curve(
    outcomes: Sequence[RankedOutcomes], *, weights: NDArray[np.float64] | None = None
) -> PrecisionRecallCurve:
    """Pool the outcomes of micrographs into one curve.

    Parameters
    ----------
    weights : (m,) how often each micrograph counts (for bootstrap resamples); None counts each once
    """
    weight = np.ones(len(outcomes)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not outcomes:
        return PrecisionRecallCurve(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    score = np.concatenate([o.score for o in outcomes])
    per_pick = np.repeat(weight, [len(o.score) for o in outcomes])
    is_true = np.concatenate([o.is_true for o in outcomes])
    is_false = np.concatenate([o.is_false for o in outcomes])
    order = np.argsort(-score, kind="stable")
    score = score[order]
    # Equal scores pass a threshold together, so only the last of them is a point of the curve.
    is_last = np.append(np.diff(score) != 0, True) if len(score) else np.zeros(0, dtype=bool)
    true_positive = np.cumsum((is_true * per_pick)[order])[is_last]
    false_positive = np.cumsum((is_false * per_pick)[order])[is_last]
    particle_count = float(np.dot(weight, [o.particle_count for o in outcomes]))
    return PrecisionRecallCurve(score[is_last], true_positive, false_positive, particle_count)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _divide(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.full(len(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
