"""`cryopick label`, `train` and `finetune` as typed; a training run itself is in `tests/training`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.cli.training_monitor import ConsoleMonitor
from cryopick.io.images.micrographs import write_micrograph


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cryopick.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_label_writes_masks_and_says_what_it_did(tmp_path: Path) -> None:
    write_micrograph(tmp_path / "data" / "m0.mrc", disc_micrograph("m0"))
    rows = "\n".join(f"{x},{y}" for x, y in disc_centres(0))
    (tmp_path / "data" / "m0.csv").write_text(f"x,y\n{rows}\n")
    (tmp_path / "data" / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    done = run(tmp_path, "label", "data", "-o", "labels", "--as", "masks", "--shape", "disc")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["masks of 3 particles on 1 micrographs, disc on 1", "labels: labels"],
    )
    assert (tmp_path / "labels" / "masks" / "m0.png").is_file()
    failed = run(tmp_path, "label", "data", "-o", "labels", "--as", "polygons")
    assert failed.returncode == 4
    assert failed.stderr.startswith("cryopick: labels as 'polygons': expected one of masks, boxes, coco, heatmap")


def test_mistakes_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    for arguments, code, message in (
        (["train", "-o", "t"], 4, "no picker to train"),
        (["train", "blob", "-o", "t"], 4, "picker 'blob' has nothing to train; pickers that can be trained:"),
        (
            ["train", "general", "-o", "t", "--preset", "huge"],
            4,
            "picker 'general' has no preset 'huge'; it has: small\n",
        ),
        (["train", "general", "-o", "t", "--start", "other"], 7, "no weights named 'other'; known:"),
        (["train", "general", "-o", "t", "--steps", "many"], 4, "--steps: expected whole number, got 'many'"),
        (["train", "general", "-o", "t", "--set", "crops=3"], 4, "[task] has no setting crops; it has:"),
        (["train", "-o", "t", "--resume"], 5, "holds no training run to resume"),
        (
            ["finetune", "general", "--picks", "none.star", "-o", "t", "--weights", "none/x.safetensors"],
            7,
            "no such weights",
        ),
    ):
        failed = run(tmp_path, *arguments)
        assert failed.returncode == code, arguments
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
    assert not (tmp_path / "t").exists()


def test_without_a_terminal_the_making_of_crops_is_told_about_twenty_times(capsys: pytest.CaptureFixture[str]) -> None:
    monitor = ConsoleMonitor()
    for made in range(0, 1001, 10):
        monitor.prepared(made, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[-1]) == ("0 of 1000 images prepared", "1000 of 1000 images prepared")
    assert len(lines) == 21
