"""Pickers of other packages: taken when they work, named and left out when they do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PICKER = """
from dataclasses import dataclass
from typing import ClassVar
from cryopick.geometry.units import Length
from cryopick.pickers.registry import register_picker
from cryopick.types import Picks

@dataclass(frozen=True, kw_only=True)
class Picker:
    score_meaning: ClassVar[str] = "none"
    default_threshold: ClassVar[float] = 0.0
    diameter: Length | None = None
    def pick(self, micrograph, survey=None):
        return Picks.none_on(micrograph)
"""
REGISTERED = PICKER.replace("@dataclass", '@register_picker("ours")\n@dataclass')


def install(site: Path, package: str, value: str, name: str, source: str) -> None:
    """A distribution with one entry point, as pip leaves it."""
    (site / f"{package}.py").write_text(source)
    information = site / f"{package}-1.5.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text(f"[cryopick.pickers]\n{name} = {value}\n")


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def listed(site: Path) -> tuple[list[str], str]:
    done = run(site, "import json; from cryopick import list_pickers; print(json.dumps(list_pickers()))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


OLDER = """
from dataclasses import dataclass, replace
from typing import ClassVar
import numpy as np
from cryopick.geometry.units import Length
from cryopick.pickers.registry import register_picker
from cryopick.types import Picks

@register_picker("older")
@dataclass(frozen=True, kw_only=True)
class Older:
    score_meaning: ClassVar[str] = "darkness"
    default_threshold: ClassVar[float] = 0.0
    diameter: Length | None = None
    wanted: int = 0
    measured: str = ""

    def prepare(self, micrographs):
        print("prepares itself")
        return replace(self, wanted=2 * len(micrographs), measured="saw that it is so", diameter=Length(9, 9, "px"))

    def choose_threshold(self, scores, *, target_precision=None):
        assert self.wanted == 4
        return float(np.median(scores))

    def run_probabilities(self, scores):
        return np.full(len(scores), 0.25 * self.wanted / 4)

    def pick(self, micrograph):
        order = np.argsort(micrograph.pixels.ravel(), kind="stable")[: self.wanted]
        y, x = np.unravel_index(order, micrograph.pixels.shape)
        return Picks(xy_px=np.stack([x, y], axis=1), score=-micrograph.pixels[y, x], diameter_px=np.ones(len(x)))
"""
"""A picker as version 0.1 wanted them: it fills in its own settings for a run, and knows no survey."""

RUN_OF_OLDER = """
import sys
from pathlib import Path
import numpy as np, cryopick
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    pixels = np.random.default_rng(ord(name)).normal(size=(64, 64)).astype(np.float32)
    cryopick.write_micrograph(folder / "in" / f"{name}.mrc", cryopick.Micrograph(pixels, pixel_size_angstrom=2.0))
if __name__ == "__main__":
    done = cryopick.pick([folder / "in"], "older", output=folder / "run", workers=1)
    print(done.candidates, done.particles, done.prepared, done.expected_precision, done.diameter_px)
"""

BROKEN = (
    ("import a_module_that_nobody_has", "No module named 'a_module_that_nobody_has'"),
    ("raise SystemExit('not on this machine')", "SystemExit: not on this machine"),
    ("def broken(:", "SyntaxError"),
    (REGISTERED + "\nraise RuntimeError('after its registration')", "after its registration"),
    (REGISTERED.replace('"ours"', '"blob"'), "picker 'blob' of broken4 is already registered"),
    (REGISTERED.replace("    default_threshold: ClassVar[float] = 0.0\n", ""), "default_threshold"),
    (REGISTERED.replace("Length | None", "'Nonsense'"), "Nonsense"),
    (REGISTERED.replace("@dataclass(frozen=True, kw_only=True)\n", ""), "no dataclass"),
)


def test_broken_plug_ins_are_named_and_cost_no_other_picker(tmp_path: Path) -> None:
    for number, (source, _) in enumerate(BROKEN):
        install(tmp_path, f"broken{number}", f"broken{number}", f"entry{number}", source)
    install(tmp_path, "fine", "fine", "fine", REGISTERED.replace('"ours"', '"fine"'))
    names, said = listed(tmp_path)
    assert {"blob", "general", "fine"} <= set(names)
    assert "ours" not in names
    assert len(said.splitlines()) == len(BROKEN)
    for number, (_, reason) in enumerate(BROKEN):
        (line,) = (one for one in said.splitlines() if f"broken{number} 1.5" in one)
        assert f"'entry{number}'" in line
        assert reason in line


def test_a_broken_plug_in_asked_for_by_name_says_why(tmp_path: Path) -> None:
    install(tmp_path, "a_broken", "a_broken", "broken", "import a_module_that_nobody_has")
    done = run(tmp_path, "from cryopick.pickers.registry import picker_class; picker_class('broken')")
    assert "SettingsError: picker 'broken' cannot be used: " in done.stderr
    assert "No module named 'a_module_that_nobody_has'" in done.stderr


@pytest.mark.parametrize(("value", "source"), [("one", REGISTERED), ("one:Picker", REGISTERED), ("one:Picker", PICKER)])
def test_an_entry_point_may_name_a_module_or_a_class(tmp_path: Path, value: str, source: str) -> None:
    install(tmp_path, "one", value, "ours", source)
    names, said = listed(tmp_path)
    assert "ours" in names
    assert said == ""


def test_a_picker_of_0_1_works_and_resumes_as_before_and_is_named_once(tmp_path: Path) -> None:
    install(tmp_path, "old_package", "old_package", "older", OLDER)
    (tmp_path / "in").mkdir()
    script = tmp_path / "script.py"
    script.write_text(RUN_OF_OLDER)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def pick(*names: str) -> tuple[str, str]:
        words = [sys.executable, str(script), str(tmp_path), *names]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    out, said = pick("a", "b")
    assert out == "prepares itself\n8 4 saw that it is so 0.25 9.0\n"
    (line,) = (one for one in said.splitlines() if "older" in one)
    assert "picker older of old_package is written for cryopick 0.1" in line
    assert "pick without a survey" in line
    out, _ = pick("c")  # what it learnt from two is remembered, and not learnt again
    assert out == "12 6 saw that it is so 0.25 9.0\n"
    (tmp_path / "run" / "prepared.toml").write_text(  # as version 0.1 wrote it
        '[older]\ndiameter = "9px"\nwanted = 4\nmeasured = "saw that it is so"\n'
    )
    out, _ = pick("d")
    assert out == "16 8 saw that it is so 0.25 9.0\n"
