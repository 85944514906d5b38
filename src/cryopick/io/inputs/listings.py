"""Which micrographs a folder holds now, or a `micrographs.star` lists now, again and again while they grow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol

from cryopick.errors import FormatError, InputError
from cryopick.io.images.formats import folder_suffixes, is_image_name
from cryopick.io.inputs.search import Search
from cryopick.io.inputs.sources import MicrographSource, can_be_listed, find_micrographs, search_warnings
from cryopick.user_paths import with_home_folder

UNFINISHED_NAMES = ("*.tmp", "*.part*", "*.partial", "*~", "*downloading")
"""How programs call files that they have not finished yet; hidden names, as rsync uses, are never looked at."""


class FileStamp(NamedTuple):
    """By which a file is known as the same that it was; the time is only ever compared with itself."""

    size_bytes: int
    modified_ns: int
    device: int
    inode: int

    @property
    def content(self) -> tuple[int, int]:
        """Size and time of change, which a file system that is mounted again keeps."""
        return self.size_bytes, self.modified_ns


@dataclass(frozen=True)
class Listed:
    """One micrograph that is named now; `stamp` is None where nothing, or nothing readable, lies there."""

    source: MicrographSource
    stamp: FileStamp | None


@dataclass(frozen=True)
class Listing:
    """What is there now.

    Parameters
    ----------
    files : by path
    unfinished : of them those that are called as unfinished files are, or that the user ignores
    unknown_below : folders that cannot be looked into now: what was there may still be
    """

    files: dict[str, Listed]
    unfinished: frozenset[str] = frozenset()
    unknown_below: tuple[str, ...] = ()


class Lister(Protocol):
    """Tells what is there."""

    why: str
    """Why `now` gave None, one sentence."""

    @property
    def accompanied_below(self) -> Path | None:
        """Folder below which images may accompany one another and are left out then; None where each is named."""
        ...

    def now(self) -> Listing | None:
        """What is there; None where that cannot be told: the folder or list is not there, or not readable."""
        ...


def lister_for(given: str | Path, *, exclude_folders: Iterable[str | Path], ignore: Sequence[str] = ()) -> Lister:
    """The lister of a folder, which may not exist yet, or of a STAR file that grows.

    Parameters
    ----------
    exclude_folders : not looked into, such as the run folder
    ignore : patterns of file names that are left out, as `UNFINISHED_NAMES` are

    Raises
    ------
    InputError
        If it is another file, or a pattern or list, which cannot be followed.
    """
    path = Path(with_home_folder(str(given)))
    is_file = os.path.isfile(path)
    if is_file and path.suffix.lower() != ".star":
        raise InputError(f"{path}: is a file; a folder can be followed, or a micrographs.star that grows")
    if str(given).startswith("@") or (any(sign in str(given) for sign in "*?[") and not os.path.lexists(path)):
        raise InputError(
            f"{given}: a pattern or list cannot be followed; give the folder, and --ignore for what is not wanted"
        )
    if path.suffix.lower() == ".star" and not os.path.isdir(path):
        return StarLister(path, tuple(ignore))
    return FolderLister(path, frozenset(os.path.realpath(folder) for folder in exclude_folders), tuple(ignore))


@dataclass
class FolderLister:
    """The micrographs below a folder by the rules of `find_micrographs`, except those about several of one exposure."""

    folder: Path
    excluded: frozenset[str] = frozenset()
    ignore: tuple[str, ...] = ()
    why: str = ""
    _identity: tuple[int, int] | None = None
    _had_files: bool = False
    _known: dict[str, dict[str, tuple[str, MicrographSource | None, bool]]] = field(default_factory=dict)
    """By folder and name: path, micrograph, None where it is none, and whether it is called as unfinished files are."""

    @property
    def accompanied_below(self) -> Path | None:
        return self.folder

    def now(self) -> Listing | None:
        """What is there; None too where another, empty folder has its place, as where a disk is not mounted."""
        search = Search(is_image_name, self.excluded)
        try:
            status = os.stat(self.folder)
            folders = list(search.names_below(self.folder))
        except FileNotFoundError:
            self.why = f"{self.folder}: is not there"
            return None
        except OSError as error:
            self.why = f"{self.folder}: cannot be looked into ({error.strerror})"
            return None
        except InputError as error:
            self.why = str(error)
            return None
        identity = status.st_dev, status.st_ino
        files: dict[str, Listed] = {}
        unfinished = set()
        for folder, names in folders:
            known = self._known.setdefault(str(folder), {})
            for name in names:
                if name not in known:
                    known[name] = str(folder / name), self._source(folder / name), is_unfinished_name(name, self.ignore)
                path, source, is_unfinished = known[name]
                if source is None:
                    continue
                files[path] = Listed(source, _stamp(path))
                if is_unfinished:
                    unfinished.add(path)
        if not files and self._had_files and identity != self._identity:
            self.why = f"{self.folder}: is another folder now, and empty; is its disk mounted?"
            return None
        self._identity, self._had_files = identity, self._had_files or bool(files)
        return Listing(files, frozenset(unfinished), tuple(map(str, search.unreadable)))

    def _source(self, path: Path) -> MicrographSource | None:
        name = path.relative_to(self.folder).as_posix()
        is_micrograph = path.name.lower().endswith(folder_suffixes()) and can_be_listed(name)
        return MicrographSource(path, name) if is_micrograph else None


@dataclass
class StarLister:
    """The micrographs that a STAR file lists, where the file that they name is there or not.

    The file is read again when it changes; one that is just being written, and so cannot be read, is left for the next
    time, and what it listed before holds.
    """

    path: Path
    ignore: tuple[str, ...] = ()
    why: str = ""
    accompanied_below: None = None
    _read: FileStamp | None = None
    _sources: list[MicrographSource] = field(default_factory=list)

    def now(self) -> Listing | None:
        """What it lists, and what lies there."""
        stamp = _stamp(self.path)
        if stamp is None:
            self.why = f"{self.path}: is not there"
            return None
        if stamp != self._read:
            try:
                with search_warnings(are_logged=False):
                    self._sources = find_micrographs([self.path], clashing=[])
                self._read, self.why = stamp, ""
            except (InputError, FormatError) as error:
                self.why = str(error)
                if not self._sources:
                    return None
        files = {str(source.path): Listed(source, _stamp(source.path)) for source in self._sources}
        unfinished = frozenset(
            path for path in files if any(fnmatchcase(os.path.basename(path), one) for one in self.ignore)
        )
        return Listing(files, unfinished)


def is_unfinished_name(name: str, ignore: Sequence[str] = ()) -> bool:
    """Whether a file is called as programs call unfinished ones, or as the user says."""
    return any(fnmatchcase(name, pattern) for pattern in (*UNFINISHED_NAMES, *ignore))


def _stamp(path: str | Path) -> FileStamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
