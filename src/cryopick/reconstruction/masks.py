"""A soft mask around a map's density, made by one formula for every map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import distance_transform_edt

from cryopick.types import Volume

EXTENDED_VOXELS, EDGE_VOXELS = 2.0, 4.0
"""The mask is 1 up to two voxels outside the density and falls to 0 over four more, as a cosine."""
LEAST_LOW_PASS_ANGSTROM = 15.0
LOW_PASS_DIAMETERS = 0.1
_BINS = 256


def soft_mask_of(volume: Volume, *, diameter_angstrom: float) -> NDArray[np.float32]:
    """Where a map's density is, with a soft edge: low-passed, cut by Otsu's threshold, extended, softened.

    Parameters
    ----------
    volume : the map; noise beyond the particle's sphere is not looked at
    diameter_angstrom : of the particle; the map is low-passed to a tenth of it, and to 15 Å at the finest

    Returns
    -------
    mask : (n, n, n) float32 in [0, 1]; all of the particle's sphere where no threshold tells density from the rest

    References
    ----------
    Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979); extension and edge as RELION's `relion_mask_create`.
    """
    n, voxel = len(volume.density), volume.voxel_size_angstrom
    finest = max(LEAST_LOW_PASS_ANGSTROM, LOW_PASS_DIAMETERS * diameter_angstrom)
    smooth = _low_passed(volume.density.astype(np.float64), voxel, finest)
    along = (np.arange(n) - n // 2) * voxel
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    is_sphere = radius <= diameter_angstrom / 2 + EXTENDED_VOXELS * voxel
    threshold = otsu_threshold(smooth[is_sphere])
    is_density = is_sphere & (smooth > threshold) if np.isfinite(threshold) else is_sphere
    distance = distance_transform_edt(~is_density)
    edge = np.clip((distance - EXTENDED_VOXELS) / EDGE_VOXELS, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * edge), dtype=np.float32)


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """The value that cuts a histogram of two kinds where they differ most; NaN where all values are equal."""
    counts, edges = np.histogram(values, bins=_BINS)
    if np.ptp(values) == 0:
        return float("nan")
    centre = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1] / counts.sum()
    mean_below = np.cumsum(counts * centre)[:-1] / counts.sum()
    mean = float((counts * centre).sum() / counts.sum())
    between = (mean * below - mean_below) ** 2 / np.maximum(below * (1 - below), 1e-12)
    return float(edges[1 + int(np.argmax(between))])


def _low_passed(density: NDArray[np.float64], voxel_angstrom: float, finest_angstrom: float) -> NDArray[np.float64]:
    """Gaussian in frequency, 1/e at 1 / `finest_angstrom`."""
    n = len(density)
    along = np.fft.fftfreq(n, voxel_angstrom)
    square = along[:, None, None] ** 2 + along[:, None] ** 2 + np.fft.rfftfreq(n, voxel_angstrom) ** 2
    spectrum = fft.rfftn(density, workers=1) * np.exp(-square * finest_angstrom**2)
    return np.asarray(fft.irfftn(spectrum, s=density.shape, workers=1))
