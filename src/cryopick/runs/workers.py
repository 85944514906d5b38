"""Who picks the micrographs of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryopick.errors import SettingsError
from cryopick.runs.one import PickWorker
from cryopick.runs.settings import PickPlan
from cryopick.scale.executor import Executor, entry_of
from cryopick.scale.places import open_executor
from cryopick.scale.processes import usable_cores

MOST_BY_DEFAULT = 8
"""Worker processes where nobody says how many."""


@dataclass(frozen=True, kw_only=True)
class Workforce:
    """Who picks, which changes no result.

    Parameters
    ----------
    workers : processes side by side; None is one per core up to `MOST_BY_DEFAULT`, but one alone for short runs and for
        pickers that say they fill the machine
    time_limit_seconds : for one micrograph, reading included, which fails when it takes longer; None is two hours where
        there are worker processes, 0 no limit. Kept by worker processes, so that with a limit even one is a process

    Raises
    ------
    SettingsError
        If a number is impossible.
    """

    workers: int | None = None
    time_limit_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"workers {self.workers}: expected 1 or more")
        limit = self.time_limit_seconds
        if limit is not None and not 0 <= limit < float("inf"):
            raise SettingsError(f"time limit {limit:g}: expected seconds for a micrograph, or 0 for no limit")

    def open(self, plan: PickPlan, *, tasks: int | None) -> Executor:
        """The executor that picks by this plan; whoever opens it closes it.

        Parameters
        ----------
        tasks : how many there will be; None where nobody knows, as in a session that goes on: whoever follows that has
            more to do than to wait, so that even one worker is a process
        """
        workers = default_workers(tasks, picker=plan.picker) if self.workers is None else self.workers
        return open_executor(
            entry=entry_of(PickWorker),
            state=plan,
            workers=workers,
            time_limit_s=self.time_limit_seconds,
            is_beside=tasks is None,
        )


def default_workers(tasks: int | None, *, picker: Any) -> int:
    """One worker per core up to 8, but one alone for short runs and for pickers that say they fill the machine."""
    if (tasks is not None and tasks < 4) or getattr(picker, "fills_machine", False):
        return 1
    return min(usable_cores(), MOST_BY_DEFAULT, MOST_BY_DEFAULT if tasks is None else tasks)
