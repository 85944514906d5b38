"""Programs that read stdout: every line is an object, and no reader holds a run up, whatever it does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from threading import enumerate as threads
from typing import Any

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.cli.json_lines import JsonLines, json_lines
from cryopick.cli.process import NobodyListens, prepared_process
from cryopick.io.images.micrographs import write_micrograph

CRYOPICK = [sys.executable, "-P", "-m", "cryopick.cli.main"]


def into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """stdout of this process is a pipe; its two ends."""
    reading, writing = os.pipe()
    stream = io.TextIOWrapper(io.BufferedWriter(io.FileIO(writing, "w", closefd=False)), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    return reading, writing


def read_all(reading: int) -> list[dict[str, Any]]:
    with os.fdopen(reading) as stream:
        return [json.loads(line) for line in stream]


def test_lines_come_in_order_and_numbers_that_json_lacks_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = into_a_pipe(monkeypatch)
    with json_lines(is_wanted=True) as say:
        assert say is not None
        for number in range(100):
            say({"number": number, "nothing": float("nan"), "name": "ö"})
    os.close(writing)
    assert read_all(reading) == [{"number": number, "nothing": None, "name": "ö"} for number in range(100)]


def test_a_reader_that_stops_reading_stops_nothing_and_hears_later_how_many_lines_it_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = into_a_pipe(monkeypatch)
    lines = JsonLines(most_waiting=10)
    filler = "x" * 1000  # a pipe holds 65,536 bytes: after 65 lines the writer waits
    began = time.monotonic()
    offered = 1000
    while not lines.dropped:
        lines({"filler": filler})
        offered += 1
    for number in range(1000):
        lines({"number": number})
    assert time.monotonic() - began < 5
    lines({"event": "run"}, is_kept=True)
    dropped = lines.dropped
    assert dropped > 900
    heard: list[dict[str, Any]] = []
    reader = Thread(target=lambda: heard.extend(read_all(reading)))
    reader.start()
    lines.close()
    os.close(writing)
    reader.join()
    assert heard[-1] == {"event": "run"}
    assert heard[-2]["event"] == "dropped"
    missing = [event["count"] for event in heard if event.get("event") == "dropped"]
    assert sum(missing) == dropped
    written = [event for event in heard if "filler" in event or "number" in event]
    assert len(written) + dropped == offered
    assert f"{dropped} JSON lines were dropped while 10 waited" in capsys.readouterr().err


def test_the_end_waits_a_while_for_a_reader_that_takes_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = into_a_pipe(monkeypatch)
    lines = JsonLines(patience_s=0.2)
    for _ in range(100):
        lines({"filler": "x" * 1000})
    lines.close()
    assert "were left at the end: nobody read them from stdout" in capsys.readouterr().err
    os.close(reading)
    for thread in threads():  # it tells of the broken pipe, which is not for the next test
        if thread.name == "json lines":
            thread.join()
    os.close(writing)


def test_a_reader_that_is_gone_is_told_of_once_and_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with prepared_process():
        reading, writing = into_a_pipe(monkeypatch)
        from cryopick.cli import process

        monkeypatch.setattr(sys, "stdout", process._telling_stdout())
        os.close(reading)
        lines = JsonLines()
        lines({"number": 0})
        with pytest.raises(NobodyListens):
            lines.close()
        lines({"number": 1})
    assert capsys.readouterr().err == "warning: nobody reads stdout any more; the run goes on without it\n"
    os.close(writing)


def test_a_run_ends_whole_though_its_reader_only_holds_the_pipe(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_micrograph(tmp_path / "in" / "m0000.mrc", disc_micrograph("m", seed=0))
    for number in range(1, 120):
        os.link(tmp_path / "in" / "m0000.mrc", tmp_path / "in" / f"m{number:04d}.mrc")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:  # full before the run begins
        try:
            os.write(writing, b"\n" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    done = subprocess.run(
        [*CRYOPICK, "pick", "in", "-o", "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1", "--json"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    os.close(writing)
    os.close(reading)
    assert done.returncode == 0, done.stderr
    assert "JSON lines were dropped while 10,000 waited, and 122 were left at the end" in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["micrographs"] == 120
