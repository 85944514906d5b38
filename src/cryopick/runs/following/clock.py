"""Time as a run that follows a session takes it: it never jumps, and tests can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells how time passes; what it shows means nothing."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        ...


class SteadyClock:
    """The monotonic clock of this process."""

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))
