"""Dask's workers on this machine: what every executor promises, who is let in, who is sent away, what is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_contract import ExecutorContract, Opened, results
from foreign_scheduler import foreign_scheduler
from strangers import answer_over_http, strangers_let_in
from toy_workers import ENTRY

pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

from cryopick.errors import SettingsError, WorkerError
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.executor import DaskExecutor
from cryopick.scale.cluster.place import Place, open_place
from cryopick.scale.cluster.security import begin_secrets
from cryopick.scale.executor import Done

SOON_SECONDS = 60.0


class Watched:
    """An open place, and what it said."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.lines, self.statuses = folder, [], []  # type: ignore[var-annotated]
        options.setdefault("jobs", 2)
        self.place: Place = open_place(
            "local", folder=folder, on_line=self.lines.append, on_status=self.statuses.append, **options
        )

    def executor(self, state: Any = 0, **options: Any) -> DaskExecutor:
        return DaskExecutor(self.place, ENTRY, state, **options)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two workers that several tests use; starting them takes longer than most tests."""
    watched = Watched(tmp_path_factory.mktemp("run") / ".cluster")
    yield watched
    watched.place.close()


@pytest.fixture
def own_place(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    opened: list[Watched] = []

    def start(**options: Any) -> Watched:
        opened.append(Watched(tmp_path / "run" / ".cluster", **options))
        return opened[-1]

    yield start
    for watched in opened:
        watched.place.close()


class TestDaskExecutor(ExecutorContract):
    @pytest.fixture
    def opened(self, shared_place: Watched) -> Iterator[Opened]:
        executors: list[DaskExecutor] = []

        def start(state: Any, *, workers: int = 2) -> DaskExecutor:
            executors.append(shared_place.executor(state))
            return executors[-1]

        yield start
        for executor in executors:
            executor.close()

    def test_closing_is_quick_ends_everything_and_may_be_done_twice(self) -> None:
        """See `test_closing_the_place_ends_its_workers_and_removes_its_certificates`: a place outlives executors."""

    def test_a_lost_worker_is_told_of_with_host_job_item_and_cause(self, opened: Opened, shared_place: Watched) -> None:
        # after a moment: a worker that dies before anybody has looked who is there has no name, only an address
        done = results(opened(0), {"deadly one": ("die", 0.5)})
        assert done["deadly one"].lost.startswith("4 workers died of it (signal 9")
        lost = [line for line in shared_place.lines if "while at deadly one" in line]
        assert len(lost) == 4, "no more workers are spent on it"
        assert all(re.fullmatch(r"worker j\d+ was lost \(host .+, job \d+\) while .* signal 9", one) for one in lost)

    def test_an_item_over_the_time_limit_is_lost_and_its_process_replaced(self, shared_place: Watched) -> None:
        executor = shared_place.executor(time_limit_s=1.0)
        done = results(executor, {"slow": ("sleep", 30.0), "a": ("add", 1), "b": ("add", 2)})
        assert done["slow"].lost.startswith("not finished within 1 s")
        assert (done["a"].result, done["b"].result) == (1, 2)

    def test_strangers_are_refused_and_nothing_is_served_over_http(self, shared_place: Watched) -> None:
        address = shared_place.place.client.scheduler.address
        assert address.startswith("tls://")
        assert strangers_let_in(address) == []
        for path in ("/json/identity.json", "/status", "/info/main/workers.html", "/metrics", "/health"):
            for port in _listening_ports():
                assert answer_over_http(port, path) != 200, (port, path)


def _listening_ports() -> list[int]:
    """Of this process."""
    own = {os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if _is_link(one)}
    ports = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if parts[3] == "0A" and f"socket:[{parts[9]}]" in own:
            ports.append(int(parts[1].partition(":")[2], 16))
    assert ports, "the scheduler listens somewhere"
    return ports


def _is_link(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


def test_closing_the_place_ends_its_workers_and_removes_its_certificates(own_place: Callable[..., Watched]) -> None:
    watched = own_place(jobs=1)
    executor = watched.executor(is_owner=True)
    executor.submit("pid", ("process", None))
    done = executor.next(None)
    assert done is not None
    assert sorted(path.name for path in watched.folder.iterdir()) == ["certificate.pem", "key.pem", "logs", "token"]
    watched.place.look_after(at_once=True)
    executor.submit("slow", ("sleep", 600.0))
    time.sleep(0.5)
    start = time.monotonic()
    executor.close()
    executor.close()
    assert time.monotonic() - start < 30
    assert executor.next(None) is None
    _until(lambda: not Path(f"/proc/{done.result}").exists())
    assert not watched.folder.exists(), "all went well, so not even a log is left"
    assert watched.statuses[0] == "0 of 1 worker"
    assert watched.statuses[-1] == "1 of 1 worker"


def test_a_killed_job_is_replaced_and_its_item_done_by_another(own_place: Callable[..., Watched]) -> None:
    watched = own_place(jobs=1, look_seconds=0.5)
    executor = watched.executor()
    executor.submit("first", ("add", 1))
    assert executor.next(SOON_SECONDS) == Done(key="first", result=1)
    executor.submit("second", ("sleep", 3.0))
    assert executor.next(1.0) is None
    job = watched.place.keeper.job_of("j0")  # type: ignore[union-attr]
    os.killpg(int(job.number), signal.SIGKILL)  # type: ignore[union-attr]
    assert executor.next(SOON_SECONDS) == Done(key="second", result=3.0)
    assert any(line.startswith("job ") and line.endswith("ended: signal 9") for line in watched.lines)
    watched.place.close()
    assert (watched.folder / "logs" / "j0.log").is_file(), "the log of what went wrong is kept"


def test_workers_that_do_not_see_the_folder_are_sent_away_and_the_run_says_so(
    own_place: Callable[..., Watched],
) -> None:
    watched = own_place(jobs=1, look_seconds=0.5)
    watched.place.secrets.token_file.unlink()
    executor = watched.executor()
    executor.submit("one", ("add", 1))
    with pytest.raises(WorkerError, match=r"every worker was sent away: host .*: does not see the run's folder"):
        executor.next(SOON_SECONDS)
    assert any("does not see the run's folder" in line for line in watched.lines)


def test_a_first_worker_is_waited_for_as_long_as_was_said(own_place: Callable[..., Watched]) -> None:
    executor = own_place(jobs=1, wait_seconds=0.0).executor()
    executor.submit("one", ("add", 1))
    with pytest.raises(WorkerError, match="no worker could work within 0 s: 0 of 1 worker"):
        executor.next(SOON_SECONDS)


def test_a_job_whose_scheduler_is_gone_ends_at_once() -> None:
    import socket

    from cryopick.scale.cluster.job import why_unreachable

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert why_unreachable(f"tls://127.0.0.1:{port}", seconds=0.5) == "Connection refused"


@pytest.mark.parametrize(
    ("where", "jobs", "told"),
    [
        ("slurm", None, "say how many jobs"),
        ("slurm", 0, "--jobs 0: expected 1 or more"),
        ("tcp://127.0.0.1:1", 4, "leave --jobs out"),
        ("tcp://node7:8786", None, "tcp:// is not encrypted"),
    ],
)
def test_what_can_never_work_is_refused_before_anything_is_begun(
    tmp_path: Path, where: str, jobs: int | None, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        open_place(where, folder=tmp_path / ".cluster", jobs=jobs, settings=ClusterSettings())
    assert list(tmp_path.iterdir()) == []


def _until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_SECONDS
    while not is_true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_a_scheduler_that_somebody_else_runs_does_the_work_and_outlives_the_run(tmp_path: Path) -> None:
    with foreign_scheduler(tmp_path / "theirs") as theirs:
        settings = ClusterSettings(**theirs.settings())
        for turn in range(2):
            place = open_place(theirs.address, folder=tmp_path / "run" / ".cluster", settings=settings)
            executor = DaskExecutor(place, ENTRY, 10 * turn, is_owner=True)
            items = {f"k{i}": ("add", i) for i in range(6)} | {"bad": ("fail", "no such lattice")}
            done = results(executor, items)
            assert [done[f"k{i}"].result for i in range(6)] == [10 * turn + i for i in range(6)]
            assert "no such lattice" in done["bad"].lost
            executor.close()
            assert not (tmp_path / "run" / ".cluster").exists()
        other = begin_secrets(tmp_path / "other", settings, with_certificate=True)
        stranger = ClusterSettings(ca=str(other.certificate), cert=str(other.certificate), key=str(other.key))
        with pytest.raises(WorkerError, match="no scheduler answers there, or not to our certificate"):
            open_place(theirs.address, folder=tmp_path / "run" / ".cluster", settings=stranger, connect_seconds=3.0)
        assert not (tmp_path / "run" / ".cluster").exists()


def test_dask_is_left_as_it_was_found(tmp_path: Path) -> None:
    """Also where it is imported by opening a cluster: its defaults are not taken away with our settings."""
    code = (
        "from cryopick.scale.cluster.engine import dask_rules\n"
        "with dask_rules(is_encrypted=True):\n    pass\n"
        "import dask\n"
        "print(dask.config.get('distributed.comm.tls.ciphers'), dask.config.get('distributed.scheduler.work-stealing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["None", "True"]
