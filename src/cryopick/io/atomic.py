"""Writing a file whole or not at all: a temporary file in the same folder, then one rename."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryopick.errors import OutputError

TEMPORARY_PREFIX = ".cryopick-"
"""Start of the names of unfinished files; a killed process may leave one behind, and it may be deleted."""

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "no permission; choose a folder you may write to, or change its permissions",
    errno.EPERM: "no permission; choose a folder you may write to, or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another name",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and is removed otherwise.

    Missing folders are made. A reader sees the old file or the whole new one, never a part, even when the process is
    killed. The data are not forced to the disk (no fsync), so a power cut may still lose them.

    Raises
    ------
    OutputError
        If the file cannot be written: disk full, no permission, read-only, a folder of that name.
    """
    target = Path(path)
    # The suffix stays last, since writers such as OpenCV choose the format by it. The name is cut so that the
    # temporary one is never longer than file systems allow when the final one is not.
    name = f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{target.suffix[-16:]}"
    temporary = target.parent / name
    try:
        with explain_write_errors(target):
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, target)
    except BaseException:
        # The first error is the one worth telling; a folder that vanished cannot be cleaned either.
        with _ignoring_os_errors():
            temporary.unlink(missing_ok=True)
        raise


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are, whole or not at all; see `atomic_path`.

    Surrogates, as they stand for bytes of file names that are not UTF-8, become those bytes again.
    """
    write_bytes_atomic(path, text.encode("utf-8", errors="surrogateescape"))


@contextmanager
def explain_write_errors(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError` that says what stopped the writing of `path`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def _ignoring_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        return
