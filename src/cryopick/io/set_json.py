"""`set.json`, which tells of a set of labelled micrographs what its files do not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import finite_number, read_json_object

SETTINGS_FILE = "set.json"
COMPLETENESS = ("complete", "sparse")
"""Whether what is not labelled is background, or may hold particles too."""
LARGEST_DIAMETER_PX = 1e5  # no detector has so many pixels
_LARGEST = {"diameter_px": LARGEST_DIAMETER_PX, "pixel_size_angstrom": 1e3}


def read_set_settings(labels: Path) -> dict[str, Any]:
    """What `set.json` in a folder of labels, or beside a file of labels, says; empty without one.

    Raises
    ------
    FormatError
        If it is no JSON object, or `diameter_px`, `pixel_size_angstrom`, `labels` or `complete` (the names of the
        micrographs on which every particle is labelled) have impossible values.
    """
    path = (labels if labels.is_dir() else labels.parent) / SETTINGS_FILE
    if not path.is_file():
        return {}
    settings = read_json_object(path, what="an object with diameter_px and pixel_size_angstrom")
    for key, largest in _LARGEST.items():
        settings[key] = positive_or_none(settings.get(key), largest=largest, where=f"{path}: {key}")
    stated = settings.get("labels")
    if stated is not None and stated not in COMPLETENESS:
        raise FormatError(f"{path}: labels are {str(stated)[:60]!r}, expected complete or sparse")
    whole = settings.get("complete", [])
    if not isinstance(whole, list) or not all(isinstance(name, str) for name in whole):
        raise FormatError(f"{path}: complete is {str(whole)[:60]!r}, expected a list of names of micrographs")
    return settings


def write_set_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `set.json` into a folder of labels.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_text_atomic(folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n")


def positive_or_none(value: object, *, largest: float, where: str) -> float | None:
    """A number above 0 as a float, None for None; anything else raises `FormatError`."""
    if value is None:
        return None
    number = finite_number(value, where=where)
    if not 0 < number <= largest:
        raise FormatError(f"{where} is {number:g}, expected a positive number up to {largest:g}, or null")
    return number
