"""Telling how far a long look at several micrographs has come, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
"""Hears what is being done, which micrograph it is at (from 1), and of how many."""

_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Within it, `tell` reaches the listener; what is called in between need not know of it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(doing: str, position: int, total: int) -> None:
    """Say that micrograph `position` of `total` is being looked at; nobody need listen."""
    listener = _listener.get()
    if listener is not None:
        listener(doing, position, total)
