"""How likely each image is each view of a volume, at every in-plane angle and shift; and the best pose, polished."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.geometry.rotations import euler_to_matrix
from cryopick.reconstruction.fourier_images import particle_mask
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.polar import PolarGrid, SliceSource, polar_images
from cryopick.reconstruction.symmetry import operators

_SCORES_PER_BLOCK = 1 << 21
"""Scores held at once; 8 MB of float32 stay in a processor's cache."""


def view_directions(count: int, symmetry: str = "C1") -> NDArray[np.float64]:
    """(about count / group size, 2) rot and tilt of directions spread evenly over the asymmetric unit.

    Parameters
    ----------
    count : over the whole sphere
    symmetry : directions that show the same are left out

    References
    ----------
    Spiral of golden angles: Gonzalez, Math. Geosci. 42 (2010).
    """
    i = np.arange(count) + 0.5
    rot = np.degrees(math.pi * (1 + math.sqrt(5)) * i) % 360
    tilt = np.degrees(np.arccos(1 - 2 * i / count))
    angles = np.stack([rot, tilt], axis=1)
    group = operators(symmetry)
    if len(group) == 1:
        return angles
    directions = euler_to_matrix(np.column_stack([angles, np.zeros(count)]))[:, 2]
    fixed = np.array([0.299, 0.137, 0.944])
    nearness = np.einsum("ni,gij,j->ng", directions, group, fixed)
    return np.asarray(angles[nearness.argmax(axis=1) == 0])  # the identity is the first operator


def shift_grid(reach_px: float, step_px: float) -> NDArray[np.float64]:
    """(k, 2) shifts on a square grid within a circle, (0, 0) among them."""
    steps = int(reach_px / step_px + 1e-6)
    along = np.arange(-steps, steps + 1) * step_px
    grid = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    return np.asarray(grid[np.hypot(*grid.T) <= reach_px + 1e-6])


@dataclass(frozen=True, eq=False)
class PolarParticles:
    """A stack in polar coordinates.

    Parameters
    ----------
    grid : where it is sampled
    samples : (n, radii, half_angles) complex64, of the masked images
    transfer : (n, radii) float32, the CTF without astigmatism; ones where it is unknown
    """

    grid: PolarGrid
    samples: NDArray[np.complex64]
    transfer: NDArray[np.float32]

    @classmethod
    def of_stack(cls, stack: ParticleStack, last_radius: int) -> PolarParticles:
        """Mask, transform and sample a stack up to a shell."""
        box, diameter_px = stack.box_px, stack.diameter_angstrom / stack.pixel_size_angstrom
        mask = particle_mask(box, diameter_px)
        along = np.arange(box) - box // 2
        reach = float(np.hypot(along[:, None], along)[mask > 0.5].max())
        grid = PolarGrid.of_object(box, min(last_radius, box // 2 - 1), reach)
        samples = polar_images(stack.images * mask, grid)
        if stack.ctf is None:
            transfer = np.ones((len(stack), len(grid.radii)), dtype=np.float32)
        else:
            frequency = grid.radii / (box * stack.pixel_size_angstrom)
            transfer = stack.ctf.without_astigmatism().at(frequency, np.zeros_like(frequency))
        return cls(grid, samples, transfer)

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | slice) -> PolarParticles:
        """The particles at `index`."""
        return PolarParticles(self.grid, self.samples[index], self.transfer[index])

    def coefficients(self, shifts_px: NDArray[np.floating]) -> NDArray[np.complex64]:
        """(orders, n, radii) of every particle after taking its shift (n, 2) off."""
        turns = np.einsum("ni,ira->nra", shifts_px.astype(np.float32), self.grid.xy.astype(np.float32))
        moved = self.samples * np.exp(np.complex64(2j * np.pi / self.grid.box_px) * turns)
        return self.grid.coefficients(moved)


@dataclass(frozen=True, eq=False)
class References:
    """Slices that images are compared with.

    Parameters
    ----------
    coefficients : (orders, views, radii) complex64
    power : (views, radii) mean squared modulus over the angles
    """

    coefficients: NDArray[np.complex64]
    power: NDArray[np.float32]

    @classmethod
    def of_samples(cls, samples: NDArray[np.complex64], grid: PolarGrid) -> References:
        """From (views, radii, half_angles)."""
        power = (np.abs(samples) ** 2).mean(axis=-1)
        return cls(grid.coefficients(samples), power.astype(np.float32))

    @classmethod
    def of_volume(cls, source: SliceSource, rot_tilt_deg: NDArray[np.float64], grid: PolarGrid) -> References:
        """The views of a volume."""
        rotations = euler_to_matrix(np.column_stack([rot_tilt_deg, np.zeros(len(rot_tilt_deg))]))
        return cls.of_samples(source.slices(rotations, grid.xy), grid)

    def __len__(self) -> int:
        return int(self.coefficients.shape[1])


def shell_weights(grid: PolarGrid, noise_power: NDArray[np.floating]) -> NDArray[np.float32]:
    """(radii,) what the squared difference at one sampled angle of a shell counts in the log-likelihood.

    A shell of radius r has pi r independent frequencies, spread here over the angles of 360 degrees; each has complex
    noise of power `noise_power`, so that its log-likelihood is minus the squared difference over that power.

    Parameters
    ----------
    noise_power : (shells,) of the images without mask, from shell 0
    """
    radii = grid.radii
    return np.asarray(np.pi * radii / (2 * grid.half_angles) / noise_power[radii.astype(int)], dtype=np.float32)


def score_blocks(
    particles: PolarParticles,
    references: References,
    *,
    noise_power: NDArray[np.floating],
    base_shifts_px: NDArray[np.float64],
    offsets_px: NDArray[np.float64],
) -> Iterator[tuple[slice, NDArray[np.complex64], NDArray[np.float32]]]:
    """Log-likelihood ratio of every image being every view at every in-plane angle and shift, against noise.

    Parameters
    ----------
    base_shifts_px : (n, 2) around which shifts are tried
    offsets_px : (s, 2) that are added to them

    Yields
    ------
    part : which particles
    coefficients : (orders, b, s, radii) the shifted images' coefficients, without CTF and weights
    scores : (in_plane, b, s, views) float32
    """
    grid = particles.grid
    weights = shell_weights(grid, noise_power)
    count, views = len(offsets_px), len(references)
    size = max(1, _SCORES_PER_BLOCK // (count * views * grid.in_plane))
    slices = np.ascontiguousarray(references.coefficients.conj().transpose(0, 2, 1))  # (orders, radii, views)
    scale = np.float32(grid.in_plane / (2 * grid.half_angles) * 2)  # of the inverse transform; twice the real part
    for first in range(0, len(particles), size):
        part = slice(first, min(first + size, len(particles)))
        block = particles.take(part)
        here = len(block)
        every = np.repeat(np.arange(here), count)
        shifts = base_shifts_px[part][every] + np.tile(offsets_px, (here, 1))
        coefficients = block.take(every).coefficients(shifts)  # (orders, b * s, radii)
        filter_ = (block.transfer * weights)[every]
        products = np.matmul(coefficients * filter_, slices)  # (orders, b * s, views)
        scores = fft.irfft(products, n=grid.in_plane, axis=0, overwrite_x=True, workers=1)
        scores *= scale
        penalty = (block.transfer**2 * weights) @ references.power.T * np.float32(2 * grid.half_angles)  # (b, views)
        scores = scores.reshape(grid.in_plane, here, count, views)
        scores -= penalty[None, :, None, :]
        yield part, coefficients.reshape(len(coefficients), here, count, -1), scores


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best few poses of every particle on the search grid, best first.

    Parameters
    ----------
    rotations : (n, k, 3, 3)
    shifts_px : (n, k, 2)
    scores : (n, k)
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    scores: NDArray[np.float32]


def search(
    particles: PolarParticles,
    source: SliceSource,
    *,
    rot_tilt_deg: NDArray[np.float64],
    noise_power: NDArray[np.floating],
    base_shifts_px: NDArray[np.float64],
    offsets_px: NDArray[np.float64],
    keep: int = 1,
) -> Candidates:
    """Compare every particle with every view and keep the best views.

    Parameters
    ----------
    source : of the volume
    rot_tilt_deg : (v, 2) directions of view tried
    keep : so many views of each particle, each with its best in-plane angle and shift

    Returns
    -------
    candidates : n particles, k = `keep`
    """
    grid = particles.grid
    references = References.of_volume(source, rot_tilt_deg, grid)
    keep = min(keep, len(references))
    rotations = np.empty((len(particles), keep, 3, 3))
    shifts = np.empty((len(particles), keep, 2))
    best_scores = np.empty((len(particles), keep), dtype=np.float32)
    for part, _, scores in score_blocks(
        particles, references, noise_power=noise_power, base_shifts_px=base_shifts_px, offsets_px=offsets_px
    ):
        plane = scores.argmax(axis=0)  # (b, s, views)
        best_turn = np.take_along_axis(scores, plane[None], axis=0)[0]
        shift = best_turn.argmax(axis=1)  # (b, views)
        best = np.take_along_axis(best_turn, shift[:, None], axis=1)[:, 0]
        top = np.argsort(-best, axis=1)[:, :keep]
        chosen = np.take_along_axis(shift, top, axis=1)  # (b, keep)
        here = np.arange(len(top))[:, None]
        psi = grid.in_plane_deg[plane[here, chosen, top]]
        angles = np.column_stack([rot_tilt_deg[top.ravel()], psi.ravel()])
        rotations[part] = euler_to_matrix(angles).reshape(len(top), keep, 3, 3)
        shifts[part] = base_shifts_px[part, None] + offsets_px[chosen]
        best_scores[part] = np.take_along_axis(best, top, axis=1)
    return Candidates(rotations, shifts, best_scores)
