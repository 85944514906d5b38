"""Transforms of particle images: each independent frequency inside Nyquist once, in one row per particle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.reconstruction.particles import ParticleStack

MASK_PER_DIAMETER = 1.1
MASK_EDGE_PER_DIAMETER = 0.13
"""Particles are cut out by a circle of 1.1 diameters with a soft edge: neighbours stay outside, fringes inside."""
_IMAGES_PER_BATCH = 512


@dataclass(frozen=True, eq=False)
class FrequencyPixels:
    """The frequencies of a box's transform that are kept, in a fixed order.

    Parameters
    ----------
    box_px : edge of the images
    radius_px : frequencies are strictly inside of it; `box_px / 2` is Nyquist
    """

    box_px: int
    radius_px: float

    def __post_init__(self) -> None:
        n = self.box_px
        y, x = np.meshgrid(np.fft.fftfreq(n) * n, np.arange(n // 2 + 1), indexing="ij")
        is_kept = (x**2 + y**2 < min(self.radius_px, n / 2) ** 2) & ((x > 0) | (y >= 0))  # the rest is conjugate
        xy = np.stack([x[is_kept], y[is_kept]])
        object.__setattr__(self, "index", np.flatnonzero(is_kept))
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "shell", np.rint(np.hypot(*xy)).astype(np.int64))

    index: NDArray[np.int64] = field(init=False)
    """(m,) into the flattened `numpy.fft.rfft2` of an image."""
    xy: NDArray[np.float64] = field(init=False)
    """(2, m) whole cycles per box along x and y, x at least 0."""
    shell: NDArray[np.int64] = field(init=False)
    """(m,) radius, rounded."""

    def shell_means(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """(shells,) mean of `values` (m,) over the frequencies of each shell."""
        return np.asarray(np.bincount(self.shell, values) / np.maximum(np.bincount(self.shell), 1), dtype=np.float64)

    def shift_factors(self, shifts_px: NDArray[np.floating]) -> NDArray[np.complex64]:
        """(k, m) what the transforms of centred particles are multiplied with when they move by (x, y)."""
        turns = np.asarray(shifts_px, dtype=np.float32) @ self.xy.astype(np.float32)
        return np.asarray(np.exp(np.complex64(-2j * np.pi / self.box_px) * turns), dtype=np.complex64)


def soft_disc(box_px: int, radius_px: float, edge_px: float) -> NDArray[np.float32]:
    """(box, box) 1 up to a radius around pixel `box // 2`, falling as a cosine to 0 over an edge."""
    along = np.arange(box_px) - box_px // 2
    return cosine_edge(np.hypot(along[:, None], along) - radius_px, edge_px)


def cosine_edge(distance_px: NDArray[np.floating], edge_px: float) -> NDArray[np.float32]:
    """1 at distance 0 and below, 0 from `edge_px` on, half a cosine between."""
    inside = np.clip(distance_px / max(edge_px, 1e-6), 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * inside), dtype=np.float32)


def particle_mask(box_px: int, diameter_px: float) -> NDArray[np.float32]:
    """(box, box) the soft disc that cuts a particle out of its box."""
    edge = max(2.0, MASK_EDGE_PER_DIAMETER * diameter_px)
    radius = min(MASK_PER_DIAMETER * diameter_px / 2, box_px / 2 - edge)
    return soft_disc(box_px, max(radius, 1.0), edge)


@dataclass(frozen=True, eq=False)
class FourierImages:
    """A stack's transforms and transfers at chosen frequencies.

    Parameters
    ----------
    pixels : which frequencies
    transforms : (n, m) complex64 of the masked images, the origin at pixel `box // 2`
    transfer : (n, m) float32, the CTF; ones where it is unknown
    kept_noise : share of the background's power that the mask leaves
    """

    pixels: FrequencyPixels
    transforms: NDArray[np.complex64]
    transfer: NDArray[np.float32]
    kept_noise: float

    def __len__(self) -> int:
        return len(self.transforms)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> FourierImages:
        """The particles at `index`, integers or a mask."""
        return FourierImages(self.pixels, self.transforms[index], self.transfer[index], self.kept_noise)

    def up_to(self, radius_px: float) -> FourierImages:
        """The same images at the frequencies inside a radius."""
        pixels = FrequencyPixels(self.pixels.box_px, radius_px)
        place = np.searchsorted(self.pixels.index, pixels.index)
        return FourierImages(pixels, self.transforms[:, place], self.transfer[:, place], self.kept_noise)


def fourier_images(stack: ParticleStack, *, radius_px: float | None = None, is_masked: bool = True) -> FourierImages:
    """Transform a stack.

    Parameters
    ----------
    radius_px : frequencies up to this radius; None is all inside Nyquist
    is_masked : cut the particles out first
    """
    box = stack.box_px
    pixels = FrequencyPixels(box, box / 2 if radius_px is None else radius_px)
    diameter_px = stack.diameter_angstrom / stack.pixel_size_angstrom
    mask = particle_mask(box, diameter_px) if is_masked else np.ones((box, box), dtype=np.float32)
    transforms = np.empty((len(stack), len(pixels.index)), dtype=np.complex64)
    for first in range(0, len(stack), _IMAGES_PER_BATCH):
        part = slice(first, first + _IMAGES_PER_BATCH)
        spectra = fft.rfft2(fft.ifftshift(stack.images[part] * mask, axes=(1, 2)), axes=(1, 2))
        transforms[part] = spectra.reshape(len(spectra), -1)[:, pixels.index]
    if stack.ctf is None:
        transfer = np.ones(transforms.shape, dtype=np.float32)
    else:
        transfer = stack.ctf.at(*(pixels.xy / (box * stack.pixel_size_angstrom)))
    return FourierImages(pixels, transforms, transfer, float((mask**2).mean()))
