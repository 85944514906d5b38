"""The executor of a cluster: items go to Dask's workers two for each at a time, and results come back as they end.

A worker that dies takes no result with it: results are fetched at once. A death says little of the item that the worker
had, since jobs are cancelled, preempted and run out of time. So an item that two workers died of waits until nothing
else is left, and is then tried twice more; who is given up after that was to blame.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from cryopick.errors import WorkerError
from cryopick.scale.cluster.engine import ALLOWED_FAILURES
from cryopick.scale.cluster.place import CAUSE_SECONDS, Place
from cryopick.scale.cluster.work import Errand, Reply, work_on
from cryopick.scale.executor import Done
from cryopick.scale.process_pool import TIME_LIMIT_SECONDS

IN_FLIGHT = 2
"""Items for each worker that Dask has: one being worked on, one that the scheduler holds ready."""
DEATHS_A_ROUND = ALLOWED_FAILURES + 1
MOST_ROUNDS = 2
MOST_TRIES = 5
"""Of an item that comes back without a result, an error or a death, as when a connection ends."""
_TICK_SECONDS = 0.01


@dataclass
class _Item:
    key: str
    data: bytes
    rounds: int = 0
    """In which Dask gave it up."""
    tries: int = 0
    future: Any = None


class DaskExecutor:
    """Work on an open cluster.

    Parameters
    ----------
    place : see `open_place`
    entry, state : see `cryopick.scale.executor`
    time_limit_s : for one item, in seconds; the process that takes longer is replaced and the item is given up. 0 is no
        limit, None is that of `Processes`
    is_owner : closing this closes the place
    """

    def __init__(
        self, place: Place, entry: str, state: Any, *, time_limit_s: float | None = None, is_owner: bool = False
    ) -> None:
        from distributed import as_completed

        self.place = place
        self._is_owner = is_owner
        self._time_limit_s = TIME_LIMIT_SECONDS if time_limit_s is None else time_limit_s or None
        self._errand = Errand(
            entry=entry,
            state=pickle.dumps(state),
            token_file=str(place.secrets.token_file),
            token=place.secrets.token,
            time_limit_s=self._time_limit_s,
        )
        self._completed = as_completed([], with_results=True, raise_errors=False, loop=place.client.loop)
        self._outstanding: set[str] = set()
        self._waiting: deque[_Item] = deque()
        self._suspects: deque[_Item] = deque()
        self._doomed: deque[tuple[float, str, _Item]] = deque()
        """When to give it up, the worker that died of it last, and the item."""
        self._flying: dict[int, _Item] = {}
        """At Dask, by the number in their key there."""
        self._ended: deque[Done] = deque()
        self._is_closed = False

    def __str__(self) -> str:
        return f"cluster {self.place.where}"

    # ------------------------------------------------------------------------------------------------- the protocol

    def free(self) -> int:
        if self._is_closed:
            return 0
        return max(0, self._window() - len(self._outstanding) + len(self._suspects))

    def submit(self, key: str, item: Any) -> None:
        if self._is_closed or key in self._outstanding:
            raise ValueError(f"{key}: submitted twice, or to an executor that is closed")
        self._outstanding.add(key)
        self._waiting.append(_Item(key, pickle.dumps(item)))
        self._send()

    def next(self, timeout_s: float | None) -> Done | None:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self._outstanding and not self._is_closed:
            self._take_in()
            self._give_up_doomed()
            if self._ended:
                done = self._ended.popleft()
                self._outstanding.remove(done.key)
                return done
            self.place.look_after()
            self._send()
            left = _TICK_SECONDS if end is None else min(_TICK_SECONDS, end - time.monotonic())
            if left <= 0:
                return None
            time.sleep(left)
        return None

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        futures = [item.future for item in self._flying.values()]
        self._flying.clear()
        try:
            if futures and self.place.client.status == "running":
                self.place.client.cancel(futures, force=True)
        finally:
            if self._is_owner:
                self.place.close()

    # ---------------------------------------------------------------------------------------------------- its work

    def _window(self) -> int:
        return IN_FLIGHT * max(1, self.place.workers())

    def _send(self) -> None:
        """Give Dask what it has room for; those that workers died of when nothing else is left."""
        while self._waiting and len(self._flying) < self._window():
            self._fly(self._waiting.popleft())
        if not self._waiting and all(item.rounds for item in self._flying.values()):
            while self._suspects and len(self._flying) < max(1, self.place.workers()):
                self._fly(self._suspects.popleft())

    def _fly(self, item: _Item) -> None:
        number = self.place.number_of_task(item.key)
        # a tuple: keys that are plain unique texts make Dask hand everything to workers at once (distributed #8133)
        item.future = self.place.client.submit(work_on, self._errand, item.data, key=("cryopick", number), pure=False)
        self._flying[number] = item
        self._completed.add(item.future)

    def _take_in(self) -> None:
        for future, result in self._completed.next_batch(block=False):
            item = self._flying.pop(future.key[1], None)
            if item is None:
                continue
            item.future = None
            future.release()
            if isinstance(result, Reply):
                self._take(item, result)
            else:
                error = result[1] if isinstance(result, tuple) else result
                self._take_error(item, error)

    def _give_up_doomed(self) -> None:
        """Items that workers died of in the last round, too, when the log says how the last one ended."""
        while self._doomed and self._doomed[0][0] < time.monotonic():
            _, worker, item = self._doomed.popleft()
            self.place.look_after(at_once=True)
            count = item.rounds * DEATHS_A_ROUND if self.place.keeper is not None else item.rounds
            cause = self.place.cause_of_loss(worker).removeprefix("was killed by ")
            hint = "; out of memory?" if cause == "signal 9" else ""
            told = f" ({cause}{hint})" if cause else ""
            self._ended.append(Done(key=item.key, lost=f"{count} workers died of it{told}"))

    def _take(self, item: _Item, reply: Reply) -> None:
        if reply.kind == "unfit":
            self._waiting.appendleft(item)
            self.place.send_away(reply.worker, reply.host, reply.told)
            return
        self.place.was_fit(reply.worker)
        if reply.kind == "spent":
            self._waiting.appendleft(item)
        elif reply.kind == "slow":
            self.place.restart(reply.worker)
            limit = self._time_limit_s or 0.0
            self._ended.append(Done(key=item.key, lost=_too_slow(limit), seconds=limit))
        elif reply.kind == "failed":
            self._ended.append(Done(key=item.key, lost=f"the worker failed: {reply.told}", details=reply.details))
        else:
            self._ended.append(Done(key=item.key, result=pickle.loads(reply.result)))

    def _take_error(self, item: _Item, error: Any) -> None:
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            item.rounds += 1
            if item.rounds < MOST_ROUNDS:
                self._suspects.append(item)
            else:
                self._doomed.append((time.monotonic() + CAUSE_SECONDS, str(error.last_worker.name), item))
            return
        told = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ImportError):
            raise WorkerError(f"the workers cannot run this: {told}; cryopick must be installed there, too") from error
        if self.place.client.status != "running":
            raise WorkerError(f"the scheduler of {self.place.where} is gone ({told}); the same command resumes")
        item.tries += 1
        if item.tries < MOST_TRIES:
            self._waiting.appendleft(item)
        else:
            self._ended.append(Done(key=item.key, lost=f"came back {item.tries} times without a result: {told}"))


def _too_slow(seconds: float) -> str:
    return (
        f"not finished within {seconds:g} s, so its worker process was replaced; is its disk alive? (--time-limit "
        "SECONDS allows more, 0 any time)"
    )
