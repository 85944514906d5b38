"""A run on a cluster ends as one on this machine, file for file, whatever is killed meanwhile; and what is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph
from run_files import files_of
from slurm_cluster import SlurmCluster

pytest.importorskip("distributed")
pytest.importorskip("dask_jobqueue")

from cryopick import extras
from cryopick.errors import MissingExtraError, SettingsError, WorkerError
from cryopick.inference.computing import Computing
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.on_cluster import ClusterPickWorker, ClusterRequest, cluster_request
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import PickPlan, make_settings
from cryopick.workflows.pick import pick_to_folder

COUNT = 24
CONFIG = '[cluster]\nqueue = "main"\njob_cores = 1\njob_memory = "900M"\njob_time = "0:20:00"\ninterface = "lo"\n'
BLOB = make_settings("blob", diameter=f"{DIAMETER_PX}px")


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    for seed in range(COUNT):
        write_micrograph(folder / f"m{seed}.mrc", disc_micrograph("m", seed=seed, shape_yx=(512, 640)))
    return folder


@pytest.fixture(scope="module")
def here(micrographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the same run, picked on this machine."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pick_to_folder([micrographs], "run", BLOB, workers=1)
    return files_of(folder / "run")


@pytest.fixture
def used_slurm(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The Slurm that this test's commands find; they run in its folder."""
    slurm.use(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return slurm


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(CONFIG)
    return path


def test_a_run_on_this_machine_s_own_cluster_has_the_same_files_and_leaves_nothing_behind(
    micrographs: Path, here: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[PickEvent] = []
    summary = pick_to_folder([micrographs], "run", BLOB, cluster="local", jobs=2, wait="10m", on_event=events.append)
    assert summary.micrographs == COUNT
    assert files_of(tmp_path / "run") == here
    assert not (tmp_path / "run" / ".cluster").exists()
    told = [event.doing for event in events if event.status == "workers"]
    assert told[0] == "0 of 2 workers"
    assert told[-1] in ("1 of 2 workers", "2 of 2 workers")


@pytest.mark.slurm
def test_a_run_on_slurm_of_which_a_worker_is_killed_has_the_same_files(
    used_slurm: SlurmCluster, micrographs: Path, here: dict[str, bytes], config: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_a_worker(event: PickEvent) -> None:
        if event.status == "done" and event.position == 2:
            killed.extend(_worker_processes()[:1])
            os.kill(killed[0], signal.SIGKILL)

    pick_to_folder([micrographs], "run", BLOB, cluster="slurm", jobs=2, cluster_config=config, on_event=kill_a_worker)
    assert killed
    assert files_of(tmp_path / "run") == here
    # its address, where it was killed before it had said its name
    lost = re.search(r"was lost \(host (n\d|127\.0\.0\.1).*signal 9", (tmp_path / "run" / "run.log").read_text())
    assert lost is not None
    assert list((tmp_path / "run" / ".cluster").iterdir()) == [tmp_path / "run" / ".cluster" / "logs"], "no key is left"
    used_slurm.wait_until_no_job_is_left()


@pytest.mark.slurm
def test_a_run_on_slurm_whose_command_is_ended_and_killed_leaves_no_job_and_goes_on(
    used_slurm: SlurmCluster, micrographs: Path, here: dict[str, bytes], config: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cryopick.cli.main", "pick", str(micrographs), "-o", "run", "--picker", "blob"]
    command += ["-d", f"{DIAMETER_PX}px", "--cluster", "slurm", "--jobs", "2", "--cluster-config", str(config)]
    told: list[list[str]] = []
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        before = _records(tmp_path / "run")
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _until(lambda before=before: _records(tmp_path / "run") > before, seconds=120)
        process.send_signal(signal_number)
        told.append(process.communicate()[1].strip().splitlines())
        used_slurm.wait_until_no_job_is_left()
        is_key_left = (tmp_path / "run" / ".cluster" / "key.pem").exists()
        assert is_key_left == (signal_number == signal.SIGKILL), "nobody removes it then; the next call does"
    assert told[0][-1] == "cryopick: told to end (SIGTERM); what was finished is kept, and the same command resumes"
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert files_of(tmp_path / "run") == here
    assert not (tmp_path / "run" / ".cluster" / "key.pem").exists()


def _records(run: Path) -> int:
    return len(list(run.rglob("records/*.json")))


def _worker_processes() -> list[int]:
    """Processes in which the jobs of this session pick: children of nannies, which `dask worker` calls those."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = Path("/proc") / (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
            is_child = b"cryopick.scale.cluster.job" in (parent / "cmdline").read_bytes()
            is_of_slurm = os.environ["SLURM_CONF"].encode() in (path / "environ").read_bytes()
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if is_child and is_of_slurm and b"spawn_main" in words:
            found.append(int(path.name))
    return sorted(found)


def _until(is_true: Any, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


# ---------------------------------------------------------------------------------------------- what needs no cluster


def test_a_finished_run_asks_for_no_job(micrographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a cluster is opened")

    monkeypatch.setattr("cryopick.scale.cluster.place.open_place", refuse)
    with pytest.raises(AssertionError, match="a cluster is opened"):
        pick_to_folder([micrographs / "m0.mrc"], tmp_path / "run", BLOB, cluster="local", jobs=1)
    pick_to_folder([micrographs / "m0.mrc"], tmp_path / "run", BLOB, workers=1)
    again = pick_to_folder([micrographs / "m0.mrc"], tmp_path / "run", BLOB, cluster="local", jobs=1)
    assert again.micrographs == 1


def test_options_of_a_cluster_without_one_are_an_error(micrographs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--jobs, --wait: belongs to --cluster, which is not given"):
        cluster_request(None, jobs=4, wait="10m")
    done = cryopick("pick", micrographs, "-o", tmp_path / "run", "--picker", "blob", "-d", "20px", "--jobs", "4")
    assert done.returncode != 0
    assert "--jobs: belongs to --cluster" in done.stderr
    assert not (tmp_path / "run").exists()


def test_processes_of_this_machine_and_a_cluster_are_an_error(micrographs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="workers 2: processes of this machine, while cluster local picks; --jobs"):
        pick_to_folder([micrographs], tmp_path / "run", BLOB, cluster="local", jobs=2, workers=2)


def test_a_missing_extra_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda module: module != "dask_jobqueue")
    with pytest.raises(MissingExtraError, match=r"--cluster slurm needs .*dask-jobqueue.*not found: dask_jobqueue"):
        ClusterRequest(where="slurm", jobs=2)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="--wait 'soon': expected a time such as 2s, 30m"):
        cluster_request("local", wait="soon")
    assert cluster_request("local", wait="1h30m").wait_seconds == 5400  # type: ignore[union-attr]


def test_a_worker_that_cannot_compute_as_the_run_does_says_what_would_let_it() -> None:
    plan = PickPlan(settings=make_settings("cryosegnet"), computing=Computing(device="mps", precision="bfloat16"))
    with pytest.raises(WorkerError, match=r"--device cpu --precision float32 lets it join$"):
        ClusterPickWorker(plan)
