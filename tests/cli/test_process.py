"""However the command was started and stopped: one sentence, a conventional exit code, nothing left running or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.io.images.micrographs import write_micrograph

CRYOPICK = [sys.executable, "-P", "-m", "cryopick.cli.main"]
BLOB = ["--picker", "blob", "-d", f"{DIAMETER_PX}px"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_micrograph(tmp_path / "in" / "m000.mrc", disc_micrograph("m", seed=0))
    return tmp_path


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Programs started by the test take signals, even where the tests were started by `nohup` or with `&`."""
    ignored = [one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_IGN]
    for one in ignored:
        signal.signal(one, signal.SIG_DFL)
    yield
    for one in ignored:
        signal.signal(one, signal.SIG_IGN)


def many(folder: Path, count: int = 300) -> None:
    for number in range(1, count):
        os.link(folder / "in" / "m000.mrc", folder / "in" / f"m{number:03d}.mrc")


def shell(folder: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `cryopick` is the command under test."""
    words = " ".join(CRYOPICK)
    return subprocess.run(
        ["bash", "-c", f'cryopick() {{ {words} "$@"; }}\n{line}'],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def descendants(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == pid:
            yield int(path.parent.name)
            yield from descendants(int(path.parent.name))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ----------------------------------------------------------------------------------------------------------- signals


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find what is left running")
@pytest.mark.parametrize(
    ("number", "workers", "word"),
    [
        (signal.SIGINT, 1, "interrupted"),
        (signal.SIGINT, 2, "interrupted"),
        (signal.SIGTERM, 1, "SIGTERM"),
        (signal.SIGTERM, 2, "SIGTERM"),
        (signal.SIGHUP, 1, "SIGHUP"),
    ],
)
def test_a_stopped_run_says_so_in_one_sentence_and_leaves_nothing_behind(
    folder: Path, number: int, workers: int, word: str
) -> None:
    many(folder)
    process = subprocess.Popen(
        [*CRYOPICK, "pick", "in", "-o", "run", *BLOB, "-j", str(workers), "--json"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and sum(1 for _ in folder.glob("run/records/*.json")) < 5:
        time.sleep(0.01)
    children = list(descendants(process.pid))
    os.killpg(process.pid, number)  # as a terminal and a batch system do: all processes at once
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert len(said.splitlines()) == 1, said
    assert word in said
    assert "the same command resumes" in said
    assert not any(map(is_running, children))
    assert list(folder.rglob(".cryopick-*")) == []
    for record in folder.glob("run/records/*.json"):
        assert json.loads(record.read_text())["error"] == ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find what is left running")
@pytest.mark.parametrize("options", [["-j", "3"], ["-j", "1", "--time-limit", "60"]])
def test_a_run_that_is_stopped_while_its_workers_start_says_so_too(folder: Path, options: list[str]) -> None:
    many(folder, 20)
    process = subprocess.Popen(
        [*CRYOPICK, "pick", "in", "-o", "run", *BLOB, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children: list[int] = []
    while process.poll() is None and not children:
        time.sleep(0.01)
        children = list(descendants(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    *waits, last = said.splitlines()
    assert last == "cryopick: interrupted; what was finished is kept, and the same command resumes"
    assert all(line.startswith(("reading", "loading", "measuring")) for line in waits), said
    assert not any(map(is_running, children))


def test_a_signal_that_nohup_ignores_stays_ignored(folder: Path) -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from cryopick.cli.process import prepared_process\n"
        "with prepared_process(): os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "goes on\n"


def test_a_measured_program_ends_with_whoever_measures_it(tmp_path: Path) -> None:
    code = (
        "from cryopick.cli.process import prepared_process\n"
        "from cryopick.evaluation.usage import run_measured\n"
        "with prepared_process(): run_measured(['sh', '-c', 'echo $$ > pid; exec sleep 600'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "pid").is_file():
        time.sleep(0.01)
    time.sleep(0.2)
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not is_running(pid)


# ----------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize(
    ("closed", "workers"), [("2>&-", 1), (">&-", 1), ("<&-", 1), ("<&- >&- 2>&-", 2), ("2>/dev/full", 1)]
)
def test_a_run_does_not_need_its_streams(folder: Path, closed: str, workers: int) -> None:
    done = shell(folder, f"cryopick pick in -o run {' '.join(BLOB)} -j {workers} {closed}")
    assert done.returncode == 0
    assert json.loads((folder / "run" / "summary.json").read_text())["particles"] == 3
    for path in (folder / "run").iterdir():  # no file became a standard stream and got what was printed
        if path.suffix in (".log", ".star"):
            assert "of 1 micrographs" not in path.read_text()


def test_a_run_whose_listener_goes_away_goes_on_and_says_so(folder: Path) -> None:
    many(folder, 60)
    line = f"cryopick pick in -o run {' '.join(BLOB)} -j 2 --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = shell(folder, line)
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == "warning: nobody reads stdout any more; the run goes on without it\n"
    assert json.loads((folder / "run" / "summary.json").read_text())["micrographs"] == 60


@pytest.mark.parametrize(
    ("command", "is_run"),
    [("pickers", False), ("--help", False), (f"pick in -o run {' '.join(BLOB)} --json", True)],
)
def test_a_full_stdout_is_one_sentence(folder: Path, command: str, is_run: bool) -> None:
    done = shell(folder, f"cryopick {command} > /dev/full")
    assert done.returncode == 6
    assert done.stderr.splitlines()[-1] == "cryopick: stdout: cannot be written: the disk is full"
    assert "Traceback" not in done.stderr
    assert (folder / "run" / "report.html").exists() == is_run


def test_a_pipe_that_is_closed_ends_a_listing_quietly(folder: Path) -> None:
    done = shell(folder, "(sleep 3; cryopick pickers; echo $? >&2) | true")
    assert done.stderr == "141\n"


# ------------------------------------------------------------------------------------------- environments of all kinds


def test_file_names_that_the_locale_cannot_express_are_picked(folder: Path) -> None:
    (folder / "in" / "m000.mrc").rename(folder / "in" / "ö.mrc")
    os.link(folder / "in" / "ö.mrc", os.fsencode(folder / "in") + b"/\xff.mrc")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for run, options in (("one", "-j 1"), ("two", "-j 2"), ("three", "-j 1 --json")):
        done = shell(folder, f"cryopick pick in -o {run} {' '.join(BLOB)} {options}", **ascii_only)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        table = (folder / run / "autopick.star").read_bytes()
        assert "in/ö.mrc".encode() in table
        assert b"in/\xff.mrc" in table
    again = shell(folder, f"cryopick pick in -o one {' '.join(BLOB)}", **ascii_only)
    assert again.stdout.startswith("6 particles in 2 micrographs")
    assert shell(folder, "cryopick inspect in/*.mrc one", **ascii_only).returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {
            **{"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"},
            **{"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMI_RANK": "3", "PMI_SIZE": "4"},
            **{"CONDA_PREFIX": "/nowhere", "PYTHONPATH": "/nowhere::/dev/null", "MPLBACKEND": "TkAgg"},
        },
        {
            **{"PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "ascii:strict"},
            **{"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "20", "LINES": "3", "LC_ALL": "C"},
        },
    ],
)
def test_variables_of_other_programs_change_nothing(folder: Path, environment: dict[str, str]) -> None:
    done = shell(folder, f"cryopick pick in -o run {' '.join(BLOB)} -j 2", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 particles in 1 micrograph, ")
    assert done.stderr == "loading the picker, then picking\n1 of 1 micrographs\nwriting tables and report\n"
