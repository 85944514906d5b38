"""Training of the published network: COCO data in, boxes that mean what they say, weights that survive a restart."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from cryopick.data.datasets import open_dataset  # noqa: E402
from cryopick.data.prepared_cache import Prepared, PreparedCache  # noqa: E402
from cryopick.errors import SettingsError  # noqa: E402
from cryopick.geometry.units import Length  # noqa: E402
from cryopick.io.coordinates.coco import read_coco, write_coco  # noqa: E402
from cryopick.io.images.micrographs import write_micrograph  # noqa: E402
from cryopick.io.weights import load_checkpoint  # noqa: E402
from cryopick.pickers.cryotransformer import detr_trainable  # noqa: E402
from cryopick.pickers.cryotransformer.detr_model import prepare_image, resized  # noqa: E402
from cryopick.pickers.cryotransformer.detr_trainable import (  # noqa: E402
    BoxedImage,
    DetrTask,
    DetrTrainable,
    augmented,
    boxed,
    clipped,
    padded,
    sized,
)
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker  # noqa: E402
from cryopick.pickers.families import find_preset  # noqa: E402
from cryopick.simulation.crops import Crop  # noqa: E402
from cryopick.training.crop_bank import SimulatedCrops  # noqa: E402
from cryopick.training.logs import read_table  # noqa: E402
from cryopick.training.loop import WEIGHTS_FILE, train  # noqa: E402
from cryopick.training.trainable import TrainSettings  # noqa: E402
from cryopick.types import Picks  # noqa: E402

TINY = {
    "backbone": "resnet18",
    "queries": 12,
    "width": 32,
    "heads": 4,
    "layers": 2,
    "feed_width": 32,
    "short_px": 64,
    "longest_px": 128,
    "batch_size": 2,
    "validation_images": 2,
}
TILES = TINY | {"behaviour": "corrected", "denoising": "corrected"}
"""Ours: tiles in which the queries suffice."""


@pytest.fixture
def coco_set(tmp_path):
    """Two micrographs of three discs, with COCO annotations."""
    folder = tmp_path / "micrographs"
    folder.mkdir()
    picks = []
    for seed in range(2):
        micrograph = disc_micrograph(f"disc{seed}.mrc", seed=seed)
        write_micrograph(folder / micrograph.name, micrograph)
        picks.append(
            Picks(
                xy_px=disc_centres(seed),
                diameter_px=np.full(3, DIAMETER_PX),
                micrograph_name=micrograph.name,
                shape_yx=micrograph.shape_yx,
            )
        )
    path = tmp_path / "particles.json"
    write_coco(path, picks)
    return path, folder


def open_set(coco_set):
    path, folder = coco_set
    return open_dataset(path, micrographs=[folder]).labelled()


def test_a_coco_data_set_gives_its_particles_as_boxes_in_shares_of_the_image(coco_set):
    dataset = open_set(coco_set)
    task = DetrTask(**TILES | {"queries": 200})  # enough for the whole micrograph in one view
    trainable = DetrTrainable(task, dataset, dataset)
    rng = np.random.default_rng(0)
    found = [sized(trainable.source.sampler.crop(number, rng), task) for number in range(2)]
    expected = [(disc_centres(seed) + 0.5) / [160, 120] for seed in range(2)]
    centres = [view.boxes[:, :2] for view in found]
    assert any(np.allclose(centres[0], one, atol=1e-6) for one in expected)
    assert any(np.allclose(centres[1], one, atol=1e-6) for one in expected)
    np.testing.assert_allclose(found[0].boxes[:, 2:], [[DIAMETER_PX / 160, DIAMETER_PX / 120]] * 3)
    assert found[0].grey.shape == (64, 85)
    dark = [view.grey[tuple((view.boxes[:, 1::-1].T * [[64], [85]]).astype(int))] for view in found]
    assert all(values.mean() < view.grey.mean() - 0.05 for values, view in zip(dark, found, strict=True))


def test_particles_of_published_annotations_are_read_although_they_are_marked_as_crowds(coco_set):
    """The published files mark every box as a crowd, which evaluation programs leave out."""
    path, _ = coco_set
    content = json.loads(path.read_text())

    def counted(annotations):
        return sum(not one["iscrowd"] for one in annotations)

    assert counted(content["annotations"]) == 6
    published = [{**one, "iscrowd": 1} for one in content["annotations"]]
    assert counted(published) == 0
    path.write_text(json.dumps({**content, "annotations": published}))
    assert sum(len(one) for one in read_coco(path).values()) == 6
    assert sum(len(item.labels) for item in open_set(coco_set)) == 6


def test_tiles_are_small_enough_for_the_queries(coco_set):
    dataset = open_set(coco_set)
    views = DetrTrainable(DetrTask(**TILES), dataset, dataset).source.sampler
    rng = np.random.default_rng(0)
    for number in range(10):
        view = views.crop(number, rng)
        share = DIAMETER_PX / view.boxes[0, 2:].mean() if len(view.boxes) else None
        assert share is None or share < 3 * DIAMETER_PX  # 12 queries suffice for 2.5 diameters


def test_published_images_are_upside_down_and_their_boxes_with_them(coco_set):
    dataset = open_set(coco_set)
    task = DetrTask(**TINY, behaviour="published", denoising="none", augment="none")
    view = DetrTrainable(task, dataset, dataset).source.sampler.crop(0, np.random.default_rng(0))
    view = sized(view, task)
    expected = [(disc_centres(seed) * [1, -1] + [0.5, 119.5]) / [160, 120] for seed in range(2)]
    assert any(np.allclose(view.boxes[:, :2], one, atol=1e-6) for one in expected)
    rows, columns = (view.boxes[:, 1::-1].T * [[64], [85]]).astype(int)
    assert view.grey[rows, columns].mean() < view.grey.mean() - 0.05


def test_published_boxes_at_the_border_are_cut_and_their_centres_move():
    boxes = np.array([[0.0, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [-0.2, 0.5, 0.1, 0.1]])
    np.testing.assert_allclose(clipped(boxes), [[0.05, 0.5, 0.1, 0.2], [0.5, 0.5, 0.2, 0.2]])


@pytest.mark.parametrize("behaviour", ["corrected", "article", "published"])
def test_boxes_stay_on_their_particles_through_augmentation(coco_set, behaviour):
    dataset = open_set(coco_set)
    task = DetrTask(
        **TINY | {"queries": 200, "short_px": 240, "longest_px": 480}, behaviour=behaviour, denoising="none"
    )
    views = DetrTrainable(task, dataset, dataset).source.sampler
    rng = np.random.default_rng(1)
    seen = 0
    for number in range(12):
        view = augmented(views.crop(number, rng), task, rng)
        height, width = view.grey.shape
        inside = ((view.boxes[:, :2] > 0.1) & (view.boxes[:, :2] < 0.9)).all(axis=1)
        for x, y, *_ in view.boxes[inside]:
            row, column = int(y * height), int(x * width)
            around = view.grey[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
            assert around.mean() < np.median(view.grey) - 0.05
            seen += 1
    assert seen > 15


def test_a_batch_is_padded_and_its_boxes_follow(coco_set):
    dataset = open_set(coco_set)
    trainable = DetrTrainable(DetrTask(**TILES | {"queries": 200}), dataset, dataset)
    batch = trainable.make_batch(0, np.random.default_rng(3))
    assert batch["grey"].shape == batch["mask"].shape
    assert len(batch["grey"]) == 2
    for number, x, y, _, _ in batch["boxes"].tolist():
        mask = batch["mask"][int(number)]
        assert mask[int(y * mask.shape[0]), int(x * mask.shape[1])] == 1


def test_padding_fills_up_to_the_largest_image():
    grey, mask = padded([np.zeros((2, 5), np.float32), np.ones((4, 3), np.float32)])
    assert grey.shape == (2, 4, 5)
    assert mask.sum(axis=(1, 2)).tolist() == [10, 12]


def test_the_published_denoiser_is_undone_in_coordinates():
    pixels = np.random.default_rng(0).normal(0, 1, (200, 200)).astype(np.float32)
    pixels[98:103, 118:123] -= 12
    prepared = prepare_image(pixels, diameter_px=10, denoising="published")
    rows, columns = np.mgrid[:200, :200]
    grey = prepared.grey / 255
    weight = np.clip(np.median(grey) - 0.15 - grey, 0, None)
    found = np.array([[(weight * columns).sum(), (weight * rows).sum()]]) / weight.sum()
    assert np.hypot(*(prepared.to_stored_xy(found) - [[120, 100]])[0]) < 1.0
    assert np.hypot(*(found - [[120, 100]])[0]) > 3.0
    np.testing.assert_allclose(prepared.to_stored_xy(prepared.to_working_xy(found)), found)


def test_resizing_is_that_of_the_specification():
    assert resized(np.zeros((371, 384), np.float32), short_px=800, longest_px=1333).shape == (800, 828)


@pytest.mark.parametrize(("name", "drop"), [("article", 200), ("program", 150)])
def test_the_presets_have_the_settings_of_the_article_and_of_the_program(name, drop):
    preset = find_preset("cryotransformer", name)
    task, training = preset.task, preset.training
    assert (task.backbone, task.queries, task.width, task.heads, task.layers) == ("resnet152", 600, 256, 8, 6)
    assert (task.feed_width, task.dropout, task.batch_size, task.backbone_rate) == (2048, 0.1, 8, 0.1)
    expected = {"article": ("article", "article"), "program": ("published", "published")}
    assert (task.behaviour, task.denoising) == expected[name]
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adamw", 1e-4, 1e-4)
    assert (training.gradient_clip, training.epochs) == (0.1, 300)
    in_steps = training.in_steps(646)  # 5,172 images, 8 at a time, the last incomplete batch dropped
    assert in_steps.steps == 193_800
    rates = [in_steps.learning_rate_at(epoch * 646) for epoch in (0, drop - 1, drop, 299)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    assert find_preset("cryotransformer", "paper") == find_preset("cryotransformer", "article")


def test_augmentation_is_the_programs_distribution_of_sizes():
    """A particle of 42 px on 1600 px: the program's own code gave a median of 17.6 px in 300 draws, 25.8 px at 95 %,
    and 11 % of the images at 800 px."""
    task = DetrTask(**TINY | {"short_px": 800, "longest_px": 1333}, denoising="as_is")
    rng = np.random.default_rng(0)
    share = 42 / 1600
    image = BoxedImage(np.full((1600, 1600), 128, np.uint8), np.array([[0.5, 0.5, share, share]]))
    views = [augmented(image, task, rng) for _ in range(300)]
    shorter = np.array([min(view.grey.shape) for view in views])
    assert set(shorter) <= set(np.arange(480, 801, 32))
    assert np.mean(shorter == 800) == pytest.approx(0.11, abs=0.05)
    widths = [box[2] * view.grey.shape[1] for view in views for box in view.boxes]
    assert np.percentile(widths, 50) == pytest.approx(17.6, rel=0.06)
    assert np.percentile(widths, 95) == pytest.approx(25.8, rel=0.1)


def test_pictures_of_eight_bits_stay_such_through_augmentation():
    task = DetrTask(**TINY)
    image = BoxedImage(np.arange(10_000, dtype=np.uint8).reshape(100, 100), np.zeros((0, 4)))
    assert augmented(image, task, np.random.default_rng(0)).grey.dtype == np.uint8


def test_the_backbone_learns_at_a_tenth_of_the_rate_and_its_first_stage_not_at_all():
    trainable = DetrTrainable(DetrTask(**TINY))
    trainable.source.crops = Two()
    network = trainable.build_network()
    rest, backbone = trainable.parameter_groups(network)
    assert backbone["lr_factor"] == pytest.approx(1e-5 / 1e-4)
    frozen = sum(not one.requires_grad for one in network.parameters())
    assert len(rest["params"]) + len(backbone["params"]) + frozen == len(list(network.parameters()))


class Two:
    """Two simulated micrographs, small ones, again and again."""

    crops: tuple[Crop, ...] = ()

    def crop(self, index):
        if not Two.crops:
            source = SimulatedCrops(crop_px=96, far_scale_share=0.0, seed=5, count=0)
            found = (source.crop(number) for number in range(60))
            Two.crops = tuple(crop for crop in found if 6 <= len(crop.xy_px) <= 14)[:2]
        return Two.crops[index % 2]


@pytest.mark.parametrize("width", [32, 36])
def test_a_width_that_the_heads_do_not_divide_is_refused(width):
    if width == 32:
        DetrTask(**TINY | {"width": width})
    else:
        with pytest.raises(SettingsError, match="heads"):
            DetrTask(**TINY | {"width": width})


def test_a_restarted_run_ends_with_the_weights_of_an_undisturbed_one_head_and_queries_included(coco_set, tmp_path):
    """The published program makes class head and queries anew on every restart; here that would show."""
    torch.set_num_threads(1)
    dataset = open_set(coco_set)
    settings = TrainSettings(steps=4, warmup_steps=0, ema_decay=0, validate_every=4, checkpoint_every=2, log_every=1)
    trainable = DetrTrainable(DetrTask(**TILES), dataset, dataset)
    train(trainable, settings, tmp_path / "whole")

    class Stopping(DetrTrainable):
        def make_batch(self, index, rng):
            if index == 3:
                raise KeyboardInterrupt
            return super().make_batch(index, rng)

    with pytest.raises(KeyboardInterrupt):
        train(Stopping(DetrTask(**TILES), dataset, dataset), settings, tmp_path / "stopped")
    train(trainable, settings, tmp_path / "stopped", resume=True)
    whole, stopped = (load_checkpoint(tmp_path / name / WEIGHTS_FILE).tensors for name in ("whole", "stopped"))
    assert set(whole) == set(stopped)
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name
    made_anew = ("class_embed", "query_embed")
    first = trainable.build_network().state_dict()
    for part in made_anew:
        name = next(name for name in whole if part in name and name.endswith("weight"))
        assert not torch.equal(whole[name], first[name])


def test_trained_weights_pick_and_the_card_says_how(coco_set, tmp_path):
    torch.set_num_threads(1)
    dataset = open_set(coco_set)
    settings = TrainSettings(steps=1, warmup_steps=0, ema_decay=0, validate_every=1, checkpoint_every=1)
    train(DetrTrainable(DetrTask(**TILES), dataset, dataset), settings, tmp_path / "run")
    picker = CryoTransformerPicker(
        diameter=Length(20, 20, "px"), weights=tmp_path / "run" / WEIGHTS_FILE, precision="float32"
    )
    micrograph = disc_micrograph("disc0.mrc")
    picks = picker.pick(micrograph)
    assert ((picks.score >= 0) & (picks.score <= 1)).all()
    width_height = np.array(micrograph.shape_yx[::-1])
    assert ((picks.xy_px >= -0.5) & (picks.xy_px < width_height - 0.5)).all()
    card = load_checkpoint(tmp_path / "run" / WEIGHTS_FILE).card
    assert card.preprocessing["behaviour"] == "corrected"


@pytest.mark.slow
def test_the_published_network_reduced_overfits_two_simulated_micrographs():
    """The same code as the paper preset at a small fraction of its size: ResNet-18, 2 + 2 layers, 64 px, 12 queries."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    task = DetrTask(**TILES | {"width": 64, "feed_width": 128, "dropout": 0.0, "augment": "none"})
    trainable = DetrTrainable(task)

    def whole(number):
        seed = number % 2
        prepared = prepare_image(disc_micrograph("", seed=seed).pixels, diameter_px=DIAMETER_PX, denoising="corrected")
        particle_px = DIAMETER_PX * prepared.scale.factor
        return sized(boxed(prepared.grey, prepared.to_working_xy(disc_centres(seed)), particle_px, task), task)

    trainable.source.crops = SimpleNamespace(crop=lambda number: number)
    trainable.source.example_of = lambda number: vars(whole(number))
    trainable.__dict__["held_out"] = [whole(number) for number in range(2)]
    network = trainable.build_network()
    groups = [
        {"params": group["params"], "lr": 5e-4 * group.get("lr_factor", 1.0)}
        for group in trainable.parameter_groups(network)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)
    batch = trainable.make_batch(0, np.random.default_rng(0))
    best = 0.0
    for step in range(1, STEPS + 1):
        network.train()
        trainable.loss(network, batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 0:
            best = trainable.validate(network)["best_f1"]
            if best > 0.95:
                break
    assert best > 0.95


STEPS = 800


# --------------------------------------------------------------------------------------------------- as published


def short_settings(**changes):
    return TrainSettings(
        **{"steps": 3, "warmup_steps": 0, "ema_decay": 0, "validate_every": 1, "checkpoint_every": 3, **changes}
    )


def test_training_as_the_article_takes_steps_from_coco_and_its_weights_pick_and_are_fine_tuned(coco_set, tmp_path):
    torch.set_num_threads(1)
    dataset = open_set(coco_set)
    trainable = DetrTrainable(DetrTask(**TINY), dataset, dataset)
    train(trainable, short_settings(), tmp_path / "run")
    card = load_checkpoint(tmp_path / "run" / WEIGHTS_FILE).card
    assert (card.preprocessing["behaviour"], card.preprocessing["denoising"]) == ("article", "article")
    picker = CryoTransformerPicker(weights=tmp_path / "run", behaviour="article", precision="float32")
    picks = picker.pick(disc_micrograph("disc0.mrc"))
    assert len(picks) == 9  # three quarters of the 12 queries
    again = train(
        trainable,
        short_settings(steps=1),
        tmp_path / "further",
        start_from=load_checkpoint(tmp_path / "run" / WEIGHTS_FILE),
    )
    assert again.is_finished


@pytest.mark.parametrize("behaviour", ["article", "published"])
def test_the_weights_with_the_lowest_validation_loss_are_kept_and_both_losses_stand_in_the_table(
    coco_set, tmp_path, behaviour
):
    """With the program's class fault no score of a box means anything, so that average precision would choose at
    random."""
    torch.set_num_threads(1)
    dataset = open_set(coco_set)
    trainable = DetrTrainable(DetrTask(**TINY, behaviour=behaviour), dataset, dataset)
    done = train(trainable, short_settings(log_every=1), tmp_path / "run")
    rows = read_table(tmp_path / "run" / "validation.csv")
    losses = read_table(tmp_path / "run" / "loss.csv")
    assert len(rows) == 3
    for row, step in zip(rows, losses, strict=True):
        assert row["score"] == pytest.approx(-row["validation_loss"])
        assert row["train_loss"] == pytest.approx(step["loss"], rel=1e-5)
        for part in ("class", "l1", "giou"):
            assert row[f"validation_{part}"] > 0
    assert done.best_step == 1 + int(np.argmin([row["validation_loss"] for row in rows]))


def test_an_epoch_is_every_micrograph_in_whole_batches(coco_set):
    dataset = open_set(coco_set)
    assert DetrTrainable(DetrTask(**TINY), dataset, dataset).steps_per_epoch() == 1
    assert DetrTrainable(DetrTask(**TINY | {"batch_size": 1}), dataset, dataset).steps_per_epoch() == 2


def test_denoised_micrographs_are_kept_on_disk_where_the_data_set_says_so(coco_set, tmp_path, monkeypatch):
    prepared = Prepared(PreparedCache(tmp_path / "cache", 10**8))
    dataset = replace(open_set(coco_set), prepared=prepared)
    task = DetrTask(**TINY)
    first = DetrTrainable(task, dataset, dataset).source.sampler.crop(0, np.random.default_rng(0))
    monkeypatch.setattr(detr_trainable, "full_size_picture", None)  # calling it again would fail
    again = DetrTrainable(task, dataset, dataset).source.sampler.crop(0, np.random.default_rng(0))
    np.testing.assert_array_equal(first.grey, again.grey)


def test_the_articles_boxes_lie_on_the_particles_that_the_denoiser_moved(coco_set):
    """The content of the picture lies 3 to 4 px off; the article's boxes follow it, the program's do not."""
    dataset = open_set(coco_set)
    offsets = {}
    for behaviour in ("article", "published"):
        task = DetrTask(**TINY | {"queries": 50}, behaviour=behaviour)
        view = DetrTrainable(task, dataset, dataset).source.sampler.crop(0, np.random.default_rng(0))
        dark = np.clip(np.median(view.grey) - view.grey.astype(float) - 20, 0, None)
        rows, columns = np.indices(dark.shape)
        found = []
        for x, y in view.boxes[:, :2] * dark.shape[::-1] - 0.5:
            near = dark * (np.hypot(columns - x, rows - y) < 16)
            found.append([(near * columns).sum() / near.sum() - x, (near * rows).sum() / near.sum() - y])
        offsets[behaviour] = np.mean(found, axis=0)
    assert np.hypot(*offsets["article"]) < 1.3
    assert np.hypot(*offsets["published"]) > 2.5
