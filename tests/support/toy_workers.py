"""Workers for tests of executors; a module of its own, so that worker processes can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENTRY = "toy_workers:ToyWorker"


class ToyWorker:
    """Does what an item says: `("add", 2)` adds the state, `("die", 1.0)` kills its process after a second, and so on.

    Where the state is a folder, each item that is begun leaves a file there, so that a test can count.
    """

    def __init__(self, state: Any) -> None:
        self.state = state

    def results_of(self, items: Iterator[tuple[str, Any]]) -> Iterator[Any]:
        for what, value in items:
            yield getattr(self, what)(value)

    def add(self, value: int) -> int:
        return int(self.state) + value

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def process(self, _: Any) -> int:
        return os.getpid()

    def variable(self, name: str) -> str | None:
        time.sleep(0.2)  # so that one worker alone does not get all
        return os.environ.get(name)

    def imported_before(self, name: str) -> bool:
        import sys

        return name in sys.modules

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def die(self, after_s: float | None) -> None:
        time.sleep(after_s or 0.0)
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, path: str) -> str:
        """Kills the first worker that comes to it."""
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return "lived"
        os.kill(os.getpid(), signal.SIGKILL)
        return "unreachable"

    def hang(self, _: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
