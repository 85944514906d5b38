"""Where particles lie: scattered, clumped or packed, never closer than a given distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.geometry.selection import stand_best_first
from cryopick.simulation.recipe import LayoutRanges, draw, draw_count, draw_log
from cryopick.simulation.scene.ice import smooth_field

SILHOUETTE_LEVEL = 0.15
"""A pixel belongs to a particle where its own projected density exceeds this fraction of its maximum."""


def keep_apart(xy_px: NDArray[np.float64], *, min_distance_px: float) -> NDArray[np.bool_]:
    """Walk through the points in order and keep each one that is `min_distance_px` from all kept before it.

    Parameters
    ----------
    xy_px : (n, 2), any frame
    min_distance_px : at 0 or less every point is kept

    Returns
    -------
    is_kept : (n,) bool
    """
    if min_distance_px <= 0 or len(xy_px) < 2:
        return np.ones(len(xy_px), dtype=bool)
    # A hair below the distance, so that points exactly at it stay.
    pairs = cKDTree(xy_px).query_pairs(min_distance_px * (1 - 1e-9), output_type="ndarray")
    return stand_best_first(len(xy_px), pairs)


def scatter(
    rng: np.random.Generator,
    shape_yx: tuple[int, int],
    *,
    count: int,
    min_distance_px: float,
    margin_px: float = 0.0,
    preference: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Random centres at least `min_distance_px` apart (random sequential addition).

    Parameters
    ----------
    count : wanted; fewer come back where the micrograph is full
    margin_px : how far from the border centres stay; negative lets them lie outside, so that particles are cut
    preference : (h, w) in [0, 1], the probability of keeping a centre there; None is 1 everywhere

    Returns
    -------
    xy_px : (n <= count, 2) float64, centres; (0, 0) is the centre of the first pixel
    """
    height, width = shape_yx
    low = np.array([margin_px - 0.5, margin_px - 0.5])
    high = np.array([width - 0.5 - margin_px, height - 0.5 - margin_px])
    if count <= 0 or np.any(high <= low):
        return np.zeros((0, 2))
    accepted = np.zeros((0, 2))
    # Random sequential addition slows down as it fills, so three rounds of darts and then what is there is the answer.
    for _ in range(3):
        darts = rng.uniform(low, high, size=(2 * count + 8, 2))
        if preference is not None:
            darts = darts[rng.random(len(darts)) < sample_nearest(preference, darts)]
        accepted = np.concatenate([accepted, darts])
        accepted = accepted[keep_apart(accepted, min_distance_px=min_distance_px)]
        if len(accepted) >= count:
            break
    return accepted[:count]


def pack(
    rng: np.random.Generator,
    shape_yx: tuple[int, int],
    *,
    spacing_px: float,
    jitter: float,
    margin_px: float = 0.0,
    preference: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Centres of a closely packed monolayer: a rotated hexagonal lattice, each point displaced at random.

    Parameters
    ----------
    spacing_px : distance of neighbours before the displacement
    jitter : standard deviation of the displacement per axis, in spacings
    margin_px, preference : as in `scatter`
    """
    height, width = shape_yx
    reach = int(np.hypot(height, width) / spacing_px) + 3
    i, j = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    lattice = spacing_px * np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=-1).reshape(-1, 2)
    angle = rng.uniform(0, np.pi / 3)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy_px = lattice @ turn + rng.uniform(0, spacing_px, size=2) + [width / 2, height / 2]
    xy_px = xy_px + rng.normal(0, jitter * spacing_px, size=xy_px.shape)
    is_inside = np.all(xy_px >= margin_px - 0.5, axis=1) & np.all(
        xy_px <= np.array([width, height]) - 0.5 - margin_px, axis=1
    )
    xy_px = xy_px[is_inside]
    if preference is not None:
        xy_px = xy_px[rng.random(len(xy_px)) < sample_nearest(preference, xy_px)]
    return np.asarray(xy_px)


def draw_centres(
    rng: np.random.Generator,
    shape_yx: tuple[int, int],
    ranges: LayoutRanges,
    *,
    diameter_px: float,
    allowed: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Centres of one micrograph in random order of density and pattern: scattered, patchy, or packed in a layer.

    Parameters
    ----------
    diameter_px : of the particle
    allowed : (h, w) in [0, 1], as `preference` of `scatter`; None allows everywhere

    Returns
    -------
    xy_px : (n, 2) float64; particles at the border are cut by it
    """
    pattern = rng.random()
    preference = None
    if pattern < ranges.packed_probability:
        if rng.random() < 0.5:  # the layer has holes
            preference = np.clip(smooth_field(rng, shape_yx, cells=3) * 2 + np.float32(rng.uniform(0, 2)), 0, 1)
        spacing_px = diameter_px * rng.uniform(ranges.spacing_diameters[0], max(1.15, ranges.spacing_diameters[0]))
        jitter = rng.uniform(0.02, 0.12)
        xy_px = pack(rng, shape_yx, spacing_px=spacing_px, jitter=jitter, preference=_both(preference, allowed))
        return xy_px[rng.random(len(xy_px)) < rng.uniform(0.8, 1.0)]
    if pattern < ranges.packed_probability + ranges.clumped_probability:
        preference = np.clip(smooth_field(rng, shape_yx, cells=draw_count(rng, (2, 6))) * 3, 0, 1)
    area_in_particles = shape_yx[0] * shape_yx[1] / (np.pi / 4 * diameter_px**2)
    coverage = draw_log(rng, ranges.coverage) if ranges.coverage[0] > 0 else draw(rng, ranges.coverage)
    return scatter(
        rng,
        shape_yx,
        count=max(1, round(coverage * area_in_particles)),
        min_distance_px=diameter_px * draw(rng, ranges.spacing_diameters),
        preference=_both(preference, allowed),
    )


def _both(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    if one is None or other is None:
        return one if other is None else other
    return np.asarray(one * other)


def sample_nearest(image: NDArray[Any], xy_px: NDArray[np.float64]) -> NDArray[Any]:
    """(n,) value of the pixel nearest to each point; points outside take that of the nearest border pixel."""
    column = np.clip(np.rint(xy_px[:, 0]).astype(int), 0, image.shape[1] - 1)
    row = np.clip(np.rint(xy_px[:, 1]).astype(int), 0, image.shape[0] - 1)
    return np.asarray(image[row, column])


def cut_to_scene(
    image: NDArray[Any], *, top: int, left: int, shape_yx: tuple[int, int]
) -> tuple[slice, slice, NDArray[Any]]:
    """The rows and columns of a scene that an image covers whose corner lies there, and that part of the image."""
    (height, width), (rows_px, columns_px) = shape_yx, image.shape
    rows = slice(min(max(0, top), height), max(min(height, top + rows_px), 0))
    columns = slice(min(max(0, left), width), max(min(width, left + columns_px), 0))
    return rows, columns, image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def visible_share(
    instances: NDArray[np.int32], junk: NDArray[np.bool_], *, area_px: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(n,) Share of the silhouette of particle i, instance i + 1, that is inside and neither covered nor on junk."""
    n = len(area_px)
    free = np.bincount(instances[~junk], minlength=n + 1)[1 : n + 1]
    return np.asarray(np.minimum(free / np.maximum(area_px, 1), 1), np.float32)
