"""Keeps a number of jobs at work: asks for them, replaces those that end, and says when that leads to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, RLock, Thread

from cryopick.errors import WorkerError
from cryopick.scale.cluster.job import UNREACHABLE
from cryopick.scale.cluster.jobs import JobQueue, JobState

LOOK_SECONDS = 5.0
"""Between two looks at the queue. A lost job is replaced in 3.5 s, and its worker is at work after 9 s; batch systems
ask not to be asked more often."""
MOST_BARREN = 5
"""Jobs in a row that end without one result; then nothing will come of more of them."""
LOG_LINES = 3
"""Of the log of a job that an error shows."""


@dataclass
class Job:
    name: str
    number: str
    state: JobState
    has_joined: bool = False
    """One of its workers is known to the scheduler, or was."""
    has_result: bool = False
    is_sent_away: bool = False


class JobKeeper:
    """Looks after the jobs of a run, in a thread of its own, since batch systems take their time to answer.

    Parameters
    ----------
    jobs : to keep at work
    has_work : whether a job that ends now is worth replacing
    look_seconds : see `LOOK_SECONDS`
    """

    def __init__(
        self, queue: JobQueue, *, jobs: int, has_work: Callable[[], bool], look_seconds: float = LOOK_SECONDS
    ) -> None:
        self.wanted = jobs
        self.most_submissions = 3 * jobs + 10
        self._queue = queue
        self._has_work = has_work
        self._look_seconds = look_seconds
        self._lock = RLock()  # an interrupt can leave it taken by the thread that closes the run, which asks again
        self._alive: dict[str, Job] = {}
        """By name."""
        self._known: dict[str, Job] = {}
        """Every job ever asked for, by name."""
        self._barren = 0
        self._lines: list[str] = []
        self._error: WorkerError | None = None
        self._is_stopped, self._is_woken = Event(), Event()
        self._thread = Thread(target=self._keep, name="cryopick-jobs", daemon=True)

    def start(self) -> None:
        """Ask for the jobs. `WorkerError` with the batch system's own sentence where it takes none."""
        self._submit_missing()
        if self._error is not None:
            raise self._error
        self._thread.start()

    def stop(self) -> None:
        """Ask for no more, and cancel all."""
        self._is_stopped.set()
        self._is_woken.set()
        if self._thread.ident is not None:
            self._thread.join(10.0)
        self._queue.cancel_all()

    # ---------------------------------------------------------------------------------------------- what is told to it

    def joined(self, worker: str) -> None:
        if (job := self.job_of(worker)) is not None:
            job.has_joined = True

    def gave_result(self, worker: str) -> None:
        if (job := self.job_of(worker)) is not None and not job.has_result:
            with self._lock:
                job.has_result, self._barren = True, 0

    def send_away(self, worker: str) -> None:
        """Cancel the job of a worker that must not work for this run, and ask for another."""
        job = self.job_of(worker)
        if job is not None and not job.is_sent_away:
            job.is_sent_away = True
            self._queue.cancel([job.number])
            self._is_woken.set()

    # ---------------------------------------------------------------------------------------------------- what it says

    def job_of(self, worker: str) -> Job | None:
        """The job of a worker, by the worker's name."""
        return self._known.get(worker) or self._known.get(worker.rpartition("-")[0])

    def host_of(self, worker: str) -> str:
        job = self.job_of(worker)
        return "" if job is None else job.state.host

    def log_tail(self, worker: str, *, lines: int = LOG_LINES) -> list[str]:
        job = self.job_of(worker)
        return [] if job is None else self._tail(job, lines)

    def log_text(self, worker: str) -> str:
        job = self.job_of(worker)
        return "" if job is None else self._read(job)

    def pending(self) -> tuple[int, str]:
        """Jobs that wait, and the reason that most of them have."""
        with self._lock:
            reasons = Counter(job.state.reason for job in self._alive.values() if job.state.state == "pending")
        return reasons.total(), reasons.most_common(1)[0][0] if reasons else ""

    def all_sent_away(self) -> bool:
        """Whether every job so far was sent away, and so many of them that the others would be, too."""
        with self._lock:
            known = list(self._known.values())
            sent = sum(job.is_sent_away for job in known)
            return sent >= min(self.wanted, MOST_BARREN) and not any(job.has_result for job in known)

    def lines(self) -> list[str]:
        """What happened since the last call, for a log."""
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    @property
    def error(self) -> WorkerError | None:
        """Why no more jobs are asked for, once none is left."""
        return self._error

    def failed_logs(self) -> set[str]:
        """Names of jobs that ended otherwise than by our own cancelling."""
        with self._lock:
            return {job.name for job in self._known.values() if job.state.state == "ended" or job.is_sent_away}

    # -------------------------------------------------------------------------------------------------------- its work

    def _keep(self) -> None:
        try:
            while not self._is_stopped.is_set():
                self._look()
                if not self._is_stopped.is_set() and self._has_work():
                    self._submit_missing()
                self._is_woken.wait(self._look_seconds)
                self._is_woken.clear()
        except BaseException as error:  # an error of ours must reach the run, which otherwise waits for ever
            self._error = WorkerError(f"the keeper of the jobs failed: {type(error).__name__}: {error}")
            self._error.__cause__ = error

    def _look(self) -> None:
        states = self._queue.states()
        if states is None:
            return
        for job in list(self._alive.values()):
            state = states.get(job.number, JobState("ended", "no longer in the queue"))
            with self._lock:
                if state.state == "ended" and not state.host:
                    state = JobState("ended", state.reason, job.state.host)
                job.state = state
            if state.state == "ended":
                self._end(job)

    def _end(self, job: Job) -> None:
        on = f" on {job.state.host}" if job.state.host else ""
        with self._lock:
            del self._alive[job.name]
            self._lines.append(f"job {job.number} ({job.name}){on} ended: {job.state.reason}")
            self._barren = 0 if job.has_result else self._barren + 1
            has_worked = any(one.has_joined for one in self._known.values())
        if self._error is not None:
            return
        if not has_worked and (told := self._unreachable(job)):
            self._error = WorkerError(told)
        elif self._barren >= MOST_BARREN and not job.is_sent_away:
            tail = " / ".join(self._tail(job, LOG_LINES)) or "nothing"
            self._error = WorkerError(
                f"{self._barren} jobs in a row ended without a result, the last one with {job.state.reason}; its log "
                f"ends: {tail} ({self._queue.log_of(job.name)})"
            )

    def _unreachable(self, job: Job) -> str:
        line = next((line for line in self._tail(job, 20) if line.startswith(UNREACHABLE)), "")
        if not line:
            return ""
        address, _, reason = line.removeprefix(UNREACHABLE).strip().rpartition(": ")
        return (
            f"workers started but cannot reach {address.partition('://')[2]} (job log: {reason}); try another "
            "`interface` in [cluster], run this command in a job itself, or share the work out by --part"
        )

    def _submit_missing(self) -> None:
        while self._error is None and len(self._alive) < self.wanted and not self._is_stopped.is_set():
            if len(self._known) >= self.most_submissions:
                if not self._alive:
                    self._error = WorkerError(f"{len(self._known)} jobs were asked for and none is left at work")
                return
            name = f"j{len(self._known)}"
            try:
                number = self._queue.submit(name)
            except WorkerError as error:
                if not self._alive:
                    self._error = error
                    return
                with self._lock:
                    self._lines.append(f"no further job: {error}")
                return
            with self._lock:
                self._known[name] = self._alive[name] = Job(name, number, JobState("pending"))
                self._lines.append(f"asked for job {number} ({name})")

    def _tail(self, job: Job, lines: int) -> list[str]:
        return [line.strip() for line in self._read(job).splitlines() if line.strip()][-lines:]

    def _read(self, job: Job) -> str:
        try:
            return self._queue.log_of(job.name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
