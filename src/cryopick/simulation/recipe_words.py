"""A recipe from what users type: a name or a TOML file, and the few ranges that have options of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.units import parse_range
from cryopick.io.files.text import read_text
from cryopick.simulation.published.segmentation_crf import NAME as SEGMENTATION_CRF
from cryopick.simulation.published.segmentation_crf import any_recipe_from_toml, segmentation_crf_recipe
from cryopick.simulation.recipe import RECIPE_NAMES, Recipe, named_recipe

_UNITS_UM = {"": 1.0, "um": 1.0, "µm": 1.0, "A": 1e-4, "Å": 1e-4, "nm": 1e-3}
_UNITS_DOSE = {"": 1.0, "e/A2": 1.0, "e/Å2": 1.0}


def recipe_with(
    name_or_path: str,
    *,
    defocus: str | None = None,
    dose: str | None = None,
    size: str | None = None,
    pixel_size_angstrom: float | None = None,
) -> Recipe:
    """The named recipe, or that of a TOML file, with some ranges replaced.

    Parameters
    ----------
    defocus : such as `0.8-2.5um`; without unit µm
    dose : such as `40` or `20-60`, electrons per Å²
    size : rows x columns, such as `4096x4096`
    pixel_size_angstrom : Å per pixel

    Raises
    ------
    SettingsError
        Impossible or unreadable values, an unknown name.
    """
    recipe = _base(name_or_path)
    if defocus is not None:
        limits = parse_range(defocus, what="defocus", units=_UNITS_UM)
        recipe = replace(recipe, optics=replace(recipe.optics, defocus_um=limits))
    if dose is not None:
        limits = parse_range(dose, what="dose", units=_UNITS_DOSE)
        recipe = replace(recipe, detector=replace(recipe.detector, dose_e_per_angstrom2=limits))
    if size is not None:
        match = re.fullmatch(r"\s*([0-9]+)\s*[xX×]\s*([0-9]+)\s*", size)
        if match is None:
            raise SettingsError(f"size {size!r} not understood; expected rows x columns such as 4096x4096")
        recipe = replace(recipe, shape_yx=(int(match[1]), int(match[2])))
    if pixel_size_angstrom is not None:
        recipe = replace(recipe, pixel_size_angstrom=pixel_size_angstrom)
    return recipe


def _base(name_or_path: str) -> Recipe:
    if name_or_path == SEGMENTATION_CRF:
        return segmentation_crf_recipe()
    if name_or_path in RECIPE_NAMES:
        return named_recipe(name_or_path)
    path = Path(name_or_path)
    if path.suffix.lower() == ".toml":
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected a recipe in TOML")
        return any_recipe_from_toml(read_text(path, what="TOML"))
    return named_recipe(name_or_path)  # raises, listing the known names
