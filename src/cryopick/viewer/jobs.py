"""What takes longer than a request: exports in a thread. Each is told of by a small object that the page polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryopick.errors import CryopickError


@dataclass
class Job:
    """One piece of work that goes on beside the page."""

    number: int
    kind: str
    phase: str = "begins"
    step: int = 0
    steps: int = 0
    is_running: bool = True
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)


class Jobs:
    """Jobs of this start of the viewer; one of a kind at a time."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note
        self._guard = threading.Lock()
        self.jobs: list[Job] = []

    def running(self, kind: str) -> Job | None:
        return next((job for job in self.jobs if job.kind == kind and job.is_running), None)

    def start(self, kind: str, work: Callable[[Job], dict[str, Any]]) -> Job:
        """Begin `work` in a thread, unless one of its kind is under way, which is given then."""
        with self._guard:
            under_way = self.running(kind)
            if under_way is not None:
                return under_way
            job = Job(number=len(self.jobs), kind=kind)
            self.jobs.append(job)
        threading.Thread(target=self._do, args=(job, work), name=f"cryopick-{kind}", daemon=True).start()
        return job

    def _do(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            job.result = work(job)
            job.phase = "done"
        except (CryopickError, OSError) as error:
            job.error, job.phase = str(error), "failed"
        except Exception as error:  # a thread of its own: the person must hear of it all the same
            job.error, job.phase = f"unexpected {type(error).__name__}: {error}", "failed"
            raise
        finally:
            job.is_running = False
            self._note()
