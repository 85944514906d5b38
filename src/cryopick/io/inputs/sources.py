"""Which micrographs a user means: folders, files, globs, `@list.txt`, and RELION's `micrographs.star`."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from cryopick.errors import FormatError, InputError
from cryopick.io.coordinates.names import without_extension
from cryopick.io.coordinates.relion import read_micrographs_star
from cryopick.io.files.reading import dangling_link
from cryopick.io.files.text import read_text
from cryopick.io.images.formats import folder_suffixes, image_format, is_image_name
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.inputs.companions import companions, told
from cryopick.io.inputs.search import Search, TooFarError, has_match, shown
from cryopick.io.star import quoted
from cryopick.types import Micrograph
from cryopick.user_paths import with_home_folder

_MAX_PROBED = 100  # listed files looked for when finding the folder that a list's relative paths start from
_MAX_SEARCHED = 5000  # files and folders looked at in each such folder for the same, where a list holds patterns
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
    is_searched: bool = False
    """True where a folder or a pattern gave it, False where the user named it."""


def find_micrographs(
    inputs: Sequence[str | Path],
    *,
    exclude_folders: Iterable[str | Path] = (),
    clashing: list[list[str]] | None = None,
) -> list[MicrographSource]:
    """Collect the micrographs that `inputs` name, each file once, without opening them.

    Parameters
    ----------
    inputs : any of
        - a folder: searched with all folders below it (hidden ones left out) for MRC, TIFF, PNG and JPEG files;
          images that accompany another one found there (half sums, power spectra, see
          `cryopick.io.inputs.companions`) and what cryopick itself wrote are left out, which is logged
        - a file
        - a pattern with `*`, `?`, `[...]`, or `**` for any number of folders; the same is left out of what it matches
        - `@list.txt`: one such input per line; blank lines and lines that start with `#` are left out
        - a STAR file with rlnMicrographName; its entries are names, and pixel sizes come from its optics table
        A leading `~` is the home folder.
        Relative paths in lists and STAR files count from the working folder or, if nothing is found there, from the
        nearest folder above the file in which something is.
    exclude_folders : not searched, for example the output folder
    clashing : receives the names of files whose results would share a name, one list for each such name; where it is
        not given they are an error. All of them are returned

    Returns
    -------
    sources : in the order of `inputs`; files of a folder or pattern sorted by path. A file that a list names but that
        is missing is kept, so that reading it reports it; it is an error when all of a list are missing.

    Raises
    ------
    InputError
        If an input does not exist, has an unknown suffix, holds no micrographs, or when two files would have results
        of one name (`a.mrc` and `a.tif` in one folder).
    FormatError
        If a STAR file is malformed, or only movies were found.
    """
    if isinstance(inputs, str | PurePath):  # a single path would be taken apart letter by letter
        inputs = [inputs]
    if not inputs:
        raise InputError("no micrographs given; give a folder, files, a pattern, @list.txt or a micrographs.star")
    excluded = frozenset(os.path.realpath(folder) for folder in exclude_folders)
    found: dict[str, _Found] = {}
    for given in inputs:
        for one in _expand(str(given), excluded):
            place = os.path.abspath(one.path)
            if place not in found or (one.listed_name is not None and found[place].listed_name is None):
                found[place] = one  # a STAR file knows more than a folder does; the first place in the order stays
    if not found:
        raise InputError(f"no micrographs in {shown(map(str, inputs))} besides the output folder; check the inputs")
    distinct = _without_second_routes(list(found.values()))
    _refuse_when_all_dangle(distinct)
    sources = _named(distinct)
    clashes = files_sharing_results(sources)
    if clashes and clashing is None:
        raise InputError(shared_results_text(clashes))
    if clashing is not None:
        clashing += clashes
    _warn_of_shared_exposures(distinct)
    return sources


@contextmanager
def search_warnings(*, are_logged: bool) -> Iterator[list[str]]:
    """The warnings of `find_micrographs` meanwhile, for callers that show them in another place, too or alone."""
    sentences: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            sentences.append(record.getMessage())
        return are_logged

    _logger.addFilter(note)  # a handler would keep the one of last resort, which writes to the terminal, from working
    try:
        yield sentences
    finally:
        _logger.removeFilter(note)


def read_source(source: MicrographSource, *, pixel_size_angstrom: float | None = None) -> Micrograph:
    """Read the micrograph of a source under its name; `pixel_size_angstrom` overrules optics table and header.

    Errors as in `cryopick.io.images.micrographs.read_micrograph`.
    """
    return read_micrograph(
        source.path,
        pixel_size_angstrom=pixel_size_angstrom,
        optics_pixel_size_angstrom=source.pixel_size_angstrom,
        name=source.name,
    )


def _expand(given: str, excluded: frozenset[str]) -> Iterator[_Found]:
    # os.path and not pathlib asks what exists: its answer to a name that is too long is no, not an error
    try:
        is_possible = b"\0" not in os.fsencode(given)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise InputError(f"{given!r}: holds a character that no path can hold, null or half of a pair")
    if not given.strip():
        raise InputError(f"an input is empty ({given!r}): is a variable not set? For the working folder give .")
    given = with_home_folder(given)
    path = Path(given)
    if given.startswith("@") and not os.path.lexists(path):
        yield from _in_list(Path(with_home_folder(given[1:])), excluded)
    elif os.path.isdir(path):
        yield from _in_folder(path, excluded)
    elif os.path.exists(path) and path.suffix.lower() == ".star":
        yield from _in_star(path)
    elif os.path.exists(path):
        yield _file(path)
    elif (dangling := dangling_link(path)) is not None:
        if not os.path.islink(path) or not is_image_name(path.name):
            raise InputError(f"{path}: nothing there, {dangling}")
        yield _file(path)
    elif glob.has_magic(given):
        yield from _in_pattern(given, excluded)
    else:
        raise InputError(f"{given}: no such file or folder; check the path (and put patterns in quotes)")


def _file(path: Path) -> _Found:
    if image_format(path).name == "EER":
        raise FormatError(
            f"{path}: is an EER movie; cryopick reads motion-corrected, summed micrographs, so align it first "
            "(RELION MotionCorr, MotionCor, Warp or cryoSPARC Patch Motion) and give the result"
        )
    return _Found(path, path.parent)


def _in_folder(folder: Path, excluded: frozenset[str]) -> Iterator[_Found]:
    search = Search(is_image_name, excluded)
    paths = search.files_below(folder)
    images = [path for path in paths if path.name.lower().endswith(folder_suffixes())]
    n_eer = sum(is_image_name(path.name, "EER") for path in paths)
    for sentence in search.sentences():
        _logger.warning("%s", sentence)
    if not images and n_eer:
        raise FormatError(
            f"{folder}: holds {n_eer} EER movies and no micrographs; cryopick reads motion-corrected, summed "
            "micrographs, so align the movies first and give the folder of the results"
        )
    if not images:
        besides = " besides what cryopick wrote" if search.has_met_own else ""
        raise InputError(
            f"{folder}: no micrographs found in {len(paths)} files{besides}; looked for {', '.join(folder_suffixes())} "
            "in it and in the folders below"
        )
    if n_eer:
        _logger.warning("%s: %d EER movies left out; cryopick reads motion-corrected micrographs", folder, n_eer)
    yield from _without_companions(images, folder, str(folder))


def _in_pattern(pattern: str, excluded: frozenset[str]) -> Iterator[_Found]:
    search = Search(is_image_name, excluded)
    root, files, folders = search.matching(pattern)
    for sentence in search.sentences():
        _logger.warning("%s", sentence)
    if not files and not folders:
        if search.has_met_excluded:  # it matches, but only what this call itself writes
            return
        besides = " besides what cryopick wrote" if search.has_met_own else ""
        raise InputError(f"{pattern}: no file matches this pattern{besides}; check it, or give the folder")
    stars = [file for file in files if file.suffix.lower() == ".star"]
    images = [file for file in files if is_image_name(file.name)]
    others = sorted({*files} - {*stars, *images})
    if not stars and not images and not folders:
        _file(others[0])  # raises: no image
    if others:
        _logger.warning("%s: left out %d files that are no images: %s", pattern, len(others), shown(others))
    if not stars and not images:
        yield from _in_matching_folders(folders, root, excluded)
        return
    if folders and "**" not in pattern:
        _logger.warning(
            "%s: matches %d folders too, which are not searched: %s; give them by name", pattern, len(folders),
            shown(folders),
        )  # fmt: skip
    for star in stars:
        yield from _in_star(star)
    yield from _without_companions([_file(image).path for image in images], root, pattern)


def _in_matching_folders(folders: Sequence[Path], root: Path, excluded: frozenset[str]) -> Iterator[_Found]:
    """The micrographs in folders that a pattern matches, as the shell would pass them on; one may have none."""
    n_found = 0
    failures: list[InputError] = []
    for folder in folders:
        try:
            for one in _in_folder(folder, excluded):
                n_found += 1
                yield replace(one, root=root)
        except InputError as error:
            failures.append(error)
    if not n_found:
        raise failures[0]
    for failure in failures:
        _logger.warning("%s", failure)


def _without_companions(images: Sequence[Path], root: Path, given: str) -> Iterator[_Found]:
    """The images that a search found, without those that accompany another one of them."""
    left_out = companions(images, root)
    if left_out:
        _logger.warning(
            "%s: left out %d images that accompany micrographs found there: %s; picked are such as %s. "
            "To pick others too, name them, or give a pattern that matches their kind alone",
            given, len(left_out), told(left_out), left_out[0].micrograph.name,
        )  # fmt: skip
    accompanying = {one.path for one in left_out}
    yield from (_Found(path, root, is_searched=True) for path in images if path not in accompanying)


def _in_list(path: Path, excluded: frozenset[str]) -> Iterator[_Found]:
    text = read_text(path, what="a list of micrographs, one per line")
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))
    entries = [with_home_folder(line) for line in lines if line and not line.startswith("#")]
    if not entries:
        raise InputError(f"{path}: the list is empty; write one file, folder or pattern per line")
    nested = next((entry for entry in entries if entry.startswith("@")), None)
    if nested is not None:
        raise InputError(f"{path}: names another list, {nested}; give both lists on the command line")
    base = _base_folder(path, entries, may_be_patterns=True)
    for entry in entries:
        located = base / entry
        if not os.path.exists(located) and not glob.has_magic(entry):
            yield replace(_file(located), root=base)
            continue
        for one in _expand(str(located) if os.path.lexists(located) else _pattern_below(base, entry), excluded):
            # Names count from the base, so that a list of files from many folders keeps their tree
            yield one if one.listed_name is not None else replace(one, root=base)


def _in_star(path: Path) -> Iterator[_Found]:
    entries = read_micrographs_star(path)
    if not entries:
        raise InputError(f"{path}: lists no micrographs; give a STAR file with rows")
    base = _base_folder(path, [entry.name for entry in entries], may_be_patterns=False)
    for entry in entries:
        yield _Found(_file(base / entry.name).path, base, entry.pixel_size_angstrom, entry.name)


def _base_folder(path: Path, entries: Sequence[str], *, may_be_patterns: bool) -> Path:
    """Where relative entries of the file `path` count from: the working folder, or a folder above the file.

    Files are asked for by name; patterns are tried only where no entry is a file, and not further than a few thousand
    files and folders, since a pattern below the root of a disk would be looked for in all of it.
    """
    bases = list(dict.fromkeys((Path(), *Path(os.path.abspath(path)).parents)))
    named = [entry for entry in entries if not (may_be_patterns and glob.has_magic(entry))]
    for base in bases:
        if any(os.path.lexists(base / entry) for entry in _probed(named or entries)):
            return base
    patterns = [entry for entry in entries if glob.has_magic(entry)] if may_be_patterns else []
    is_undecided = False
    for base in bases:
        try:
            if has_match([_pattern_below(base, entry) for entry in _probed(patterns)], most_entries=_MAX_SEARCHED):
                return base
        except TooFarError:
            is_undecided = is_undecided or base == Path()
    if is_undecided:  # nowhere else, and the working folder may well be meant to be searched whole
        return Path()
    raise InputError(
        f"{path}: none of its {len(entries)} entries exists, the first being {entries[0]!r}; paths count from the "
        "working folder (for RELION, the project folder) or from a folder above the list"
    )


def _probed(entries: Sequence[str]) -> Sequence[str]:
    return entries[:_MAX_PROBED]


def _pattern_below(base: Path, entry: str) -> str:
    return os.path.join(glob.escape(str(base)), entry)


def _without_second_routes(found: Sequence[_Found]) -> list[_Found]:
    """Each file once where a linked folder leads to it a second time; files linked under another name are kept."""
    first: dict[tuple[str, str], _Found] = {}
    second: list[tuple[_Found, _Found]] = []
    linked: list[tuple[_Found, _Found]] = []
    by_place: dict[str, _Found] = {}
    real_folder: dict[Path, str] = {}
    kept = []
    for one in found:
        folder = one.path.parent
        if folder not in real_folder:
            real_folder[folder] = os.path.realpath(folder)
        place = os.path.join(real_folder[folder], one.path.name)
        if os.path.islink(place):
            place = os.path.realpath(place)
        before = first.setdefault((place, one.path.name), one)
        if before is not one and (one.is_searched or one.listed_name is None):
            second.append((one, before))
            continue
        other = by_place.setdefault(place, one)
        if other is not one and can_be_listed(one.path.name):  # if not, it is left out for that
            linked.append((one, other))
        kept.append(one)
    if second:
        _logger.warning(
            "%d files are reached by two ways and picked once: %s is %s", len(second), second[0][0].path,
            second[0][1].path,
        )  # fmt: skip
    if linked:
        _logger.warning(
            "%d micrographs are links to another one that is picked too, so its particles come twice: %s is %s",
            len(linked), linked[0][0].path, linked[0][1].path,
        )  # fmt: skip
    return kept


def _refuse_when_all_dangle(found: Sequence[_Found]) -> None:
    if any(os.path.exists(one.path) for one in found):
        return
    for one in found:
        if (why := dangling_link(one.path)) is not None:
            raise InputError(f"none of {len(found)} micrographs is there: {one.path}: {why}")


def _warn_of_shared_exposures(found: Sequence[_Found]) -> None:
    """Images of one exposure that the user named one by one are picked, but hardly meant."""
    root = os.path.commonpath([os.path.abspath(one.path.parent) for one in found])
    pairs = companions([Path(os.path.abspath(one.path)) for one in found], Path(root))
    if pairs:
        _logger.warning(
            "%d of the images given accompany another one that is picked too, so that particles come more than once: "
            "%s, beside %s", len(pairs), told(pairs), pairs[0].micrograph.name,
        )  # fmt: skip


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
    usable: list[MicrographSource] = []
    unusable: list[MicrographSource] = []
    for source in sources:
        (usable if _is_listable(source) else unusable).append(source)
    if unusable:
        sentence = (
            f"{len(unusable)} micrographs left out, whose paths no STAR file can hold (a control character, or blanks "
            f"and both kinds of quotes): {shown(repr(str(source.path)) for source in unusable)}; rename them"
        )
        if not usable:
            raise InputError(sentence)
        _logger.warning("%s", sentence)
    return usable


def _is_listable(source: MicrographSource) -> bool:
    """By its name in the run, and by its path, which RELION's lists give."""
    return can_be_listed(source.name) and can_be_listed(source.listed_name or source.path.as_posix())


def can_be_listed(name: str) -> bool:
    """Whether a STAR file can hold a name; others are left out of every search, which is logged."""
    try:
        quoted(name)
    except FormatError:
        return False
    return re.search(r"[\x00-\x1f]", name) is None


def files_sharing_results(sources: Iterable[MicrographSource]) -> list[list[str]]:
    """The names that differ only in the type of the file, so that their results would share a name, together."""
    by_result: dict[str, list[str]] = {}
    for source in sources:
        by_result.setdefault(without_extension(source.name), []).append(source.name)
    return [names for names in by_result.values() if len(names) > 1]


def shared_results_text(clashes: Sequence[Sequence[str]]) -> str:
    """What is told of files of which only one can be picked."""
    first = "; ".join(" and ".join(names) for names in clashes[:_N_SHOWN])
    return (
        f"files that differ only in their type ({first}): their results would share a name ({len(clashes)} in all); "
        "choose one type with a pattern such as 'folder/**/*.mrc'"
    )
