"""Files of a run that are called otherwise than when their micrographs were picked.

The key by which a micrograph's files are called depends on which others there are, so a run that grew may call them
otherwise than one that was given all at once. And a micrograph that was renamed since leaves a record of its old name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from cryopick.runs.record import Record, key_problem, read_record, record_text

RENAMING = ".renaming.json"
"""Old and new keys, while files are being renamed."""


class RunFiles(Protocol):
    """What is needed of a `RunFolder`, whose `clean_up` needs this module in turn."""

    @property
    def path(self) -> Path: ...
    def picks_path(self, key: str) -> Path: ...
    def candidates_path(self, key: str) -> Path: ...
    def image_path(self, key: str) -> Path: ...
    def map_path(self, key: str, name: str) -> Path: ...
    def record_path(self, key: str) -> Path: ...
    def write(self, path: Path, content: bytes | str, *, is_durable: bool = False) -> None: ...
    def writing(self, path: Path) -> AbstractContextManager[Any]: ...
    def remove_results(self, key: str, maps: Sequence[str] = ()) -> None: ...
    def begin_tables(self) -> None: ...


def moved_records(records: Iterable[Record], given: Iterable[Path]) -> dict[str, Path]:
    """Where the micrographs are now that were renamed since they were picked, by name.

    Renamed are those whose file is gone while one that is given is the same: of the same inode, size and time. What was
    copied or linked is another micrograph, and what is gone altogether is none of these.
    """
    gone: dict[tuple[int, int, int], list[str]] = {}
    for record in records:
        if record.inode is not None and not os.path.lexists(record.source):
            gone.setdefault((record.inode, record.size_bytes, record.modified_ns), []).append(record.name)
    moved: dict[str, Path] = {}
    for path in given if gone else ():
        with suppress(OSError):
            status = path.stat()
            names = gone.get((status.st_ino, status.st_size, status.st_mtime_ns), [])
            moved |= dict.fromkeys(names, path)
    return moved


def drop_record(folder: RunFiles, record: Record) -> None:
    """Remove all files of one micrograph, its record last, so that a killed call can be repeated; and empty folders."""
    folder.remove_results(record.key, record.maps)
    path = folder.record_path(record.key)
    with folder.writing(path):
        path.unlink(missing_ok=True)
    finders = (folder.picks_path, folder.candidates_path, folder.image_path, folder.record_path)
    for find in finders:
        _remove_empty_folders(find(record.key).parent, top=folder.path)


def rename_keys(folder: RunFiles, keys: Mapping[str, str]) -> None:
    """Call the files of micrographs otherwise, by their old keys; a killed call is finished by the next `clean_up`.

    The tables do not fit the files afterwards, so that readers refuse the run until they are written.
    """
    if not keys:
        return
    folder.begin_tables()
    occupied = {new for new in keys.values() if new in keys}
    if occupied:  # of one that is renamed, too: out of the way first
        _rename(folder, {old: f"{old}.renaming" for old in occupied})
        keys = {f"{old}.renaming" if old in occupied else old: new for old, new in keys.items()}
    _rename(folder, keys)


def _rename(folder: RunFiles, keys: Mapping[str, str]) -> None:
    note = json.dumps(dict(keys), ensure_ascii=False, indent=1) + "\n"
    folder.write(folder.path / RENAMING, note, is_durable=True)
    finish_renaming(folder)


def finish_renaming(folder: RunFiles) -> None:
    """Do what is noted and was not done yet; every step may be repeated. Under the lock."""
    note = folder.path / RENAMING
    if not note.is_file():
        return
    try:
        keys = json.loads(note.read_text(encoding="utf-8", errors="surrogateescape"))
        usable = isinstance(keys, dict) and all(
            isinstance(key, str) and not key_problem(key) for pair in keys.items() for key in pair
        )
    except (OSError, ValueError, RecursionError):
        usable = False
    for old, new in keys.items() if usable else ():
        _rename_one(folder, old, new)
    with folder.writing(note):
        note.unlink(missing_ok=True)


def _rename_one(folder: RunFiles, old: str, new: str) -> None:
    place = folder.record_path(old)
    try:
        record = read_record(place.read_bytes().decode("utf-8", "surrogateescape"), key=old)
    except (OSError, ValueError):  # renamed before, or damaged, which is told of where records are read
        return
    pairs = [(find(old), find(new)) for find in (folder.picks_path, folder.candidates_path, folder.image_path)]
    pairs += [(folder.map_path(old, name), folder.map_path(new, name)) for name in record.maps]
    for source, target in pairs:
        with folder.writing(target):
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
    folder.write(folder.record_path(new), record_text(replace(record, key=new)), is_durable=True)
    with folder.writing(place):
        place.unlink(missing_ok=True)
    for path in (place, *(source for source, _ in pairs)):
        _remove_empty_folders(path.parent, top=folder.path)


def _remove_empty_folders(folder: Path, *, top: Path) -> None:
    with suppress(OSError):  # one that is not empty
        while folder.parent not in (folder, top):
            folder.rmdir()
            folder = folder.parent
