"""The executor that starts nothing: the calling process works while it waits for a result."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from cryopick.scale.executor import Done, worker_class

IN_FLIGHT = 2
"""Items that it takes: one to work on, one for the worker to read ahead."""


class InProcess:
    """Works in `next`, in the thread that calls it, which Ctrl-C therefore reaches.

    `next` takes as long as the item does, whatever its timeout: whoever must look at something else meanwhile takes one
    worker process instead.
    """

    def __init__(self, entry: str, state: Any) -> None:
        self._worker = worker_class(entry)(state)
        self._held: deque[tuple[str, Any]] = deque()
        self._begin()

    def __str__(self) -> str:
        return "this process"

    def _begin(self) -> None:
        """Give the worker what is held, and later what comes."""
        self._items: SimpleQueue[tuple[Any] | None] = SimpleQueue()
        for _, item in self._held:
            self._items.put((item,))
        self._results = iter(self._worker.results_of(_items_of(self._items)))

    def free(self) -> int:
        return IN_FLIGHT - len(self._held)

    def submit(self, key: str, item: Any) -> None:
        if self.free() < 1 or any(key == one for one, _ in self._held):
            raise ValueError(f"{key}: submitted while the executor is full, or twice")
        self._held.append((key, item))
        self._items.put((item,))

    def next(self, timeout_s: float | None) -> Done | None:
        del timeout_s  # work cannot be left half done
        if not self._held:
            return None
        try:
            result = next(self._results)
        except Exception as error:  # as in a worker process: it costs its item and no other
            key, _ = self._held.popleft()
            self._end()
            self._begin()
            told = " ".join(str(error).split())
            return Done(
                key=key, lost=f"the worker failed: {type(error).__name__}: {told}", details=traceback.format_exc()
            )
        key, _ = self._held.popleft()
        return Done(key=key, result=result)

    def close(self) -> None:
        self._held.clear()
        self._end()

    def _end(self) -> None:
        self._items.put(None)
        if (close := getattr(self._results, "close", None)) is not None:
            close()


def _items_of(queue: SimpleQueue[tuple[Any] | None]) -> Iterator[Any]:
    while (given := queue.get()) is not None:
        yield given[0]
