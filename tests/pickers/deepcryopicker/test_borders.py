"""Repeated borders: widths that are known because the test made them, and images that have none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cryopick.pickers.deepcryopicker.borders import Border, find_repeated_border


def with_border(border, *, shape_yx=(300, 360), smoothing_px=0.0, seed=0):
    """Noise whose outer rows and columns are copies of the first ones inside."""
    height, width = shape_yx[0] - border.top - border.bottom, shape_yx[1] - border.left - border.right
    inner = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    if smoothing_px:
        inner = cv2.GaussianBlur(inner, (0, 0), smoothing_px)
    return np.pad(inner, ((border.top, border.bottom), (border.left, border.right)), mode="edge")


@pytest.mark.parametrize(
    "border",
    [Border(), Border(top=9), Border(bottom=5, left=12), Border(top=20, bottom=6, left=7, right=30)],
    ids=["none", "one side", "two sides", "all sides"],
)
def test_widths_are_found(border):
    assert find_repeated_border(with_border(border)) == border


def test_widths_are_found_within_the_blur_of_a_filter_and_the_noise_of_compression():
    border = Border(top=24, left=18)
    image = cv2.GaussianBlur(with_border(border, smoothing_px=1.5), (0, 0), 1.5)
    image += np.random.default_rng(1).normal(0, 0.005, image.shape).astype(np.float32)
    found = find_repeated_border(image)
    assert found.top == pytest.approx(border.top, abs=3)
    assert found.left == pytest.approx(border.left, abs=3)
    assert (found.bottom, found.right) == (0, 0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(2).normal(size=(200, 150)),
        cv2.GaussianBlur(np.random.default_rng(3).normal(size=(200, 150)), (0, 0), 5),
        np.zeros((64, 64)),
        np.tile(np.random.default_rng(4).normal(size=200), (150, 1)),  # stripes all over are no border
        np.ones((1, 1)),
        np.ones((3, 40)),
    ],
    ids=["noise", "smooth noise", "constant", "stripes", "one pixel", "three rows"],
)
def test_images_without_a_repeated_border_have_none(pixels):
    assert not find_repeated_border(pixels.astype(np.float32))


def test_filling_mirrors_the_data_and_leaves_it_alone():
    image = np.array([[9, 9, 9, 9], [1, 2, 3, 9], [4, 5, 6, 9]], np.float32)
    filled = Border(top=1, right=1).filled(image)
    np.testing.assert_array_equal(filled, [[1, 2, 3, 3], [1, 2, 3, 3], [4, 5, 6, 6]])
    blank = Border(top=1, right=1).blanked(image)
    np.testing.assert_array_equal(blank, [[0, 0, 0, 0], [1, 2, 3, 0], [4, 5, 6, 0]])
    assert Border(top=10, right=4).scaled((0.5, 0.25)) == Border(top=5, right=1)
