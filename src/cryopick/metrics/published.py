"""The measures that published pickers report, so that their tables can be compared; none of them is our headline.

*Pixel mask* (CryoSegNet, CryoTransformer): discs are drawn at picks and at labels, and their pixels are compared. *Box
IoU* (cryo-EMMAE): squares around picks and labels overlap by more than a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.pairing import Candidates, pair_candidates

SMOOTHING = 0.001
"""Added to numerators and denominators of the pixel measures by the released evaluation script of CryoSegNet."""


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of predicted and true discs: in both, only predicted, only true."""

    both: int = 0
    only_predicted: int = 0
    only_true: int = 0

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            self.both + other.both, self.only_predicted + other.only_predicted, self.only_true + other.only_true
        )

    @property
    def precision(self) -> float:
        return (self.both + SMOOTHING) / (self.both + self.only_predicted + SMOOTHING)

    @property
    def recall(self) -> float:
        return (self.both + SMOOTHING) / (self.both + self.only_true + SMOOTHING)

    @property
    def dice(self) -> float:
        return (2 * self.both + SMOOTHING) / (2 * self.both + self.only_predicted + self.only_true + SMOOTHING)


@dataclass(frozen=True)
class PixelMaskScores:
    """Pixel precision, recall and Dice, aggregated in the three ways in use; F1 is taken of the aggregated values.

    Parameters
    ----------
    pooled : pixels of all micrographs together (its F1 equals its Dice)
    mean : mean over micrographs, those without picks included
    maximum : the best micrograph for each number, as the script released with CryoSegNet does; it flatters
    """

    pooled: PixelAggregate
    mean: PixelAggregate
    maximum: PixelAggregate


@dataclass(frozen=True)
class PixelAggregate:
    precision: float
    recall: float
    f1: float
    dice: float


def pixel_counts(
    picks_xy_px: NDArray[np.float64],
    particles_xy_px: NDArray[np.float64],
    *,
    diameter_px: float,
    shape_yx: tuple[int, int],
) -> PixelCounts:
    """Compare filled discs of one micrograph; the radius is `int(diameter_px / 2)`, for picks and labels alike.

    Parameters
    ----------
    picks_xy_px, particles_xy_px : (n, 2), (m, 2)
    """
    predicted = draw_discs(picks_xy_px, diameter_px=diameter_px, shape_yx=shape_yx)
    true = draw_discs(particles_xy_px, diameter_px=diameter_px, shape_yx=shape_yx)
    both = int(np.count_nonzero(predicted & true))
    return PixelCounts(both, int(np.count_nonzero(predicted)) - both, int(np.count_nonzero(true)) - both)


def pixel_mask_scores(counts: Sequence[PixelCounts]) -> PixelMaskScores:
    """Aggregate the pixel counts of micrographs."""
    if not counts:
        nan = float("nan")
        nothing = PixelAggregate(nan, nan, nan, nan)
        return PixelMaskScores(nothing, nothing, nothing)
    total = sum(counts, PixelCounts())
    each = np.array([[c.precision, c.recall, c.dice] for c in counts])
    return PixelMaskScores(
        pooled=_aggregate(total.precision, total.recall, total.dice),
        mean=_aggregate(*each.mean(axis=0)),
        maximum=_aggregate(*each.max(axis=0)),
    )


def draw_discs(xy_px: NDArray[np.float64], *, diameter_px: float, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """(h, w) mask, True within `int(diameter_px / 2)` of a centre rounded to whole pixels; parts outside are cut."""
    height, width = shape_yx
    radius = int(diameter_px / 2)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x**2 + y**2 <= radius**2
    # A frame of one disc around the image, so that discs that are partly outside need no special case.
    frame = 2 * radius + 1
    mask = np.zeros((height + 2 * frame, width + 2 * frame), dtype=bool)
    for column, row in np.rint(np.reshape(xy_px, (-1, 2))).astype(np.intp):
        if -radius <= column < width + radius and -radius <= row < height + radius:
            top, left = row + frame - radius, column + frame - radius
            mask[top : top + disc.shape[0], left : left + disc.shape[1]] |= disc
    return mask[frame : frame + height, frame : frame + width]


@dataclass(frozen=True)
class BoxScores:
    """Precision, recall and F1 of boxes.

    Parameters
    ----------
    is_one_to_one : False for the measure as released with cryo-EMMAE, where one pick may serve several labels, so that
        precision can exceed 1
    mean_iou : over labels, of the nearest pick's box, 0 without picks (as released); NaN without labels
    """

    precision: float
    recall: float
    f1: float
    mean_iou: float
    is_one_to_one: bool

    @property
    def f3(self) -> float:
        """F-beta with beta 3, recall nine times as important as precision: the last column of cryo-EMMAE's program.

        Of precision and recall rounded to three decimals, as the program has them.
        """
        precision, recall = (round(float(np.nan_to_num(one)), 3) for one in (self.precision, self.recall))
        if np.isnan(self.precision) and np.isnan(self.recall):
            return float("nan")
        total = 9 * precision + recall
        return 10 * precision * recall / total if total > 0 else 0.0


@dataclass(frozen=True)
class BoxCounts:
    """One micrograph's boxes: picks, labels, one-to-one hits, labels hit by their nearest pick, and the sum of IoU."""

    picks: int = 0
    labels: int = 0
    paired: int = 0
    nearest_hits: int = 0
    iou_sum: float = 0.0

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(
            self.picks + other.picks,
            self.labels + other.labels,
            self.paired + other.paired,
            self.nearest_hits + other.nearest_hits,
            self.iou_sum + other.iou_sum,
        )


def box_counts(
    picks_xy_px: NDArray[np.float64], particles_xy_px: NDArray[np.float64], *, side_px: float, min_iou: float = 0.6
) -> BoxCounts:
    """Compare equal squares of side `side_px` around (n, 2) picks and (m, 2) labels; a hit has IoU > `min_iou`."""
    from scipy.spatial import cKDTree

    n, m = len(picks_xy_px), len(particles_xy_px)
    if n == 0 or m == 0:
        return BoxCounts(picks=n, labels=m)
    tree = cKDTree(picks_xy_px)
    _, nearest = tree.query(particles_xy_px)
    nearest_iou = square_iou(picks_xy_px[nearest], particles_xy_px, side_px=side_px)
    # Squares overlap when they are nearer than one side along both axes (Chebyshev distance).
    near = tree.query_ball_point(particles_xy_px, side_px, p=np.inf, return_sorted=True)
    label = np.repeat(np.arange(m), [len(found) for found in near])
    pick = np.concatenate([np.asarray(found, dtype=np.intp) for found in near])
    iou = square_iou(picks_xy_px[pick], particles_xy_px[label], side_px=side_px)
    is_hit = iou > min_iou
    pairs = pair_candidates(Candidates(pick[is_hit], label[is_hit], 1 - iou[is_hit], n, m))
    return BoxCounts(n, m, len(pairs), int(np.count_nonzero(nearest_iou > min_iou)), float(nearest_iou.sum()))


def box_scores(counts: Sequence[BoxCounts]) -> tuple[BoxScores, BoxScores]:
    """Pooled over micrographs: (one-to-one, as released with cryo-EMMAE). Micrographs without picks are included."""
    total = sum(counts, BoxCounts())
    mean_iou = total.iou_sum / total.labels if total.labels else float("nan")

    def scores(hits: int, is_one_to_one: bool) -> BoxScores:
        precision = hits / total.picks if total.picks else float("nan")
        recall = hits / total.labels if total.labels else float("nan")
        return BoxScores(precision, recall, _f1(precision, recall), mean_iou, is_one_to_one)

    return scores(total.paired, True), scores(total.nearest_hits, False)


def mean_over_sets(scores: Sequence[BoxScores]) -> BoxScores:
    """The plain mean of each number over data sets, as in cryo-EMMAE's Table 1: a small set counts as much as a large
    one, and F1 is the mean of the sets' F1. Sets without a number (NaN) do not count.

    Raises
    ------
    ValueError
        If there are none, or they were counted differently.
    """
    if len({one.is_one_to_one for one in scores}) != 1:
        raise ValueError(f"expected scores of one kind, got {len(scores)} of {len({o.is_one_to_one for o in scores})}")
    values = np.array([[one.precision, one.recall, one.f1, one.mean_iou] for one in scores])
    known = ~np.isnan(values)
    means = np.where(known, values, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    precision, recall, f1, mean_iou = means.tolist()
    return BoxScores(precision, recall, f1, mean_iou, scores[0].is_one_to_one)


def square_iou(
    first_xy_px: NDArray[np.float64], second_xy_px: NDArray[np.float64], *, side_px: float
) -> NDArray[np.float64]:
    """(n,) intersection over union of axis-aligned squares of equal side, row by row."""
    overlap = np.clip(side_px - np.abs(first_xy_px - second_xy_px), 0, None)  # (n, 2)
    intersection = overlap[:, 0] * overlap[:, 1]
    return np.asarray(intersection / (2 * side_px**2 - intersection))


def _aggregate(precision: float, recall: float, dice: float) -> PixelAggregate:
    return PixelAggregate(float(precision), float(recall), _f1(float(precision), float(recall)), float(dice))


def _f1(precision: float, recall: float) -> float:
    if np.isnan(precision) and np.isnan(recall):
        return float("nan")
    total = np.nan_to_num(precision) + np.nan_to_num(recall)
    return float(2 * np.nan_to_num(precision) * np.nan_to_num(recall) / total) if total > 0 else 0.0
