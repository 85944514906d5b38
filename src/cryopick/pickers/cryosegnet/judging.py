"""Judging the U-Net as the picker runs it: candidates on crops, their F1, their calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.metrics.detection import PrecisionRecallCurve, RankedOutcomes, rank_outcomes
from cryopick.pickers.cryosegnet.model import ParticleMapper, map_peaks, particle_mapper
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap
from cryopick.simulation.crops import Crop
from cryopick.training.judging import fit_calibration

if TYPE_CHECKING:
    from torch import nn

MAPPED_PARTICLE_PX = NOMINAL_PARTICLE_PX / WORKING_FACTOR
"""Diameter of particles of the nominal size in pixels of the map: the picker looks at particles larger than nominal."""
NO_PARTICLES = np.zeros((0, 2))


def as_mapper(network: nn.Module, task: UNetTask) -> ParticleMapper:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    device = str(next(network.parameters()).device)
    return particle_mapper(network, task.seen, Calibration.none(), device=device, precision="float32")


def crop_outcomes(mapper: ParticleMapper, crop: Crop) -> RankedOutcomes:
    """Peaks of a crop's map against its particles, at a quarter of their diameter."""
    probability = mapper.maps(mapper.view.planes(crop.image))[0]
    xy_px, height = map_peaks(probability, particle_px=NOMINAL_PARTICLE_PX)
    return rank_outcomes(xy_px, height, crop.xy_px, NO_PARTICLES, max_distance_px=tolerance_px(crop.diameter_px))


@dataclass(frozen=True, eq=False)
class MappedCrop:
    """The U-Net's particle map of a simulated crop, and the crop's particles in its pixels.

    Parameters
    ----------
    probability : (h, w) in [0, 1]
    xy_px, diameter_px : (n, 2) and (n,)
    """

    probability: NDArray[Any]
    xy_px: NDArray[np.float64]
    diameter_px: NDArray[np.float64]


def mapped(mapper: ParticleMapper, crop: Crop) -> MappedCrop:
    """As the picker maps it: all its looks, at the size at which it works."""
    diameter_px = WORKING_FACTOR * NOMINAL_PARTICLE_PX
    scale = ScaleMap((NOMINAL_PARTICLE_PX / diameter_px, NOMINAL_PARTICLE_PX / diameter_px))
    return MappedCrop(
        probability=mapper.mean_maps(crop.image, diameter_px=diameter_px)[0],
        xy_px=scale.to_working_xy(crop.xy_px),
        diameter_px=crop.diameter_px.astype(np.float64) * scale.factor,
    )


def picked_outcomes(mapper: ParticleMapper, crop: Crop) -> RankedOutcomes:
    """Peaks as the picker finds them against the crop's particles, at a quarter of their diameter."""
    seen = mapped(mapper, crop)
    return outcomes_on(seen, *map_peaks(seen.probability, particle_px=NOMINAL_PARTICLE_PX))


def outcomes_on(crop: MappedCrop, xy_px: NDArray[np.float64], score: NDArray[np.floating]) -> RankedOutcomes:
    """Candidates in pixels of a crop's map against its particles, at a quarter of their diameter."""
    return rank_outcomes(xy_px, score, crop.xy_px, NO_PARTICLES, max_distance_px=tolerance_px(crop.diameter_px))


def tolerance_px(diameter_px: NDArray[np.floating]) -> float:
    """A quarter of the diameter of a crop's particles (n,)."""
    return 0.25 * (float(np.median(diameter_px)) if len(diameter_px) else NOMINAL_PARTICLE_PX)


def best_f1(curve: PrecisionRecallCurve) -> float:
    """Highest F1 of any threshold; NaN where there is none."""
    return curve.best_f1()[0]


def calibrated(outcomes: list[RankedOutcomes]) -> Calibration:
    """What a score is worth, from candidates of held-out crops; as it is where there are no candidates at all."""
    score = np.concatenate([one.score for one in outcomes])
    if len(score) == 0:
        return Calibration.none()
    return fit_calibration(score, np.concatenate([one.is_paired for one in outcomes]))
