"""Centres improved on the image: against known centres in noise, and the filter against plain sums."""

import numpy as np
import pytest
from scipy import fft

from cryopick.pickers.segmentation_crf.recentring import FEWEST, REACH, _matched_filter, recentred

DIAMETER = 20.0


def scene(contrast, *, elongation=1.0, seed=0):
    """Soft-edged ellipses at random angles in white noise of deviation 1; their centres."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(20, 380, 28.0), np.arange(20, 280, 28.0)), axis=-1).reshape(-1, 2)
    centres = grid + rng.uniform(-3, 3, grid.shape)
    image = rng.normal(size=(300, 400))
    y, x = np.mgrid[:300, :400]
    for (cx, cy), angle in zip(centres, rng.uniform(0, np.pi, len(centres)), strict=True):
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        radius = np.hypot(along, across * elongation)
        image -= contrast * np.clip(DIAMETER / 2 + 0.5 - radius, 0, 1)
    return image.astype(np.float32), centres


def shaken(centres, *, sigma=0.05, seed=1):
    return centres + np.random.default_rng(seed).normal(scale=sigma * DIAMETER, size=centres.shape)


def median_error(found, centres):
    return np.median(np.hypot(*(found - centres).T)) / DIAMETER


@pytest.mark.parametrize("elongation", [1.0, 2.0])
def test_centres_come_nearer_to_the_truth_for_round_and_for_long_particles(elongation):
    image, centres = scene(0.8, elongation=elongation)
    start = shaken(centres)
    moved = recentred(image, start, np.ones(len(start)), diameter_px=DIAMETER)
    assert median_error(start, centres) > 0.04
    assert median_error(moved, centres) < (0.5 if elongation == 1 else 0.8) * median_error(start, centres)


def test_centres_that_do_not_take_part_in_the_average_are_moved_too():
    image, centres = scene(0.8)
    start = shaken(centres)
    weight = np.ones(len(start))
    weight[::3] = 0
    moved = recentred(image, start, weight, diameter_px=DIAMETER)
    assert median_error(moved[::3], centres[::3]) < 0.5 * median_error(start[::3], centres[::3])


def test_what_is_right_stays_and_noise_moves_nothing_far():
    image, centres = scene(0.8)
    weight = np.ones(len(centres))
    assert median_error(recentred(image, centres, weight, diameter_px=DIAMETER), centres) < 0.02
    noise, _ = scene(0.0, seed=4)
    moved = recentred(noise, centres, weight, diameter_px=DIAMETER)
    assert median_error(moved, centres) < 0.05
    assert np.hypot(*(moved - centres).T).max() <= REACH * DIAMETER


def test_too_few_particles_for_an_average_and_a_flat_image_leave_centres_alone():
    image, centres = scene(0.8)
    few = np.zeros(len(centres))
    few[:3] = FEWEST / 3 - 0.01
    np.testing.assert_array_equal(recentred(image, centres, few, diameter_px=DIAMETER), centres)
    flat = np.zeros((90, 70), np.float32)
    places = np.array([[10.0, 12.5], [69.0, 89.0], [0.0, 0.0], [33.3, 44.4], [5.0, 80.0]])
    np.testing.assert_allclose(recentred(flat, places, np.ones(5), diameter_px=DIAMETER), places, atol=1e-6)
    assert recentred(flat, np.zeros((0, 2)), np.zeros(0), diameter_px=DIAMETER).shape == (0, 2)


def test_the_filter_is_the_sum_over_pixels_that_white_noise_asks_for():
    rng = np.random.default_rng(2)
    image, average, variance = rng.normal(size=(40, 50)), rng.normal(size=(7, 7)), 2.5
    flat = np.full(9, variance)
    found = _matched_filter(fft.rfft2(image), average, flat, shape_yx=image.shape)
    for row, column in ((10, 12), (30, 41)):
        window = image[row - 3 : row + 4, column - 3 : column + 4]
        assert found[row, column] == pytest.approx((window * average).sum() / variance, rel=1e-4)
