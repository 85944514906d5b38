"""Crops keep labels on their particles, whatever is done to them; losses equal their formulas."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from hypothesis import given
from hypothesis import strategies as st

from cryopick.data.datasets import open_dataset
from cryopick.errors import SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.training.augment import LabelledCrop, dihedral, jitter_intensity
from cryopick.training.losses import dice_loss, loss_by_completeness, non_negative_pu_loss
from cryopick.training.sampling import CropSampler, epoch_index


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed in (0, 1):
        write_micrograph(tmp_path / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        rows = [f"{x},{y}" for x, y in disc_centres(seed)]
        (tmp_path / f"m{seed}.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    (tmp_path / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    return tmp_path


@given(st.integers(0, 7))
def test_symmetries_move_labels_with_their_pixels(number):
    image = np.zeros((9, 9), np.float32)
    image[2, 5] = 1  # x = 5, y = 2
    crop = LabelledCrop(image, np.array([[5.0, 2.0]]), np.ones(1), np.zeros(1, bool), True)
    moved = dihedral(crop, number)
    ((x, y),) = moved.xy_px
    assert moved.image[int(y), int(x)] == 1


def test_the_eight_symmetries_differ():
    image = np.arange(9, dtype=np.float32).reshape(3, 3)
    crop = LabelledCrop(image, np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool), True)
    assert len({dihedral(crop, number).image.tobytes() for number in range(8)}) == 8


def test_labels_in_crops_lie_on_dark_discs(data):
    sampler = CropSampler(open_dataset(data), crop_px=48, particle_px=16.0)
    contrasts = []
    for position in range(40):
        crop = sampler.crop(position, np.random.default_rng([1, position]))
        assert crop.image.shape == (48, 48)
        y, x = np.mgrid[:48, :48]
        for (cx, cy), diameter in zip(crop.xy_px, crop.diameter_px, strict=True):
            distance = np.hypot(x - cx, y - cy) / diameter
            ring, disc = (distance > 0.6) & (distance < 0.9), distance < 0.4
            if disc.any() and ring.sum() > 20:
                contrasts.append((crop.image[ring].mean() - crop.image[disc].mean()) / crop.image.std())
    assert len(contrasts) > 30
    assert np.quantile(contrasts, 0.1) > 1


def test_crop_depends_on_position_and_generator_alone(data):
    dataset = open_dataset(data)
    one, other = (CropSampler(dataset, crop_px=48, particle_px=16.0) for _ in range(2))
    one.crop(3, np.random.default_rng(0))
    first, second = one.crop(7, np.random.default_rng(5)), other.crop(7, np.random.default_rng(5))
    assert (first.image == second.image).all()
    assert (first.xy_px == second.xy_px).all()


def test_crop_larger_than_the_micrograph_is_filled_and_keeps_all_labels(data):
    sampler = CropSampler(open_dataset(data), crop_px=256, particle_px=16.0, scale_range=(1.0, 1.0))
    crop = sampler.crop(0, np.random.default_rng(0))
    assert crop.image.shape == (256, 256)
    assert len(crop.xy_px) == 3


def test_unknown_diameter_is_refused(data):
    (data / "set.json").unlink()
    with pytest.raises(SettingsError, match="diameter is unknown"):
        CropSampler(open_dataset(data), crop_px=48, particle_px=16.0)


@given(st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_is_a_permutation(count, epoch):
    order = [epoch_index(epoch * count + place, count, seed=2) for place in range(count)]
    assert sorted(order) == list(range(count))


def test_intensity_jitter_leaves_labels_and_structure():
    micrograph = disc_micrograph("m")
    crop = LabelledCrop(micrograph.pixels, disc_centres(0), np.full(3, 20.0), np.zeros(3, bool), True)
    changed = jitter_intensity(crop, np.random.default_rng(1))
    assert (changed.xy_px == crop.xy_px).all()
    assert np.corrcoef(changed.image.ravel(), crop.image.ravel())[0, 1] > 0.95
    assert not np.allclose(changed.image, crop.image)


def test_dice_of_perfect_and_empty_answers():
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(dice_loss(100 * (target - 0.5), target)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(torch.full((2, 2), -100.0), torch.zeros(2, 2))) == pytest.approx(0, abs=1e-6)
    # half of everything is said to be particle: 1 - (2 * 1 + 1) / (2 + 2 + 1)
    assert float(dice_loss(torch.zeros(2, 2), target)) == pytest.approx(0.4)


def test_pu_risk_equals_its_formula_and_is_held_at_zero():
    logits, positive = torch.tensor([2.0, -1.0, 0.5, -3.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    value = float(non_negative_pu_loss(logits, positive, torch.ones(4), prior=0.3))
    found, refused = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    background = np.mean([np.log1p(np.exp(z)) for z in (-1.0, 0.5, -3.0)])
    assert value == pytest.approx(0.3 * found + max(0.0, background - 0.3 * refused), rel=1e-5)
    memorised = torch.tensor([9.0, -9.0, -9.0, -9.0])
    assert float(non_negative_pu_loss(memorised, positive, torch.ones(4), prior=0.3)) < 1e-4


def test_pu_risk_of_all_particles_among_the_unlabelled_equals_that_of_full_labels():
    """With the true prior the risk does not depend on which particles are labelled, up to sampling."""
    generator = torch.Generator().manual_seed(0)
    is_particle = (torch.rand(200_000, generator=generator) < 0.1).float()
    logits = 2 * is_particle - 2 + torch.randn(200_000, generator=generator)
    labelled = is_particle * (torch.rand(200_000, generator=generator) < 0.05).float()
    risk = float(non_negative_pu_loss(logits, labelled, torch.ones(200_000), prior=0.1))
    full = float(torch.nn.functional.binary_cross_entropy_with_logits(logits, is_particle))
    assert risk == pytest.approx(full, rel=0.03)


def test_pixels_without_weight_do_not_count():
    logits, positive = torch.tensor([2.0, -1.0, 50.0]), torch.tensor([1.0, 0.0, 0.0])
    with_weight = non_negative_pu_loss(logits, positive, torch.tensor([1.0, 1.0, 0.0]), prior=0.3)
    without = non_negative_pu_loss(logits[:2], positive[:2], torch.ones(2), prior=0.3)
    assert float(with_weight) == pytest.approx(float(without))


@pytest.mark.parametrize(("is_complete", "loss"), [([1, 1, 1, 0], 0.75 * 3 + 0.25 * 10), ([1, 1], 2), ([0], 10)])
def test_complete_and_sparse_crops_weigh_by_their_numbers(is_complete, loss):
    flags = torch.tensor(is_complete, dtype=torch.bool)
    found = loss_by_completeness(
        flags, complete=lambda chosen: chosen.sum().float(), sparse=lambda chosen: torch.tensor(10.0)
    )
    assert float(found) == loss
