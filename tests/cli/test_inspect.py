"""`cryopick inspect` as a user runs it."""

import json
import subprocess
import sys

import numpy as np

from cryopick.io.images.mrc import write_mrc


def _run(*words):
    command = [sys.executable, "-m", "cryopick.cli.main", "inspect", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_text_names_size_and_doubts(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.zeros((6, 9), "i2"))
    result = _run(tmp_path / "m.mrc")
    assert result.returncode == 0
    assert "m.mrc: micrograph" in result.stdout
    assert "shape (rows, columns)    6, 9" in result.stdout
    assert "int16 (MRC mode 1)" in result.stdout
    assert "warning: the header's pixel size is 0" in result.stdout


def test_json_is_one_line_per_path(tmp_path):
    for name in ("a.mrc", "b.mrc"):
        write_mrc(tmp_path / name, np.ones((6, 9), "f4"), pixel_size_angstrom=1.5)
    result = _run("--json", tmp_path / "a.mrc", tmp_path / "b.mrc")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["kind"], line["shape_yx"], line["pixel_size_angstrom"]) for line in lines] == [
        ("micrograph", [6, 9], 1.5)
    ] * 2


def test_failure_only_when_nothing_could_be_inspected(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.ones((6, 9), "f4"), pixel_size_angstrom=1.5)
    mixed = _run(tmp_path / "none.mrc", tmp_path / "m.mrc")
    assert mixed.returncode == 0
    assert "none.mrc: cannot be read: no such file" in mixed.stderr
    nothing = _run(tmp_path / "none.mrc")
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr
