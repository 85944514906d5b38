"""Density maps on other grids: another voxel size, another box, exactly as far as both grids hold the detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.types import Volume


def resampled_volume(volume: Volume, *, size_px: int, voxel_size_angstrom: float) -> Volume:
    """The map at other voxels, low-passed to what the coarser of both grids holds; its centre stays the centre voxel.

    The density is taken as a sum of sines (the trigonometric polynomial through its voxels, outside of it zero), which
    is evaluated at the new places. So any two voxel sizes do, and nothing is interpolated.

    Parameters
    ----------
    volume : (n, n, n)
    size_px : edge of the new map
    voxel_size_angstrom : of the new map

    Returns
    -------
    volume : (size_px, size_px, size_px), density in the same units
    """
    matrix = _evaluation_matrix(len(volume.density), volume.voxel_size_angstrom, size_px, voxel_size_angstrom)
    density = volume.density.astype(np.float64)
    for _ in range(3):  # each turn takes the first axis and puts it last
        density = np.tensordot(density, matrix, axes=(0, 1))
    return Volume(density.astype(np.float32), float(voxel_size_angstrom), name=volume.name)


def _evaluation_matrix(old: int, old_voxel: float, new: int, new_voxel: float) -> NDArray[np.float64]:
    """(new, old) what each old voxel along an axis gives to each new place."""
    place = (np.arange(new) - new // 2) * new_voxel / old_voxel  # in old voxels from the old centre
    distance = place[:, None] - (np.arange(old) - old // 2)
    # Frequencies k / old, strictly below the Nyquist frequency of either grid
    highest = min((old - 1) // 2, int(np.ceil(old * old_voxel / (2 * new_voxel) - 1e-9)) - 1)
    frequency = np.arange(1, highest + 1)
    matrix = (1 + 2 * np.cos(2 * np.pi / old * distance[..., None] * frequency).sum(axis=-1)) / old
    matrix[np.abs(place) > old / 2] = 0.0  # beyond the old map: no periodic copies of it
    return np.asarray(matrix)
