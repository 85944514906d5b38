"""Looking through folders for files, by pattern or all: never in circles, and aloud about what is passed over."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from cryopick.io.files.reading import dangling_link, explain_read_errors
from cryopick.io.inputs.own_folders import own_parts

_N_SHOWN = 3


class TooFarError(Exception):
    """A search that may only look at so many files has looked at them."""


@dataclass
class Search:
    """One search below folders.

    Parameters
    ----------
    excluded : real paths of folders that are not looked into
    is_wanted : whether a file of this name is what is looked for
    most_entries : after so many files and folders `TooFarError` is raised; None for no limit
    """

    is_wanted: Callable[[str], bool]
    excluded: frozenset[str] = frozenset()
    most_entries: int | None = None
    has_met_excluded: bool = False
    has_met_own: bool = False
    passed_over: list[str] = field(default_factory=list)
    """Sentences about what was left out."""
    unreadable: list[Path] = field(default_factory=list)
    """Folders that could not be looked into."""
    _n_entries: int = 0
    _own: Counter[str] = field(default_factory=Counter)
    _entries: dict[tuple[Path, bool], tuple[list[str], list[str]]] = field(default_factory=dict)

    def files_below(self, folder: Path) -> list[Path]:
        """All files below a folder, hidden ones left out; dangling links of a wanted name count as files."""
        return sorted(here / name for here, names in self.names_below(folder) for name in names)

    def names_below(self, folder: Path) -> Iterator[tuple[Path, list[str]]]:
        """As `files_below`, without an order of the folders: each with the sorted names of its files."""
        with explain_read_errors(folder):
            os.listdir(folder)
        for here in self._folders_below(folder):
            yield here, self._look_into(here)[1]

    def matching(self, pattern: str) -> tuple[Path, list[Path], list[Path]]:
        """The folder where the pattern begins, the files that match, and the folders that match."""
        parts = Path(pattern).parts
        n_fixed = next(count for count, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:n_fixed])
        if any(os.path.realpath(above) in self.excluded for above in (root, *root.parents)):
            self.has_met_excluded = True
            return root, [], []
        found = dict.fromkeys(self._descend(root, parts[n_fixed:]))
        files = sorted(path for path, is_folder in found if not is_folder)
        return root, files, sorted(path for path, is_folder in found if is_folder)

    def sentences(self) -> Iterator[str]:
        """What was left out, for the user; unreadable and special files one by one."""
        yield from self.passed_over
        if self._own:
            shown = ", ".join(f"{place} ({count})" for place, count in list(self._own.items())[:_N_SHOWN])
            more = f" and {len(self._own) - _N_SHOWN} more" if len(self._own) > _N_SHOWN else ""
            yield (
                f"left out {sum(self._own.values())} images that cryopick itself wrote into {shown}{more}; "
                "they are no micrographs"
            )

    def _descend(self, folder: Path, parts: Sequence[str]) -> Iterator[tuple[Path, bool]]:
        head, rest = parts[0], parts[1:]
        if head == "**":
            for here in self._folders_below(folder):
                if rest:
                    yield from self._descend(here, rest)
                else:
                    yield from ((here / name, False) for name in self._look_into(here)[1])
            return
        if not glob.has_magic(head):
            if os.path.lexists(folder / head):
                if rest:
                    yield from self._descend(folder / head, rest)
                else:
                    yield folder / head, os.path.isdir(folder / head)
            return
        is_match = re.compile(translate(head)).match
        folders, files = self._look_into(folder, with_hidden=head.startswith("."))
        for name in filter(is_match, folders):
            if rest:
                yield from self._descend(folder / name, rest)
            else:
                yield folder / name, True
        if not rest:
            yield from ((folder / name, False) for name in filter(is_match, files))

    def _folders_below(self, folder: Path) -> Iterator[Path]:
        """The folder and those below it, through symbolic links but none twice."""
        seen: set[str] = set()
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            real = os.path.realpath(here)
            if real in seen:
                continue
            seen.add(real)
            yield here
            waiting += [here / name for name in self._look_into(here)[0]]

    def _look_into(self, folder: Path, *, with_hidden: bool = False) -> tuple[list[str], list[str]]:
        """The names of the folders and of the files in a folder."""
        key = (folder, with_hidden)
        if key not in self._entries:
            self._entries[key] = self._read_folder(folder, with_hidden)
        return self._entries[key]

    def _read_folder(self, folder: Path, with_hidden: bool) -> tuple[list[str], list[str]]:
        if os.path.realpath(folder) in self.excluded:
            self.has_met_excluded = True
            return [], []
        try:
            with os.scandir(folder) as listing:
                entries = {entry.name: entry for entry in listing}
        except NotADirectoryError:
            return [], []
        except OSError as error:
            self.unreadable.append(folder)
            self.passed_over.append(f"{folder}: left out, cannot be looked into ({error.strerror})")
            return [], []
        self._n_entries += len(entries)
        if self.most_entries is not None and self._n_entries > self.most_entries:
            raise TooFarError
        _, own = own_parts(entries)
        folders, files = [], []
        for name in sorted(entries):
            if name.startswith(".") and not with_hidden:
                continue
            if name in own:
                self._note_own(folder, name)
            elif _is_folder(entries[name]):
                folders.append(name)
            elif self._is_file(entries[name]):
                files.append(name)
        return folders, files

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        """True for a file, and for a link without one whose name says that it should be one."""
        try:
            if entry.is_file():
                return True
        except OSError:  # a link that may not be followed, or that leads in a circle: reading it says why
            return self.is_wanted(entry.name)
        dangling = dangling_link(entry.path)
        if dangling is not None:
            if not self.is_wanted(entry.name):
                self.passed_over.append(f"{entry.path}: left out, {dangling}")
                return False
            return True
        if self.is_wanted(entry.name):
            self.passed_over.append(f"{entry.path}: left out, it is a device, pipe or socket and no file")
        return False

    def _note_own(self, folder: Path, name: str) -> None:
        place = folder / name
        if os.path.realpath(place) in self.excluded:  # the output of this very call
            self.has_met_excluded = True
            return
        if os.path.isdir(place):
            count = sum(self.is_wanted(file) for _, _, files in os.walk(place) for file in files)
        else:
            count = int(self.is_wanted(name))
        if count:
            self.has_met_own = True
            self._own[str(place)] = count


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def has_match(patterns: Iterable[str], *, most_entries: int) -> bool:
    """Whether any file or folder matches one; `TooFarError` when that is not known after `most_entries` of them."""
    search = Search(bool, most_entries=most_entries)
    return any(files or folders for _, files, folders in map(search.matching, patterns))


def shown(names: Iterable[object], *, most: int = _N_SHOWN) -> str:
    """The first few of some names, for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
