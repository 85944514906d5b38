"""By what a file is known to be another one than before."""

from __future__ import annotations

import os
from pathlib import Path


def file_version(path: Path) -> tuple[int, ...]:
    """What changes whenever a file's content does; () where there is none, which the reader of the file reports.

    The time of the last change of the inode is part of it, because copying tools set the time of modification back.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
