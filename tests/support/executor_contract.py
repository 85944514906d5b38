"""What every executor promises. A test module takes the class in and gives it a fixture `opened`:

class TestProcesses(ExecutorContract):
    @pytest.fixture
    def opened(self): ...  # a function of (state, workers) that gives an executor of ToyWorker, closed afterwards
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cryopick.scale.executor import Done, Executor, run_all

Opened = Callable[..., Executor]


def results(executor: Executor, items: dict[str, Any]) -> dict[str, Done]:
    """What came of each item, after a check that each came once."""
    done = list(run_all(executor, items.items()))
    assert Counter(one.key for one in done) == Counter(items.keys())
    return {one.key: one for one in done}


class ExecutorContract:
    """Tests of an executor that knows `toy_workers`."""

    survives_death: ClassVar[bool] = True
    """Whether a worker may die of an item without ending whoever gave it."""
    keeps_timeouts: ClassVar[bool] = True

    def test_each_item_gives_one_result_under_its_key(self, opened: Opened) -> None:
        done = results(opened(100, workers=2), {f"k{i}": ("add", i) for i in range(25)})
        assert {key: one.result for key, one in done.items()} == {f"k{i}": 100 + i for i in range(25)}
        assert {one.lost for one in done.values()} == {""}

    def test_a_full_executor_says_so_and_has_room_again_when_a_result_is_taken(self, opened: Opened) -> None:
        executor, submitted = opened(0, workers=2), 0
        while executor.free() > 0:
            executor.submit(f"k{submitted}", ("sleep", 0.01))
            submitted += 1
            assert submitted < 100, "it holds nobody back"
        assert submitted >= 2
        assert executor.next(60) is not None
        assert executor.free() >= 1

    def test_nothing_is_waited_for_where_nothing_was_submitted(self, opened: Opened) -> None:
        executor = opened(0, workers=2)
        assert executor.next(None) is None
        executor.submit("one", ("add", 1))
        assert executor.next(None) == Done(key="one", result=1)
        assert executor.next(None) is None

    def test_a_key_may_come_again_when_its_result_was_taken(self, opened: Opened) -> None:
        executor = opened(0, workers=1)
        for value in (1, 2):
            executor.submit("same", ("add", value))
            assert executor.next(None) == Done(key="same", result=value)

    def test_waiting_ends_in_time(self, opened: Opened) -> None:
        if not self.keeps_timeouts:
            pytest.skip("it works in the thread that waits")
        executor = opened(0, workers=1)
        executor.submit("warm", ("add", 1))
        assert executor.next(None) is not None
        executor.submit("slow", ("sleep", 2.0))
        start = time.monotonic()
        assert executor.next(0.2) is None
        assert time.monotonic() - start < 1.5
        assert executor.next(None) == Done(key="slow", result=2.0)

    def test_a_source_that_pauses_is_asked_again(self, opened: Opened) -> None:
        given = iter([("a", ("add", 1)), None, None, ("b", ("add", 2)), None])
        assert sorted(one.key for one in run_all(opened(0, workers=2), given, poll_s=0.01)) == ["a", "b"]

    def test_a_source_may_depend_on_what_was_given_before(self, opened: Opened) -> None:
        executor, heard = opened(0, workers=2), []

        def doubling() -> Iterator[tuple[str, Any] | None]:
            yield "1", ("add", 1)
            for turn in range(1, 5):
                while len(heard) < turn:
                    yield None
                yield f"{2**turn}", ("add", heard[-1] * 2)

        for done in run_all(executor, doubling()):
            heard.append(done.result)
        assert heard == [1, 2, 4, 8, 16]

    def test_an_item_whose_work_fails_is_lost_with_the_reason_and_costs_no_other(self, opened: Opened) -> None:
        items = {f"k{i}": ("add", i) for i in range(6)}
        done = results(opened(0, workers=2), {**items, "bad": ("fail", "no such lattice"), "last": ("add", 7)})
        assert done["bad"].result is None
        assert "no such lattice" in done["bad"].lost
        assert [key for key, one in done.items() if one.lost] == ["bad"]

    def test_a_deadly_item_is_lost_with_the_reason_and_costs_no_other(self, opened: Opened) -> None:
        if not self.survives_death:
            pytest.skip("it would end this process")
        items = {f"k{i}": ("add", i) for i in range(8)}
        done = results(opened(0, workers=2), {**items, "deadly": ("die", None), "last": ("add", 9)})
        assert [key for key, one in done.items() if one.lost] == ["deadly"]
        assert "signal 9" in done["deadly"].lost
        assert done["last"].result == 9

    def test_an_item_whose_worker_dies_by_chance_is_tried_again(self, opened: Opened, tmp_path: Path) -> None:
        if not self.survives_death:
            pytest.skip("it would end this process")
        items = {f"k{i}": ("add", i) for i in range(4)}
        done = results(opened(0, workers=2), {**items, "unlucky": ("die_once", str(tmp_path / "died"))})
        assert done["unlucky"] == Done(key="unlucky", result="lived")

    def test_closing_is_quick_ends_everything_and_may_be_done_twice(self, opened: Opened) -> None:
        executor = opened(0, workers=2)
        executor.submit("pid", ("process", None))
        done = executor.next(None)
        assert done is not None
        if self.keeps_timeouts:
            executor.submit("slow", ("sleep", 600.0))
        executor.submit("never", ("sleep", 600.0))
        start = time.monotonic()
        executor.close()
        executor.close()
        assert time.monotonic() - start < 30
        assert executor.next(None) is None
        if self.survives_death:
            deadline = time.monotonic() + 10
            while _is_running(done.result) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not _is_running(done.result)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
