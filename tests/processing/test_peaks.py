"""Local maxima against hand-made arrays, an analytic bump and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryopick.processing.peaks import find_peaks


def test_a_single_bright_pixel_is_one_peak_at_its_centre():
    response = np.zeros((5, 7), np.float32)
    response[2, 4] = 3
    xy_px, score = find_peaks(response, min_score=1)
    np.testing.assert_array_equal(xy_px, [[4, 2]])
    np.testing.assert_array_equal(score, [3])


def test_a_parabola_is_refined_to_its_vertex():
    y, x = np.mgrid[:9, :9]
    response = (10 - (x - 4.3) ** 2 - 2 * (y - 3.8) ** 2).astype(np.float32)
    xy_px, _ = find_peaks(response, min_score=0)
    np.testing.assert_allclose(xy_px, [[4.3, 3.8]], atol=1e-5)


def test_peak_at_right_edge_leaves_left_edge_alone():
    response = np.zeros((5, 6), np.float32)
    response[2, 5] = 5
    response[2, 0] = 4
    xy_px, _ = find_peaks(response, min_score=1, radius_px=2)
    np.testing.assert_array_equal(xy_px, [[5, 2], [0, 2]])


def test_corners_and_negative_images_have_peaks_too():
    response = np.full((4, 4), -2.0, np.float32)
    response[0, 0] = response[3, 3] = -1
    xy_px, score = find_peaks(response, min_score=-1.5)
    np.testing.assert_array_equal(xy_px, [[0, 0], [3, 3]])
    np.testing.assert_array_equal(score, [-1, -1])


def test_within_the_radius_only_the_highest_counts():
    response = np.zeros((1, 12), np.float32)
    response[0, [2, 5, 9]] = [1, 2, 1.5]
    xy_px, _ = find_peaks(response, min_score=0.5, radius_px=3)
    np.testing.assert_array_equal(xy_px[:, 0], [5, 9])
    xy_px, _ = find_peaks(response, min_score=0.5, radius_px=2)
    np.testing.assert_array_equal(xy_px[:, 0], [5, 9, 2])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 5)])
def test_a_constant_image_has_no_peak(shape):
    xy_px, score = find_peaks(np.ones(shape, np.float32), min_score=0)
    assert xy_px.shape == (0, 2)
    assert score.shape == (0,)


def test_peaks_lower_than_asked_are_left_out():
    response = np.zeros((3, 9), np.float32)
    response[1, [1, 4, 7]] = [0.3, 0.5, 0.7]
    _, score = find_peaks(response, min_score=0.5)
    np.testing.assert_allclose(score, [0.7, 0.5])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 12), width=st.integers(1, 12), radius=st.integers(1, 4))
def test_peaks_equal_those_of_brute_force(seed, height, width, radius):
    response = np.random.default_rng(seed).permutation(height * width).reshape(height, width).astype(np.float32)
    reach = max(radius, 1.5)  # never less than the eight neighbours
    expected = set()
    for row in range(height):
        for column in range(width):
            y, x = np.mgrid[:height, :width]
            near = np.hypot(y - row, x - column) <= reach
            if response[row, column] == response[near].max() and near.sum() > 1:
                expected.add((column, row))
    xy_px, _ = find_peaks(response, min_score=0, radius_px=radius)
    assert {(round(x), round(y)) for x, y in _whole(xy_px, response)} == expected


def _whole(xy_px, response):
    """The pixel that each refined peak belongs to: the highest of those within half a pixel."""
    for x, y in xy_px:
        around = [
            (response[row, column], column, row)
            for row in {int(np.floor(y)), int(np.ceil(y))}
            for column in {int(np.floor(x)), int(np.ceil(x))}
        ]
        _, column, row = max(around)
        yield column, row
