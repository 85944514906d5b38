"""Every coordinate format behind two functions: `read_picks` and `write_picks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.io.csv import read_csv, write_cryoppp, write_csv
from cryopick.io.grouping import shape_of, with_image_size
from cryopick.io.names import micrograph_name_of_file, without_extension
from cryopick.io.relion import read_relion, write_relion_list, write_relion_micrograph, write_relion_particles
from cryopick.types import Picks

LIST_FILE = "autopick.star"


@dataclass(frozen=True)
class ReadOptions:
    """What a file may not say itself."""

    shapes_yx: Mapping[str, tuple[int, int]] | None = None
    pixel_size_angstrom: float | None = None

    def shape_for(self, path: Path) -> tuple[int, int] | None:
        return shape_of(self.shapes_yx, micrograph_name_of_file(path.name))


@dataclass(frozen=True)
class CoordinateFormat:
    """One format: how its files end, and how it is read and written.

    Parameters
    ----------
    suffix : of the files we write
    tail : put between the micrograph's name and the suffix in a folder with one file per micrograph
    is_per_micrograph : True where one file cannot hold several micrographs
    """

    name: str
    suffix: str
    description: str
    read: Callable[[Path, ReadOptions], dict[str, Picks]]
    write: Callable[[Path, Sequence[Picks]], None]
    is_per_micrograph: bool = False
    tail: str = ""


def _read_star(path: Path, _: ReadOptions) -> dict[str, Picks]:
    return read_relion(path)


def _write_star(path: Path, picks: Sequence[Picks]) -> None:
    write_relion_particles(path, picks)


def _read_csv(path: Path, options: ReadOptions) -> dict[str, Picks]:
    return read_csv(path, shape_yx=options.shape_for(path), pixel_size_angstrom=options.pixel_size_angstrom)


FORMATS: dict[str, CoordinateFormat] = {
    entry.name: entry
    for entry in (
        CoordinateFormat("star", ".star", "RELION 3.0 to 5", _read_star, _write_star, tail="_picks"),
        CoordinateFormat("csv", ".csv", "x,y with any of score, diameter, class, kind", _read_csv, write_csv),
        CoordinateFormat("cryoppp", ".csv", "CryoPPP ground truth", _read_csv, write_cryoppp, is_per_micrograph=True),
    )
}


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
    suffix = path.suffix.lower()
    if suffix == ".star":
        return "star"
    if suffix == ".csv":
        return "csv"
    raise FormatError(f"{path}: coordinate format not recognised; pass one of: {', '.join(FORMATS)}")


def read_picks(
    path: Path | str,
    *,
    format: str | None = None,
    shapes_yx: Mapping[str, tuple[int, int]] | None = None,
    pixel_size_angstrom: float | None = None,
) -> dict[str, Picks]:
    """Picks by micrograph name, from a file or a folder of files, in our frame.

    A folder with `autopick.star` (a RELION job, a cryopick run) is read through it; otherwise every coordinate file
    below it is read, all of one format, and a file of one micrograph is named by its path in the folder, without
    extension and pick suffix. Link names to images with `cryopick.io.names.match_micrograph_names`.

    Parameters
    ----------
    format : a name from `FORMATS`; None detects it
    shapes_yx : (h, w) by micrograph name or alias. Some formats need it; given, picks outside the image are kept
        with a warning in `Picks.warnings`, and when more than half are outside that is an error
    pixel_size_angstrom : Å per px, for files with coordinates in Å and where the file does not say

    Raises
    ------
    InputError
        If nothing is there to read, or two files are for one micrograph.
    FormatError
        If a file is malformed; the message names the line.
    """
    path = Path(path)
    options = ReadOptions(shapes_yx, pixel_size_angstrom)
    if path.is_dir() and (path / LIST_FILE).is_file() and format in (None, "star"):
        path, format = path / LIST_FILE, "star"
    if path.is_dir():
        found = _read_folder(path, format, options)
    elif path.is_file():
        found = format_named(format or detect_format(path)).read(path, options)
    else:
        raise InputError(f"{path}: no such file or folder; expected coordinates")
    checked = {}
    for name, picks in found.items():
        shape_yx = shape_of(shapes_yx, name) or picks.shape_yx
        known = replace(picks, pixel_size_angstrom=picks.pixel_size_angstrom or pixel_size_angstrom)
        checked[name] = with_image_size(known, shape_yx, source=str(path))
    return checked


def write_picks(
    picks: Mapping[str, Picks] | Sequence[Picks],
    path: Path | str,
    *,
    format: str | None = None,
    keep_rejected: bool = False,
) -> list[Path]:
    """Write picks to one file, or to a folder with one file per micrograph; returns the files written.

    `path` is a folder when it exists as one or has no extension. Folders inside micrograph names are kept, so equal
    base names do not collide. In the format `star` a folder also gets the list `autopick.star`.

    Parameters
    ----------
    format : a name from `FORMATS`; None takes it from the extension of `path`
    keep_rejected : also write candidates with a rejection reason; only CSV has a column for it

    Raises
    ------
    SettingsError
        If the format is unknown or lacks something (box size, image size), or cannot hold several micrographs.
    InputError
        If the file cannot be written.
    """
    path = Path(path)
    ordered = list(picks.values()) if isinstance(picks, Mapping) else list(picks)
    if not keep_rejected:
        ordered = [one.kept() for one in ordered]
    is_folder = path.is_dir() or not path.suffix
    if format is None and is_folder:
        raise SettingsError(f"{path}: is a folder, so the format must be given; one of: {', '.join(FORMATS)}")
    chosen = format_named(format) if format else format_named(detect_format(path))
    if is_folder:
        return _write_folder(path, ordered, chosen)
    if chosen.is_per_micrograph and len(ordered) != 1:
        raise SettingsError(
            f"{path}: a {chosen.name} file holds one micrograph and there are {len(ordered)}; give a folder instead"
        )
    chosen.write(path, ordered)
    return [path]


def _read_folder(folder: Path, format: str | None, options: ReadOptions) -> dict[str, Picks]:
    wanted = {entry.suffix for entry in FORMATS.values()} if format is None else {format_named(format).suffix}
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix.lower() in wanted)
    if not files:
        endings = ", ".join(sorted(wanted))
        raise InputError(f"{folder}: no coordinate files ({endings}) found; give a folder that holds some")
    endings_found = sorted({file.suffix.lower() for file in files})
    if len(endings_found) > 1:
        raise InputError(f"{folder}: files of several formats ({', '.join(endings_found)}); pass the format to read")
    found: dict[str, Picks] = {}
    file_of: dict[str, Path] = {}
    for file in files:
        chosen = format_named(format or detect_format(file))
        for name, picks in chosen.read(file, options).items():
            relative = file.relative_to(folder).parent
            is_named_by_file = name == micrograph_name_of_file(file.name)
            full_name = str(PurePosixPath(relative.as_posix()) / name) if is_named_by_file else name
            if full_name in found:
                raise InputError(
                    f"{folder}: micrograph {full_name} is in {file_of[full_name].name} and in {file.name}; remove one"
                )
            found[full_name] = replace(picks, micrograph_name=full_name)
            file_of[full_name] = file
    return found


def _write_folder(folder: Path, picks: Sequence[Picks], chosen: CoordinateFormat) -> list[Path]:
    file_of: dict[Path, str] = {}
    for one in picks:
        file = _file_in(folder, one.micrograph_name, chosen)
        if file in file_of:
            raise InputError(
                f"{folder}: micrographs {file_of[file]} and {one.micrograph_name} would share {file.name}; rename one"
            )
        file_of[file] = one.micrograph_name
    for file, one in zip(file_of, picks, strict=True):
        if chosen.name == "star":
            write_relion_micrograph(file, one)
        else:
            chosen.write(file, [one])
    written = list(file_of)
    if chosen.name == "star":
        write_relion_list(folder / LIST_FILE, [one.micrograph_name for one in picks], [str(file) for file in file_of])
        written.append(folder / LIST_FILE)
    return written


def _file_in(folder: Path, micrograph_name: str, chosen: CoordinateFormat) -> Path:
    """Where the picks of a micrograph go; a name cannot lead out of the folder."""
    parts = [part for part in PurePosixPath(without_extension(micrograph_name)).parts if part not in ("/", "..", ".")]
    if not parts:
        raise InputError(f"micrograph name {micrograph_name!r} gives no file name; rename it")
    return folder.joinpath(*parts[:-1], f"{parts[-1]}{chosen.tail}{chosen.suffix}")
