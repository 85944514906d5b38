"""What DeepCryoPicker's paper measures: accuracy (equation 3), and precision against recall for each view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.metrics.detection import (
    Counts,
    PrecisionRecallCurve,
    match_picks,
    pooled,
    precision_recall_curve,
    rank_outcomes,
)
from cryopick.pickers.deepcryopicker.objects import VIEWS
from cryopick.types import Picks


def accuracy(counts: Counts) -> float:
    """TP / (TP + FP + TN + FN), equation 3 as it is printed; NaN where there is nothing to count.

    The numerator lacks the true negatives, which picking does not have anyway (TN = 0), so this is the share of picks
    and missed particles together that are right.
    """
    whole = counts.true_positive + counts.false_positive + counts.false_negative
    return counts.true_positive / whole if whole else float("nan")


@dataclass(frozen=True, eq=False)
class ViewScores:
    """How well one view, or all of them, is picked.

    Parameters
    ----------
    counts : of the kept picks
    curve : over all candidates, as their score is cut
    """

    counts: Counts
    curve: PrecisionRecallCurve

    @property
    def accuracy(self) -> float:
        """Equation 3."""
        return accuracy(self.counts)


@dataclass(frozen=True, eq=False)
class ViewsResult:
    """A row of the paper's tables 5 and 7 and the curves of its figure 4.

    Parameters
    ----------
    all_views : whatever the view
    by_view : by the view's name, for the views that the labels show: picks of that view against particles of it
    view_right, pairs : of the right picks, those whose view is the label's, and all
    """

    all_views: ViewScores
    by_view: Mapping[str, ViewScores]
    view_right: int
    pairs: int

    @property
    def view_accuracy(self) -> float:
        """Share of right picks whose view is right; NaN without any."""
        return self.view_right / self.pairs if self.pairs else float("nan")


def score_views(
    candidates: Sequence[Picks],
    kept: Sequence[Picks],
    true_xy_px: Sequence[NDArray[np.float64]],
    true_view: Sequence[NDArray[np.int64]],
    *,
    max_distance_px: float,
) -> ViewsResult:
    """Compare picks and their views with labels and theirs.

    Parameters
    ----------
    candidates : of each micrograph, thinned as picks are but at every score, for the curves
    kept : the picks of each micrograph
    true_xy_px, true_view : (n, 2) centres and (n,) views of its particles: 1 top, 2 side, 3 irregular
    max_distance_px : a pick is right up to this distance from a particle that no other pick has
    """
    views = {
        name: _scores(
            [own.take(own.class_id == view) for own in candidates],
            [own.take(own.class_id == view) for own in kept],
            [xy[kinds == view] for xy, kinds in zip(true_xy_px, true_view, strict=True)],
            max_distance_px,
        )
        for view, name in VIEWS.items()
        if any((kinds == view).any() for kinds in true_view)
    }
    right = pairs = 0
    for own, xy, kinds in zip(kept, true_xy_px, true_view, strict=True):
        found = match_picks(own.xy_px, xy, np.zeros((0, 2)), max_distance_px=max_distance_px).pairs
        right += int(np.count_nonzero(own.class_id[found.first] == kinds[found.second]))
        pairs += len(found.first)
    return ViewsResult(_scores(candidates, kept, true_xy_px, max_distance_px), views, right, pairs)


def _scores(
    candidates: Sequence[Picks],
    kept: Sequence[Picks],
    true_xy_px: Sequence[NDArray[np.float64]],
    max_distance_px: float,
) -> ViewScores:
    nothing = np.zeros((0, 2))
    counts = pooled(
        match_picks(own.xy_px, xy, nothing, max_distance_px=max_distance_px).counts
        for own, xy in zip(kept, true_xy_px, strict=True)
    )
    outcomes = [
        rank_outcomes(own.xy_px, own.score, xy, nothing, max_distance_px=max_distance_px)
        for own, xy in zip(candidates, true_xy_px, strict=True)
    ]
    return ViewScores(counts, precision_recall_curve(outcomes))
