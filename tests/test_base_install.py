"""cryopick alone in a fresh environment, with the lowest versions that it allows and without torch, picks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "base_install"
OUT_OF_REACH = ("No matching distribution found", "Could not find a version", "Failed to establish a new connection")


@pytest.mark.slow
def test_the_lowest_versions_pick_convert_and_judge_without_torch() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--lowest"], capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr for words in OUT_OF_REACH):
        pytest.skip(f"packages cannot be downloaded here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["picks"]) == {"general", "blob", "template"}
    assert min(found["picks"].values()) > 150  # the sample holds 200 particles
    assert found["megabytes"] < 700


def test_every_lower_bound_is_one_release_that_pip_can_be_asked_for() -> None:
    loader = SourceFileLoader("base_install", str(SCRIPT))
    spec = spec_from_loader("base_install", loader)
    assert spec is not None
    script = module_from_spec(spec)
    loader.exec_module(script)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = script.lowest_versions()
    assert len(lowest) == len(needs)
    for need, one in zip(needs, lowest, strict=True):
        asked, tried = Requirement(need), Requirement(one)
        assert re.fullmatch(r"==[\d.]+", str(tried.specifier)), one
        assert str(tried.specifier).replace("==", ">=") in str(asked.specifier).split(",")
        assert (tried.name, tried.marker) == (asked.name, asked.marker)
