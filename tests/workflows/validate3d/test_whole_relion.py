"""A whole validation by RELION's own programs, from picks to post-processing, killed within the refinement."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cryopick
from cryopick.io.structures.volume import write_volume
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein

PROGRAMS = ("relion_refine", "relion_refine_mpi", "relion_preprocess", "relion_mask_create", "relion_postprocess")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.relion,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in (*PROGRAMS, "mpirun")), reason="needs RELION's programs and mpirun"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small micrographs of a barrel with D7 symmetry, of which RELION has little to search, and picks of blob."""
    folder = tmp_path_factory.mktemp("relion")
    protein = random_protein(
        np.random.default_rng(1), family="barrel", diameter_angstrom=220.0, voxel_size_angstrom=5.0
    )
    write_volume(folder / "protein.mrc", protein)
    recipe = named_recipe("validation")
    recipe = replace(
        recipe,
        shape_yx=(512, 512),
        dirt=replace(recipe.dirt, carbon_probability=0.0, blob_probability=0.0, aggregate_probability=0.0),
        detector=replace(recipe.detector, dose_e_per_angstrom2=(30.0, 30.0)),
    )
    settings = SimulationSettings(structures=(str(folder / "protein.mrc"),), seed=1, recipe=recipe)
    cryopick.simulate(folder / "sim", settings, count=3)
    images = sorted((folder / "sim/micrographs").glob("*.mrc"))
    cryopick.pick(images, output=folder / "run", picker="blob", diameter="220A")
    return folder


def command(folder: Path, output: str, *words: str) -> list[str]:
    asked = ["--engine", "relion", "--symmetry", "D7", "--angpix", "14.5", "--seeds", "1"]
    paths = [str(folder / "run"), "-o", str(folder / output), "--truth", str(folder / "sim"), *words]
    return [sys.executable, "-m", "cryopick", "validate3d", *paths, *asked, "--compare", "none", "--jobs", "1"]


def killed(words: list[str], when_there: Path) -> None:
    """The command, killed as soon as a file is there."""
    starter = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not when_there.exists():
        assert starter.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    starter.send_signal(signal.SIGKILL)
    assert starter.wait() == -signal.SIGKILL


def row_after(words: list[str], folder: Path) -> dict[str, str]:
    """The row of the table that the command comes to."""
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with (folder / "table.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    return row


def test_from_picks_alone_to_a_resolution_through_a_kill_in_the_first_map(folder: Path) -> None:
    """So few particles of so symmetric a shape seldom lead RELION to the right map, which the table says if so."""
    words, output = command(folder, "alone", "--select2d", "auto", "--max-particles", "48"), folder / "alone"
    first = output / "run/auto/seed1/Initial.partial/run_it010_optimiser.star"
    killed(words, first)
    row = row_after(words, output)
    for step in ("Class2D/class2d", "auto/seed1/Initial/initial", "auto/seed1/Refine/refine"):
        record = json.loads((output / f"programs/run/{step}.json").read_text())
        assert (record["exit_code"], record["failure"]) == (0, "")
    assert "--continue" in (output / "programs/run/auto/seed1/Initial/initial.cmd").read_text()
    log = (output / "run.log").read_text()
    assert log.count("run/Class2D: made") == 1
    assert "made again" not in log
    assert row["failure"] == ""
    assert "Local resolution" in (output / "report.html").read_text()
    low, _, high = json.loads((output / "run/auto/seed1/LocalResolution/done.json").read_text())["facts"][
        "quartiles_angstrom"
    ]
    assert 29 < low <= high < 80
    assert int(row["selected"]) == 48
    nyquist = float(row["nyquist_angstrom"])
    assert nyquist <= float(row["half_angstrom"]) < 220
    assert nyquist <= float(row["truth_angstrom"]) < 220


def test_a_killed_refinement_goes_on_to_the_table_of_one_that_was_not(folder: Path) -> None:
    asked = ("--select2d", "none", "--reference", str(folder / "protein.mrc"))
    whole, stopped = folder / "whole", folder / "stopped"
    row = row_after(command(folder, "whole", *asked), whole)
    assert row["is_right"] == "True"
    words = command(folder, "stopped", *asked)
    killed(words, stopped / "run/none/seed1/Refine.partial/run_it002_optimiser.star")
    again = row_after(words, stopped)
    said = (stopped / "programs/run/none/seed1/Refine/refine.cmd").read_text()
    assert "--continue run/none/seed1/Refine.partial/run_it00" in said
    # RELION shifts its grid of angles at random, and draws other numbers when it goes on: not the same to the digit
    for column in ("half_angstrom", "truth_angstrom"):
        assert float(again[column]) == pytest.approx(float(row[column]), rel=0.05)
    free = ("half_angstrom", "truth_angstrom", "penalty_angstrom", "evenness", "mirrored", "cpu_seconds")
    assert {name: again[name] for name in row if name not in free} == {
        name: row[name] for name in row if name not in free
    }
