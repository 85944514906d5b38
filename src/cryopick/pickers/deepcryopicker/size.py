"""How large particles are and how much of them is dark, from the micrographs alone and without a network.

Every place of a micrograph is matched with dark discs and rings of all sizes, and the one that fits it best takes the
place: a ring is then one ring, and neither four pieces of its wall nor the core of something twice as large. The same
is done for bright things, which are there by chance. A size counts as seen where more dark things of about that size,
in numbers, stand out than bright ones do. So twenty particles on a large micrograph are enough, and the dirt of an
empty one, which comes in all sizes, is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import Length
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import find_peaks, vertex_offset
from cryopick.processing.profiles import (
    EVIDENCE_FLOOR,
    SCALE_STEP,
    WINDOW_RADII,
    WORKING_DIAMETER_PX,
    dark_and_bright_matches,
    middle_piece,
    profile_correlations,
)
from cryopick.processing.scale import resample
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph

SMALLEST_PX = 12.0
LARGEST_SHARE = 0.25
"""Largest diameter tried, as a share of the shorter side: fewer particles than would fit then are no population."""
PIECE_DIAMETERS = 32.0
"""Side of the middle piece that is looked at; it holds several hundred particles of a crowded micrograph."""
MICROGRAPHS = 6
EDGE_WIDTH_RADII = 2 / WORKING_DIAMETER_PX

PROFILE_STEPS, PROFILE_UNITS = 48, 0.95
"""Steps of radial profiles within one dark diameter, and how far they reach, in dark diameters."""
DARKEST, FRINGE = (0.2, 0.62), 0.4
"""Where the wall of a ring is looked for, and how far outside it the bright fringe, in dark diameters: those of rings
are read as 1.0 to 1.25 times too large."""

SOLID_BODY = 0.7
"""Dark part of solid particles over the circle around them, which people mean by a diameter: most are long or domed."""
TEMPLATES: tuple[tuple[float, float], ...] = ((SOLID_BODY, 0.0), (1.0, 0.60), (1.0, 0.80))
CORES: tuple[tuple[float, float], ...] = ((0.40, 0.0), (SOLID_BODY, 0.0))
"""Dark parts of solid particles; which of them, in a circle of which size, explains most tells what is around them."""
RINGS = TEMPLATES[1:]
CIRCLES = {True: (1 / SCALE_STEP**2, SCALE_STEP**2), False: (0.9, 2.5)}
"""Circles around hollow and around solid particles that are tried, in dark diameters."""
CROWDED = 0.02
"""Share of the area that such circles explain beyond bright ones. Where it is less, particles are too few to tell, and
the circle is that of `SOLID_BODY`."""
"""Outer and inner radius of the dark part, in particle radii: a solid body, a shell, a thin shell."""
IS_RING = np.array([inner > 0 for _, inner in TEMPLATES])
BODIES: tuple[tuple[float, float], ...] = ((0.40, 0.0), *TEMPLATES)
"""What is tried at a given diameter where no size stands out: a small core too."""

# Chosen with benchmarks/sparse_barrels.py, seeds 0 to 9 (17 barrels a micrograph, and none), and on simulated proteins
# of `cryopick simulate`; judged on other seeds by benchmarks/deepcryopicker.py.
SIZE_WEIGHT = 0.75
"""Power of the radius in the contest for a place: with 0 noise on a wall beats the ring, with 2 a blur of twice its
size does."""
CHANCE_PERCENTILE = 90.0
SMALLEST_STRONG = 0.35
"""Dark things stand out that correlate better than this, and than so many of the bright ones of about their size."""
MINIMUM_EXCESS = 8
"""More strong dark things than strong bright ones, at least, over all micrographs that are looked at."""
MINIMUM_SHARE = 0.15
"""The same as a share of all dark things of about that size: in noise and dirt it stays below a tenth."""
SIGMAS = 3.0
"""The same in standard deviations of the difference of two counts."""
HOLLOW_SHARE = 0.1
"""Particles are hollow where so many of those that stand out fit a ring best; views across their axis never do."""
GIVEN_RANGE = {True: (0.8, 1.25), False: (0.35, 1.2)}
"""Dark diameters, over a given diameter, that agree with it, by whether the particles are hollow."""
GIVEN_EVIDENCE = 0.5
"""A population that agrees with the given diameter is believed if it has this part of the largest one's evidence."""
LARGEST_SOLID_BODY = 0.95
"""So that 1.0, in what is kept of a run, means hollow."""


@dataclass(frozen=True)
class ParticleSize:
    """How large particles are.

    Parameters
    ----------
    diameter : of the circle around the particle; in pixels as stored, or Å where every micrograph has a pixel size
    body : diameter of the dark part over that of the particle
    is_hollow : whether the dark part is a ring
    evidence : strong dark things in excess of bright ones over all dark ones of that size; NaN where nothing was seen
    doubt : why a given diameter may not be that of the particles; "" where nothing speaks against it
    seen : the diameter that is seen instead
    """

    diameter: Length
    body: float
    is_hollow: bool
    evidence: float
    doubt: str = ""
    seen: Length | None = None


@dataclass(frozen=True)
class Population:
    """Dark things of about one size that stand out.

    Parameters
    ----------
    dark_diameter : of the dark part, in the unit of the search
    is_hollow : whether enough of them are rings
    count, excess : strong dark ones, and those less the strong bright ones
    share : the excess over all dark ones
    evidence : for comparison with other sizes: excess times correlation squared times size, per area looked at
    """

    dark_diameter: float
    is_hollow: bool
    count: int
    excess: int
    share: float
    evidence: float

    @property
    def diameter(self) -> float:
        """Of the circle around the particle."""
        return self.dark_diameter if self.is_hollow else self.dark_diameter / SOLID_BODY


def measure_size(micrographs: Sequence[Micrograph], *, diameter: Length | None) -> ParticleSize | None:
    """Diameter of the commonest particles, and the shape of their dark part; None where nothing stands out.

    Parameters
    ----------
    micrographs : a few; particles dark
    diameter : where it is given, the dark part is measured, nothing is refused, and `doubt` says whether particles of
        quite another size are seen

    References
    ----------
    T. Lindeberg, Int. J. Computer Vision 30 (1998) 79-116, for scales that compete at a place.
    """
    if not micrographs:
        return None
    unit = "A" if all(m.pixel_size_angstrom is not None for m in micrographs) else "px"
    chosen = [micrographs[index] for index in evenly_taken(range(len(micrographs)), MICROGRAPHS)]
    per_px = [float(m.pixel_size_angstrom or 1.0) if unit == "A" else 1.0 for m in chosen]
    populations = find_populations(chosen, per_px)
    if diameter is None:
        if not populations:
            return None
        best = max(populations, key=lambda one: one.evidence)
        around, body = _circle_around(chosen, per_px, best)
        if best.is_hollow:
            around = _ring_diameter(chosen, per_px, best) or around
        return ParticleSize(Length(around, around, unit), body, best.is_hollow, best.share)
    given = float(np.mean([diameter.middle_px(m.pixel_size_angstrom) * p for m, p in zip(chosen, per_px, strict=True)]))
    return _at_given(chosen, populations, diameter, given=given, unit=unit)


def _at_given(
    micrographs: Sequence[Micrograph], populations: Sequence[Population], diameter: Length, *, given: float, unit: str
) -> ParticleSize:
    """The dark part of particles of a given diameter, and a doubt where other ones stand out and these do not."""
    if not populations:
        outer, inner = _body_at(micrographs, diameter)
        return ParticleSize(diameter, outer, inner > 0, np.nan)
    best = max(populations, key=lambda one: one.evidence)
    low, high = GIVEN_RANGE[best.is_hollow]
    agreeing = [
        one
        for one in populations
        if low <= one.dark_diameter / given <= high and one.evidence >= GIVEN_EVIDENCE * best.evidence
    ]
    if agreeing:
        nearest = max(agreeing, key=lambda one: one.evidence)
        body = 1.0 if best.is_hollow else min(nearest.dark_diameter / given, LARGEST_SOLID_BODY)
        return ParticleSize(diameter, body, best.is_hollow, nearest.share)
    outer, inner = _body_at(micrographs, diameter)
    seen = Length(best.diameter, best.diameter, unit)
    what = "rings" if best.is_hollow else "dark bodies"
    doubt = (
        f"the given diameter is {diameter}, but {best.count} {what} of {best.dark_diameter:.3g} "
        f"{seen.unit_symbol} stand out, and no particles of that diameter do; give --diameter "
        f"{best.diameter:.3g}{unit}, or none"
    )
    return ParticleSize(diameter, outer, inner > 0, np.nan, doubt, seen)


def find_populations(micrographs: Sequence[Micrograph], per_px: Sequence[float]) -> list[Population]:
    """All sizes at which dark things stand out in numbers.

    Parameters
    ----------
    per_px : of each micrograph, what one of its pixels measures in the unit of the answer
    """
    shortest = min(min(m.shape_yx) * scale for m, scale in zip(micrographs, per_px, strict=True))
    smallest = SMALLEST_PX * max(per_px)
    if LARGEST_SHARE * shortest < smallest:
        return []
    steps = int(np.log(LARGEST_SHARE * shortest / smallest) / np.log(SCALE_STEP))
    sizes = [smallest * SCALE_STEP**step for step in range(steps + 1)]
    dark: list[NDArray[np.float64]] = []
    bright: list[NDArray[np.float64]] = []
    for micrograph, scale in zip(micrographs, per_px, strict=True):
        for sign, found in ((1.0, dark), (-1.0, bright)):
            things = _things(micrograph.pixels, [size / scale for size in sizes], sign=sign)
            won = _winners(things)
            won[:, _RADIUS] *= scale
            found.append(won)
    return _populations(np.concatenate(dark), np.concatenate(bright), smallest=smallest)


_X, _Y, _RADIUS, _TEMPLATE, _CORRELATION, _LOOKED_AT = range(6)
"""Columns of things: place, outer radius of the dark part, template, correlation, share of the area looked at."""


def _things(pixels: NDArray[np.float32], diameters_px: Sequence[float], *, sign: float) -> NDArray[np.float64]:
    """(n, 6) local maxima of all templates at all sizes; see `_X` and what follows it."""
    parts = [np.zeros((0, 6))]
    for diameter_px in diameters_px:
        piece = middle_piece(pixels, max(1, round(PIECE_DIAMETERS * diameter_px)))
        corner = np.array([(n - m) // 2 for n, m in zip(pixels.shape[::-1], piece.shape[::-1], strict=True)])
        working, scale = resample(piece, factor=min(1.0, WORKING_DIAMETER_PX / diameter_px))
        size = diameter_px * scale.factor
        if min(working.shape) < size:
            continue
        image = np.float32(sign) * normalize_locally(working, diameter_px=size)
        correlations = profile_correlations(image, TEMPLATES, diameter_px=size, edge_width=EDGE_WIDTH_RADII)
        for index, correlation in enumerate(correlations):
            xy, score = find_peaks(correlation, min_score=EVIDENCE_FLOOR, radius_px=0.5 * size)
            radius_px = 0.5 * TEMPLATES[index][0] * diameter_px
            constant = np.broadcast_to([radius_px, index], (len(xy), 2))
            share = np.full(len(xy), piece.size / pixels.size)
            parts.append(np.column_stack([scale.to_stored_xy(xy) + corner, constant, score, share]))
    return np.concatenate(parts)


def _winners(things: NDArray[np.float64]) -> NDArray[np.float64]:
    """The things that take their place from all others there, best first.

    What they are compared by is the energy of the fitted template over that of the rest, corrected for the part of it
    that the mean of the window takes, which is less in a wide window around a small body; and a power of the size.
    """
    from scipy.spatial import cKDTree

    left = np.array([1 - (outer**2 - inner**2) / WINDOW_RADII**2 for outer, inner in TEMPLATES])
    explained = np.minimum(things[:, _CORRELATION], 0.98) ** 2
    fit = explained / (1 - explained) / left[things[:, _TEMPLATE].astype(int)]
    order = np.argsort(-np.log1p(fit) * things[:, _RADIUS] ** SIZE_WEIGHT, kind="stable")
    things = things[order]
    if len(things) == 0:
        return things
    xy, radius = things[:, :2], things[:, _RADIUS]
    tree = cKDTree(xy)
    is_left, won = np.ones(len(things), bool), []
    for index in range(len(things)):
        if is_left[index]:
            won.append(index)
            near = np.array(tree.query_ball_point(xy[index], 3 * radius[index]))
            distance = np.hypot(*(xy[near] - xy[index]).T)
            is_left[near[distance < np.maximum(radius[index], 0.7 * radius[near])]] = False
    return things[won]


def _populations(dark: NDArray[np.float64], bright: NDArray[np.float64], *, smallest: float) -> list[Population]:
    """Sizes, in steps of `SCALE_STEP`, at which enough more dark things than bright ones stand out."""
    steps, bright_steps = (
        np.rint(np.log(2 * table[:, _RADIUS] / smallest) / np.log(SCALE_STEP)).astype(int) for table in (dark, bright)
    )
    found = []
    for step in range(int(steps.min(initial=0)), int(steps.max(initial=-1)) + 1):
        own, other = dark[np.abs(steps - step) <= 1], bright[np.abs(bright_steps - step) <= 1][:, _CORRELATION]
        limit = max(SMALLEST_STRONG, float(np.percentile(other, CHANCE_PERCENTILE)) if len(other) else 0.0)
        strong = own[own[:, _CORRELATION] > limit]
        by_chance = int(np.count_nonzero(other > limit))
        excess = len(strong) - by_chance
        least = max(MINIMUM_EXCESS, MINIMUM_SHARE * len(own), SIGMAS * np.sqrt(len(strong) + by_chance))
        if excess < least:
            continue
        weight = strong[:, _CORRELATION] ** 2
        # weighted with the area that they explain, so that the circle is around the larger views too
        area = weight * strong[:, _RADIUS] ** 2
        diameter = 2 * float(np.exp(np.average(np.log(strong[:, _RADIUS]), weights=area)))
        is_ring = IS_RING[strong[:, _TEMPLATE].astype(int)]
        density = float((weight / strong[:, _LOOKED_AT]).sum()) * excess / len(strong)
        found.append(
            Population(
                diameter,
                bool(is_ring.mean() >= HOLLOW_SHARE),
                len(strong),
                excess,
                excess / len(own),
                density * SCALE_STEP**step,
            )
        )
    return found


def _circle_around(
    micrographs: Sequence[Micrograph], per_px: Sequence[float], population: Population
) -> tuple[float, float]:
    """Diameter and dark part of crowded particles: the circle that explains the largest area.

    Rings of both widths answer at neighbouring sizes, and the ring lies between them. The dark disc of solid particles
    alone does not tell how far they reach: arms and domes are faint, and crowded neighbours keep a distance. So dark
    cores and bodies within circles of several sizes are compared by the area that they explain.
    """
    low, high = CIRCLES[population.is_hollow]
    steps = int(np.ceil(np.log(high / low) / np.log(SCALE_STEP)))
    sizes = population.dark_diameter * low * SCALE_STEP ** np.arange(steps + 1)
    bodies = RINGS if population.is_hollow else CORES
    explained = np.zeros((len(sizes), len(bodies)))
    for row, size in enumerate(sizes):
        for micrograph, scale in zip(micrographs, per_px, strict=True):
            piece = middle_piece(micrograph.pixels, max(1, round(PIECE_DIAMETERS * size / scale)))
            working, factor = resample(piece, factor=min(1.0, WORKING_DIAMETER_PX * scale / size))
            own = size / scale * factor.factor
            if min(working.shape) < own:
                continue
            image = normalize_locally(working, diameter_px=own)
            matches = dark_and_bright_matches(image, bodies, diameter_px=own, edge_width=EDGE_WIDTH_RADII)
            for column, (dark, bright) in enumerate(matches):
                excess = float((dark**2).sum() - (bright**2).sum())
                explained[row, column] += excess * own**2 / image.size / len(micrographs)
    row, column = divmod(int(np.argmax(explained)), explained.shape[1])
    if explained[row, column] < CROWDED:
        return population.diameter, 1.0 if population.is_hollow else SOLID_BODY
    if population.is_hollow:
        return float(np.exp(np.average(np.log(sizes), weights=explained.clip(0).sum(axis=1)))), 1.0
    offset = 0.0
    if 0 < row < len(sizes) - 1:
        offset = float(vertex_offset(*explained[row - 1 : row + 2, column]))
    return float(sizes[row] * SCALE_STEP**offset), CORES[column][0]


def _ring_diameter(micrographs: Sequence[Micrograph], per_px: Sequence[float], population: Population) -> float | None:
    """Outer diameter of the rings of a population, read off their mean radial profile; None where too few are there.

    The edge is halfway up from the darkest radius to the brightest one outside it. The sizes that are tried are 19 %
    apart and the walls of the rings that are tried are of two widths: which of them fits best says no more than that.
    """
    from scipy.ndimage import gaussian_filter1d

    profiles: list[NDArray[np.float64]] = []
    for micrograph, scale in zip(micrographs, per_px, strict=True):
        sizes = population.dark_diameter / scale * SCALE_STEP ** np.arange(-2, 3)
        won = _winners(_things(micrograph.pixels, sizes.tolist(), sign=1.0))
        is_clear = IS_RING[won[:, _TEMPLATE].astype(int)] & (won[:, _CORRELATION] > SMALLEST_STRONG)
        for xy in won[is_clear][:, [_X, _Y]]:
            profile = _radial_profile(micrograph.pixels, xy, unit_px=population.dark_diameter / scale)
            if profile is not None:
                profiles.append(profile)
    if len(profiles) < MINIMUM_EXCESS:
        return None
    mean = gaussian_filter1d(np.mean(profiles, axis=0), 1.2)
    low, high = (int(bound * PROFILE_STEPS) for bound in DARKEST)
    darkest = low + int(np.argmin(mean[low:high]))
    brightest = darkest + int(np.argmax(mean[darkest : darkest + int(FRINGE * PROFILE_STEPS)]))
    half = (mean[darkest] + mean[brightest]) / 2
    after = darkest + int(np.argmax(mean[darkest : brightest + 1] >= half))
    if not darkest < after:
        return None
    edge = after + 0.5 - (mean[after] - half) / (mean[after] - mean[after - 1])
    return float(2 * edge / PROFILE_STEPS * population.dark_diameter)


def _radial_profile(
    pixels: NDArray[np.float32], xy: NDArray[np.float64], *, unit_px: float
) -> NDArray[np.float64] | None:
    """Mean of the pixels at each distance from a place, `PROFILE_STEPS` of them a unit; None at a border."""
    reach = int(np.ceil(PROFILE_UNITS * unit_px)) + 1
    column, row = np.rint(xy).astype(int)
    if not (reach <= row < pixels.shape[0] - reach and reach <= column < pixels.shape[1] - reach):
        return None
    patch = pixels[row - reach : row + reach + 1, column - reach : column + reach + 1].astype(np.float64)
    y, x = np.mgrid[row - reach : row + reach + 1, column - reach : column + reach + 1]
    step = (np.hypot(x - xy[0], y - xy[1]) * PROFILE_STEPS / unit_px).astype(int).ravel()
    steps = int(PROFILE_UNITS * PROFILE_STEPS)
    count = np.bincount(step, minlength=steps)[:steps]
    total = np.bincount(step, patch.ravel(), minlength=steps)[:steps]
    filled = np.flatnonzero(count)
    return np.asarray(np.interp(np.arange(steps), filled, total[filled] / count[filled]))


def _body_at(micrographs: Sequence[Micrograph], diameter: Length) -> tuple[float, float]:
    """The dark part, as outer and inner radius, that explains most at one diameter; each place has one particle."""
    total = np.zeros(len(BODIES))
    for micrograph in micrographs:
        diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
        working, scale = resample(
            middle_piece(micrograph.pixels, max(1, round(PIECE_DIAMETERS * diameter_px))),
            factor=min(1.0, WORKING_DIAMETER_PX / diameter_px),
        )
        size = diameter_px * scale.factor
        if min(working.shape) < size:
            continue
        image = normalize_locally(working, diameter_px=size)
        correlations = profile_correlations(image, BODIES, diameter_px=size, edge_width=EDGE_WIDTH_RADII)
        for index, correlation in enumerate(correlations):
            for sign in (1.0, -1.0):
                _, score = find_peaks(np.float32(sign) * correlation, min_score=EVIDENCE_FLOOR, radius_px=0.8 * size)
                total[index] -= sign * float(np.log1p(-(np.minimum(score, 0.98).astype(np.float64) ** 2)).sum())
    return BODIES[int(np.argmax(total))]
