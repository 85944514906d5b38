"""Whoever picks is given the same, with paths that mean the same everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import find_weights
from cryopick.pickers.survey import Survey
from cryopick.runs import workers as workers_module
from cryopick.runs.settings import PickPlan, make_settings
from cryopick.runs.workers import Workforce, default_workers
from cryopick.workflows.pick import pick


def test_an_error_names_the_same_file_whoever_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    (tmp_path / "in" / "cut.mrc").write_bytes((tmp_path / "in" / "m0.mrc").read_bytes()[:-100])
    errors = set()
    for workers in (1, 2):
        run = Path(f"run{workers}")
        pick("in", "blob", diameter=f"{DIAMETER_PX}px", output=run, workers=workers)
        errors.add(json.loads((run / "summary.json").read_text())["failed"]["cut.mrc"])
    (error,) = errors
    assert error.startswith(f"{tmp_path}/in/cut.mrc")


def test_files_and_folders_of_settings_and_survey_are_named_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("masks", "trained"):
        (tmp_path / name).mkdir()
    shipped = find_weights("general")
    for suffix in (".safetensors", ".json"):
        (tmp_path / "trained" / f"weights{suffix}").write_bytes(shipped.with_suffix(suffix).read_bytes())
    settings = make_settings("general", weights="trained/weights.safetensors", exclusion_masks="masks")
    plan = PickPlan(settings=settings, survey=Survey(trained_model=Path("trained/weights.safetensors")))
    found = plan.with_absolute_paths()
    assert found.picker.weights == tmp_path / "trained" / "weights.safetensors"
    assert found.settings.run.exclusion_masks == tmp_path / "masks"
    assert found.survey is not None
    assert found.survey.trained_model == tmp_path / "trained" / "weights.safetensors"
    folder = replace(plan, settings=make_settings("general", weights="trained")).with_absolute_paths()
    assert folder.picker.weights == tmp_path / "trained" / "weights.safetensors"
    name = replace(plan, settings=make_settings("general", weights="general")).with_absolute_paths()
    assert name.picker.weights == Path("general")  # shipped ones are found by their name, wherever they lie


def test_a_plan_without_relative_paths_keeps_its_picker_and_the_models_that_it_holds() -> None:
    plan = PickPlan(settings=make_settings("general"))
    assert plan.with_absolute_paths().picker is plan.picker


def test_there_are_as_many_workers_as_cores_that_may_be_used_and_one_for_few_micrographs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, "usable_cores", lambda: 3)
    picker = make_settings("blob", diameter="20px").picker
    assert [default_workers(tasks, picker=picker) for tasks in (3, 4, 100, None)] == [1, 3, 3, 3]
    monkeypatch.setattr(workers_module, "usable_cores", lambda: 64)
    assert [default_workers(tasks, picker=picker) for tasks in (5, 100, None)] == [5, 8, 8]
    with pytest.raises(SettingsError, match="workers 0: expected 1 or more"):
        Workforce(workers=0)
