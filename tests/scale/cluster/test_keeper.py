"""The keeper of the jobs, with a queue that does what a test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Thread

import pytest

from cryopick.errors import WorkerError
from cryopick.scale.cluster.jobs import JobState
from cryopick.scale.cluster.keeper import JobKeeper


class FakeQueue:
    """Jobs are `first` as long as nobody says otherwise."""

    def __init__(self, logs: Path, *, first: JobState) -> None:
        self.logs, self.first = logs, first
        self.said: dict[str, JobState] = {}
        self.names: list[str] = []
        self.cancelled: list[str] = []
        self.refuses = ""
        self.is_silent = False

    def submit(self, name: str) -> str:
        if self.refuses:
            raise WorkerError(self.refuses)
        self.names.append(name)
        self.said[name] = self.first
        return name

    def states(self) -> Mapping[str, JobState] | None:
        return None if self.is_silent else dict(self.said)

    def cancel(self, numbers: Iterable[str]) -> None:
        for number in numbers:
            self.cancelled.append(number)
            self.said[number] = JobState("ended", "cancelled")

    def cancel_all(self) -> None:
        self.cancel(list(self.said))

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"


AT_WORK = JobState("running", host="n1")
Kept = Callable[..., tuple[JobKeeper, FakeQueue]]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """A function that starts a keeper which looks every 10 ms, and its queue."""
    keepers = []

    def start(jobs: int = 2, *, first: JobState = AT_WORK) -> tuple[JobKeeper, FakeQueue]:
        queue = FakeQueue(tmp_path, first=first)
        keeper = JobKeeper(queue, jobs=jobs, has_work=lambda: True, look_seconds=0.01)
        keeper.start()
        keepers.append(keeper)
        return keeper, queue

    yield start
    for keeper in keepers:
        keeper.stop()


def _until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_a_job_that_ended_is_replaced_and_the_log_says_how_it_ended(kept: Kept) -> None:
    keeper, queue = kept(2)
    assert queue.names == ["j0", "j1"]
    _until(lambda: keeper.host_of("j0") == "n1")
    queue.said["j0"] = JobState("ended", "preempted")
    _until(lambda: queue.names == ["j0", "j1", "j2"])
    assert "job j0 (j0) on n1 ended: preempted" in keeper.lines()


def test_a_job_that_the_queue_knows_no_more_has_ended(kept: Kept) -> None:
    _, queue = kept(1)
    del queue.said["j0"]
    _until(lambda: queue.names == ["j0", "j1"])


def test_a_batch_system_that_does_not_answer_loses_no_job(kept: Kept) -> None:
    _, queue = kept(1)
    queue.is_silent = True
    queue.said.clear()
    time.sleep(0.2)
    assert queue.names == ["j0"]


def test_five_jobs_in_a_row_without_a_result_are_an_error_that_shows_the_log(kept: Kept, tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"j{number}.log").write_text("starting\nmodule: command not found\n")
    keeper, queue = kept(1, first=JobState("ended", "failed"))
    _until(lambda: keeper.error is not None)
    assert queue.names == ["j0", "j1", "j2", "j3", "j4"]
    assert str(keeper.error).startswith(
        "5 jobs in a row ended without a result, the last one with failed; its log ends"
    )
    assert "module: command not found" in str(keeper.error)


def test_a_result_between_them_begins_the_count_anew(kept: Kept) -> None:
    keeper, queue = kept(1)
    for number in range(8):
        _until(lambda number=number: len(queue.names) == number + 1)  # type: ignore[misc]
        keeper.gave_result(f"j{number}")
        queue.said[f"j{number}"] = JobState("ended", "timeout")
    _until(lambda: len(queue.names) == 9)
    assert keeper.error is None


def test_no_more_than_three_jobs_for_each_and_ten_are_asked_for(kept: Kept) -> None:
    keeper, queue = kept(1)
    end = time.monotonic() + 20
    while keeper.error is None and time.monotonic() < end:
        for name in list(queue.names):
            keeper.gave_result(name)
            queue.said[name] = JobState("ended", "timeout")
        time.sleep(0.005)
    assert len(queue.names) == 13
    assert str(keeper.error) == "13 jobs were asked for and none is left at work"


def test_a_refused_job_is_the_batch_systems_own_sentence(tmp_path: Path) -> None:
    queue = FakeQueue(tmp_path, first=JobState("pending"))
    queue.refuses = "sbatch: error: invalid partition specified: gpu"
    with pytest.raises(WorkerError, match="invalid partition specified: gpu"):
        JobKeeper(queue, jobs=2, has_work=lambda: True).start()


def test_jobs_that_cannot_reach_the_coordinator_end_the_run_with_what_to_try(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "j0.log").write_text("cryopick: cannot reach tls://10.0.0.1:4242: No route to host\n")
    keeper, _ = kept(1, first=JobState("ended", "exit status 75"))
    _until(lambda: keeper.error is not None)
    assert str(keeper.error).startswith(
        "workers started but cannot reach 10.0.0.1:4242 (job log: No route to host); try"
    )


def test_a_job_that_is_sent_away_is_cancelled_once_and_replaced(kept: Kept) -> None:
    keeper, queue = kept(2)
    keeper.send_away("j0-1")  # the second worker of its job
    keeper.send_away("j0-0")
    _until(lambda: queue.names == ["j0", "j1", "j2"])
    assert queue.cancelled == ["j0"]
    assert not keeper.all_sent_away()
    keeper.send_away("j1")
    assert keeper.all_sent_away()


def test_the_reason_that_most_waiting_jobs_have_is_told(kept: Kept) -> None:
    keeper, queue = kept(3, first=JobState("pending", "Resources"))
    queue.said["j2"] = JobState("pending", "Priority")
    _until(lambda: keeper.pending() == (3, "Resources"))


def test_stopping_cancels_all_and_asks_for_no_more(kept: Kept) -> None:
    keeper, queue = kept(2)
    keeper.stop()
    assert sorted(queue.cancelled) == ["j0", "j1"]
    time.sleep(0.05)
    assert queue.names == ["j0", "j1"]


def test_a_lock_that_an_interrupt_left_taken_does_not_keep_the_run_from_closing(kept: Kept) -> None:
    keeper, _ = kept(1)

    def leave_taken_and_close() -> None:
        keeper._lock.acquire()  # as Ctrl-C between the taking of a lock and its block leaves it
        keeper.failed_logs()
        keeper._lock.release()

    closing = Thread(target=leave_taken_and_close, daemon=True)
    closing.start()
    closing.join(timeout=60)
    assert not closing.is_alive()
