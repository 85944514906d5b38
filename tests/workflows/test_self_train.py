"""Self-training that was stopped compares the same things as one that was not."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from discs import DIAMETER_PX

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.units import parse_length
from cryopick.io.weights import files_of_weights
from cryopick.runs.folder import RunFolder
from cryopick.workflows import self_train as module


class StoppedError(Exception):
    pass


def test_a_self_training_that_was_stopped_counts_what_the_threshold_of_the_run_keeps(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = tmp_path / "tuned.safetensors"
    for source, suffix in zip(files_of_weights("general"), (".safetensors", ".json"), strict=True):
        shutil.copy(source, tuned.with_suffix(suffix))
    monkeypatch.setattr(module, "FEWEST_TEACHERS", 1)
    monkeypatch.setattr(module, "require_training_packages", lambda: None)
    monkeypatch.setattr(module, "threshold_for_precision", lambda scores, _: float(np.max(scores)))
    monkeypatch.setattr(module, "expected_f1", lambda summary: summary.threshold)

    def self_train(folder: str) -> module.SelfTrainResult:
        return module.self_train(
            "general", [folder_of_discs], tmp_path / folder, diameter=parse_length(f"{DIAMETER_PX}px")
        )

    def stopped(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.setattr(module, "finetune", stopped)
    with pytest.raises(StoppedError):
        self_train("stopped")
    assert RunFolder(tmp_path / "stopped" / "before").moved_threshold() is not None
    done = SimpleNamespace(training=SimpleNamespace(weights=tuned), is_better=True)
    monkeypatch.setattr(module, "finetune", lambda *_, **__: done)
    resumed = self_train("stopped")
    own = json.loads((tmp_path / "stopped" / "before" / "summary.json").read_text())["threshold"]
    assert resumed.before == own

    # trained for longer: other weights of the same name, so what was picked with the old ones is picked again
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped" / "after" / "records").rglob("*.json")}
    monkeypatch.setattr(module, "overwritten_files", lambda *_: ["weights"])
    self_train("stopped")
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())


def test_scores_that_are_no_probabilities_teach_from_a_score_that_is_given(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST_TEACHERS", 2)
    monkeypatch.setattr(module, "require_training_packages", lambda: None)
    monkeypatch.setattr(module, "gives_probabilities", lambda _: False)
    taught: list[float] = []

    def finetune(picker: str, picks: Path, output: Path, **_: object) -> SimpleNamespace:
        taught.append(float(RunFolder(picks.parent).moved_threshold() or 0))
        return SimpleNamespace(training=SimpleNamespace(weights=files_of_weights("general")[0]), is_better=True)

    monkeypatch.setattr(module, "finetune", finetune)

    def self_train(**settings: float) -> module.SelfTrainResult:
        diameter = parse_length(f"{DIAMETER_PX}px")
        return module.self_train("general", [folder_of_discs], tmp_path / "out", diameter=diameter, **settings)

    with pytest.raises(SettingsError, match="--min-score"):
        self_train()
    with pytest.raises(InputError, match=r"only 0 picks score 2 or more \(the scores lie from"):
        self_train(min_score=2.0)
    result = self_train(min_score=0.125)
    assert taught == [0.125]
    assert result.is_better
    assert np.isnan(result.before)
