"""EMAN `.box`: one line per particle, corner x, corner y, width, height in whole pixels, and perhaps a score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.geometry.boxes import centres_of_boxes, centres_of_integer_boxes, corners_of_integer_boxes
from cryopick.io.coordinates.grouping import (
    MAX_COORDINATE_PX,
    NO_SCORES,
    as_float32,
    require_writable,
    without_sentinels,
)
from cryopick.io.coordinates.names import micrograph_name_of_file
from cryopick.io.files.text import read_number_rows, read_text, shortest, write_text
from cryopick.types import Picks

BoxSize = float | Mapping[str, float] | None
"""Side of boxes in px: one for all, one for each micrograph by name, or None for each pick's own diameter."""
COLUMNS = ("x", "y", "width", "height", "score")
_MARKS = (-3, -2, -1, 0)  # EMAN1's fifth column: no helix, end, start, middle of one


def read_box(path: Path) -> Picks:
    """The picks of one micrograph, at the centres of the boxes; the y axis is ours (EMAN only draws it upwards).

    Columns after the fifth are ignored; a fifth column of only the integers -3 to 0 is EMAN's filament mark, no score,
    and one of only -999 or -9999 is none either.
    Filaments are stored as pairs of ends there, so a file with such marks is refused.

    Raises
    ------
    FormatError
        For malformed rows and boxes without a positive size, naming the line, and for filament files.
    """
    rows, lines = read_number_rows(
        read_text(path, what="an EMAN .box file"), path, names=COLUMNS, at_least=4, shown="x y width height [score]"
    )
    xy_px, size_px = rows[:, :2], rows[:, 2:4]
    is_bad = (size_px <= 0).any(axis=1)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise FormatError(
            f"{path} line {lines[row]}: box is {size_px[row, 0]:g} x {size_px[row, 1]:g}, expected a positive size"
        )
    score = rows[:, 4] if rows.shape[1] > 4 else np.full(len(rows), np.nan)
    if len(score) and np.isin(score, _MARKS).all():
        if np.isin(score, (-1, -2)).any():
            raise FormatError(
                f"{path}: holds filament ends (fifth column -1, -2), not particles; split them into segments first"
            )
        score = np.full(len(rows), np.nan)
    score = without_sentinels(score, NO_SCORES)
    is_whole = bool((rows[:, :4] == np.rint(rows[:, :4])).all())
    centres = centres_of_integer_boxes if is_whole else centres_of_boxes
    name = micrograph_name_of_file(path.name)
    return Picks(xy_px=centres(xy_px, size_px), score=as_float32(score, path=path, what="score"), micrograph_name=name)


def write_box(path: Path, picks: Picks, *, box_px: BoxSize = None) -> None:
    """Write whole-pixel boxes; positions are rounded to the nearest pixel, so sub-pixel parts are lost.

    Parameters
    ----------
    box_px : side of every box, or that of each micrograph by its name; None takes each pick's own diameter, rounded

    Raises
    ------
    SettingsError
        If there is neither.
    InputError
        If a centre is not finite.
    """
    require_writable(picks)
    size_px = np.maximum(1, np.rint(box_sizes(path, picks, box_px)))
    corner_px = corners_of_integer_boxes(picks.xy_px, size_px[:, np.newaxis])
    columns = [list(map(str, values.tolist())) for values in (corner_px[:, 0], corner_px[:, 1])]
    columns += [list(map(str, size_px.astype(np.int64).tolist()))] * 2
    if len(picks) and np.isfinite(picks.score).all():
        columns.append(shortest(picks.score))
    write_text(path, "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)))


def box_sizes(path: Path, picks: Picks, box_px: BoxSize) -> NDArray[np.float64]:
    """(n,) Side of each pick's box: the given one, else its diameter; raises `SettingsError` where there is neither."""
    side_px = box_px.get(picks.micrograph_name) if isinstance(box_px, Mapping) else box_px
    if side_px is not None:
        if not 0 < side_px <= MAX_COORDINATE_PX:
            raise SettingsError(f"box size is {side_px:g} px, expected a positive number below {MAX_COORDINATE_PX:g}")
        return np.full(len(picks), float(side_px))
    if not ((picks.diameter_px > 0) & (picks.diameter_px <= MAX_COORDINATE_PX)).all():
        raise SettingsError(
            f"{path}: the picks of {picks.micrograph_name} have no size, which this format needs; "
            "give the box, for example --box 200px"
        )
    return picks.diameter_px.astype(np.float64)
