"""Intensity clusters against hand-computed borders and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.pickers.deepcryopicker.clustering import intensity_classes, k_means_borders, super_pixel_means


def test_fixed_borders_are_those_of_the_program_and_ties_go_to_the_darker_class():
    image = np.array([[0.0, 0.375, 0.376, 0.625, 0.626, 0.875, 0.876, 1.0]])
    np.testing.assert_array_equal(intensity_classes(image)[0], [0, 0, 1, 1, 2, 2, 3, 3])


def test_zero_is_in_the_darkest_class_and_the_borders_follow_the_range():
    np.testing.assert_array_equal(intensity_classes(np.array([[10.0, 13.0, 14.0, 18.0]]))[0], [0, 0, 1, 3])


def test_constant_image_has_one_class():
    assert not intensity_classes(np.full((3, 3), 7.0)).any()


def test_iterated_borders_equal_plain_lloyd_on_all_pixels():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(mean, 0.05, 4000) for mean in (0.1, 0.35, 0.6, 0.9)])
    centres = values.min() + (np.arange(4) + 0.5) * np.ptp(values) / 4
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        centres = np.array([values[nearest == k].mean() for k in range(4)])
    np.testing.assert_allclose(k_means_borders(values, k=4), (centres[1:] + centres[:-1]) / 2, atol=0.005)


def test_super_pixels_keep_edges_and_average_noise():
    rng = np.random.default_rng(1)
    clean = np.zeros((60, 60), np.float32)
    clean[:, 30:] = 1
    noisy = (clean + rng.normal(0, 0.15, clean.shape)).astype(np.float32)
    means = super_pixel_means(noisy, side_px=6)
    assert np.abs(means - clean)[:, [*range(27), *range(33, 60)]].std() < 0.08
    assert means[:, 40:].mean() - means[:, :20].mean() == pytest.approx(1, abs=0.05)


def test_super_pixel_means_of_a_flipped_image_are_the_flipped_means():
    image = np.random.default_rng(2).random((31, 44)).astype(np.float32)
    np.testing.assert_allclose(
        super_pixel_means(image[::-1], side_px=5), super_pixel_means(image, side_px=5)[::-1], atol=1e-6
    )
