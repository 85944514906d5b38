"""The executors of one machine keep what every executor promises, and what only they do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from executor_contract import ExecutorContract, Opened, results
from toy_workers import ENTRY, ToyWorker

from cryopick.errors import SettingsError, WorkerError
from cryopick.scale.executor import Done, Executor, entry_of, run_all, worker_class
from cryopick.scale.in_process import InProcess
from cryopick.scale.places import open_executor
from cryopick.scale.process_pool import IN_FLIGHT, WINDOW, Processes


class TestInProcess(ExecutorContract):
    survives_death: ClassVar[bool] = False
    keeps_timeouts: ClassVar[bool] = False

    @pytest.fixture
    def opened(self) -> Iterator[Opened]:
        yield from _opened(lambda state, workers: InProcess(ENTRY, state))


class TestProcesses(ExecutorContract):
    @pytest.fixture
    def opened(self) -> Iterator[Opened]:
        yield from _opened(lambda state, **options: Processes(ENTRY, state, **options))

    def test_a_hung_item_is_lost_in_time_and_what_was_read_ahead_is_not(self, opened: Opened) -> None:
        items = {"a": ("add", 1), "hung": ("hang", None), "b": ("add", 2), "c": ("add", 3)}
        done = results(opened(0, workers=1, time_limit_s=3.0), items)
        assert done["hung"].lost.startswith("not finished within 3 s, so its worker process was killed")
        assert done["hung"].seconds == 3.0
        assert [done[key].result for key in "abc"] == [1, 2, 3]

    def test_waiting_for_work_does_not_count_as_being_hung(self, opened: Opened) -> None:
        executor = opened(0, workers=1, time_limit_s=2.0)
        for value in (1, 2):
            executor.submit("key", ("add", value))
            assert executor.next(None) == Done(key="key", result=value)
            assert executor.next(None) is None
            _pause(3.0 if value == 1 else 0.0)

    def test_a_worker_that_waits_does_the_next_item_too(self, opened: Opened) -> None:
        executor, processes = opened(0, workers=4), set()
        for number in range(5):
            executor.submit(f"{number}", ("process", None))
            done = executor.next(None)
            assert done is not None
            processes.add(done.result)
        assert len(processes) == 1  # a second would cost its start and its memory for nothing

    def test_a_worker_that_died_while_it_waited_is_replaced_and_nothing_is_blamed(self, opened: Opened) -> None:
        executor = opened(0, workers=1)
        executor.submit("first", ("process", None))
        first = executor.next(None)
        assert first is not None
        os.kill(first.result, signal.SIGKILL)
        _pause(0.5)
        executor.submit("second", ("process", None))
        second = executor.next(None)
        assert second is not None
        assert second.lost == ""
        assert second.result != first.result

    def test_workers_get_their_environments_in_turn(self, opened: Opened) -> None:
        environments = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
        executor = opened(0, workers=4, environments=environments)
        done = results(executor, {f"k{i}": ("variable", "CUDA_VISIBLE_DEVICES") for i in range(12)})
        assert {one.result for one in done.values()} == {"0", "1"}

    def test_the_window_is_one_more_than_workers_hold(self, opened: Opened) -> None:
        assert opened(0, workers=3).free() == 3 * WINDOW == 3 * (IN_FLIGHT + 1)

    def test_a_worker_that_cannot_be_made_is_an_error_that_says_why_and_stays(self) -> None:
        executor = Processes("toy_workers:NoSuchWorker", 0, workers=1)
        try:
            executor.submit("a", ("add", 1))
            for _ in range(2):
                with pytest.raises(WorkerError, match="toy_workers has no NoSuchWorker"):
                    executor.next(None)
        finally:
            executor.close()


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _opened(make: Any) -> Iterator[Opened]:
    executors: list[Executor] = []

    def opened(state: Any, **options: Any) -> Executor:
        executors.append(make(state, **options))
        return executors[-1]

    yield opened
    for executor in executors:
        executor.close()


def test_the_same_key_twice_is_an_error_at_once() -> None:
    for executor in (InProcess(ENTRY, 0), Processes(ENTRY, 0, workers=1)):
        executor.submit("a", ("add", 1))
        with pytest.raises(ValueError, match="twice"):
            executor.submit("a", ("add", 1))
        executor.close()


def test_whoever_waits_on_an_executor_that_is_closed_hears_of_it() -> None:
    executor = Processes(ENTRY, 0, workers=1)
    given = run_all(executor, ((f"{number}", ("add", number)) for number in range(9)))
    assert next(given).result == 0
    executor.close()
    with pytest.raises(WorkerError, match=r"1 worker process gave no result of \d items and has ended"):
        next(given)


def test_a_lock_that_an_interrupt_left_taken_does_not_keep_the_executor_from_closing() -> None:
    def leave_taken_and_close() -> None:
        executor = Processes(ENTRY, 0, workers=1)
        executor.submit("one", ("add", 1))
        executor._changed.acquire()  # as Ctrl-C between the taking of a lock and its block leaves it
        executor.close()

    closing = Thread(target=leave_taken_and_close, daemon=True)
    closing.start()
    closing.join(timeout=60)
    assert not closing.is_alive()


def test_entries_are_names_that_lead_back() -> None:
    assert entry_of(ToyWorker) == ENTRY
    assert worker_class(ENTRY) is ToyWorker
    with pytest.raises(ImportError, match=r"expected 'package\.module:Name'"):
        worker_class("toy_workers")


def test_one_worker_stays_in_this_process_unless_another_is_needed(tmp_path: Path) -> None:
    assert isinstance(open_executor(entry=ENTRY, state=0), InProcess)
    assert isinstance(open_executor(entry=ENTRY, state=0, time_limit_s=5), Processes)
    assert isinstance(open_executor(entry=ENTRY, state=0, environments=[{"A": "1"}]), Processes)
    with pytest.raises(SettingsError, match="mars: expected slurm, local, or a scheduler's"):
        open_executor("mars", entry=ENTRY, state=0)
