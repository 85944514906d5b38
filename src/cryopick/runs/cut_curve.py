"""What keeping all scores from a threshold up would mean, for every threshold: of reports, and of the viewer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CURVE_POINTS = 1001


@dataclass(frozen=True, eq=False, kw_only=True)
class CutCurve:
    """Numbers at thresholds that are spread evenly over the range of the scores.

    Parameters
    ----------
    threshold : (n,) float32, rising
    kept : (n,) float32, how many scores reach it
    precision : (n,) float32, share of those that should be right; NaN where none is kept, or scores are no
        probabilities
    recall : (n,) float32, share of the particles that should be kept, taking their number as the sum of all
        probabilities, as `expected_scores` does; NaN where scores are no probabilities
    """

    threshold: NDArray[np.float32]
    kept: NDArray[np.float32]
    precision: NDArray[np.float32]
    recall: NDArray[np.float32]

    @property
    def is_expected(self) -> bool:
        """Whether the shares are known."""
        return bool(np.isfinite(self.recall).any())

    def at(self, threshold: float) -> int:
        """The point nearest a threshold."""
        return int(np.argmin(np.abs(self.threshold - np.float32(threshold))))


def cut_curve(
    sorted_score: NDArray[np.float32],
    probability: NDArray[np.floating] | None,
    *,
    thresholds: NDArray[np.float32],
) -> CutCurve:
    """The curve of scores at given thresholds.

    Parameters
    ----------
    sorted_score : (n,) finite, rising
    probability : (n,) that each of them is right; None where nobody knows
    thresholds : (m,) float32
    """
    first = np.searchsorted(sorted_score, thresholds, side="left")
    kept = (len(sorted_score) - first).astype(np.float32)
    precision = recall = np.full(len(thresholds), np.nan, np.float32)
    if probability is not None and len(sorted_score):
        tail = np.append(np.cumsum(probability[::-1], dtype=np.float64)[::-1], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = (tail[first] / kept).astype(np.float32)
            recall = (tail[first] / tail[0]).astype(np.float32)
    return CutCurve(threshold=thresholds, kept=kept, precision=precision, recall=recall)


def curve_of_run(
    score: NDArray[np.float32], probability_of: Callable[[NDArray[np.float32]], NDArray[np.floating]] | None
) -> CutCurve:
    """The curve over the range of all finite scores; where they are probabilities, over 0 to 1 at least."""
    probability: NDArray[np.floating] | None = None
    if probability_of is None:
        sorted_score = np.sort(score)
    else:
        order = np.argsort(score, kind="stable")
        # of all scores together, as the summary asks: what a picker says may depend on the whole run
        sorted_score, probability = score[order], probability_of(score)[order]
    finite = np.count_nonzero(np.isfinite(score))  # NaN sorts last
    sorted_score, probability = sorted_score[:finite], None if probability is None else probability[:finite]
    low, high = curve_range(sorted_score, is_probability=probability is not None)
    thresholds = np.linspace(low, high, CURVE_POINTS).astype(np.float32)
    return cut_curve(sorted_score, probability, thresholds=thresholds)


def curve_range(sorted_score: NDArray[np.float32], *, is_probability: bool) -> tuple[float, float]:
    """From where to where a curve goes; 0 to 1 without scores."""
    low, high = (float(sorted_score[0]), float(sorted_score[-1])) if len(sorted_score) else (0.0, 1.0)
    return (min(low, 0.0), max(high, 1.0)) if is_probability else (low, high)
