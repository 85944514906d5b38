"""Self-training that was stopped compares the same things as one that was not."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from discs import DIAMETER_PX

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
