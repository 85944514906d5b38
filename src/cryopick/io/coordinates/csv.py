"""Comma-separated coordinates: x,y and what else the header names; also CryoPPP's tables, whose y axis is flipped.

Semicolons and tabs separate too. Where the header has widths and heights the rows are boxes, see `_box_centres`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.io.coordinates.grouping import (
    as_class_id,
    as_float32,
    group_picks,
    require_name,
    require_writable,
    without_sentinels,
)
from cryopick.io.coordinates.names import micrograph_name_of_file
from cryopick.io.files.text import read_text, shortest, write_text
from cryopick.types import Picks

BACKGROUND = "background"
"""The `kind` and the `reason` of places that a person looked at and where no particle is; they get `class_id` 2."""
UNCERTAIN = "uncertain"
"""The `kind` and the `reason` of labels that must count neither way; they get `class_id` 1, particles 0."""
PARTICLE = "particle"
KINDS = (PARTICLE, UNCERTAIN, BACKGROUND)

_CENTRES_X = ("center_x", "centre_x", "x_center", "x_centre", "xcenter", "cx")
_CENTRES_Y = ("center_y", "centre_y", "y_center", "y_centre", "ycenter", "cy")
_ALIASES = {
    "x": ("x", "x_px", "x_coord", "x_coordinate", "coordinate_x", *_CENTRES_X),
    "y": ("y", "y_px", "y_coord", "y_coordinate", "coordinate_y", *_CENTRES_Y),
    "left": ("left", "x_min", "xmin", "min_x", "minx", "x1", "x0", "x_left", "bbox_x"),
    "top": ("top", "y_min", "ymin", "min_y", "miny", "y1", "y0", "y_top", "bbox_y"),
    "right": ("right", "x_max", "xmax", "max_x", "maxx", "x2", "x_right"),
    "bottom": ("bottom", "y_max", "ymax", "max_y", "maxy", "y2", "y_bottom"),
    "width": ("width", "w", "box_width", "bbox_width", "bbox_w", "width_px"),
    "height": ("height", "h", "box_height", "bbox_height", "bbox_h", "height_px"),
    "box": ("box", "box_size", "boxsize", "box_px", "box_side"),
    "z": ("z", "z_px", "z_coord", "z_coordinate", "coordinate_z", "center_z", "centre_z"),
    "x_angstrom": ("x_angstrom", "x_a", "x_å"),
    "y_angstrom": ("y_angstrom", "y_a", "y_å"),
    "score": ("score", "confidence", "fom", "probability"),
    "diameter": ("diameter", "diameter_px"),
    "diameter_angstrom": ("diameter_angstrom", "diameter_a", "diameter_å"),
    "radius": ("radius", "radius_px"),
    "radius_angstrom": ("radius_angstrom", "radius_a", "radius_å"),
    "class_id": ("class_id",),
    "kind": ("kind",),
    "reason": ("reason",),
    "micrograph": ("micrograph", "micrograph_name", "image_name", "image", "filename"),
}
_FIELD_OF = {alias: field for field, aliases in _ALIASES.items() for alias in aliases}
_BOX_FIELDS = ("left", "top", "right", "bottom", "width", "height", "box")
_UNIT_IN_BRACKETS = re.compile(r"^(.*?)\s*[(\[]\s*(.*?)\s*[)\]]$")
_ANGSTROM = ("å", "a", "angstrom", "ang", "angstroms")
_PIXELS = ("px", "pix", "pixel", "pixels")
_UNKNOWN_SCORES = frozenset({"", "na", "n/a", "none", "null", "-"})
"""What R, pandas and databases write where there is no value."""
_KINDS_ELSEWHERE = ("class", "label", "category", "type", "status")
"""Columns of other programs that may tell particles from other things; what their values mean is not known."""
_CRYOPPP_HEADER = {"x-coordinate", "y-coordinate"}


@dataclass(frozen=True, eq=False)
class CsvTable:
    """A CSV file by column: `fields` maps our name of a column to its texts, `lines` gives each row's line number.

    `unread` maps the names of other columns, as in the header, to theirs.
    """

    path: Path
    fields: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    is_cryoppp: bool
    header: Sequence[str] = ()
    unread: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def floats(self, field: str, *, is_missing_allowed: bool = False) -> NDArray[np.float64]:
        """(n,) The column as numbers; a bad one raises `FormatError` with its line."""
        values = self.fields[field]
        if is_missing_allowed:
            values = ["nan" if value.strip().lower() in _UNKNOWN_SCORES else value for value in values]
        try:
            numbers = np.array(values, dtype=np.float64) if values else np.empty(0)
        except (ValueError, UnicodeError):
            numbers = np.array([self._number(field, row, is_missing_allowed) for row in range(len(values))])
        is_bad = np.isinf(numbers) | (np.isnan(numbers) & (not is_missing_allowed))
        if is_bad.any():
            self._raise_bad(field, int(np.argmax(is_bad)))
        return numbers

    def _number(self, field: str, row: int, is_missing_allowed: bool) -> float:
        text = self.fields[field][row].strip()
        if is_missing_allowed and text.lower() in _UNKNOWN_SCORES:
            return float("nan")
        try:
            return float(text)
        except ValueError:
            self._raise_bad(field, row)
            raise

    def _raise_bad(self, field: str, row: int) -> None:
        value = self.fields[field][row][:60]
        remedy = "write decimal points, not commas" if _is_number(value.replace(",", ".")) else "fix or delete the row"
        raise FormatError(f"{self.path} line {self.lines[row]}: {field} is {value!r}, expected a number; {remedy}")


def read_csv_table(path: Path) -> CsvTable:
    """Rows and header of a CSV file; without a header the columns are x, y and, if there is a third, score.

    Lines that begin with `#` are comments, but for one above all rows that names the columns.

    Raises
    ------
    FormatError
        If a row is short, the x or y column is missing, a column has a unit we do not know (`x_foo`), or there are
        more than three columns and no header.
    """
    text = read_text(path, what="a CSV file of coordinates")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip(" \t,;")]
    if lines and _is_separator_line(lines[0][1]):
        lines = lines[1:]
    start = next((k for k, (_, line) in enumerate(lines) if not _is_comment(line)), len(lines))
    lines = lines[start : start + 1] + [(number, line) for number, line in lines[start + 1 :] if line[0] != "#"]
    if not lines:
        raise FormatError(f"{path}: is empty, expected a header such as x,y and one row per particle")
    separator = _separator(lines[0][1])
    _, first = _split([lines[0][1]], path, separator)
    header = [cell.strip().lstrip("#").strip().lower() for cell in first]
    is_cryoppp = is_cryoppp_header(header)
    if _is_number(header[0].replace(",", ".")) and len(header) > 1:
        if len(header) > 3:
            raise FormatError(
                f"{path}: has {len(header)} columns and no header; write one that names them, "
                "such as x,y,score or left,top,width,height"
            )
        names = ["x", "y", "score"][: len(header)]
    else:
        names = [_field_of(cell.replace("-", "_") if is_cryoppp else cell, path) for cell in header]
        lines = lines[1:]
    for axis, edge in (("x", "left"), ("y", "top")):
        if not {axis, f"{axis}_angstrom", edge} & set(names):
            raise FormatError(f"{path}: has no column {axis}; columns found: {', '.join(header)[:200]}; expected x,y")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise FormatError(f"{path}: two columns mean {twice}: {', '.join(header)[:200]}; remove one")
    counts, cells = _split([line for _, line in lines], path, separator)
    wrong = next((k for k, count in enumerate(counts) if count != len(names)), None)
    if wrong is not None:
        raise FormatError(
            f"{path} line {lines[wrong][0]}: {counts[wrong]} values, expected {len(names)}; fix or delete the row"
        )
    fields = {name: cells[k :: len(names)] for k, name in enumerate(names) if name}
    unread = {header[k]: cells[k :: len(names)] for k, name in enumerate(names) if not name}
    return CsvTable(path, fields, [number for number, _ in lines], is_cryoppp, header, unread)


def first_cells(text: str) -> tuple[str, list[str]]:
    """What separates columns, and the cells, in lower case, of the header, or of the first row where there is none."""
    lines = (line for line in text.split("\n") if line.strip(" \t,;") and not _is_separator_line(line))
    line = next((line for line in lines if not _is_comment(line)), "")
    separator = _separator(line)
    return separator, [cell.strip().lstrip("#").strip().lower() for cell in line.split(separator)]


def looks_like_csv(cells: Sequence[str]) -> bool:
    """True for a header with x and y, or a first row of numbers; of files whose ending does not tell."""
    return len(cells) > 1 and (_has_x_and_y(cells) or all(_is_number(cell.replace(",", ".")) for cell in cells[:2]))


def _is_separator_line(line: str) -> bool:
    """True for `sep=;`, which Excel reads and writes above a table."""
    return re.fullmatch(r'"?sep=.?"?', line.strip(), re.IGNORECASE) is not None


def _is_comment(line: str) -> bool:
    """True for a line that begins with `#` and does not name the columns x and y."""
    if not line.startswith("#"):
        return False
    return not _has_x_and_y([cell.strip().lower() for cell in line.lstrip("# ").split(_separator(line))])


def _has_x_and_y(cells: Sequence[str]) -> bool:
    fields = {_FIELD_OF.get(_with_unit_behind(cell.replace("-", "_")), "") for cell in cells}
    return bool({"x", "x_angstrom", "left"} & fields and {"y", "y_angstrom", "top"} & fields)


def _separator(line: str) -> str:
    """Semicolon or tab where the line has some, else comma: a decimal comma may stand beside the former."""
    return next((separator for separator in ";\t" if separator in line), ",")


def _split(body: list[str], path: Path, separator: str = ",") -> tuple[list[int], list[str]]:
    """How many cells each line has, and all cells; cut in one go, since a list per row is slow for a million rows."""
    text = "\n".join(body)
    if '"' in text:
        try:
            rows = list(csv.reader(body, delimiter=separator, skipinitialspace=separator != "\t", strict=True))
        except csv.Error as error:
            raise FormatError(f"{path}: not a CSV file ({error}); expected columns x,y") from error
        return list(map(len, rows)), [cell for row in rows for cell in row]
    counts = [line.count(separator) + 1 for line in body]
    return counts, text.replace("\n", separator).split(separator) if body else []


def is_cryoppp_header(cells: Sequence[str]) -> bool:
    """True for the header of CryoPPP's files, whose y axis is flipped."""
    return {cell.strip().lower() for cell in cells} >= _CRYOPPP_HEADER


def read_csv(
    path: Path, *, shape_yx: tuple[int, int] | None = None, pixel_size_angstrom: float | None = None
) -> dict[str, Picks]:
    """Picks by micrograph name; without a micrograph column the file's own name is the micrograph's.

    Parameters
    ----------
    shape_yx : image size; CryoPPP's files (X-Coordinate, Y-Coordinate) need it, because they count y as `h - row`
    pixel_size_angstrom : needed when the columns are in Å

    Raises
    ------
    FormatError
        For malformed rows, naming the line.
    SettingsError
        If the image size or pixel size is needed and missing.
    """
    table = read_csv_table(path)
    if "z" in table.fields and (table.floats("z", is_missing_allowed=True) != 0).any():
        raise FormatError(f"{path}: has a column z, so these are particles of a tomogram; expected x,y")
    doubts = [*_doubts_about_kinds(table)]
    if any(field in table.fields for field in _BOX_FIELDS):
        xy_px, doubt = _box_centres(table)
        doubts += [doubt] if doubt else []
    else:
        xy_px = np.stack([_length_px(table, axis, pixel_size_angstrom) for axis in "xy"], axis=1)
    if table.is_cryoppp:
        if shape_yx is None:
            raise SettingsError(
                f"{path}: CryoPPP counts y from the bottom (h - row), so the image height is needed; "
                "pass the micrographs (--micrographs DIR) or the image size"
            )
        xy_px[:, 1] = shape_yx[0] - xy_px[:, 1]
    columns: dict[str, NDArray[Any]] = {}
    if "score" in table.fields:
        columns["score"] = as_float32(
            without_sentinels(table.floats("score", is_missing_allowed=True)), path=path, what="score"
        )
    for size, diameters in (("radius", 2.0), ("diameter", 1.0)):
        if size in table.fields or f"{size}_angstrom" in table.fields:
            length_px = _length_px(table, size, pixel_size_angstrom, is_missing_allowed=True)
            columns["diameter_px"] = as_float32(diameters * length_px, path=path, what=size)
    if "class_id" in table.fields:
        columns["class_id"] = as_class_id(table.floats("class_id"), path=path, what="class_id")
    if "reason" in table.fields:
        columns["reason"] = np.array(table.fields["reason"], dtype=np.str_)
    if "kind" in table.fields:
        kinds = _kinds(table)
        columns.setdefault("class_id", np.array([KINDS.index(kind) for kind in kinds], np.int32))
        said = np.array([kind if kind != PARTICLE else "" for kind in kinds], dtype=np.str_)
        columns["reason"] = np.where(said != "", said, columns.get("reason", ""))
    own_name = micrograph_name_of_file(path.name)
    names = [name.strip() for name in table.fields.get("micrograph", [own_name] * len(xy_px))]
    grouped = group_picks(names, xy_px, **columns)
    if not grouped and "micrograph" not in table.fields:
        grouped = {own_name: Picks(xy_px=xy_px, micrograph_name=own_name)}
    known = {"shape_yx": shape_yx, "pixel_size_angstrom": pixel_size_angstrom, "warnings": tuple(doubts)}
    return {name: replace(picks, **known) for name, picks in grouped.items()}  # type: ignore[arg-type]


def write_csv(path: Path, picks: Sequence[Picks]) -> None:
    """One table with everything that `Picks` holds per candidate; the micrograph column only when there are several.

    Raises
    ------
    InputError
        If a name has a line break or is no text, or a centre is not finite.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    with_names = len(picks) != 1
    header = ["x", "y", "score", "diameter_px", "class_id", "reason"]
    writer.writerow([*header, "micrograph"] if with_names else header)
    for one in picks:
        require_writable(one)
        require_name(one.micrograph_name, forbidden="\n\r\0", holder="a CSV file")
        columns = [
            shortest(one.xy_px[:, 0]),
            shortest(one.xy_px[:, 1]),
            shortest(one.score, missing=""),
            shortest(one.diameter_px, missing=""),
            one.class_id.tolist(),
            one.reason.tolist(),
        ]
        if with_names:
            columns.append([one.micrograph_name] * len(one))
        writer.writerows(zip(*columns, strict=True))
    write_text(path, text.getvalue())


def write_cryoppp(path: Path, picks: Sequence[Picks]) -> None:
    """CryoPPP's table of one micrograph: centres, `Y-Coordinate` counted as `h - row`.

    Raises
    ------
    SettingsError
        If the image height is unknown, or there is more than one micrograph.
    InputError
        If a centre is not finite.
    """
    if len(picks) != 1:
        raise SettingsError(f"{path}: CryoPPP keeps one CSV per micrograph, got {len(picks)}; give a folder")
    (one,) = picks
    require_writable(one)
    columns = (
        shortest(one.xy_px[:, 0]),
        shortest(known_height(path, one) - one.xy_px[:, 1]),
        shortest(one.diameter_px, missing=""),
    )
    rows = ["X-Coordinate,Y-Coordinate,Diameter", *map(",".join, zip(*columns, strict=True))]
    write_text(path, "\n".join(rows) + "\n")


def known_height(path: Path, picks: Picks) -> int:
    """The image height, which CryoPPP's tables need; raises `SettingsError` where it is unknown."""
    if picks.shape_yx is None:
        raise SettingsError(
            f"{path}: CryoPPP counts y from the bottom; pass the micrographs so that the height is known"
        )
    return picks.shape_yx[0]


def _doubts_about_kinds(table: CsvTable) -> Iterator[str]:
    """A sentence for each column that may tell particles from other things and is not read."""
    for name, texts in table.unread.items():
        kinds = list(dict.fromkeys(text.strip() for text in texts))
        if name in _KINDS_ELSEWHERE and len(kinds) > 1 and not {"kind", "class_id"} & table.fields.keys():
            yield (
                f"{table.path}: the column {name} ({', '.join(kinds[:3])}{', ...' if len(kinds) > 3 else ''}) is not "
                "read, all rows are taken for particles; remove the others, or call the column kind (particle, "
                "uncertain, background) or class_id (whole numbers)"
            )


def _box_centres(table: CsvTable) -> tuple[NDArray[np.float64], str]:
    """(n, 2) Centres of rows that are boxes, and a sentence on what was taken for what where the header leaves a doubt.

    `left,top` with `width,height` or `right,bottom` are corners. `x,y` with `width,height` are taken for corners, as
    EMAN and annotation tools write them, with a warning; `center_x,center_y` are centres. A lone box size beside x,y,
    or lengths in Å among them, raises `FormatError`.
    """
    shown = ",".join(table.header)[:200]
    has = table.fields.keys() & {*_BOX_FIELDS, "x", "y"}
    if has >= {"x", "y"} and {*_CENTRES_X} & {*table.header} and {*_CENTRES_Y} & {*table.header}:
        return np.stack([table.floats("x"), table.floats("y")], axis=1), ""
    if has >= {"left", "top", "right", "bottom"} and not {"x", "y"} & has:
        first = np.stack([table.floats("left"), table.floats("top")], axis=1)
        last = np.stack([table.floats("right"), table.floats("bottom")], axis=1)
        _require_positive(table, last - first)
        return (first + last) / 2, ""
    for left, top in (("left", "top"), ("x", "y")):
        if has == {left, top, "width", "height"}:
            corner = np.stack([table.floats(left), table.floats(top)], axis=1)
            size = np.stack([table.floats("width"), table.floats("height")], axis=1)
            _require_positive(table, size)
            doubt = (
                f"{table.path}: x and y beside width and height are taken for the corner of a box, its centre is the "
                "particle's; call the columns center_x and center_y if they are centres, or left and top"
            )
            return corner + size / 2, doubt if left == "x" else ""
    raise FormatError(
        f"{table.path}: the columns {shown} do not tell whether x and y are the centre or the corner of a box; "
        "call them center_x,center_y, or left,top with width,height or right,bottom"
    )


def _require_positive(table: CsvTable, size_px: NDArray[np.float64]) -> None:
    is_bad = ~(size_px > 0).all(axis=1)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        width, height = size_px[row]
        raise FormatError(
            f"{table.path} line {table.lines[row]}: box is {width:g} x {height:g}, expected a positive size"
        )


def _length_px(
    table: CsvTable, field: str, pixel_size_angstrom: float | None, *, is_missing_allowed: bool = False
) -> NDArray[np.float64]:
    """(n,) A column of lengths in px, from `field` (px) or from `field_angstrom`."""
    if field in table.fields:
        return table.floats(field, is_missing_allowed=is_missing_allowed)
    if pixel_size_angstrom is None:
        raise SettingsError(f"{table.path}: {field} is in Å and the pixel size is unknown; give --pixel-size")
    return table.floats(f"{field}_angstrom", is_missing_allowed=is_missing_allowed) / pixel_size_angstrom


def _field_of(cell: str, path: Path) -> str:
    """Our name of a column, "" for one that we ignore."""
    cell = _with_unit_behind(cell)
    field = _FIELD_OF.get(cell, "")
    head, _, unit = cell.partition("_")
    if (
        not field
        and head in ("x", "y", "diameter", "radius")
        and unit in ("nm", "um", "mm", "m", "frac", "in", "pt", "unit", "units")
    ):
        raise FormatError(
            f"{path}: column {cell!r} has a unit that we do not convert; expected pixels (x) or Å (x_angstrom)"
        )
    return field


def _with_unit_behind(cell: str) -> str:
    """`x [px]` and `x (Å)` as `x` and `x_angstrom`; a name without brackets as it is."""
    match = _UNIT_IN_BRACKETS.match(cell)
    if match is None:
        return cell
    name, unit = match.groups()
    if name not in ("x", "y", "diameter", "radius"):
        return cell
    return name if unit in _PIXELS else f"{name}_{'angstrom' if unit in _ANGSTROM else unit}"


def _kinds(table: CsvTable) -> list[str]:
    kinds = [kind.strip().lower() for kind in table.fields["kind"]]
    unknown = next((row for row, kind in enumerate(kinds) if kind not in KINDS), None)
    if unknown is not None:
        raise FormatError(
            f"{table.path} line {table.lines[unknown]}: kind is {kinds[unknown][:60]!r}, expected particle, uncertain "
            "or background"
        )
    return kinds


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
