"""A first volume without any reference: few particles at a time, every orientation weighed by how likely it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.reconstruction.filtering import low_passed, on_finer_voxels, soft_sphere
from cryopick.reconstruction.fourier_images import fourier_images
from cryopick.reconstruction.gridding import FourierVolume, collect
from cryopick.reconstruction.matching import (
    PolarParticles,
    References,
    score_blocks,
    search,
    shift_grid,
    view_directions,
)
from cryopick.reconstruction.particles import ParticleStack, good_box
from cryopick.reconstruction.polar import PolarGrid, SliceSource
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.refinement import background_power
from cryopick.reconstruction.symmetry import operators
from cryopick.types import Volume

Progress = Callable[[str], None]
"""Told one sentence now and then."""

FIRST_PER_DIAMETER, LAST_PER_DIAMETER = 1 / 2.7, 1 / 9
"""Images are compared down to 0.37 diameters at first and to a ninth at the end (105 and 31 Å for 280 Å)."""
FEWEST_PARTICLES, MOST_PARTICLES = 20, 6000
STEPS = 50
STARTS, STARTS_WITH_SYMMETRY = 1, 6
_BATCH = 150
_SEEN_AT_FIRST = 60  # particles in the first volume, of random orientation
_KEPT = 0.8  # of what the steps before collected
_ROUGH_STEPS, _FINAL_STEPS = 8, 6  # at the first and at the last resolution
_CENTRED_STEPS = 4  # without shifts
_REACH_PER_DIAMETER = 0.06
_VIEW_SPACING_PX = 1.4
_LEAST_SHARE = 1e-3  # of a particle's weight; what views and shifts get less than that is left out
_LARGEST_SCORED = 300  # particles by which a finished volume is scored


@dataclass(frozen=True, eq=False)
class InitialVolume:
    """A first volume.

    Parameters
    ----------
    volume : in the stack's box, low-passed to `resolution_angstrom`
    score : mean over particles of how much likelier their images are with the volume than as noise (natural
        logarithm); of several starts the right one has the highest
    resolution_angstrom : down to which images were compared
    seed : of this start
    others : scores of the starts that were left behind
    """

    volume: Volume
    score: float
    resolution_angstrom: float
    seed: int
    others: tuple[float, ...] = field(default=())


def starts_for(symmetry: str) -> int:
    """1 start for a particle without symmetry, 6 for one with.

    Without, every start that was tried on simulated particles was right, also on those cut from micrographs. Imposed
    symmetry makes starts get stuck: of eight with D7 on a simulated barrel two were right, and the score told them.
    They take a quarter of the time, because views of the asymmetric unit are enough.
    """
    return STARTS if len(operators(symmetry)) == 1 else STARTS_WITH_SYMMETRY


def initial_volume(
    stack: ParticleStack,
    *,
    symmetry: str = "C1",
    seed: int,
    starts: int | None = None,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> InitialVolume:
    """Find a first volume by stochastic expectation maximisation.

    Some particles in random orientations make a shapeless volume. In every step a batch of particles is compared with
    views of the volume in all directions; each particle is put into all of them, as far as each is likely; and what the
    batch gives replaces a fifth of what the steps before gave. The resolution grows on the way.

    Parameters
    ----------
    stack : particles; at least 20, and of more than 6000 a random 6000
    symmetry : imposed from the first step
    seed : of the random orientations and batches
    starts : so many runs with seeds of their own, of which the one with the best score is given; None is
        `starts_for(symmetry)`
    steps : batches a run
    progress : told one sentence every ten steps

    Raises
    ------
    InputError
        Too few particles.
    SettingsError
        No such symmetry, no starts.

    References
    ----------
    Punjani et al., Nature Methods 14 (2017): stochastic descent to a first volume; the running average of batches is
    online expectation maximisation, Cappé and Moulines, J. R. Stat. Soc. B 71 (2009).
    """
    if len(stack) < FEWEST_PARTICLES:
        raise InputError(f"{len(stack)} particles are too few for a first volume; expected at least {FEWEST_PARTICLES}")
    starts = starts_for(symmetry) if starts is None else starts
    if starts < 1:
        raise SettingsError(f"{starts} starts: expected at least 1")
    if len(stack) > MOST_PARTICLES:  # more than all steps together look at
        stack = stack.take(np.sort(np.random.default_rng(seed).permutation(len(stack))[:MOST_PARTICLES]))
    run = _Starting(stack, symmetry, steps)
    seeds = [int(one.generate_state(1)[0]) for one in np.random.SeedSequence(seed).spawn(starts)]
    found = [run.start(one, progress or (lambda _: None)) for one in seeds]
    scores = [score for _, score in found]
    best = int(np.argmax(scores))
    density = on_finer_voxels(found[best][0], stack.box_px)
    return InitialVolume(
        volume=Volume(density, stack.pixel_size_angstrom),
        score=scores[best],
        resolution_angstrom=run.edge_angstrom / run.last_shell,
        seed=seeds[best],
        others=tuple(score for number, score in enumerate(scores) if number != best),
    )


class _Starting:
    def __init__(self, stack: ParticleStack, symmetry: str, steps: int) -> None:
        self.edge_angstrom = stack.box_px * stack.pixel_size_angstrom
        shells = [
            self.edge_angstrom / (one * stack.diameter_angstrom) for one in (FIRST_PER_DIAMETER, LAST_PER_DIAMETER)
        ]
        limit = stack.box_px // 2 - 2
        self.first_shell, self.last_shell = (min(limit, max(4, round(one))) for one in shells)
        self.stack = stack.rescaled(min(stack.box_px, good_box(2 * (self.last_shell + 4))))
        self.box = self.stack.box_px
        self.diameter_px = self.stack.diameter_angstrom / self.stack.pixel_size_angstrom
        self.sphere = soft_sphere(self.box, self.diameter_px)
        # not the images' own power: it holds the particles, which with so much noise are never sure of a view. Those of
        # simulated micrographs ended at 63 to 107 Å by it, and at 26 to 29 Å (three seeds) by the background's
        self.power = background_power(self.stack)
        self.symmetry, self.group, self.steps = symmetry, operators(symmetry), steps
        self.images = fourier_images(self.stack)
        polar = {
            shell: PolarParticles.of_stack(self.stack, shell) for shell in range(self.first_shell, self.last_shell + 1)
        }
        self.polar = polar

    def start(self, seed: int, progress: Progress) -> tuple[NDArray[np.float32], float]:
        """One run: its volume and score."""
        rng = np.random.default_rng(seed)
        count = len(self.stack)
        some = rng.permutation(count)[:_SEEN_AT_FIRST]
        first = Poses.of_angles(random_rotations(len(some), rng))
        grid = collect(self.images.take(some), first, symmetry=self.symmetry, padding=1)
        order, place = rng.permutation(count), 0
        for step in range(self.steps):
            if place + _BATCH > count:
                order, place = rng.permutation(count), 0
            batch = order[place : place + _BATCH]
            place += _BATCH
            shell = self.shell_at(step)
            density = self.reference(grid, shell)
            added, score = self.collected(batch, density, shell, is_centred=step < _CENTRED_STEPS)
            grid.add_other(added, keep=_KEPT if step else 0.3)
            if step % 10 == 9:
                resolution = self.edge_angstrom / shell
                progress(f"first volume: step {step + 1} of {self.steps}, {resolution:.0f} Å, score {score:.1f}")
        density = self.reference(grid, self.last_shell)
        return density, self.score_of(density)

    def shell_at(self, step: int) -> int:
        """Up to which shell images are compared in a step."""
        share = (step - _ROUGH_STEPS) / max(1, self.steps - _ROUGH_STEPS - _FINAL_STEPS)
        return round(self.first_shell + (self.last_shell - self.first_shell) * min(max(share, 0.0), 1.0))

    def reference(self, grid: FourierVolume, shell: int) -> NDArray[np.float32]:
        """What was collected as a volume: low-passed, inside the sphere, nothing below the surroundings."""
        density = low_passed(grid.volume() * self.sphere, shell + 0.5)
        return np.maximum(density, 0) * self.sphere

    def collected(
        self, batch: NDArray[np.int64], density: NDArray[np.float32], shell: int, *, is_centred: bool
    ) -> tuple[FourierVolume, float]:
        """A batch put into all views as far as each is likely; and its mean best score."""
        particles = self.polar[shell].take(batch)
        polar = particles.grid
        views = view_directions(self.view_count(shell), self.symmetry)
        step = self.box / (4.5 * shell)
        offsets = (
            np.zeros((1, 2)) if is_centred else shift_grid(max(_REACH_PER_DIAMETER * self.diameter_px, step), step)
        )
        references = References.of_volume(SliceSource(density), views, polar)
        data = np.zeros((polar.orders, len(views), len(polar.radii)), dtype=np.complex64)
        weight = np.zeros((len(views), len(polar.radii)), dtype=np.float32)
        best = np.empty(len(batch), dtype=np.float32)
        for part, coefficients, scores in score_blocks(
            particles,
            references,
            noise_power=self.power,
            base_shifts_px=np.zeros((len(batch), 2)),
            offsets_px=offsets,
        ):
            best[part] = scores.max(axis=(0, 2, 3))
            likely = np.exp(scores - best[part, None, None])
            by_view = likely.sum(axis=0)  # (b, s, views)
            whole = by_view.sum(axis=(1, 2))[:, None, None]
            transfer = particles.transfer[part]
            weight += (by_view / whole).sum(axis=1).T @ transfer**2
            one, shift, view = np.nonzero(by_view > _LEAST_SHARE * whole)
            turned = fft.rfft(likely[:, one, shift, view], axis=0, workers=1)[: polar.orders]  # (orders, k)
            turned /= whole[one, 0, 0]
            filtered = (coefficients[:, one, shift] * transfer[one]) * turned.conj()[..., None]  # (orders, k, radii)
            order = np.argsort(view, kind="stable")
            seen, first = np.unique(view[order], return_index=True)
            data[:, seen] += np.add.reduceat(filtered[:, order], first, axis=1)
        return self.gridded(polar, views, data, weight), float(best.mean())

    def gridded(
        self,
        polar: PolarGrid,
        views: NDArray[np.float64],
        data: NDArray[np.complex64],
        weight: NDArray[np.float32],
    ) -> FourierVolume:
        """Slices in polar coordinates, inserted; samples count by the area that each stands for."""
        area = np.broadcast_to(
            polar.radii[:, None] * math.pi / polar.half_angles, (len(polar.radii), polar.half_angles)
        )
        grid = FourierVolume(self.box, padding=1)
        rotations = euler_to_matrix(np.column_stack([views, np.zeros(len(views))]))
        flat = (len(views), -1)
        samples = (polar.samples(data) * area).reshape(flat)
        weights = (weight[:, :, None] * area).reshape(flat)
        grid.add(rotations, polar.xy.reshape(2, -1), samples, weights, symmetry=self.group)
        return grid

    def view_count(self, shell: int) -> int:
        """Directions over the whole sphere."""
        return max(100, round(4 * math.pi * (shell / _VIEW_SPACING_PX) ** 2))

    def score_of(self, density: NDArray[np.float32]) -> float:
        """Mean best score of the same particles for every start."""
        some = np.linspace(0, len(self.stack) - 1, min(len(self.stack), _LARGEST_SCORED)).round().astype(np.int64)
        step = self.box / (4.5 * self.last_shell)
        found = search(
            self.polar[self.last_shell].take(some),
            SliceSource(density),
            rot_tilt_deg=view_directions(self.view_count(self.last_shell), self.symmetry),
            noise_power=self.power,
            base_shifts_px=np.zeros((len(some), 2)),
            offsets_px=shift_grid(max(_REACH_PER_DIAMETER * self.diameter_px, step), step),
        )
        return float(found.scores.mean())
