"""Opening files for reading, with errors that a user can act on."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryopick.errors import FormatError, InputError

_REASONS = {
    errno.ENOENT: "no such file; check the path",
    errno.ENOTDIR: "no such file; check the path",
    errno.EACCES: "no permission to read it; change its permissions or copy it",
    errno.EPERM: "no permission to read it; change its permissions or copy it",
    errno.ENAMETOOLONG: "the path is too long for the file system",
    errno.ELOOP: "its symbolic links form a circle",
    errno.EIO: "the disk reports an error while reading it",
    errno.ESTALE: "the network file system lost it; try again",
}


_STDERR = 2
_native_errors_lock = threading.RLock()
"""Can be taken again by a thread that an interrupt left holding it: a session goes on after Ctrl-C."""


@contextmanager
def caught_native_errors(is_wanted: Callable[[str], bool]) -> Iterator[list[str]]:
    """The wanted lines that a C library prints on stderr meanwhile; filled in at the end.

    Some decoders tell of damage in no other way. Everything else that is printed meanwhile, also by other threads,
    appears on stderr a little later. Nothing is caught where the process has no stderr.
    """
    caught: list[str] = []
    with _native_errors_lock:
        try:
            stderr = os.dup(_STDERR)
        except OSError:
            stderr = os.open(os.devnull, os.O_WRONLY)
        try:
            with tempfile.TemporaryFile() as printed:
                os.dup2(printed.fileno(), _STDERR)
                try:
                    yield caught
                finally:
                    os.dup2(stderr, _STDERR)
                    printed.seek(0)
                    others = b""
                    for line in printed.read().splitlines(keepends=True):
                        text = line.decode("utf-8", errors="replace")
                        if is_wanted(text):
                            caught.append(text)
                        else:
                            others += line
                    if others:
                        os.write(stderr, others)
        finally:
            os.close(stderr)


@contextmanager
def explain_read_errors(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `InputError` that says why `path` cannot be read."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        if error.errno == errno.ENOENT:
            reason = dangling_link(path) or reason
        raise InputError(f"{path}: cannot be read: {reason}") from error


def dangling_link(path: str | Path) -> str | None:
    """Why nothing is at a path although a name is: a symbolic link, its own or of a folder above, leads nowhere."""
    path = Path(path)
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            whose = "its link" if place == path else f"the link {place}"
            return f"{whose} leads nowhere (-> {os.readlink(place)}); is the disk mounted?"
    return None


def file_size_bytes(path: str | Path) -> int:
    """The size of a regular, non-empty file.

    Raises
    ------
    InputError
        If there is no such file, or it is a folder or a device.
    FormatError
        If the file is empty.
    """
    with explain_read_errors(path):
        status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: expected a file, this is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: expected a file, this is a device or a pipe")
    if status.st_size == 0:
        raise FormatError(f"{path}: the file is empty (0 bytes); copy it again, or remove it")
    return status.st_size


def read_bytes(path: str | Path) -> bytes:
    """The whole content of a non-empty file; errors as in `file_size_bytes`, and when permission is missing."""
    file_size_bytes(path)
    with explain_read_errors(path):
        return Path(path).read_bytes()
