"""A run that is killed without warning and started again ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import CryopickError, RunFolderError
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import PickSettings, make_settings
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

COUNT = 100
KILLS = 5
COMMAND = [
    sys.executable,
    "-m",
    "cryopick.cli.main",
    "pick",
    "../in",
    "-o",
    "run",
    "--picker",
    "blob",
    "-d",
    f"{DIAMETER_PX}px",
    "-j",
    "2",
]
TIMED = ("run.log", "micrographs.star")


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path) -> None:
    process = start(folder)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors.decode()


def files(run: Path) -> dict[str, bytes]:
    """Every file of a run; without durations, and the names alone of files that hold times of day."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file():
            name, data = path.relative_to(run).as_posix(), path.read_bytes()
            if name.startswith("records/") or name == "summary.json":
                data = json.dumps(json.loads(data) | {"seconds": 0, "started": "", "ended": ""}).encode()
            found[name] = b"" if name in TIMED else data
    return found


def finished(run: Path) -> int:
    return sum(1 for _ in (run / "records").rglob("*.json"))


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_exactly_the_files_of_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for seed in range(COUNT):
        folder = "deep/" if seed % 3 == 0 else ""
        write_micrograph(tmp_path / "in" / f"{folder}m{seed:03d}.mrc", disc_micrograph("m", seed=seed))
    begin = time.perf_counter()
    finish(tmp_path / "undisturbed")
    whole_s = time.perf_counter() - begin

    generator = random.Random(7)
    run = tmp_path / "killed" / "run"
    progress = []
    for kill in range(KILLS):
        process = start(tmp_path / "killed")
        # late enough that some kills fall into every phase: start, picking, final tables
        wanted = finished(run) + generator.randrange(0, COUNT // KILLS)
        deadline = time.monotonic() + 4 * whole_s
        while process.poll() is None and finished(run) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05) if kill else generator.uniform(0, whole_s / 10))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        progress.append(finished(run))
    assert sum(0 < count < COUNT for count in progress) >= 2, f"the kills hit no half-done run: {progress}"
    assert progress == sorted(progress), "a finished micrograph was lost"

    finish(tmp_path / "killed")
    undisturbed, killed = files(tmp_path / "undisturbed" / "run"), files(run)
    assert list(killed) == list(undisturbed)
    assert [name for name in killed if killed[name] != undisturbed[name]] == []


KILLED_AT_A_WRITE = """
import os, signal, sys
from contextlib import contextmanager
from cryopick.runs.folder import RunFolder
left, write, write_piecewise = int(sys.argv.pop(1)), RunFolder.write, RunFolder.writing_piecewise
def count():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def write_until(self, path, *arguments, **options):
    count()
    return write(self, path, *arguments, **options)
@contextmanager
def write_piecewise_until(self, path):
    with write_piecewise(self, path) as take:
        yield take
        count()
RunFolder.write, RunFolder.writing_piecewise = write_until, write_piecewise_until
from cryopick.cli.main import main
main()
"""


def killed_at_write(number: int, *arguments: str, folder: Path) -> bool:
    """Run a command that is killed when it is about to write its file `number`; False if it writes fewer."""
    command = [sys.executable, "-c", KILLED_AT_A_WRITE, str(number), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == -signal.SIGKILL


def small_project(folder: Path, *, count: int = 4) -> tuple[Path, PickSettings]:
    """A folder with micrographs, and settings to pick them."""
    (folder / "in").mkdir()
    for seed in range(count):
        write_micrograph(folder / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return folder / "in", make_settings("blob", diameter=f"{DIAMETER_PX}px")


def require_refused_or_whole(run: Path, allowed: list[int]) -> None:
    """A reader of a run that was killed gives the picks of before or after, or an error, and nothing between."""
    for place in (run, run / "particles.star", run / "picks"):
        try:
            count = sum(map(len, read_picks(place).values()))
        except CryopickError as error:
            assert "interrupted" in str(error)  # noqa: PT017
        else:
            assert count in allowed
    if (run / "unfinished.txt").exists():
        with pytest.raises(RunFolderError, match="interrupted"):
            evaluate(run, run / "picks" / "m0_picks.star")


@pytest.mark.parametrize("number", [0, 1, 2, 4, 5, 8, 9])
def test_a_killed_rethreshold_never_leaves_a_mixture_that_is_read(tmp_path: Path, number: int) -> None:
    inputs, settings = small_project(tmp_path)
    run = tmp_path / "run"
    before = pick_to_folder([inputs], run, settings, workers=1).particles
    shutil.copytree(run, tmp_path / "undisturbed")
    after = rethreshold(tmp_path / "undisturbed", 0.2).particles
    assert after > before
    assert killed_at_write(number, "rethreshold", "run", "--threshold", "0.2", folder=tmp_path)
    require_refused_or_whole(run, [before, after])
    if number % 2:
        assert rethreshold(run, 0.2).particles == after
    else:
        summary = pick_to_folder([inputs], run, settings, workers=1)
        assert summary.particles == (after if summary.threshold_source == "rethreshold" else before)
    assert not (run / "unfinished.txt").exists()
    assert sum(map(len, read_picks(run).values())) in (before, after)


@pytest.mark.parametrize("number", [2, 4, 6, 12, 14, 16])
def test_a_killed_pick_that_adds_micrographs_never_leaves_a_mixture_that_is_read(tmp_path: Path, number: int) -> None:
    inputs, settings = small_project(tmp_path)
    run = tmp_path / "run"
    before = pick_to_folder([inputs], run, settings, workers=1).particles
    for seed in (8, 9):
        write_micrograph(inputs / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    command = ["pick", "in", "-o", "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1"]
    assert killed_at_write(number, *command, folder=tmp_path)
    require_refused_or_whole(run, [before])
    assert pick_to_folder([inputs], run, settings, workers=1).particles == before + 6
    assert sum(map(len, read_picks(run).values())) == before + 6


@pytest.mark.parametrize(
    ("way", "workers"),
    [("removed", 1), ("renamed", 1), ("replaced", 1), ("emptied", 1), ("removed", 2), ("replaced", 2)],
)
def test_a_run_folder_that_vanishes_ends_the_run_with_an_error_and_does_not_come_back(
    tmp_path: Path, way: str, workers: int
) -> None:
    inputs, settings = small_project(tmp_path, count=6)
    run = tmp_path / "run"

    def vanish(event: PickEvent) -> None:
        if event.position != 2:
            return
        if way == "removed":
            shutil.rmtree(run)
        elif way == "emptied":
            shutil.rmtree(run / "records")
        else:
            run.rename(tmp_path / "old")
        if way == "replaced":
            shutil.copytree(tmp_path / "old", run)

    words = "were removed from" if way == "emptied" else "removed, renamed or replaced"
    with pytest.raises(RunFolderError, match=words):
        pick_to_folder([inputs], run, settings, workers=workers, on_event=vanish)
    if way in ("removed", "renamed"):
        assert not run.exists()
    if way == "renamed":
        (tmp_path / "old").rename(run)
    assert pick_to_folder([inputs], run, settings, workers=1).particles == 18


@pytest.mark.parametrize("workers", [1, 2])
def test_inputs_that_are_replaced_during_the_run_never_keep_the_picks_of_the_old_image(
    tmp_path: Path, workers: int
) -> None:
    inputs, settings = small_project(tmp_path, count=8)

    def replace_the_rest(event: PickEvent) -> None:
        if event.position == 1:
            for seed in range(1, 8):
                write_micrograph(inputs / f"m{seed}.mrc", disc_micrograph("m", seed=seed + 50))
                os.utime(inputs / f"m{seed}.mrc", ns=(seed, seed))

    pick_to_folder([inputs], tmp_path / "run", settings, workers=workers, on_event=replace_the_rest)
    pick_to_folder([inputs], tmp_path / "run", settings, workers=1)
    pick_to_folder([inputs], tmp_path / "fresh", settings, workers=1)
    for seed in range(8):
        ours, fresh = (tmp_path / name / "candidates" / f"m{seed}.csv" for name in ("run", "fresh"))
        assert ours.read_bytes() == fresh.read_bytes(), seed


def test_workers_of_a_killed_parent_leave(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(60):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed, shape_yx=(400, 500)))
    process = start(tmp_path / "killed")
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and process.poll() is None and time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        threads = Path(f"/proc/{process.pid}/task").glob("*/children") if children.exists() else []
        workers = [int(word) for path in threads for word in path.read_text().split()]
        time.sleep(0.01)
    if not workers:
        pytest.skip("this system does not list the children of a process")
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(_is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_alive(worker) for worker in workers)


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
