"""RELION's coordinate tables, 3.0 to 5: one file per micrograph, the list `autopick.star`, combined particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.box import read_box
from cryopick.io.grouping import NO_SCORES, as_class_id, as_float32, group_picks, require_writable
from cryopick.io.names import micrograph_name_of_file
from cryopick.io.star import StarTable, make_table, read_star, write_star
from cryopick.types import Picks

VERSION = 30001
"""RELION's comment for tables with optics groups; 3.1, 4 and 5 all read it."""
_TOMOGRAM_LABELS = ("rlnTomoName", "rlnTomoParticle", "rlnCenteredCoordinate")
NO_SCORE = -999.0
"""What RELION's own manual picker writes for the figure of merit (and class) that it does not have."""


ONLY_PARTICLE_PIXELS = "says the pixel size of the particle images only, which may be rescaled"
"""What the warning of a table says whose micrographs' pixel size is unknown for this reason."""


@dataclass(frozen=True)
class OpticsGroup:
    """What RELION must know of the microscope to write a table with optics groups."""

    pixel_size_angstrom: float
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float = 0.1
    name: str = "opticsGroup1"


@dataclass(frozen=True)
class MicrographEntry:
    """One row of a micrographs table: the name as written there, and the pixel size where the file says it."""

    name: str
    pixel_size_angstrom: float | None


def is_relion_coordinates(tables: Mapping[str, StarTable]) -> bool:
    """True for any STAR file that `read_relion` understands."""
    return any("rlnCoordinateX" in table or "rlnMicrographCoordinates" in table for table in tables.values())


def read_relion(path: Path) -> dict[str, Picks]:
    """Picks by micrograph name from any RELION coordinate file.

    A file of one micrograph (`m1_autopick.star`) gives the micrograph its file's name without `_autopick`; combined
    tables and `autopick.star` give the names that stand in them. Coordinates are RELION's, which is our frame. A
    figure of merit of -999 (manual picks) or -9999 (crYOLO) reads as no score. Shifts from refinement (rlnOriginX) are
    not applied.

    Raises
    ------
    InputError
        If a file that `autopick.star` lists is missing.
    FormatError
        For malformed tables, naming the line, the column and the value.
    """
    tables = read_star(path)
    listing = next((table for table in tables.values() if "rlnMicrographCoordinates" in table), None)
    if listing is not None:
        return _read_listed(path, listing)
    table = next((table for table in tables.values() if "rlnCoordinateX" in table), None)
    _refuse_tomograms(path, tables)
    if table is None:
        return _read_without_coordinates(path, tables)
    xy_px = np.stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")], axis=1)
    columns: dict[str, Any] = {}
    if "rlnAutopickFigureOfMerit" in table:
        score = table.floats("rlnAutopickFigureOfMerit")
        columns["score"] = as_float32(
            np.where(np.isin(score, NO_SCORES), np.nan, score), path=path, what="rlnAutopickFigureOfMerit"
        )
    if "rlnClassNumber" in table:
        class_id = as_class_id(table.ints("rlnClassNumber"), path=path, what="rlnClassNumber")
        columns["class_id"] = np.where(class_id < 0, 0, class_id)
    if "rlnMicrographName" not in table:
        name = micrograph_name_of_file(path.name)
        return {name: Picks(xy_px=xy_px, micrograph_name=name, **columns)}
    names = table.text("rlnMicrographName")
    size_of = _pixel_sizes(tables, table)
    grouped = group_picks(names, xy_px, **columns)
    if size_of is None and "rlnImageName" in table:
        doubt = f"{path}: {ONLY_PARTICLE_PIXELS}; give --pixel-size or --micrographs where lengths in Å are to be used"
        return {name: replace(one, warnings=(doubt,)) for name, one in grouped.items()}
    if size_of is None:
        return grouped
    first_row = {name: row for row, name in reversed(list(enumerate(names)))}
    return {name: replace(one, pixel_size_angstrom=size_of[first_row[name]]) for name, one in grouped.items()}


def read_micrographs_star(path: Path) -> list[MicrographEntry]:
    """The micrographs that a `micrographs.star` (or any table with rlnMicrographName) lists, each once, in order.

    Raises
    ------
    FormatError
        If no table has the column rlnMicrographName.
    """
    tables = read_star(path)
    table = next((table for table in tables.values() if "rlnMicrographName" in table), None)
    if table is None:
        raise FormatError(f"{path}: no table with rlnMicrographName; expected a RELION micrographs.star")
    size_of = _pixel_sizes(tables, table)
    rows: dict[str, int] = {}
    for row, name in enumerate(table.text("rlnMicrographName")):
        rows.setdefault(name, row)
    return [MicrographEntry(name, None if size_of is None else size_of[row]) for name, row in rows.items()]


def write_relion_micrograph(path: Path, picks: Picks) -> None:
    """RELION's file for the picks of one micrograph, as its own auto-picker writes it (class and psi are dummies)."""
    write_star(path, [make_table("", _coordinate_columns(picks))])


def write_relion_list(path: Path, micrographs: Sequence[str], coordinate_files: Sequence[str]) -> None:
    """`autopick.star`: which coordinate file belongs to which micrograph.

    Parameters
    ----------
    micrographs : names, equal to those in RELION's micrographs.star letter by letter (extraction compares so)
    coordinate_files : one per micrograph, relative to RELION's project folder
    """
    columns = {"rlnMicrographName": micrographs, "rlnMicrographCoordinates": coordinate_files}
    write_star(path, [make_table("coordinate_files", columns)], version=VERSION)


def write_relion_particles(path: Path, picks: Sequence[Picks], *, optics: OpticsGroup | None = None) -> None:
    """All picks in one table with rlnMicrographName; this is what CryoSPARC's Import Particle Stack reads.

    Parameters
    ----------
    optics : writes the table in the style of RELION 3.1 and later; without it in that of 3.0, one plain table
    """
    parts = [_coordinate_columns(one) for one in picks]
    names = [one.micrograph_name for one in picks for _ in range(len(one))]
    columns: dict[str, Sequence[str] | NDArray[Any]] = {"rlnMicrographName": names}
    for label in parts[0] if parts else _coordinate_columns(Picks(xy_px=np.empty((0, 2)))):
        columns[label] = np.concatenate([part[label] for part in parts]) if parts else np.empty(0)
    if optics is None:
        write_star(path, [make_table("", columns)])
        return
    columns["rlnOpticsGroup"] = np.ones(len(names), dtype=np.int64)
    group: dict[str, Sequence[str] | NDArray[Any]] = {
        "rlnOpticsGroupName": [optics.name],
        "rlnOpticsGroup": np.array([1]),
        "rlnMicrographPixelSize": np.array([optics.pixel_size_angstrom]),
        "rlnVoltage": np.array([optics.voltage_kv]),
        "rlnSphericalAberration": np.array([optics.spherical_aberration_mm]),
        "rlnAmplitudeContrast": np.array([optics.amplitude_contrast]),
    }
    write_star(path, [make_table("optics", group), make_table("particles", columns)], version=VERSION)


def _coordinate_columns(picks: Picks) -> dict[str, NDArray[Any]]:
    require_writable(picks)
    return {
        "rlnCoordinateX": picks.xy_px[:, 0],
        "rlnCoordinateY": picks.xy_px[:, 1],
        "rlnClassNumber": picks.class_id,
        "rlnAnglePsi": np.zeros(len(picks)),
        "rlnAutopickFigureOfMerit": np.where(np.isfinite(picks.score), picks.score, np.float32(NO_SCORE)),
    }


def _read_listed(path: Path, listing: StarTable) -> dict[str, Picks]:
    """The files of `autopick.star`, whose paths start at RELION's project folder: here, or a folder above the list."""
    found: dict[str, Picks] = {}
    names, files = listing.text("rlnMicrographName"), listing.text("rlnMicrographCoordinates")
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        if name in found:
            raise FormatError(f"{path} line {listing.line_numbers[row]}: micrograph {name} is listed twice; remove one")
        tails = [Path(*Path(file).parts[start:]) for start in range(len(Path(file).parts))]  # the job may have moved
        places = [Path(file), *(folder / file for folder in path.absolute().parents), *(path.parent / t for t in tails)]
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            raise InputError(
                f"{path} line {listing.line_numbers[row]}: lists {file}, which is not found; "
                "run from RELION's project folder, or remove the line"
            )
        found[name] = replace(
            _read_listed_file(place, line=f"{path} line {listing.line_numbers[row]}"), micrograph_name=name
        )
    return found


def _read_listed_file(path: Path, *, line: str) -> Picks:
    """The picks of one file of a list, STAR or .box, which RELION accepts both."""
    if path.suffix.lower() == ".box":
        return read_box(path)
    if any("rlnMicrographCoordinates" in table for table in read_star(path).values()):
        raise FormatError(f"{line}: {path} is itself a list, expected coordinates")
    inner = list(read_relion(path).values())
    if len(inner) > 1:
        raise FormatError(f"{line}: {path} holds {len(inner)} micrographs, expected the coordinates of one")
    return inner[0] if inner else Picks(xy_px=np.empty((0, 2)))


def _read_without_coordinates(path: Path, tables: Mapping[str, StarTable]) -> dict[str, Picks]:
    """A file of a micrograph without picks may hold an empty table; anything else is not a coordinate file."""
    if all(not table.columns for table in tables.values()):
        name = micrograph_name_of_file(path.name)
        return {name: Picks(xy_px=np.empty((0, 2)), micrograph_name=name)}
    labels = ", ".join(label for table in tables.values() for label in table.columns)
    raise FormatError(f"{path}: no table with rlnCoordinateX and rlnCoordinateY; labels found: {labels[:200]}")


def _refuse_tomograms(path: Path, tables: Mapping[str, StarTable]) -> None:
    for table in tables.values():
        tomogram = next((label for label in table.columns if label.startswith(_TOMOGRAM_LABELS)), None)
        if tomogram is None and "rlnCoordinateZ" in table and (table.floats("rlnCoordinateZ") != 0).any():
            tomogram = "rlnCoordinateZ"
        if tomogram is not None:
            raise FormatError(
                f"{path}: has {tomogram}, so these are particles of tomograms; expected those of micrographs"
            )


def _pixel_sizes(tables: Mapping[str, StarTable], table: StarTable) -> list[float] | None:
    """Å per micrograph pixel of each row of `table`; None when the file does not say.

    From the optics table in 3.1 and later; from detector pixel (µm) and magnification in 3.0, but for a table of
    particle images, whose columns of that name are of the images, perhaps rescaled.
    """
    if "rlnMicrographPixelSize" in table:
        return list(table.floats("rlnMicrographPixelSize").tolist())
    if "rlnImageName" not in table and "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        magnification = table.floats("rlnMagnification")
        if (magnification <= 0).any():
            raise FormatError(f"{table.path}: rlnMagnification is 0 or negative, expected a positive number")
        return list((1e4 * table.floats("rlnDetectorPixelSize") / magnification).tolist())
    optics = tables.get("optics")
    if optics is None or "rlnMicrographPixelSize" not in optics or "rlnOpticsGroup" not in table:
        return None
    sizes = dict(
        zip(optics.ints("rlnOpticsGroup").tolist(), optics.floats("rlnMicrographPixelSize").tolist(), strict=True)
    )
    groups = table.ints("rlnOpticsGroup").tolist()
    unknown = set(groups) - set(sizes)
    if unknown:
        raise FormatError(f"{table.path}: optics group {min(unknown)} is used but not in data_optics; add it there")
    return [sizes[group] for group in groups]
