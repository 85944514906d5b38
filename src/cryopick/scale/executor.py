"""One way to give out work, whoever does it: this process, processes beside it, or a cluster.

Work is a worker's, who is named, not handed over: `"package.module:Name"` is looked up in every process that works, and
called once with the state, which is what all items share. Nothing here knows what the work is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from cryopick.errors import WorkerError

PAUSE_SECONDS = 0.2
"""Until a source that had nothing is asked again, where nothing is being worked on that could end meanwhile."""


class Worker(Protocol):
    """What an entry point gives when it is called with the state, once in each process."""

    def results_of(self, items: Iterator[Any]) -> Iterator[Any]:
        """One result for each item, in order.

        It may take the next item from `items` while it is at one, in a thread of its own: the result of an item must
        never wait for the next item, which may come hours later.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of one item.

    Parameters
    ----------
    result : None where the item was given up
    lost : why it was given up, in one sentence
    details : a traceback for a log, where there is one
    seconds : that an item which was given up held its worker; 0 where nobody knows
    """

    key: str
    result: Any = None
    lost: str = ""
    details: str = ""
    seconds: float = 0.0


class Executor(Protocol):
    """Gives items to workers and takes their results as they end. One thread calls it.

    Its `str()` says in a few words who works, for a log.
    """

    def free(self) -> int:
        """How many items it would take now; 0 when it is full, which holds back whoever has more."""
        ...

    def submit(self, key: str, item: Any) -> None:
        """Take an item; its key must not be that of one whose result has not been given yet."""
        ...

    def next(self, timeout_s: float | None) -> Done | None:
        """What ended next, each item once; None where nothing ends in time, and where nothing was submitted.

        Parameters
        ----------
        timeout_s : how long to wait at most, in seconds; None waits as long as it takes

        Raises
        ------
        WorkerError
            If nobody is left to work. What was given before is right.
        """
        ...

    def close(self) -> None:
        """End all that it started, at once, also what is being worked on. Calling it again does nothing."""
        ...


def run_all(
    executor: Executor, items: Iterable[tuple[str, Any] | None], *, poll_s: float | None = None
) -> Iterator[Done]:
    """Keep an executor full and give what it does as it ends.

    Parameters
    ----------
    items : key and item of each, asked for only when the executor has room, so that they may depend on what was given
        before. None says that there is none now, but may be later; the end says that there will be none
    poll_s : after a None, ask again after so many seconds at the latest; None where only a result can bring new items

    Raises
    ------
    WorkerError
        As `Executor.next`, and where the executor was closed meanwhile.
    """
    source, is_open, outstanding = iter(items), True, 0
    while is_open or outstanding:
        is_pausing = False
        while is_open and not is_pausing and executor.free() > 0:
            try:
                given = next(source)
            except StopIteration:
                is_open = False
                break
            if given is None:
                is_pausing = True
            else:
                executor.submit(*given)
                outstanding += 1
        if not outstanding:
            if is_open:
                time.sleep(PAUSE_SECONDS if poll_s is None else poll_s)
            continue
        done = executor.next(poll_s if is_pausing else None)
        if done is not None:
            outstanding -= 1
            yield done
        elif not is_pausing or poll_s is None:
            raise WorkerError(f"{executor} gave no result of {outstanding} items and has ended")


def entry_of(worker: type[Any]) -> str:
    """The name by which other processes find a class of workers."""
    return f"{worker.__module__}:{worker.__qualname__}"


def worker_class(entry: str) -> Callable[[Any], Worker]:
    """What an entry point names.

    Raises
    ------
    ImportError
        If there is nothing of that name.
    """
    module, colon, names = entry.partition(":")
    if not (module and colon and names):
        raise ImportError(f"entry point {entry!r}: expected 'package.module:Name'")
    found: Any = import_module(module)
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ImportError(f"entry point {entry!r}: {module} has no {names}") from None
    made: Callable[[Any], Worker] = found
    return made
