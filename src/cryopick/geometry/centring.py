"""How far off centres are, read off from how much several sets of centres of the same objects disagree.

Of two sets alone only the sum of their variances shows; of three or more each one's follows (three-cornered hat:
J. E. Gray, D. W. Allan, 28th Annual Symposium on Frequency Control, 1974; F. E. Grubbs, J. Am. Stat. Assoc. 43, 1948).
That rests on errors that are independent from set to set: an error that all share shows in no difference, and comes on
top.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FEWEST_PAIRS = 5
"""Pairs of centres of one object, from which on anything is told."""
MEDIAN_DISTANCE = float(np.sqrt(2 * np.log(2)))
"""Median distance from the centre of a round Gaussian, in its standard deviations along one axis."""
_TOWARDS_EQUAL = 1e-3
"""Weight of equal variances beside that of one pair: it decides only what no difference tells."""


def centring_errors(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) median distance of each set's centres from the objects', in the unit of `xy`; NaN where it cannot be told.

    Errors are taken for round Gaussians, independent from set to set. The median of the squared differences of each
    two sets is used, so that a few centres of other objects change little; their expectation is exact for few, too.

    Parameters
    ----------
    xy : (g, k, 2) centres of g objects in k sets, NaN where a set has none
    """
    from scipy.optimize import nnls

    _, count, _ = xy.shape
    rows, sums, pairs = [], [], 0
    for first, second in combinations(range(count), 2):
        squared = ((xy[:, first] - xy[:, second]) ** 2).sum(axis=1)
        squared = squared[np.isfinite(squared)]
        if len(squared):
            row = np.zeros(count)
            row[[first, second]] = np.sqrt(len(squared))
            rows.append(row)
            sums.append(_variance(squared) * np.sqrt(len(squared)))
            pairs += len(squared)
    if pairs < FEWEST_PAIRS:
        return np.full(count, np.nan)
    is_known = np.any(rows, axis=0)
    equal = _TOWARDS_EQUAL * (np.eye(count) - is_known / is_known.sum())[is_known]
    variance, _ = nnls(np.concatenate([rows, equal]), np.concatenate([sums, np.zeros(len(equal))]))
    return np.where(is_known, MEDIAN_DISTANCE * np.sqrt(variance), np.nan)


def _variance(squared: NDArray[np.float64]) -> float:
    """Along one axis, of differences whose squared lengths (n,) are given."""
    # squared lengths are exponentially distributed with a mean of two variances; their order statistics: A. Renyi, 1953
    expected = np.cumsum(1 / np.arange(len(squared), 0, -1))
    return float(np.median(squared) / (2 * np.median(expected)))


def error_of_mean(errors: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Median distance of weighted means of centres from the objects', where the sets' errors are independent.

    Parameters
    ----------
    errors : (k,) of the sets, from `centring_errors`; means of which one's is unknown count not
    weights : (g, k) of each mean, adding up to 1, 0 where a set has no centre

    Returns
    -------
    error : NaN where nothing is known
    """
    is_known = ~((weights > 0) & np.isnan(errors)).any(axis=1)
    if not is_known.any():
        return float("nan")
    squares = (weights[is_known] ** 2) @ np.nan_to_num(errors) ** 2
    return float(np.sqrt(squares.mean()))
