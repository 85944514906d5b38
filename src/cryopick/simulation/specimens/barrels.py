"""Barrels like KLH, seen along the axis (rings) and across it (rectangles): projections of a hollow cylinder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.types import Micrograph

TOP_VIEW, SIDE_VIEW = 1, 2
HOLE, HEIGHT = 0.55, 1.05
"""Inner diameter and height over the outer diameter: side views are nearly square, as those of KLH are."""
SPACING, MARGIN = 1.45, 0.7
"""Smallest distance between centres, and from a centre to the border, in diameters."""


@dataclass(frozen=True, eq=False)
class BarrelMicrograph:
    """A micrograph of barrels with the truth.

    Parameters
    ----------
    micrograph : particles dark, without a pixel size
    xy_px : (n, 2) centres
    view : (n,) int, `TOP_VIEW` or `SIDE_VIEW`
    diameter_px : of the barrels
    """

    micrograph: Micrograph
    xy_px: NDArray[np.float64]
    view: NDArray[np.int64]
    diameter_px: float


def draw_barrels(
    *, seed: int, side_px: int = 1000, diameter_px: float = 70.0, count: int = 50, noise: float = 0.8
) -> BarrelMicrograph:
    """Barrels at random places, half of each view, in white noise.

    Parameters
    ----------
    noise : standard deviation, in units of the darkness of a wall seen along the axis

    Raises
    ------
    ValueError
        If so many do not fit.
    """
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side_px, side_px))
    xy = np.zeros((0, 2))
    views: list[int] = []
    for _ in range(200 * count):
        if len(xy) == count:
            break
        centre = rng.uniform(MARGIN * diameter_px, side_px - MARGIN * diameter_px, 2)
        if len(xy) and np.hypot(*(xy - centre).T).min() < SPACING * diameter_px:
            continue
        view = int(rng.integers(TOP_VIEW, SIDE_VIEW + 1))
        _subtract(pixels, centre, view, diameter_px=diameter_px, angle=rng.uniform(0, np.pi))
        xy = np.vstack([xy, centre])
        views.append(view)
    if len(xy) < count:
        raise ValueError(f"{len(xy)} of {count} barrels of {diameter_px:g} px fit into {side_px} px; ask for fewer")
    noisy = (pixels + rng.normal(0, noise, pixels.shape)).astype(np.float32)
    return BarrelMicrograph(Micrograph(noisy, name=f"barrels{seed:03d}"), xy, np.array(views), diameter_px)


def _subtract(
    pixels: NDArray[np.float64], centre: NDArray[np.float64], view: int, *, diameter_px: float, angle: float
) -> None:
    """Take the length of the path through one barrel's wall, over its height, from the image in place."""
    outer, inner, height = 0.5 * diameter_px, 0.5 * HOLE * diameter_px, HEIGHT * diameter_px
    left, top = (max(0, int(c - diameter_px)) for c in centre)
    bottom, right = (min(n, int(c + diameter_px) + 1) for n, c in zip(pixels.shape, centre[::-1], strict=True))
    window = np.s_[top:bottom, left:right]
    rows, columns = np.ogrid[window]
    dx, dy = columns - centre[0], rows - centre[1]
    if view == TOP_VIEW:
        radius = np.hypot(dx, dy)
        pixels[window] -= (radius < outer) & (radius > inner)
        return
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    chords = [2 * np.sqrt(np.clip(r**2 - across**2, 0, None)) for r in (outer, inner)]
    pixels[window] -= (np.abs(along) < height / 2) * (chords[0] - chords[1]) / height
