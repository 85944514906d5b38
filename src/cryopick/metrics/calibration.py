"""Whether scores that claim to be probabilities are: expected against observed precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Calibration:
    """Expected and observed precision.

    Parameters
    ----------
    edges : (b + 1,) limits of the score bins, 0 to 1
    count : (b,) picks per bin
    expected, observed : (b,) mean score and share of true picks; NaN in empty bins
    expected_precision, observed_precision : over all picks given
    expected_calibration_error : mean of |expected - observed| over bins, weighted by count; NaN without picks
    brier : mean squared difference between score and outcome; NaN without picks
    """

    edges: NDArray[np.float64]
    count: NDArray[np.intp]
    expected: NDArray[np.float64]
    observed: NDArray[np.float64]
    expected_precision: float
    observed_precision: float
    expected_calibration_error: float
    brier: float


def calibrate(score: ArrayLike, is_true: ArrayLike, *, bin_count: int = 10) -> Calibration:
    """Compare scores with outcomes.

    Parameters
    ----------
    score : (n,) in [0, 1]
    is_true : (n,) bool; leave ignored picks out

    Raises
    ------
    ValueError
        If a score is outside [0, 1] or NaN: it is no probability.

    References
    ----------
    C. Guo et al., ICML 2017, eq. 3 (equal-width bins); G. W. Brier, Monthly Weather Review 78, 1950.
    """
    probability = np.asarray(score, dtype=np.float64)
    outcome = np.asarray(is_true, dtype=np.float64)
    if probability.shape != outcome.shape or probability.ndim != 1:
        raise ValueError(f"scores have shape {probability.shape}, outcomes {outcome.shape}; expected two equal (n,)")
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("a score is NaN or outside 0 to 1, so these scores are not probabilities")
    edges = np.linspace(0, 1, bin_count + 1)
    which = np.minimum((probability * bin_count).astype(np.intp), bin_count - 1)  # score 1 belongs to the last bin
    count = np.bincount(which, minlength=bin_count)
    empty = np.full(bin_count, np.nan)
    expected = np.divide(np.bincount(which, probability, bin_count), count, out=empty.copy(), where=count > 0)
    observed = np.divide(np.bincount(which, outcome, bin_count), count, out=empty.copy(), where=count > 0)
    if len(probability) == 0:
        nan = float("nan")
        return Calibration(edges, count, expected, observed, nan, nan, nan, nan)
    gap = np.nan_to_num(np.abs(expected - observed))
    return Calibration(
        edges=edges,
        count=count,
        expected=expected,
        observed=observed,
        expected_precision=float(probability.mean()),
        observed_precision=float(outcome.mean()),
        expected_calibration_error=float(np.dot(gap, count) / count.sum()),
        brier=float(np.mean((probability - outcome) ** 2)),
    )
