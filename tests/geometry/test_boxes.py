"""Corners and centres, by hand and as inverses."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cryopick.geometry.boxes import (
    centres_of_boxes,
    centres_of_integer_boxes,
    corners_of_boxes,
    corners_of_integer_boxes,
)


def test_centre_of_whole_pixel_boxes_is_pixel_half_the_size_for_even_and_odd() -> None:
    corners = np.array([[10.0, 20.0], [10.0, 20.0]])
    sizes = np.array([[4.0, 8.0], [5.0, 9.0]])
    assert centres_of_integer_boxes(corners, sizes).tolist() == [[12, 24], [12, 24]]


def test_centre_of_the_transform_of_a_box_is_the_centre_pixel() -> None:
    for size in (8, 9):  # the pixel that numpy's fftshift puts the origin at
        row = np.fft.fftshift(np.fft.fftfreq(size))
        assert (
            centres_of_integer_boxes(np.zeros((1, 2)), np.full((1, 2), float(size)))[0, 0]
            == np.flatnonzero(row == 0)[0]
        )


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 2000)), min_size=1, max_size=5))
def test_whole_boxes_survive_the_round_trip(rows: list[tuple[int, int]]) -> None:
    corners = np.array([[corner, corner + 3] for corner, _ in rows], dtype=float)
    sizes = np.array([[size, size] for _, size in rows], dtype=float)
    again = corners_of_integer_boxes(centres_of_integer_boxes(corners, sizes), sizes)
    assert np.array_equal(again, corners)


@given(st.floats(-1e6, 1e6), st.floats(0.1, 1e4))
def test_fractional_boxes_survive_the_round_trip(corner: float, size: float) -> None:
    corners, sizes = np.array([[corner, -corner]]), np.array([[size, size]])
    assert np.allclose(corners_of_boxes(centres_of_boxes(corners, sizes), sizes), corners, atol=1e-6)
    assert np.allclose(centres_of_boxes(corners, sizes) - corners, size / 2)


def test_rounding_moves_a_centre_by_half_a_pixel_at_most_and_halves_go_up() -> None:
    centres = np.array([[10.49, 10.5], [10.51, -10.5]])
    sizes = np.full((2, 2), 6.0)
    assert centres_of_integer_boxes(corners_of_integer_boxes(centres, sizes).astype(float), sizes).tolist() == [
        [10, 11],
        [11, -10],
    ]
