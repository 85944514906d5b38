"""One writer per folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryopick.errors import RunFolderError

LOCK_FILE = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[tuple[int, int]]:
    """Keep other cryopicks out of `folder`, which is made where it is missing, until the block ends.

    Gives the device and the number of the lock file, by which a folder that was replaced meanwhile is known.

    Raises
    ------
    RunFolderError
        If another process is writing there, or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        stream = os.fdopen(os.open(folder / LOCK_FILE, flags, 0o666))
    except OSError as error:
        reason = "is a file" if folder.is_file() else error.strerror
        raise RunFolderError(f"{folder}: cannot make or write the folder ({reason}); choose another with -o") from error
    with stream:
        _lock(stream.fileno(), folder)
        status = os.fstat(stream.fileno())
        yield status.st_dev, status.st_ino


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; folders there are not guarded
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(
            f"{folder}: another cryopick is writing to this folder; wait for it to end, or choose another with -o"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # some network file systems have no locks
            raise RunFolderError(f"{folder}: cannot be locked ({error.strerror}); choose another with -o") from error
