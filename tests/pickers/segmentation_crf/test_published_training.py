"""Training as published: crops as they are, the notebooks' loss, and what the article mends of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.data.datasets import Dataset, open_dataset
from cryopick.errors import SettingsError, WeightsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.raster import write_png
from cryopick.io.weights import Checkpoint, load_checkpoint
from cryopick.pickers.families import find_preset
from cryopick.pickers.segmentation_crf.losses import published_loss
from cryopick.pickers.segmentation_crf.mixture_normalization import normalized_by_mixture
from cryopick.pickers.segmentation_crf.published_training import (
    LEFT_OUT,
    PublishedTask,
    PublishedTrainable,
    class_map,
    load_start,
    what_decides_classes,
)
from cryopick.pickers.segmentation_crf.training import make_trainable
from cryopick.processing.targets import disc_instances
from cryopick.runs.settings import make_settings
from cryopick.types import PARTICLE_MAP
from cryopick.workflows.label import label
from cryopick.workflows.train import plan_training, train_picker

SHAPE_YX = (120, 160)
TINY = PublishedTask(backbone="fcn-resnet50", crop_px=32, batch_size=2)
COUNT = 5


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five micrographs, labelled, one label of each uncertain, and their masks by `cryopick label`."""
    folder = tmp_path_factory.mktemp("lab")
    for seed in range(COUNT):
        write_micrograph(folder / "data" / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        x, y = disc_centres(seed)[2]
        rows = [f"{x},{y},particle" for x, y in disc_centres(seed)[:2]]
        (folder / "data" / f"m{seed}.csv").write_text("\n".join(["x,y,kind", *rows, f"{x},{y},uncertain"]) + "\n")
    (folder / "data" / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    label(folder / "data", folder / "lab", shape="disc")
    return folder / "lab"


def trainable(lab: Path, task: PublishedTask = TINY) -> PublishedTrainable:
    dataset = open_dataset(lab)
    return PublishedTrainable(task, dataset, dataset.take([dataset.items[0].name]))


def test_crops_are_pieces_of_the_normalised_micrograph_neither_turned_nor_changed(lab: Path) -> None:
    one = trainable(lab)
    batch = one.make_batch(0, np.random.default_rng(0))
    assert batch["image"].shape == (2, 32, 32)
    wholes = [normalized_by_mixture(item.read().pixels) for item in one.train]
    classes = [class_map(item) for item in one.train]
    for image, drawn in zip(batch["image"].numpy(), batch["classes"].numpy(), strict=True):
        places = [
            (i, y, x)
            for i, whole in enumerate(wholes)
            for y, x in np.argwhere(whole[: 120 - 31, : 160 - 31] == image[0, 0])
            if np.array_equal(whole[y : y + 32, x : x + 32], image)
        ]
        ((i, y, x),) = places
        assert np.array_equal(classes[i][y : y + 32, x : x + 32], drawn)


def test_every_micrograph_comes_once_in_an_epoch_whose_last_batch_is_not_of_one_crop(lab: Path) -> None:
    one = trainable(lab)
    assert one.steps_per_epoch() == 2  # 2 and 3 crops of 5 micrographs
    seen = []
    one.sampler.crop_of = lambda index, rng: seen.append(index) or DrawnStub()  # type: ignore[assignment, func-returns-value, return-value]
    sizes = [len(one.make_batch(index, np.random.default_rng(0))["image"]) for index in range(4)]
    assert sizes == [2, 3, 2, 3]
    assert sorted(seen[:5]) == sorted(seen[5:]) == list(range(5))
    assert seen[:5] != seen[5:]


class DrawnStub:
    """A crop without content."""

    image = np.zeros((4, 4), np.float32)
    classes = np.zeros((4, 4), np.uint8)


def test_uncertain_discs_are_left_out_by_the_article_and_background_to_the_program(lab: Path) -> None:
    disc = disc_instances(disc_centres(0)[2:], DIAMETER_PX, shape_yx=SHAPE_YX).mask
    found = class_map(open_dataset(lab).items[0])
    assert (found[disc] == LEFT_OUT).all()
    assert sorted(np.unique(found)) == [0, 1, LEFT_OUT]
    program = trainable(lab, replace(TINY, count_ignored=True)).sampler.whole(0).classes
    assert (program[disc] == 0).all()
    assert (program == 1).sum() == (found == 1).sum()


def test_classes_kept_on_disk_are_those_of_all_that_decides_them(lab: Path, tmp_path: Path) -> None:
    item = open_dataset(lab).items[0]
    assert item.drawing is not None
    assert item.labels is not None
    assert item.drawing.ignored_path is not None
    ignored = tmp_path / "ignored.png"
    write_png(ignored, np.zeros(SHAPE_YX, np.uint8))
    same = what_decides_classes(open_dataset(lab).items[0])
    others = [
        replace(item, drawing=replace(item.drawing, levels=(0, 128, 255))),
        replace(item, drawing=replace(item.drawing, particle=0)),
        replace(item, drawing=replace(item.drawing, ignored_path=ignored)),
        replace(item, labels=replace(item.labels, is_uncertain=~item.labels.is_uncertain)),
    ]
    keys = [json.dumps(what_decides_classes(one)) for one in (item, *others)]
    assert keys[0] == json.dumps(same)
    assert len(set(keys)) == len(keys)


def test_masks_of_simulations_and_coordinates_alone_are_learnt_from_too(lab: Path) -> None:
    coordinates = open_dataset(lab.parent / "data").items[1]
    drawn = class_map(coordinates)
    truth = disc_instances(disc_centres(1)[:2], DIAMETER_PX, shape_yx=SHAPE_YX).mask
    assert ((drawn == 1) & truth).sum() / ((drawn == 1) | truth).sum() > 0.85
    write_png(lab.parent / "instances.png", np.where(truth, 7, 0).astype(np.uint16))
    simulated = replace(coordinates, instances_path=lab.parent / "instances.png")
    assert (class_map(simulated) == truth).all()


class Answering(torch.nn.Module):
    """A network that answers with fixed logits, made of its input, at the size of the input."""

    classes, in_channels = 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor, *, is_softmax_first: bool = False) -> torch.Tensor:
        logits = torch.cat([self.gain * x[:, :1], -self.gain * x[:, :1]], dim=1)
        return logits.softmax(dim=1) if is_softmax_first else logits


@pytest.mark.parametrize("softmax_twice", [False, True])
def test_the_loss_is_the_smoothed_cross_entropy_of_logits_or_of_probabilities(lab: Path, softmax_twice: bool) -> None:
    task = replace(TINY, softmax_twice=softmax_twice, count_ignored=True)
    one = trainable(lab, task)
    batch = one.make_batch(0, np.random.default_rng(1))
    network = Answering()
    found = float(one.loss(network, batch)["loss"].detach())
    logits = network(batch["image"][:, None])
    if softmax_twice:
        expected = published_loss(logits, batch["classes"].float())
    else:
        log_p = logits.log_softmax(dim=1)
        own = torch.where(batch["classes"] == 1, log_p[:, 1], log_p[:, 0])
        expected = -(0.9 * own + 0.1 * log_p.mean(dim=1)).mean()
    assert found == pytest.approx(float(expected.detach()), abs=1e-5)
    scores = one.validate(network)
    whole = one.judging.whole(0)
    piece = {
        "image": torch.from_numpy(np.array(whole.image))[None],
        "classes": torch.from_numpy(whole.classes.astype(np.int64))[None],
    }
    assert scores["loss"] == pytest.approx(float(one.loss(network, piece)["loss"].detach()), abs=1e-4)
    assert scores["score"] == -scores["loss"]


def test_presets_are_those_of_the_notebooks() -> None:
    article, program = (find_preset("segmentation-crf", name) for name in ("article", "program"))
    deeplab = find_preset("segmentation-crf", "article-deeplabv3")
    assert find_preset("segmentation-crf", "paper") == article
    for preset in (article, program):
        training = preset.training
        assert (preset.task.backbone, preset.task.crop_px, preset.task.batch_size) == ("fcn-resnet101", 512, 7)
        assert (preset.task.in_channels, preset.task.label_smoothing, preset.task.dropout) == (1, 0.1, 0.5)
        assert (training.optimizer, training.learning_rate, training.epochs) == ("adam", 1e-3, 100)
        assert (training.schedule, training.plateau_factor, training.plateau_patience) == ("plateau", 0.1, 4)
        assert (training.patience, training.ema_decay, training.validate_every_epochs) == (20, 0.0, 1)
    assert (deeplab.task.backbone, deeplab.task.crop_px, deeplab.task.batch_size) == ("deeplabv3-resnet50", 1024, 2)
    assert not article.task.softmax_twice
    assert (program.task.softmax_twice, program.task.count_ignored, program.task.rim_px) == (True, True, 128)


def test_training_needs_micrographs_and_sizes_that_fit(lab: Path) -> None:
    with pytest.raises(SettingsError, match="--data"):
        make_trainable(TINY, train=None, validation=None)
    with pytest.raises(SettingsError, match="less than crop_px 128"):
        trainable(lab, replace(TINY, crop_px=128)).make_batch(0, np.random.default_rng(0))
    with pytest.raises(SettingsError, match="batch norm"):
        replace(TINY, backbone="deeplabv3-resnet50", batch_size=1)
    dataset = open_dataset(lab)
    too_few = PublishedTrainable(replace(TINY, classes=2), _with_levels(dataset, (0, 1, 2)), dataset)
    with pytest.raises(SettingsError, match="the masks hold 3"):
        too_few.architecture()


def _with_levels(dataset: Dataset, levels: tuple[int, ...]) -> Dataset:
    items = tuple(replace(i, drawing=replace(i.drawing, levels=levels)) for i in dataset.items if i.drawing)
    return replace(dataset, items=items)


@pytest.fixture(scope="module")
def trained(lab: Path) -> Path:
    """A training of one step by `train --as article`, from the folder of `cryopick label`."""
    output = lab.parent / "trained"
    task = {"backbone": "fcn-resnet50", "crop_px": 32, "batch_size": 3}
    training = {"steps": 1, "validate_every": 1, "workers": 0, "accelerator": "cpu"}
    plan = plan_training("segmentation-crf", preset="article", data=str(lab), task=task, training=training)
    train_picker(plan, output)
    return output


def test_training_as_article_from_a_label_folder_gives_weights_that_pick(lab: Path, trained: Path) -> None:
    card = load_checkpoint(trained / "weights.safetensors").card
    assert card.architecture["classes"] == 2
    assert card.preprocessing["tile_px"] == 32
    assert card.scores["loss"] > 0
    item = open_dataset(lab).items[0]
    picker = make_settings("segmentation-crf", as_="article", crf="none", device="cpu", weights=trained).picker
    assert picker.pick(item.read()).maps[PARTICLE_MAP].shape == SHAPE_YX


def test_a_training_goes_on_from_trained_weights_and_from_files_of_torchvision(lab: Path, trained: Path) -> None:
    checkpoint: Checkpoint = load_checkpoint(trained / "weights.safetensors")
    one = trainable(lab)
    network = one.build_network()
    checkpoint.load_into(network)  # as `train --start` does
    state = network.state_dict()
    resnet = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    resnet["conv1.weight"] = torch.zeros(64, 3, 7, 7)  # ImageNet's, of three planes
    torch.save(
        {**resnet, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, lab.parent / "imagenet.pth"
    )
    fresh = one.build_network()
    left = load_start(fresh, lab.parent / "imagenet.pth")
    assert {name.split(".")[0] for name in left} == {"backbone", "classifier"}
    assert [name for name in left if name.startswith("backbone")] == ["backbone.conv1.weight"]
    assert torch.equal(fresh.state_dict()["backbone.layer2.0.conv1.weight"], state["backbone.layer2.0.conv1.weight"])
    torch.save({"layer1.0.conv1.weight": torch.zeros(2)}, lab.parent / "other.pth")
    with pytest.raises(WeightsError, match="expected a file of torchvision"):
        load_start(fresh, lab.parent / "other.pth")
    torch.save({"conv1.weight": torch.zeros(64, 1, 7, 7), "layer9.weight": torch.zeros(2)}, lab.parent / "odd.pth")
    with pytest.raises(WeightsError, match="has unknown"):
        load_start(fresh, lab.parent / "odd.pth")
