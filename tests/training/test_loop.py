"""The training loop: kills, stops, broken losses and full disks never change or lose weights."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from own_process import said_by
from toy_picker import PRESETS, ToyTask, ToyTrainable, train_toy

from cryopick.errors import RunFolderError, SettingsError, TrainingError, WeightsError
from cryopick.io.files.atomic import TEMPORARY_PREFIX
from cryopick.io.weights import (
    file_sha256,
    load_checkpoint,
    read_card,
    read_tensors,
    read_tensors_and_metadata,
)
from cryopick.training.loop import WEIGHTS_FILE, train
from cryopick.training.state import STATE_FILE, WeightAverage, read_progress
from cryopick.training.trainable import Preset, TrainSettings

SUPPORT = Path(__file__).parents[1] / "support"
SEARCH_PATH = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SEARCH_PATH, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums depend on how they are divided among threads, so runs are compared on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    train_toy(folder)
    return folder


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(SUPPORT / "cryopick_with_toy.py"), "train", *arguments]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if (folder / STATE_FILE).exists() and read_progress(folder / STATE_FILE).step >= step:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended before step {step}: {process.communicate()}")
        time.sleep(0.02)
    raise AssertionError(f"step {step} not reached")


def steps_in(table: Path) -> list[int]:
    with table.open() as stream:
        return [int(row["step"]) for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_run_killed_twice_ends_with_the_weights_of_an_undisturbed_run(tmp_path, undisturbed):
    folder = tmp_path / "killed"
    arguments = ["toy", "-o", str(folder), "--resume"]  # on a fresh folder it starts
    for kill_after in (6, 21):
        process = start(*arguments)
        wait_for_step(folder, kill_after, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # ends only when the workers, which hold the pipes too, have ended
        assert not (folder / WEIGHTS_FILE).exists()
        assert kill_after <= read_progress(folder / STATE_FILE).step < 40
        arguments = ["-o", str(folder), "--resume", "--workers", "1"]
    process = start(*arguments)
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert file_sha256(folder / WEIGHTS_FILE) == file_sha256(undisturbed / WEIGHTS_FILE)
    states = [read_tensors(run / STATE_FILE) for run in (folder, undisturbed)]
    assert states[0].keys() == states[1].keys()
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    for table in ("loss.csv", "validation.csv"):
        assert steps_in(folder / table) == steps_in(undisturbed / table)


@pytest.mark.slow
def test_terminated_run_saves_its_state_and_says_how_to_go_on(tmp_path):
    process = start("toy", "-o", str(tmp_path / "run"), "--steps", "100000", "--checkpoint-every", "50000")
    wait_for_step(tmp_path / "run", 0, process)
    while not (tmp_path / "run" / "loss.csv").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert b"--resume" in output
    assert read_progress(tmp_path / "run" / STATE_FILE).step > 0


@pytest.mark.slow
def test_training_starts_from_other_weights_and_is_never_worse(tmp_path, undisturbed):
    process = start("toy", "-o", str(tmp_path), "--start", str(undisturbed), "--steps", "2", "--learning-rate", "10")
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    card = read_card(tmp_path / WEIGHTS_FILE)
    assert card.settings["start"]["sha256"] == file_sha256(undisturbed / WEIGHTS_FILE)
    assert card.steps == 0
    assert card.scores["score"] == pytest.approx(read_card(undisturbed / WEIGHTS_FILE).scores["score"], rel=1e-3)


def test_number_of_workers_does_not_change_the_weights(tmp_path, undisturbed):
    said_by("import sys, pathlib, toy_picker; toy_picker.train_toy(pathlib.Path(sys.argv[1]), workers=2)", tmp_path)
    assert file_sha256(tmp_path / WEIGHTS_FILE) == file_sha256(undisturbed / WEIGHTS_FILE)


def test_run_stopped_by_the_clock_goes_on_to_the_same_weights(tmp_path, undisturbed):
    stopped = train_toy(tmp_path, max_minutes=1e-9)
    assert not stopped.is_finished
    assert stopped.steps == 2  # the clock is looked at with each line of the log
    finished = train_toy(tmp_path, resume=True)
    assert finished.is_finished
    assert file_sha256(tmp_path / WEIGHTS_FILE) == file_sha256(undisturbed / WEIGHTS_FILE)


def test_another_seed_gives_other_weights(tmp_path, undisturbed):
    train_toy(tmp_path, seed=1)
    assert file_sha256(tmp_path / WEIGHTS_FILE) != file_sha256(undisturbed / WEIGHTS_FILE)


def test_training_lowers_the_loss_and_keeps_the_best_weights(undisturbed):
    with (undisturbed / "validation.csv").open() as stream:
        scores = {int(row["step"]): float(row["score"]) for row in csv.DictReader(stream)}
    assert scores[40] > scores[10]
    card = read_card(undisturbed / WEIGHTS_FILE)
    assert card.scores["score"] == pytest.approx(max(scores.values()))
    assert card.steps == max(scores, key=scores.__getitem__)
    assert (card.picker, card.seed, card.settings["data"]) == ("toy", 0, "simulation")
    load_checkpoint(undisturbed / WEIGHTS_FILE, picker="toy", architecture=card.architecture)
    assert (undisturbed / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((undisturbed / "tensorboard").glob("events*"))


def test_weights_stored_in_half_precision_are_the_same_rounded(tmp_path, undisturbed):
    train_toy(tmp_path, stored_as="float16")
    exact, half = (read_tensors(folder / WEIGHTS_FILE) for folder in (undisturbed, tmp_path))
    assert exact.keys() == half.keys()
    for name, tensor in exact.items():
        if tensor.is_floating_point():
            assert str(half[name].dtype) == "torch.float16"
            assert (half[name].float() - tensor).abs().max() <= 2**-11 * tensor.abs().max()
        else:
            assert (half[name] == tensor).all()


def test_early_stopping_keeps_the_weights_before_they_got_worse(tmp_path):
    # a rate that ruins the network after the warm-up; without averaging every validation sees it
    result = train_toy(
        tmp_path, optimizer="sgd", learning_rate=500.0, warmup_steps=30, gradient_clip=0.0, ema_decay=0.0,
        validate_every=2, patience=2, weight_decay=0.0, task={"dropout": 0.0},
    )  # fmt: skip
    with (tmp_path / "validation.csv").open() as stream:
        scores = {int(row["step"]): float(row["score"]) for row in csv.DictReader(stream)}
    assert result.is_finished
    assert result.steps < 40
    assert result.best_step == max(scores, key=scores.__getitem__)
    assert result.steps == result.best_step + 4


def test_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(TrainingError, match="not a finite number before step 12; the state of step 9 is kept"):
        train_toy(tmp_path, task={"fails_after": 10})
    assert all(bool(t.isfinite().all()) for t in read_tensors(tmp_path / STATE_FILE).values())


def test_full_disk_keeps_the_last_good_state(tmp_path, undisturbed):
    """A limit on the size of files makes the system refuse the write, as a full disk does."""
    import resource

    folder = tmp_path / "run"
    train_toy(folder, max_minutes=1e-9)
    good = (folder / STATE_FILE).read_bytes()
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) - 1000, limits[1]))
    try:
        with pytest.raises(
            RunFolderError, match=r"the state of step 2 is kept; free space and run again with --resume"
        ):
            train_toy(folder, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert (folder / STATE_FILE).read_bytes() == good
    assert not list(folder.glob(f"{TEMPORARY_PREFIX}*"))
    train_toy(folder, resume=True)
    assert file_sha256(folder / WEIGHTS_FILE) == file_sha256(undisturbed / WEIGHTS_FILE)


def test_second_run_into_the_same_folder_is_refused_without_resume(undisturbed):
    with pytest.raises(RunFolderError, match="pass --resume"):
        train_toy(undisturbed)


def test_resume_with_other_settings_names_what_differs(undisturbed):
    with pytest.raises(RunFolderError, match=r"learning_rate was 0.003, is 0.1"):
        train_toy(undisturbed, resume=True, learning_rate=0.1)


def test_damaged_state_is_refused(tmp_path):
    train_toy(tmp_path, max_minutes=1e-9)
    content = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        train_toy(tmp_path, resume=True)


@pytest.mark.slow
def test_two_devices_learn_what_one_does_from_twice_the_batches(tmp_path):
    # with the same batches and no batch statistics or dropout the mean gradients are equal
    common = ["--set", "dropout=0", "--set", "has_norm=false", "--steps", "6"]
    two = start("toy", "-o", str(tmp_path / "two"), "--devices", "2", *common)
    output = two.communicate(timeout=300)
    assert two.returncode == 0, output
    train_toy(tmp_path / "one", task={"dropout": 0.0, "has_norm": False}, steps=6, accumulate=2)
    one, other = (read_tensors(tmp_path / name / WEIGHTS_FILE) for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=2e-6)


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    settings = TrainSettings(steps=110, warmup_steps=10, learning_rate=1.0, final_lr_fraction=0.1)
    assert [settings.learning_rate_at(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert settings.learning_rate_at(10) == pytest.approx(1.0)
    assert settings.learning_rate_at(60) == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert settings.learning_rate_at(110) == pytest.approx(0.1)


def test_epochs_become_steps_by_the_length_of_the_data():
    # 4,000 micrographs in batches of 8 on 2 devices: 250 steps an epoch
    asked = TrainSettings(epochs=300, warmup_epochs=0.5, validate_every_epochs=1, drop_at=200 / 300, devices=2,
                          schedule="drop", learning_rate=1e-4)  # fmt: skip
    settings = asked.in_steps(500)
    assert (settings.steps, settings.warmup_steps, settings.validate_every) == (75_000, 125, 250)
    assert settings.checkpoint_every == TrainSettings().checkpoint_every  # asked in steps, stays
    assert settings.learning_rate_at(49_999) == pytest.approx(1e-4)
    assert settings.learning_rate_at(50_000) == pytest.approx(1e-5)
    assert settings.in_steps(500) == settings


def test_a_plateau_lowers_the_rate_each_time_and_the_rest_of_the_schedule_does_not():
    settings = TrainSettings(schedule="plateau", plateau_factor=0.5, learning_rate=1.0, warmup_steps=0, steps=10)
    assert [settings.learning_rate_at(step, plateaus=p) for step, p in ((0, 0), (9, 0), (3, 1), (3, 2))] == [
        1.0, 1.0, 0.5, 0.25,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "steps", "epochs"), [({"steps": 7}, 7, None), ({"epochs": 2.0}, 100, 2.0), ({}, 100, 5.0)]
)
def test_steps_that_are_given_replace_the_epochs_of_a_preset(given, steps, epochs):
    preset = Preset(task=ToyTask(), training=TrainSettings(steps=100, epochs=5.0)).changed(task={}, training=given)
    assert (preset.training.steps, preset.training.epochs) == (steps, epochs)


def test_steps_and_epochs_together_are_refused_and_so_are_epochs_of_data_without_end(tmp_path):
    with pytest.raises(SettingsError, match="steps and epochs are both given"):
        train_toy(tmp_path, steps=3, epochs=2)
    with pytest.raises(SettingsError, match=r"epochs is given, and 'toy' cannot tell.*give steps"):
        train_toy(tmp_path, epochs=2)


def counting_toy(folder: Path, *, resume: bool = False, **training: object):
    """A training on data with an end: 4 batches an epoch; the score never gains on that of the first validation."""

    class Counting(ToyTrainable):
        def steps_per_epoch(self) -> int:
            return 4

        def validate(self, network):
            return {"score": 0.5}

    settings = replace(PRESETS["small"].training, **training)
    return train(Counting(ToyTask()), settings, folder, resume=resume)


def test_a_run_in_epochs_on_a_plateau_resumes_to_the_weights_of_an_undisturbed_one(tmp_path):
    asked = {"epochs": 3.0, "validate_every_epochs": 0.5, "warmup_epochs": 0.25, "schedule": "plateau",
             "plateau_patience": 2, "log_every": 1}  # fmt: skip
    whole = counting_toy(tmp_path / "whole", **asked)
    with (tmp_path / "whole" / "loss.csv").open() as stream:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(stream)]
    # validations after steps 2 (the best), 4, 6 (two without gain), 8, 10 (two again), 12
    assert rates == pytest.approx([3e-3] * 6 + [3e-4] * 4 + [3e-5] * 2)
    assert whole.steps == 12
    for _ in range(12):  # stopped after every step
        counting_toy(tmp_path / "parts", resume=True, max_minutes=1e-9, **asked)
    states = [read_tensors(tmp_path / name / STATE_FILE) for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[0])


def test_a_run_of_settings_that_came_later_goes_on_from_a_state_without_them(tmp_path):
    train_toy(tmp_path, max_minutes=1e-9)
    assert not {"drop_at", "plateau_factor", "plateau_patience"} & set(stored_fingerprint(tmp_path))
    with pytest.raises(RunFolderError, match=r"drop_at was None, is 0.5"):
        train_toy(tmp_path, resume=True, drop_at=0.5)


def stored_fingerprint(folder: Path) -> dict[str, object]:
    return json.loads(read_tensors_and_metadata(folder / STATE_FILE)[1]["fingerprint"])


def test_average_of_weights_follows_its_formula():
    import torch

    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = WeightAverage(network, decay=0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 3.0, 4.0] * 3):
        network.weight.data.fill_(value)
        average.update(network, step=step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.network.weight) == pytest.approx(expected)
