"""Worker processes that die, hang or stand in a folder full of traps cost at most a micrograph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph
from lame_picker import HangingPicker, NoStartPicker

from cryopick.errors import SettingsError, WorkerError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.scale import processes as processes_module
from cryopick.scale.processes import _cores_of_control_groups, heed_quota, import_path, python_environment
from cryopick.workflows.pick import pick


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(4):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return tmp_path / "in"


def lives(folder: Path, text: str) -> str:
    (folder / "lives.txt").write_text(text)
    return str(folder / "lives.txt")


def failures(run: Path) -> dict[str, str]:
    return dict(json.loads((run / "summary.json").read_text())["failed"])


# ------------------------------------------------------------------------------------------------- dying and hanging


def test_a_worker_that_is_killed_at_its_start_is_started_again(micrographs: Path, tmp_path: Path) -> None:
    (tmp_path / "lives").mkdir()
    picker = NoStartPicker(lives=lives(tmp_path / "lives", "2"), parent=os.getpid())
    summary = pick(micrographs, picker, output=tmp_path / "run", workers=2)
    assert (summary.micrographs, summary.particles, summary.failed) == (4, 4, {})
    assert len(list((tmp_path / "lives").iterdir())) == 3  # two did die


def test_where_no_worker_starts_one_sentence_says_why_and_what_is_finished_has_its_tables(
    micrographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "lives").mkdir()
    picker = NoStartPicker(lives=lives(tmp_path / "lives", "0"), parent=os.getpid())
    pick(micrographs / "m0.mrc", picker, output=tmp_path / "run", workers=1)
    Path(picker.lives).write_text("-1")  # from now on all die
    for path in (tmp_path / "run").glob("*.star"):
        path.unlink()
    with pytest.raises(WorkerError, match=r"no worker process can be started \(signal 9 .*no room for the weights\)"):
        pick(micrographs, picker, output=tmp_path / "run", workers=2)
    assert "m0_picks.star" in (tmp_path / "run" / "autopick.star").read_text()
    assert len(list((tmp_path / "lives").iterdir())) <= 1 + 2 * 3  # a bounded number of starts


def test_a_hung_worker_fails_its_micrograph_by_name_and_holds_no_run(micrographs: Path, tmp_path: Path) -> None:
    (micrographs / "m1.mrc").rename(micrographs / "m1_hanging.mrc")
    run = tmp_path / "run"
    summary = pick(micrographs, HangingPicker(), output=run, workers=1, time_limit_seconds=8)
    assert summary.particles == 3
    assert list(failures(run)) == ["m1_hanging.mrc"]
    assert "not finished within 8 s" in failures(run)["m1_hanging.mrc"]
    assert "time" not in (run / "config.toml").read_text()


def test_the_time_limit_is_no_setting_of_the_run(micrographs: Path, tmp_path: Path) -> None:
    pick(micrographs, "blob", diameter=f"{DIAMETER_PX}px", output=tmp_path / "run", workers=1)
    again = pick(
        *(micrographs, "blob"), diameter=f"{DIAMETER_PX}px", output=tmp_path / "run", workers=1, time_limit_seconds=0
    )
    assert again.micrographs == 4
    with pytest.raises(SettingsError, match="time limit"):
        pick(micrographs, "blob", diameter="20px", output=tmp_path / "run", time_limit_seconds=-1)


# --------------------------------------------------------------------------------------------------- what is imported

TRAP = "open('sprung', 'w').write(__name__); raise SystemExit('a trap')\n"
TRAPS = ("pickle", "queue", "struct", "numpy", "cv2", "csv", "sitecustomize", "transformers")
SCRIPT = """
from pathlib import Path
import cryopick
{picker}
run = cryopick.pick({folder!r}, {given}, output='run', workers=2)
print(run.particles, run.failed)
"""


def set_traps(folder: Path) -> None:
    for name in TRAPS:
        (folder / f"{name}.py").write_text(TRAP)


def test_nothing_of_the_working_folder_runs_in_workers(micrographs: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    set_traps(tmp_path / "project")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(picker="", folder=str(micrographs), given=f"'blob', diameter='{DIAMETER_PX}px'"))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "project", capture_output=True, text=True, check=False
    )
    assert done.stdout == "12 {}\n", done.stderr
    assert not (tmp_path / "project" / "sprung").exists()


@pytest.mark.parametrize("how", ["script", "module", "command"])
def test_a_picker_of_the_user_is_found_by_workers(micrographs: Path, tmp_path: Path, how: str) -> None:
    source = (Path(__file__).parents[1] / "support" / "lame_picker.py").read_text()
    (tmp_path / "my_picker.py").write_text(source)
    code = SCRIPT.format(picker="from my_picker import HangingPicker", folder=str(micrographs), given="HangingPicker()")
    (tmp_path / "my_script.py").write_text(code)
    words = {"script": ["my_script.py"], "module": ["-m", "my_script"], "command": ["-c", code]}[how]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "4 {}\n", done.stderr


def test_the_working_folder_comes_last_unless_it_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep)  # an empty entry, as `PYTHONPATH=/x:$PYTHONPATH` leaves it
    found = import_path()
    assert found.last == (str(tmp_path),)
    assert str(tmp_path) not in found.first
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path[1:]])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert import_path().first[0] == str(tmp_path)


def test_a_working_folder_that_holds_libraries_stays_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    site_packages = Path(np.__file__).parents[1]
    monkeypatch.chdir(site_packages)
    assert str(site_packages) in [os.path.realpath(entry) for entry in import_path().first]


# ------------------------------------------------------------------------------------------------------------- cores


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/slurm/job1", {"cpu.max": "max 100000\n", "slurm/cpu.max": "400000 100000\n"}, 4.0),
        ("0::/of/the/host/only", {"cpu.max": "200000 100000\n"}, 2.0),
        ("4:cpu,cpuacct:/docker/1\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {}, None),
    ],
)  # fmt: skip
def test_a_container_that_may_use_few_cores_has_few(
    tmp_path: Path, membership: str, files: dict[str, str], cores: float | None
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cores_of_control_groups(tmp_path / "membership", tmp_path / "mounted") == cores


@pytest.mark.parametrize(
    ("quota", "given", "here", "beside"),
    [
        (None, {}, None, "1"),  # no quota: libraries count cores themselves
        (8.0, {}, None, "1"),
        (2.5, {}, "3", "1"),
        (2.5, {"OMP_NUM_THREADS": "2"}, "2", "2"),
    ],
)
def test_thread_pools_heed_the_quota_of_a_container_and_the_user_before_it(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, given: dict[str, str], here: str | None, beside: str
) -> None:
    monkeypatch.setattr(processes_module, "_quota_of_this_process", lambda: quota)
    monkeypatch.setattr(processes_module, "_cores_in_sight", lambda: 8)
    monkeypatch.setattr(processes_module, "_of_quota", {})
    environment = dict(given)
    heed_quota(environment)
    assert environment.get("OMP_NUM_THREADS") == here
    monkeypatch.setattr(os, "environ", environment)
    assert python_environment(threads=1)["OMP_NUM_THREADS"] == beside
