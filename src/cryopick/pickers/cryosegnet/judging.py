"""Judging the U-Net as the picker runs it: what it maps of crops, and the peaks that it finds there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.pickers.cryosegnet.model import ParticleMapper, map_peaks, particle_mapper
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import Candidates, device_of

if TYPE_CHECKING:
    from torch import nn

MAPPED_PARTICLE_PX = NOMINAL_PARTICLE_PX / WORKING_FACTOR
"""Diameter of particles of the nominal size in pixels of the map: the picker looks at particles larger than nominal."""


def as_mapper(network: nn.Module, task: UNetTask) -> ParticleMapper:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    return particle_mapper(network, task.seen, Calibration.none(), device=device_of(network), precision="float32")


def particle_map(mapper: ParticleMapper, image: NDArray[np.float32]) -> NDArray[Any]:
    """(h, w) in [0, 1], of an image at working scale."""
    return np.asarray(mapper.maps(mapper.view.planes(image))[0])


def peaks(mapper: ParticleMapper, crop: Crop | LabelledCrop) -> Candidates:
    """Peaks of a crop's map."""
    return map_peaks(particle_map(mapper, crop.image), particle_px=NOMINAL_PARTICLE_PX)


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

    def peaks(self) -> Candidates:
        """As the picker finds them."""
        return map_peaks(self.probability, particle_px=NOMINAL_PARTICLE_PX)


def mapped(mapper: ParticleMapper, crop: Crop) -> MappedCrop:
    """As the picker maps it: all its looks, at the size at which it works."""
    diameter_px = WORKING_FACTOR * NOMINAL_PARTICLE_PX
    scale = ScaleMap((NOMINAL_PARTICLE_PX / diameter_px, NOMINAL_PARTICLE_PX / diameter_px))
    return MappedCrop(
        probability=mapper.mean_maps(crop.image, diameter_px=diameter_px)[0],
        xy_px=scale.to_working_xy(crop.xy_px),
        diameter_px=crop.diameter_px.astype(np.float64) * scale.factor,
    )
