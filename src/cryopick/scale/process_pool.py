"""The executor of one machine: processes side by side, of which one that dies or hangs costs at most one item.

Each worker has a keeper, a thread that feeds it, replaces it when it dies, and gives up when it cannot be started.
Workers are started when there is work for them, and wait for more until the executor is closed.
"""

from __future__ import annotations

import logging
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Condition, Event, Thread
from typing import Any

from cryopick.errors import WorkerError
from cryopick.scale.executor import Done
from cryopick.scale.processes import usable_cores
from cryopick.scale.worker_process import START_LIMIT_SECONDS, Clock, DiedError, TooSlowError, WorkerProcess

IN_FLIGHT = 2
"""Items that a worker holds: one being worked on, one being read ahead."""
WINDOW = IN_FLIGHT + 1
"""Items that the executor takes for each worker: one more than it holds, so that it finds one waiting when it ends
one while the caller still writes down the result before."""
MOST_ATTEMPTS = 2
MOST_STARTS = 3
"""Starts of one worker, in a row, that may fail before the others go on without it."""
TIME_LIMIT_SECONDS = 7200.0
"""For one item where no limit is given: a hung worker must not hold the work for ever, and healthy ones, whatever the
picker and the size of the micrograph, never need so long."""

_log = logging.getLogger(__name__)


@dataclass
class _Item:
    key: str
    data: bytes
    deaths: int = 0
    """Workers that died while they held it."""


class Processes:
    """Workers as processes of this machine.

    Parameters
    ----------
    entry, state : see `cryopick.scale.executor`
    workers : processes at most, each started when there is an item for it
    time_limit_s : for one item, reading included, in seconds; the worker that takes longer is killed and the item is
        given up. 0 is no limit, None is `TIME_LIMIT_SECONDS`
    environments : environment variables of the workers, in turn; set before anything is imported there
    """

    def __init__(
        self,
        entry: str,
        state: Any,
        *,
        workers: int,
        time_limit_s: float | None = None,
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.workers = max(1, workers)
        self._entry = entry
        self._state = pickle.dumps(state)
        self._time_limit_s = TIME_LIMIT_SECONDS if time_limit_s is None else time_limit_s or None
        self._environments = list(environments) or [{}]
        self._outstanding: set[str] = set()
        """Keys that were submitted and have not been given back; only the caller's thread touches it."""
        self._results: SimpleQueue[Done | BaseException] = SimpleQueue()
        self._error: BaseException | None = None
        self._is_closed = Event()

        self._changed = Condition()
        """Guards all that follows, and tells of every change to it and of every message of a worker."""
        self._waiting: deque[_Item] = deque()
        self._places = deque(range(self.workers))
        """Numbers of the workers that nobody keeps yet."""
        self._keepers: dict[int, Thread] = {}
        self._hungry: set[int] = set()
        """Workers that hold no item: those that are being started, too."""
        self._alive: list[WorkerProcess] = []
        self._missing: list[str] = []
        """Why workers could not be started that the others went on without."""
        self._threads: list[Thread] = []

    def __str__(self) -> str:
        return f"{self.workers} worker process{'' if self.workers == 1 else 'es'}"

    # ------------------------------------------------------------------------------------------------ for the caller

    def free(self) -> int:
        return 0 if self._is_closed.is_set() else max(0, WINDOW * self.workers - len(self._outstanding))

    def submit(self, key: str, item: Any) -> None:
        if self.free() < 1 or key in self._outstanding:
            raise ValueError(f"{key}: submitted while the executor is full or closed, or twice")
        data = pickle.dumps(item)
        self._outstanding.add(key)
        with self._changed:
            self._waiting.append(_Item(key, data))
            if len(self._waiting) > len(self._hungry) and self._places:
                self._begin_keeping(self._places.popleft())
            self._changed.notify_all()

    def next(self, timeout_s: float | None) -> Done | None:
        if not self._outstanding or self._is_closed.is_set():
            return None
        if self._error is not None and self._results.empty():
            raise self._error
        try:
            ended = self._results.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(ended, BaseException):
            self._error = ended
            raise ended
        self._outstanding.remove(ended.key)
        return ended

    def close(self) -> None:
        self._is_closed.set()
        _let_go(self._changed)
        with self._changed:
            self._waiting.clear()
            working = [worker for worker in self._alive if not worker.is_idle]
            self._changed.notify_all()
        for worker in working:
            worker.process.kill()
        for thread in self._threads:
            if thread.ident is not None:  # a signal may have come before it was started
                thread.join()
        if self._missing and self._error is None and not self._outstanding:
            count = f"{len(self._missing)} of {self}"
            _log.warning("%s could not be started (%s); the others did the work", count, self._missing[-1])
            self._missing.clear()

    # ----------------------------------------------------------------------------------------------- for the keepers

    def _begin_keeping(self, place: int) -> None:
        self._hungry.add(place)
        self._keepers[place] = Thread(target=self._keep_one_worker, args=(place,), daemon=True)
        self._threads.append(self._keepers[place])
        self._keepers[place].start()

    def _keep_one_worker(self, place: int) -> None:
        """Feed one worker; replace it when it dies, give up when it cannot start."""
        failures, reason = 0, ""
        try:
            while failures < MOST_STARTS and self._has_work():
                worker, reason = self._started(place)
                if worker is None:
                    failures += 1
                    self._is_closed.wait(0.5 * failures)  # memory may be free again in a moment
                    continue
                failures = 0
                try:
                    self._feed(place, worker)
                finally:
                    with self._changed:
                        self._alive.remove(worker)
                        self._hungry.add(place)
            if not self._is_closed.is_set():
                self._end_keeping(place, reason)
        except BaseException as error:  # an error of ours must reach the caller, who otherwise waits for ever
            self._results.put(error)

    def _has_work(self) -> bool:
        """Wait until an item waits; False where the executor is closed."""
        with self._changed:
            while not self._waiting and not self._is_closed.is_set():
                self._changed.wait()
            return not self._is_closed.is_set()

    def _end_keeping(self, place: int, reason: str) -> None:
        with self._changed:
            del self._keepers[place]
            self._hungry.discard(place)
            self._missing.append(reason)
            is_last = not self._keepers
            if is_last:
                self._places.append(place)  # who has more to do later may try again
            self._changed.notify_all()
            is_stuck = is_last and bool(self._waiting)
        if is_stuck:
            self._results.put(
                WorkerError(
                    f"no worker process can be started ({reason}); what was finished is kept and "
                    "the same command resumes; with --workers 1 none is needed"
                )
            )

    def _started(self, place: int) -> tuple[WorkerProcess | None, str]:
        """A worker that is ready, or None and why there is none."""
        try:
            worker = WorkerProcess(
                changed=self._changed,
                threads=max(1, usable_cores() // self.workers),
                environment=self._environments[place % len(self._environments)],
            )
        except OSError as error:  # no memory or no process number left
            return None, error.strerror or str(error)
        with self._changed:
            self._alive.append(worker)
            if self._is_closed.is_set():
                worker.process.kill()
        try:
            worker.greet(self._entry, self._state)
        except (DiedError, TooSlowError) as failure:
            if isinstance(failure, TooSlowError):
                worker.kill()
                reason = f"it was not ready after {START_LIMIT_SECONDS:g} s"
            else:
                reason = worker.cause_of_death()
            with self._changed:
                self._alive.remove(worker)
            return None, reason
        return worker, ""

    def _feed(self, place: int, worker: WorkerProcess) -> None:
        """Give a worker its items, and results to the caller, until it dies, hangs or the executor is closed."""
        held: deque[_Item] = deque()
        clock = Clock(self._time_limit_s)
        try:
            while not self._is_closed.is_set():
                self._pass_on(place, worker, held, clock)
            if held:
                worker.kill()
            else:
                worker.leave()
        except TooSlowError:
            worker.kill()
            self._give_up(held)
        except DiedError:
            cause = worker.cause_of_death()
            if not self._is_closed.is_set():
                self._give_back(held, cause)
        except BaseException:
            worker.kill()
            raise

    def _pass_on(self, place: int, worker: WorkerProcess, held: deque[_Item], clock: Clock) -> None:
        """One result to the caller or one item to the worker; where there is neither, wait a moment."""
        with self._changed:
            message = worker.message()
            item = self._next_item(held) if message is None else None
            if message is not None:
                ended = held.popleft()
                clock.restart()
            elif item is not None:
                if not held:
                    clock.restart()
                held.append(item)
            elif held:
                clock.wait(self._changed)
            elif not self._is_closed.is_set():
                self._changed.wait()
            worker.is_idle = not held
            if worker.is_idle:
                self._hungry.add(place)
            else:
                self._hungry.discard(place)
            if message is not None or item is not None:
                self._changed.notify_all()
        if message is not None:
            self._results.put(Done(key=ended.key, result=pickle.loads(message)))
        elif item is not None:
            worker.send(item.data)

    def _next_item(self, held: Sequence[_Item]) -> _Item | None:
        """The next item for a worker that holds `held`.

        An item that a worker died of is given out alone, and none is read ahead that another worker has nothing but.
        """
        if not self._waiting or len(held) >= IN_FLIGHT:
            return None
        is_suspect = any(item.deaths for item in (*held, self._waiting[0]))
        if held and (is_suspect or len(self._waiting) <= len(self._hungry)):
            return None
        return self._waiting.popleft()

    def _give_up(self, held: deque[_Item]) -> None:
        """The item that took a worker too long is lost; the one that it read ahead is another worker's."""
        slow = held.popleft()
        with self._changed:
            self._waiting.extendleft(reversed(held))
            self._changed.notify_all()
        why = (
            f"not finished within {self._time_limit_s:g} s, so its worker process was killed; "
            "is its disk alive? (--time-limit SECONDS allows more, 0 any time)"
        )
        self._results.put(Done(key=slow.key, lost=why, seconds=self._time_limit_s or 0.0))

    def _give_back(self, held: Sequence[_Item], cause: str) -> None:
        """The items that a dead worker held: tried again, and given up where a worker died of one twice."""
        lost = []
        with self._changed:
            for item in reversed(held):
                item.deaths += 1
                if item.deaths < MOST_ATTEMPTS or len(held) > 1:
                    self._waiting.appendleft(item)
                else:
                    lost.append(item)
            self._changed.notify_all()
        for item in lost:
            self._results.put(Done(key=item.key, lost=f"the worker process died with {cause}"))


def _let_go(lock: Condition) -> None:
    """Release a lock as often as this thread holds it; for a thread that an interrupt has thrown out of what it did.

    An interrupt between the taking of a lock and the first line of its block leaves it taken, and the keepers, who are
    waited for, wait for it.
    """
    with suppress(RuntimeError):  # this is how a lock says that this thread does not hold it
        while True:
            lock.release()
