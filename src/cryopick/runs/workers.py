"""Several processes pick side by side; a worker that dies or hangs costs at most one micrograph, never the run.

Workers are started as `python -P -m cryopick.runs.workers` and speak pickles over their standard streams. So
nothing is forked (CUDA and thread pools survive), the user's script needs no `__main__` guard, and workers of a killed
parent read the end of their input and leave.
"""

from __future__ import annotations

import logging
import os
import pickle
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Event, Lock, Thread
from typing import IO, Any

from cryopick.errors import WorkerError
from cryopick.runs.one import Outcome, Task, outcomes_of
from cryopick.runs.settings import PickPlan
from cryopick.scale.processes import end_process, import_path, start_python, usable_cores

IN_FLIGHT = 2
"""Tasks that a worker holds: one being picked, one being read ahead."""
MOST_ATTEMPTS = 2
MOST_STARTS = 3
"""Starts of one worker, in a row, that may fail before the run goes on without it."""
TIME_LIMIT_SECONDS = 7200.0
"""For one micrograph where no limit is given: a hung worker must not hold a run for ever, and healthy ones, whatever
the picker and the size of the micrograph, never need so long."""
START_LIMIT_SECONDS = 1800.0
"""For a worker to become ready: on a busy machine with a slow disk imports alone take minutes."""
_TICK_SECONDS = 1.0
_LEAVING_SECONDS = 30.0
"""For a worker without work to end by itself."""

_log = logging.getLogger(__name__)


def default_workers(n_tasks: int, *, picker: Any) -> int:
    """One worker per core up to 8, but one alone for short runs and for pickers that say they fill the machine."""
    if n_tasks < 4 or getattr(picker, "fills_machine", False):
        return 1
    return min(usable_cores(), 8, n_tasks)


def pick_in_workers(
    tasks: Sequence[Task], plan: PickPlan, *, workers: int, time_limit_seconds: float | None = None
) -> Iterator[Outcome]:
    """Outcomes of all tasks in the order in which they end.

    Parameters
    ----------
    workers : processes; 1 stays in this process unless a time limit is given, which only another process can keep
    time_limit_seconds : for one micrograph, reading included; the worker that takes longer is killed and that
        micrograph fails. 0 is no limit, None is `TIME_LIMIT_SECONDS` where there are worker processes

    Raises
    ------
    WorkerError
        If no worker can be started. What was yielded before is right.
    """
    if workers <= 1 and not time_limit_seconds:
        yield from outcomes_of(tasks, plan)
        return
    limit = TIME_LIMIT_SECONDS if time_limit_seconds is None else time_limit_seconds or None
    pool = _Pool(tasks, pickle.dumps(plan), max(1, workers), limit)
    try:
        for _ in tasks:
            outcome = pool.results.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        pool.stop()
    pool.tell_of_missing_workers()


class _DiedError(Exception):
    """A worker closed its streams."""


class _TooSlowError(Exception):
    """A worker said nothing within the time limit."""


class _Worker:
    """A worker process: messages go in and come out; what it prints is passed on once it has started."""

    def __init__(self, *, threads: int) -> None:
        self.process: subprocess.Popen[bytes] = start_python(
            __spec__.name,
            threads=threads,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        self._to_worker: IO[bytes] = self.process.stdin
        self._messages: Queue[bytes | None] = Queue()
        self._printed: deque[str] = deque(maxlen=20)
        self._is_ready = False
        Thread(target=self._read_messages, daemon=True).start()
        self._printing = Thread(target=self._read_prints, daemon=True)
        self._printing.start()

    def greet(self, settings: bytes) -> None:
        """Send what every task needs and wait until the worker has made itself ready."""
        self.send(pickle.dumps(import_path().last))
        self.send(settings)
        self.receive(START_LIMIT_SECONDS)
        self._is_ready = True

    def send(self, data: bytes) -> None:
        try:
            _send_bytes(self._to_worker, data)
        except OSError as error:
            raise _DiedError from error

    def receive(self, limit_seconds: float | None) -> bytes:
        """The next message. Time in which this process itself is stopped (Ctrl-Z, a suspended job) does not count."""
        waited = 0.0
        while True:
            start = time.monotonic()
            try:
                message = self._messages.get(timeout=_TICK_SECONDS)
            except Empty:
                waited += min(time.monotonic() - start, 2 * _TICK_SECONDS)
                if limit_seconds is not None and waited >= limit_seconds:
                    raise _TooSlowError from None
                continue
            if message is None:
                raise _DiedError
            return message

    def leave(self) -> None:
        """Let a worker that has no work, or has closed its streams, end by itself."""
        _close_quietly(self._to_worker)
        try:
            self.process.wait(_LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            end_process(self.process)

    def kill(self) -> None:
        """End a worker that does not answer."""
        end_process(self.process)
        _close_quietly(self._to_worker)

    def cause_of_death(self) -> str:
        """How a process that closed its streams ended, and the last thing that it said, for a message."""
        self.leave()
        self._printing.join(_TICK_SECONDS)
        status = self.process.returncode
        cause = "it cannot be ended" if status is None else _described(status)
        lines = [line for line in self._printed if line.strip()]
        return f"{cause}: {lines[-1].strip()}" if lines else cause

    def _read_messages(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        try:
            with stream:
                while True:
                    self._messages.put(_receive_bytes(stream))
        except (OSError, EOFError):
            self._messages.put(None)

    def _read_prints(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for data in stream:
                line = data.decode("utf-8", errors="backslashreplace").rstrip()
                self._printed.append(line)
                if self._is_ready:
                    _print_error(line)


@dataclass
class _Pool:
    tasks: Sequence[Task]
    plan: bytes
    workers: int
    time_limit_seconds: float | None
    results: Queue[Outcome | BaseException] = field(default_factory=Queue)

    def __post_init__(self) -> None:
        self._waiting = deque(self.tasks)
        self._attempts: dict[str, int] = {}
        self._lock = Lock()
        self._is_stopped = Event()
        self._alive: list[_Worker] = []
        self._missing: list[str] = []
        """Why workers could not be started that the run went on without."""
        self._keepers = min(self.workers, len(self.tasks))
        for _ in range(self._keepers):
            Thread(target=self._keep_one_worker, daemon=True).start()

    def stop(self) -> None:
        self._is_stopped.set()
        with self._lock:
            alive = list(self._alive)
        for worker in alive:
            worker.process.kill()
        for worker in alive:
            worker.kill()

    def tell_of_missing_workers(self) -> None:
        if self._missing:
            count = f"{len(self._missing)} of {self.workers} worker processes"
            _log.warning("%s could not be started (%s); the others did the work", count, self._missing[-1])

    def _keep_one_worker(self) -> None:
        """Feed one worker until no task is left; replace it when it dies, give up when it cannot start."""
        failures, reason = 0, ""
        try:
            while not self._is_stopped.is_set() and failures < MOST_STARTS:
                with self._lock:
                    if not self._waiting:
                        break
                worker, reason = self._started()
                if worker is None:
                    failures += 1
                    self._is_stopped.wait(0.5 * failures)  # memory may be free again in a moment
                    continue
                failures = 0
                try:
                    self._feed(worker)
                finally:
                    with self._lock:
                        self._alive.remove(worker)
            self._end_keeping(reason if failures == MOST_STARTS else "")
        except BaseException as error:  # an error of ours must reach the caller, who otherwise waits for ever
            self.results.put(error)

    def _end_keeping(self, reason: str) -> None:
        with self._lock:
            self._keepers -= 1
            if reason:
                self._missing.append(reason)
            is_stuck = self._keepers == 0 and bool(self._waiting) and not self._is_stopped.is_set()
        if is_stuck:
            self.results.put(
                WorkerError(
                    f"no worker process can be started ({reason or self._missing[-1]}); what was finished is kept and "
                    "the same command resumes; with --workers 1 none is needed"
                )
            )

    def _started(self) -> tuple[_Worker | None, str]:
        """A worker that is ready, or None and why there is none."""
        try:
            worker = _Worker(threads=max(1, usable_cores() // self.workers))
        except OSError as error:  # no memory or no process number left
            return None, error.strerror or str(error)
        with self._lock:
            self._alive.append(worker)
            if self._is_stopped.is_set():
                worker.process.kill()
        try:
            worker.greet(self.plan)
        except (_DiedError, _TooSlowError) as failure:
            if isinstance(failure, _TooSlowError):
                worker.kill()
                reason = f"it was not ready after {START_LIMIT_SECONDS:g} s"
            else:
                reason = worker.cause_of_death()
            with self._lock:
                self._alive.remove(worker)
            return None, reason
        return worker, ""

    def _feed(self, worker: _Worker) -> None:
        held: deque[Task] = deque()
        try:
            while not self._is_stopped.is_set():
                while (task := self._next_task(held)) is not None:
                    held.append(task)
                    worker.send(pickle.dumps(task))
                if not held:
                    worker.leave()
                    return
                outcome = pickle.loads(worker.receive(self.time_limit_seconds))
                held.popleft()
                self.results.put(outcome)
            worker.kill()
        except _TooSlowError:
            worker.kill()
            self._give_up(held)
        except _DiedError:
            cause = worker.cause_of_death()
            if not self._is_stopped.is_set():
                self._give_back(held, cause)

    def _next_task(self, held: Sequence[Task]) -> Task | None:
        """The next task for a worker that holds `held`; a task that a worker died of is given out alone."""
        with self._lock:
            if not self._waiting or len(held) >= IN_FLIGHT:
                return None
            is_suspect = any(task.name in self._attempts for task in (*held, self._waiting[0]))
            return None if held and is_suspect else self._waiting.popleft()

    def _give_up(self, held: deque[Task]) -> None:
        """The task that took a worker too long fails; the one that it read ahead is picked by another."""
        slow = held.popleft()
        with self._lock:
            self._waiting.extendleft(reversed(held))
        error = (
            f"not picked within {self.time_limit_seconds:g} s, so its worker process was killed; "
            "is its disk alive? (--time-limit SECONDS allows more, 0 any time)"
        )
        self.results.put(Outcome(name=slow.name, error=error, seconds=self.time_limit_seconds or 0.0))

    def _give_back(self, held: Sequence[Task], cause: str) -> None:
        """The tasks that a dead worker held: tried again, and given up where a worker died of one twice."""
        with self._lock:
            for task in reversed(held):
                self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
                if self._attempts[task.name] < MOST_ATTEMPTS or len(held) > 1:
                    self._waiting.appendleft(task)
                else:
                    self.results.put(Outcome(name=task.name, error=f"the worker process died with {cause}"))


def _described(status: int) -> str:
    """An exit status as `subprocess` gives it, in words."""
    if status >= 0:
        return f"exit status {status}"
    hint = " (out of memory? try fewer --workers)" if status == -9 else ""
    return f"signal {-status}{hint}"


def _print_error(line: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")
    except (OSError, ValueError):  # nobody listens any more
        return


def _send_bytes(stream: IO[bytes], data: bytes) -> None:
    stream.write(struct.pack("<Q", len(data)))
    stream.write(data)
    stream.flush()


def _receive_bytes(stream: IO[bytes]) -> bytes:
    (size,) = struct.unpack("<Q", _read_exactly(stream, 8))
    return _read_exactly(stream, size)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other process closed the stream")
    return data


def _close_quietly(stream: Any) -> None:
    try:
        stream.close()
    except OSError:  # the worker is dead and bytes were still buffered for it
        return


def _tasks_from(stream: IO[bytes]) -> Iterator[Task]:
    while True:
        try:
            task: Task = pickle.loads(_receive_bytes(stream))
        except EOFError:
            return
        yield task


def serve() -> None:
    """The worker: import path and plan first, then tasks, until the input ends. Prints of libraries go to stderr.

    It has nothing to say about a parent that is gone: it leaves.
    """
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        sys.path.extend(pickle.loads(_receive_bytes(incoming)))
        plan: PickPlan = pickle.loads(_receive_bytes(incoming))
        _send_bytes(outgoing, b"ready")
        for outcome in outcomes_of(_tasks_from(incoming), plan):
            _send_bytes(outgoing, pickle.dumps(outcome))
    except (BrokenPipeError, EOFError):
        os._exit(1)


if __name__ == "__main__":
    serve()
