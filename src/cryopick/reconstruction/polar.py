"""Images and slices in polar Fourier coordinates, where turning an image in its plane multiplies its coefficients.

A slice `f(r, angle)` of a real image has `f(r, angle + 180 degrees) = conj f(r, angle)`. Its angular coefficients of
order m and -m then say the same, and all in-plane angles of an image are compared with a slice by one product per
order m >= 0 and one inverse transform over m (the fast rotation function of matching in two dimensions).

References
----------
Yang and Penczek, Ultramicroscopy 108 (2008), alignment in polar coordinates; Barnett et al., SIAM J. Imaging Sci. 10
(2017), angular coefficients in matching.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import map_coordinates

_PADDING = 2
_IMAGES_PER_BATCH = 128
_FIRST_RADIUS = 2
"""Shells 0 and 1 are left out: they hold what the background's slope took."""


@dataclass(frozen=True)
class PolarGrid:
    """Radii and angles at which transforms are sampled.

    Parameters
    ----------
    box_px : edge of the images
    last_radius : of the shells, whole numbers from 2; below Nyquist
    object_radius_px : radius of what the images hold; it limits the angular orders that a shell can have
    half_angles : sampled angles over 180 degrees, more than `orders`
    """

    box_px: int
    last_radius: int
    object_radius_px: float
    half_angles: int

    @classmethod
    def of_object(cls, box_px: int, last_radius: int, object_radius_px: float) -> PolarGrid:
        """The coarsest grid that loses nothing of an object of that size."""
        orders = cls(box_px, last_radius, object_radius_px, 0).orders
        return cls(box_px, last_radius, object_radius_px, int(fft.next_fast_len(orders + 2)))

    @property
    def radii(self) -> NDArray[np.float64]:
        """(k,) cycles per box."""
        return np.arange(_FIRST_RADIUS, self.last_radius + 1, dtype=np.float64)

    @property
    def orders(self) -> int:
        """Angular orders 0 to this minus 1 hold everything: an object of radius a has orders up to 2 pi r a / box."""
        return math.ceil(2 * math.pi * self.last_radius * self.object_radius_px / self.box_px) + 3

    @property
    def in_plane(self) -> int:
        """In-plane angles over 360 degrees that scores are given at, an even number."""
        return 2 * int(fft.next_fast_len(self.orders))

    @property
    def in_plane_deg(self) -> NDArray[np.float64]:
        """(in_plane,) psi of each, degrees."""
        return -360.0 * np.arange(self.in_plane) / self.in_plane

    @property
    def xy(self) -> NDArray[np.float64]:
        """(2, radii, half_angles) frequencies of the samples."""
        angle = np.pi * np.arange(self.half_angles) / self.half_angles
        return np.asarray(self.radii[:, None] * np.stack([np.cos(angle), np.sin(angle)])[:, None])

    def coefficients(self, samples: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
        """Angular coefficients, (orders, ...,  radii), of samples (..., radii, half_angles)."""
        whole = np.concatenate([samples, samples.conj()], axis=-1)
        found = fft.fft(whole, axis=-1, workers=1)[..., : self.orders]
        return np.ascontiguousarray(np.moveaxis(found, -1, 0)).astype(np.complex64, copy=False)

    def samples(self, coefficients: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
        """The inverse of `coefficients`: (..., radii, half_angles)."""
        order = np.arange(self.orders)
        whole = np.zeros((2 * self.half_angles, *coefficients.shape[1:]), dtype=np.complex64)
        whole[: self.orders] = coefficients
        sign = np.where(order % 2, -1.0, 1.0)[1:].reshape(-1, *[1] * (coefficients.ndim - 1)).astype(np.float32)
        whole[-order[1:]] = sign * coefficients[1:].conj()
        found = fft.ifft(whole, axis=0, workers=1)[: self.half_angles]
        return np.asarray(np.moveaxis(found, 0, -1), dtype=np.complex64)


def padded_image_transforms(images: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Transforms of images padded to twice their edge, corrected for linear interpolation; x >= 0 only."""
    n = images.shape[1]
    size = _PADDING * n
    distance = np.sinc((np.arange(n) - n // 2) / size).astype(np.float32) ** 2
    padded = np.zeros((len(images), size, size), dtype=np.float32)
    place = (np.arange(n) - n // 2) % size
    padded[np.ix_(np.arange(len(images)), place, place)] = images / (distance[:, None] * distance)
    return np.asarray(fft.rfft2(padded, axes=(1, 2), workers=1), dtype=np.complex64)


def polar_images(images: NDArray[np.float32], grid: PolarGrid) -> NDArray[np.complex64]:
    """(n, radii, half_angles) transforms of images (n, box, box), the origin at pixel `box // 2`."""
    xy = grid.xy * _PADDING
    is_negative = xy[0] < 0
    xy = np.where(is_negative, -xy, xy)
    found = np.empty((len(images), *xy.shape[1:]), dtype=np.complex64)
    for first in range(0, len(images), _IMAGES_PER_BATCH):
        part = slice(first, first + _IMAGES_PER_BATCH)
        for row, spectrum in zip(found[part], padded_image_transforms(images[part]), strict=True):
            half = spectrum.shape[0] // 2
            centred = np.roll(spectrum, half, axis=0)
            row[:] = map_coordinates(centred, [xy[1] + half, xy[0]], order=1, prefilter=False)
    return np.where(is_negative, found.conj(), found)


class SliceSource:
    """The padded transform of a volume, to be cut in any direction.

    Parameters
    ----------
    density : (n, n, n)
    """

    def __init__(self, density: NDArray[np.floating]) -> None:
        self.box_px = n = density.shape[0]
        size = _PADDING * n
        distance = np.sinc((np.arange(n) - n // 2) / size) ** 2
        place = (np.arange(n) - n // 2) % size
        padded = np.zeros((size, size, size), dtype=np.float32)
        padded[np.ix_(place, place, place)] = density / (distance[:, None, None] * distance[:, None] * distance)
        spectrum = fft.rfftn(padded, workers=1)
        self._half = size // 2
        self._spectrum = np.asarray(np.roll(spectrum, (self._half, self._half), axis=(0, 1)), dtype=np.complex64)

    def slices(self, rotations: NDArray[np.floating], xy: NDArray[np.floating]) -> NDArray[np.complex64]:
        """(v, ...) values at frequencies `xy` (2, ...) of the slices that rotations (v, 3, 3) show."""
        points = xy.reshape(2, -1) * _PADDING
        xyz = np.einsum("nji,jm->inm", rotations[:, :2], points)
        is_negative = xyz[0] < 0
        xyz = np.where(is_negative, -xyz, xyz)
        place = [xyz[2] + self._half, xyz[1] + self._half, xyz[0]]
        found = map_coordinates(self._spectrum, place, order=1, prefilter=False)
        found = np.where(is_negative, found.conj(), found)
        return np.asarray(found.reshape(len(rotations), *xy.shape[1:]), dtype=np.complex64)
