"""Every coordinate format behind two functions: `read_picks` and `write_picks`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.io.coordinates.box import BoxSize, box_sizes, read_box, write_box
from cryopick.io.coordinates.cbox import read_cbox, write_cbox
from cryopick.io.coordinates.coco import known_shape, read_coco, write_coco
from cryopick.io.coordinates.cryosparc import known_sizes, read_cryosparc, write_cryosparc
from cryopick.io.coordinates.csv import (
    first_cells,
    is_cryoppp_header,
    known_height,
    looks_like_csv,
    read_csv,
    write_cryoppp,
    write_csv,
)
from cryopick.io.coordinates.eman_json import read_eman_json, write_eman_json
from cryopick.io.coordinates.grouping import (
    require_name,
    require_plausible,
    require_writable,
    shapes_of,
    with_image_size,
)
from cryopick.io.coordinates.names import (
    COORDINATE_ENDINGS,
    by_products_of_picking,
    micrograph_name_of_file,
    without_extension,
)
from cryopick.io.coordinates.relion import (
    ONLY_PARTICLE_PIXELS,
    NoCoordinatesError,
    is_relion_coordinates,
    read_relion,
    write_relion_list,
    write_relion_micrograph,
    write_relion_particles,
)
from cryopick.io.coordinates.topaz import image_name_of, read_topaz, write_topaz
from cryopick.io.files.json_object import read_json_object
from cryopick.io.files.text import read_text, write_text
from cryopick.io.inputs.own_folders import own_parts
from cryopick.io.star import quoted, read_star
from cryopick.types import Picks

_logger = logging.getLogger(__name__)
LIST_FILE = "autopick.star"
_LIST_FILES = (LIST_FILE, "manualpick.star")
"""Lists of the coordinate files of a folder, as RELION's jobs since 4.0 have them."""
_BOOKKEEPING = ("job.star", "*pipeline.star", "coords_suffix_*.star", "RELION_*.star", "*summary.star", "set.json")
"""Files of RELION jobs and label sets that lie among coordinate files and hold none."""
UNFINISHED = "UNFINISHED.txt"
"""Lies in a folder while coordinate files are written into it; left behind by a process that was killed."""
_MAX_FILE_NAME_BYTES = 255  # what file systems allow
_MAX_PATH_BYTES = 4096 - 64  # what Linux allows, less the temporary name that a file has at first


@dataclass(frozen=True)
class FileFacts:
    """What a file may not say itself, for reading; or needs to hold, for writing.

    Parameters
    ----------
    shape_yx : (h, w) of the micrograph, where a file is for one
    pixel_size_angstrom : Å per px of the micrographs
    box_px : side of boxes in px, or that of each micrograph by its name
    rows : the convention of CryoSPARC's y, "relion" or "flipped" (see `cryopick.io.coordinates.cryosparc`)
    """

    shape_yx: tuple[int, int] | None = None
    pixel_size_angstrom: float | None = None
    box_px: BoxSize = None
    rows: str | None = None


@dataclass(frozen=True)
class FileHead:
    """A file whose format is asked for; what is in it is read when a format looks, and once."""

    path: Path

    @cached_property
    def json(self) -> dict[str, Any]:
        """The content of a JSON file."""
        return read_json_object(self.path, what="EMAN2 boxes or COCO annotations")

    @cached_property
    def cells(self) -> tuple[str, list[str]]:
        """What separates the columns of a table, and the cells of its first row; see `first_cells`."""
        return first_cells(read_text(self.path, what="a table of coordinates"))


@dataclass(frozen=True)
class CoordinateFormat:
    """One format: how its files are recognised, read and written.

    Parameters
    ----------
    suffix : of the files we write
    description : for `cryopick inspect` and the documentation
    other_suffixes : of files that may be of this format too
    recognises : whether a file with one of these suffixes is of this format; the first row that says so has it
    mark : what it is recognised by, for the message where no row recognises a file
    is_suffix_shared : True where files that hold no coordinates often have the suffix too, so that those of a folder
        are looked into first
    is_meant_by_suffix : False where the suffix of a file to write means another format
    needs : what files of the format do not say, or writing them takes: "shape", "pixel size", "box", "rows"
    tail : put between the micrograph's name and the suffix in a folder with one file per micrograph
    is_per_micrograph : True where one file cannot hold several micrographs
    check : raises what `write` would raise for picks of one micrograph that lack something or cannot be held, so that
        nothing is written of a folder of which a part cannot be
    write_one : writes the file of one micrograph in a folder, where that differs from `write`
    write_list : writes the list of micrographs and their files that a folder gets as well, `LIST_FILE`
    may_replace : whether a file that is recognised as this format may be replaced by one; None where every file may
    has_reasons : True where rejected candidates are told from the others
    boxes_are_cut : True where boxes are those that extraction cuts out, rather than what encloses the particle
    """

    name: str
    suffix: str
    description: str
    read: Callable[[Path, FileFacts], dict[str, Picks]]
    write: Callable[[Path, Sequence[Picks], FileFacts], None]
    other_suffixes: tuple[str, ...] = ()
    recognises: Callable[[FileHead], bool] = lambda _head: True
    mark: str = ""
    is_suffix_shared: bool = False
    is_meant_by_suffix: bool = True
    needs: tuple[str, ...] = ()
    is_per_micrograph: bool = False
    tail: str = ""
    check: Callable[[Path, Picks, FileFacts], object] = lambda _path, _picks, _facts: None
    write_one: Callable[[Path, Picks], None] | None = None
    write_list: Callable[[Path, Sequence[str], Sequence[str]], None] | None = None
    may_replace: Callable[[Path], bool] | None = lambda _path: True
    has_reasons: bool = False
    boxes_are_cut: bool = False


def _only(picks: Picks) -> dict[str, Picks]:
    return {picks.micrograph_name: picks}


def _is_csv(head: FileHead) -> bool:
    _, cells = head.cells
    return (head.path.suffix.lower() != ".txt" or looks_like_csv(cells)) and not is_cryoppp_header(cells)


FORMATS: dict[str, CoordinateFormat] = {}
"""Every format by its name. A new one is one more row; `add_format` takes those of other packages."""


def add_format(row: CoordinateFormat) -> None:
    """Put a format into the table; its suffixes are then left out of micrograph names."""
    FORMATS[row.name] = row
    COORDINATE_ENDINGS.update((row.suffix, *row.other_suffixes))


for _row in (
    CoordinateFormat(
        "star",
        ".star",
        "RELION 3.0 to 5: one micrograph, combined particles, or autopick.star",
        lambda path, _: read_relion(path),
        lambda path, picks, _: write_relion_particles(path, picks),
        tail="_picks",
        check=lambda _path, picks, _facts: quoted(picks.micrograph_name),
        write_one=write_relion_micrograph,
        write_list=write_relion_list,
        may_replace=lambda path: is_relion_coordinates(read_star(path)),
    ),
    CoordinateFormat(
        "box",
        ".box",
        "EMAN: corners of whole-pixel boxes",
        lambda path, _: _only(read_box(path)),
        lambda path, picks, facts: write_box(path, picks[0], box_px=facts.box_px),
        needs=("box",),
        is_per_micrograph=True,
        check=lambda path, picks, facts: box_sizes(path, picks, facts.box_px),
        boxes_are_cut=True,
    ),
    CoordinateFormat(
        "cbox",
        ".cbox",
        "crYOLO: boxes with size estimates and confidence",
        lambda path, _: _only(read_cbox(path)),
        lambda path, picks, facts: write_cbox(path, picks[0], box_px=facts.box_px),
        needs=("box",),
        is_per_micrograph=True,
        check=lambda path, picks, facts: box_sizes(path, picks, facts.box_px),
        boxes_are_cut=True,
    ),
    CoordinateFormat(
        "eman-json",
        ".json",
        "EMAN2 info file",
        lambda path, _: _only(read_eman_json(path)),
        lambda path, picks, _: write_eman_json(path, picks[0]),
        recognises=lambda head: "boxes" in head.json,
        mark="`boxes` (EMAN2)",
        is_suffix_shared=True,
        is_per_micrograph=True,
        tail="_info",
        check=lambda path, _picks, _facts: path.is_file() and read_json_object(path, what="an EMAN2 info file"),
        may_replace=None,  # writing keeps what else it finds in a file, or refuses
    ),
    CoordinateFormat(
        "topaz",
        ".txt",
        "Topaz: image_name, x_coord, y_coord, score",
        lambda path, _: read_topaz(path),
        lambda path, picks, _: write_topaz(path, picks),
        other_suffixes=(".csv", ".tsv"),
        recognises=lambda head: head.cells[0] == "\t" and head.cells[1][0] == "image_name",
        is_suffix_shared=True,
        check=lambda _path, picks, _facts: image_name_of(picks),
    ),
    CoordinateFormat(
        "coco",
        ".json",
        "COCO annotations",
        lambda path, _: read_coco(path),
        lambda path, picks, facts: write_coco(path, picks, box_px=facts.box_px),
        recognises=lambda head: "annotations" in head.json,
        mark="`annotations` (COCO)",
        is_suffix_shared=True,
        needs=("shape", "box"),
        check=lambda path, picks, facts: (known_shape(path, picks), box_sizes(path, picks, facts.box_px)),
    ),
    CoordinateFormat(
        "csv",
        ".csv",
        "x,y with any of score, diameter, class, kind, reason, micrograph",
        lambda path, facts: read_csv(path, shape_yx=facts.shape_yx, pixel_size_angstrom=facts.pixel_size_angstrom),
        lambda path, picks, _: write_csv(path, picks),
        other_suffixes=(".txt", ".tsv"),
        recognises=_is_csv,
        may_replace=lambda path: looks_like_csv(first_cells(read_text(path, what="CSV"))[1]),
        has_reasons=True,
    ),
    CoordinateFormat(
        "cryoppp",
        ".csv",
        "CryoPPP ground truth: y counted from the bottom",
        lambda path, facts: read_csv(path, shape_yx=facts.shape_yx),
        lambda path, picks, _: write_cryoppp(path, picks),
        other_suffixes=(".txt", ".tsv"),
        recognises=lambda head: is_cryoppp_header(head.cells[1]),
        is_meant_by_suffix=False,
        needs=("shape",),
        is_per_micrograph=True,
        check=lambda path, picks, _: known_height(path, picks),
    ),
    CoordinateFormat(
        "cryosparc",
        ".cs",
        "CryoSPARC particle locations",
        lambda path, facts: read_cryosparc(path, rows=facts.rows),
        lambda path, picks, facts: write_cryosparc(
            path, picks, rows=facts.rows, pixel_size_angstrom=facts.pixel_size_angstrom
        ),
        needs=("shape", "pixel size", "rows"),
        check=lambda path, picks, facts: known_sizes(path, picks, facts.pixel_size_angstrom),
    ),
):
    add_format(_row)


def needing(fact: str) -> list[str]:
    """The names of the formats that need a fact, such as "box"."""
    return [row.name for row in FORMATS.values() if fact in row.needs]


def format_named(name: str) -> CoordinateFormat:
    """The format called `name`; an unknown name lists the known ones."""
    if name not in FORMATS:
        raise SettingsError(f"unknown coordinate format {name!r}; known formats: {', '.join(FORMATS)}")
    return FORMATS[name]


def detect_format(path: Path) -> str:
    """The name of the format of a file, from its ending and, where that is shared, its content.

    Raises
    ------
    FormatError
        If it is none that we read.
    """
    suffix, head = path.suffix.lower(), FileHead(path)
    possible = [row for row in FORMATS.values() if suffix in (row.suffix, *row.other_suffixes)]
    found = next((row.name for row in possible if row.recognises(head)), None)
    if found is not None:
        return found
    marks = [row.mark for row in possible if row.mark]
    if marks:
        raise FormatError(f"{path}: {suffix[1:].upper()} with neither {' nor '.join(marks)}; pass the format")
    raise FormatError(f"{path}: coordinate format not recognised; pass one of: {', '.join(FORMATS)}")


def read_picks(
    path: Path | str,
    *,
    format: str | None = None,
    shapes_yx: Mapping[str, tuple[int, int]] | None = None,
    pixel_size_angstrom: float | None = None,
    rows: str | None = None,
) -> dict[str, Picks]:
    """Picks by micrograph name, from a file or a folder of files, in our frame.

    A folder with `autopick.star` or `manualpick.star` (a RELION job, a cryopick run) is read through it; otherwise
    every coordinate file below it is read, through links, hidden ones and STAR tables without coordinates left out, all
    of one format, and a file of one micrograph is named by its path in the folder, without extension and pick suffix.
    Link names to images with `cryopick.io.coordinates.names.match_micrograph_names`.

    Parameters
    ----------
    format : a name from `FORMATS`; None detects it
    shapes_yx : (h, w) by micrograph name or alias. Some formats need it; given, picks outside the image are kept
        with a warning in `Picks.warnings`, and when more than half are outside that is an error
    pixel_size_angstrom : Å per px, for files with coordinates in Å and where the file does not say
    rows : "relion" or "flipped", for CryoSPARC's .cs, which does not say it (see `cryopick.io.coordinates.cryosparc`)

    Raises
    ------
    InputError
        If nothing is there to read, two files are for one micrograph, or the folder was not written to the end.
    FormatError
        If a file is malformed; the message names the line.
    """
    path = Path(path)
    _require_possible(path)
    facts = FileFacts(pixel_size_angstrom=pixel_size_angstrom, rows=rows)
    shapes_yx = shapes_yx or {}
    if (path / UNFINISHED).is_file():
        raise InputError(
            f"{path}: a conversion into this folder was stopped in the middle ({UNFINISHED} is there), so files "
            "are missing or of the former one; run it again, or delete that file to read what there is"
        )
    if path.is_dir() and format in (None, "star"):
        lists = [path / name for name in _LIST_FILES if (path / name).is_file()]
        if len(lists) > 1:
            raise InputError(f"{path}: holds the lists {' and '.join(file.name for file in lists)}; give one of them")
        path, format = (lists[0], "star") if lists else (path, format)
    if path.is_dir():
        found = _read_folder(path, format, facts, shapes_yx)
    elif path.is_file():
        shape_yx = shapes_of([micrograph_name_of_file(path.name)], shapes_yx)
        facts = replace(facts, shape_yx=next(iter(shape_yx.values()), None))
        found = format_named(format or detect_format(path)).read(path, facts)
    else:
        raise InputError(f"{path}: no such file or folder; expected coordinates")
    if not all(name.strip() for name in found):
        count = sum(len(picks) for name, picks in found.items() if not name.strip())
        raise FormatError(f"{path}: {count} picks have an empty micrograph name; fix or delete their rows")
    checked = {}
    shape_of = shapes_of(found, shapes_yx)
    for name, one in found.items():
        require_plausible(one, source=str(path))
        picks = _without_impossible_sizes(one)
        known = replace(picks, pixel_size_angstrom=picks.pixel_size_angstrom or pixel_size_angstrom)
        if pixel_size_angstrom is not None:
            known = replace(known, warnings=tuple(one for one in known.warnings if ONLY_PARTICLE_PIXELS not in one))
        checked[name] = with_image_size(known, shape_of.get(name, picks.shape_yx), source=str(path))
    return checked


def write_picks(
    picks: Mapping[str, Picks] | Sequence[Picks] | Picks,
    path: Path | str,
    *,
    format: str | None = None,
    box_px: BoxSize = None,
    rows: str | None = None,
    pixel_size_angstrom: float | None = None,
    keep_rejected: bool = False,
) -> list[Path]:
    """Write picks to one file, or to a folder with one file per micrograph; returns the files written.

    `path` is a folder when it exists as one, ends with a slash or has no extension. Folders inside micrograph names are
    kept, so equal base names do not collide. In the format `star` a folder also gets the list `autopick.star`. Each
    file is written whole or not at all; a folder holds `UNFINISHED.txt` until all its files are written.

    Parameters
    ----------
    format : a name from `FORMATS`; None takes it from the extension of `path`
    box_px : side of boxes, for box, cbox and coco, or that of each micrograph by its name; None takes each pick's
        diameter
    rows : "relion" or "flipped", for cryosparc
    pixel_size_angstrom : Å per px where the picks do not know it, for cryosparc
    keep_rejected : also write candidates with a rejection reason; only CSV has a column for it

    Raises
    ------
    SettingsError
        If the format is unknown or lacks something (box size, image size), or cannot hold several micrographs.
    InputError
        If a centre, score or diameter is not finite, or a name cannot be held; nothing is written then.
    OutputError
        If a file cannot be written.
    """
    is_folder = is_folder_to_write(path)
    chosen = format_to_write(path, format)
    path = Path(path)
    _require_possible(path)
    if isinstance(picks, Picks):
        picks = [picks]
    ordered = list(picks.values()) if isinstance(picks, Mapping) else list(picks)
    if not keep_rejected:
        ordered = [one.kept() for one in ordered]
    for one in ordered:
        require_writable(one)
        _require_no_infinities(one)
    facts = FileFacts(pixel_size_angstrom=pixel_size_angstrom, box_px=box_px, rows=rows)
    if is_folder:
        return _write_folder(path, ordered, chosen, facts)
    if chosen.is_per_micrograph and len(ordered) != 1:
        raise SettingsError(
            f"{path}: a {chosen.name} file holds one micrograph and there are {len(ordered)}; give a folder instead"
        )
    chosen.write(path, ordered, facts)
    return [path]


def is_folder_to_write(path: Path | str) -> bool:
    """True where `write_picks` writes one file per micrograph below `path`, rather than one file of that name."""
    return str(path).endswith(("/", os.sep)) or Path(path).is_dir() or not Path(path).suffix


def format_to_write(path: Path | str, format: str | None) -> CoordinateFormat:
    """The format that `write_picks` writes to `path`; raises `SettingsError` where that is not clear."""
    if format is None and is_folder_to_write(path):
        raise SettingsError(f"{path}: is a folder, so the format must be given; one of: {', '.join(FORMATS)}")
    return format_named(format) if format else _format_to_write(Path(path))


def files_to_write(micrograph_names: Sequence[str], path: Path | str, format: str | None) -> list[Path]:
    """The files that `write_picks` makes for picks of these micrographs; errors as there."""
    if not is_folder_to_write(path):
        return [Path(path)]
    chosen = format_to_write(path, format)
    files = list(_files_in(Path(path), micrograph_names, chosen))
    return [*files, Path(path) / LIST_FILE] if chosen.write_list is not None else files


def _require_possible(path: Path) -> None:
    """Refuse a path that no file system can hold, instead of the `ValueError` that it raises when used."""
    require_name(str(path), forbidden="\0", holder="a path")


def _without_impossible_sizes(picks: Picks) -> Picks:
    """Sizes of 0 and below, with which programs say that they do not know, are unknown, and a warning says so."""
    told = list(picks.warnings)
    is_bad = picks.diameter_px <= 0
    if is_bad.any():
        told.append(f"{np.count_nonzero(is_bad)} diameters are 0 or below, which is taken for unknown")
    pixel_size = picks.pixel_size_angstrom
    if pixel_size is not None and not 0 < pixel_size < np.inf:
        told.append(f"the pixel size in the file is {pixel_size:g}, expected above 0; it is taken for unknown")
        pixel_size = None
    return replace(
        picks,
        diameter_px=np.where(is_bad, np.float32(np.nan), picks.diameter_px),
        pixel_size_angstrom=pixel_size,
        warnings=tuple(told),
    )


def _require_no_infinities(picks: Picks) -> None:
    for column in ("score", "diameter_px"):
        is_bad = np.isinf(getattr(picks, column))
        if is_bad.any():
            raise InputError(
                f"{picks.micrograph_name}: {column} of pick {int(np.argmax(is_bad)) + 1} is infinite, expected a "
                "number, or NaN where it is unknown"
            )


def _read_folder(
    folder: Path, format: str | None, facts: FileFacts, shapes_yx: Mapping[str, tuple[int, int]]
) -> dict[str, Picks]:
    wanted = {entry.suffix for entry in FORMATS.values()} if format is None else {format_named(format).suffix}
    files = [file for file in _files_below(folder) if file.suffix.lower() in wanted]
    files = [file for file in files if not any(file.match(pattern) for pattern in _BOOKKEEPING)]
    if format is None:
        shared = {row.suffix for row in FORMATS.values() if row.is_suffix_shared}
        files = [file for file in files if file.suffix.lower() not in shared or _is_recognised(file)]
    relative = {file.relative_to(folder).as_posix(): file for file in files}
    by_products = by_products_of_picking(relative)
    if by_products:
        _logger.warning(
            "%s: left out %d files that only accompany picks, such as %s", folder, len(by_products), min(by_products)
        )
        files = [file for name, file in relative.items() if name not in by_products]
    if not files:
        endings = ", ".join(sorted(wanted))
        raise InputError(f"{folder}: no coordinate files ({endings}) found; give a folder that holds some")
    endings_found = sorted({file.suffix.lower() for file in files})
    if len(endings_found) > 1:
        raise InputError(f"{folder}: files of several formats ({', '.join(endings_found)}); pass the format to read")
    found: dict[str, Picks] = {}
    file_of: dict[str, Path] = {}
    named_by_file = {file: micrograph_name_of_file(file.relative_to(folder).as_posix()) for file in files}
    shape_of = shapes_of(named_by_file.values(), shapes_yx)
    without: dict[Path, NoCoordinatesError] = {}
    for file, file_name in named_by_file.items():
        chosen = format_named(format or detect_format(file))
        try:
            picks_of = chosen.read(file, replace(facts, shape_yx=shape_of.get(file_name)))
        except NoCoordinatesError as error:
            without[file] = error
            continue
        for name, picks in picks_of.items():
            full_name = file_name if name == micrograph_name_of_file(file.name) else name
            if full_name in found:
                places = " and in ".join(one.relative_to(folder).as_posix() for one in (file_of[full_name], file))
                raise InputError(
                    f"{folder}: micrograph {full_name} is in {places}; give one of the files, or remove one"
                )
            found[full_name] = replace(picks, micrograph_name=full_name)
            file_of[full_name] = file
    if without and not found:
        raise next(iter(without.values()))
    if without:
        names = [file.relative_to(folder).as_posix() for file in without]
        _logger.warning(
            "%s: left out %d tables without coordinates, such as %s", folder, len(names), ", ".join(names[:3])
        )
    return found


def _files_below(folder: Path) -> list[Path]:
    """Files of a folder and of those below it, through links but in no circle; without hidden files and our reports.

    Links that lead nowhere are among them, so that reading them says so.
    """
    files: list[Path] = []
    seen: set[str] = set()

    def left_out(error: OSError) -> None:
        _logger.warning("%s: left out, cannot be looked into (%s)", error.filename, error.strerror)

    for here, folders, names in os.walk(folder, followlinks=True, onerror=left_out):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        _, reports = own_parts((*folders, *names))
        paths = [Path(here, name) for name in names if not name.startswith(".") and name not in reports]
        files += [path for path in paths if path.is_file() or (path.is_symlink() and not path.exists())]
    return sorted(files)


def _format_to_write(path: Path) -> CoordinateFormat:
    """By the file's ending alone, since a file to write need not exist; `.csv` means our own columns."""
    ending = path.suffix.lower()
    fitting = [entry for entry in FORMATS.values() if entry.suffix == ending and entry.is_meant_by_suffix]
    if len(fitting) != 1:
        found = f"stands for {', '.join(entry.name for entry in fitting)}" if fitting else "is no coordinate format"
        raise SettingsError(f"{path}: {ending} {found}; give the format, one of: {', '.join(FORMATS)}")
    return fitting[0]


def _is_recognised(file: Path) -> bool:
    """False for notes and settings that only share the ending with a coordinate format."""
    try:
        detect_format(file)
    except FormatError:
        return False
    return True


def _write_folder(folder: Path, picks: Sequence[Picks], chosen: CoordinateFormat, facts: FileFacts) -> list[Path]:
    file_of = _files_in(folder, [one.micrograph_name for one in picks], chosen)
    for file, one in zip(file_of, picks, strict=True):
        chosen.check(file, one, facts)
    marker = folder / UNFINISHED
    write_text(
        marker, f"cryopick is writing {len(picks)} coordinate files into this folder, or was stopped while doing so.\n"
    )
    for file, one in zip(file_of, picks, strict=True):
        if chosen.write_one is not None:
            chosen.write_one(file, one)
        else:
            chosen.write(file, [one], facts)
    written = list(file_of)
    if chosen.write_list is not None:
        chosen.write_list(folder / LIST_FILE, [one.micrograph_name for one in picks], [str(file) for file in file_of])
        written.append(folder / LIST_FILE)
    marker.unlink(missing_ok=True)
    return written


def _files_in(folder: Path, micrograph_names: Sequence[str], chosen: CoordinateFormat) -> dict[Path, str]:
    """File -> micrograph, in order; two micrographs with one file raise `InputError`."""
    file_of: dict[Path, str] = {}
    for name in micrograph_names:
        file = _file_in(folder, name, chosen)
        if file in file_of:
            raise InputError(f"{folder}: micrographs {file_of[file]} and {name} would share {file.name}; rename one")
        file_of[file] = name
    return file_of


def _file_in(folder: Path, micrograph_name: str, chosen: CoordinateFormat) -> Path:
    """Where the picks of a micrograph go; a name cannot lead out of the folder, nor be one that no disk takes."""
    require_name(micrograph_name, forbidden="\0\n\r", holder="a file name")
    parts = [part for part in PurePosixPath(without_extension(micrograph_name)).parts if part not in ("/", "..", ".")]
    if not parts:
        raise InputError(f"micrograph name {micrograph_name!r} gives no file name; rename it")
    file_name = f"{parts[-1]}{chosen.tail}{chosen.suffix}"
    too_long = next((part for part in (*parts[:-1], file_name) if len(os.fsencode(part)) > _MAX_FILE_NAME_BYTES), None)
    if too_long is not None:
        raise InputError(
            f"micrograph name {micrograph_name[:60]}...: {too_long[:20]}... is {len(os.fsencode(too_long))} bytes "
            f"long, file systems allow {_MAX_FILE_NAME_BYTES}; rename the micrograph"
        )
    file = folder.joinpath(*parts[:-1], file_name)
    if len(os.fsencode(file.absolute())) > _MAX_PATH_BYTES:
        raise InputError(
            f"micrograph name {micrograph_name[:60]}...: with its folders it is {len(os.fsencode(micrograph_name))} "
            f"bytes long, a path may have {_MAX_PATH_BYTES}; rename the micrograph"
        )
    return file
