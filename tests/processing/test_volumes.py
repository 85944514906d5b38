"""Maps on other grids."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.processing.volumes import resampled_volume
from cryopick.types import Volume


def blobs(size: int, voxel_angstrom: float) -> np.ndarray:
    """Three Gaussians, wide enough for any grid used here, at places in Å from the centre voxel."""
    along = (np.arange(size) - size // 2) * voxel_angstrom
    z, y, x = np.meshgrid(along, along, along, indexing="ij")
    places = ((0, 0, 0, 1.0), (20, -10, 5, 0.7), (-15, 12, -25, -0.4))
    return sum(
        weight * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * 12.0**2)) for a, b, c, weight in places
    )


@pytest.mark.parametrize(("size", "voxel"), [(40, 4.0), (30, 5.333), (25, 6.1), (64, 2.5), (33, 4.7)])
def test_a_band_limited_map_is_the_same_function_on_any_grid(size: int, voxel: float) -> None:
    volume = Volume(blobs(48, 4.0).astype(np.float32), 4.0)
    found = resampled_volume(volume, size_px=size, voxel_size_angstrom=voxel)
    assert found.voxel_size_angstrom == voxel
    assert np.abs(found.density - blobs(size, voxel)).max() < 2e-3


def test_the_same_grid_gives_the_same_map() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(15, 15, 15)).astype(np.float32), 3.0)
    found = resampled_volume(volume, size_px=15, voxel_size_angstrom=3.0)
    assert np.abs(found.density - volume.density).max() < 1e-5


def test_outside_the_old_map_there_is_nothing_and_no_copy_of_it() -> None:
    volume = Volume(np.ones((16, 16, 16), np.float32), 2.0)
    found = resampled_volume(volume, size_px=40, voxel_size_angstrom=2.0)
    assert np.abs(found.density[:10]).max() == 0
    assert np.abs(found.density[20] - found.density[20].T).max() < 1e-6
    assert found.density[20, 20, 20] == pytest.approx(1, abs=1e-5)
