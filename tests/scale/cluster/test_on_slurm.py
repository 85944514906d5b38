"""A real Slurm of two nodes: jobs are asked for, cancelled, killed and refused, and every item has one outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_contract import results
from slurm_cluster import SlurmCluster
from toy_workers import ENTRY

pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

from cryopick.errors import WorkerError
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.executor import DaskExecutor
from cryopick.scale.cluster.place import Place, open_place
from cryopick.scale.executor import run_all

pytestmark = pytest.mark.slurm

SMALL = ClusterSettings(queue="main", job_cores=1, job_memory="400M", job_time="0:20:00", interface="lo")
"""Jobs of the tests: the nodes are this machine, which speaks to itself."""


@pytest.fixture
def opened(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Place, list[str]]]]:
    """A function that opens a place on Slurm, and the lines that it says."""
    slurm.use(monkeypatch)
    places: list[Place] = []

    def start(settings: ClusterSettings = SMALL, *, jobs: int = 2, **options: Any) -> tuple[Place, list[str]]:
        lines: list[str] = []
        folder = tmp_path / "run 1" / ".cluster"
        options.setdefault("look_seconds", 1.0)
        places.append(open_place("slurm", folder=folder, jobs=jobs, settings=settings, on_line=lines.append, **options))
        return places[-1], lines

    yield start
    for place in places:
        place.close()


def test_cancelled_jobs_and_a_deadly_item_cost_no_other_item(
    slurm: SlurmCluster, opened: Callable[..., tuple[Place, list[str]]]
) -> None:
    place, lines = opened()
    executor = DaskExecutor(place, ENTRY, 0, is_owner=True)
    items = {f"k{i}": ("sleep", 0.3) for i in range(24)} | {"deadly": ("die", None)}
    outcomes: dict[str, str] = {}
    for done in run_all(executor, items.items()):
        assert done.key not in outcomes, "each once"
        outcomes[done.key] = done.lost
        if len(outcomes) in (4, 12):
            slurm.run("scancel", slurm.jobs()[0])
    assert set(outcomes) == set(items)
    assert [key for key, lost in outcomes.items() if lost] == ["deadly"]
    assert outcomes["deadly"].startswith("4 workers died of it (signal 9")
    assert any("ended: cancelled" in line for line in lines)
    assert any(line.startswith("worker j") and "was lost (host n" in line for line in lines)
    executor.close()
    slurm.wait_until_no_job_is_left()


def test_jobs_that_end_by_themselves_are_an_error_with_the_end_of_their_log(
    slurm: SlurmCluster, opened: Callable[..., tuple[Place, list[str]]]
) -> None:
    from dataclasses import replace

    place, _ = opened(replace(SMALL, job_setup=("echo no module of that name; exit 3",)), look_seconds=0.3)
    executor = DaskExecutor(place, ENTRY, 0)
    with pytest.raises(WorkerError, match=r"5 jobs in a row .* with failed; its log ends: no module of that name"):
        results(executor, {"one": ("add", 1)})
    assert slurm.jobs() == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"queue": "gpu"}, r"invalid partition specified: gpu \(exit status 1 of: sbatch --parsable\)"),
        ({"job_options": ("--no-such-option",)}, r"unrecognized option '--no-such-option'"),
    ],
)
def test_what_slurm_refuses_is_an_error_in_its_own_words(
    opened: Callable[..., tuple[Place, list[str]]], changed: dict[str, Any], told: str
) -> None:
    from dataclasses import replace

    with pytest.raises(WorkerError, match=told):
        opened(replace(SMALL, **changed))


def test_a_machine_without_slurm_is_an_error_that_says_so(
    opened: Callable[..., tuple[Place, list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="sbatch: not found on the PATH; is this a machine of a Slurm cluster"):
        opened()
    assert not (tmp_path / "run 1" / ".cluster").exists(), "no certificate is left"


def test_jobs_that_wait_are_told_with_their_reason_and_waiting_may_be_limited(
    slurm: SlurmCluster, opened: Callable[..., tuple[Place, list[str]]]
) -> None:
    from dataclasses import replace

    statuses: list[str] = []
    # begins tomorrow: what waits for a free node looks the same
    later = replace(SMALL, job_options=("--begin=now+1day",))
    place, _ = opened(later, on_status=statuses.append, wait_seconds=4.0, look_seconds=0.5)
    executor = DaskExecutor(place, ENTRY, 0, is_owner=True)
    with pytest.raises(WorkerError, match=r"within 4 s: 0 of 2 workers; 2 jobs pending \(BeginTime\)"):
        results(executor, {"one": ("add", 1)})
    executor.close()
    assert statuses[-1] == "0 of 2 workers; 2 jobs pending (BeginTime)"
    slurm.wait_until_no_job_is_left()
