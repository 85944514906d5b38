"""Which micrographs a user means: folders, files, globs, `@list.txt`, and RELION's `micrographs.star`."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from cryopick.errors import FormatError, InputError
from cryopick.io.images import EER_SUFFIXES, JPEG_SUFFIXES, PNG_SUFFIXES, TIFF_SUFFIXES, image_format, read_micrograph
from cryopick.io.names import without_extension
from cryopick.io.reading import explain_read_errors
from cryopick.io.relion import read_micrographs_star
from cryopick.io.star import quoted
from cryopick.io.text import read_text
from cryopick.types import Micrograph

FOLDER_SUFFIXES = (".mrc", ".mrc.gz", ".mrc.bz2", *TIFF_SUFFIXES, *PNG_SUFFIXES, *JPEG_SUFFIXES)
"""What a folder is searched for. Stacks (.mrcs) and maps (.map) are read when named, but not found by searching."""

_MAX_PROBED = 100  # listed files looked for when finding the folder that a list's relative paths start from
_N_SHOWN = 3
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MicrographSource:
    """One micrograph to read.

    Parameters
    ----------
    path : the file
    name : unique within the run, also without its extension; the path below the deepest folder that all inputs share,
        with `/` as separator, never absolute and without `..`
    pixel_size_angstrom : from the optics table of a STAR file, else None
    listed_name : the text that names it in the STAR file it came from, which RELION compares letter by letter
    """

    path: Path
    name: str
    pixel_size_angstrom: float | None = None
    listed_name: str | None = None


@dataclass(frozen=True)
class _Found:
    """A file and the folder from which its name counts."""

    path: Path
    root: Path
    pixel_size_angstrom: float | None = None
    listed_name: str | None = None


def find_micrographs(
    inputs: Sequence[str | Path], *, exclude_folders: Iterable[str | Path] = ()
) -> list[MicrographSource]:
    """Collect the micrographs that `inputs` name, each file once, without opening them.

    Parameters
    ----------
    inputs : any of
        - a folder: searched with all folders below it (hidden ones left out) for MRC, TIFF, PNG and JPEG files
        - a file
        - a pattern with `*`, `?`, `[...]`, or `**` for any number of folders
        - `@list.txt`: one such input per line; blank lines and lines that start with `#` are left out
        - a STAR file with rlnMicrographName; pixel sizes come from its optics table
        Relative paths in lists and STAR files count from the working folder or, if nothing is found there, from the
        nearest folder above the file in which something is.
    exclude_folders : not searched, for example the output folder

    Returns
    -------
    sources : in the order of `inputs`; files of a folder or pattern sorted by path. A file that a list names but that
        is missing is kept, so that reading it reports it; it is an error when all of a list are missing.

    Raises
    ------
    InputError
        If an input does not exist, has an unknown suffix, holds no micrographs, or when two files would have results
        of one name (`a.mrc` and `a.png` in one folder).
    FormatError
        If a STAR file is malformed, or only movies were found.
    """
    if isinstance(inputs, str | PurePath):  # a single path would be taken apart letter by letter
        inputs = [inputs]
    if not inputs:
        raise InputError("no micrographs given; give a folder, files, a pattern, @list.txt or a micrographs.star")
    excluded = {os.path.realpath(folder) for folder in exclude_folders}
    found: dict[str, _Found] = {}
    for given in inputs:
        for one in _expand(str(given), excluded):
            place = os.path.abspath(one.path)
            if place not in found or (one.listed_name is not None and found[place].listed_name is None):
                found[place] = one  # a STAR file knows more than a folder does; the first place in the order stays
    return _named(list(found.values()))


def read_source(source: MicrographSource, *, pixel_size_angstrom: float | None = None) -> Micrograph:
    """Read the micrograph of a source under its name; `pixel_size_angstrom` overrules optics table and header.

    Errors as in `cryopick.io.images.read_micrograph`.
    """
    return read_micrograph(
        source.path,
        pixel_size_angstrom=pixel_size_angstrom,
        optics_pixel_size_angstrom=source.pixel_size_angstrom,
        name=source.name,
    )


def _expand(given: str, excluded: set[str]) -> Iterator[_Found]:
    # os.path and not pathlib asks what exists: its answer to a name that is too long is no, not an error
    try:
        is_possible = b"\0" not in os.fsencode(given)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise InputError(f"{given!r}: holds a character that no path can hold, null or half of a pair")
    path = Path(given)
    if given.startswith("@") and not os.path.exists(path):
        yield from _in_list(Path(given[1:]), excluded)
    elif os.path.isdir(path):
        yield from _in_folder(path, excluded)
    elif os.path.exists(path) and path.suffix.lower() == ".star":
        yield from _in_star(path)
    elif os.path.exists(path):
        yield _file(path)
    elif glob.has_magic(given):
        yield from _in_pattern(given, excluded)
    else:
        raise InputError(f"{given}: no such file or folder; check the path (and put patterns in quotes)")


def _file(path: Path) -> _Found:
    if image_format(path) == "EER":
        raise FormatError(
            f"{path}: is an EER movie; cryopick reads motion-corrected, summed micrographs, so align it first "
            "(RELION MotionCorr, MotionCor, Warp or cryoSPARC Patch Motion) and give the result"
        )
    return _Found(path, path.parent)


def _in_folder(folder: Path, excluded: set[str]) -> Iterator[_Found]:
    paths = sorted(_walk(folder, excluded))
    images = [path for path in paths if path.name.lower().endswith(FOLDER_SUFFIXES)]
    n_eer = sum(path.name.lower().endswith(EER_SUFFIXES) for path in paths)
    if not images and n_eer:
        raise FormatError(
            f"{folder}: holds {n_eer} EER movies and no micrographs; cryopick reads motion-corrected, summed "
            "micrographs, so align the movies first and give the folder of the results"
        )
    if not images:
        raise InputError(
            f"{folder}: no micrographs found in {len(paths)} files; looked for {', '.join(FOLDER_SUFFIXES)} in it and "
            "in the folders below"
        )
    if n_eer:
        _logger.warning("%s: %d EER movies left out; cryopick reads motion-corrected micrographs", folder, n_eer)
    yield from (_Found(path, folder) for path in images)


def _walk(folder: Path, excluded: set[str]) -> Iterator[Path]:
    """Files below a folder, through symbolic links but around no circle twice; hidden names are left out."""
    seen = set(excluded)
    with explain_read_errors(folder):
        os.listdir(folder)
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        try:
            names = os.listdir(here)
        except OSError as error:
            _logger.warning("%s: left out, cannot be looked into (%s)", here, error.strerror)
            continue
        for name in names:
            if name.startswith("."):
                continue
            if os.path.isdir(here / name):
                waiting.append(here / name)
            elif os.path.isfile(here / name):
                yield here / name


def _in_pattern(pattern: str, excluded: set[str]) -> Iterator[_Found]:
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
    files = [match for match in matches if os.path.isfile(match)]
    if not files:
        raise InputError(f"{pattern}: no file matches this pattern; check it, or give the folder")
    star_files = [file for file in files if file.suffix.lower() == ".star"]
    for file in files:
        if any(os.path.realpath(parent) in excluded for parent in file.parents):
            continue
        if file in star_files:
            yield from _in_star(file)
        else:
            yield _Found(_file(file).path, Path(*fixed))


def _in_list(path: Path, excluded: set[str]) -> Iterator[_Found]:
    lines = (line.strip() for line in read_text(path, what="a list of micrographs, one per line").splitlines())
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise InputError(f"{path}: the list is empty; write one file, folder or pattern per line")
    nested = next((entry for entry in entries if entry.startswith("@")), None)
    if nested is not None:
        raise InputError(f"{path}: names another list, {nested}; give both lists on the command line")
    base = _base_folder(path, entries)
    for entry in entries:
        located = base / entry
        if not os.path.exists(located) and not glob.has_magic(entry):
            yield replace(_file(located), root=base)
            continue
        for one in _expand(str(located) if os.path.exists(located) else _pattern_below(base, entry), excluded):
            # Names count from the base, so that a list of files from many folders keeps their tree
            yield one if one.listed_name is not None else replace(one, root=base)


def _in_star(path: Path) -> Iterator[_Found]:
    entries = read_micrographs_star(path)
    if not entries:
        raise InputError(f"{path}: lists no micrographs; give a STAR file with rows")
    base = _base_folder(path, [entry.name for entry in entries])
    for entry in entries:
        yield _Found(_file(base / entry.name).path, base, entry.pixel_size_angstrom, entry.name)


def _base_folder(path: Path, entries: Sequence[str]) -> Path:
    """Where relative entries of the file `path` count from: the working folder, or a folder above the file."""
    probed = entries[:_MAX_PROBED]
    for base in (Path(), *Path(os.path.abspath(path)).parents):
        if any(os.path.exists(base / entry) or glob.glob(_pattern_below(base, entry)) for entry in probed):
            return base
    raise InputError(
        f"{path}: none of its {len(entries)} entries exists, the first being {entries[0]!r}; paths count from the "
        "working folder (for RELION, the project folder) or from a folder above the list"
    )


def _pattern_below(base: Path, entry: str) -> str:
    return os.path.join(glob.escape(str(base)), entry)


def _named(found: Sequence[_Found]) -> list[MicrographSource]:
    """Names relative to the deepest folder that holds all inputs, so that they differ wherever the files differ."""
    absolute = [Path(os.path.abspath(one.path)) for one in found]
    roots = [Path(os.path.abspath(one.root)) for one in found]
    # An entry such as `../x.mrc` lies outside the folder it counts from
    roots = [root if path.is_relative_to(root) else path.parent for path, root in zip(absolute, roots, strict=True)]
    common = Path(os.path.commonpath(roots))
    sources = [
        MicrographSource(one.path, path.relative_to(common).as_posix(), one.pixel_size_angstrom, one.listed_name)
        for one, path in zip(found, absolute, strict=True)
    ]
    _require_distinct_results(sources)
    for source in sources:
        if re.search(r"[\x00-\x1f]", source.name):
            raise InputError(f"{source.name!r}: a control character in a file name; rename the file")
        quoted(source.name)  # a name that STAR files cannot hold is refused before any work
    return sources


def _require_distinct_results(sources: Sequence[MicrographSource]) -> None:
    by_result: dict[str, list[str]] = {}
    for source in sources:
        by_result.setdefault(without_extension(source.name), []).append(source.name)
    clashes = [names for names in by_result.values() if len(names) > 1]
    if clashes:
        shown = "; ".join(" and ".join(names) for names in clashes[:_N_SHOWN])
        raise InputError(
            f"files that differ only in their type ({shown}): their results would share a name ({len(clashes)} in "
            "all); choose one type with a pattern such as 'folder/**/*.mrc'"
        )
