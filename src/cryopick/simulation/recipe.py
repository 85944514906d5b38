"""Every range that a simulated micrograph is drawn from, in one frozen object that TOML can hold."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.units import Range
from cryopick.settings import to_toml


@dataclass(frozen=True, kw_only=True)
class LayoutRanges:
    """How many particles and where.

    Parameters
    ----------
    coverage : projected particle discs / micrograph area; above about 0.5 particles are packed in a layer
    spacing_diameters : smallest distance of two centres; below 1 neighbours may overlap
    empty_probability : share of micrographs without any particle
    clumped_probability, packed_probability : share of micrographs with patchy, with closely packed particles
    species : number of species per micrograph, whole numbers
    preferred_probability : share of species that mostly show few of their views
    """

    coverage: Range = (0.03, 0.6)
    spacing_diameters: Range = (0.85, 1.4)
    empty_probability: float = 0.05
    clumped_probability: float = 0.25
    packed_probability: float = 0.15
    species: Range = (1, 1)
    preferred_probability: float = 0.3


@dataclass(frozen=True, kw_only=True)
class IceRanges:
    """The film.

    Parameters
    ----------
    thickness_angstrom : mean, log-uniform; typical holes hold 200 to 1000 Å
    gradient, lens, waviness : relative thickness changes, see `ice.relative_thickness`
    mean_free_path_angstrom : of electrons that stay inside the aperture
    structure_factor : see `ice.graininess_volt_angstrom`
    clutter : amplitude of unfolded protein and other small debris, relative to the ice's own graininess
    """

    thickness_angstrom: Range = (150.0, 1000.0)
    gradient: Range = (0.0, 0.3)
    lens: Range = (0.0, 0.3)
    waviness: Range = (0.0, 0.03)
    mean_free_path_angstrom: Range = (2500.0, 4000.0)
    structure_factor: Range = (0.05, 0.3)
    clutter: Range = (0.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class DirtRanges:
    """What should not be picked; each probability is that of meeting the thing in one micrograph.

    Parameters
    ----------
    carbon_thickness_angstrom, gold_thickness_angstrom : of the support film
    hole_radius_angstrom : log-uniform; 6000 Å is an R1.2/1.3 grid
    film_share : how far the film reaches into the micrograph
    blob_count, blob_diameter_angstrom, blob_thickness_angstrom : contamination; log-uniform, count in whole numbers
    crystal_grain_angstrom : grain size of crystalline ice
    crystal_strength : standard deviation of its texture, in units of a particle's greatest potential; log-uniform
    crystal_share : how much of the micrograph it takes
    fibre_count, fibre_width_angstrom : filaments
    fragment_count, aggregate_count : broken particles and heaps of particles, relative to the number of particles
    """

    carbon_probability: float = 0.2
    carbon_thickness_angstrom: Range = (80.0, 250.0)
    gold_probability: float = 0.06
    gold_thickness_angstrom: Range = (300.0, 500.0)
    hole_radius_angstrom: Range = (5000.0, 40000.0)
    film_share: Range = (0.05, 0.45)
    blob_probability: float = 0.4
    blob_count: Range = (1, 25)
    blob_diameter_angstrom: Range = (50.0, 1500.0)
    blob_thickness_angstrom: Range = (40.0, 800.0)
    crystalline_probability: float = 0.06
    crystal_grain_angstrom: Range = (60.0, 400.0)
    crystal_strength: Range = (0.3, 3.0)
    crystal_share: Range = (0.1, 0.6)
    fibre_probability: float = 0.1
    fibre_count: Range = (1, 6)
    fibre_width_angstrom: Range = (15.0, 120.0)
    fragment_probability: float = 0.3
    fragment_count: Range = (0.05, 0.5)
    aggregate_probability: float = 0.2
    aggregate_count: Range = (0.01, 0.06)


@dataclass(frozen=True, kw_only=True)
class OpticsRanges:
    """The microscope.

    Parameters
    ----------
    voltage_kv, spherical_aberration_mm : one of these values
    defocus_um : mean underfocus
    astigmatism_um : half difference of the two defoci
    b_factor_angstrom2 : envelope `exp(-B k^2 / 4)`
    phase_plate_probability, phase_shift_deg : with a plate, the defocus is drawn from `phase_plate_defocus_um`
    """

    voltage_kv: tuple[float, ...] = (300.0, 200.0)
    spherical_aberration_mm: tuple[float, ...] = (2.7, 2.0, 1.4)
    defocus_um: Range = (0.6, 3.5)
    astigmatism_um: Range = (0.0, 0.08)
    amplitude_contrast: Range = (0.07, 0.14)
    b_factor_angstrom2: Range = (20.0, 250.0)
    phase_plate_probability: float = 0.07
    phase_shift_deg: Range = (40.0, 120.0)
    phase_plate_defocus_um: Range = (0.3, 1.2)


@dataclass(frozen=True, kw_only=True)
class DetectorRanges:
    """The camera.

    Parameters
    ----------
    dose_e_per_angstrom2 : log-uniform
    dqe_zero : detective quantum efficiency at zero frequency, the share of electrons that count
    mtf_nyquist : modulation transfer at the Nyquist frequency
    gain_residue : relative error of the gain reference; zero in half of the micrographs
    dead_line_probability, hot_pixel_fraction : unremoved faults
    border_probability, border_share : replicated borders, as a fraction of the side
    drift_angstrom : how far the film moved at an even pace during the exposure, what motion correction has left of it
    """

    dose_e_per_angstrom2: Range = (15.0, 70.0)
    dqe_zero: Range = (0.35, 0.95)
    mtf_nyquist: Range = (0.15, 0.7)
    gain_residue: Range = (0.0, 0.008)
    dead_line_probability: float = 0.05
    hot_pixel_fraction: Range = (0.0, 2e-6)
    border_probability: float = 0.12
    border_share: Range = (0.004, 0.035)
    drift_angstrom: Range = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class LookRanges:
    """The state in which an archive holds the micrograph; the probabilities are independent.

    Parameters
    ----------
    low_pass_probability : Gaussian low-pass with its half height at `low_pass_angstrom`, or at the particle's diameter
        divided by `low_pass_per_diameter` (log-uniform; published 8-bit archives go down to 2)
    coarser_probability : shrunk and grown again
    high_pass_probability, high_pass_diameters : Gaussian high-pass, half height in particle diameters
    denoise_probability : non-local means, bilateral, median or CLAHE on 8 bits
    eight_bit_probability, jpeg_probability, jpeg_quality : storage; JPEG implies 8 bits
    """

    low_pass_probability: float = 0.3
    low_pass_angstrom: Range = (10.0, 30.0)
    low_pass_per_diameter: Range = (1.8, 9.0)
    coarser_probability: float = 0.08
    high_pass_probability: float = 0.15
    high_pass_diameters: Range = (1.5, 8.0)
    denoise_probability: float = 0.15
    eight_bit_probability: float = 0.3
    jpeg_probability: float = 0.15
    jpeg_quality: Range = (60, 97)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All ranges of the simulator, in the order in which electrons meet things.

    Parameters
    ----------
    shape_yx : rows, columns of a micrograph
    pixel_size_angstrom : Å per pixel
    layout, ice, dirt, optics, detector, look : see their classes
    """

    shape_yx: tuple[int, int] = (4096, 4096)
    pixel_size_angstrom: float = 1.5
    layout: LayoutRanges = field(default_factory=LayoutRanges)
    ice: IceRanges = field(default_factory=IceRanges)
    dirt: DirtRanges = field(default_factory=DirtRanges)
    optics: OpticsRanges = field(default_factory=OpticsRanges)
    detector: DetectorRanges = field(default_factory=DetectorRanges)
    look: LookRanges = field(default_factory=LookRanges)

    def __post_init__(self) -> None:
        if len(self.shape_yx) != 2 or any(side != int(side) for side in self.shape_yx):
            raise SettingsError(f"shape_yx is {self.shape_yx}, expected two whole numbers: rows, columns")
        if min(self.shape_yx) < 32:
            raise SettingsError(f"shape_yx is {self.shape_yx}; a simulated micrograph has at least 32 pixels a side")
        if not self.pixel_size_angstrom > 0:
            raise SettingsError(f"pixel_size_angstrom is {self.pixel_size_angstrom:g}, expected a positive number of Å")
        if not self.detector.dose_e_per_angstrom2[0] > 0:
            low, high = self.detector.dose_e_per_angstrom2
            raise SettingsError(f"dose is {low:g} to {high:g} electrons per Å², expected more than 0")
        for group in ("layout", "ice", "dirt", "optics", "detector", "look"):
            _check_ranges(group, getattr(self, group))


def named_recipe(name: str) -> Recipe:
    """A recipe of `RECIPE_NAMES`; an unknown name raises `SettingsError` listing them."""
    if name not in RECIPE_NAMES:
        raise SettingsError(f"recipe {name!r} is unknown; known: {', '.join(RECIPE_NAMES)}")
    if name == "general":
        return Recipe()
    no_dirt = DirtRanges(
        carbon_probability=0.0,
        gold_probability=0.0,
        blob_probability=0.0,
        crystalline_probability=0.0,
        fibre_probability=0.0,
        fragment_probability=0.0,
        aggregate_probability=0.0,
    )
    raw = LookRanges(
        low_pass_probability=0.0,
        coarser_probability=0.0,
        high_pass_probability=0.0,
        denoise_probability=0.0,
        eight_bit_probability=0.0,
        jpeg_probability=0.0,
    )
    scattered = LayoutRanges(empty_probability=0.0, clumped_probability=0.0, packed_probability=0.0)
    good_camera = DetectorRanges(
        gain_residue=(0.0, 0.0), dead_line_probability=0.0, hot_pixel_fraction=(0.0, 0.0), border_probability=0.0
    )
    even_ice = replace(IceRanges(), gradient=(0.0, 0.2), lens=(0.0, 0.2), waviness=(0.0, 0.02))
    plain_optics = replace(OpticsRanges(), phase_plate_probability=0.0)
    clean = Recipe(layout=scattered, ice=even_ice, dirt=no_dirt, optics=plain_optics, detector=good_camera, look=raw)
    if name == "clean":
        return clean
    if name == "validation":
        return _validation(raw)
    silent_ice = replace(
        even_ice,
        thickness_angstrom=(200.0, 200.0),
        structure_factor=(0.0, 0.0),
        clutter=(0.0, 0.0),
        gradient=(0.0, 0.0),
        lens=(0.0, 0.0),
        waviness=(0.0, 0.0),
    )
    if name == "noise-light":
        return replace(
            clean,
            layout=replace(scattered, spacing_diameters=(1.3, 1.3), coverage=(0.25, 0.25), preferred_probability=0.0),
            ice=silent_ice,
            optics=replace(plain_optics, b_factor_angstrom2=(0.0, 0.0), defocus_um=(1.0, 2.5)),
            detector=replace(good_camera, dose_e_per_angstrom2=(5000.0, 5000.0), mtf_nyquist=(1.0, 1.0)),
        )
    # The segmentation + CRF work: uniform views, centres further apart than the box, radial CTF at 300 kV without
    # envelope, white noise only; its dose-like figure is a variance ratio of 0.1 over the whole micrograph.
    return replace(
        clean,
        shape_yx=(4096, 4096),
        pixel_size_angstrom=1.77,
        layout=replace(scattered, spacing_diameters=(1.6, 1.6), coverage=(0.08, 0.08), preferred_probability=0.0),
        ice=silent_ice,
        optics=replace(
            plain_optics,
            voltage_kv=(300.0,),
            spherical_aberration_mm=(2.7,),
            amplitude_contrast=(0.1, 0.1),
            defocus_um=(1.6, 3.3),
            astigmatism_um=(0.0, 0.0),
            b_factor_angstrom2=(0.0, 0.0),
        ),
        detector=replace(good_camera, mtf_nyquist=(1.0, 1.0)),
    )


def _validation(raw: LookRanges) -> Recipe:
    """One session that pickers can be judged on by a map: dirt and film, but one microscope, no preferred views, raw.

    Pixels of 5 Å over micrographs of 1024 px hold some hundred particles each at a few seconds a micrograph; the dose
    is such that a map of some hundred particles of 2 MDa ends near 24 Å, short of its Nyquist frequency.
    """
    return Recipe(
        shape_yx=(1024, 1024),
        pixel_size_angstrom=5.0,
        layout=LayoutRanges(
            coverage=(0.2, 0.35),
            empty_probability=0.0,
            clumped_probability=0.0,
            packed_probability=0.0,
            preferred_probability=0.0,
        ),
        ice=IceRanges(thickness_angstrom=(300.0, 500.0)),
        dirt=DirtRanges(
            carbon_probability=0.4,
            gold_probability=0.0,
            blob_probability=0.7,
            fragment_probability=0.5,
            aggregate_probability=0.4,
        ),
        optics=OpticsRanges(
            voltage_kv=(300.0,),
            spherical_aberration_mm=(2.7,),
            defocus_um=(1.5, 3.0),
            amplitude_contrast=(0.1, 0.1),
            b_factor_angstrom2=(80.0, 80.0),
            phase_plate_probability=0.0,
        ),
        detector=DetectorRanges(dose_e_per_angstrom2=(4.0, 4.0), border_probability=0.0),
        look=raw,
    )


RECIPE_NAMES = ("general", "clean", "noise-light", "segmentation-crf", "validation")
"""`general`: everything. `clean`: physical noise, no dirt, raw. `noise-light`: nearly noiseless, for reconstructions.
`segmentation-crf`: as the segmentation + CRF picker's authors simulated. `validation`: one session for
`cryopick validate3d`, with dirt and film, but without what no reconstruction should meet."""


def _check_ranges(group: str, ranges: Any) -> None:
    for item in fields(ranges):
        name, value = f"{group}.{item.name}", getattr(ranges, item.name)
        if item.name.endswith("_probability"):
            if not 0 <= value <= 1:
                raise SettingsError(f"{name} is {value:g}, expected a probability in [0, 1]")
        elif item.type == "Range":
            if len(value) != 2 or not all(map(math.isfinite, value)):
                raise SettingsError(f"{name} is {value!r}, expected two finite numbers: lowest, highest")
            if value[0] > value[1]:
                raise SettingsError(
                    f"{name} is {value[0]:g} to {value[1]:g}: the lowest value is above the highest; swap them"
                )
            if value[0] < 0:
                raise SettingsError(f"{name} starts at {value[0]:g}, expected 0 or more")
        elif isinstance(value, tuple) and len(value) == 0:
            raise SettingsError(f"{name} is empty, expected at least one value")


def draw(rng: np.random.Generator, limits: Range) -> float:
    """Uniform within the limits."""
    return float(rng.uniform(*limits))


def draw_log(rng: np.random.Generator, limits: Range) -> float:
    """Uniform in the logarithm within positive limits."""
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def draw_count(rng: np.random.Generator, limits: Range) -> int:
    """Whole number, uniform within the limits, both included."""
    return int(rng.integers(int(limits[0]), int(limits[1]) + 1))


def recipe_from_mapping(values: Mapping[str, Any], base: Recipe | None = None) -> Recipe:
    """A recipe from nested tables such as TOML gives; fields that are not named keep those of `base`."""
    recipe: Recipe = _updated(base or Recipe(), values, "recipe")
    return recipe


def recipe_from_toml(text: str) -> Recipe:
    """Inverse of `recipe_to_toml`; unknown names raise `SettingsError` listing the known ones."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the recipe is not valid TOML: {error}") from error
    return recipe_from_mapping(values)


def recipe_to_toml(recipe: Recipe) -> str:
    """Every field of the recipe as TOML, scalars first, then one table per group."""
    return to_toml(asdict(recipe))


def _is_finite_number(value: object) -> bool:
    """True for numbers that a float holds; whole numbers of TOML may be longer."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _updated(target: Any, values: Mapping[str, Any], where: str) -> Any:
    known = {item.name for item in fields(target)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"{where} has no field {name!r}; known: {', '.join(sorted(known))}")
        current = getattr(target, name)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise SettingsError(f"{where}.{name} is {_shown(value)}, expected a table")
            changes[name] = _updated(current, value, f"{where}.{name}")
        elif isinstance(current, tuple):
            if not isinstance(value, list | tuple) or not all(map(_is_finite_number, value)):
                raise SettingsError(f"{where}.{name} is {_shown(value)}, expected a list of finite numbers")
            changes[name] = tuple(value)
        else:
            if not _is_finite_number(value):
                raise SettingsError(f"{where}.{name} is {_shown(value)}, expected a finite number")
            changes[name] = value
    return replace(target, **changes)
