"""What a terminal expects of a program: a short start, -h, -q, -v, completion, and a hint where words are another's."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryopick import Micrograph, write_micrograph
from cryopick.cli.main import COMMANDS, main, typed_words


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cryopick", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a.mrc", "b.mrc"):
        noise = rng.normal(size=(200, 200)).astype(np.float32)
        write_micrograph(tmp_path / "mics" / name, Micrograph(noise, pixel_size_angstrom=2.0))
    return tmp_path


def test_cryopick_alone_shows_five_commands_to_begin_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^    cryopick ([a-z]+)", told, flags=re.MULTILINE) == [
        *("pick", "view", "rethreshold", "evaluate", "convert")
    ]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_h_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(monkeypatch, *name.split(), "-h") == 0
    short = capsys.readouterr().out
    assert run(monkeypatch, *name.split(), "--help") == 0
    assert capsys.readouterr().out == short
    assert "Usage: cryopick" in short


def test_quiet_leaves_progress_out_and_the_result_and_warnings_in(
    micrographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(micrographs)
    (micrographs / "mics" / "c.mrc").write_bytes(b"no image")
    given = ("pick", "mics", "--picker", "blob", "--diameter", "60A", "-j", "1")
    assert run(monkeypatch, *given, "-o", "loud") == 0
    loud = capsys.readouterr()
    assert run(monkeypatch, *given, "-o", "quiet", "-q") == 0
    quiet = capsys.readouterr()
    assert "of 3 micrographs" in loud.err
    assert "3 of 3 micrographs\n" not in quiet.err
    assert "c.mrc" in quiet.err  # that one could not be picked is no progress
    assert quiet.out == loud.out.replace("loud", "quiet")
    assert run(monkeypatch, *given, "-o", "again") == 0  # being quiet does not last
    assert "of 3 micrographs" in capsys.readouterr().err


def test_verbose_shows_what_the_library_logs_and_ends_with_the_command(
    micrographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(micrographs)

    def speak(*_: object, **__: object) -> None:
        logging.getLogger("cryopick.runs").debug("loading something")

    monkeypatch.setattr("cryopick.cli.pickers.picker_rows", lambda: speak() or [])
    assert run(monkeypatch, "pickers") == 0
    assert "loading something" not in capsys.readouterr().err
    assert run(monkeypatch, "pickers", "-v") == 0
    assert re.search(r"^\d\d:\d\d:\d\d cryopick.runs: loading something$", capsys.readouterr().err, re.MULTILINE)
    assert run(monkeypatch, "pickers") == 0
    assert "loading something" not in capsys.readouterr().err


def test_words_of_relion_lead_to_cryopick_relion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "pick", "--in_mics", "micrographs.star", "-o", "run") == 2
    assert "cryopick relion --o " in capsys.readouterr().err
    assert run(monkeypatch, "pick", "--no-such-option") == 2
    assert "relion" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("cryopick con", {"consensus", "convert"}), ("cryopick pick --diam", {"--diameter"})],
)
def test_a_shell_is_told_how_words_may_go_on(typed: str, expected: set[str]) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_CRYOPICK_COMPLETE": "complete_bash"}
    program = "import sys; sys.argv = ['cryopick']; from cryopick.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == expected, done.stderr


def test_without_a_shell_that_asks_the_words_are_those_typed() -> None:
    assert typed_words(["cryopick", "pick", "a b"], {"COMP_WORDS": "cryopick view"}) == ["pick", "a b"]
