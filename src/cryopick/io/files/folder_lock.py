"""One writer per folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryopick.errors import RunFolderError

LOCK_FILE = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other cryopicks out of `folder`, which is made where it is missing, until the block ends.

    Raises
    ------
    RunFolderError
        If another process is writing there, or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(folder / LOCK_FILE, "a")  # noqa: SIM115  # held open for as long as the lock
    except OSError as error:
        raise RunFolderError(
            f"{folder}: cannot make or write the folder ({error.strerror}); choose another with -o"
        ) from error
    with stream:
        _lock(stream.fileno(), folder)
        yield


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
