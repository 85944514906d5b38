"""Calibrated probabilities, and choosing a cut from them alone, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

SURE_DEVIATIONS = 1.64
"""Standard deviations on either side of what is expected that a range of expected precision spans: nine times of ten
where the errors are Gaussian and known."""
CALIBRATION_ERROR = 0.2
"""Standard deviation of a run's precision beside that of counting, in `precision (1 - precision)`: particles and noise
of no run are quite those of another. Chosen on `benchmarks/sessions.py --sessions choose`, 40 runs of `general` at the
levels easy and hard: at 0 the range held the precision that was observed in 36, at 0.1 in 38, at 0.2 in all."""
FAINT_TYPICAL, CLEAR_TYPICAL = 0.75, 0.85
"""See `chance_to_be_marked`."""


def logit(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithm of the odds; scores are taken as at least a millionth away from 0 and 1."""
    clipped = np.clip(np.asarray(score, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a network's score is worth: a rising curve from its logit to the probability that such a pick is right.

    Parameters
    ----------
    knots : (2, k), logits at quantiles of the candidates it was fitted on, and probabilities there
    """

    knots: NDArray[np.float64]

    def __call__(self, score: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n,) scores in [0, 1] to (n,) probabilities; constant beyond the outermost knots."""
        return np.asarray(np.interp(logit(score), self.knots[0], self.knots[1]), np.float32)

    @property
    def share(self) -> float:
        """Share of right candidates where it was fitted; the knots are quantiles of the candidates."""
        return float(np.mean(self.knots[1]))

    def to_list(self) -> list[list[float]]:
        """Plain JSON for a model card."""
        knots: list[list[float]] = self.knots.tolist()
        return knots

    @classmethod
    def from_list(cls, knots: Sequence[Sequence[float]]) -> Self:
        """The inverse of `to_list`; `ValueError` for anything else."""
        table = np.asarray(knots, np.float64)
        is_curve = table.ndim == 2 and table.shape[0] == 2 and table.shape[1] > 0 and bool(np.isfinite(table).all())
        if not is_curve or (np.diff(table[0]) < 0).any() or table[1].min() < 0 or table[1].max() > 1:
            raise ValueError("a calibration is two rows: rising logits, and probabilities from 0 to 1")
        return cls(table)

    @classmethod
    def none(cls) -> Self:
        """Scores as they are, for networks that are not calibrated yet."""
        x = np.linspace(-14.0, 14.0, 281)
        return cls(np.stack([x, 1 / (1 + np.exp(-x))]))


def expected_scores(probability: NDArray[np.floating], threshold: float) -> tuple[float, float, float]:
    """Expected precision, recall and F1 of keeping what reaches `threshold`.

    Parameters
    ----------
    probability : (n,), of every candidate of a run, each the chance that the candidate is a particle

    Returns
    -------
    precision, recall, f1 : the number of true particles is taken to be the sum of all probabilities; precision is 1
        where nothing is kept, recall 1 where no particle is expected
    """
    p = np.asarray(probability, np.float64)
    kept = p[p >= threshold]
    precision = float(kept.mean()) if len(kept) else 1.0
    recall = float(kept.sum() / p.sum()) if p.sum() > 0 else 1.0
    f1 = 2 * float(kept.sum()) / (len(kept) + p.sum()) if len(kept) + p.sum() > 0 else 0.0
    return precision, recall, f1


def precision_range(*estimates: NDArray[np.floating]) -> tuple[float, float]:
    """What precision is to be expected of some picks, at least and at most, where several estimates are to be had.

    Each estimate has a mean, and errors: of counting, and of the calibration. The range spans all of them, so where the
    estimates contradict each other, it is wide: nobody knows which of them is right.

    Parameters
    ----------
    estimates : each (n,), how likely each pick is right; n is 1 at least

    Returns
    -------
    low, high : 0 to 1, for about nine runs of ten
    """
    low, high = 1.0, 0.0
    for estimate in estimates:
        p = np.asarray(estimate, np.float64)
        mean = float(p.mean())
        of_counting = float((p * (1 - p)).sum()) / len(p) ** 2
        deviation = np.sqrt(of_counting + (CALIBRATION_ERROR * mean * (1 - mean)) ** 2)
        low, high = min(low, mean - SURE_DEVIATIONS * deviation), max(high, mean + SURE_DEVIATIONS * deviation)
    return max(float(low), 0.0), min(float(high), 1.0)


def threshold_for_f1(probability: NDArray[np.floating]) -> float:
    """The cut with the highest expected F1; 1.0 when there are no candidates.

    Keeping the k most probable of n candidates has an expected F1 of about `2 sum_k p / (k + sum_n p)`; the best cut
    is half the best F1 (Lipton et al., ECML 2014).
    """
    p = np.sort(np.asarray(probability, np.float64))[::-1]
    if len(p) == 0:
        return 1.0
    kept_count_and_all = np.arange(1, len(p) + 1, dtype=np.float64)
    kept_count_and_all += p.sum()
    f1 = np.cumsum(p)  # the arrays hold the candidates of whole runs, so they are changed in place
    f1 *= 2
    f1 /= kept_count_and_all
    return float(p[np.argmax(f1)])


def threshold_for_precision(probability: NDArray[np.floating], target: float) -> float:
    """The lowest cut whose kept candidates have a mean probability of at least `target`; 1.0 if none has."""
    p = np.sort(np.asarray(probability, np.float64))[::-1]
    if len(p) == 0:
        return 1.0
    precision = np.cumsum(p) / np.arange(1, len(p) + 1)
    reached = np.flatnonzero(precision >= target)
    return float(p[reached[-1]]) if len(reached) else 1.0


def adapted_to_emptier_run(
    probability: NDArray[np.floating], *, share: float, iterations: int = 60
) -> NDArray[np.float64]:
    """Probabilities for a run in which particles are rarer among the candidates than where they were calibrated.

    Calibrated probabilities hold a prior: the share of right candidates in the data that they were calibrated on. In a
    run of nearly empty micrographs that prior is wrong, and noise is believed too much. The run's own share is found by
    expectation maximisation from the probabilities alone; only a smaller one is used, because a larger one would lower
    the cut below what was ever measured.

    Parameters
    ----------
    probability : (n,) calibrated, of all candidates of a run
    share : of right candidates where they were calibrated, 0 to 1

    References
    ----------
    M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14, 2002, 21, eqs. 2.4 and 2.5.
    """
    p = np.clip(np.asarray(probability, np.float64), 1e-4, 1 - 1e-4)
    if len(p) == 0 or p.mean() >= share:
        return np.asarray(probability, np.float64)
    found, adapted = float(p.mean()), p
    for _ in range(iterations):
        right, wrong = p * found / share, (1 - p) * (1 - found) / (1 - share)
        adapted = right / (right + wrong)
        found = float(np.clip(adapted.mean(), 1e-4, 1 - 1e-4))
    return adapted if found < share else np.asarray(probability, np.float64)


def chance_to_be_marked(probability: NDArray[np.floating], *, power: float) -> NDArray[np.float64]:
    """Chance that a careful person would mark a candidate, if it is a particle.

    People mark what stands out as the other particles of the same micrographs do and leave out what is much fainter,
    real or not. The chance is taken to be a power of the probability relative to that of the run's typical particle:
    `power` where typical particles are clear, 0 where not even they can be told by eye, and in between from
    `FAINT_TYPICAL` to `CLEAR_TYPICAL` (as the simulated suite suggests).

    Parameters
    ----------
    probability : (n,) that each candidate of a run is a particle, by its looks alone: not lowered for a rarer one
    power : the less decided a network's probabilities are, the higher
    """
    p = np.asarray(probability, np.float64)
    total = float(p.sum())
    if total <= 0:
        return np.ones_like(p)
    typical = float((p * p).sum()) / total
    clarity = min(max((typical - FAINT_TYPICAL) / (CLEAR_TYPICAL - FAINT_TYPICAL), 0.0), 1.0)
    chance = p / typical
    np.minimum(1.0, chance, out=chance)
    chance **= power * clarity
    return chance
