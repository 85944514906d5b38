"""crYOLO `.cbox`: a STAR file with box corners, estimated particle sizes and a confidence for every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.geometry.boxes import centres_of_boxes, corners_of_boxes
from cryopick.io.coordinates.box import BoxSize, box_sizes
from cryopick.io.coordinates.grouping import as_float32, require_writable, without_sentinels
from cryopick.io.coordinates.names import micrograph_name_of_file
from cryopick.io.files.text import read_number_rows, read_text
from cryopick.io.star import StarTable, make_table, read_star, write_star
from cryopick.types import Picks

TABLE = "cryolo"
OLD_COLUMNS = ("x", "y", "width", "height", "confidence", "estimated width", "estimated height")
_NO_VALUE = frozenset({"<NA>", "nan", "NaN", "None", "NA"})


def read_cbox(path: Path) -> Picks:
    """The picks of one micrograph: box centres, confidence, and the mean of crYOLO's size estimates as diameter.

    Reads the STAR form (crYOLO 1.8 and later) and the plain columns of earlier versions. All candidates are there,
    whatever threshold crYOLO used for its other outputs.

    Raises
    ------
    FormatError
        For malformed tables, and for filaments or tomograms (boxes with a depth), which are not particles of a 2-D
        image.
    """
    name = micrograph_name_of_file(path.name)
    text = read_text(path, what="a crYOLO .cbox file")
    if "data_" not in text:
        rows, _ = read_number_rows(
            text, path, names=OLD_COLUMNS, at_least=5, shown="x y width height confidence [estimated width, height]"
        )
        estimate = rows[:, 5:7].mean(axis=1) if rows.shape[1] == len(OLD_COLUMNS) else np.full(len(rows), np.nan)
        return Picks(
            xy_px=centres_of_boxes(rows[:, :2], rows[:, 2:4]),
            score=as_float32(without_sentinels(rows[:, 4]), path=path, what="confidence"),
            diameter_px=_positive_or_nan(estimate, path),
            micrograph_name=name,
        )
    tables = read_star(path)
    if TABLE not in tables:
        raise FormatError(f"{path}: no table data_{TABLE}; expected a crYOLO .cbox file")
    if "filament_vertices" in tables and len(tables["filament_vertices"]):
        raise FormatError(f"{path}: holds traced filaments, not particles; use crYOLO's segment output")
    table = tables[TABLE]
    if not table.columns:
        return Picks(xy_px=np.empty((0, 2)), micrograph_name=name)
    z = _floats_or_nan(table, "CoordinateZ") if "CoordinateZ" in table else np.zeros(len(table))
    if (np.isfinite(z) & (z != 0)).any():
        raise FormatError(f"{path}: boxes have a CoordinateZ, so this is a tomogram; expected a micrograph's file")
    if "Depth" in table and not set(table.text("Depth")) <= {*_NO_VALUE, "0", "0.0", "1", "1.0"}:
        raise FormatError(f"{path}: boxes have a depth, so this is a tomogram; expected a micrograph's file")
    corner_px = np.stack([table.floats("CoordinateX"), table.floats("CoordinateY")], axis=1)
    size_px = np.stack([table.floats("Width"), table.floats("Height")], axis=1)
    unknown = np.full(len(table), np.nan)
    estimates = [_floats_or_nan(table, label) if label in table else unknown for label in ("EstWidth", "EstHeight")]
    return Picks(
        xy_px=centres_of_boxes(corner_px, size_px),
        score=as_float32(
            without_sentinels(_floats_or_nan(table, "Confidence")) if "Confidence" in table else unknown,
            path=path,
            what="Confidence",
        ),
        diameter_px=_positive_or_nan(np.mean(estimates, axis=0), path),
        micrograph_name=name,
    )


def write_cbox(path: Path, picks: Picks, *, box_px: BoxSize = None) -> None:
    """Write crYOLO's STAR form, centres to a fraction of a pixel; a pick without a score has confidence 1.

    Parameters
    ----------
    box_px : side of every box, or that of each micrograph by its name; None takes each pick's own diameter

    Raises
    ------
    SettingsError
        If there is neither.
    InputError
        If a centre is not finite.
    """
    require_writable(picks)
    size_px = box_sizes(path, picks, box_px)
    corner_px = corners_of_boxes(picks.xy_px, size_px[:, np.newaxis])
    diameter_px = np.where(picks.diameter_px > 0, picks.diameter_px, size_px)
    n = len(picks)
    columns: dict[str, Sequence[str] | NDArray[Any]] = {
        "CoordinateX": corner_px[:, 0],
        "CoordinateY": corner_px[:, 1],
        "CoordinateZ": ["<NA>"] * n,
        "Width": size_px,
        "Height": size_px,
        "Depth": ["<NA>"] * n,
        "EstWidth": diameter_px,
        "EstHeight": diameter_px,
        "Confidence": np.where(np.isfinite(picks.score), picks.score, np.float32(1)),
        "NumBoxes": ["<NA>"] * n,
        "Angle": ["<NA>"] * n,
    }
    write_star(
        path,
        [
            make_table("global", {"cbox_format_version": ["1.0"]}, is_loop=False),
            make_table(TABLE, columns),
        ],
    )


def _floats_or_nan(table: StarTable, label: str) -> NDArray[np.float64]:
    texts = table.text(label)
    is_missing = np.array([text in _NO_VALUE for text in texts], dtype=np.bool_)
    filled = {label: ["0" if text in _NO_VALUE else text for text in texts]}
    return np.where(is_missing, np.nan, replace(table, columns=filled).floats(label))


def _positive_or_nan(values: NDArray[np.float64], path: Path) -> NDArray[np.float32]:
    return as_float32(np.where(values > 0, values, np.nan), path=path, what="estimated size")
