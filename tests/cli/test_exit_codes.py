"""How a command ends: one exit code per kind, and with `--json` an object that says what went wrong, always last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph

from cryopick import errors
from cryopick.cli import main as main_module
from cryopick.cli.exit_codes import ENDINGS, STOPPED, ending_of, table_text
from cryopick.errors import CryopickError
from cryopick.io.images.micrographs import write_micrograph

BLOB = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1")


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(2):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return tmp_path / "in"


def last_event(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    event = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(event, dict)
    return event


def test_no_two_kinds_share_a_code_and_every_error_has_one() -> None:
    codes = [one.code for one in ENDINGS]
    kinds = [one.kind for one in ENDINGS if one.kind != STOPPED]
    assert len(set(codes)) == len(codes)
    assert len(set(kinds)) == len(kinds)
    known = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, CryopickError)]
    assert len(known) > 10
    for error in known:
        ending = ending_of(error("text"))
        assert 0 < ending.code < 128
        assert ending.kind != "fault"
    assert ending_of(ZeroDivisionError()).kind == "fault"


@pytest.mark.parametrize(
    ("words", "ended", "told"),
    [
        (("pick", "nowhere", "-o", "run"), ("input", 5), "nowhere: no such file or folder"),
        (("pick", "in", "-o", "run", "-d", "20 parsec"), ("settings", 4), "parsec"),
        (("pick", "in", "-o", ""), ("settings", 4), "--output is empty"),
        (("pick", "in", "-o", "in/m0.mrc", *BLOB), ("output", 6), "in/m0.mrc"),
        (("pick", "in", "-o", "run", "--weights", "nowhere"), ("installation", 7), "nowhere"),
        (("pick", "in"), ("usage", 2), "--output"),
        (("pick", "in", "-o", "run", "--no-such-option"), ("usage", 2), "--no-such-option"),
        (("no-such-command",), ("usage", 2), "no-such-command"),
        (("inspect", "nowhere"), ("failed", 1), "stderr says what"),
    ],
)
def test_an_error_is_a_json_event_too_whenever_it_comes(
    micrographs: Path, tmp_path: Path, words: tuple[str, ...], ended: tuple[str, int], told: str
) -> None:
    kind, code = ended
    done = cryopick(*words, "--json", cwd=tmp_path)
    event = last_event(done)
    assert (done.returncode, event["event"], event["kind"], event["exit_code"]) == (code, "error", kind, code)
    assert told in str(event["message"])
    assert done.stderr
    plain = cryopick(*words, cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (code, "")


def test_behind_two_dashes_json_is_the_name_of_a_file(tmp_path: Path) -> None:
    done = cryopick("inspect", "--", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_fault_of_our_own_keeps_its_traceback_and_has_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(main_module, "build_app", fail)
    done = cryopick("pickers", "--json", cwd=tmp_path)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert last_event(done)["kind"] == "fault"
    assert "KeyError" in str(last_event(done)["message"])


@pytest.mark.parametrize(("fail_on", "code"), [("all", 0), ("any", 1)])
def test_fail_on_says_which_failures_end_in_an_error_with_json_too(
    micrographs: Path, tmp_path: Path, fail_on: str, code: int
) -> None:
    (micrographs / "cut.mrc").write_bytes(b"no image")
    done = cryopick("pick", "in", "-o", "run", *BLOB, "--json", "--fail-on", fail_on, cwd=tmp_path)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == code
    assert sum(event["event"] == "run" for event in events) == 1
    assert events[-1]["event"] == ("error" if code else "run")
    assert "1 of 3 micrographs could not be picked, the first: cut.mrc" in done.stderr
    if code:
        assert events[-1]["kind"] == "failed"
        assert events[-1]["message"].startswith("1 of 3 micrographs could not be picked, the first: cut.mrc")


@pytest.mark.parametrize("fail_on", ["all", "any"])
def test_a_run_of_which_nothing_could_be_picked_fails_and_names_the_micrograph_in_events(
    tmp_path: Path, fail_on: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.mrc").write_bytes(b"no image")
    done = cryopick("pick", "in", "-o", "run", *BLOB, "--json", "--fail-on", fail_on, cwd=tmp_path)
    start, failed, error = (json.loads(line) for line in done.stdout.splitlines())
    assert (done.returncode, error["kind"]) == (1, "failed")
    assert (failed["status"], failed["path"]) == ("failed", str(tmp_path / "in" / "cut.mrc"))
    assert failed["picks_file"] == failed["candidates_file"] == failed["image_file"] == ""
    assert start["output"] == str(tmp_path / "run")


def test_events_say_where_the_files_are_and_sizes_in_angstrom_and_the_threshold(
    micrographs: Path, tmp_path: Path
) -> None:
    words = ("pick", "in", "-o", "run", *BLOB, "--pixel-size", "2.5", "--threshold", "0.75", "--json")
    for status in ("done", "skipped"):
        done = cryopick(*words, cwd=tmp_path)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        (first, second) = (event for event in events if event["event"] == "micrograph")
        assert (first["status"], second["status"]) == (status, status)
        for event in (first, second):
            stem = event["name"].removesuffix(".mrc")
            assert event["path"] == str(tmp_path / "in" / event["name"])
            assert event["picks_file"] == str(tmp_path / "run" / "picks" / f"{stem}_picks.star")
            rows = [line for line in Path(event["picks_file"]).read_text().splitlines() if line[:1].isdigit()]
            assert len(rows) == event["count"] > 0
            assert len(Path(event["candidates_file"]).read_text().splitlines()) == 1 + event["candidates"]
            assert Path(event["image_file"]).read_bytes()[:2] == b"\xff\xd8"  # a JPEG
            assert event["diameter_angstrom"] == pytest.approx(2.5 * event["diameter_px"])
            assert event["threshold"] == 0.75


def test_a_signal_is_an_error_event_too(micrographs: Path, tmp_path: Path) -> None:
    for number in range(2, 300):
        os.link(micrographs / "m0.mrc", micrographs / f"m{number}.mrc")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cryopick.cli.main", "pick", "in", "-o", "run", *BLOB, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while process.poll() is None and sum(1 for _ in tmp_path.glob("run/records/*.json")) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    event = json.loads(out.splitlines()[-1])
    assert process.returncode == 143
    assert (event["kind"], event["exit_code"]) == (STOPPED, 143)
    assert "the same command resumes" in event["message"]


def test_help_shows_the_exit_codes() -> None:
    shown = " ".join(cryopick("--help").stdout.split())
    for one in ENDINGS:
        assert f"{one.code} {one.kind}: " in shown


def test_the_documented_table_is_that_of_the_program() -> None:
    page = Path(__file__).parents[2] / "docs" / "run-folder.md"
    assert table_text() in page.read_text(encoding="utf-8")
