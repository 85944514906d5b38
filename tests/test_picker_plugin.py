"""The template for a picker of one's own: installed as its page says, it keeps what every picker promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from walked import walk

import cryopick
from cryopick.simulation.sample import write_sample

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "picker_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the template is installed, as pip installs it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this environment has no pip")
    words = [*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", folder, PLUGIN]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_the_commands_of_its_page_work(installed: dict[str, str], tmp_path: Path) -> None:
    write_sample(tmp_path, count=1)

    def here(line: str) -> str | None:
        return None if line.startswith("pip ") else line.replace("180A", "140A")

    walk(ROOT / "docs" / "plugin.md", tmp_path, changed=here, environment=installed)
    (picks,) = cryopick.read_picks(tmp_path / "run1").values()
    (truth,) = cryopick.read_picks(tmp_path / "truth").values()
    near = np.linalg.norm(truth.xy_px[:, None] - picks.xy_px[None], axis=2).min(axis=1) < 0.25 * 70
    assert near.mean() > 0.8


def test_it_keeps_what_every_picker_promises(installed: dict[str, str]) -> None:
    tests = "tests/pickers/test_contract.py"
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "laplacian and not run_as_a_whole",
        tests,
    ]
    environment = {**installed, "CRYOPICK_PICKER": "laplacian"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
