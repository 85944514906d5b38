"""Projections of a volume along any direction, by the Fourier slice theorem."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.types import Volume

_PADDING = 2  # of the volume before its transform; RELION's default
_POINTS_PER_BATCH = 1 << 20  # bounds the memory of one batch of slices to some 50 MiB


class Projector:
    """Holds the padded transform of one volume, so that many calls share its cost.

    Parameters
    ----------
    volume : the map; its rotation centre is voxel `n // 2` of every axis

    References
    ----------
    Scheres, J. Struct. Biol. 180 (2012), section 2: linear interpolation in a twice padded transform.
    """

    def __init__(self, volume: Volume) -> None:
        from scipy import fft

        self.voxel_size_angstrom = float(volume.voxel_size_angstrom)
        self.size_px = n = len(volume.density)
        padded = n * _PADDING
        # Linear interpolation in Fourier space multiplies the image by sinc^2 of the distance from the centre
        along_axis = np.sinc((np.arange(n) - n // 2) / padded).astype(np.float32)
        distance_weight = along_axis[:, None, None] * along_axis[:, None] * along_axis
        # Alternating signs move frequency 0 of y and z to the middle of the transform
        sign = (1 - 2 * ((np.arange(n) - n // 2) % 2)).astype(np.float32)
        density = volume.density / distance_weight**2 * (sign[:, None, None] * sign[:, None])
        # Axis by axis, so that most of the padding is never transformed
        transform = fft.rfft(_padded_around_centre(density, 2, padded), axis=2)  # (n, n, p // 2 + 1) complex64
        for axis in (1, 0):
            transform = fft.fft(_padded_around_centre(transform, axis, padded), axis=axis, overwrite_x=True)
        self._transform = transform
        self._origin = padded // 2

        frequency_y, frequency_x = np.meshgrid(np.fft.fftfreq(n) * n, np.arange(n // 2 + 1), indexing="ij")
        # Strictly inside the Nyquist circle: every direction of view then has the same resolution
        self._is_inside = frequency_x**2 + frequency_y**2 < (n / 2) ** 2
        self._xy = np.stack([frequency_x[self._is_inside], frequency_y[self._is_inside]])  # (2, m)

    def project(self, rotations: ArrayLike, *, shifts_px: ArrayLike | None = None) -> NDArray[np.float32]:
        """See `project`."""
        matrices = np.asarray(rotations, dtype=np.float64)
        if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
            raise ValueError(f"rotations: expected an array (n, 3, 3) of matrices, got shape {matrices.shape}")
        shifts = np.zeros((len(matrices), 2)) if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
        if shifts.shape != (len(matrices), 2):
            raise ValueError(f"shifts_px: expected one (x, y) per rotation, ({len(matrices)}, 2), got {shifts.shape}")
        images = np.empty((len(matrices), self.size_px, self.size_px), dtype=np.float32)
        batch = max(1, _POINTS_PER_BATCH // self._xy.shape[1])
        for first in range(0, len(matrices), batch):
            part = slice(first, first + batch)
            images[part] = self._project_batch(matrices[part], shifts[part])
        return images

    def _project_batch(self, matrices: NDArray[np.float64], shifts: NDArray[np.float64]) -> NDArray[np.float32]:
        from scipy import fft
        from scipy.ndimage import map_coordinates

        n = self.size_px
        xyz = np.einsum("nji,jm->inm", matrices[:, :2], self._xy) * _PADDING  # (3, n, m), frequency of each slice point
        is_negative = xyz[0] < 0
        xyz = np.where(is_negative, -xyz, xyz)  # only x >= 0 is stored: F(-k) is the conjugate of F(k)
        z_y_x = np.stack([xyz[2] + self._origin, xyz[1] + self._origin, xyz[0]])
        values = map_coordinates(self._transform, z_y_x, order=1, prefilter=False)
        values = np.where(is_negative, values.conj(), values)
        if np.any(shifts):
            values *= np.exp(-2j * np.pi / n * (shifts @ self._xy)).astype(np.complex64)
        slices = np.zeros((len(matrices), n, n // 2 + 1), dtype=np.complex64)
        slices[:, self._is_inside] = values * np.float32(self.voxel_size_angstrom)
        images = fft.irfft2(slices, s=(n, n), axes=(1, 2), workers=1)
        return np.asarray(fft.fftshift(images, axes=(1, 2)))


def _padded_around_centre(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Zeros up to `size` along an axis, its element `n // 2` moved to index 0."""
    n, centre = array.shape[axis], array.shape[axis] // 2
    padded = np.zeros((*array.shape[:axis], size, *array.shape[axis + 1 :]), dtype=array.dtype)
    before = (slice(None),) * axis
    padded[(*before, slice(0, n - centre))] = array[(*before, slice(centre, n))]
    padded[(*before, slice(size - centre, size))] = array[(*before, slice(0, centre))]
    return padded


def project(volume: Volume, rotations: ArrayLike, *, shifts_px: ArrayLike | None = None) -> NDArray[np.float32]:
    """Line integrals through a volume, seen from given orientations.

    Parameters
    ----------
    volume : (s, s, s) map
    rotations : (n, 3, 3), from specimen to image (see `cryopick.geometry.rotations.euler_to_matrix`)
    shifts_px : (n, 2), how far (x, y) each particle lies from the image's centre pixel; RELION's `rlnOriginX/Y` is
        the negative of it

    Returns
    -------
    images : (n, s, s) float32, density times Å, at the volume's voxel size. The particle's centre is pixel `s // 2` of
        both axes. The image is periodic: what leaves one border enters at the other. Frequencies from Nyquist up are 0.

    Raises
    ------
    ValueError
        If `rotations` or `shifts_px` have another shape.
    """
    return Projector(volume).project(rotations, shifts_px=shifts_px)
