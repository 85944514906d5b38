"""Reconstruction from particles of known pose: transforms weighted by their CTF and gridded in three dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.reconstruction.fourier_images import FourierImages, fourier_images
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.symmetry import operators
from cryopick.types import Volume

PADDING = 2
_POINTS_PER_BATCH = 1 << 19
_LEAST_WEIGHT = 0.1
"""Without an SNR, this part of a shell's mean weight is added to every weight, so that frequencies which hardly any
particle shows do not become noise."""


class FourierVolume:
    """Collects slices of a volume's transform: sums of data times CTF, and of squared CTF.

    Parameters
    ----------
    box_px : edge of images and volume
    padding : how much finer than the box's own the grid of frequencies is

    References
    ----------
    Penczek, Methods Enzymol. 482 (2010), direct Fourier inversion; weights as in Scheres, J. Struct. Biol. 180 (2012),
    eq. 1, with linear interpolation and without iterations.
    """

    def __init__(self, box_px: int, *, padding: int = PADDING) -> None:
        self.box_px, self.padding = box_px, padding
        self.origin = half = padding * box_px // 2 + 1  # one voxel more than Nyquist, so that neighbours always exist
        self.shape = (2 * half + 1, 2 * half + 1, half + 2)  # z, y, x; only x >= 0, the rest is conjugate
        self.data = np.zeros(self.shape, dtype=np.complex128)
        self.weight = np.zeros(self.shape, dtype=np.float64)

    def add(
        self,
        rotations: NDArray[np.float64],
        xy: NDArray[np.float64],
        data: NDArray[np.complexfloating],
        weight: NDArray[np.floating],
        *,
        symmetry: NDArray[np.float64],
    ) -> None:
        """Insert slices.

        Parameters
        ----------
        rotations : (n, 3, 3)
        xy : (2, m) frequencies of each slice in cycles per box
        data : (n, m) CTF times the transform of particles at the origin, times any weight
        weight : (n, m) squared CTF, times the same weight
        symmetry : (k, 3, 3) every slice is inserted as seen through each of them
        """
        # As many points as the grid has, where that is more: every batch goes over the whole grid
        batch = max(1, max(_POINTS_PER_BATCH, self.weight.size // 2) // max(1, xy.shape[1]))
        for operator in symmetry:
            turned = rotations @ operator
            for first in range(0, len(rotations), batch):
                part = slice(first, first + batch)
                xyz = np.einsum("nji,jm->inm", turned[part, :2], xy * self.padding)
                self._spread(xyz.reshape(3, -1), data[part].reshape(-1), weight[part].reshape(-1))

    def _spread(
        self, xyz: NDArray[np.float64], data: NDArray[np.complexfloating], weight: NDArray[np.floating]
    ) -> None:
        """Each point onto its eight neighbours, nearer ones getting more."""
        is_negative = xyz[0] < 0
        xyz = np.where(is_negative, -xyz, xyz)
        real, imaginary = data.real, np.where(is_negative, -data.imag, data.imag)
        low = np.floor(xyz)
        above = xyz - low
        x, y, z = low.astype(np.int64) + np.array([[0], [self.origin], [self.origin]])
        base = (z * self.shape[1] + y) * self.shape[2] + x
        flat_data, flat_weight = self.data.reshape(-1), self.weight.reshape(-1)
        share_z = (1 - above[2], above[2])
        share_y = (1 - above[1], above[1])
        share_x = (1 - above[0], above[0])
        for dz in (0, 1):
            for dy in (0, 1):
                share_zy = share_z[dz] * share_y[dy]
                for dx in (0, 1):
                    share = share_zy * share_x[dx]
                    index = base + ((dz * self.shape[1] + dy) * self.shape[2] + dx)
                    flat_data.real += np.bincount(index, share * real, minlength=flat_data.size)
                    flat_data.imag += np.bincount(index, share * imaginary, minlength=flat_data.size)
                    flat_weight += np.bincount(index, share * weight, minlength=flat_weight.size)

    def add_other(self, other: FourierVolume, *, keep: float = 1.0) -> None:
        """Add what another one of the same size collected, after multiplying what is here by `keep`."""
        self.data = keep * self.data + other.data
        self.weight = keep * self.weight + other.weight

    def volume(self, snr: NDArray[np.floating] | None = None, *, radius_px: float | None = None) -> NDArray[np.float32]:
        """The density, (box, box, box).

        Parameters
        ----------
        snr : (shells,) signal over noise power of the average in each shell, by which it is damped (Wiener); None
            damps by next to nothing, as half maps for an FSC ask for
        radius_px : frequencies from here on are 0; None is Nyquist
        """
        n, padding = self.box_px, self.padding
        data, weight = self.data.copy(), self.weight.copy()
        # The plane x = 0 collects both halves, which are each other's conjugates
        data[:, :, 0] += np.conj(self.data[::-1, ::-1, 0])
        weight[:, :, 0] += self.weight[::-1, ::-1, 0]
        along = np.arange(-self.origin, self.origin + 1) / padding
        radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + (np.arange(self.shape[2]) / padding) ** 2)
        is_inside = radius < min(n / 2, n / 2 if radius_px is None else radius_px)
        shell = np.rint(radius[is_inside]).astype(np.int64)
        mean = np.bincount(shell, weight[is_inside]) / np.maximum(np.bincount(shell), 1)
        if snr is None:
            floor = _LEAST_WEIGHT * mean
        else:
            known = np.concatenate([snr, np.full(max(0, len(mean) - len(snr)), snr[-1])])[: len(mean)]
            floor = mean / np.maximum(known, 1e-3)
        size = padding * n
        spectrum = np.zeros((size, size, size // 2 + 1), dtype=np.complex128)
        z, y, x = np.nonzero(is_inside)
        index = ((z - self.origin) % size * size + (y - self.origin) % size) * (size // 2 + 1) + x
        spectrum.reshape(-1)[index] = data[is_inside] / (weight[is_inside] + floor[shell] + 1e-12)
        density = fft.irfftn(spectrum, s=(size, size, size), workers=1)
        take = (np.arange(n) - n // 2) % size
        density = density[np.ix_(take, take, take)]
        interpolation = np.sinc((np.arange(n) - n // 2) / size) ** 2
        density /= interpolation[:, None, None] * interpolation[:, None] * interpolation
        return np.asarray(density, dtype=np.float32)


def collect(
    images: FourierImages,
    poses: Poses,
    *,
    symmetry: str = "C1",
    weights: NDArray[np.floating] | None = None,
    padding: int = PADDING,
) -> FourierVolume:
    """Insert every particle at its pose.

    Parameters
    ----------
    weights : (n,) how much each counts; None is 1
    """
    grid = FourierVolume(images.pixels.box_px, padding=padding)
    group = operators(symmetry)
    batch = max(1, _POINTS_PER_BATCH // max(1, images.transforms.shape[1]))
    for first in range(0, len(images), batch):
        part = slice(first, first + batch)
        transfer = images.transfer[part]
        data = images.transforms[part] * images.pixels.shift_factors(-poses.shifts_px[part]) * transfer
        power = transfer * transfer
        if weights is not None:
            data, power = data * weights[part, None], power * weights[part, None]
        grid.add(poses.rotations[part], images.pixels.xy, data, power, symmetry=group)
    return grid


def reconstruct(
    stack: ParticleStack,
    poses: Poses,
    *,
    symmetry: str = "C1",
    snr: NDArray[np.floating] | None = None,
    weights: NDArray[np.floating] | None = None,
    is_masked: bool = False,
) -> Volume:
    """The map that particles of known pose give, every one corrected for its CTF.

    Parameters
    ----------
    stack, poses : one row per particle
    symmetry : C1, C4, D7, T, O, I1 ...: see `cryopick.reconstruction.symmetry`
    snr : (shells,) of the map, for a Wiener filter; None leaves half maps as an FSC wants them
    weights : (n,) how much each particle counts; None is 1
    is_masked : cut each particle out of its box first; RELION's `relion_reconstruct` does not

    Returns
    -------
    volume : density in units of the stack's noise, the stack's pixel size

    Raises
    ------
    ValueError
        If there are not as many poses as particles, or none.
    SettingsError
        A symmetry that does not exist.
    """
    if len(stack) != len(poses) or len(stack) == 0:
        raise ValueError(f"{len(stack)} particles and {len(poses)} poses: expected as many of both, at least one")
    grid = collect(fourier_images(stack, is_masked=is_masked), poses, symmetry=symmetry, weights=weights)
    return Volume(grid.volume(snr), stack.pixel_size_angstrom)
