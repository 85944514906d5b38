"""The orientation of coordinates is found on rectangular images with dark discs, and refused where nothing shows it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.geometry.transforms import TRANSFORMS, transformed_shape
from cryopick.processing.orientation import measure_orientation

SHAPE = (300, 420)
DIAMETER_PX = 20.0


def image_with_discs(
    rng: np.random.Generator, *, amplitude: float = -1.0, noise: float = 1.0, count: int = 40
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """An image with discs of the amplitude, and their centres, none closer than a diameter."""
    centres: list[NDArray[np.float64]] = []
    while len(centres) < count:
        one = rng.uniform((15, 15), (SHAPE[1] - 15, SHAPE[0] - 15))
        if all(np.hypot(*(one - other)) > DIAMETER_PX for other in centres):
            centres.append(one)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = noise * rng.standard_normal(SHAPE) + 0.01 * y  # with a gradient, which must not count
    for cx, cy in centres:
        image[np.hypot(x - cx, y - cy) <= DIAMETER_PX / 2] += amplitude
    return image.astype(np.float32), np.array(centres)


@pytest.mark.parametrize("name", ["identity", "flip_y", "flip_x"])
@pytest.mark.parametrize("amplitude", [-1.0, 1.0])
def test_the_transform_that_was_applied_is_found(name: str, amplitude: float) -> None:
    image, xy_px = image_with_discs(np.random.default_rng(1), amplitude=amplitude)
    fit = measure_orientation([image], [TRANSFORMS[name](xy_px, SHAPE)], diameter_px=DIAMETER_PX)
    assert fit.is_clear
    assert fit.best == name
    assert np.sign(fit.contrast[name]) == -np.sign(amplitude)


def test_exchanged_axes_are_found_where_they_fit_the_image() -> None:
    image, xy_px = image_with_discs(np.random.default_rng(2))
    inside = xy_px[:, 0] < SHAPE[0]  # those that exchanged axes leave on the image
    fit = measure_orientation([image], [xy_px[inside][:, ::-1]], diameter_px=DIAMETER_PX)
    assert fit.best == "transpose"
    assert fit.is_clear


def test_exchanged_axes_are_impossible_where_they_leave_the_image() -> None:
    image, xy_px = image_with_discs(np.random.default_rng(3))
    xy_px = xy_px[xy_px[:, 0] > 0.6 * SHAPE[1]]
    fit = measure_orientation([image] * 2, [xy_px] * 2, diameter_px=DIAMETER_PX)
    assert np.isnan(fit.contrast["transpose"]) or fit.contrast["transpose"] < fit.contrast["identity"]
    assert fit.best == "identity"


def test_random_picks_few_picks_and_flat_images_are_unclear() -> None:
    rng = np.random.default_rng(4)
    image, xy_px = image_with_discs(rng)
    random = rng.uniform((0, 0), (SHAPE[1], SHAPE[0]), size=(200, 2))
    assert not measure_orientation([image], [random], diameter_px=DIAMETER_PX).is_clear
    assert not measure_orientation([image], [xy_px[:5]], diameter_px=DIAMETER_PX).is_clear
    assert not measure_orientation([np.zeros(SHAPE, np.float32)], [xy_px], diameter_px=DIAMETER_PX).is_clear
    assert not measure_orientation([np.full(SHAPE, np.nan, np.float32)], [xy_px], diameter_px=DIAMETER_PX).is_clear
    assert not measure_orientation([], [], diameter_px=DIAMETER_PX).is_clear


def test_picks_that_are_their_own_mirror_image_are_unclear() -> None:
    rng = np.random.default_rng(5)
    image, xy_px = image_with_discs(rng, noise=0.1)
    mirrored = np.minimum(image, image[::-1])
    both = np.concatenate([xy_px, TRANSFORMS["flip_y"](xy_px, SHAPE)])
    fit = measure_orientation([mirrored], [both], diameter_px=DIAMETER_PX)
    assert not fit.is_clear
    assert "standard errors" in fit.describe()


def test_false_answers_are_rare_on_noise() -> None:
    rng = np.random.default_rng(6)
    clear = 0
    for _ in range(60):
        noise = rng.standard_normal(SHAPE).astype(np.float32)
        random = rng.uniform((0, 0), (SHAPE[1], SHAPE[0]), size=(60, 2))
        clear += measure_orientation([noise], [random], diameter_px=DIAMETER_PX).is_clear
    assert clear == 0


def test_weak_particles_are_found_by_pooling_micrographs() -> None:
    rng = np.random.default_rng(7)
    made = [image_with_discs(rng, amplitude=-0.25) for _ in range(6)]
    images = [image for image, _ in made]
    flipped = [TRANSFORMS["flip_y"](xy_px, SHAPE) for _, xy_px in made]
    fit = measure_orientation(images, flipped, diameter_px=DIAMETER_PX)
    assert fit.is_clear
    assert fit.best == "flip_y"
    assert transformed_shape(fit.best, SHAPE) == SHAPE


@pytest.mark.parametrize("diameter_px", [1e4, 1e30, 1e308])
def test_particles_larger_than_the_image_cannot_be_measured(diameter_px: float) -> None:
    image, xy_px = image_with_discs(np.random.default_rng(1))
    fit = measure_orientation([image], [xy_px], diameter_px=diameter_px)
    assert not fit.is_clear
    assert fit.count == len(xy_px)
