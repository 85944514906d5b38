"""Training crops that are whole simulated micrographs, at the scale at which a picker looks at them.

`CropGenerator` paints at working scale, which costs little; here everything happens at the pixel size of a camera, as
in `simulate_micrograph`, and the picture is resampled afterwards, as pickers do. Such a crop costs ten times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cryopick.geometry.units import Range
from cryopick.processing.scale import resample
from cryopick.simulation.crops import Crop
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import Recipe, draw_log
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager, preferred_directions
from cryopick.simulation.specimens.proteins import FAMILIES, draw_diameter, random_protein

STORED_PX = 36.0
"""Diameter of particles on the camera: larger than at working scale, so that resampling shows, and not much larger."""
HARD_FAMILIES = ("flexible", "rod", "multilobed", "shell")
"""Drawn twice as often as the others: their views differ most, or show their middle least."""
SPECIES_AT_A_TIME = 16
KEPT_SPECIES = 24


@dataclass(frozen=True)
class MicrographCrops:
    """Crops without end; crop `i` depends on the settings and `i` alone.

    Parameters
    ----------
    recipe : of the micrographs; its shape and pixel size are not used
    seed : of everything
    crop_px : side of a crop, working pixels
    particle_px : nominal particle diameter, working pixels
    diameter_error : range of the diameter over the nominal one, log-uniform
    detection_snr : range of the median particle's ideal matched-filter SNR, log-uniform; it sets the dose
    crops_per_species : of each protein, whose diameter is one at which its family exists
    """

    recipe: Recipe
    seed: int
    crop_px: int
    particle_px: float
    diameter_error: Range
    detection_snr: Range
    crops_per_species: int = 2

    def crop(self, index: int) -> Crop:
        """Crop number `index`."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, index)))
        turn, place = divmod(index, SPECIES_AT_A_TIME)
        species = turn // self.crops_per_species * SPECIES_AT_A_TIME + place
        imager = _imager(self.seed, species, self.recipe.layout.preferred_probability)
        working_px = self.particle_px * draw_log(rng, self.diameter_error)
        side = round(self.crop_px * STORED_PX / working_px)
        recipe = replace(self.recipe, shape_yx=(side, side), pixel_size_angstrom=imager.pixel_size_angstrom)
        simulated = simulate_micrograph(
            recipe, self.seed, imagers=[imager], index=index, target_snr=draw_log(rng, self.detection_snr)
        )
        return as_crop(simulated, crop_px=self.crop_px)


@lru_cache(maxsize=KEPT_SPECIES)
def _imager(seed: int, number: int, preferred_probability: float) -> SpecimenImager:
    """Of species `number` of a seed, kept while it may still be asked for."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number)))
    family = str(rng.choice(FAMILIES + HARD_FAMILIES))
    diameter = draw_diameter(rng, family)
    pixel_size = diameter / STORED_PX
    volume = random_protein(rng, diameter_angstrom=diameter, family=family, voxel_size_angstrom=pixel_size)
    preferred = preferred_directions(rng, preferred_probability)
    return SpecimenImager(Specimen(volume, diameter, preferred), pixel_size)


def as_crop(simulated: SimulatedMicrograph, *, crop_px: int) -> Crop:
    """A square micrograph resampled to `crop_px`; particles whose centre lies on junk are not to be picked."""
    image, scale = resample(simulated.micrograph.pixels, factor=crop_px / simulated.micrograph.shape_yx[0])
    row, column = (
        np.minimum((np.arange(crop_px) + 0.5) / factor, side - 1).astype(np.intp)
        for factor, side in zip(scale.factor_yx, simulated.micrograph.shape_yx, strict=True)
    )
    near = np.ix_(row, column)
    is_picked = ~simulated.is_on_junk
    order = np.argsort(~is_picked, kind="stable")
    number = np.arange(max(int(simulated.instances.max()), len(order)) + 1)
    number[1 + order] = 1 + np.arange(len(order))  # those to be picked come first
    chosen = order[: int(is_picked.sum())]
    return Crop(
        image=image,
        xy_px=scale.to_working_xy(simulated.xy_px[chosen]),
        diameter_px=(simulated.diameter_px[chosen] * scale.factor).astype(np.float32),
        snr=simulated.snr[chosen],
        visibility=simulated.visibility[chosen],
        instances=number[simulated.instances[near]].astype(np.int32),
        junk=simulated.junk[near],
        pixel_size_angstrom=(simulated.micrograph.pixel_size_angstrom or 1.0) / scale.factor,
        optics=simulated.ctf,
    )
