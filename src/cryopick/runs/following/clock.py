"""Time as a run that follows a session takes it: it never jumps, and tests can move it."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells how time passes; what it shows means nothing."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def pause(self, seconds: float) -> None:
        """Let time pass, or less where something may have happened."""
        ...


class SteadyClock:
    """The monotonic clock of this process; a pause ends when it is woken."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        if self._woken.wait(max(0.0, seconds)):
            self._woken.clear()

    def wake(self) -> None:
        """End a pause; from any thread or signal handler."""
        self._woken.set()
