"""`inspect` of what cryopick made: a picking run, a training, a benchmark, a simulation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from toy_picker import train_toy

from cryopick.evaluation.benchmark_report import write_benchmark
from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow
from cryopick.evaluation.scores import TOLERANCES
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import make_settings
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.workflows.benchmark import benchmark
from cryopick.workflows.inspect import inspect
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.simulate import simulate


class PowerCut(BaseException):
    """Ends a run where it is."""


def test_a_complete_picking_run_tells_its_picks_threshold_sizes_and_changed_settings(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    settings = make_settings("blob", diameter=f"{DIAMETER_PX}px", max_count=50)
    summary = pick_to_folder([folder_of_discs], tmp_path / "run", settings, workers=1)
    found = inspect(tmp_path / "run")
    assert (found.kind, found.facts["state"], found.facts["picker"]) == ("picking run", "complete", "blob")
    assert (found.facts["micrographs_picked"], found.facts["micrographs_failed"]) == (3, 0)
    assert (found.facts["particles"], found.facts["candidates"]) == (9, summary.candidates)
    assert found.facts["threshold"].startswith(f"{summary.threshold:.4g} (")
    assert (found.facts["pixel_size_angstrom"], found.facts["diameter_px"]) == ([2.0], [DIAMETER_PX])
    assert sorted(found.facts["settings_changed"]) == [f"diameter = {DIAMETER_PX}px", "max_count = 50"]
    assert found.warnings == ()


def test_an_interrupted_picking_run_says_how_far_it_came_and_how_it_goes_on(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    def cut(event: PickEvent) -> None:
        if event.position == 2:
            raise PowerCut

    settings = make_settings("blob", diameter=f"{DIAMETER_PX}px")
    with pytest.raises(PowerCut):
        pick_to_folder(
            [folder_of_discs], tmp_path / "run", settings, workers=1, command="cryopick pick in", on_event=cut
        )
    found = inspect(tmp_path / "run")
    assert (found.kind, found.facts["state"]) == ("picking run", "interrupted after 2 micrographs")
    assert "the same command goes on: cryopick pick in" in found.warnings[0]
    assert "particles" not in found.facts


def test_micrographs_of_a_run_that_failed_are_counted_and_named(folder_of_discs: Path, tmp_path: Path) -> None:
    (folder_of_discs / "bad.mrc").write_bytes(b"x" * 2000)
    pick_to_folder([folder_of_discs], tmp_path / "run", make_settings("blob", diameter="20px"), workers=1)
    found = inspect(tmp_path / "run")
    assert (found.facts["micrographs_picked"], found.facts["micrographs_failed"]) == (3, 1)
    assert [text for text in found.warnings if text.startswith("not picked: ") and "bad.mrc" in text]


def test_a_damaged_summary_is_told_and_the_run_is_still_one(folder_of_discs: Path, tmp_path: Path) -> None:
    pick_to_folder([folder_of_discs], tmp_path / "run", make_settings("blob", diameter="20px"), workers=1)
    (tmp_path / "run" / "summary.json").write_text("{")
    found = inspect(tmp_path / "run")
    assert found.kind == "picking run"
    assert "summary.json" in found.warnings[0]


def test_a_training_tells_its_picker_steps_and_whether_it_has_finished(tmp_path: Path) -> None:
    train_toy(tmp_path / "trained", steps=2, log_every=1)
    found = inspect(tmp_path / "trained")
    assert (found.kind, found.facts["state"], found.facts["picker"]) == ("training", "finished", "toy")
    assert found.facts["steps"] == "2 of 2"
    assert "score" in found.facts["last_validation"]
    assert found.facts["weights"] == str(tmp_path / "trained" / "weights.safetensors")
    assert found.warnings == ()
    (tmp_path / "trained" / "weights.safetensors").unlink()
    stopped = inspect(tmp_path / "trained")
    assert stopped.facts["state"] == "not finished"
    assert "--resume" in stopped.warnings[0]


def write_set(folder: Path) -> None:
    write_micrograph(folder / "m0.mrc", disc_micrograph("m0"))
    rows = "\n".join(f"{x},{y}" for x, y in disc_centres(0))
    (folder / "m0.csv").write_text(f"x,y\n{rows}\n")
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX, "pixel_size_angstrom": 2.0}))


def test_a_benchmark_tells_its_pickers_sets_and_what_failed(tmp_path: Path) -> None:
    write_set(tmp_path / "discs")
    empty = benchmark([], [tmp_path / "discs"], tmp_path / "bench")
    row = BenchmarkRow("template", "discs", None, error="no references")
    write_benchmark(Benchmark((row,), empty.sets, TOLERANCES[0], empty.machine), tmp_path / "bench")
    found = inspect(tmp_path / "bench")
    assert (found.kind, found.facts["pickers"], found.facts["sets"]) == ("benchmark", ["template"], ["discs"])
    assert found.facts["rows"] == {"failed": 1}
    assert found.facts["tolerance_diameters"] == TOLERANCES[0]
    assert found.warnings == ("template on discs: no references",)


def test_a_simulation_is_a_labelled_set_of_as_many_particles_as_were_drawn(tmp_path: Path) -> None:
    recipe = replace(named_recipe("clean"), shape_yx=(220, 300), pixel_size_angstrom=5.0)
    simulate(tmp_path / "sim", SimulationSettings(seed=3, diameter_angstrom=(100.0, 150.0), recipe=recipe), count=1)
    found = inspect(tmp_path / "sim")
    labels = (tmp_path / "sim" / "micrographs" / "sim_0001.csv").read_text().splitlines()[1:]
    assert (found.kind, found.facts["layout"]) == ("data set", "simulation")
    assert found.facts["labelled_micrographs"] == 1
    assert found.facts["particles"] + found.facts["uncertain_labels"] == len(labels) > 0
