"""When a file that somebody else writes is there, and whole.

No program says when it has finished a file, and notices of the kernel do not come over networks. So files are looked at
again and again: one is whole when its size, time and place on the disk have been the same for a while *by the clock of
this process* (those of other hosts differ), and when its reader agrees. A reader that refuses, or an end of empty rows,
as files have whose space was taken in advance, sends it back here to wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryopick.io.coordinates.names import without_extension
from cryopick.io.inputs.companions import companions, exposure_of
from cryopick.io.inputs.listings import FileStamp, Listed, Lister, Listing
from cryopick.io.inputs.sources import MicrographSource

EMPTY_END_SECONDS = 30.0
"""Without change before a file that ends in empty rows is believed: programs pause less between parts."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""Until a file that its reader refuses is read again; doubled each time, and begun anew when it changes."""
REFUSED_SECONDS = 1800.0
"""Without change after which a file that its reader refuses is taken to be damaged for ever."""

What = Literal["seen", "complete", "changed", "moved", "gone", "clash", "companion", "away", "back"]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Something that happened to a file, or to the whole folder.

    `what` is `seen`: it is there now, perhaps not whole; `complete`: it may be read; `changed`: what was complete is
    being written again; `moved`: it is now called `name`, and was called `before`; `gone`; `clash`: another file,
    `before`, has the results that this one would have; `companion`: it accompanies the micrograph `before`, and is
    none; `away`: the folder cannot be looked into, for the reason `why`; `back`: now it can.
    """

    what: What
    name: str = ""
    source: MicrographSource | None = None
    stamp: FileStamp | None = None
    before: str = ""
    why: str = ""


@dataclass
class _File:
    source: MicrographSource
    stamp: FileStamp | None
    since: float
    """When it was first seen as it is now."""
    due: float
    """When it is complete, unless it changes."""
    exposure: str
    result: str
    is_complete: bool = False
    refusals: int = 0
    order: float = float("inf")
    """When it was first complete: of two that clash the earlier is picked."""
    left_out: str = ""
    """Which of `clash` and `companion` was told of it."""


@dataclass
class Arrivals:
    """What arrives in a folder, or in a list that grows.

    Parameters
    ----------
    lister : tells what is there now
    quiet_s : without change after which a file is complete
    known : size and time of change, by name, of files that were complete before this process began, which need not
        wait again
    """

    lister: Lister
    quiet_s: float
    known: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    _files: dict[str, _File] = field(default_factory=dict)
    _of_exposure: dict[str, set[str]] = field(default_factory=dict)
    _of_result: dict[str, set[str]] = field(default_factory=dict)
    """Files that may accompany one another, and files whose results would share a name."""
    _gone: dict[FileStamp, str] = field(default_factory=dict)
    """Names of files that went away, by what a renamed one is known by."""
    _unfinished: frozenset[str] = frozenset()
    _is_away: bool = False
    _told_unknown: frozenset[str] = frozenset()

    def look(self, now: float) -> list[Arrival]:
        """What has happened since the last time; files that are complete come last, by the time they were, and name.

        Parameters
        ----------
        now : of a clock that never jumps, s
        """
        listing = self.lister.now()
        if listing is None:
            told = [] if self._is_away else [Arrival(what="away", why=self.lister.why)]
            self._is_away = True
            return told
        happened: list[Arrival] = []
        if self._is_away:
            self._is_away = False
            happened.append(Arrival(what="back"))
        self._unfinished = listing.unfinished
        happened += self._unreadable_folders(listing)
        affected: set[str] = set()
        appeared = self._note_there(listing, now, happened, affected)
        vanished = self._note_gone(listing, appeared, happened)
        if vanished:  # what stood behind one of them may have its place
            for file in vanished:
                affected |= self._of_exposure[file.exposure] | self._of_result[file.result]
        complete = sorted(
            (
                (file.due, file.source.name, path)
                for path, file in self._files.items()
                if not file.is_complete and file.stamp is not None and file.due <= now and path not in self._unfinished
            ),
        )
        for due, _, path in complete:
            file = self._files[path]
            file.is_complete, file.order = True, min(file.order, due)
            affected.add(path)
        happened += self._settled(affected)
        return happened

    # ------------------------------------------------------------------------------------------- told by who reads it

    def refused(self, path: Path, now: float) -> bool:
        """The reader refused a complete file: it waits again. False where it has done so for too long to be whole."""
        file = self._files.get(str(path))
        if file is None:
            return True
        if now - file.since >= REFUSED_SECONDS:
            return False
        pause = min(FIRST_RETRY_SECONDS * 2**file.refusals, LAST_RETRY_SECONDS)
        file.refusals += 1
        self._wait(file, now + pause)
        return True

    def ends_empty(self, path: Path, now: float) -> bool:
        """A complete file ends in empty rows: it waits again. False where it has waited long enough to be believed."""
        file = self._files.get(str(path))
        if file is None:
            return True
        if now - file.since >= EMPTY_END_SECONDS:
            return False
        self._wait(file, file.since + EMPTY_END_SECONDS)
        return True

    def changed(self, path: Path, now: float) -> None:
        """A complete file was another one when it was read: it waits again."""
        file = self._files.get(str(path))
        if file is not None:
            file.since = now
            self._wait(file, now + self.quiet_s)

    # ------------------------------------------------------------------------------------------------------- asked

    @property
    def sources(self) -> dict[str, MicrographSource]:
        """The micrographs that are complete, by name, in the order of a search through the folder."""
        complete = [
            file.source
            for path, file in self._files.items()
            if file.is_complete and not file.left_out and path not in self._unfinished
        ]
        if self.lister.accompanied_below is not None:
            complete.sort(key=lambda source: source.path)
        return {source.name: source for source in complete}

    def whole(self) -> frozenset[str]:
        """Paths of the files that are believed to be as they stay: complete ones, and ones that only their reader
        refuses."""
        return frozenset(
            path
            for path, file in self._files.items()
            if _is_whole(file) and file.left_out != "clash" and path not in self._unfinished
        )

    def incomplete(self) -> list[str]:
        """Names of the files that are there and not whole, or called as unfinished files are; sorted."""
        return sorted(
            file.source.name
            for path, file in self._files.items()
            if (not _is_whole(file) or path in self._unfinished) and not file.left_out
        )

    def clashing(self) -> list[str]:
        """Names of the files that are left out since another has the results that they would have; sorted."""
        return sorted(file.source.name for file in self._files.values() if file.left_out == "clash")

    def is_waiting(self) -> bool:
        """Whether a file is there that may still become complete."""
        return any(
            not _is_whole(file) and path not in self._unfinished and not file.left_out
            for path, file in self._files.items()
        )

    # ------------------------------------------------------------------------------------------------------ within

    def _add(self, path: str, listed: Listed, now: float) -> _File:
        root = self.lister.accompanied_below
        file = _File(
            source=listed.source,
            stamp=listed.stamp,
            since=now,
            due=now + self.quiet_s,
            exposure=path if root is None else exposure_of(listed.source.path, root),
            result=without_extension(listed.source.name),
        )
        self._files[path] = file
        self._of_exposure.setdefault(file.exposure, set()).add(path)
        self._of_result.setdefault(file.result, set()).add(path)
        return file

    def _remove(self, path: str) -> _File:
        file = self._files.pop(path)
        self._of_exposure[file.exposure].discard(path)
        self._of_result[file.result].discard(path)
        return file

    def _wait(self, file: _File, due: float) -> None:
        file.is_complete, file.due = False, due

    def _unreadable_folders(self, listing: Listing) -> Iterator[Arrival]:
        unknown = frozenset(listing.unknown_below)
        for folder in sorted(unknown - self._told_unknown):
            yield Arrival(what="away", why=f"{folder}: cannot be looked into")
        self._told_unknown = unknown

    def _note_there(
        self, listing: Listing, now: float, happened: list[Arrival], affected: set[str]
    ) -> dict[FileStamp, str]:
        """Take in what is listed; gives the names of what was not there before, by stamp."""
        appeared: dict[FileStamp, str] = {}
        for path, listed in listing.files.items():
            file, name, stamp = self._files.get(path), listed.source.name, listed.stamp
            if file is None:
                file = self._add(path, listed, now)
                if stamp is not None:
                    if self.known.get(name) == stamp.content:
                        file.due = now
                    appeared[stamp] = name
                happened.append(Arrival(what="seen", name=name, source=listed.source, stamp=stamp))
                if stamp is not None and stamp in self._gone:
                    file.due = now
                    before = self._gone.pop(stamp)
                    happened.append(Arrival(what="moved", name=name, before=before, source=listed.source))
                continue
            file.source = listed.source
            is_same = (
                stamp is not None and file.stamp is not None and stamp.content == file.stamp.content
                if file.is_complete
                else stamp == file.stamp
            )
            if is_same or (stamp is None and file.is_complete):
                continue
            was_complete = file.is_complete
            file.stamp, file.since, file.refusals = stamp, now, 0
            self._wait(file, now + self.quiet_s)
            if was_complete:
                affected.add(path)
                happened.append(Arrival(what="changed", name=name, source=listed.source, stamp=stamp))
        return appeared

    def _note_gone(self, listing: Listing, appeared: Mapping[FileStamp, str], happened: list[Arrival]) -> list[_File]:
        vanished: list[_File] = []
        for path in [path for path in self._files if path not in listing.files]:
            if any(path.startswith(os.path.join(folder, "")) for folder in listing.unknown_below):
                continue
            file = self._remove(path)
            vanished.append(file)
            name = file.source.name
            other = None if file.stamp is None else self._name_of(file.stamp, appeared)
            if other is not None:
                happened.append(Arrival(what="moved", name=other.name, before=name, source=other))
                continue
            if file.stamp is not None:
                self._gone[file.stamp] = name
            happened.append(Arrival(what="gone", name=name, source=file.source))
        return vanished

    def _name_of(self, stamp: FileStamp, appeared: Mapping[FileStamp, str]) -> MicrographSource | None:
        """The file that has this stamp now; the one that appeared last where there are several."""
        of_stamp = [file for file in self._files.values() if file.stamp == stamp]
        last = appeared.get(stamp)
        for file in of_stamp:
            if file.source.name == last:
                return file.source
        return of_stamp[0].source if of_stamp else None

    def _settled(self, affected: Iterable[str]) -> list[Arrival]:
        """Which of the files that are complete are picked, now that these have changed their state."""
        touched = {path for path in affected if path in self._files}
        return [*self._without_companions(touched), *self._without_clashes(touched), *self._complete(touched)]

    def _without_companions(self, touched: set[str]) -> Iterator[Arrival]:
        root = self.lister.accompanied_below
        if root is None or not touched:
            return
        exposures = {self._files[path].exposure for path in touched}
        together = {path for exposure in exposures for path in self._of_exposure[exposure]}
        group = sorted(path for path in together if self._files[path].is_complete and path not in self._unfinished)
        found = {str(one.path): one for one in companions(map(Path, group), root)}
        for path in group:
            file, companion = self._files[path], found.get(path)
            if companion is None:
                if file.left_out == "companion":
                    file.left_out = ""
                    touched.add(path)
            elif file.left_out != "companion":
                file.left_out = "companion"
                why = f"it is a {companion.kind} of {companion.micrograph.name}"
                micrograph = self._files[str(companion.micrograph)].source.name
                yield Arrival(what="companion", name=file.source.name, source=file.source, before=micrograph, why=why)

    def _without_clashes(self, touched: set[str]) -> Iterator[Arrival]:
        for result in sorted({self._files[path].result for path in touched}):
            together = [(self._files[path], path) for path in self._of_result[result]]
            paths = [path for file, path in together if file.is_complete and file.left_out != "companion"]
            if not paths:
                continue
            first, *others = sorted(paths, key=lambda path: (self._files[path].order, self._files[path].source.name))
            if self._files[first].left_out:
                self._files[first].left_out = ""
                touched.add(first)
            for path in others:
                file = self._files[path]
                if not file.left_out:
                    file.left_out = "clash"
                    before = self._files[first].source.name
                    yield Arrival(what="clash", name=file.source.name, source=file.source, before=before)

    def _complete(self, touched: Iterable[str]) -> Iterator[Arrival]:
        there = [(file.order, file.source.name, file) for file in (self._files[path] for path in touched)]
        for _, name, file in sorted(there, key=lambda one: one[:2]):
            if file.is_complete and not file.left_out:
                yield Arrival(what="complete", name=name, source=file.source, stamp=file.stamp)


def _is_whole(file: _File) -> bool:
    return file.is_complete or file.refusals > 0
