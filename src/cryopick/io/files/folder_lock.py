"""One writer per folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryopick.errors import RunFolderError
from cryopick.io.files.folder_owner import OWNER_FILE, FolderOwner, refuse_living_owner

LOCK_FILE = ".lock"
LOCK_FILES = (LOCK_FILE, OWNER_FILE)
"""What locking puts into a folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderLock:
    """A folder that this process alone writes to.

    Parameters
    ----------
    identity : device and number of the lock file, by which a folder that was replaced meanwhile is known
    owner : what stands for a lock where the file system has none
    """

    identity: tuple[int, int]
    owner: FolderOwner | None = None

    @property
    def doubt(self) -> str:
        """What is to be said of a folder that cannot be locked; "" where it is."""
        if self.owner is None:
            return ""
        return (
            "the file system of the run folder has no locks (flock), so that other processes are kept out by a file "
            f"{OWNER_FILE} only, which is renewed every half minute; let one command at a time write there"
        )

    def require(self) -> None:
        """Raise `RunFolderError` where another process took over a folder that cannot be locked."""
        if self.owner is not None:
            self.owner.require()


@contextmanager
def locked_folder(folder: Path) -> Iterator[FolderLock]:
    """Keep other cryopicks out of `folder`, which is made where it is missing, until the block ends.

    Where the file system has no locks (Lustre without `-o flock`, some network file systems, Windows) a file says who
    writes there, and a warning is logged.

    Raises
    ------
    RunFolderError
        If another process is writing there, or the folder cannot be made or written.
    """
    with _opened(folder) as stream:
        identity = _identity(stream)
        if _lock(stream.fileno(), folder):
            yield FolderLock(identity)
            return
        owner = _owned(folder)
        try:
            lock = FolderLock(identity, owner)
            _log.warning("%s: %s", folder, lock.doubt)
            yield lock
        finally:
            owner.release()


@contextmanager
def shared_folder(folder: Path) -> Iterator[FolderLock]:
    """Write into `folder` beside others that do so by this function, until the block ends.

    Who wants the folder for itself, by `locked_folder`, is kept out, and keeps these out. Where the file system has no
    locks only the latter holds, and a warning is logged.

    Raises
    ------
    RunFolderError
        If another process has the folder for itself, or it cannot be made or written.
    """
    with _opened(folder) as stream:
        if not _lock(stream.fileno(), folder, is_shared=True):
            refuse_living_owner(folder)
            _log.warning(
                "%s: the file system has no locks (flock); let nothing else write to this folder until all parts ended",
                folder,
            )
        yield FolderLock(_identity(stream))


@contextmanager
def one_at_a_time(folder: Path, name: str) -> Iterator[bool]:
    """Wait until no other process is in such a block for the file `name` of `folder`, and keep others waiting.

    Gives False, without having waited, where the file system has no locks.
    """
    with _opened(folder, name) as stream:
        yield _lock(stream.fileno(), folder, is_waited_for=True)


def _opened(folder: Path, name: str = LOCK_FILE) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(folder / name, flags, 0o666))
    except OSError as error:
        reason = "is a file" if folder.is_file() else error.strerror
        raise RunFolderError(f"{folder}: cannot make or write the folder ({reason}); choose another with -o") from error


def _identity(stream: IO[str]) -> tuple[int, int]:
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino


def _owned(folder: Path) -> FolderOwner:
    try:
        return FolderOwner(folder)
    except OSError as error:
        raise RunFolderError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another with -o"
        ) from error


def _lock(descriptor: int, folder: Path, *, is_shared: bool = False, is_waited_for: bool = False) -> bool:
    """Whether the file system took the lock; False where it has none."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        return False
    try:
        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if is_waited_for else kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(
            f"{folder}: another cryopick is writing to this folder; wait for it to end, or choose another with -o"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # some network file systems have no locks
            raise RunFolderError(f"{folder}: cannot be locked ({error.strerror}); choose another with -o") from error
        return False
    return True
