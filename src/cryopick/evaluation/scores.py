"""The scores of picks against labels: of one micrograph, of a set, at a tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.data.labels import Labels
from cryopick.errors import InputError
from cryopick.evaluation.scored_sets import LabelledPicks
from cryopick.metrics.bootstrap import DetectionIntervals, Interval, bootstrap_average_precision, bootstrap_counts
from cryopick.metrics.calibration import Calibration, calibrate
from cryopick.metrics.detection import (
    Counts,
    Match,
    PrecisionRecallCurve,
    RankedOutcomes,
    match_picks,
    pooled,
    precision_recall_curve,
    rank_outcomes,
)
from cryopick.metrics.localization import CentringError, centring_error
from cryopick.metrics.published import BoxScores, PixelMaskScores, pixel_counts, pixel_mask_scores
from cryopick.runs.sizes import SAME_PIXEL_SIZE

TOLERANCES = (0.25, 0.5)
"""Largest distance between a pick and its particle, in diameters. 0.25 equals the published box IoU of 0.6 along an
axis; 0.5 forgives marking a particle's rim."""


@dataclass(frozen=True, eq=False)
class MicrographScores:
    """One micrograph at one tolerance."""

    name: str
    pick_count: int
    particle_count: int
    uncertain_count: int
    counts: Counts


@dataclass(frozen=True, eq=False)
class ToleranceScores:
    """Everything measured at one tolerance.

    Parameters
    ----------
    tolerance : in diameters
    counts : of the kept picks, pooled over micrographs
    intervals : 95 % over micrographs, of precision, recall and F1
    curve : over all candidates that some threshold would keep; None when picks have no scores
    average_precision, average_precision_interval : of the curve; NaN without one
    best_f1, best_threshold : the best that moving the threshold could give; chosen on these labels
    centring : of the true positives
    micrographs : one entry each, by name
    """

    tolerance: float
    counts: Counts
    intervals: DetectionIntervals
    curve: PrecisionRecallCurve | None
    average_precision: float
    average_precision_interval: Interval
    best_f1: float
    best_threshold: float
    centring: CentringError
    micrographs: tuple[MicrographScores, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one set of picks against one set of labels.

    Parameters
    ----------
    tolerances : the asked tolerance first
    diameter_px : median over micrographs
    pixel_size_angstrom : of all micrographs; None when unknown or not the same
    pixel_mask, box_one_to_one, box_as_released : the published measures, of the kept picks without the ignored ones
    calibration : None unless scores are probabilities
    notes : what a reader must know before quoting a number
    diameter_range_px : smallest and largest diameter of a micrograph
    """

    tolerances: tuple[ToleranceScores, ...]
    diameter_px: float
    pixel_size_angstrom: float | None
    pixel_mask: PixelMaskScores | None
    box_one_to_one: BoxScores
    box_as_released: BoxScores
    calibration: Calibration | None
    notes: tuple[str, ...]
    diameter_range_px: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def main(self) -> ToleranceScores:
        """At the tolerance that was asked for."""
        return self.tolerances[0]


def _match(one: LabelledPicks, tolerance: float) -> Match:
    return match_picks(
        one.kept.xy_px, one.particles_xy_px, one.uncertain_xy_px, max_distance_px=tolerance * one.diameter_px
    )


def _rank(one: LabelledPicks, tolerance: float) -> RankedOutcomes:
    return rank_outcomes(
        one.curve.xy_px,
        one.curve.score,
        one.particles_xy_px,
        one.uncertain_xy_px,
        max_distance_px=tolerance * one.diameter_px,
    )


def _score_at(tolerance: float, scored: Sequence[LabelledPicks], has_scores: bool, seed: int) -> ToleranceScores:
    matches = [_match(one, tolerance) for one in scored]
    each = [match.counts for match in matches]
    ranked = [_rank(one, tolerance) for one in scored] if has_scores else []
    curve = precision_recall_curve(ranked) if has_scores else None
    best_f1, best_threshold = (float("nan"), float("nan")) if curve is None else curve.best_f1()
    generator = np.random.default_rng(seed)
    return ToleranceScores(
        tolerance=tolerance,
        counts=pooled(each),
        intervals=bootstrap_counts(each, generator=generator),
        curve=curve,
        average_precision=float("nan") if curve is None else curve.average_precision,
        average_precision_interval=bootstrap_average_precision(ranked, generator=generator),
        best_f1=best_f1,
        best_threshold=best_threshold,
        centring=centring_error(
            np.concatenate([one.kept.xy_px[m.pairs.first] for one, m in zip(scored, matches, strict=True)]),
            np.concatenate([one.particles_xy_px[m.pairs.second] for one, m in zip(scored, matches, strict=True)]),
        ),
        micrographs=tuple(
            MicrographScores(one.name, len(one.kept), len(one.particles_xy_px), len(one.uncertain_xy_px), counts)
            for one, counts in zip(scored, each, strict=True)
        ),
    )


def _without_ignored(one: LabelledPicks) -> NDArray[np.float64]:
    """Kept picks but those on uncertain labels, which the published measures know nothing of."""
    return one.kept.xy_px[~_match(one, TOLERANCES[0]).is_ignored]


def _pixel_mask(
    scored: Sequence[LabelledPicks], kept: Sequence[NDArray[np.float64]], notes: list[str]
) -> PixelMaskScores | None:
    shapes = [one.curve.shape_yx for one in scored]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        notes.append("the picks do not say the size of their micrographs, so the pixel-mask measures are left out")
        return None
    if len(known) < len(shapes) and len(set(known)) > 1:
        notes.append("micrographs without picks have an unknown size, so the pixel-mask measures are left out")
        return None
    return pixel_mask_scores(
        [
            pixel_counts(xy, one.particles_xy_px, diameter_px=one.diameter_px, shape_yx=shape or known[0])
            for xy, one, shape in zip(kept, scored, shapes, strict=True)
        ]
    )


def _calibration(scored: Sequence[LabelledPicks], is_probability: bool) -> Calibration | None:
    """Over all candidates, since a probability must hold below the threshold too; ignored ones are left out."""
    if not is_probability:
        return None
    score, is_true = [], []
    for one in scored:
        # The curve's picks as if all were kept.
        match = _match(replace(one, kept=one.curve), TOLERANCES[0])
        true = np.zeros(len(one.curve), dtype=bool)
        true[match.pairs.first] = True
        score.append(one.curve.score[~match.is_ignored])
        is_true.append(true[~match.is_ignored])
    try:
        return calibrate(np.concatenate(score), np.concatenate(is_true))
    except ValueError as error:
        raise InputError(f"calibration was asked for, but {error}") from error


def _pixel_size(
    scored: Sequence[LabelledPicks], labels: Mapping[str, Labels], given: float | None, notes: list[str]
) -> float | None:
    """The one pixel size of all micrographs, the median of what differs by rounding; a note where there are several."""
    sizes = [given or one.kept.pixel_size_angstrom or labels[one.name].pixel_size_angstrom for one in scored]
    known = sorted(size for size in sizes if size is not None)
    if not known or known[-1] <= known[0] * SAME_PIXEL_SIZE:
        return float(np.median(known)) if known else None
    shown = ", ".join(dict.fromkeys(f"{size:.4g}" for size in known))
    notes.append(f"the micrographs have different pixel sizes ({shown} Å), so lengths are given in pixels alone")
    return None
