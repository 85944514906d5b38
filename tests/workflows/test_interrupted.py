"""A run that is killed without warning and started again ends as one that nobody disturbed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.io.images import write_micrograph

COUNT = 200
KILLS = 10
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
                data = json.dumps(json.loads(data) | {"seconds": 0}).encode()
            found[name] = b"" if name in TIMED else data
    return found


def finished(run: Path) -> int:
    return sum(1 for _ in (run / "records").rglob("*.json"))


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_with_exactly_the_files_of_an_undisturbed_one(tmp_path: Path) -> None:
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
        wanted = finished(run) + generator.randrange(0, 2 * COUNT // KILLS)
        deadline = time.monotonic() + 4 * whole_s
        while process.poll() is None and finished(run) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05) if kill else generator.uniform(0, whole_s / 10))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        progress.append(finished(run))
    assert sum(0 < count < COUNT for count in progress) >= 3, f"the kills hit no half-done run: {progress}"
    assert progress == sorted(progress), "a finished micrograph was lost"

    finish(tmp_path / "killed")
    undisturbed, killed = files(tmp_path / "undisturbed" / "run"), files(run)
    assert list(killed) == list(undisturbed)
    assert [name for name in killed if killed[name] != undisturbed[name]] == []


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
