"""`cryopick finetune general`, killed and resumed, ends with the weights of an undisturbed run, bit for bit.

Its network lies channels last in memory and its optimizer is a fused AdamW, which a small network of linear layers
would not show.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import file_sha256, read_tensors
from cryopick.training.state import STATE_FILE, read_progress

STEPS = {"steps": 4, "warmup-steps": 1, "validate-every": 2, "checkpoint-every": 1, "log-every": 1}
TASK = {"crop_px": 64, "batch_size": 2, "validation_crops": 2, "calibration_crops": 2, "micrograph_share": 0}


def start(folder: Path, output: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cryopick.cli.main", "finetune", "general", "--picks", "mics", "-o", output]
    command += ["--diameter", f"{DIAMETER_PX}px", "--labels", "complete", "--accelerator", "cpu", *arguments]
    command += [word for name, value in STEPS.items() for word in (f"--{name}", str(value))]
    command += [word for name, value in {**TASK, "distinct_crops": 0}.items() for word in ("--set", f"{name}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: "subprocess.Popen[str]") -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def rows(table: Path) -> list[dict[str, str]]:
    with table.open() as stream:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_a_killed_finetuning_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    for seed in range(2):
        write_micrograph(tmp_path / "mics" / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        centres = "\n".join(f"{x},{y}" for x, y in disc_centres(seed))
        (tmp_path / "mics" / f"m{seed}.csv").write_text(f"x,y\n{centres}\n")
    undisturbed = start(tmp_path, "undisturbed")
    finish(undisturbed)
    killed, state = start(tmp_path, "killed"), tmp_path / "killed" / STATE_FILE
    end = time.monotonic() + 600
    while not (state.exists() and read_progress(state).step >= 2):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    finish(start(tmp_path, "killed", "--resume"))
    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    first, second = (read_tensors(folder / STATE_FILE) for folder in folders)
    assert first.keys() == second.keys()
    assert [name for name in first if not (first[name] == second[name]).all()] == []
    assert file_sha256(folders[0] / "weights.safetensors") == file_sha256(folders[1] / "weights.safetensors")
    for table in ("loss.csv", "validation.csv"):
        assert rows(folders[0] / table) == rows(folders[1] / table)
    assert (folders[0] / "weights.json").read_bytes() == (folders[1] / "weights.json").read_bytes()
