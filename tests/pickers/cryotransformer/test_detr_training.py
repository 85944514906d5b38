"""Training of the published network: COCO data in, boxes that mean what they say, weights that survive a restart."""

import json

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("lightning")

from cryopick.data.datasets import open_dataset  # noqa: E402
from cryopick.errors import SettingsError  # noqa: E402
from cryopick.geometry.units import Length  # noqa: E402
from cryopick.io.coordinates.coco import read_coco, write_coco  # noqa: E402
from cryopick.io.images.micrographs import write_micrograph  # noqa: E402
from cryopick.io.weights import load_checkpoint  # noqa: E402
from cryopick.pickers.cryotransformer.detr_model import prepare_image, resized  # noqa: E402
from cryopick.pickers.cryotransformer.detr_trainable import DetrTask, DetrTrainable, augmented, clipped, padded  # noqa: E402
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker  # noqa: E402
from cryopick.pickers.families import find_preset  # noqa: E402
from cryopick.simulation.crops import Crop  # noqa: E402
from cryopick.training.crop_bank import SimulatedCrops  # noqa: E402
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
    task = DetrTask(**TINY | {"queries": 200})  # enough for the whole micrograph in one view
    trainable = DetrTrainable(task, dataset, dataset)
    rng = np.random.default_rng(0)
    found = [trainable.source.sampler.crop(number, rng) for number in range(2)]
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
    views = DetrTrainable(DetrTask(**TINY), dataset, dataset).source.sampler
    rng = np.random.default_rng(0)
    for number in range(10):
        view = views.crop(number, rng)
        share = DIAMETER_PX / view.boxes[0, 2:].mean() if len(view.boxes) else None
        assert share is None or share < 3 * DIAMETER_PX  # 12 queries suffice for 2.5 diameters


def test_published_images_are_upside_down_and_their_boxes_with_them(coco_set):
    dataset = open_set(coco_set)
    task = DetrTask(**TINY, behaviour="published", denoising="none", augment=False)
    view = DetrTrainable(task, dataset, dataset).source.sampler.crop(0, np.random.default_rng(0))
    expected = [(disc_centres(seed) * [1, -1] + [0.5, 119.5]) / [160, 120] for seed in range(2)]
    assert any(np.allclose(view.boxes[:, :2], one, atol=1e-6) for one in expected)
    rows, columns = (view.boxes[:, 1::-1].T * [[64], [85]]).astype(int)
    assert view.grey[rows, columns].mean() < view.grey.mean() - 0.05


def test_published_boxes_at_the_border_are_cut_and_their_centres_move():
    boxes = np.array([[0.0, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [-0.2, 0.5, 0.1, 0.1]])
    np.testing.assert_allclose(clipped(boxes), [[0.05, 0.5, 0.1, 0.2], [0.5, 0.5, 0.2, 0.2]])


@pytest.mark.parametrize("behaviour", ["corrected", "published"])
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
    trainable = DetrTrainable(DetrTask(**TINY | {"queries": 200}), dataset, dataset)
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
    weight = np.clip(np.median(prepared.grey) - 0.15 - prepared.grey, 0, None)
    found = np.array([[(weight * columns).sum(), (weight * rows).sum()]]) / weight.sum()
    assert np.hypot(*(prepared.to_stored_xy(found) - [[120, 100]])[0]) < 1.0
    assert np.hypot(*(found - [[120, 100]])[0]) > 3.0
    np.testing.assert_allclose(prepared.to_stored_xy(prepared.to_working_xy(found)), found)


def test_resizing_is_that_of_the_specification():
    assert resized(np.zeros((371, 384), np.float32), short_px=800, longest_px=1333).shape == (800, 828)


def test_the_paper_preset_has_the_settings_of_the_article():
    preset = find_preset("cryotransformer", "paper")
    task, training = preset.task, preset.training
    assert (task.backbone, task.queries, task.width, task.heads, task.layers) == ("resnet152", 600, 256, 8, 6)
    assert (task.feed_width, task.dropout, task.batch_size) == (2048, 0.1, 8)
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adamw", 1e-4, 1e-4)
    assert training.gradient_clip == 0.1
    # 300 epochs of 5,172 images, 8 at a time, the last incomplete batch dropped; the rate falls to a tenth after 200
    steps_per_epoch = 5172 // 8
    assert training.steps == 300 * steps_per_epoch
    rates = [training.learning_rate_at(epoch * steps_per_epoch) for epoch in (0, 199, 200, 299)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_the_backbone_learns_at_a_tenth_of_the_rate_and_its_first_stage_not_at_all():
    trainable = DetrTrainable(DetrTask(**TINY))
    trainable.images.simulated = Two()
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
    trainable = DetrTrainable(DetrTask(**TINY), dataset, dataset)
    train(trainable, settings, tmp_path / "whole")

    class Stopping(DetrTrainable):
        def make_batch(self, index, rng):
            if index == 3:
                raise KeyboardInterrupt
            return super().make_batch(index, rng)

    with pytest.raises(KeyboardInterrupt):
        train(Stopping(DetrTask(**TINY), dataset, dataset), settings, tmp_path / "stopped")
    train(trainable, settings, tmp_path / "stopped", resume=True)
    whole, stopped = (load_checkpoint(tmp_path / name / WEIGHTS_FILE).tensors for name in ("whole", "stopped"))
    assert set(whole) == set(stopped)
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name
    made_anew = ("class_labels_classifier", "query_position_embeddings")
    first = trainable.build_network().state_dict()
    for part in made_anew:
        name = next(name for name in whole if part in name and name.endswith("weight"))
        assert not torch.equal(whole[name], first[name])


def test_trained_weights_pick_and_the_card_says_how(coco_set, tmp_path):
    torch.set_num_threads(1)
    dataset = open_set(coco_set)
    settings = TrainSettings(steps=1, warmup_steps=0, ema_decay=0, validate_every=1, checkpoint_every=1)
    train(DetrTrainable(DetrTask(**TINY), dataset, dataset), settings, tmp_path / "run")
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
    task = DetrTask(**TINY | {"width": 64, "feed_width": 128, "dropout": 0.0, "augment": False})
    trainable = DetrTrainable(task)

    def whole(number, _rng):
        seed = number % 2
        prepared = prepare_image(disc_micrograph("", seed=seed).pixels, diameter_px=DIAMETER_PX, denoising="corrected")
        particle_px = DIAMETER_PX * prepared.scale.factor
        return trainable.images._sized(prepared.grey, prepared.to_working_xy(disc_centres(seed)), particle_px)

    trainable.images.view = whole
    trainable.__dict__["held_out"] = [whole(number, None) for number in range(2)]
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
