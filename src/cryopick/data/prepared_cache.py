"""Prepared micrographs on disk: what costs seconds to make, such as denoising, is made once and then read.

An entry is a `.npy` file under a name that stands for its source file, the settings of its preparation and this version
of cryopick, so that an entry is never stale: what changes gets another name, and the old one falls out in time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import OutputError, SettingsError
from cryopick.io.files.atomic import TEMPORARY_PREFIX, atomic_path
from cryopick.io.inputs.sources import MicrographSource
from cryopick.version import __version__

GIGABYTE = 10**9
DEFAULT_CACHE_GB = 100.0
"""CryoTransformer's 5,172 micrographs of 4096 px take 87 GB as 8-bit pictures, CryoSegNet's 6,192 of 1024 px 6.5 GB."""
_SUFFIX = ".npy"
_TRAILER = struct.Struct("<4sI")
_MARK = b"crc\n"
_FREE_SHARE = 64
_ABANDONED_SECONDS = 24 * 3600
_LOCK = ".lock"
_logger = logging.getLogger(__name__)


class OnDisk(Protocol):
    """A micrograph of a data set, or a part of one; see `cryopick.data.datasets.LabelledMicrograph`."""

    @property
    def source(self) -> MicrographSource: ...

    @property
    def region_px(self) -> tuple[int, int, int, int] | None: ...

    @property
    def pixel_size_angstrom(self) -> float | None: ...

    @property
    def is_bright(self) -> bool: ...


@dataclass
class PreparedCache:
    """Arrays by key, in a folder that never holds much more than `max_bytes`.

    What was used longest ago makes room. What was used since this object was made does not: a training that goes over
    more micrographs than fit, again and again, would else throw out each before it comes to it. The rest is then made
    every time, with a warning. The folder may be shared by any number of processes and trainings, and may be deleted
    at any time; entries that are damaged are made again.

    Parameters
    ----------
    folder : is made where it is missing
    max_bytes : limit of all entries together; those being written come on top
    """

    folder: Path
    max_bytes: int
    started_at: float = field(default_factory=time.time)
    """Seconds since 1970; entries that were used later stay."""
    is_full: bool = field(default=False, init=False)
    """Whether something found no room."""
    _checked: set[str] = field(default_factory=set, init=False, repr=False)
    _free_bytes: int = field(default=0, init=False, repr=False)
    """May be written before the folder is looked at again: a small part of what was free then, as others write too."""

    def __post_init__(self) -> None:
        if self.max_bytes <= 0:
            raise SettingsError(f"cache: {self.max_bytes} bytes are its limit, expected more than 0")

    def get(self, key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of `key`, read-only and memory-mapped; where there is none, what `make()` gives is kept.

        Parameters
        ----------
        key : letters and digits; see `prepared_key`
        make : gives a numpy array of plain numbers; called only where nothing, or nothing whole, is on disk
        """
        path = self._path(key)
        found = self._read(path)
        if found is not None:
            return found
        made = np.ascontiguousarray(make())
        if made.dtype.hasobject:
            raise TypeError(f"a prepared array has elements of {made.dtype}, expected plain numbers")
        kept = self._write(path, made)
        if kept is not None:
            return kept
        made.setflags(write=False)
        return made

    def holds(self, key: str) -> bool:
        """Whether there is an entry, whole or not."""
        return self._path(key).is_file()

    def found_whole(self) -> frozenset[str]:
        """Names of the entries whose checksum this process, or one that it believed, found right or made."""
        return frozenset(self._checked)

    def believe(self, names: frozenset[str]) -> None:
        """Take entries for whole that another process has just found so; their checksums are not looked at again."""
        self._checked |= names

    def size_bytes(self) -> int:
        """Of all entries together."""
        return sum(size for _, size, _ in self._entries())

    # ------------------------------------------------------------------------------------------------- one entry

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _read(self, path: Path) -> NDArray[Any] | None:
        """The entry, memory-mapped; None, and the file removed, where it is damaged."""
        try:
            if path.name not in self._checked:
                if not _is_whole(path):
                    raise ValueError("its checksum is wrong")
                self._checked.add(path.name)
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            os.utime(path)  # the last use, by which room is made; access times are off on many file systems
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            _logger.warning("%s: a prepared micrograph is damaged (%s) and is made again", path, error)
            self._checked.discard(path.name)
            _remove(path)
            return None
        return np.asarray(found) if found.ndim == 0 else found

    def _write(self, path: Path, made: NDArray[Any]) -> NDArray[Any] | None:
        """The entry as it lies on disk; None where there is no room."""
        if not self._make_room(made.nbytes):
            if not self.is_full:
                self.is_full = True
                _warn(
                    f"{self.folder}: the cache of {self.max_bytes / GIGABYTE:g} GB is full; micrographs beyond it are "
                    "prepared anew each time they are needed; give more room with --cache-size (GB)"
                )
            return None
        try:
            with atomic_path(path) as temporary:
                with temporary.open("wb") as stream:
                    np.save(stream, made, allow_pickle=False)
                checksum = _checksum(temporary, temporary.stat().st_size)
                with temporary.open("ab") as stream:
                    stream.write(_TRAILER.pack(_MARK, checksum))
        except OutputError as error:
            if not self.is_full:
                self.is_full = True
                _warn(f"{error}; prepared micrographs are made anew each time they are needed")
            return None
        self._checked.add(path.name)
        return self._read(path)

    # --------------------------------------------------------------------------------------------------- the room

    def _make_room(self, wanted_bytes: int) -> bool:
        """Remove what was used longest ago, but nothing that was used since the start; False where that is too little.

        Several processes do this in turn. What each of them is about to write is not counted by the others, so that the
        folder may grow over the limit by one entry, or a small part of what was free, for each.
        """
        if wanted_bytes > self.max_bytes:
            return False
        if wanted_bytes <= self._free_bytes:  # looking at thousands of entries before each is written takes minutes
            self._free_bytes -= wanted_bytes
            return True
        with self._lock():
            entries = sorted(self._entries())
            total = sum(size for _, size, _ in entries) + wanted_bytes
            for used_at, size, path in entries:
                if total <= self.max_bytes or used_at >= self.started_at:
                    break
                if _remove(path):
                    total -= size
            self._free_bytes = max(0, self.max_bytes - total) // _FREE_SHARE
        return total <= self.max_bytes

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """(last use, bytes, path) of every entry; temporary files of processes that died long ago are removed."""
        for path in self.folder.glob("*/*"):
            try:
                status = path.stat()
            except OSError:  # another process has removed it
                continue
            if path.name.startswith(TEMPORARY_PREFIX):
                if time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    _remove(path)
            elif path.suffix == _SUFFIX:
                yield status.st_mtime, status.st_size, str(path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time makes room; where there are no locks (some network disks, Windows), several may."""
        try:
            import fcntl

            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / _LOCK).open("w")
        except (ImportError, OSError):
            yield
            return
        with stream:
            try:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
            except OSError:
                _logger.debug("%s: cannot be locked", self.folder)
            yield


@dataclass(frozen=True)
class Prepared:
    """Where a data set's prepared micrographs are kept; see `Dataset.prepared`.

    Parameters
    ----------
    cache : on disk; None keeps nothing there
    memory_bytes : of prepared micrographs that one process keeps in memory; None leaves it to whoever prepares
    """

    cache: PreparedCache | None = None
    memory_bytes: int | None = None

    def of(self, item: OnDisk, settings: Mapping[str, Any], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What `make()` gives for a micrograph, from the disk where it was made before; read-only.

        Parameters
        ----------
        settings : everything besides the micrograph that decides what `make` gives, as plain JSON; `"of"` says what it
            is, `"version"` should change with the code
        """
        if self.cache is None:
            return make()
        return self.cache.get(prepared_key(item, settings), make)


def prepared_key(item: OnDisk, settings: Mapping[str, Any]) -> str:
    """A name for a micrograph's file as it is now, the part of it, and the settings of its preparation.

    The file is known by its path, size and time of change; reading all of it would cost as much as it saves.
    """
    path = item.source.path.resolve()
    status = path.stat()
    facts = [
        *(str(path), status.st_size, status.st_mtime_ns),
        *(item.region_px, item.pixel_size_angstrom, item.is_bright, __version__, dict(settings)),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _is_whole(path: Path) -> bool:
    """Whether the checksum at the end of an entry is that of all before it."""
    size = path.stat().st_size - _TRAILER.size
    if size <= 0:
        return False
    with path.open("rb") as stream:
        stream.seek(size)
        mark, checksum = _TRAILER.unpack(stream.read(_TRAILER.size))
    return bool(mark == _MARK) and bool(checksum == _checksum(path, size))


def _checksum(path: Path, size: int) -> int:
    value, left = 0, size
    with path.open("rb") as stream:
        while left and (block := stream.read(min(left, 2**22))):
            value, left = zlib.crc32(block, value), left - len(block)
    return value


def _remove(path: Path | str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError as error:  # Windows does not remove what is open
        _logger.debug("%s: cannot be removed (%s)", path, error)
        return False
    return True


def _warn(text: str) -> None:
    """Warn in the process that the user started; its workers would say the same again."""
    log = _logger.warning if multiprocessing.parent_process() is None else _logger.debug
    log("%s", text)
