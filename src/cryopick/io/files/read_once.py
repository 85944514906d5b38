"""What is read from files, such as a network, is kept in memory for as long as the files stay as they are."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def read_once(files: Callable[..., Iterable[Path]], *, most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that reads files, so that it reads a version of them once per process.

    A file that is overwritten, replaced or moved away is read again at the next call, however its path stays the same.

    Parameters
    ----------
    files : from the arguments of a call to the files that its result depends on; arguments must be hashable
    most : results that are kept; the one used longest ago goes first
    """

    def decorate(read: Callable[P, T]) -> Callable[P, T]:
        kept: OrderedDict[Any, tuple[Any, T]] = OrderedDict()
        lock = Lock()

        @wraps(read)
        def read_if_changed(*args: P.args, **kwargs: P.kwargs) -> T:
            versions = [file_version(path) for path in files(*args, **kwargs)]  # before reading, never newer than it
            call = (args, tuple(sorted(kwargs.items())))
            with lock:
                if call in kept and kept[call][0] == versions:
                    kept.move_to_end(call)
                    return kept[call][1]
                kept.pop(call, None)  # what was read of an older version is let go before the new one takes memory
                result = read(*args, **kwargs)
                kept[call] = versions, result
                while len(kept) > most:
                    kept.popitem(last=False)
                return result

        return read_if_changed

    return decorate


def file_version(path: Path) -> tuple[int, ...]:
    """What changes whenever a file's content does; () where there is none, which the reader of the file reports.

    The time of the last change of the inode is part of it, because copying tools set the time of modification back.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
