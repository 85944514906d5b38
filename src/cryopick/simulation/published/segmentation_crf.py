"""The synthetic micrographs of the segmentation + CRF picker: projections at free places, CTF, white noise.

Nothing of a real micrograph but particles, CTF and white noise is there: no ice, dirt, solvent, dose or camera. The
noise is set by the variance of the whole clean micrograph, most of which is empty: a particle stands out more than the
ratio says, by about one over the share of the micrograph that particles cover. The `snr` of each particle in the labels
is that of an ideal matched filter.

References
----------
S.-C. Chung, P.-C. Chou, A Novel Particle Picking Pipeline for Cryo-EM Using Semantic Segmentation and Conditional
Random Field (extended abstract), and the description of its generator. Defocus of one micrograph is drawn from the
range of their list instead of the list, whose one negative value (overfocus) is left out; noise is seeded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import random_rotations
from cryopick.simulation.micrograph import Conditions, SimulatedMicrograph
from cryopick.simulation.recipe import Recipe, named_recipe, recipe_from_mapping, recipe_from_toml
from cryopick.simulation.scene import layout
from cryopick.simulation.scene.archive import Look
from cryopick.simulation.scene.layout import SILHOUETTE_LEVEL
from cryopick.simulation.scene.optics import contrast_transfer, draw_optics
from cryopick.simulation.specimens.imaging import SpecimenImager
from cryopick.types import Micrograph

NAME = "segmentation-crf"
MICROGRAPHS = 84
"""How many make up the published set (`cryopick simulate --count`)."""
_REDRAWS, _ROUNDS = 10, 20


@dataclass(frozen=True, kw_only=True)
class WholeImageNoise:
    """What this recipe has beyond the others.

    Parameters
    ----------
    particles : on every micrograph
    variance_snr : variance of the whole clean micrograph over that of the white noise
    """

    particles: int = 150
    variance_snr: float = 0.1

    def __post_init__(self) -> None:
        if self.particles < 0 or self.particles != int(self.particles):
            raise SettingsError(f"segmentation_crf.particles is {self.particles}, expected a whole number from 0")
        if not self.variance_snr > 0:
            raise SettingsError(f"segmentation_crf.variance_snr is {self.variance_snr:g}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class SegmentationCrfRecipe(Recipe):
    """A recipe of which only shape, pixel size, optics and `segmentation_crf` are used."""

    segmentation_crf: WholeImageNoise = field(default_factory=WholeImageNoise)


def segmentation_crf_recipe() -> SegmentationCrfRecipe:
    """As published: 4096 x 4096 at 1.77 Å, 150 particles, 300 kV, Cs 2.7 mm, no envelope, variance ratio 0.1."""
    return SegmentationCrfRecipe(**vars(named_recipe(NAME)))


def any_recipe_from_toml(text: str) -> Recipe:
    """A recipe of either kind, told apart by the table `segmentation_crf`."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the recipe is not valid TOML: {error}") from error
    if "segmentation_crf" in values:
        return recipe_from_mapping(values, segmentation_crf_recipe())
    return recipe_from_toml(text)


def simulate_segmentation_crf(
    recipe: SegmentationCrfRecipe,
    seed: int,
    *,
    imagers: Sequence[SpecimenImager],
    index: int = 0,
    name: str = "simulated",
) -> SimulatedMicrograph:
    """Micrograph number `index` of a seed; depends on nothing else but the recipe and the specimens.

    Centres are whole pixels more than the specimen's box L apart and at least L // 2 from every edge.

    Raises
    ------
    SettingsError
        If the particles do not fit that far apart, or species are imaged at another pixel size.
    """
    pixel_size = recipe.pixel_size_angstrom
    if not imagers or any(abs(one.pixel_size_angstrom / pixel_size - 1) > 1e-9 for one in imagers):
        raise SettingsError(f"expected species imaged at the recipe's {pixel_size:g} Å per pixel")
    seeds = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(4)
    rng_layout, rng_views, rng_optics, rng_noise = (np.random.default_rng(child) for child in seeds)
    count, box_px = int(recipe.segmentation_crf.particles), max(one.size_px for one in imagers)
    xy_px = _free_centres(rng_layout, recipe.shape_yx, count=count, box_px=box_px)
    species = rng_views.integers(len(imagers), size=count).astype(np.int32)
    euler_deg = random_rotations(count, rng_views)
    optics = replace(draw_optics(rng_optics, recipe.optics), astigmatism_angle_deg=0.0)

    clean = np.zeros(recipe.shape_yx, np.float32)
    instances = np.zeros(recipe.shape_yx, np.int32)
    power, area = np.zeros(count), np.zeros(count, np.int64)
    for number, imager in enumerate(imagers):
        members = np.flatnonzero(species == number)
        transfer = contrast_transfer((imager.size_px, imager.size_px), pixel_size, optics)
        images = imager.images(euler_deg[members], np.zeros((len(members), 2)))
        for i, image in zip(members[::-1].tolist(), images[::-1], strict=True):  # smaller numbers lie on top
            left, top = (xy_px[i] - imager.size_px // 2).astype(int)
            window = np.s_[top : top + imager.size_px, left : left + imager.size_px]
            contrast = fft.irfft2(fft.rfft2(image) * transfer, s=image.shape)
            clean[window] += contrast
            power[i] = float(np.vdot(contrast, contrast))
            silhouette = image > SILHOUETTE_LEVEL * image.max()
            instances[window][silhouette] = i + 1
            area[i] = np.count_nonzero(silhouette)
    sigma = np.sqrt(clean.var(dtype=np.float64) / recipe.segmentation_crf.variance_snr)
    pixels = clean + np.float32(sigma) * rng_noise.standard_normal(clean.shape, dtype=np.float32)
    free = np.bincount(instances.ravel(), minlength=count + 1)[1 : count + 1]
    return SimulatedMicrograph(
        micrograph=Micrograph(pixels=pixels, name=name, pixel_size_angstrom=pixel_size),
        xy_px=xy_px,
        species=species,
        euler_deg=euler_deg,
        diameter_px=np.array([imagers[int(one)].diameter_px for one in species], np.float32),
        snr=(np.sqrt(power) / max(float(sigma), 1e-30)).astype(np.float32),
        visibility=np.minimum(free / np.maximum(area, 1), 1).astype(np.float32),
        is_on_junk=np.zeros(count, bool),
        instances=instances,
        junk=np.zeros(recipe.shape_yx, bool),
        conditions=Conditions(
            optics=optics,
            ice_angstrom=0.0,
            dose_e_per_angstrom2=0.0,  # none: noise is a variance ratio
            electrons_per_pixel=0.0,
            mtf_nyquist=1.0,
            structure_factor=0.0,
            clutter=0.0,
            dirt=(),
            look=Look(),
        ),
    )


def _free_centres(
    rng: np.random.Generator, shape_yx: tuple[int, int], *, count: int, box_px: int
) -> NDArray[np.float64]:
    """(count, 2) whole pixels; each next one uniform over what the earlier ones leave free."""
    if count == 0:
        return np.zeros((0, 2))
    low = box_px // 2
    high = np.array([shape_yx[1], shape_yx[0]]) - box_px + low + 1  # so that boxes lie inside
    # discs half a box in radius that are laid at random cover 0.547 of an area and no more
    area = float(np.prod(np.maximum(high - low, 0) + box_px))
    if (high > low).all() and count * np.pi / 4 * box_px**2 < 0.55 * area:
        for _ in range(_REDRAWS):
            xy_px = np.zeros((0, 2))
            for _ in range(_ROUNDS):
                darts = rng.integers(low, high, size=(2 * count + 50, 2)).astype(np.float64)
                xy_px = np.concatenate([xy_px, darts])
                xy_px = xy_px[layout.keep_apart(xy_px, min_distance_px=box_px + 1e-6)]
                if len(xy_px) >= count:
                    return xy_px[:count]
    raise SettingsError(
        f"{count} particles do not fit on {shape_yx[1]} x {shape_yx[0]} pixels with centres more than their box "
        f"({box_px} px) apart; use a larger size, fewer particles or a smaller structure"
    )
