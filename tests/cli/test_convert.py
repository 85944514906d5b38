"""`cryopick convert` as typed: a summary on stdout, one line of error and nothing written otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cryopick.cli.main", "convert", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_csv_to_boxes_and_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("x,y,micrograph\n20,30,a.mrc\n40,50,b.mrc\n")
    done = run(tmp_path, "all.csv", "picks", "--to", "box", "--box", "10px")
    assert (done.returncode, done.stdout) == (0, "2 particles of 2 micrographs written to 2 files in picks\n")
    assert (tmp_path / "picks" / "a.box").read_text() == "15\t25\t10\t10\n"
    failed = run(tmp_path, "all.csv", "picks", "--to", "bos")
    assert failed.returncode == 4
    assert failed.stderr.startswith("cryopick: unknown coordinate format 'bos'; known formats: star")
    assert "Traceback" not in failed.stderr
