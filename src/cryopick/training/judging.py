"""How good a network's candidates are, and what their scores are worth: on held-out crops and labelled micrographs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.processing.probability import Calibration, logit
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.training.augment import LabelledCrop

if TYPE_CHECKING:
    from torch import nn

Candidates = tuple[NDArray[np.float64], NDArray[np.floating]]
"""Places (n, 2) in pixels of the image, and scores (n,)."""
NO_PARTICLES = np.zeros((0, 2))
TOLERANCE_DIAMETERS = 0.25
"""A right candidate lies no further than this many diameters from a particle's centre."""


class WithParticles(Protocol):
    """A crop, simulated, labelled or seen by a network, and its particles."""

    @property
    def xy_px(self) -> NDArray[np.float64]:
        """(n, 2)"""

    @property
    def diameter_px(self) -> NDArray[Any]:
        """(n,)"""


C = TypeVar("C", bound=WithParticles)


def typical_diameter_px(diameter_px: NDArray[np.floating], *, nominal_px: float = NOMINAL_PARTICLE_PX) -> float:
    """The median of the particles of a crop; the nominal one where there are none."""
    return float(np.median(diameter_px)) if len(diameter_px) else nominal_px


def tolerance_px(diameter_px: NDArray[np.floating], *, nominal_px: float = NOMINAL_PARTICLE_PX) -> float:
    """How far a right candidate may be off, from the diameters (n,) of a crop's particles."""
    return TOLERANCE_DIAMETERS * typical_diameter_px(diameter_px, nominal_px=nominal_px)


def outcomes_on(crop: WithParticles, found: Candidates) -> RankedOutcomes:
    """Candidates against a crop's particles; those at uncertain labels count neither way."""
    particles, uncertain = crop.xy_px, NO_PARTICLES
    if isinstance(crop, LabelledCrop):
        particles, uncertain = crop.xy_px[~crop.is_uncertain], crop.xy_px[crop.is_uncertain]
    return rank_outcomes(*found, particles, uncertain, max_distance_px=tolerance_px(crop.diameter_px))


def outcomes_of(find: Callable[[C], Candidates], crops: Iterable[C]) -> list[RankedOutcomes]:
    """What `find` finds on crops, against their particles."""
    return [outcomes_on(crop, find(crop)) for crop in crops]


def detection_scores(outcomes: Sequence[RankedOutcomes]) -> dict[str, float]:
    """Average precision as `score`, and the highest F1 of any threshold; NaN where there is none."""
    curve = precision_recall_curve(outcomes)
    return {"score": curve.average_precision, "best_f1": curve.best_f1()[0]}


def labelled_score(outcomes: Sequence[RankedOutcomes], *, is_complete: bool) -> float:
    """Average precision where all labels are complete, else the largest recall² over share of picks."""
    return precision_recall_curve(outcomes).average_precision if is_complete else sparse_score(outcomes)


def calibrated(outcomes: Sequence[RankedOutcomes], *, surest_counts: bool = False) -> Calibration:
    """What a score is worth, from candidates of held-out crops; as it is where there are no candidates at all.

    Parameters
    ----------
    surest_counts : right is what no surer candidate has found. (Where a network answers many times for a particle, the
        nearest answer, which pairing all at once would prefer, is not the one that counts.)
    """
    score = np.concatenate([one.score for one in outcomes])
    if len(score) == 0:
        return Calibration.none()
    return fit_calibration(score, np.concatenate([one.is_true if surest_counts else one.is_paired for one in outcomes]))


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


def sparse_score(outcomes: Sequence[RankedOutcomes]) -> float:
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


def device_of(network: nn.Module) -> str:
    """Where a network's weights are."""
    return str(next(network.parameters()).device)
