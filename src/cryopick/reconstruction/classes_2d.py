"""Two-dimensional classes of particle images, and which of them are particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import InputError
from cryopick.reconstruction.fourier_images import fourier_images, particle_mask, soft_disc
from cryopick.reconstruction.matching import PolarParticles, References, score_blocks, shift_grid
from cryopick.reconstruction.particles import ParticleStack, good_box, with_spectrum_cut
from cryopick.reconstruction.polar import PolarGrid, polar_images
from cryopick.reconstruction.refinement import image_power

Progress = Callable[[str], None]
"""Told one sentence now and then."""

FEWEST_IN_CLASS = 10
"""Smaller classes are not judged by themselves and count as junk."""
FIRST_PER_DIAMETER, LAST_PER_DIAMETER = 1 / 3, 1 / 8
"""Images are compared down to a third of the diameter at first, and to an eighth at the end."""
ITERATIONS = 12
_REACH_PER_DIAMETER = 0.1
_LEAST_WEIGHT = 0.1  # of a shell's mean weight, added to every weight
_OFF_CENTRE = 0.2  # of the diameter
_LEAST_RATIO = 2.0
"""Junk is told from particles only where the groups' medians differ by more than this factor: averages of half random
picks had 2.9 to 3.2 against 0.4 to 0.5, those of good picks vary by less than 2."""


@dataclass(frozen=True, eq=False)
class Classes2D:
    """Classes and who belongs to them.

    Parameters
    ----------
    averages : (k, box, box) float32 in the stack's box, corrected for the CTF, in units of the background's noise
    assignment : (n,) which class each particle belongs to, 0 to k - 1
    counts : (k,) particles of each
    quality : (k,) standard deviation of the average within half a diameter of the centre; 0 for empty classes
    centre_offset_px : (k, 2) where the average's positive mass lies, (x, y) from the centre
    """

    averages: NDArray[np.float32]
    assignment: NDArray[np.int64]
    counts: NDArray[np.int64]
    quality: NDArray[np.float64]
    centre_offset_px: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassSelection:
    """Which classes are kept.

    Parameters
    ----------
    is_kept : (k,)
    reasons : (k,) why, one short sentence each
    sentence : what was found in all
    """

    is_kept: NDArray[np.bool_]
    reasons: tuple[str, ...]
    sentence: str


def class_count(particles: int) -> int:
    """How many classes so many particles are sorted into: one for each 60, at least 8, at most 50."""
    return min(50, max(8, particles // 60))


def classify_2d(
    stack: ParticleStack,
    *,
    classes: int | None = None,
    seed: int,
    iterations: int = ITERATIONS,
    progress: Progress | None = None,
) -> Classes2D:
    """Sort images into classes that differ by more than turns in the plane and shifts.

    Expectation maximisation over all classes, in-plane angles and shifts; averages begin as sums of random images.

    Parameters
    ----------
    classes : how many; None is `class_count`
    seed : of the first averages
    iterations : over all particles; with few particles more of them make classes collapse into each other
    progress : told one sentence an iteration

    Raises
    ------
    InputError
        Fewer particles than classes.

    References
    ----------
    Scheres et al., J. Mol. Biol. 348 (2005), maximum-likelihood classification.
    """
    count = class_count(len(stack)) if classes is None else classes
    if not 1 <= count <= len(stack):
        raise InputError(f"{len(stack)} particles cannot be sorted into {count} classes; expected at least one each")
    run = _Classifying(stack, count, np.random.default_rng(seed))
    for number in range(iterations):
        shell = run.shell_at(number, iterations)
        run.step(shell)
        if progress:
            progress(f"2D classes: iteration {number + 1} of {iterations}, {run.edge_angstrom / shell:.0f} Å")
    return run.finish()


class _Classifying:
    def __init__(self, stack: ParticleStack, count: int, rng: np.random.Generator) -> None:
        self.whole, self.count = stack, count
        self.edge_angstrom = stack.box_px * stack.pixel_size_angstrom
        limit = stack.box_px // 2 - 2
        shells = [
            self.edge_angstrom / (one * stack.diameter_angstrom) for one in (FIRST_PER_DIAMETER, LAST_PER_DIAMETER)
        ]
        self.first_shell, self.last_shell = (min(limit, max(4, round(one))) for one in shells)
        self.stack = stack.rescaled(min(stack.box_px, good_box(2 * (self.last_shell + 3))))
        self.box, self.diameter_px = self.stack.box_px, stack.diameter_angstrom / self.stack.pixel_size_angstrom
        self.mask = particle_mask(self.box, self.diameter_px)
        self.power = image_power(self.stack)
        group = rng.permutation(len(stack)) % count
        sums = np.stack([(self.stack.images[group == one] * self.mask).mean(axis=0) for one in range(count)])
        self.averages = sums.astype(np.float32)
        self.assignment = group
        self.psi_deg, self.shifts_px = np.zeros(len(stack)), np.zeros((len(stack), 2))

    def shell_at(self, number: int, iterations: int) -> int:
        """Up to which shell images are compared."""
        share = number / max(1, iterations - 4)
        return round(self.first_shell + (self.last_shell - self.first_shell) * min(share, 1.0))

    def step(self, shell: int) -> None:
        """New averages, and every particle's best class."""
        particles = PolarParticles.of_stack(self.stack, shell)
        polar = particles.grid
        step = self.box / (4.5 * shell)
        offsets = shift_grid(max(_REACH_PER_DIAMETER * self.diameter_px, step), step)
        data = np.zeros((polar.orders, self.count, len(polar.radii)), dtype=np.complex64)
        weight = np.zeros((self.count, len(polar.radii)), dtype=np.float32)
        for part, coefficients, scores in score_blocks(
            particles,
            References.of_samples(polar_images(self.averages, polar), polar),
            noise_power=self.power,
            base_shifts_px=np.zeros((len(particles), 2)),
            offsets_px=offsets,
        ):
            planes, here, shifts, count = scores.shape
            by_particle = scores.transpose(1, 0, 2, 3).reshape(here, -1)
            best = by_particle.argmax(axis=1)
            plane, shift, self.assignment[part] = np.unravel_index(best, (planes, shifts, count))
            self.psi_deg[part], self.shifts_px[part] = polar.in_plane_deg[plane], offsets[shift]
            likely = np.exp(scores - by_particle[np.arange(here), best][:, None, None])
            likely /= likely.sum(axis=(0, 2, 3))[:, None, None]
            transfer = particles.transfer[part]
            weight += likely.sum(axis=(0, 2)).T @ transfer**2
            turned = fft.rfft(likely, axis=0, workers=1)[: polar.orders].reshape(polar.orders, here * shifts, count)
            filtered = (coefficients * transfer[:, None]).reshape(polar.orders, here * shifts, -1)
            data += np.matmul(turned.conj().transpose(0, 2, 1), filtered)
        typical = (particles.transfer**2).mean(axis=0)  # what one particle weighs in each shell
        floor = _LEAST_WEIGHT * weight.mean(axis=0) + typical  # as if one particle more had shown nothing
        slices = polar.samples(data) / (weight + floor)[..., None]
        self.averages = _images_of(slices, polar) * self.mask

    def finish(self) -> Classes2D:
        """Averages of the particles assigned to each class, in the stack's own box."""
        scale = self.box / self.whole.box_px
        averages = _turned_averages(self.whole, self.assignment, self.count, self.psi_deg, self.shifts_px / scale)
        counts = np.bincount(self.assignment, minlength=self.count)
        cut = with_spectrum_cut(averages, self.box)
        inside = soft_disc(self.box, self.diameter_px / 2, 0.0) > 0.5
        quality = np.where(counts > 0, cut[:, inside].std(axis=1), 0.0)
        along = np.arange(self.box) - self.box // 2
        positive = np.maximum(cut - 0.3 * cut.max(axis=(1, 2), keepdims=True), 0) * self.mask
        total = np.maximum(positive.sum(axis=(1, 2)), 1e-9)
        centre = np.stack([(positive.sum(axis=axis) * along).sum(axis=1) / total for axis in (1, 2)], axis=1)
        return Classes2D(averages, self.assignment, counts, quality, centre / scale)


def _images_of(slices: NDArray[np.complex64], polar: PolarGrid) -> NDArray[np.float32]:
    """(k, box, box) real images of polar samples (k, radii, half_angles): the sum of their waves, by area."""
    n = polar.box_px
    along = np.arange(n) - n // 2
    kx, ky = polar.xy.reshape(2, -1)
    area = np.repeat(polar.radii * np.pi / polar.half_angles, polar.half_angles)
    wave_x = np.exp(2j * np.pi / n * kx[:, None] * along).astype(np.complex64)  # (m, x)
    wave_y = np.exp(2j * np.pi / n * ky[:, None] * along).astype(np.complex64)
    weighted = slices.reshape(len(slices), -1) * area.astype(np.float32)
    images = np.einsum("km,my,mx->kyx", weighted, wave_y, wave_x, optimize=True).real
    return np.asarray(2 * images / n**2, dtype=np.float32)


def _turned_averages(
    stack: ParticleStack,
    assignment: NDArray[np.int64],
    count: int,
    psi_deg: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
) -> NDArray[np.float32]:
    """(k, box, box) of every class the average of its images, turned upright, CTF-corrected (Wiener)."""
    n, images = stack.box_px, fourier_images(stack, is_masked=False)
    radians = np.radians(psi_deg)
    cosine, sine = np.cos(radians)[:, None], np.sin(radians)[:, None]
    kx, ky = images.pixels.xy
    x, y = cosine * kx - sine * ky, sine * kx + cosine * ky  # (n, m) the same frequency in the class's frame
    data = images.transforms * images.pixels.shift_factors(-shifts_px) * images.transfer
    is_negative = x < 0
    x, y, data = np.where(is_negative, -x, x), np.where(is_negative, -y, y), np.where(is_negative, data.conj(), data)
    half = n // 2 + 1
    shape = (count, 2 * half + 1, half + 2)
    sums, weights = np.zeros(shape, dtype=np.complex128), np.zeros(shape)
    low_x, low_y = np.floor(x), np.floor(y)
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dx - (x - low_x)) * np.abs(1 - dy - (y - low_y))
            row, column = low_y.astype(np.int64) + half + dy, low_x.astype(np.int64) + dx
            place = ((assignment[:, None] * shape[1] + row) * shape[2] + column).ravel()
            power = share * images.transfer**2
            sums.real += np.bincount(place, (share * data.real).ravel(), minlength=sums.size).reshape(shape)
            sums.imag += np.bincount(place, (share * data.imag).ravel(), minlength=sums.size).reshape(shape)
            weights += np.bincount(place, power.ravel(), minlength=sums.size).reshape(shape)
    sums[:, :, 0] += sums[:, ::-1, 0].conj()
    weights[:, :, 0] += weights[:, ::-1, 0]
    rows = np.arange(-half, half + 1)
    shell = np.minimum(np.rint(np.hypot(rows[:, None], np.arange(half + 2))), half).astype(np.int64)
    per_shell = np.maximum(np.bincount(shell.ravel()), 1)
    typical = np.bincount(images.pixels.shell, (images.transfer**2).mean(axis=0)) / np.bincount(images.pixels.shell)
    typical = np.concatenate([typical, np.full(half + 1 - len(typical), typical[-1])])
    mean = np.stack([np.bincount(shell.ravel(), one.ravel()) for one in weights]) / per_shell
    floor = _LEAST_WEIGHT * mean + typical  # as if one particle more had shown nothing
    found = sums / (weights + floor[:, shell])
    inner = found[:, 1:-1, :-1]
    spectrum = np.zeros((count, n, n // 2 + 1), dtype=np.complex128)
    rows = np.arange(-(n // 2) + 1, n // 2)
    spectrum[:, rows % n] = inner[:, rows + half - 1, : n // 2 + 1]
    spectrum[:, :, -1] = 0
    averages = fft.irfft2(spectrum, s=(n, n), axes=(1, 2), workers=1)
    smooth = np.sinc((np.arange(n) - n // 2) / n) ** 2  # of linear interpolation
    return np.asarray(fft.fftshift(averages, axes=(1, 2)) / (smooth[:, None] * smooth), dtype=np.float32)


def select_classes(classes: Classes2D, *, diameter_px: float | None = None) -> ClassSelection:
    """Keep the classes that show something.

    Two groups are looked for in the logarithms of the qualities of all classes of at least 10 particles (Otsu). The
    lower group is junk where the groups' medians differ by more than a factor of 2; otherwise all are kept. Small and
    empty classes go with the group that their quality falls into; without two groups they are kept.

    Parameters
    ----------
    diameter_px : averages whose mass lies more than a fifth of it from the centre are marked as off-centre, not dropped

    References
    ----------
    Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979).
    """
    is_judged = (classes.counts >= FEWEST_IN_CLASS) & (classes.quality > 0)
    quality = np.log(np.maximum(classes.quality, 1e-9))
    threshold = two_groups(quality[is_judged])
    is_kept = classes.counts > 0
    if threshold is None:
        sentence = "no junk classes found: all are kept"
    else:
        low = classes.quality[is_judged & (quality < threshold)]
        high = classes.quality[is_judged & (quality >= threshold)]
        ratio = float(np.median(high) / np.median(low))
        if ratio > _LEAST_RATIO:
            is_kept &= quality >= threshold
            dropped = int(classes.counts[~is_kept].sum())
            sentence = (
                f"{int(is_kept.sum())} of {len(is_kept)} classes kept, {dropped} of {int(classes.counts.sum())} "
                f"particles left out; kept averages are {ratio:.1f} times as strong"
            )
        else:
            sentence = f"no junk classes found (groups differ by a factor of {ratio:.1f} only): all are kept"
    reasons = []
    for number, kept in enumerate(is_kept.tolist()):
        words = f"strength {classes.quality[number]:.2f}"
        if classes.counts[number] == 0:
            words = "empty"
        elif not kept:
            words = f"weak average: {words}"
        offset = float(np.hypot(*classes.centre_offset_px[number]))
        if kept and diameter_px is not None and offset > _OFF_CENTRE * diameter_px:
            words += f", off-centre by {offset:.1f} px"
        reasons.append(words)
    return ClassSelection(is_kept, tuple(reasons), sentence)


def two_groups(values: NDArray[np.floating]) -> float | None:
    """The border between two groups of numbers (Otsu, over all of them); None where there are no two."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return None
    sizes = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    below, above = sums / sizes, (ordered.sum() - sums) / (len(ordered) - sizes)
    between = sizes * (len(ordered) - sizes) * (above - below) ** 2
    between[ordered[1:] == ordered[:-1]] = -1  # no border between equal numbers
    best = int(between.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)
