"""A transform of coordinates and the same change of the image point at the same pixel."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.transforms import TRANSFORMS, transformed_shape

PIXEL_CHANGES = {
    "identity": lambda pixels: pixels,
    "flip_y": lambda pixels: pixels[::-1],
    "flip_x": lambda pixels: pixels[:, ::-1],
    "transpose": lambda pixels: pixels.T,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_coordinates_follow_their_pixels_in_a_rectangular_image(name: str) -> None:
    pixels = np.arange(15).reshape(3, 5)
    changed = PIXEL_CHANGES[name](pixels)
    assert changed.shape == transformed_shape(name, (3, 5))
    xy_px = np.array([[x, y] for y in range(3) for x in range(5)], dtype=float)
    moved = TRANSFORMS[name](xy_px, (3, 5)).astype(int)
    assert changed[moved[:, 1], moved[:, 0]].tolist() == pixels.ravel().tolist()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_applying_twice_gives_the_start_and_leaves_the_input_alone(name: str) -> None:
    xy_px = np.array([[0.25, 2.0], [4.0, 0.5]])
    before = xy_px.copy()
    once = TRANSFORMS[name](xy_px, (3, 5))
    once_more = TRANSFORMS[name](once, transformed_shape(name, (3, 5)))
    assert np.array_equal(xy_px, before)
    assert np.allclose(once_more, before)
