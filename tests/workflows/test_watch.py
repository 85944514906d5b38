"""`cryopick watch` as a process: killed at any moment, stopped by signals, read by programs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from followed import discs, require_same_run

import cryopick
from cryopick.errors import RunFolderError, SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.rethreshold import rethreshold

BLOB = ["--picker", "blob", "-d", "20px", "-j", "1", "--poll", "0.2s", "--quiet", "0.3s"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> Path:
    for name in ("in", "live", "batch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "live")
    return tmp_path


def fill(folder: Path, numbers: range) -> None:
    for number in numbers:
        write_micrograph(folder / f".m{number}.mrc", discs(20, seed=number))
        (folder / f".m{number}.mrc").rename(folder / f"m{number}.mrc")


def start(places: Path, *words: str, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cryopick", "watch", str(places / "in"), "-o", "run", *BLOB, *words, "--json"]
    return subprocess.Popen(
        command, cwd=places / "live", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def batch(places: Path, monkeypatch) -> Path:
    monkeypatch.chdir(places / "batch")
    cryopick.pick(places / "in", "blob", output="run", diameter="20px", workers=1)
    return places / "batch" / "run"


def read_until(process: subprocess.Popen[str], kind: str, *, count: int = 1) -> list[dict]:
    """The events up to the one that is waited for."""
    events: list[dict] = []
    for line in process.stdout:
        events.append(json.loads(line))
        count -= events[-1]["event"] == kind
        if not count:
            return events
    raise AssertionError(f"no {kind}: {process.stderr.read()}")


@pytest.mark.slow
def test_a_watcher_killed_at_any_moment_and_in_its_end_too_ends_as_a_batch_run(places, monkeypatch):
    rng = random.Random(4)
    for kill in range(4):
        fill(places / "in", range(5 * kill, 5 * kill + 5))
        is_ending = kill >= 2
        process = start(places, *(["--stop-count", "1"] if is_ending else []))
        read_until(process, "end" if is_ending else "micrograph", count=1 if is_ending else 2)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.communicate()
    process = start(places, "--stop-idle", "1s")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    require_same_run(places / "live" / "run", batch(places, monkeypatch))


def test_a_signal_ends_the_session_properly_and_programs_hear_of_everything(places, monkeypatch):
    fill(places / "in", range(4))
    process = start(places, "--summary-every", "0.5s")
    events = read_until(process, "summary")
    run = places / "live" / "run"
    while_followed = json.loads((run / "summary.json").read_text())
    state = json.loads((run / "state.json").read_text())
    report = (run / "report.html").read_text()
    with pytest.raises(RunFolderError, match="another cryopick is writing"):
        rethreshold(run, 5.0)
    scores = evaluate(run, run / "picks", diameter="20px")
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    events += [json.loads(line) for line in rest.splitlines()]
    assert while_followed["provisional"] is True
    assert (state["state"], state["pid"]) == ("following", process.pid)
    assert 'http-equiv="refresh" content="60"' in report
    assert "provisional" in report
    assert scores.main.counts.recall == 1
    assert [event["event"] for event in (events[0], events[-1])] == ["start", "run"]
    done = [event for event in events if event["event"] == "micrograph"]
    assert sorted(event["name"] for event in done) == [f"m{number}.mrc" for number in range(4)]
    for event in done:
        assert (event["provisional"], event["revision"], event["count"]) == (True, 0, 4)
        assert Path(event["picks_file"]).is_absolute()
        assert Path(event["picks_file"]).is_file()
    assert next(event for event in events if event["event"] == "end")["reason"] == "told to end (SIGTERM)"
    require_same_run(run, batch(places, monkeypatch))


def test_a_second_signal_ends_at_once_and_the_same_command_goes_on(places, monkeypatch):
    fill(places / "in", range(3))
    (places / "in" / "growing.mrc").write_bytes(b"")
    process = start(places, "--grace", "1h", "--quiet", "1h", preexec_fn=lambda: signal.signal(2, signal.SIG_DFL))
    read_until(process, "seen", count=4)
    process.send_signal(signal.SIGINT)
    read_until(process, "end")
    time.sleep(1.2)  # what comes sooner belongs to the first
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes" in errors
    assert "Traceback" not in errors
    assert json.loads((places / "live" / "run" / "state.json").read_text())["state"] == "ending"
    (places / "in" / "growing.mrc").unlink()
    assert start(places).communicate(timeout=120)
    require_same_run(places / "live" / "run", batch(places, monkeypatch))


def test_nothing_that_comes_is_exit_code_3_and_nothing_found_is_none(places):
    process = start(places, "--stop-idle", "0.5s")
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "no whole micrograph came" in errors
    assert json.loads(rest.splitlines()[-1])["kind"] == "nothing"
    write_micrograph(places / "in" / "empty.mrc", discs(0, seed=1))
    process = start(places, "--stop-idle", "0.5s")
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(rest.splitlines()[-1])["particles"] == 0


def test_a_second_watcher_on_a_run_is_refused(places):
    fill(places / "in", range(1))
    process = start(places)
    try:
        read_until(process, "micrograph")
        with pytest.raises(RunFolderError, match="another cryopick is writing"):
            list(cryopick.watch(places / "in", "blob", output="run", diameter="20px"))
    finally:
        process.kill()
        process.communicate()


def test_from_python_events_come_one_by_one_and_stop_ends_the_session(places, monkeypatch):
    fill(places / "in", range(3))
    session = cryopick.watch(places / "in", "blob", output="run", diameter="20px", poll=0.2, quiet="0.2s", workers=1)
    heard = []
    for event in session:
        heard.append(event.kind)
        if event.kind == "micrograph":
            session.stop()
    assert heard[0] == "start"
    assert heard[-1] == "run"
    assert session.summary.micrographs == 3
    require_same_run(places / "live" / "run", batch(places, monkeypatch))
    for _ in cryopick.watch(places / "in", "blob", output="other", diameter="20px", poll=0.2, quiet=0.2, workers=1):
        break  # leaves the session where it is
    assert json.loads((places / "batch" / "other" / "state.json").read_text())["state"] == "following"
    with pytest.raises(SettingsError, match="poll 'soon'"):
        cryopick.watch("x", "blob", output="run", poll="soon")
