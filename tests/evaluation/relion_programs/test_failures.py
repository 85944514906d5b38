"""How failures of RELION's programs show, and what is told: one small program for each that was seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_relion import write_program

from cryopick.evaluation.relion_programs import (
    ABORT,
    FAILURE,
    SUCCESS,
    ProgramFailedError,
    Stage,
    run_stage,
)
from cryopick.evaluation.relion_programs.running import require_space

# As RELION 3.1.3 and Open MPI 4.1 were seen to say it, on the stream where they say it.
SEEN = {
    "columns": "ERROR: \nA line in the STAR file contains more columns than the number of labels.",
    "reference": "ERROR: \nERROR  The reference pixel size is 8.84615 A/px, but the pixel size of the first optics "
    "group of the data is 8.75 A/px! ",
    "gone": "ERROR: \nCannot read file Extract/micrographs/m9.mrcs It does not exist",
    "no table": "ERROR: \nMetaDataTable::read: File nothere.star does not exist",
    "root": "mpirun has detected an attempt to run as root.\n\nRunning as root is *strongly* discouraged\n"
    "You can override this protection by adding the --allow-run-as-root option",
    "slots": "There are not enough slots available in the system to satisfy the 9\nslots that were requested",
    "killed": "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).",
    "ended": "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 15 (Terminated).",
    "disk": "ERROR: \nWriting failed: No space left on device",
    "memory": "terminate called after throwing an instance of 'std::bad_alloc'",
    "library": "relion_refine: error while loading shared libraries: libfftw3.so.3: cannot open shared object file",
}


def run(project: Path, body: str, **how: object) -> None:
    program = write_program(project, "program", body)
    run_stage(Stage(name="a/refine", words=[program], folder="Refine", **how), project)  # type: ignore[arg-type]


def failure(project: Path, body: str, **how: object) -> ProgramFailedError:
    with pytest.raises(ProgramFailedError) as caught:
        run(project, body, **how)
    assert "\n" not in str(caught.value)
    assert "a/refine" in str(caught.value)
    return caught.value


def fails_with(key: str, status: int = 1) -> str:
    return f"sys.stderr.write('=== Backtrace  ===\\nprogram(main+0x47) [0x1]\\n' + {SEEN[key]!r})\nsys.exit({status})"


@pytest.mark.parametrize(
    ("key", "status", "kind", "told"),
    [
        ("columns", 1, "tables", "drop rlnAngle"),
        ("reference", 1, "reference", "--rescale_angpix"),
        ("gone", 1, "path", "without job012/"),
        ("no table", 1, "path", "nothere.star"),
        ("root", 1, "environment", "--allow-run-as-root"),
        ("slots", 1, "environment", "--oversubscribe"),
        ("killed", 137, "memory", "x 3 ranks"),
        ("ended", 143, "stopped", "the same command goes on"),
        ("disk", 1, "disk", "--scratch"),
        ("memory", 1, "memory", "fewer ranks"),
        ("library", 127, "environment", "load the modules"),
    ],
)
def test_each_failure_that_was_seen_is_told_in_one_sentence_with_what_to_do(
    tmp_path: Path, key: str, status: int, kind: str, told: str
) -> None:
    error = failure(tmp_path, fails_with(key, status), ranks=3)
    assert error.kind == kind
    assert told in str(error)


def test_an_end_without_the_expected_file_is_a_failure_although_the_status_is_0(tmp_path: Path) -> None:
    error = failure(tmp_path, "sys.exit(0)", expected=["Refine/run_half1_class001_unfil.mrc"])
    assert "wrote no Refine/run_half1_class001_unfil.mrc: see programs/a/refine.err" in str(error)
    assert "wrote no" in str(failure(tmp_path, "open('Refine/x.mrc', 'w')", expected=["Refine/x.mrc"])), "it is empty"
    run(tmp_path, "open('Refine/x.mrc', 'w').write('1')", expected=["Refine/x.mrc"])


def test_markers_of_an_earlier_call_are_gone_before_the_program_starts(tmp_path: Path) -> None:
    (tmp_path / "Refine").mkdir()
    for marker in (SUCCESS, FAILURE, ABORT):
        (tmp_path / "Refine" / marker).touch()
    run(
        tmp_path,
        f"assert not any(n.startswith('RELION_JOB') for n in os.listdir('Refine'))\nopen('Refine/{SUCCESS}', 'w')",
    )
    assert os.listdir(tmp_path / "Refine") == [SUCCESS]


def test_the_failure_marker_counts_although_the_status_is_0(tmp_path: Path) -> None:
    error = failure(tmp_path, f"open('Refine/{FAILURE}', 'w'); print('ERROR: too few'); sys.exit(0)")
    assert "its failure marker: too few" in str(error)


def test_a_status_without_known_words_is_told_with_the_programs_own_last_ones(tmp_path: Path) -> None:
    assert "exit status 7: ran out of luck" in str(failure(tmp_path, "print('ran out of luck'); sys.exit(7)"))
    assert "exit status 2: it said nothing" in str(failure(tmp_path, "sys.exit(2)"))
    assert "SIGSEGV" in str(failure(tmp_path, "os.kill(os.getpid(), 11)"))
    error = failure(tmp_path, "os.kill(os.getpid(), 9)")
    assert error.kind == "memory"
    assert "MB x 1 rank)" in str(error)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailedError, match="No such file"):
        run_stage(Stage(name="x", words=["/nowhere/relion_refine"], folder="x"), tmp_path)


def test_a_time_limit_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    body = "import subprocess\nsubprocess.Popen(['sleep', '600'], process_group=0)\n"
    body += "open('Refine/started', 'w').write('x')\ntime.sleep(600)"
    error = failure(tmp_path, body, time_limit_s=2.0)
    assert error.kind == "time"
    assert not _running("sleep", tmp_path)


def test_a_program_whose_output_and_files_stand_still_is_hung_and_one_that_writes_is_not(tmp_path: Path) -> None:
    error = failure(tmp_path, "print('begun', flush=True)\ntime.sleep(600)", hang_s=1.5)
    assert error.kind == "hung"
    run(tmp_path, "for i in range(10):\n    open('Refine/it', 'a').write('x'); time.sleep(0.3)", hang_s=1.5)


def test_a_starter_that_is_killed_leaves_no_program_behind(tmp_path: Path) -> None:
    write_program(tmp_path, "program", "import subprocess\nopen('up', 'w').write(str(os.getpid()))\n"
                  "subprocess.Popen(['sleep', '600'], process_group=0)\ntime.sleep(600)")  # fmt: skip
    script = (
        "from pathlib import Path\n"
        "from cryopick.evaluation.relion_programs import Stage, run_stage\n"
        f"run_stage(Stage(name='s', words=[{str(tmp_path / 'program')!r}], folder='f'), Path({str(tmp_path)!r}))"
    )
    starter = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "up").exists() or not (tmp_path / "up").read_text():
        assert starter.poll() is None
        time.sleep(0.05)
    number = int((tmp_path / "up").read_text())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    end = time.monotonic() + 20
    while (Path("/proc") / str(number)).exists() or _running("sleep", tmp_path):
        assert time.monotonic() < end, "it goes on although nobody waits for it"
        time.sleep(0.1)


def test_logs_hold_the_command_both_outputs_and_what_it_took(tmp_path: Path) -> None:
    run(tmp_path, "print('said'); print('warned', file=sys.stderr)")
    logs = tmp_path / "programs" / "a"
    assert (logs / "refine.cmd").read_text() == f"{tmp_path}/program\n"
    assert ((logs / "refine.out").read_text(), (logs / "refine.err").read_text()) == ("said\n", "warned\n")
    record = json.loads((logs / "refine.json").read_text())
    assert record["exit_code"] == 0
    assert record["failure"] == ""
    assert record["cpu_seconds"] > 0
    assert record["peak_memory_bytes"] > 1e6
    assert record["started"] <= record["ended"]
    failure(tmp_path, "sys.exit(3)")
    assert "exit status 3" in json.loads((logs / "refine.json").read_text())["failure"]


def test_space_is_asked_for_before_and_not_when_it_is_full(tmp_path: Path) -> None:
    require_space(tmp_path, 1000)
    with pytest.raises(ProgramFailedError, match=r"needed, three times the particles.*--scratch") as caught:
        require_space(tmp_path, 10**18)
    assert caught.value.kind == "disk"


def _running(name: str, folder: Path) -> list[str]:
    """Processes of a name that were started in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and (process / "comm").read_text().strip() == name:
                found.append(process.name)
        except OSError:
            continue
    return found
