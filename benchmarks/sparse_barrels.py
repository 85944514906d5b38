"""Sparse micrographs like KLH's: rings and squares far apart, with defocus, uneven ice, dirt, fragments and noise.

Unlike `simulation.specimens.barrels`, which draws crowded micrographs in white noise, nothing here is the same from
one seed to the next: sizes, walls, tiers, contrast, defocus, noise and dirt are all drawn. `count = 0` gives the same
without particles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.ctf import CtfParameters, ctf_2d
from cryopick.simulation.scene.ice import smooth_field
from cryopick.simulation.specimens.barrels import SIDE_VIEW, TOP_VIEW, BarrelMicrograph
from cryopick.types import Micrograph

DIAMETER_ANGSTROM = 350.0
"""Of KLH's didecamer, outside."""
SPACING, MARGIN = 1.5, 0.75
"""Smallest distance between centres, and from a centre to the border, in diameters."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What all micrographs of one session share.

    Parameters
    ----------
    ring_px : outer diameter of the barrel
    hole : inner over outer diameter
    height : of the barrel over its diameter
    collar : inner ring in top views, relative to the wall's darkness
    tiers : how much darkness changes between tiers in side views, 0 to 1
    noise : standard deviation of white noise at 150 px per diameter, in units of the wall's darkness after defocus
    uneven : amplitude of the uneven background in the same unit
    defocus_um, amplitude_contrast, voltage_kv : of the microscope
    dirt : irregular dark things per micrograph, mean
    fragments : pieces of barrels per micrograph, mean
    small : small proteins per micrograph, mean
    faintest : contrast of the faintest barrel, where that of the strongest is 1.1: particles lie at different depths
    is_ball : hollow balls, rings from all sides, as apoferritin is, in the barrels' place
    """

    ring_px: float = 150.0
    hole: float = 0.55
    height: float = 1.08
    collar: float = 0.2
    tiers: float = 0.3
    noise: float = 1.0
    uneven: float = 0.3
    defocus_um: float = 2.0
    amplitude_contrast: float = 0.12
    voltage_kv: float = 120.0
    dirt: float = 2.0
    fragments: float = 2.0
    small: float = 20.0
    faintest: float = 0.85
    is_ball: bool = False


def draw_look(seed: int, *, scale: float = 1.0) -> Look:
    """A session's look; `scale` shrinks the particles (and with them the micrograph) to spare time."""
    rng = np.random.default_rng([seed, 17])
    return Look(
        ring_px=scale * rng.uniform(125, 175),
        hole=rng.uniform(0.45, 0.7),
        height=rng.uniform(0.95, 1.2),
        collar=rng.uniform(0.0, 0.5),
        tiers=rng.uniform(0.1, 0.5),
        noise=float(np.exp(rng.uniform(np.log(0.5), np.log(2.2)))),
        uneven=rng.uniform(0.0, 0.6),
        defocus_um=rng.uniform(1.2, 3.2),
        amplitude_contrast=rng.uniform(0.08, 0.2),
        dirt=rng.uniform(0, 6),
        fragments=rng.uniform(0, 5),
        small=rng.uniform(0, 60),
    )


def draw_sparse_barrels(
    look: Look, *, seed: int, side_px: int = 2048, count: int = 17, spacing: float = SPACING
) -> BarrelMicrograph:
    """One micrograph of a session; about half of the barrels stand on end, and none overlap.

    Parameters
    ----------
    spacing : smallest distance between centres, in diameters; with 1.0 they may touch

    Raises
    ------
    ValueError
        If so many do not fit.
    """
    rng = np.random.default_rng([seed, 29])
    diameter_px = look.ring_px
    xy = _places(rng, count, side_px=side_px, diameter_px=diameter_px, spacing=spacing)
    view = rng.integers(TOP_VIEW, TOP_VIEW + 1 if look.is_ball else SIDE_VIEW + 1, count)
    density = np.zeros((side_px, side_px))
    for centre, kind in zip(xy, view, strict=True):
        strength = rng.uniform(look.faintest, 1.1)
        stamp = _ball(look, diameter_px) if look.is_ball else _barrel(rng, look, int(kind), diameter_px)
        _add(density, centre, strength * stamp)
    others = xy
    for _ in range(int(rng.poisson(look.fragments))):
        place = _apart(rng, others, side_px=side_px, distance_px=1.1 * diameter_px)
        if place is not None:
            _add(density, place, rng.uniform(0.5, 1.0) * _fragment(rng, look, diameter_px))
            others = np.vstack([others, place])
    for _ in range(int(rng.poisson(look.dirt))):
        place = _apart(rng, xy, side_px=side_px, distance_px=1.2 * diameter_px)
        if place is not None:
            _add(density, place, rng.uniform(0.5, 3.0) * _lump(rng, diameter_px * np.exp(rng.uniform(-1.5, 0.5))))
    for _ in range(int(rng.poisson(look.small))):
        _add(
            density, rng.uniform(0, side_px, 2), rng.uniform(0.1, 0.5) * _lump(rng, diameter_px * rng.uniform(0.1, 0.3))
        )
    image = _through_microscope(density, look)
    image += look.uneven * smooth_field(rng, image.shape, cells=int(rng.integers(2, 7)))
    noise = look.noise * diameter_px / 150.0
    image = image + rng.normal(0, noise, image.shape)
    return BarrelMicrograph(
        Micrograph(image.astype(np.float32), name=f"klh{seed:05d}"), xy, view.astype(np.int64), diameter_px
    )


def draw_crowd(seed: int, *, side_px: int, count: int = 3, scale: float = 1.0) -> list[BarrelMicrograph]:
    """Crowded micrographs of one session, barrels or (even seeds) hollow balls, a third to 0.45 of the area covered.

    They touch and differ in contrast, as those of apoferritin do.
    """
    rng = np.random.default_rng([seed, 31])
    is_ball = seed % 2 == 0
    look = replace(
        draw_look(seed, scale=scale),
        is_ball=is_ball,
        faintest=rng.uniform(0.4, 0.8),
        dirt=0.5,
        fragments=0.0,
        small=0.0,
    )
    covered = rng.uniform(0.3, 0.45) if is_ball else rng.uniform(0.2, 0.3)  # squares are larger than their circles
    number = int(covered * side_px**2 / (np.pi / 4 * look.ring_px**2))
    spacing = 1.02 if is_ball else 1.25
    return [
        draw_sparse_barrels(look, seed=1000 * seed + i, side_px=side_px, count=number, spacing=spacing)
        for i in range(count)
    ]


def without_particles(look: Look, *, seed: int, side_px: int = 2048) -> Micrograph:
    """Ice of the same session with its dirt and nothing else."""
    return draw_sparse_barrels(replace(look, fragments=0.0, small=0.0), seed=seed, side_px=side_px, count=0).micrograph


# ------------------------------------------------------------------------------------------------------------ drawing


def _places(
    rng: np.random.Generator, count: int, *, side_px: int, diameter_px: float, spacing: float
) -> NDArray[np.float64]:
    xy = np.zeros((0, 2))
    for _ in range(500 * max(count, 1)):
        if len(xy) == count:
            return xy
        centre = rng.uniform(MARGIN * diameter_px, side_px - MARGIN * diameter_px, 2)
        if not len(xy) or np.hypot(*(xy - centre).T).min() >= spacing * diameter_px:
            xy = np.vstack([xy, centre])
    if len(xy) == count:
        return xy
    raise ValueError(f"{len(xy)} of {count} barrels of {diameter_px:g} px fit into {side_px} px; ask for fewer")


def _apart(
    rng: np.random.Generator, others: NDArray[np.float64], *, side_px: int, distance_px: float
) -> NDArray[np.float64] | None:
    """A place this far from all others; None where twenty tries find none."""
    for _ in range(20):
        place = rng.uniform(0, side_px, 2)
        if not len(others) or np.hypot(*(others - place).T).min() >= distance_px:
            return place
    return None


def _add(image: NDArray[np.float64], centre: NDArray[np.float64], stamp: NDArray[np.float64]) -> None:
    """Add a square stamp around a place, to the nearest pixel, cut at the borders."""
    reach = stamp.shape[0] // 2
    x, y = np.rint(centre).astype(int)
    top, left = max(0, y - reach), max(0, x - reach)
    bottom, right = min(image.shape[0], y + reach + 1), min(image.shape[1], x + reach + 1)
    if top < bottom and left < right:
        image[top:bottom, left:right] += stamp[
            top - y + reach : bottom - y + reach, left - x + reach : right - x + reach
        ]


def _grid(reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    return x, y


def _inside(distance_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 within, 0 outside, over about two pixels."""
    return np.clip(0.5 + 0.5 * distance_px, 0, 1)


def _barrel(rng: np.random.Generator, look: Look, view: int, diameter_px: float) -> NDArray[np.float64]:
    """Path through protein, 1 for a wall seen along the axis."""
    outer, inner = 0.5 * diameter_px, 0.5 * look.hole * diameter_px
    height = look.height * diameter_px
    x, y = _grid(int(0.85 * diameter_px))
    angle = rng.uniform(0, 2 * np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if view == TOP_VIEW:
        squeeze = np.cos(np.radians(rng.uniform(0, 15)))  # not quite on end
        radius = np.hypot(along, across / squeeze)
        azimuth = np.arctan2(across, along)
        serrated = outer * (1 + 0.02 * np.cos(10 * azimuth))
        ring = _inside(serrated - radius) * _inside(radius - inner)
        collar = _inside(0.75 * inner - radius) * _inside(radius - 0.4 * inner)
        return ring + look.collar * collar
    chords = [2 * np.sqrt(np.clip(r**2 - across**2, 0, None)) for r in (outer, inner)]
    path = (chords[0] - (1 - 0.5 * look.collar) * chords[1]) / height
    tiers = 1 + look.tiers * np.cos(2 * np.pi * 6 * along / height)
    return path * tiers * _inside(height / 2 - np.abs(along))


def _ball(look: Look, diameter_px: float) -> NDArray[np.float64]:
    """Path through a hollow ball, 1 where it is longest: at the inner rim."""
    outer, inner = 0.5 * diameter_px, 0.5 * look.hole * diameter_px
    radius = np.hypot(*_grid(int(0.85 * diameter_px)))
    chords = [2 * np.sqrt(np.clip(r**2 - radius**2, 0, None)) for r in (outer, inner)]
    return np.asarray((chords[0] - chords[1]) / (2 * np.sqrt(outer**2 - inner**2)))


def _fragment(rng: np.random.Generator, look: Look, diameter_px: float) -> NDArray[np.float64]:
    """An arc of a ring, or a piece of a side view."""
    view = int(rng.integers(TOP_VIEW, SIDE_VIEW + 1))
    whole = _barrel(rng, look, view, diameter_px)
    reach = whole.shape[0] // 2
    x, y = _grid(reach)
    angle = rng.uniform(0, 2 * np.pi)
    cut = rng.uniform(0.0, 0.3) * diameter_px
    return whole * _inside(x * np.cos(angle) + y * np.sin(angle) - cut)


def _lump(rng: np.random.Generator, diameter_px: float) -> NDArray[np.float64]:
    """A dome with an uneven outline."""
    x, y = _grid(int(np.ceil(0.9 * diameter_px)) + 1)
    azimuth = np.arctan2(y, x)
    outline = np.ones_like(x)
    for harmonic in range(2, 6):
        outline += 0.15 * rng.normal() * np.cos(harmonic * azimuth + rng.uniform(0, 2 * np.pi))
    radius = np.hypot(x, y) / (0.5 * diameter_px * np.maximum(outline, 0.3))
    return np.asarray(np.sqrt(np.clip(1 - radius**2, 0, None)))


def _through_microscope(density: NDArray[np.float64], look: Look) -> NDArray[np.float64]:
    """Defocused image, scaled so that a wide wall is about 1 darker than its surroundings; the mean is 0."""
    optics = CtfParameters(
        defocus_u_um=look.defocus_um,
        defocus_v_um=look.defocus_um,
        voltage_kv=look.voltage_kv,
        spherical_aberration_mm=2.0,
        amplitude_contrast=look.amplitude_contrast,
        b_factor_angstrom2=300.0,
    )
    pixel_size = DIAMETER_ANGSTROM / look.ring_px
    transfer = ctf_2d((density.shape[0], density.shape[1]), pixel_size, optics)
    # at a quarter of the diameter, the width of a wall, the contrast is that of the density itself
    wall = round(density.shape[0] / (look.ring_px / 4))
    band = np.abs(transfer[0, max(1, wall // 3) : wall + 1]).mean()
    image = np.fft.irfft2(np.fft.rfft2(density) * transfer, density.shape) / max(float(band), 0.05)
    return np.asarray(image - image.mean())
