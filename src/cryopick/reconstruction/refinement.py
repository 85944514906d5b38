"""Refinement of two half sets that never meet: match, polish, reconstruct, compare the halves, again."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import euler_to_matrix, random_rotations, rotation_angle_deg
from cryopick.metrics.fourier_shell_correlation import HALF_MAPS, fourier_shell_correlation, resolution_at
from cryopick.reconstruction.filtering import low_passed, soft_sphere
from cryopick.reconstruction.fourier_images import FourierImages, FrequencyPixels, fourier_images, particle_mask
from cryopick.reconstruction.gridding import FourierVolume, collect
from cryopick.reconstruction.matching import PolarParticles, search, shift_grid, view_directions
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.polar import SliceSource
from cryopick.reconstruction.polishing import polish
from cryopick.reconstruction.poses import Poses
from cryopick.types import Volume

Progress = Callable[[str], None]
"""Told one sentence a step."""

START_PER_DIAMETER = 0.2
"""The start is low-passed to a fifth of the particle's diameter, as is usual (60 Å for 300 Å), so that the half sets
have nothing finer in common."""
REACH_PER_DIAMETER = 0.1
"""Shifts are searched within a tenth of the diameter at first."""
_LARGEST_SEARCHED_SHELL = 10
"""The search over all directions looks at no finer shells; beyond, the polish leads on. On simulated proteins its
poses then lie well inside the range from which the polish converges."""
_VIEW_SPACING_PX = 1.25  # of the outermost searched shell, between neighbouring directions
_PARTICLES_PER_BATCH = 512
_SCALED_BY, _SCALE_ROUNDS = 100, 3
"""Particles by which the start is scaled to the images, and how often: the third time nothing changes any more."""
_FIRST_SCALED_SHELL = 2  # coarser ones hold the background
_SETTLED_DEG = 1.0


@dataclass(frozen=True, eq=False)
class RefinementStep:
    """One iteration.

    Parameters
    ----------
    resolution_angstrom : of the half maps at 0.143 in a sphere
    last_shell : up to which images were compared
    turned_deg : median turn of the particles against the iteration before; NaN in the first
    mean_score : of the particles
    """

    resolution_angstrom: float
    last_shell: int
    turned_deg: float
    mean_score: float


@dataclass(frozen=True, eq=False)
class Refinement:
    """What a refinement gives.

    Parameters
    ----------
    half1, half2 : maps of the half sets, unfiltered
    map : of all particles, Wiener-filtered by the half maps' FSC
    poses : of all particles
    fsc : (box // 2 + 1,) of the half maps in a soft sphere of 1.1 diameters
    resolution_angstrom : at which it falls below 0.143
    noise_power : (shells,) of the images, as estimated
    steps : one an iteration
    """

    half1: Volume
    half2: Volume
    map: Volume
    poses: Poses
    fsc: NDArray[np.float64]
    resolution_angstrom: float
    noise_power: NDArray[np.float64]
    steps: list[RefinementStep] = field(default_factory=list)


def refine(
    stack: ParticleStack,
    halves: ArrayLike,
    start: Volume,
    *,
    symmetry: str = "C1",
    iterations: int = 12,
    start_resolution_angstrom: float | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> Refinement:
    """Refine poses of both half sets from one low-passed start.

    Parameters
    ----------
    stack : particles
    halves : (n,) 1 or 2, see `cryopick.reconstruction.halves`
    start : same box and pixel size as the stack, in any scale
    symmetry : see `cryopick.reconstruction.symmetry`
    iterations : at most; it ends when poses and resolution stay
    start_resolution_angstrom : the start is low-passed to this; None is a fifth of the diameter
    progress : told one sentence an iteration
    workers : threads; the result does not depend on it

    Raises
    ------
    SettingsError
        A start of another box or pixel size, halves that are not 1 and 2, no iterations.
    """
    half_of = np.asarray(halves, dtype=np.int64).reshape(-1)
    _check(stack, half_of, start)
    first = start_resolution_angstrom or START_PER_DIAMETER * stack.diameter_angstrom
    refining = _Refining(stack, half_of, symmetry=symmetry, workers=max(1, workers))
    refining.begin_with(start, first)
    return refining.run(iterations, progress or (lambda _: None))


class _Refining:
    def __init__(self, stack: ParticleStack, half_of: NDArray[np.int64], *, symmetry: str, workers: int) -> None:
        self.stack, self.symmetry, self.workers = stack, symmetry, workers
        self.rows = [np.flatnonzero(half_of == number) for number in (1, 2)]
        self.box, self.pixel_size = stack.box_px, stack.pixel_size_angstrom
        self.edge_angstrom = self.box * self.pixel_size
        self.diameter_px = stack.diameter_angstrom / self.pixel_size
        self.sphere = soft_sphere(self.box, self.diameter_px)
        self.noise_power = image_power(stack)
        self.poses = Poses.of_angles(np.zeros((len(stack), 3)))
        self.has_poses = False

    def begin_with(self, start: Volume, resolution_angstrom: float) -> None:
        """Both half sets' first reference: the start, low-passed, in the images' scale."""
        self.last_shell = int(np.clip(round(self.edge_angstrom / resolution_angstrom), 4, self.box // 2 - 1))
        density = low_passed(start.density, self.last_shell) * self.sphere
        density = matched_in_power(density, self.stack, self.noise_power, self.last_shell)
        self.references = [self._scaled_to_images(density, rows) for rows in self.rows]

    def _scaled_to_images(self, density: NDArray[np.float32], half: NDArray[np.int64]) -> NDArray[np.float32]:
        """The density in the scale of a half set's images: some are matched, and its views fitted to them, a few times.

        Powers alone do not tell the scale, because the noise of micrographs is coloured: what is under the particle is
        not known from what is beyond its resolution. A reference that is too strong makes the views of least power
        win, and one that is too weak is still fitted well.
        """
        searched = min(self.last_shell, _LARGEST_SEARCHED_SHELL)
        some = np.linspace(0, len(half) - 1, min(len(half), _SCALED_BY)).astype(np.int64)
        few = self.stack.take(half[np.unique(some)])
        images = fourier_images(few, radius_px=searched + 0.5)
        views = view_directions(round(4 * math.pi * (searched / _VIEW_SPACING_PX) ** 2), self.symmetry)
        step = self.box / (4.5 * searched)
        offsets = shift_grid(max(REACH_PER_DIAMETER * self.diameter_px, 1.5 * step), step)
        polar = PolarParticles.of_stack(few, searched)
        weight = 1 / self.noise_power[images.pixels.shell]
        weight[images.pixels.shell < _FIRST_SCALED_SHELL] = 0
        for _ in range(_SCALE_ROUNDS):
            source = SliceSource(density)
            found = search(
                polar,
                source,
                rot_tilt_deg=views,
                noise_power=self.noise_power,
                base_shifts_px=np.zeros((len(few), 2)),
                offsets_px=offsets,
            )
            seen = source.slices(found.rotations[:, 0], images.pixels.xy) * images.transfer
            seen = seen * images.pixels.shift_factors(found.shifts_px[:, 0])
            common = float((weight * (seen.conj() * images.transforms).real).sum())
            own = float((weight * np.abs(seen) ** 2).sum())
            if common <= 0 or own <= 0:
                break
            density = np.asarray(density * (common / own), dtype=np.float32)
        return density

    def run(self, iterations: int, progress: Progress) -> Refinement:
        if iterations < 1:
            raise SettingsError(f"{iterations} iterations: expected at least 1")
        steps: list[RefinementStep] = []
        for number in range(iterations):
            before = self.poses
            searched = self.last_shell
            grids = self._match()
            sharp = [grid.volume() for grid in grids]
            curve = fourier_shell_correlation(sharp[0], sharp[1], self.sphere)
            resolution = resolution_at(curve, HALF_MAPS, box_px=self.box, pixel_size_angstrom=self.pixel_size)
            snr = snr_of(curve)
            reached = min(self.edge_angstrom / resolution, self.box / 2)
            self.last_shell = int(np.clip(round(reached + 1), 5, self.box // 2 - 1))
            self.references = [grid.volume(snr, radius_px=self.last_shell + 2) * self.sphere for grid in grids]
            turned = math.nan
            if number:
                relative = np.einsum("nij,nkj->nik", self.poses.rotations, before.rotations)
                turned = float(np.median(rotation_angle_deg(relative)))
            steps.append(RefinementStep(resolution, searched, turned, float(self.poses.score.mean())))
            progress(
                f"iteration {number + 1}: half maps agree to {resolution:.1f} Å, poses turned by {turned:.1f} degrees"
            )
            if number >= 2 and turned < _SETTLED_DEG and resolution > 0.99 * steps[-2].resolution_angstrom:
                break
        both = grids[0]
        both.add_other(grids[1])
        volumes = [Volume(one, self.pixel_size) for one in (*sharp, both.volume(2 * snr))]
        return Refinement(
            half1=volumes[0],
            half2=volumes[1],
            map=volumes[2],
            poses=self.poses,
            fsc=curve,
            resolution_angstrom=resolution,
            noise_power=self.noise_power,
            steps=steps,
        )

    def _match(self) -> list[FourierVolume]:
        """New poses of all particles, and each half set's grid."""
        searched = min(self.last_shell, _LARGEST_SEARCHED_SHELL)
        views = view_directions(round(4 * math.pi * (searched / _VIEW_SPACING_PX) ** 2), self.symmetry)
        step = self.box / (4.5 * searched)
        if self.has_poses:
            offsets = shift_grid(step / 1.5, step / 1.5)
        else:
            offsets = shift_grid(max(REACH_PER_DIAMETER * self.diameter_px, 1.5 * step), step)
        residual = np.zeros(0)
        parts: list[tuple[NDArray[np.int64], Poses]] = []
        grids = []
        for rows, reference in zip(self.rows, self.references, strict=True):
            source = SliceSource(reference)
            grid = FourierVolume(self.box)
            batches = [
                rows[first : first + _PARTICLES_PER_BATCH] for first in range(0, len(rows), _PARTICLES_PER_BATCH)
            ]
            with ThreadPoolExecutor(self.workers) as pool:
                for first in range(0, len(batches), self.workers):  # no more in memory than are worked on
                    some = batches[first : first + self.workers]
                    found = pool.map(lambda one, to=source: self._match_batch(one, to, views, offsets, searched), some)
                    for batch, (poses, residual_power, images) in zip(some, found, strict=True):
                        parts.append((batch, poses))
                        residual = residual_power * len(batch) + (residual if len(residual) else 0)
                        grid.add_other(collect(images, poses, symmetry=self.symmetry))
            grids.append(grid)
        self.poses = self.poses.with_parts(parts)
        self.has_poses = True
        self._learn_noise(residual / len(self.stack))
        return grids

    def _match_batch(
        self,
        batch: NDArray[np.int64],
        source: SliceSource,
        views: NDArray[np.float64],
        offsets: NDArray[np.float64],
        searched: int,
    ) -> tuple[Poses, NDArray[np.float64], FourierImages]:
        stack = self.stack.take(batch)
        last = self.poses.take(batch)
        found = search(
            PolarParticles.of_stack(stack, searched),
            source,
            rot_tilt_deg=views,
            noise_power=self.noise_power,
            base_shifts_px=last.shifts_px,
            offsets_px=offsets,
        )
        images = fourier_images(stack)
        near = images.up_to(self.last_shell + 0.5)
        poses = Poses(
            rotations=found.rotations[:, 0],
            shifts_px=found.shifts_px[:, 0],
            score=found.scores[:, 0].astype(np.float64),
        )
        polished = polish(near, source, poses, noise_power=self.noise_power)
        residual = polished.residual_power
        poses = polished.poses
        if self.has_poses:  # the pose of before may be better than where the search led
            other = polish(near, source, last, noise_power=self.noise_power)
            is_better = other.poses.score > poses.score
            poses = poses.with_parts([(np.flatnonzero(is_better), other.poses.take(is_better))])
            share = is_better.mean()
            residual = (1 - share) * residual + share * other.residual_power
        return poses, residual / images.kept_noise, images

    def _learn_noise(self, residual_power: NDArray[np.float64]) -> None:
        """Noise is what poses leave unexplained, up to the shell that they were matched to."""
        known = np.arange(len(self.noise_power)) < len(residual_power) - 1
        self.noise_power = np.where(known, np.resize(residual_power, len(known)), self.noise_power)


def _check(stack: ParticleStack, half_of: NDArray[np.int64], start: Volume) -> None:
    if len(half_of) != len(stack) or set(np.unique(half_of).tolist()) != {1, 2}:
        raise SettingsError(f"{len(stack)} particles: expected as many half sets, 1 or 2, and both of them")
    is_same = abs(start.voxel_size_angstrom / stack.pixel_size_angstrom - 1) < 1e-3
    if len(start.density) != stack.box_px or not is_same:
        raise SettingsError(
            f"the start is a box of {len(start.density)} px of {start.voxel_size_angstrom:.4g} Å, the particles "
            f"{stack.box_px} px of {stack.pixel_size_angstrom:.4g} Å; resample the start to the particles' box"
        )


def image_power(stack: ParticleStack) -> NDArray[np.float64]:
    """(shells,) mean power of the images' transforms, the mask's part taken off: noise and signal together."""
    total = np.zeros(0)
    for first in range(0, len(stack), _PARTICLES_PER_BATCH):
        part = stack.take(np.arange(first, min(first + _PARTICLES_PER_BATCH, len(stack))))
        images = fourier_images(part)
        power = images.pixels.shell_means((np.abs(images.transforms) ** 2).sum(axis=0)) / images.kept_noise
        total = power + (total if len(total) else 0)
    return np.asarray(np.maximum(total / len(stack), 1e-6), dtype=np.float64)


def background_power(stack: ParticleStack) -> NDArray[np.float64]:
    """(shells,) mean power of what lies around the particles, as `image_power` counts it: noise without signal.

    Ice, film, fringes and neighbours colour it, so that it is far from white. Where the particles' own images have
    less power, that is given: their background may hold more neighbours than they do.
    """
    box, diameter_px = stack.box_px, stack.diameter_angstrom / stack.pixel_size_angstrom
    around = 1 - particle_mask(box, diameter_px)
    pixels = FrequencyPixels(box, box / 2)
    total = np.zeros(int(pixels.shell.max()) + 1)
    for first in range(0, len(stack), _PARTICLES_PER_BATCH):
        images = stack.images[first : first + _PARTICLES_PER_BATCH]
        mean = (images * around).sum(axis=(1, 2), keepdims=True) / around.sum()
        spectra = fft.rfft2((images - mean) * around, axes=(1, 2), workers=1)
        kept = spectra.reshape(len(spectra), -1)[:, pixels.index]
        total += pixels.shell_means((np.abs(kept) ** 2).sum(axis=0))
    found = total / len(stack) / float((around**2).mean())
    return np.asarray(np.maximum(np.minimum(found, image_power(stack)), 1e-6), dtype=np.float64)


def matched_in_power(
    density: NDArray[np.float32], stack: ParticleStack, power: NDArray[np.float64], last_shell: int
) -> NDArray[np.float32]:
    """A volume scaled so that its slices through the CTF have the power that the images show above their noise.

    Parameters
    ----------
    power : (shells,) of the images; the outermost shells hold noise alone, white enough to be the noise of all
    last_shell : up to which powers are compared
    """
    few = stack.take(np.arange(min(len(stack), 64)))
    images = fourier_images(few, radius_px=last_shell + 0.5)
    rng = np.random.default_rng(0)
    slices = SliceSource(density).slices(euler_to_matrix(random_rotations(len(few), rng)), images.pixels.xy)
    ours = (np.abs(slices * images.transfer) ** 2).mean(axis=0)
    noise = float(np.median(power[-max(3, len(power) // 4) :]))
    theirs = np.maximum(power - noise, 0.0)[images.pixels.shell]
    is_compared = images.pixels.shell >= 2
    mean_ours, mean_theirs = float(ours[is_compared].sum()), float(theirs[is_compared].sum())
    if mean_ours <= 0 or mean_theirs <= 0:
        return density
    return np.asarray(density * math.sqrt(mean_theirs / mean_ours), dtype=np.float32)


def snr_of(curve: NDArray[np.floating]) -> NDArray[np.float64]:
    """Signal over noise power of a half map in each shell, from the FSC of both: F / (1 - F)."""
    correlation = np.clip(curve, 1e-3, 0.9999)
    return np.asarray(correlation / (1 - correlation), dtype=np.float64)
