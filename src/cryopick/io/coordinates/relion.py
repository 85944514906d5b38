"""RELION's coordinate tables, 3.0 to 5: one file per micrograph, the list `autopick.star`, combined particles."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.coordinates.box import read_box
from cryopick.io.coordinates.grouping import NO_SCORES, as_class_id, as_float32, group_picks, require_writable
from cryopick.io.coordinates.names import micrograph_name_of_file
from cryopick.io.files.text import write_text
from cryopick.io.star import LOOP_END, StarTable, loop_head, loop_rows, make_table, quoted, read_star, star_text
from cryopick.types import Picks

VERSION = 30001
"""RELION's comment for tables with optics groups; 3.1, 4 and 5 all read it."""
_TOMOGRAM_LABELS = ("rlnTomoName", "rlnTomoParticle", "rlnCenteredCoordinate")
_SHIFTS = ("rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst")
NO_SCORE = -999.0
"""What RELION's own manual picker writes for the figure of merit (and class) that it does not have."""

COORDINATE_LABELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnClassNumber", "rlnAnglePsi", "rlnAutopickFigureOfMerit")
_LIST_LABELS = ("rlnMicrographName", "rlnMicrographCoordinates")
RELION_LIST_HEAD = loop_head("coordinate_files", _LIST_LABELS, version=VERSION)
RELION_PARTICLES_HEAD = loop_head("", ("rlnMicrographName", *COORDINATE_LABELS))
"""What comes before the first row of `autopick.star` and of a table of all particles."""

PICKS_FOLDER, UNFINISHED_RUN = "picks", "unfinished.txt"
"""In a run folder of cryopick: the coordinate files, and what lies there while they and the tables are written."""

_logger = logging.getLogger(__name__)


ONLY_PARTICLE_PIXELS = "says the pixel size of the particle images only, which may be rescaled"
"""What the warning of a table says whose micrographs' pixel size is unknown for this reason."""


class NoCoordinatesError(FormatError):
    """A whole STAR file that holds something else than coordinates."""


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
    not applied; a warning says so.

    Raises
    ------
    InputError
        If a file that `autopick.star` lists is missing, or the file belongs to a run that is not finished.
    FormatError
        For malformed tables, naming the line, the column and the value.
    """
    _refuse_unfinished(path)
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
    doubts = _doubts_about_shifts(path, table)
    if size_of is None and "rlnImageName" in table:
        doubts += (
            f"{path}: {ONLY_PARTICLE_PIXELS}; give --pixel-size or --micrographs where lengths in Å are to be used",
        )
    grouped = {name: replace(one, warnings=doubts) for name, one in group_picks(names, xy_px, **columns).items()}
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
        if not name.strip():
            raise FormatError(f"{path} line {table.line_numbers[row]}: rlnMicrographName is empty; delete the row")
        rows.setdefault(name, row)
    return [MicrographEntry(name, None if size_of is None else size_of[row]) for name, row in rows.items()]


def write_relion_micrograph(path: Path, picks: Picks) -> None:
    """RELION's file for the picks of one micrograph, as its own auto-picker writes it (class and psi are dummies)."""
    write_text(path, relion_micrograph_text(picks))


def relion_micrograph_text(picks: Picks) -> str:
    """What `write_relion_micrograph` writes."""
    return relion_text_of_rows(coordinate_rows(picks))


def coordinate_rows(picks: Picks) -> list[str]:
    """The lines of `picks` in a table of coordinates, each with its end."""
    return loop_rows(make_table("", _coordinate_columns(picks)).columns)


def relion_text_of_rows(rows: Sequence[str]) -> str:
    """What `write_relion_micrograph` writes for picks with these `coordinate_rows`."""
    return loop_head("", COORDINATE_LABELS) + "".join(rows) + LOOP_END


def write_relion_list(path: Path, micrographs: Sequence[str], coordinate_files: Sequence[str]) -> None:
    """`autopick.star`: which coordinate file belongs to which micrograph; see `relion_list_text`."""
    write_text(path, relion_list_text(micrographs, coordinate_files))


def relion_list_text(micrographs: Sequence[str], coordinate_files: Sequence[str]) -> str:
    """`autopick.star`: which coordinate file belongs to which micrograph.

    Parameters
    ----------
    micrographs : names, equal to those in RELION's micrographs.star letter by letter (extraction compares so)
    coordinate_files : one per micrograph, relative to RELION's project folder
    """
    return RELION_LIST_HEAD + "".join(relion_list_rows(micrographs, coordinate_files)) + LOOP_END


def relion_list_rows(micrographs: Sequence[str], coordinate_files: Sequence[str]) -> list[str]:
    """The lines of `autopick.star` between `RELION_LIST_HEAD` and `LOOP_END`; see `relion_list_text`."""
    columns = dict(zip(_LIST_LABELS, (micrographs, coordinate_files), strict=True))
    return loop_rows(make_table("coordinate_files", columns).columns)


def write_relion_particles(path: Path, picks: Sequence[Picks], *, optics: OpticsGroup | None = None) -> None:
    """All picks in one table; see `relion_particles_text`."""
    write_text(path, relion_particles_text(picks, optics=optics))


def relion_particle_rows(micrograph_name: str, rows: Sequence[str]) -> list[str]:
    """The lines of one micrograph in a table of all particles, see `relion_particles_text`, from `coordinate_rows`.

    Before the first comes `RELION_PARTICLES_HEAD`, after the last `LOOP_END`.
    """
    name = quoted(micrograph_name) if rows else ""
    return [f"{name} {row}" for row in rows]


def relion_particles_text(picks: Sequence[Picks], *, optics: OpticsGroup | None = None) -> str:
    """All picks in one table with rlnMicrographName; this is what CryoSPARC's Import Particle Stack reads.

    Parameters
    ----------
    optics : writes the table in the style of RELION 3.1 and later; without it in that of 3.0, one plain table
    """
    if optics is None:
        rows = (row for one in picks for row in relion_particle_rows(one.micrograph_name, coordinate_rows(one)))
        return RELION_PARTICLES_HEAD + "".join(rows) + LOOP_END
    parts = [_coordinate_columns(one) for one in picks]
    names = [one.micrograph_name for one in picks for _ in range(len(one))]
    columns: dict[str, Sequence[str] | NDArray[Any]] = {"rlnMicrographName": names}
    for label in COORDINATE_LABELS:
        columns[label] = np.concatenate([part[label] for part in parts]) if parts else np.empty(0)
    columns["rlnOpticsGroup"] = np.ones(len(names), dtype=np.int64)
    group: dict[str, Sequence[str] | NDArray[Any]] = {
        "rlnOpticsGroupName": [optics.name],
        "rlnOpticsGroup": np.array([1]),
        "rlnMicrographPixelSize": np.array([optics.pixel_size_angstrom]),
        "rlnVoltage": np.array([optics.voltage_kv]),
        "rlnSphericalAberration": np.array([optics.spherical_aberration_mm]),
        "rlnAmplitudeContrast": np.array([optics.amplitude_contrast]),
    }
    return star_text([make_table("optics", group), make_table("particles", columns)], version=VERSION)


def _coordinate_columns(picks: Picks) -> dict[str, NDArray[Any]]:
    require_writable(picks)
    columns = (
        picks.xy_px[:, 0],
        picks.xy_px[:, 1],
        picks.class_id,
        np.zeros(len(picks)),
        np.where(np.isfinite(picks.score), picks.score, np.float32(NO_SCORE)),
    )
    return dict(zip(COORDINATE_LABELS, columns, strict=True))


def _read_listed(path: Path, listing: StarTable) -> dict[str, Picks]:
    """The files that `autopick.star` lists.

    Their paths start at RELION's project folder. A list that was moved, copied or renamed together with its files has
    them beside it, so that is looked at first, then the working folder, then the folders above the list. Where the
    first two places hold different files a warning says which one is read.
    """
    found: dict[str, Picks] = {}
    names, files = listing.text("rlnMicrographName"), listing.text("rlnMicrographCoordinates")
    doubts: list[tuple[Path, Path]] = []
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        line = f"{path} line {listing.line_numbers[row]}"
        if name in found:
            raise FormatError(f"{line}: micrograph {name} is listed twice; remove one")
        own, listed = _beside_list(path, file), _as_listed(path, file)
        if own is None and _is_in_run(path, file):
            raise InputError(
                f"{line}: lists {file}, whose file below {path.parent / PICKS_FOLDER} is missing; copy the whole run, "
                "or run `cryopick rethreshold` or the `cryopick pick` command of the run to make it again"
            )
        if own is not None and listed is not None and not _are_same_file(own, listed):
            doubts.append((own, listed))
        place = own or listed
        if place is None:
            raise InputError(
                f"{line}: lists {file}, which is not found; run from RELION's project folder, or remove the line"
            )
        found[name] = replace(_read_listed_file(place, line=line), micrograph_name=name)
    if doubts:
        own, listed = doubts[0]
        _logger.warning(
            "%s: %d of its files are also where its paths lead and differ there, for example %s; was it copied or "
            "moved? The files beside it are read: %s",
            *(path, len(doubts), listed, own),
        )
    return found


def _beside_list(path: Path, file: str) -> Path | None:
    """The file below the list's own folder that has most of the listed path, or None."""
    parts = Path(file).parts
    tails = (Path(*parts[start:]) for start in range(1 if Path(file).is_absolute() else 0, len(parts)))
    return next((path.parent / tail for tail in tails if os.path.isfile(path.parent / tail)), None)


def _as_listed(path: Path, file: str) -> Path | None:
    """The listed path from the working folder, or from the nearest folder above the list, or None."""
    places = (Path(file), *(folder / file for folder in path.absolute().parents))
    return next((place for place in places if os.path.isfile(place)), None)


def _is_in_run(path: Path, file: str) -> bool:
    """True where the list is that of a cryopick run, which keeps what it lists in its own folder of picks."""
    return PICKS_FOLDER in Path(file).parts and all((path.parent / name).is_dir() for name in (PICKS_FOLDER, "records"))


def _are_same_file(one: Path, other: Path) -> bool:
    return one.samefile(other) or one.read_bytes() == other.read_bytes()


def _refuse_unfinished(path: Path) -> None:
    """Raise `InputError` for a table of a cryopick run that was left in the middle of writing its tables."""
    folders = [path.absolute().parent]
    folders += [folder.parent for folder in path.absolute().parents if folder.name == PICKS_FOLDER]
    run = next((folder for folder in folders if (folder / UNFINISHED_RUN).exists()), None)
    if run is not None:
        raise InputError(f"{path}: {unfinished_run_text(run)}")


def unfinished_run_text(run: Path) -> str:
    """What is the matter with a run folder in which `UNFINISHED_RUN` lies, and what to do."""
    return (
        f"the run {run} was interrupted, or is still going on, so its picks and tables may not belong together; run "
        "the same `cryopick pick` command again to go on, or `cryopick rethreshold` to finish what is picked so far"
    )


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
    raise NoCoordinatesError(f"{path}: no table with rlnCoordinateX and rlnCoordinateY; labels found: {labels[:200]}")


def _refuse_tomograms(path: Path, tables: Mapping[str, StarTable]) -> None:
    for table in tables.values():
        tomogram = next((label for label in table.columns if label.startswith(_TOMOGRAM_LABELS)), None)
        if tomogram is None and "rlnCoordinateZ" in table and (table.floats("rlnCoordinateZ") != 0).any():
            tomogram = "rlnCoordinateZ"
        if tomogram is not None:
            raise FormatError(
                f"{path}: has {tomogram}, so these are particles of tomograms; expected those of micrographs"
            )


def _doubts_about_shifts(path: Path, table: StarTable) -> tuple[str, ...]:
    """A sentence where a refinement or classification moved the particles from where they were picked."""
    shifts = [label for label in _SHIFTS if label in table and (table.floats(label) != 0).any()]
    if not shifts:
        return ()
    return (
        f"{path}: the shifts {' and '.join(shifts)} are not applied, the coordinates are those that the particles were "
        "extracted at; extract anew with centring in RELION if the shifted ones are meant",
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
