"""Masks around density."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.reconstruction.masks import otsu_threshold, soft_mask_of
from cryopick.types import Volume


def ball(size: int, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    z, y, x = np.indices((size,) * 3) - size // 2
    return np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) - radius


def test_a_mask_holds_the_density_and_falls_softly_around_it() -> None:
    rng = np.random.default_rng(0)
    distance = ball(40, 8.0)
    volume = Volume(((distance < 0) + 0.2 * rng.normal(size=distance.shape)).astype(np.float32), 5.0)
    mask = soft_mask_of(volume, diameter_angstrom=120.0)
    assert mask[distance < 0].min() > 0.95
    assert mask[distance > 9].max() == 0
    assert 0.2 < mask[(distance > 3.5) & (distance < 4.5)].mean() < 0.8


def test_noise_beyond_the_particle_s_sphere_is_not_looked_at() -> None:
    density = (ball(40, 6.0) < 0).astype(np.float32) + 3 * (ball(40, 3.0, (14, 0, 0)) < 0)
    mask = soft_mask_of(Volume(density.astype(np.float32), 5.0), diameter_angstrom=80.0)
    assert mask[20, 20, 20] == 1
    assert mask[34, 20, 20] == 0


def test_where_nothing_stands_out_the_whole_sphere_is_the_mask() -> None:
    mask = soft_mask_of(Volume(np.zeros((32, 32, 32), np.float32), 5.0), diameter_angstrom=60.0)
    assert mask[16, 16, 16 + 6] == 1
    assert mask[16, 16, 31] == 0


def test_otsu_cuts_two_kinds_between_them() -> None:
    values = np.concatenate([np.full(900, 0.0), np.full(100, 1.0)]) + 0.05 * np.random.default_rng(0).normal(size=1000)
    assert 0.1 < otsu_threshold(values) < 0.9
    assert np.isnan(otsu_threshold(np.ones(5)))


def test_diameter_decides_how_far_the_map_is_smoothed() -> None:
    density = np.random.default_rng(1).normal(size=(32, 32, 32)) * 0.4 + (ball(32, 8.0) < 0)
    fine = soft_mask_of(Volume(density.astype(np.float32), 2.0), diameter_angstrom=40.0)
    assert fine[ball(32, 8.0) < -1].mean() == pytest.approx(1, abs=0.02)
