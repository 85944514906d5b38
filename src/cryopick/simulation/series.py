"""A series of simulated micrographs in a folder: its settings and its files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cryopick.errors import FormatError, InputError, RunFolderError, SettingsError
from cryopick.geometry.units import Range
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import finite_number, read_json_object
from cryopick.io.files.text import read_text
from cryopick.io.files.version import file_version
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.published.segmentation_crf import (
    SegmentationCrfRecipe,
    any_recipe_from_toml,
    simulate_segmentation_crf,
)
from cryopick.simulation.recipe import Recipe, draw_log, recipe_to_toml
from cryopick.simulation.session import check_kinds, draw_regime, simulate_of_kind
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager, preferred_directions
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.specimens.specimen import volume_from_map, volume_from_structure
from cryopick.types import Volume

SETTINGS, RECIPE = "simulation.json", "recipe.toml"
RANDOM = "random"
_MAP_SUFFIXES = (".mrc", ".map", ".ccp4")
_FINEST_VOXELS = 128
"""Voxels across a procedural protein's diameter, at most: finer detail does not matter to picking."""


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What is simulated; together with nothing else it decides every byte.

    Parameters
    ----------
    structures : files (PDB, mmCIF, MRC map), all of which occur on every micrograph, or only `random`
    proteins : with `random`, how many different procedural proteins; micrograph i shows number i modulo this
    diameter_angstrom : with `random`, their diameters, log-uniform
    seed : of everything
    recipe : ranges of everything else
    session : the kind of each micrograph of one session in their order (`session.session_kinds`); () is no session but
        micrographs that have nothing in common
    snr : sets the dose so that the median particle reaches this matched-filter SNR, of a session as `draw_regime` says;
        None draws the dose from the recipe
    """

    structures: tuple[str, ...] = (RANDOM,)
    proteins: int = 1
    diameter_angstrom: Range = (80.0, 350.0)
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    session: tuple[str, ...] = ()
    snr: float | None = None

    def __post_init__(self) -> None:
        if not self.structures:
            raise SettingsError("no structure given; expected files, or the word random")
        if RANDOM in self.structures and len(self.structures) > 1:
            raise SettingsError("structures mix random with files; give either, in two runs")
        if self.proteins < 1:
            raise SettingsError(f"proteins is {self.proteins}, expected 1 or more")
        if self.seed < 0:
            raise SettingsError(f"seed is {self.seed}, expected 0 or more")
        low, high = self.diameter_angstrom
        if not 60 <= low <= high <= 600:
            raise SettingsError(f"diameter is {low:g} to {high:g} Å, expected 60 <= lowest <= highest <= 600")
        for path in self.structures:
            if path != RANDOM and not os.path.isfile(path):
                raise InputError(f"{path}: no such file; expected a PDB, mmCIF or MRC file, or the word random")
        check_kinds(self.session)
        if self.snr is not None and not 0 < self.snr < np.inf:
            raise SettingsError(f"snr is {self.snr:g}, expected a finite number above 0")
        if self.session and self.is_random and self.proteins > 1:
            raise SettingsError(f"proteins is {self.proteins}, but a session shows one protein; give 1, or structures")
        if (self.session or self.snr is not None) and isinstance(self.recipe, SegmentationCrfRecipe):
            raise SettingsError(
                "the recipe segmentation-crf sets its own noise and knows neither sessions nor an SNR; "
                "choose another recipe, for example general"
            )

    @property
    def is_random(self) -> bool:
        return self.structures == (RANDOM,)


def simulate_one(settings: SimulationSettings, index: int, *, threads: int = 1) -> SimulatedMicrograph:
    """Micrograph number `index` of the series.

    Raises
    ------
    SettingsError
        If a session has fewer micrographs.
    """
    if settings.session and index >= len(settings.session):
        raise SettingsError(f"the session has {len(settings.session)} micrographs, number {index + 1} was asked for")
    if settings.is_random:
        most = max(1, int(settings.recipe.layout.species[1]))
        species = [(index + k) % settings.proteins for k in range(min(most, settings.proteins))]
        recipe = settings.recipe
    else:
        species = list(range(len(settings.structures)))
        layout = replace(settings.recipe.layout, species=(len(species), len(species)))
        recipe = replace(settings.recipe, layout=layout)
    imagers, name = [imager_of(settings, number) for number in species], micrograph_name(index)
    if settings.session:
        regime = draw_regime(recipe, settings.seed, imagers=imagers, snr=settings.snr)
        kind = settings.session[index]
        simulated = simulate_of_kind(
            regime, kind, settings.seed, imagers=imagers, index=index, name=name, workers=threads
        )
    elif isinstance(recipe, SegmentationCrfRecipe):
        simulated = simulate_segmentation_crf(recipe, settings.seed, imagers=imagers, index=index, name=name)
    else:
        simulated = simulate_micrograph(
            recipe,
            settings.seed,
            imagers=imagers,
            index=index,
            name=name,
            workers=threads,
            target_snr=settings.snr,
        )
    return replace(simulated, species=np.array(species, dtype=np.int32)[simulated.species])


def imager_of(settings: SimulationSettings, number: int) -> SpecimenImager:
    """Species `number` of a run, ready to be projected at the recipe's pixel size."""
    version = () if settings.is_random else file_version(Path(settings.structures[number]))
    return _imager(settings, number, version)


@lru_cache(maxsize=8)
def _imager(settings: SimulationSettings, number: int, _version: tuple[int, ...]) -> SpecimenImager:
    """As `imager_of`; a structure that was overwritten has another version, and is read again."""
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(2**32 - 1, number)))
    pixel_size = settings.recipe.pixel_size_angstrom
    diameter = 0.0  # measured
    volume: Volume
    if settings.is_random:
        diameter = draw_log(rng, settings.diameter_angstrom)
        voxel_size = max(pixel_size, diameter / _FINEST_VOXELS)
        volume = random_protein(rng, diameter_angstrom=diameter, voxel_size_angstrom=voxel_size)
    elif Path(settings.structures[number]).suffix.lower() in _MAP_SUFFIXES:
        volume = volume_from_map(settings.structures[number])
    else:
        volume = volume_from_structure(settings.structures[number], max(pixel_size, 1.0))
    preferred = preferred_directions(rng, settings.recipe.layout.preferred_probability)
    return SpecimenImager(Specimen(volume, diameter, preferred), pixel_size)


def micrograph_name(index: int) -> str:
    """`sim_0001` for index 0."""
    return f"sim_{index + 1:04d}"


def claim_folder(folder: Path, settings: SimulationSettings) -> None:
    """Make the folder ours: write the settings, or check that they are those of the earlier run."""
    text = _settings_text(settings)
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file, expected a folder to simulate into")
    if (folder / SETTINGS).is_file():
        here, recipe_here = (
            read_text(folder / name, what="the settings of a simulation") for name in (SETTINGS, RECIPE)
        )
        # As recipes, because texts of an earlier version lack the ranges that came later, at what they were then.
        if here != text or any_recipe_from_toml(recipe_here) != settings.recipe:
            raise RunFolderError(
                f"{folder}: holds a simulation with other settings (see {SETTINGS} and {RECIPE} there); "
                "repeat those settings to resume it, or choose another folder"
            )
        return
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()) and not _is_ours(folder):
        raise RunFolderError(f"{folder}: is not empty and no simulation; choose a new folder")
    write_text_atomic(folder / RECIPE, recipe_to_toml(settings.recipe))
    write_text_atomic(folder / SETTINGS, text)


def _is_ours(folder: Path) -> bool:
    """True where a run was stopped between its first two files."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} == {RECIPE}


def _settings_text(settings: SimulationSettings) -> str:
    content = {key: value for key, value in asdict(replace(settings, recipe=Recipe())).items() if key != "recipe"}
    if not settings.session:
        del content["session"]
    if settings.snr is None:
        del content["snr"]
    return json.dumps(content, indent=1) + "\n"


def read_settings(folder: Path) -> SimulationSettings:
    """The settings of a simulation folder.

    Raises
    ------
    InputError
        If a file of the settings is missing or damaged.
    SettingsError
        If a value is impossible.
    """
    path = folder / SETTINGS
    content = read_json_object(path, what="the settings of a simulation")
    structures, diameter = content.get("structures"), content.get("diameter_angstrom")
    if not isinstance(structures, list) or not all(isinstance(one, str) for one in structures):
        raise FormatError(f"{path}: structures is {str(structures)[:60]}, expected a list of files, or of random")
    if not isinstance(diameter, list) or len(diameter) != 2:
        raise FormatError(f"{path}: diameter_angstrom is {str(diameter)[:60]}, expected two numbers")
    for name in ("proteins", "seed"):
        if isinstance(content.get(name), bool) or not isinstance(content.get(name), int):
            raise FormatError(f"{path}: {name} is {str(content.get(name))[:60]}, expected a whole number")
    session, snr = content.get("session", []), content.get("snr")
    if not isinstance(session, list) or not all(isinstance(one, str) for one in session):
        raise FormatError(f"{path}: session is {str(session)[:60]}, expected a list of kinds of micrographs")
    low, high = (finite_number(one, where=f"{path}: diameter_angstrom") for one in diameter)
    return SimulationSettings(
        structures=tuple(structures),
        proteins=content["proteins"],
        diameter_angstrom=(low, high),
        seed=content["seed"],
        recipe=any_recipe_from_toml(read_text(folder / RECIPE, what="a recipe in TOML")),
        session=tuple(session),
        snr=None if snr is None else finite_number(snr, where=f"{path}: snr"),
    )
