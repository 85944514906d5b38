"""From class probabilities to particles: connected regions, split where particles touch, each with its centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED_FLOOR = 0.002
"""Seeds below it are never candidates. Far below any useful threshold: the many weak candidates of an empty micrograph
are what tells a run that holds no particles."""
SEED_BLUR = 0.08
"""Gaussian, in diameters, before seeds are read off: two maxima of one particle become one."""
SEED_REACH = 0.15
"""A seed is the highest within so many diameters."""
CENTROID_REACH = 0.35
"""The centroid is taken over so many diameters around the seed, within its own region."""
CENTROID_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Regions:
    """Candidates of one map; all lengths in its cells.

    Parameters
    ----------
    xy_px : (n, 2) centres, sub-pixel
    score : (n,) in [0, 1]: mean probability of a particle's core around the centre
    area_px : (n,) cells of the region
    labels : (h, w) int32, 0 background, i + 1 the region of candidate i
    """

    xy_px: NDArray[np.float64]
    score: NDArray[np.float64]
    area_px: NDArray[np.float64]
    labels: NDArray[np.int32]


def find_regions(
    particle: NDArray[np.float32], core: NDArray[np.float32] | None, *, diameter_px: float, core_radius: float
) -> Regions:
    """All candidates of a map, strongest first.

    Parameters
    ----------
    particle : (h, w) probability of any part of a particle
    core : (h, w) probability of the part around a centre, which tells particles apart that touch; None where a network
        does not say: then the distance to the background does (`core_from_distance`)
    diameter_px : of a particle, cells
    core_radius : of the core, diameters
    """
    import cv2
    from skimage.segmentation import watershed

    if core is None:
        core = core_from_distance(particle, diameter_px=diameter_px, core_radius=core_radius)
    height, width = particle.shape
    smooth = cv2.GaussianBlur(np.pad(core, 1, mode="edge"), (0, 0), SEED_BLUR * diameter_px)
    reach = max(1, round(SEED_REACH * diameter_px))
    highest = cv2.dilate(smooth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    is_seed = (smooth >= highest)[1:-1, 1:-1] & (smooth[1:-1, 1:-1] > SEED_FLOOR)
    smooth = smooth[1:-1, 1:-1]
    seeds, seed_yx = _merged_seeds(is_seed, np.asarray(smooth, np.float32))
    if len(seed_yx) == 0:
        return Regions(np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros((height, width), np.int32))
    # a region ends where the particle is half as likely as its seed: weak candidates have regions too
    at_seed = np.maximum(particle, core)[seed_yx[:, 0], seed_yx[:, 1]]
    basins = watershed(-(particle + smooth), seeds).astype(np.int32)  # type: ignore[no-untyped-call]
    is_part = particle >= 0.5 * np.concatenate([[2.0], at_seed])[basins]
    xy_px = _centroids(core, basins, seed_yx, diameter_px=diameter_px)
    score = _disc_means(core, xy_px, radius_px=0.8 * core_radius * diameter_px)
    labels = np.where(is_part, basins, 0)
    area_px = np.bincount(labels.ravel(), minlength=len(seed_yx) + 1)[1:].astype(np.float64)
    order = np.argsort(-score, kind="stable")
    renumbered = np.zeros(len(order) + 1, np.int32)
    renumbered[order + 1] = np.arange(1, len(order) + 1)
    return Regions(xy_px[order], score[order], area_px[order], renumbered[labels])


def connected_regions(is_particle: NDArray[np.bool_], particle: NDArray[np.float32]) -> Regions:
    """Every connected region as one candidate, as large as it is: particles that touch are one.

    Its centre is the mean place of its pixels, its score their mean probability; pixels that touch by a corner belong
    together.

    Parameters
    ----------
    is_particle : (h, w)
    particle : (h, w) probability
    """
    from scipy import ndimage

    labels, count = ndimage.label(is_particle, structure=np.ones((3, 3)))
    inside = labels.ravel()
    area_px = np.bincount(inside, minlength=count + 1)[1:].astype(np.float64)
    rows, columns = np.nonzero(labels)
    number = labels[rows, columns]

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(number, values, minlength=count + 1)[1:] / np.maximum(area_px, 1)

    xy_px = np.stack([mean(columns), mean(rows)], axis=1).reshape(-1, 2)
    score = mean(particle[rows, columns].astype(np.float64))
    order = np.argsort(-score, kind="stable")
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[order + 1] = np.arange(1, count + 1)
    return Regions(xy_px[order], score[order], area_px[order], renumbered[labels])


def core_from_distance(particle: NDArray[np.float32], *, diameter_px: float, core_radius: float) -> NDArray[np.float32]:
    """A core map for networks that know particles and background only: deep inside a region, and likely a particle.

    The distance to the background (probability below one half) rises from the rim to the middle of each of two discs
    that touch; divided by its value where the core begins and cut at 1, times the probability.
    """
    import cv2

    is_particle = (particle >= 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(is_particle, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    begins = max((0.5 - core_radius) * diameter_px, 1.0)
    ramp = np.clip(distance / (begins + 0.5 * core_radius * diameter_px), 0.0, 1.0)
    # what never reaches one half keeps a small share, so that it stays a candidate
    return np.asarray(particle * np.where(is_particle, np.maximum(ramp, 0.1), 0.1), np.float32)


def _merged_seeds(
    is_seed: NDArray[np.bool_], smooth: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Plateaus count once: label image of the seeds and the highest cell of each."""
    from scipy import ndimage

    seeds, count = ndimage.label(is_seed, structure=np.ones((3, 3)))
    if count == 0:
        return seeds.astype(np.int32), np.zeros((0, 2), np.intp)
    places = ndimage.maximum_position(smooth, seeds, np.arange(1, count + 1))
    return seeds.astype(np.int32), np.array(places, np.intp).reshape(-1, 2)


def _window(diameter_px: float, reach: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column offsets of all cells within `reach` diameters, and one more."""
    side = int(np.ceil(reach * diameter_px)) + 1
    rows, columns = np.mgrid[-side : side + 1, -side : side + 1]
    return rows.ravel(), columns.ravel()


def _centroids(
    core: NDArray[np.float32], basins: NDArray[np.int32], seed_yx: NDArray[np.intp], *, diameter_px: float
) -> NDArray[np.float64]:
    """(n, 2) centre of mass of the core map around each seed, moved to its own result a few times."""
    height, width = core.shape
    rows, columns = _window(diameter_px, CENTROID_REACH)
    reach_px = CENTROID_REACH * diameter_px
    yx = seed_yx.astype(np.float64)
    number = np.arange(1, len(yx) + 1)[:, None]
    for _ in range(CENTROID_ROUNDS):
        nearest = np.rint(yx).astype(np.intp)
        y, x = nearest[:, :1] + rows, nearest[:, 1:] + columns
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        y_in, x_in = y.clip(0, height - 1), x.clip(0, width - 1)
        distance = np.hypot(y - yx[:, :1], x - yx[:, 1:])
        soft = np.clip(reach_px + 0.5 - distance, 0, 1)  # the window's rim is soft, so that centres move smoothly
        weight = core[y_in, x_in] * soft * (is_inside & (basins[y_in, x_in] == number))
        total = weight.sum(axis=1)
        found = np.stack([(weight * y).sum(axis=1), (weight * x).sum(axis=1)], axis=1)
        yx = np.where(total[:, None] > 0, found / np.maximum(total, 1e-12)[:, None], yx)
    return np.ascontiguousarray(yx[:, ::-1])


def _disc_means(core: NDArray[np.float32], xy_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.float64]:
    """(n,) mean of the map within a disc; cells outside the image do not count."""
    height, width = core.shape
    rows, columns = _window(radius_px, 1.0)
    yx = xy_px[:, ::-1]
    nearest = np.rint(yx).astype(np.intp)
    y, x = nearest[:, :1] + rows, nearest[:, 1:] + columns
    is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    distance = np.hypot(y - yx[:, :1], x - yx[:, 1:])
    weight = np.clip(radius_px + 0.5 - distance, 0, 1) * is_inside
    values = core[y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.asarray((weight * values).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12))
