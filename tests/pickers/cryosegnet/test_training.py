"""What CryoSegNet's networks are asked to answer, what wrong answers cost, and the published training."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cryopick.data.datasets import open_dataset  # noqa: E402
from cryopick.data.prepared_cache import Prepared, PreparedCache  # noqa: E402
from cryopick.errors import SettingsError  # noqa: E402
from cryopick.geometry.units import parse_length  # noqa: E402
from cryopick.io.images.micrographs import write_micrograph  # noqa: E402
from cryopick.io.weights import load_checkpoint, read_card  # noqa: E402
from cryopick.pickers.cryosegnet.ablations import ablations  # noqa: E402
from cryopick.pickers.cryosegnet.judging import MAPPED_PARTICLE_PX, MappedCrop, mapped  # noqa: E402
from cryopick.pickers.cryosegnet.model import View  # noqa: E402
from cryopick.pickers.cryosegnet.network import build_attention_unet  # noqa: E402
from cryopick.pickers.cryosegnet.published_trainable import PublishedUNetTrainable, published_loss  # noqa: E402
from cryopick.pickers.cryosegnet.sam_trainable import ASKS_NOTHING, ASKS_UNKNOWN, example, mask_loss  # noqa: E402
from cryopick.pickers.cryosegnet.targets import DISC_SHARE, crop_targets, labelled_targets, map_loss  # noqa: E402
from cryopick.pickers.cryosegnet.tasks import PRESETS, SamTask, UNetTask  # noqa: E402
from cryopick.pickers.cryosegnet.trainable import UNetTrainable  # noqa: E402
from cryopick.pickers.cryosegnet.training import make_finetunable, make_trainable  # noqa: E402
from cryopick.pickers.families import find_preset  # noqa: E402
from cryopick.processing.ctf import CtfParameters  # noqa: E402
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, network_planes, resample  # noqa: E402
from cryopick.processing.targets import disc_mask  # noqa: E402
from cryopick.simulation.crops import Crop  # noqa: E402
from cryopick.training.augment import LabelledCrop  # noqa: E402
from cryopick.types import Micrograph  # noqa: E402
from cryopick.workflows.train import plan_training, train_picker  # noqa: E402

SIDE_PX = 128


def crop_with(xy_px, diameter_px, *, junk=None):
    n = len(xy_px)
    return Crop(
        image=np.random.default_rng(0).normal(size=(SIDE_PX, SIDE_PX)).astype(np.float32),
        xy_px=np.asarray(xy_px, np.float64).reshape(-1, 2),
        diameter_px=np.asarray(diameter_px, np.float32),
        snr=np.full(n, 10, np.float32),
        visibility=np.ones(n, np.float32),
        instances=np.zeros((SIDE_PX, SIDE_PX), np.int32),
        junk=np.zeros((SIDE_PX, SIDE_PX), bool) if junk is None else junk,
        pixel_size_angstrom=8.0,
        optics=CtfParameters(defocus_u_um=1.5, defocus_v_um=1.5),
    )


# ------------------------------------------------------------------------------------------------------------ the U-Net


def test_discs_of_touching_particles_stay_apart():
    disc, _, _ = crop_targets(crop_with([(40, 40), (60, 40)], [20, 20]))
    assert disc[40, 40] == disc[40, 60] == 1
    assert disc[40, 50] == 0
    assert disc.sum() == pytest.approx(2 * np.pi / 4 * (DISC_SHARE * 20) ** 2, rel=0.06)


def test_particles_of_other_sizes_are_background_and_those_between_do_not_count():
    disc, _, weight = crop_targets(crop_with([(30, 30), (60, 30), (90, 30)], [20, 10, 6]))
    assert [disc[30, x] for x in (30, 60, 90)] == [1, 0, 0]
    assert [weight[30, x] for x in (30, 60, 90)] == [1, 0, 1]


def test_junk_is_mapped_as_it_is():
    junk = np.zeros((SIDE_PX, SIDE_PX), bool)
    junk[:, :3] = True
    assert crop_targets(crop_with([], [], junk=junk))[1].sum() == 3 * SIDE_PX


def test_a_batch_is_two_quarters_of_each_crop_whose_planes_are_made_of_the_whole():
    trainable = UNetTrainable(UNetTask(widths=(8, 12), batch_size=4, crop_px=128, distinct_crops=0))
    batch = trainable.make_batch(1, np.random.default_rng(0))
    crops = [trainable.source.crops.crop(index) for index in (2, 3)]
    wholes = [(network_planes(one.image, particle_px=20.0, count=3), crop_targets(one)) for one in crops]
    for number in range(4):
        places = [np.s_[:, row : row + 64, column : column + 64] for row in (0, 64) for column in (0, 64)]
        fits = [
            all(
                np.array_equal(batch[name][number], whole[place])
                for name, whole in zip(("planes", "targets"), wholes[number // 2], strict=True)
            )
            for place in places
        ]
        assert sum(fits) == 1


def test_the_published_loss_is_half_of_cross_entropy_plus_dice_over_the_batch():
    logits = torch.tensor([0.0, 2.0, -1.0, 3.0]).reshape(2, 1, 1, 2)
    mask = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(2, 1, 1, 2)
    # sigmoid: 0.5, 0.880797, 0.268941, 0.952574
    bce = (0.693147 + 0.126928 + 0.313262 + 0.048587) / 4
    dice = 1 - (2 * (0.880797 + 0.952574) + 1e-4) / (2.602312 + 2 + 1e-4)
    found = published_loss(logits, mask)
    assert float(found["bce"]) == pytest.approx(bce, abs=1e-5)
    assert float(found["dice"]) == pytest.approx(dice, abs=1e-5)
    assert float(found["loss"]) == pytest.approx((bce + dice) / 2, abs=1e-5)


def test_pixels_without_weight_cost_nothing():
    targets = torch.from_numpy(crop_targets(crop_with([(30, 30), (60, 30)], [20, 10])))[None]
    logits = torch.zeros(1, 2, SIDE_PX, SIDE_PX)
    logits[0, 0] = (targets[0, 0] * 2 - 1) * 20
    logits[0, 1] = -20
    assert float(map_loss(logits, targets, dice_share=0.15)["loss"]) == pytest.approx(0, abs=1e-3)
    logits[0, 0, 28:33, 58:63] = 20  # on the particle that is undecided
    assert float(map_loss(logits, targets, dice_share=0.15)["loss"]) == pytest.approx(0, abs=1e-3)
    logits[0, 0, 100:105, 100:105] = 20
    assert float(map_loss(logits, targets, dice_share=0.15)["loss"]) > 0.01


def test_uncertain_labels_weigh_nothing():
    crop = LabelledCrop(
        image=np.zeros((64, 64), np.float32),
        xy_px=np.array([[20.0, 20.0], [44.0, 20.0]]),
        diameter_px=np.array([20.0, 20.0]),
        is_uncertain=np.array([False, True]),
        is_complete=True,
    )
    disc, _, weight = labelled_targets(crop)
    assert (disc[20, 20], disc[20, 44]) == (1, 0)
    assert (weight[20, 20], weight[20, 44]) == (1, 0)


@pytest.mark.parametrize("name", ["article", "program"])
def test_the_published_presets_are_the_published_network_and_training(name):
    task, training = PRESETS[name].task, PRESETS[name].training
    assert find_preset("cryosegnet", "paper") is PRESETS["article"]  # its name in version 0.1
    assert task.architecture() == {
        "network": "attention_unet",
        "in_channels": 1,
        "out_channels": 1,
        "widths": [64, 128, 256, 512, 1024, 2048],
        "patch_px": 1,
        "align_corners": True,
    }
    assert (task.view, task.side_px, task.batch_size, task.dice_share) == ("published", 1024, 6, 0.5)
    assert (task.denoising, task.upside_down, task.gates) == (name, True, True)
    assert (training.optimizer, training.learning_rate, training.schedule) == ("adam", 1e-4, "constant")
    assert (training.weight_decay, training.warmup_steps, training.gradient_clip, training.ema_decay) == (0, 0, 0, 0)
    assert (training.epochs, training.validate_every_epochs) == (200, 1)
    assert training.in_steps(math.ceil(4948 / 6)).steps == 165_000


def test_what_cannot_be_trained_is_told():
    with pytest.raises(SettingsError, match="give --data"):
        make_trainable(PRESETS["program"].task, train=None, validation=None)
    with pytest.raises(SettingsError, match="leave --data out"):
        make_trainable(SamTask(), train=object(), validation=None)
    with pytest.raises(SettingsError, match="multiple of 32"):
        UNetTask(crop_px=100)
    with pytest.raises(SettingsError, match="multiple of 64"):
        UNetTask(crop_px=480)  # halves of it are no multiple of the network's stride
    with pytest.raises(SettingsError, match="in_channels is 4"):
        UNetTask(in_channels=4)
    with pytest.raises(SettingsError, match="expected an even number"):
        UNetTask(batch_size=3)  # two quarters of every crop
    assert UNetTask(view="published", batch_size=3).batch_size == 3


# ----------------------------------------------------------------------------------------------------- Segment Anything


def test_prompts_ask_for_the_particle_they_lie_on_and_for_nothing_elsewhere():
    xy_px, diameter_px = [(40, 40), (62, 44), (100, 90), (30, 100)], [25, 25, 25, 12]
    disc = disc_mask(np.array(xy_px), DISC_SHARE * np.array(diameter_px), shape_yx=(SIDE_PX, SIDE_PX))
    crop = MappedCrop(0.9 * disc.astype(np.float32), np.array(xy_px, float), np.array(diameter_px, float))
    rng = np.random.default_rng(0)
    for _ in range(5):
        picture, points, masks, kinds = example(
            crop, rng, side_px=SIDE_PX, block_px=2, prompts=12, mask_share=DISC_SHARE
        )
        assert picture.max() == pytest.approx(229.5, abs=0.1)
        assert {ASKS_NOTHING} < set(kinds.tolist())
        for point, mask, kind in zip(points, masks, kinds, strict=True):
            gap = np.hypot(*(crop.xy_px - point).T) / crop.diameter_px
            if kind >= 0:
                assert gap[kind] == gap.min()
                assert gap[kind] <= 0.5
                y, x = np.nonzero(mask > 0.5)
                np.testing.assert_allclose([x.mean() * 2 + 0.5, y.mean() * 2 + 0.5], crop.xy_px[kind], atol=0.6)
            else:
                assert mask.max() == 0
                if kind == ASKS_UNKNOWN:
                    assert gap.argmin() == 3
                else:
                    assert gap.min() > 0.5


def test_particles_of_a_mapped_crop_lie_where_a_perfect_map_shows_them():
    class Perfect:
        """Shows particles as the picker would, in the pixels in which it looks."""

        def mean_maps(self, pixels, *, diameter_px):
            return resample(pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)[0][None]

    crop = crop_with([(30, 40), (90, 70.5)], [20, 20])
    discs = disc_mask(crop.xy_px, crop.diameter_px.astype(float), shape_yx=(SIDE_PX, SIDE_PX))
    found = mapped(Perfect(), replace(crop, image=discs.astype(np.float32)))
    np.testing.assert_allclose(found.diameter_px, MAPPED_PARTICLE_PX, rtol=0.01)
    y, x = np.mgrid[: found.probability.shape[0], : found.probability.shape[1]]
    for (cx, cy), diameter in zip(found.xy_px, found.diameter_px, strict=True):
        weight = found.probability * (np.hypot(x - cx, y - cy) < 0.7 * diameter)
        np.testing.assert_allclose([np.average(x, weights=weight), np.average(y, weights=weight)], [cx, cy], atol=0.4)
        assert weight.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.03)


def test_predicted_iou_is_judged_by_the_masks_own_and_is_0_where_nothing_is_asked():
    wanted = torch.zeros(3, 8, 8)
    wanted[0, 2:6, 2:6] = 1
    logits = torch.full((3, 1, 8, 8), -9.0)
    logits[0, 0, 2:6, 2:4] = 9.0  # half of it: an IoU of 0.5
    kinds = torch.tensor([0, ASKS_NOTHING, ASKS_UNKNOWN])
    right = mask_loss(logits, torch.tensor([[0.5], [0.0], [7.0]]), wanted, kinds)
    assert float(right["iou"]) == 0
    assert float(right["mean_iou"]) == 0.5
    wrong = mask_loss(logits, torch.tensor([[0.9], [0.2], [7.0]]), wanted, kinds)
    assert float(wrong["iou"]) == pytest.approx((0.4**2 + 0.2**2) / 2)


# ------------------------------------------------------------------------------------------------- the published way


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Four labelled micrographs with dark discs, oblong."""
    folder = tmp_path_factory.mktemp("drawn")
    rows = []
    for number in range(4):
        rng = np.random.default_rng(number)
        pixels = rng.normal(size=(160, 200)).astype(np.float32)
        y, x = np.mgrid[:160, :200]
        for cx in range(30, 190, 50):
            for cy in range(30, 150, 50):
                shift = rng.integers(-5, 6, 2)
                pixels[np.hypot(x - cx - shift[0], y - cy - shift[1]) <= 15] -= 3
                rows.append(f"m{number}.mrc {cx + shift[0]} {cy + shift[1]}")
        write_micrograph(folder / f"m{number}.mrc", Micrograph(pixels, pixel_size_angstrom=2.0))
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (folder / "labels.star").write_text(head + "\n".join(rows) + "\n\n")
    return folder


PAPER_IN_SMALL = {"widths": [8, 16, 24], "side_px": 64, "batch_size": 4}


def paper_plan(drawn, **training):
    return plan_training(
        "cryosegnet",
        data=str(drawn / "labels.star"),
        preset="program",
        data_settings={
            "diameter": parse_length("30px"),
            "labels": "complete",
            "flip_y": "no",
            "validation_fraction": 0.25,
        },
        task=PAPER_IN_SMALL,
        training={"workers": 0, "accelerator": "cpu", "log_every": 1, **training},
    )


def test_published_masks_are_full_discs_squeezed_with_the_micrograph(drawn):
    dataset = open_dataset(drawn / "labels.star", diameter=parse_length("30px"), completeness="complete", flip_y="no")
    task = UNetTask(view="published", side_px=64, widths=(8, 16), patch_px=1)
    example = PublishedUNetTrainable(task, dataset, dataset).source.held_out[0].example()
    picture, mask = example["planes"][0], example["mask"][0]
    assert picture.shape == mask.shape == (64, 64)
    # 12 discs of radius 15 in 160 x 200 pixels
    assert mask.mean() == pytest.approx(12 * np.pi * 15**2 / (160 * 200), rel=0.03)
    assert picture[mask > 0.9].mean() < picture[mask < 0.1].mean()


def test_the_published_training_learns_four_micrographs_by_heart_through_the_real_path(drawn, tmp_path):
    plan = paper_plan(drawn, steps=60, validate_every=60, learning_rate=8e-3)
    train_picker(plan, tmp_path / "out")
    with (tmp_path / "out" / "loss.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.45 * losses[0]
    card = read_card(tmp_path / "out" / "weights.safetensors")
    seen = {"input": "published", "side_px": 64, "denoising": "program", "rows": "last first"}
    assert card.preprocessing == seen
    assert View.from_card(card.preprocessing, in_channels=1, where="x").is_squeezed


def test_the_share_of_the_dice_loss_counts_in_every_published_preset():
    torch.manual_seed(0)
    batch = {"planes": torch.rand(2, 1, 32, 32), "mask": (torch.rand(2, 1, 32, 32) > 0.7).float()}
    for name in ("article", "program"):
        task = replace(PRESETS[name].task, widths=(4, 6), side_px=32)
        found = {}
        for share in (0.0, 0.5, 1.0):
            trainable = PublishedUNetTrainable.__new__(PublishedUNetTrainable)  # the loss needs no data
            trainable.task = replace(task, dice_share=share)
            torch.manual_seed(1)
            found[share] = {
                part: float(value.detach()) for part, value in trainable.loss(trainable.build_network(), batch).items()
            }
        assert found[0.0]["loss"] == pytest.approx(found[0.5]["bce"])
        assert found[1.0]["loss"] == pytest.approx(found[0.5]["dice"])
        assert found[0.5]["loss"] == pytest.approx((found[0.5]["bce"] + found[0.5]["dice"]) / 2)
        assert abs(found[0.0]["loss"] - found[1.0]["loss"]) > 0.01


def test_pictures_and_masks_turn_upside_down_together_and_are_denoised_once(drawn, tmp_path, monkeypatch):
    dataset = open_dataset(drawn / "labels.star", diameter=parse_length("30px"), completeness="complete", flip_y="no")
    task = UNetTask(view="published", side_px=64, widths=(8, 16), patch_px=1, denoising="none")
    plain, turned = (
        PublishedUNetTrainable(replace(task, upside_down=flag), dataset, dataset).source.held_out[0].example()
        for flag in (False, True)
    )
    for part in ("planes", "mask"):
        np.testing.assert_array_equal(turned[part][:, ::-1], plain[part])
    article = PublishedUNetTrainable(replace(task, denoising="article"), dataset, dataset).source.held_out[0].example()
    assert np.abs(article["planes"] - plain["planes"]).max() > 0.2
    cached = replace(dataset, prepared=Prepared(PreparedCache(tmp_path / "cache", 10**8)))
    first = PublishedUNetTrainable(task, cached, cached).source.held_out[1].example()
    monkeypatch.setattr(View, "show", None)  # a second one is read
    again = PublishedUNetTrainable(task, cached, cached).source.held_out[1].example()
    np.testing.assert_array_equal(first["planes"], again["planes"])
    assert PublishedUNetTrainable(replace(task, batch_size=3), dataset, dataset).steps_per_epoch() == 2  # of four


@pytest.mark.parametrize("what", ["levels", "gates", "loss", "denoising"])
def test_every_row_of_every_ablation_is_a_network_and_loss_of_its_own(what):
    rows = ablations((4, 6, 8))[what]
    base = replace(PRESETS["program"].task, widths=(4, 6, 8), side_px=64)
    tasks = [replace(base, **changes) for changes in rows.values()]
    assert len({str((task.architecture(), task.dice_share, task.denoising)) for task in tasks}) == len(rows)
    if what == "gates":
        counts = [
            sum(parameter.numel() for parameter in build_attention_unet(task.architecture()).parameters())
            for task in tasks
        ]
        # 1 x 1 convolutions (coarse to fine, twice fine to fine) and two norms, at each of two levels
        assert counts[0] - counts[1] == sum(c * f + f + 2 * (f * f + f) + 4 * f for c, f in ((8, 6), (6, 4)))
    plan = plan_training("cryosegnet", preset="program", task={"gates": "no", "denoising": "none"})
    assert (plan.preset.task.gates, plan.preset.task.denoising) == (False, "none")


def test_what_is_of_the_published_view_is_refused_elsewhere():
    for name, value in (("denoising", "none"), ("upside_down", True)):
        with pytest.raises(SettingsError, match=f"{name} is of view published"):
            UNetTask(**{name: value})


def test_predicted_labels_finetune_the_published_network_as_the_authors_do(drawn, caplog):
    dataset = open_dataset(drawn / "labels.star", diameter=parse_length("30px"), completeness="sparse", flip_y="no")
    task = replace(PRESETS["program"].task, widths=(4, 6), side_px=64)
    with caplog.at_level("WARNING"):
        trainable = make_finetunable(task, train=dataset, validation=dataset, start=None)
    assert "the rest is taught to be background" in caplog.text
    assert set(trainable.make_batch(0, np.random.default_rng(0))) == {"planes", "mask"}


def test_sparse_labels_are_refused_by_the_published_training(drawn):
    dataset = open_dataset(drawn / "labels.star", diameter=parse_length("30px"), completeness="sparse", flip_y="no")
    with pytest.raises(SettingsError, match="not every particle is labelled"):
        PublishedUNetTrainable(PRESETS["program"].task, dataset, dataset)


def test_the_small_network_learns_from_labelled_micrographs_too(drawn, tmp_path):
    plan = plan_training(
        "cryosegnet",
        data=str(drawn / "labels.star"),
        data_settings={"diameter": parse_length("30px"), "labels": "complete", "flip_y": "no"},
        task={"widths": [8, 12], "crop_px": 128, "batch_size": 4, "calibration_crops": 2},
        training={"steps": 3, "validate_every": 3, "warmup_steps": 1, "workers": 0, "accelerator": "cpu"},
    )
    train_picker(plan, tmp_path / "out")
    card = load_checkpoint(tmp_path / "out" / "weights.safetensors", picker="cryosegnet").card
    assert card.preprocessing["input"] == "planes"
    assert card.preprocessing["planes"] == "detail, background, background from the brightest"
    assert card.postprocessing["disc_share"] == DISC_SHARE
