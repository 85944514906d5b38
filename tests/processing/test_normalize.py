"""Local normalisation: unit variance, no trace of gradients and outliers, flat stays flat."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.processing.normalize import DETAIL_SIGMA, normalize_locally, robust_spread, typical_variance


def noise(shape=(200, 240), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_robust_spread_of_normal_noise_is_its_standard_deviation():
    middle, spread = robust_spread(5 + 3 * noise((300, 300)))
    assert middle == pytest.approx(5, abs=0.05)
    assert spread == pytest.approx(3, rel=0.02)


def test_robust_spread_falls_back_when_most_values_are_equal():
    values = np.zeros(100, np.float32)
    values[:10] = 1
    assert robust_spread(values) == (0.0, pytest.approx(0.3))


def test_noise_becomes_zero_mean_and_unit_variance():
    normalized = normalize_locally(700 + 25 * noise(), diameter_px=12)
    assert abs(normalized.mean()) < 0.02
    assert normalized.std() == pytest.approx(1, abs=0.05)


def test_a_gradient_and_a_change_of_noise_level_disappear():
    y, x = np.mgrid[:200, :240].astype(np.float32)
    normalized = normalize_locally((1 + (x > 120)) * noise() + 0.2 * y, diameter_px=10)
    assert normalized[:, :90].std() == pytest.approx(normalized[:, 150:].std(), rel=0.15)
    assert abs(normalized[20:60].mean() - normalized[140:180].mean()) < 0.05


def test_outliers_are_clipped_and_do_not_dim_their_surroundings():
    pixels = noise()
    before = normalize_locally(pixels, diameter_px=12)
    pixels[100, 100] = 1e7
    after = normalize_locally(pixels, diameter_px=12)
    assert after.max() <= DETAIL_SIGMA
    around = np.s_[90:110, 90:110]
    assert after[around].std() > 0.8 * before[around].std()


@pytest.mark.parametrize("value", [0.0, 1e-20, 4.2e4, -1e6])
def test_a_constant_image_becomes_zero(value):
    assert not normalize_locally(np.full((30, 40), value, np.float32), diameter_px=12).any()


def test_a_nearly_flat_patch_stays_nearly_flat():
    pixels = noise()
    pixels[:, 160:] *= 1e-3
    assert normalize_locally(pixels, diameter_px=12)[:, 200:].std() < 0.01


def test_typical_variance_leaves_out_blank_places():
    assert typical_variance(np.array([0, 0, 0, 2.0, 4.0, 6.0])) == 4.0
    assert typical_variance(np.zeros(5)) == 1.0
