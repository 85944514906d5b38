"""Several processes pick side by side; a worker that dies costs at most one micrograph, never the run.

Workers are started as `python -m cryopick.workflows.workers` and speak pickles over their standard streams. So
nothing is forked (CUDA and thread pools survive), the user's script needs no `__main__` guard, and workers of a killed
parent read the end of their input and leave.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Queue
from threading import Event, Lock, Thread
from typing import IO, Any

from cryopick.workflows.pick_one import Outcome, Task, outcomes_of
from cryopick.workflows.pick_settings import PickSettings

IN_FLIGHT = 2
"""Tasks that a worker holds: one being picked, one being read ahead."""
MOST_ATTEMPTS = 2
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def usable_cores() -> int:
    """Cores that this process may use, which on a cluster node may be fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(n_tasks: int, *, picker: Any) -> int:
    """One worker per core up to 8, but one alone for short runs and for pickers that say they fill the machine."""
    if n_tasks < 4 or getattr(picker, "fills_machine", False):
        return 1
    return min(usable_cores(), 8, n_tasks)


def pick_in_workers(tasks: Sequence[Task], settings: PickSettings, *, workers: int) -> Iterator[Outcome]:
    """Outcomes of all tasks in the order in which they end; `workers=1` stays in this process."""
    if workers <= 1:
        yield from outcomes_of(tasks, settings)
        return
    pool = _Pool(tasks, pickle.dumps(settings), workers)
    try:
        for _ in tasks:
            outcome = pool.results.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        pool.stop()


@dataclass
class _Pool:
    tasks: Sequence[Task]
    settings: bytes
    workers: int
    results: Queue[Outcome | BaseException] = field(default_factory=Queue)

    def __post_init__(self) -> None:
        self._waiting = deque(self.tasks)
        self._attempts: dict[str, int] = {}
        self._lock = Lock()
        self._is_stopped = Event()
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(min(self.workers, len(self.tasks))):
            Thread(target=self._keep_one_worker, daemon=True).start()

    def stop(self) -> None:
        self._is_stopped.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def _keep_one_worker(self) -> None:
        """Feed one worker until no task is left; replace it when it dies."""
        try:
            while not self._is_stopped.is_set():
                with self._lock:
                    if not self._waiting:
                        return
                self._feed(self._start())
        except BaseException as error:  # an error of ours must reach the caller, who otherwise waits for ever
            self.results.put(error)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        for variable in _THREAD_VARIABLES:
            environment.setdefault(variable, str(max(1, usable_cores() // self.workers)))
        process = subprocess.Popen(
            [sys.executable, "-m", "cryopick.workflows.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        with self._lock:
            self._processes.append(process)
            if self._is_stopped.is_set():
                process.kill()
        return process

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        held: deque[Task] = deque()
        try:
            self._greet(process.stdin, process.stdout)
            while not self._is_stopped.is_set():
                while (task := self._next_task(held)) is not None:
                    held.append(task)
                    _send_bytes(process.stdin, pickle.dumps(task))
                if not held:
                    break
                outcome = pickle.loads(_receive_bytes(process.stdout))
                held.popleft()
                self.results.put(outcome)
        except (OSError, EOFError):
            if not self._is_stopped.is_set():
                self._give_back(held, process.wait())
        finally:
            for stream in (process.stdin, process.stdout):
                _close_quietly(stream)
            process.wait()
            with self._lock:
                self._processes.remove(process)

    def _greet(self, to_worker: IO[bytes], from_worker: IO[bytes]) -> None:
        try:
            _send_bytes(to_worker, self.settings)
            _receive_bytes(from_worker)
        except (OSError, EOFError) as error:
            if not self._is_stopped.is_set():
                raise RuntimeError(
                    "a worker process could not start; its message is above, --workers 1 needs none"
                ) from error
            raise

    def _next_task(self, held: Sequence[Task]) -> Task | None:
        """The next task for a worker that holds `held`; a task that a worker died of is given out alone."""
        with self._lock:
            if not self._waiting or len(held) >= IN_FLIGHT:
                return None
            is_suspect = any(task.name in self._attempts for task in (*held, self._waiting[0]))
            return None if held and is_suspect else self._waiting.popleft()

    def _give_back(self, held: Sequence[Task], status: int) -> None:
        """The tasks that a dead worker held: tried again, and given up where a worker died of one twice."""
        cause = f"signal {-status}" if status < 0 else f"exit status {status}"
        hint = " (out of memory? try --workers 1)" if status == -9 else ""
        with self._lock:
            for task in reversed(held):
                self._attempts[task.name] = self._attempts.get(task.name, 0) + 1
                if self._attempts[task.name] < MOST_ATTEMPTS or len(held) > 1:
                    self._waiting.appendleft(task)
                else:
                    self.results.put(Outcome(name=task.name, error=f"the worker process died with {cause}{hint}"))


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
    """The worker: settings first, then tasks, until the input ends. Prints of libraries go to stderr."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settings: PickSettings = pickle.loads(_receive_bytes(incoming))
    _send_bytes(outgoing, b"ready")
    for outcome in outcomes_of(_tasks_from(incoming), settings):
        _send_bytes(outgoing, pickle.dumps(outcome))


if __name__ == "__main__":
    serve()
