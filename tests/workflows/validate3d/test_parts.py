"""Maps by jobs of a batch system: the same table, found again after a stop, and honest where a job is lost."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slurm_cluster import SlurmCluster

import cryopick
from cryopick.errors import FormatError, SettingsError
from cryopick.io.structures.volume import write_volume
from cryopick.scale.cluster.batch import BatchJob
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.workflows.validate3d import part_worker, parts

PART = "good/none/seed1"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(4)
    volume = random_protein(rng, family="ribonucleoprotein", diameter_angstrom=220.0, voxel_size_angstrom=5.0)
    write_volume(folder / "protein.mrc", volume)
    recipe = named_recipe("validation")
    recipe = replace(recipe, shape_yx=(448, 448), dirt=replace(recipe.dirt, carbon_probability=0.0))
    settings = SimulationSettings(structures=(str(folder / "protein.mrc"),), seed=5, recipe=recipe)
    cryopick.simulate(folder / "sim", settings, count=3)
    truth = cryopick.read_picks(folder / "sim/micrographs")
    picks = [cryopick.Picks(xy_px=one.xy_px + 0.3, micrograph_name=name) for name, one in truth.items()]
    cryopick.write_picks(picks, folder / "good.csv")
    return folder


def validate(simulated: Path, output: Path, **how: Any) -> cryopick.Validation:
    return cryopick.validate3d(
        [simulated / "good.csv"],
        output=output,
        truth=simulated / "sim",
        micrographs=[simulated / "sim/micrographs"],
        names=["good"],
        engine="known",
        select2d=["none"],
        **how,
    )


@pytest.fixture(scope="module")
def expected(simulated: Path) -> str:
    return table_of(validate(simulated, simulated / "here"))


def table_of(validation: cryopick.Validation) -> str:
    """Without what each map took."""
    return json.dumps(_untimed(json.loads((validation.folder / "table.json").read_text())["rows"]))


def _untimed(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _untimed(value) for key, value in content.items() if "seconds" not in key}
    return [_untimed(one) for one in content] if isinstance(content, list) else content


@dataclass
class Queue:
    """A batch system that runs a job at once, or keeps it for later, or loses it."""

    how: str = "runs"
    submitted: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def submit(self, script: str, job: BatchJob, *, after: Sequence[str] = ()) -> str:
        self.submitted.append(job.name)
        number = str(len(self.submitted))
        if self.how == "runs":
            done = subprocess.run(list(job.command), capture_output=True, text=True, check=False, env=os.environ.copy())
            assert done.returncode in (0, 1), done.stderr
        elif self.how == "keeps":
            self.known.add(number)
            raise KeyboardInterrupt
        return number

    def states_of(self, numbers: Sequence[str]) -> Mapping[str, str]:
        return {number: "pending" for number in numbers if number in self.known}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> Queue:
        monkeypatch.setattr(parts, "submit", self.submit)
        monkeypatch.setattr(parts, "states_of", self.states_of)
        monkeypatch.setattr(parts, "UNKNOWN_SECONDS", 0.0)
        monkeypatch.setattr(parts, "ASK_SECONDS", 0.1)
        monkeypatch.setattr(parts, "LOOK_SECONDS", 0.1)
        return self


def test_jobs_make_the_table_that_this_process_makes(
    simulated: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue().use(monkeypatch)
    found = validate(simulated, tmp_path / "v3d", submit="slurm", cores=1)
    assert queue.submitted == ["good-none-seed1", "truth-none-seed1"]
    # what jobs made is found, and only what is before and after it was made here
    assert [name for name in found.made if "seed1" in name] == []
    assert table_of(found) == expected
    validate(simulated, tmp_path / "v3d", submit="slurm", cores=1)
    assert len(queue.submitted) == 2, "what is there is not submitted again"


def test_a_lost_job_is_a_row_that_failed_and_is_not_made_here(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue("loses").use(monkeypatch)
    found = validate(simulated, tmp_path / "v3d", submit="slurm")
    for row in found.table:
        (start,) = row.seeds
        assert "ended without a word; see parts/" in start.failure
    assert not (tmp_path / "v3d" / PART / "Refine").exists()
    assert len(found.program_failures) == 2


def test_a_job_of_an_earlier_call_is_waited_for_and_not_asked_for_again(
    simulated: Path, tmp_path: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue("keeps").use(monkeypatch)
    with pytest.raises(KeyboardInterrupt):  # while the first job is handed in
        validate(simulated, tmp_path / "v3d", submit="slurm")
    root = tmp_path / "v3d"
    (root / "parts/jobs.json").write_text(json.dumps({"truth/none/seed1": "1", PART: "2"}))
    queue.known = {"1", "2"}
    commands = [
        shlex.join(parts._command(root, part, f"{cryopick.validate3d.__module__}:validate3d"))
        for part in ("truth/none/seed1", PART)
    ]
    workers = [subprocess.Popen(shlex.split(one), stdout=subprocess.DEVNULL) for one in commands]
    found = validate(simulated, root, submit="slurm")
    assert [worker.wait() for worker in workers] == [0, 0]
    assert queue.submitted == ["good-none-seed1"]
    assert table_of(found) == expected


def test_what_a_job_says_of_its_failure_stands_in_the_table(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue().use(monkeypatch)

    def damaged(root: Path, call: Mapping[str, Any]) -> None:
        part_worker.write_call(root, {**call, "engine": "no such engine"})

    monkeypatch.setattr("cryopick.workflows.validate3d.run.write_call", damaged)
    found = validate(simulated, tmp_path / "v3d", submit="slurm")
    assert len(queue.submitted) == 2
    assert all("engine 'no such engine' is unknown" in row.seeds[0].failure for row in found.table)


def test_a_part_is_named_by_run_selection_and_seed_and_a_damaged_call_is_told(tmp_path: Path) -> None:
    assert parts.split_part(parts.part_name("a-b", "auto", 3)) == ("a-b", "auto", 3)
    for wrong in ("a/b", "a/b/c", "a/b/seed", "a/b/c/seed1"):
        with pytest.raises(SettingsError, match="RUN/SELECTION/seedN"):
            parts.split_part(wrong)
    with pytest.raises(FormatError, match="is damaged or missing"):
        part_worker.read_call(tmp_path)


@pytest.mark.slurm
def test_on_a_real_slurm_the_table_is_the_same(
    simulated: Path, tmp_path: Path, expected: str, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    config = tmp_path / "cluster.toml"
    config.write_text('[cluster]\nqueue = "main"\njob_cores = 1\njob_memory = "2G"\n')
    monkeypatch.setenv("CRYOPICK_CLUSTER_CONFIG", str(config))
    lines: list[str] = []
    found = validate(simulated, tmp_path / "v3d", submit="slurm", on_progress=lines.append)
    assert table_of(found) == expected
    assert sum("is done" in line for line in lines) == 2
    slurm.wait_until_no_job_is_left()
