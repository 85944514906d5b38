"""How a session is followed: how often it is looked at, and what ends it. None of it changes a result but `settle`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryopick.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How a session is followed.

    Parameters
    ----------
    poll_s : between looks at the folder; ten times what a look takes where that is more
    quiet_s : without change before a file is taken to be whole
    settle : micrographs from which on the first measured size stays; None where it is measured until the end
    stop_idle_s : the run ends when nothing has come or was left to pick for so long; None never
    stop_count : the run ends when so many micrographs have come; None never
    stop_file : the run ends when there is a file of this name; None is `STOP` in the run folder
    grace_s : for how long files that are not whole are waited for at the end
    summary_every_s : between looks at the threshold, and between summaries at the least
    ignore : patterns of file names that are left out

    Raises
    ------
    SettingsError
        If a number is impossible.
    """

    poll_s: float = 2.0
    quiet_s: float = 4.0
    settle: int | None = None
    stop_idle_s: float | None = None
    stop_count: int | None = None
    stop_file: Path | None = None
    grace_s: float = 60.0
    summary_every_s: float = 60.0
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("settle", self.settle), ("stop count", self.stop_count)):
            if value is not None and value < 1:
                raise SettingsError(f"{name} {value}: expected micrographs, 1 or more")
        for name, seconds in (("poll", self.poll_s), ("summary every", self.summary_every_s)):
            if not 0 < seconds < float("inf"):
                raise SettingsError(f"{name} {seconds:g}: expected seconds, more than 0")
