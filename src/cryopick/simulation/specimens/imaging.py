"""Projections of one specimen at a micrograph's pixel size, whatever the voxel size of its map."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.processing.projection import Projector
from cryopick.simulation.specimens.proteins import particle_diameter_angstrom
from cryopick.types import Volume

_LARGEST_BOX_VOXELS = 256
"""Larger maps are sampled more coarsely first; picking needs no more detail, and the padded transform stays small."""
_LARGEST_SCALE_ERROR = 2e-5
_IMAGES_PER_BATCH = 64


@dataclass(frozen=True, eq=False)
class Specimen:
    """A particle species.

    Parameters
    ----------
    volume : V above ice
    diameter_angstrom : largest extent; 0 measures it
    preferred_rot_tilt_deg : (k, 2) directions of view (rot, tilt) that most particles show; empty for uniform
    """

    volume: Volume
    diameter_angstrom: float = 0.0
    preferred_rot_tilt_deg: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        if self.diameter_angstrom <= 0:
            object.__setattr__(self, "diameter_angstrom", particle_diameter_angstrom(self.volume))

    @property
    def name(self) -> str:
        return self.volume.name


def preferred_directions(rng: np.random.Generator, probability: float = 1.0) -> NDArray[np.float64]:
    """(1 to 3, 2) random directions of view (rot, tilt), as those that a species prefers at an air-water interface.

    With 1 - `probability` the species prefers none, and they are (0, 2).
    """
    if probability < 1 and rng.random() >= probability:
        return np.zeros((0, 2))
    return random_rotations(int(rng.integers(1, 4)), rng)[:, :2]


class SpecimenImager:
    """Projects a specimen at a given pixel size.

    Parameters
    ----------
    specimen : what to project
    pixel_size_angstrom : of the images
    """

    def __init__(self, specimen: Specimen, pixel_size_angstrom: float) -> None:
        if not pixel_size_angstrom > 0:
            raise SettingsError(f"pixel_size_angstrom is {pixel_size_angstrom:g}, expected a positive number of Å")
        self.specimen, self.pixel_size_angstrom = specimen, pixel_size_angstrom
        self.diameter_px = specimen.diameter_angstrom / pixel_size_angstrom
        volume = specimen.volume
        size = len(volume.density)
        coarsest = max(pixel_size_angstrom, size * volume.voxel_size_angstrom / _LARGEST_BOX_VOXELS)
        if volume.voxel_size_angstrom < 0.8 * coarsest:
            volume = _coarser(volume, coarsest)
        volume, self.size_px = _padded_to_whole_pixels(volume, pixel_size_angstrom)
        self._projector = Projector(volume)
        self._voxels_per_pixel = pixel_size_angstrom / volume.voxel_size_angstrom

    def images(self, rot_tilt_psi_deg: NDArray[np.float64], offsets_xy_px: NDArray[np.float64]) -> NDArray[np.float32]:
        """Projected potential, V Å, of particles whose centres lie `offsets_xy_px` from the middle pixel `size // 2`.

        Parameters
        ----------
        rot_tilt_psi_deg : (n, 3), RELION's angles
        offsets_xy_px : (n, 2), in pixels of the images

        Returns
        -------
        images : (n, size_px, size_px) float32
        """
        parts = [np.zeros((0, self.size_px, self.size_px), dtype=np.float32)]
        for first in range(0, len(rot_tilt_psi_deg), _IMAGES_PER_BATCH):
            part = slice(first, first + _IMAGES_PER_BATCH)
            shifts = offsets_xy_px[part] * self._voxels_per_pixel
            images = self._projector.project(euler_to_matrix(rot_tilt_psi_deg[part]), shifts_px=shifts)
            parts.append(resized(images, self.size_px))
        return np.concatenate(parts)


def _coarser(volume: Volume, voxel_size_angstrom: float) -> Volume:
    """The map low-passed and sampled on fewer voxels (its spectrum cut), same extent."""
    size = len(volume.density)
    new = max(8, 2 * round(size * volume.voxel_size_angstrom / voxel_size_angstrom / 2))
    if new >= size:
        return volume
    spectrum = fft.fftshift(fft.rfftn(fft.ifftshift(volume.density)), axes=(0, 1))
    start = size // 2 - new // 2
    cut = spectrum[start : start + new, start : start + new, : new // 2 + 1].copy()
    cut[0], cut[:, 0], cut[:, :, -1] = 0, 0, 0  # the Nyquist terms have lost their partners
    density = fft.fftshift(fft.irfftn(fft.ifftshift(cut, axes=(0, 1)), s=(new, new, new)))
    density *= (new / size) ** 3
    return Volume(density.astype(np.float32), volume.voxel_size_angstrom * size / new, name=volume.name)


def _padded_to_whole_pixels(volume: Volume, pixel_size_angstrom: float) -> tuple[Volume, int]:
    """Pad the map until its edge is an even number of pixels, so that resampling does not change the scale."""
    size = len(volume.density)
    best_size, best_error = size, np.inf
    for candidate in range(size + size % 2, size + 130, 2):
        pixels = candidate * volume.voxel_size_angstrom / pixel_size_angstrom
        error = abs(pixels / (2 * round(pixels / 2)) - 1) if pixels >= 2 else np.inf
        if error < best_error:
            best_size, best_error = candidate, error
        if error < _LARGEST_SCALE_ERROR:
            break
    before = best_size // 2 - size // 2
    density = np.pad(volume.density, (before, best_size - size - before))
    size_px = max(8, 2 * round(best_size * volume.voxel_size_angstrom / pixel_size_angstrom / 2))
    return Volume(density, volume.voxel_size_angstrom, name=volume.name), size_px


def resized(images: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """Fourier-resample square images of even size; the middle pixel stays the middle pixel."""
    size = images.shape[-1]
    if size == size_px:
        return images
    keep = min(size, size_px)
    spectrum = fft.rfft2(fft.ifftshift(images, axes=(1, 2)), axes=(1, 2))
    new = np.zeros((len(images), size_px, size_px // 2 + 1), dtype=np.complex64)
    half = keep // 2  # the Nyquist terms are left out
    new[:, :half, :half] = spectrum[:, :half, :half]
    new[:, size_px - half + 1 :, :half] = spectrum[:, size - half + 1 :, :half]
    resized = fft.irfft2(new, s=(size_px, size_px), axes=(1, 2))
    resized *= (size_px / size) ** 2
    return np.asarray(fft.fftshift(resized, axes=(1, 2)), dtype=np.float32)
