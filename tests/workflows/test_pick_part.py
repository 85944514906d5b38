"""Parts of a run, picked by processes that share nothing but the folder: together they are the run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from discs import DIAMETER_PX, disc_micrograph
from slurm_cluster import SlurmCluster

import cryopick
from cryopick.errors import CryopickError, InputError, NoneDoneError, RunFolderError, SettingsError
from cryopick.io.files.folder_lock import locked_folder, one_at_a_time, shared_folder
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.folder import PREPARE_LOCK, RunFolder
from cryopick.runs.parts import Part, PartSummary, parse_part
from cryopick.runs.settings import make_settings
from cryopick.workflows.pick_part import pick_part

BLOB: dict[str, Any] = {"picker": "blob", "diameter": f"{DIAMETER_PX}px", "workers": 1}
OPTIONS = ["--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1"]
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"

KILLED_AT_A_WRITE = """
import os, signal, sys
from cryopick.runs.folder import RunFolder
left, write = 12, RunFolder.write
def write_until(self, path, *arguments, **options):
    global left
    left -= 1
    if left < 0:
        (self.path.parent / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, path, *arguments, **options)
RunFolder.write = write_until
from cryopick.cli.main import main
main()
"""


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A working folder with ten micrographs in two folders, one of which is no image."""
    for number in range(9):
        name = f"{'ab'[number % 2]}/m{number}.mrc"
        (tmp_path / "micrographs" / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(tmp_path / "micrographs" / name, disc_micrograph(name, seed=number))
    (tmp_path / "micrographs" / "a" / "broken.mrc").write_bytes(b"no image" * 300)
    return tmp_path


def content(run: Path) -> dict[str, str]:
    """Every file of a run, without times, durations, and what was typed."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in ("run.log", "command.txt", ".lock"):
            text = path.read_bytes().decode("utf-8", "backslashreplace")
            text = re.sub(r'"(seconds|started|ended)": [^,\n]*', r'"\1"', text)
            if name == "micrographs.star":
                text = "\n".join(re.sub(r"^((?:\S+ ){4})\S+", r"\1", line) for line in text.splitlines())
            found[name] = text
    return found


def whole_run(session: Path, *options: str) -> dict[str, str]:
    """What one process makes of all, in a folder that is called as that of the parts."""
    place = session / "elsewhere"
    (session / "run1").rename(place) if (session / "run1").exists() else None
    call("pick", "micrographs/", "-o", "run1", *(options or OPTIONS), folder=session)
    found = content(session / "run1")
    shutil.rmtree(session / "run1")
    if place.exists():
        place.rename(session / "run1")
    return found


def call(*arguments: str, folder: Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "cryopick", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def pick(session: Path, **settings: Any) -> Any:
    return cryopick.pick(session / "micrographs", output=session / "run1", **{**BLOB, **settings})


# ------------------------------------------------------------------------------------------------------------- parts


def test_parts_that_write_at_once_are_together_the_run_of_one_process(session: Path) -> None:
    command = [sys.executable, "-m", "cryopick", "pick", "micrographs/", "-o", "run1", *OPTIONS, "--part"]
    parts = [subprocess.Popen([*command, f"{number}/4"], cwd=session, stderr=subprocess.DEVNULL) for number in range(4)]
    assert [part.wait(300) for part in parts] == [0, 0, 0, 0]
    run = session / "run1"
    assert (run / "unfinished.txt").exists()
    assert not (run / "particles.star").exists()
    assert len(list((run / "records").rglob("*.json"))) == 10
    call("pick", "micrographs/", "-o", "run1", *OPTIONS, folder=session)
    assert content(run) == whole_run(session)


def test_every_micrograph_belongs_to_one_part_whatever_their_number() -> None:
    names = [f"m{number}" for number in (3, 1, 2, 0, 10)]
    for count in (1, 2, 3, 7):
        parts = [Part(number, count).of(names) for number in range(count)]
        assert sorted(name for part in parts for name in part) == sorted(names)
    assert Part(1, 2).of(names) == ["m1", "m2"]
    assert parse_part(" 3/16 ") == Part(3, 16)


@pytest.mark.parametrize("text", ["4/4", "0/0", "-1/4", "1", "1/4/2", "a/4", "1/9999999999", "", "1.0/4"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"expected K/N.* such as 0/"):
        parse_part(text)


def test_a_part_tells_what_it_picked_and_picks_nothing_twice(session: Path) -> None:
    first = pick(session, part="1/2")
    assert isinstance(first, PartSummary)
    assert (first.part, first.micrographs, first.skipped, first.failed) == ("1/2", 5, 0, {})
    assert first.particles == 15
    again = pick(session, part="1/2")
    assert (again.skipped, again.particles) == (5, 15)
    other = pick(session, part="0/2")
    assert list(other.failed) == ["a/broken.mrc"]
    summary = pick(session)
    assert (summary.micrographs, summary.particles) == (10, 27)


def test_a_part_without_a_micrograph_is_fine_and_one_that_can_pick_none_is_not(session: Path) -> None:
    assert pick(session, part="11/12").micrographs == 0
    names = sorted(path.relative_to(session / "micrographs").as_posix() for path in session.rglob("*.mrc"))
    with pytest.raises(NoneDoneError, match=r"none of 1 micrographs could be picked.*broken"):
        pick(session, part=f"{names.index('a/broken.mrc')}/10")


def test_parts_and_whole_calls_keep_each_other_out_and_parts_do_not(session: Path) -> None:
    pick(session, part="0/9")
    run = session / "run1"
    with shared_folder(run):
        pick(session, part="1/9")
        with pytest.raises(RunFolderError, match="another cryopick is writing"):
            pick(session)
    with locked_folder(run), pytest.raises(RunFolderError, match="another cryopick is writing"):
        pick(session, part="2/9")


def test_a_part_waits_for_the_one_that_prepares(session: Path) -> None:
    command = [sys.executable, "-m", "cryopick", "pick", "micrographs/", "-o", "run1", *OPTIONS, "--part", "0/2"]
    with one_at_a_time(session / "run1", PREPARE_LOCK):
        part = subprocess.Popen(command, cwd=session, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            part.wait(4)
        assert not (session / "run1" / "config.toml").exists()
    assert part.wait(120) == 0
    assert (session / "run1" / "prepared.toml").exists()


def test_a_part_leaves_temporary_files_of_others_and_a_whole_call_does_not(session: Path) -> None:
    pick(session, part="0/2")
    others = session / "run1" / "records" / ".cryopick-1-abc.json"
    others.write_text("{")
    pick(session, part="1/2")
    assert others.exists()
    pick(session)
    assert not others.exists()
    assert not (session / "run1" / PREPARE_LOCK).exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"part": "0/2", "overwrite": True}, "--overwrite starts a run again"),
        ({"part": "0/2", "add": True, "root": "."}, "give one of them"),
        ({"add": True}, "--add needs --root DIR"),
        ({"root": "."}, "--root needs --add"),
        ({"part": "2/2"}, "there is no such part"),
        ({"part": "0/2", "cluster": "slurm", "jobs": 2}, "--cluster, .* leave one of them out"),
        ({"add": True, "root": ".", "jobs": 2}, "--cluster, .* leave one of them out"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_written(
    session: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        pick(session, **options)
    assert not (session / "run1").exists()


def test_parts_of_other_settings_are_refused_before_any_micrograph_is_finished(session: Path) -> None:
    with shared_folder(session / "run1"):
        pass
    settings = make_settings("blob", diameter="20px", threshold=3.0)
    pick_part([session / "micrographs"], session / "run1", settings, part=Part(11, 12))
    prepared = (session / "run1" / "prepared.toml").read_bytes()
    with pytest.raises(RunFolderError, match=r"other settings \(selection threshold: 3 -> none\)"):
        pick(session, part="0/2")
    assert (session / "run1" / "prepared.toml").read_bytes() == prepared


def test_a_part_does_not_settle_what_a_killed_whole_call_left(session: Path) -> None:
    pick(session)
    RunFolder(session / "run1").set_aside()  # as --overwrite, killed before its first micrograph
    with pytest.raises(RunFolderError, match=r"interrupted while it replaced.*without --part"):
        pick(session, part="0/2")
    assert pick(session).particles == 27


def test_without_locks_only_part_0_prepares(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopick.io.files.folder_lock._lock", lambda *_, **__: False)
    with pytest.raises(RunFolderError, match="start part 0/2 first"):
        pick(session, part="1/2")
    pick(session, part="0/2")
    assert pick(session, part="1/2").micrographs == 5
    write_owner(session / "run1")
    with pytest.raises(RunFolderError, match="another cryopick is writing"):
        pick(session, part="1/2")


def write_owner(run: Path) -> None:
    """As another machine has it that writes to the folder."""
    (run / ".owner").write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))


def test_the_last_line_of_json_says_what_a_part_came_to(session: Path) -> None:
    told = call("pick", "micrographs/", "-o", "run1", *OPTIONS, "--part", "1/2", "--json", folder=session)
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert lines[-1] == {
        **{"event": "part", "part": "1/2", "micrographs": 5, "skipped": 0, "failed": {}, "particles": 15},
        "threshold": 4.2,
    }
    told = call(
        "pick", "micrographs/", "-o", "run1", *OPTIONS, "--part", "0/2", "--fail-on", "any", folder=session, code=1
    )
    assert "1 of 5 micrographs could not be picked" in told


# ------------------------------------------------------------------------------------------------ one after the other


def test_micrographs_added_one_by_one_are_the_run_that_was_given_all(session: Path) -> None:
    options = [*OPTIONS, "--profile", "core"]
    files = sorted((session / "micrographs").rglob("m*.mrc"))
    command = [sys.executable, "-m", "cryopick", "pick", "-o", "run1", *options, "--add", "--root", "micrographs"]
    running = [
        subprocess.Popen([*command, file.relative_to(session).as_posix()], cwd=session, stderr=subprocess.DEVNULL)
        for file in files[:3]
    ]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    settings = {**BLOB, "profile": "core"}
    for file in files[3:]:
        added = cryopick.pick(file, output=session / "run1", add=True, root=session / "micrographs", **settings)
        assert (added.part, added.micrographs, added.particles) == ("", 1, 3)
    call("pick", "micrographs/", "-o", "run1", *options, folder=session)
    found, expected = content(session / "run1"), whole_run(session, *options)
    for name in found:  # the later ones were given by absolute paths, which RELION's tables keep
        found[name] = found[name].replace(f"{session}/micrographs", "micrographs")
        expected[name] = expected[name].replace(f"{session}/micrographs", "micrographs")
    assert found == expected


def test_added_micrographs_are_below_the_root(session: Path) -> None:
    (session / "other").mkdir()
    with pytest.raises(InputError, match=r"is not below --root"):
        pick(session, add=True, root=session / "other")


def test_a_picker_that_measures_needs_a_diameter_or_a_prepared_run_to_add(session: Path) -> None:
    file, root = session / "micrographs" / "a" / "m0.mrc", session / "micrographs"
    for picker, told in (("general", "measures the particle diameter on"), ("deepcryopicker", "learns from")):
        with pytest.raises(SettingsError, match=rf"picker {picker} {told} several.* pick some in .* without --add"):
            cryopick.pick(file, picker, output=session / "run1", add=True, root=root, workers=1)
    pick(session, part="0/5")  # prepared on all
    prepared = (session / "run1" / "prepared.toml").read_bytes()
    assert cryopick.pick(file, output=session / "run1", add=True, root=root, **BLOB).micrographs == 1
    assert (session / "run1" / "prepared.toml").read_bytes() == prepared


def test_in_memory_there_are_no_parts(session: Path) -> None:
    with pytest.raises(SettingsError, match="give the run folder with output="):
        cryopick.pick(disc_micrograph("m").pixels, "blob", diameter="20px", part="0/2")


# --------------------------------------------------------------------------------------------------- the page's scripts


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def script_with(text: str, *, language: str = "bash") -> str:
    (found,) = (block for block in blocks(language) if text in block)
    return made_small(found)


def made_small(script: str) -> str:
    """With a picker that needs no network of its own, for four parts."""
    script = script.replace("--diameter 180A -j 1", "--diameter 180A").replace("--array=0-15", "--array=0-3")
    return script.replace("--diameter 180A", " ".join(OPTIONS)).replace("--mem=4G", "--mem=400M").replace("/16", "/4")


def with_cryopick_on_the_path(folder: Path, *, killed: str = "") -> dict[str, str]:
    """The environment of scripts; `killed` is the number of the part that is killed when it has begun."""
    program = folder / "bin" / "cryopick"
    program.parent.mkdir()
    killing = folder / "killing.py"
    killing.write_text(KILLED_AT_A_WRITE)
    is_killed = f'[ "$SLURM_ARRAY_TASK_ID" = "{killed or "none"}" ]'
    program.write_text(
        f'#!/bin/sh\nif {is_killed}; then exec {sys.executable} {killing} "$@"; fi\n'
        f'exec {sys.executable} -m cryopick "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.mark.slurm
def test_an_array_of_four_with_one_killed_is_finished_by_the_last_call(session: Path, slurm: SlurmCluster) -> None:
    environment = {**with_cryopick_on_the_path(session, killed="2"), **slurm.environment}
    (session / "parts.sh").write_text(script_with("#SBATCH"))
    submit = script_with("--parsable")
    subprocess.run(["bash", "-e", "-c", submit], cwd=session, env=environment, check=True, timeout=60)
    end = time.monotonic() + 240
    while slurm.jobs() and time.monotonic() < end:
        time.sleep(0.5)
    assert not slurm.jobs()
    assert (session / "killed").exists()
    log = (session / "run1" / "run.log").read_text()
    assert log.count("--part") == 4
    assert re.search(r"[1-3] micrographs to pick, [7-9] finished before", log), log
    assert content(session / "run1") == whole_run(session)


def test_the_command_of_the_indexed_job_picks_its_part(session: Path) -> None:
    script = script_with("completionMode: Indexed", language="yaml")
    assert int(re.search(r"completions: (\d+)", *blocks("yaml"))[1]) == 16  # type: ignore[index]
    command = re.search(r"args:\s+- >-\s+(cryopick .*)", script)
    assert command is not None
    environment = with_cryopick_on_the_path(session)
    for number in range(4):
        shell = ["sh", "-c", command[1]]
        subprocess.run(shell, cwd=session, env={**environment, "JOB_COMPLETION_INDEX": str(number)}, check=True)
    call("pick", "micrographs/", "-o", "run1", *OPTIONS, folder=session)
    assert content(session / "run1") == whole_run(session)


@pytest.mark.parametrize("program", ["parallel", "xargs"])
def test_parallel_and_xargs_start_the_parts(session: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (line,) = (line for line in script_with("parallel -j 4").splitlines() if program in line)
    environment = with_cryopick_on_the_path(session)
    subprocess.run(["bash", "-e", "-c", line], cwd=session, env=environment, check=True, timeout=300)
    assert len(list((session / "run1" / "records").rglob("*.json"))) == 10


def test_a_killed_part_is_picked_by_the_next_call_of_any_kind(session: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_A_WRITE, "pick", "micrographs/", "-o", "run1", *OPTIONS, "--part", "0/2"]
    assert subprocess.run(command, cwd=session, capture_output=True, check=False).returncode == -signal.SIGKILL
    again = pick(session, part="0/2")
    assert 0 < again.skipped < 5
    with pytest.raises(CryopickError, match="interrupted, or is still going on"):
        cryopick.read_picks(session / "run1" / "picks")
    assert pick(session).particles == 27
