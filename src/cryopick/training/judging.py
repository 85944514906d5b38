"""What a network's score is worth: the share of right picks among held-out simulated candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve
from cryopick.processing.probability import Calibration, logit


def fit_calibration(score: NDArray[np.floating], is_right: NDArray[np.bool_]) -> Calibration:
    """The curve from score to the share of right picks (isotonic regression, read off at quantiles of the score).

    The share is that of the candidates given, so their mixture of easy and hard ones is part of it.

    Parameters
    ----------
    score : (n,) in [0, 1], of all candidates of the held-out crops, n > 0
    is_right : (n,) whether a candidate is paired with a particle
    """
    from sklearn.isotonic import IsotonicRegression

    x, right = logit(score), np.asarray(is_right, np.float64)
    knots = np.unique(np.quantile(x, np.linspace(0, 1, 33)))
    # a straight line through each bin's mean would still be noisy at the ends: isotonic first, then read off at knots
    fitted = IsotonicRegression(y_min=0.001, y_max=0.999, out_of_bounds="clip").fit(x, right)
    width = np.gradient(knots) if len(knots) > 1 else np.ones(1)
    smooth = [fitted.predict(np.linspace(k - w / 2, k + w / 2, 9)).mean() for k, w in zip(knots, width, strict=True)]
    return Calibration(np.stack([knots, np.maximum.accumulate(smooth)]))


def sparse_score(outcomes: list[RankedOutcomes]) -> float:
    """Largest recall² times labels over picks, over all thresholds; with complete labels precision times recall.

    Where labels are sparse, precision is unknown, but the number of picks is not: more picks than are needed to find
    the labelled particles lower the score.

    References
    ----------
    W. S. Lee and B. Liu, Learning with Positive and Unlabeled Examples, ICML 2003, section 4.
    """
    curve = precision_recall_curve(outcomes)
    if curve.particle_count == 0:
        return float("nan")
    picks = curve.true_positive + curve.false_positive
    value = curve.recall**2 * curve.particle_count / np.maximum(picks, 1)
    return float(value.max(initial=0.0))
