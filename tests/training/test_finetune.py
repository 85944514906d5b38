"""Fine-tuning: learns the new data, does not forget the old, never ends worse than it began."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_picker
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from toy_picker import ToyTask, ToyTrainable, train_toy

from cryopick.errors import InputError, SettingsError, WeightsError
from cryopick.geometry.units import parse_length
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import (
    Checkpoint,
    ModelCard,
    check_architecture,
    find_weights,
    load_checkpoint,
    read_card,
    read_tensors,
)
from cryopick.pickers.families import make_trainable
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import make_settings
from cryopick.runs.stored_settings import plan_of_run
from cryopick.training.finetuning import Before, MixedTrainable
from cryopick.training.loop import TrainResult
from cryopick.training.trainable import Preset, TrainSettings
from cryopick.workflows.finetune import base_preset, calibrated_shortly, finetune, finetuning_preset
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.train import plan_training, train_picker


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    train_toy(folder, steps=10)
    return folder


@pytest.fixture
def picks(tmp_path: Path) -> Path:
    """A STAR file with picks on three micrographs."""
    rows = []
    for seed in range(3):
        write_micrograph(tmp_path / "mics" / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        rows += [f"mics/m{seed}.mrc {x} {y}" for x, y in disc_centres(seed)]
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (tmp_path / "good.star").write_text(head + "\n".join(rows) + "\n\n")
    return tmp_path / "good.star"


def tune(picks: Path, start: Path, **training: object):
    return finetune(
        "toy",
        picks,
        picks.parent / "tuned",
        weights=start,
        diameter=parse_length(f"{DIAMETER_PX}px"),
        labels="complete",
        training={"steps": 12, "validate_every": 4, "learning_rate": 3e-3, **training},
    )


def test_both_curves_are_kept_and_new_data_are_learnt(picks, start):
    result = tune(picks, start)
    assert result.is_better
    assert result.after["new"] > result.before["new"]
    assert result.after["old"] >= result.before["old"] - 0.02
    with (picks.parent / "tuned" / "validation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [0, 4, 8, 12]
    assert float(rows[0]["new"]) == pytest.approx(result.before["new"], rel=1e-6)
    assert float(rows[0]["old"]) == pytest.approx(result.before["old"], rel=1e-6)
    card = read_card(picks.parent / "tuned" / "weights.safetensors")
    assert card.settings["started_from"] == read_card(start / "weights.safetensors").sha256
    assert any("only 9 labelled particles" in text for text in result.warnings)


@pytest.mark.parametrize("picker", ["cryosegnet", "cryotransformer", "general", "segmentation-crf"])
def test_shipped_weights_are_tuned_as_the_network_that_they_are_whatever_presets_have_become(picker):
    shipped = load_checkpoint(find_weights(picker), picker=picker)
    task = finetuning_preset(picker, shipped, {}, {}).task
    trainable = make_trainable(picker, task, train=None, validation=None)
    check_architecture(shipped.card, trainable.architecture(), where=picker)


def test_ruinous_rate_leaves_the_original_weights(picks, start):
    result = tune(picks, start, optimizer="sgd", learning_rate=50.0)
    assert not result.is_better
    assert result.training.best_step == 0
    assert any("the weights are the original ones" in text for text in result.warnings)
    before, after = (read_tensors(f / "weights.safetensors") for f in (start, picks.parent / "tuned"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_of_another_picker_and_odd_accumulation_are_refused(picks, start):
    with pytest.raises(WeightsError, match="no weights named 'toy'"):
        finetune("toy", picks, picks.parent / "tuned")
    with pytest.raises(SettingsError, match="needs an even number"):
        tune(picks, start, accumulate=3)


class Scored:
    """A trainable that scores as told and gives batches that name it."""

    picker = "scored"

    def __init__(self, score: float, mark: float) -> None:
        self.score, self.mark = score, mark

    def validate(self, network: object) -> dict[str, float]:
        return {"score": self.score}

    def make_batch(self, index: int, rng: object) -> dict[str, torch.Tensor]:
        return {"value": torch.tensor([self.mark, float(index)])}

    def loss(self, network: object, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert float(batch["value"][0]) == self.mark
        return {"loss": batch["value"][0]}


@pytest.mark.parametrize(
    ("new", "old", "is_kept"), [(0.6, 0.80, True), (0.6, 0.785, True), (0.99, 0.75, False), (0.4, 0.9, False)]
)
def test_forgetting_too_much_never_beats_the_start(new, old, is_kept):
    mixed = MixedTrainable(new=Scored(new, 1.0), old=Scored(old, 2.0), before=Before(new=0.5, old=0.8))
    assert (mixed.validate(None)["score"] > 0.5) == is_kept


def test_statistics_of_batch_norms_stay_those_of_the_old_data():
    class Normed(Scored):
        def loss(self, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"loss": network(batch["value"][:, None]).square().mean()}

    network = torch.nn.BatchNorm1d(1).train()
    mixed = MixedTrainable(new=Normed(0, 5.0), old=Normed(0, -3.0), before=Before(new=0, old=0))
    for index in range(4):
        mixed.loss(network, mixed.make_batch(index, np.random.default_rng(0)))["loss"].backward()
    assert network.running_mean.tolist() == [0.0]
    assert network.running_var.tolist() == [1.0]
    assert float(network.weight.grad) != 0


def test_batches_alternate_and_each_is_judged_by_its_own_loss():
    mixed = MixedTrainable(new=Scored(0, 1.0), old=Scored(0, 2.0), before=Before(new=0, old=0))
    batches = [mixed.make_batch(index, np.random.default_rng(0)) for index in range(4)]
    assert [batch["value"].tolist() for batch in batches] == [[1, 0], [2, 0], [1, 1], [2, 1]]
    losses = [mixed.loss(torch.nn.Identity(), batch) for batch in batches[:2]]
    # the mean over a step of one batch of each kind is what each says
    assert float(losses[0]["new"] + losses[1]["new"]) / 2 == 1.0
    assert float(losses[0]["old"] + losses[1]["old"]) / 2 == 2.0


class Calibrated(Scored):
    """A trainable whose card tells where its calibration is from."""

    def card_entries(self, network: object) -> dict[str, object]:
        return {"postprocessing": {"calibration": self.mark}, "data": {"kind": self.mark}}

    def card_data(self) -> dict[str, object]:
        return {"kind": self.mark}


def test_calibration_is_made_once_and_that_of_kept_start_weights_is_their_own():
    class TooCostly(Calibrated):
        def card_entries(self, network: object) -> dict[str, object]:
            raise AssertionError("calibrated twice")

    network = torch.nn.Linear(2, 2)
    card = ModelCard(picker="scored", architecture={}, postprocessing={"calibration": "shipped"}, data={"kind": 0.0})
    start = Checkpoint({name: one.detach().half().float() for name, one in network.state_dict().items()}, card)
    mixed = MixedTrainable(new=Calibrated(0, 1.0), old=TooCostly(0, 2.0), before=Before(new=0, old=0), start=start)
    entries = mixed.card_entries(network)
    assert entries["postprocessing"] == {"calibration": 1.0}
    assert entries["data"] == {"new": {"kind": 1.0}, "old": {"kind": 2.0}}
    start.load_into(network)
    assert mixed.card_entries(network)["postprocessing"] == {"calibration": "shipped"}


@pytest.mark.parametrize(
    ("steps", "given", "crops"),
    [(8, {}, 32), (120, {}, 64), (240, {}, 128), (900, {}, 128), (8, {"calibration_crops": "96"}, 96)],
)
def test_few_steps_are_calibrated_on_few_crops_unless_the_user_says_how_many(steps, given, crops):
    shipped = load_checkpoint(find_weights("general"), picker="general")
    preset = finetuning_preset("general", shipped, given, {"steps": steps})
    assert calibrated_shortly(preset, given).calibration_crops == crops


@pytest.fixture
def bright_run(tmp_path: Path) -> Path:
    """A run on micrographs whose particles are bright, which was told the diameter, the pixel size and the contrast."""
    folder = tmp_path / "bright"
    for seed in range(3):
        write_micrograph(folder / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed).inverted())
    settings = make_settings("blob", diameter=f"{1.5 * DIAMETER_PX}A", pixel_size_angstrom=1.5, contrast="bright")
    pick_to_folder([folder], tmp_path / "run", settings)
    return tmp_path / "run"


def trained_on(monkeypatch, module: str) -> list:
    """What reaches the training loop, instead of a training."""
    seen: list = []

    def note(trainable, settings, folder, **options):
        seen.append((trainable, settings, options))
        return TrainResult(weights=folder / "weights.safetensors", steps=1, is_finished=True, reason="finished",
                           scores={"score": 0.7, "new": 0.7, "old": 0.8}, best_step=1)  # fmt: skip

    monkeypatch.setattr(f"cryopick.workflows.{module}.train", note)
    return seen


def test_a_run_folder_says_all_that_fine_tuning_needs(bright_run, start, tmp_path, monkeypatch):
    seen = trained_on(monkeypatch, "finetune")
    finetune("toy", bright_run, tmp_path / "tuned", weights=start)
    ((mixed, _, _),) = seen
    items = [item for part in mixed.new.data for item in part]
    assert {item.name for item in items} == {"m0.mrc", "m1.mrc", "m2.mrc"}
    for item in items:
        assert item.diameter_px == pytest.approx(DIAMETER_PX)
        assert item.pixel_size_angstrom == 1.5
        dark = disc_micrograph("m", seed=int(item.name[1])).pixels
        np.testing.assert_allclose(item.read().pixels, dark, rtol=1e-6)
    finetune("toy", bright_run, tmp_path / "other", weights=start, contrast="dark", diameter=parse_length("24px"))
    changed = next(iter(seen[1][0].new.data[0]))
    assert changed.diameter_px == 24
    assert changed.read().pixels.max() > dark.max()  # as stored: particles bright


def test_picks_below_a_least_score_teach_neither_way(bright_run, picks, start, tmp_path, monkeypatch):
    seen = trained_on(monkeypatch, "finetune")
    scores = np.concatenate([one.score for one in read_picks(bright_run / "particles.star").values()])
    least = float(np.median(scores))
    finetune("toy", bright_run, tmp_path / "tuned", weights=start, min_score=least)
    items = [item for part in seen[0][0].new.data for item in part]
    certain = sum(int((~item.labels.is_uncertain).sum()) for item in items)
    assert sum(len(item.labels) for item in items) == len(scores), (
        "they stay known, so that nothing there is background"
    )
    assert 0 < certain == int((scores >= np.float32(least)).sum()) < len(scores)
    with pytest.raises(InputError, match="no pick has a score of 1e"):
        finetune("toy", bright_run, tmp_path / "none", weights=start, min_score=1e6)
    with pytest.raises(InputError, match="picks without a score, and a least score was asked for"):
        finetune("toy", picks, tmp_path / "bare", weights=start, diameter=f"{DIAMETER_PX}px", min_score=0.5)


def test_a_micrograph_on_which_a_run_found_nothing_is_learnt_from_at_the_diameter_of_the_run(
    bright_run, start, tmp_path, monkeypatch
):
    seen = trained_on(monkeypatch, "finetune")
    noise = np.random.default_rng(9).normal(0, 0.3, (120, 160)).astype(np.float32)
    write_micrograph(tmp_path / "bright/m3.mrc", replace(disc_micrograph("m3"), pixels=noise))
    run = tmp_path / "with-empty"
    pick_to_folder([tmp_path / "bright"], run, plan_of_run(RunFolder(bright_run)).settings)
    finetune("toy", run, tmp_path / "tuned", weights=start)
    found = {item.name: item for part in seen[0][0].new.data for item in part}
    assert len(found["m3.mrc"].labels) == 0
    assert found["m3.mrc"].diameter_px == pytest.approx(DIAMETER_PX)


def test_a_run_folder_is_a_data_set_to_train_on_with_its_diameter_and_contrast(
    bright_run, tmp_path, monkeypatch, caplog
):
    seen = trained_on(monkeypatch, "train")
    train_picker(plan_training("toy", data=str(bright_run)), tmp_path / "t")
    ((trainable, _, _),) = seen
    assert [item.diameter_px for item in trainable.data[0]] == pytest.approx([DIAMETER_PX] * 2)
    assert all(item.is_bright for part in trainable.data for item in part)
    assert "teach as complete labels" in caplog.text


def test_a_network_that_cannot_learn_from_simulation_learns_from_the_new_data_alone_and_says_so(
    picks, start, monkeypatch
):
    def whole_only(task, *, train, validation):
        if train is None:
            raise SettingsError("the toy learns from whole micrographs: give --data")
        return ToyTrainable(task, data=(train, validation))

    monkeypatch.setattr(toy_picker, "make_trainable", whole_only)
    result = tune(picks, start, accumulate=1)  # no old data, so one batch a step is enough
    assert any("from the new data alone" in text and "whole micrographs" in text for text in result.warnings)
    assert np.isnan(result.before["old"])
    assert "old" not in result.after
    assert result.is_better
    assert result.after["new"] > result.before["new"]
    again = finetune("toy", picks, picks.parent / "tuned", weights=start, diameter=parse_length(f"{DIAMETER_PX}px"),
                     labels="complete", training={"steps": 12, "validate_every": 4, "learning_rate": 3e-3,
                                                  "accumulate": 1}, resume=True)  # fmt: skip
    assert again.before["new"] == result.before["new"]


def card(**entries: object) -> Checkpoint:
    return Checkpoint({}, ModelCard(picker="toy", architecture={"network": "toy", "channels": 7}, **entries), None)


def published_toy(monkeypatch) -> None:
    published = Preset(
        task=ToyTask(batch_size=6), training=TrainSettings(optimizer="adam", learning_rate=1e-4, epochs=200.0)
    )
    in_steps = replace(published, training=replace(published.training, epochs=None, steps=10**6))
    monkeypatch.setattr(toy_picker, "PRESETS", {**toy_picker.PRESETS, "article": published, "program": in_steps})


def test_the_base_of_fine_tuning_is_the_preset_that_the_card_names(monkeypatch):
    published_toy(monkeypatch)
    assert base_preset("toy", card(settings={"preset": "article"}), None) == "article"
    assert base_preset("toy", card(settings={"preset": "finetune", "base_preset": "program"}), None) == "program"
    assert base_preset("toy", card(settings={"preset": "paper"}), None) == "article"
    assert base_preset("toy", card(data={"imported_from": {}}), None) == "program"
    assert base_preset("toy", card(), None) == "small"
    assert base_preset("toy", card(), "article") == "article"
    with pytest.raises(SettingsError, match="expected article or program"):
        base_preset("toy", card(), "small")


def test_published_networks_are_trained_on_as_published_and_only_as_long_as_is_asked(monkeypatch):
    published_toy(monkeypatch)
    start = card(settings={"preset": "article"})
    tuned = finetuning_preset("toy", start, {}, {}, is_mixed=False)
    assert tuned.task == ToyTask(batch_size=6, channels=7)  # the network is that of the weights
    assert tuned.training == TrainSettings(optimizer="adam", learning_rate=1e-4, epochs=200.0)
    assert finetuning_preset("toy", start, {}, {"epochs": 3}).training.epochs == 3
    shorter = finetuning_preset("toy", start, {}, {}, base="program", is_mixed=False).training
    assert (shorter.steps, shorter.epochs, shorter.learning_rate) == (240, None, 1e-4)
