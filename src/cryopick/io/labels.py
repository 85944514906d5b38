"""Labels to measure against: true centres, with the ones that must not count either way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.coordinates import read_picks
from cryopick.io.csv import UNCERTAIN
from cryopick.io.text import read_text
from cryopick.types import Picks

SETTINGS_FILE = "set.json"
_LARGEST_DIAMETER_PX = 1e5
_LARGEST_PIXEL_SIZE_ANGSTROM = 1e3


@dataclass(frozen=True, eq=False)
class Labels:
    """True particle centres of one micrograph.

    Parameters
    ----------
    xy_px : (n, 2) float64, centres in our frame
    is_uncertain : (n,) True where finding or missing the particle must not count
    diameter_px : particle diameter in px, or None when the files do not say
    micrograph_name : as the label files name it; see `cryopick.io.names.match_micrograph_names`
    pixel_size_angstrom : Å per px, or None when the files do not say
    """

    xy_px: NDArray[np.float64]
    is_uncertain: NDArray[np.bool_]
    diameter_px: float | None
    micrograph_name: str
    pixel_size_angstrom: float | None = None

    def __post_init__(self) -> None:
        if self.xy_px.shape != (len(self.is_uncertain), 2):
            raise ValueError(
                f"{self.micrograph_name}: {self.xy_px.shape} centres but {self.is_uncertain.shape} uncertain flags"
            )

    def __len__(self) -> int:
        return len(self.xy_px)


def read_labels(
    path: Path | str, *, format: str | None = None, shapes_yx: dict[str, tuple[int, int]] | None = None
) -> dict[str, Labels]:
    """Labels by micrograph name, from any coordinate file, or from a folder with one file per micrograph.

    In CSV a column `kind` tells `particle` from `uncertain`; in all other formats every row is a particle. A file
    `set.json` in the folder (or beside the file) may give `diameter_px` and `pixel_size_angstrom`; otherwise the
    diameter is the median of the rows' diameters, where they have any.

    Parameters
    ----------
    format : see `cryopick.io.coordinates.read_picks`; None detects it
    shapes_yx : image sizes by micrograph, for formats that need them

    Raises
    ------
    InputError, FormatError
        If the path is missing or not readable as labels.
    """
    path = Path(path)
    picks_of = read_picks(path, format=format, shapes_yx=shapes_yx)
    diameter_px, pixel_size_angstrom = _read_settings(
        path / SETTINGS_FILE if path.is_dir() else path.parent / SETTINGS_FILE
    )
    labels = {}
    for name, picks in picks_of.items():
        is_uncertain = picks.reason == UNCERTAIN
        is_label = picks.is_kept | is_uncertain  # candidates that a program rejected are no labels
        labels[name] = Labels(
            xy_px=picks.xy_px[is_label],
            is_uncertain=is_uncertain[is_label],
            diameter_px=diameter_px if diameter_px is not None else _median_diameter(picks),
            micrograph_name=name,
            pixel_size_angstrom=pixel_size_angstrom or picks.pixel_size_angstrom,
        )
    return labels


def _median_diameter(picks: Picks) -> float | None:
    known = picks.diameter_px[np.isfinite(picks.diameter_px)]
    return float(np.median(known)) if len(known) else None


def _read_settings(path: Path) -> tuple[float | None, float | None]:
    """(diameter_px, pixel_size_angstrom) of a `set.json`; None for what it, or the file itself, lacks."""
    if not path.is_file():
        return None, None
    try:
        settings = json.loads(read_text(path, what="JSON"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({error}); fix or remove it") from error
    if not isinstance(settings, dict):
        raise FormatError(f"{path}: expected an object with diameter_px and pixel_size_angstrom")
    return (
        _positive(settings, "diameter_px", path, most=_LARGEST_DIAMETER_PX),
        _positive(settings, "pixel_size_angstrom", path, most=_LARGEST_PIXEL_SIZE_ANGSTROM),
    )


def _positive(settings: dict[str, object], key: str, path: Path, *, most: float) -> float | None:
    value = settings.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value <= most):
        raise FormatError(f"{path}: {key} is {value!r}, expected a number above 0 and up to {most:g}, or null")
    return float(value)
