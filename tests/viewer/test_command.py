"""`cryopick view` as it is typed: the link, the port, and what it refuses."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from cryopick.cli.main import main


def view(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["cryopick", "view", *map(str, words), "--no-open"])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_link_is_told_with_the_line_for_a_tunnel_and_nothing_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = sorted(run.rglob("*"))
    assert view(monkeypatch, run, "--stop-after", "0.1") == 0
    told = capsys.readouterr().out
    assert "open:   http://127.0.0.1:" in told
    assert "#t=" in told
    assert "ssh -N -L" in told
    assert sorted(path for path in run.rglob("*") if ".view" not in str(path)) == before


def test_a_program_gets_the_link_as_json(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert view(monkeypatch, run, "--stop-after", "0.1", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    assert told["link"].startswith(f"http://127.0.0.1:{told['port']}/#t=")
    assert told["edits"] == str(run / "edits")


def test_a_port_that_is_taken_is_named_and_without_one_the_next_is_tried(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert view(monkeypatch, run, "--port", str(port), "--stop-after", "0.1") != 0
        assert f"port {port}" in capsys.readouterr().err
        monkeypatch.setattr("cryopick.cli.view.FIRST_PORT", port)
        monkeypatch.setattr("cryopick.cli.view.LAST_PORT", port + 50)
        assert view(monkeypatch, run, "--stop-after", "0.1") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "not encrypted"),
        (("--picks", "x.star"), "give one run folder, or --picks"),
        (("--micrographs", "mics"), "belong to --picks"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
):
    assert view(monkeypatch, run, *words, "--stop-after", "0.1") != 0
    assert told in capsys.readouterr().err


def test_what_is_no_run_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert view(monkeypatch, tmp_path) != 0
    assert "is no run folder" in capsys.readouterr().err
