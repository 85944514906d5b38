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
    errno.ENOENT: "its folder is gone; was it removed or renamed?",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another name",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


_COMPARED_BYTES = 1 << 20


@contextmanager
def atomic_path(
    path: str | Path, *, below: Path | None = None, is_durable: bool = False, keep_same: bool = False
) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and is removed otherwise.

    Missing folders are made. A reader sees the old file or the whole new one, never a part, even when the process is
    killed.

    Parameters
    ----------
    below : a folder above `path` that must exist: only folders below it are made, so that one that was removed or
        renamed meanwhile does not come back with a part of its files
    is_durable : force the data to the disk (fsync) before the file gets its name, so that a power cut leaves the old
        file or the whole new one; otherwise it may leave an empty one. Costs some milliseconds

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
            _make_folders(target.parent, below)
            yield temporary
            if keep_same and _have_same_content(temporary, target):
                temporary.unlink()
                return
            if is_durable:
                _force_to_disk(temporary)
            os.replace(temporary, target)
    except BaseException:
        # The first error is the one worth telling; a folder that vanished cannot be cleaned either.
        with _ignoring_os_errors():
            temporary.unlink(missing_ok=True)
        raise


def write_bytes_atomic(
    path: str | Path, content: bytes, *, below: Path | None = None, is_durable: bool = False
) -> None:
    """Write `content` to `path` whole or not at all; see `atomic_path`."""
    with atomic_path(path, below=below, is_durable=is_durable) as temporary:
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


def _make_folders(folder: Path, below: Path | None) -> None:
    if below is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    if not below.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(below))
    here = below
    for part in folder.relative_to(below).parts:
        here = here / part
        here.mkdir(exist_ok=True)  # no parents: where `below` vanishes meanwhile this fails


def _have_same_content(one: Path, other: Path) -> bool:
    """Whether both are files of the same bytes; they are read piece by piece, as they may be large."""
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb") as first, open(other, "rb") as second:
        while piece := first.read(_COMPARED_BYTES):
            if piece != second.read(_COMPARED_BYTES):
                return False
    return True


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _ignoring_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        return
