"""What AutoCryoPicker and SuperCryoPicker share: the working image, the mask of its darkest clusters, the objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.deepcryopicker.borders import NO_BORDER, Border, find_repeated_border
from cryopick.pickers.deepcryopicker.clustering import intensity_classes, k_means_borders, super_pixel_means
from cryopick.pickers.deepcryopicker.denoise import prepare_autocryopicker
from cryopick.pickers.deepcryopicker.shapes import (
    find_circles,
    is_square_view,
    smallest_rectangle,
)
from cryopick.pickers.deepcryopicker.size import ParticleSize, measure_size
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import find_peaks
from cryopick.processing.regions import fill_holes, find_objects, remove_small
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap, fill_non_finite, resample
from cryopick.types import Micrograph, Picks

Preprocessing = Literal["corrected", "published"]
Clustering = Literal["lloyd", "thresholds"]

SMALLEST_DIAMETER_PX = 6.0
"""Stored pixels; smaller particles have no outline to speak of."""
SMOOTHING_PX = 1.0
STRETCH_PERCENT = (1.0, 99.0)
SMALLEST_OBJECT = 0.12
"""Objects of less than this part of the dark body's area are grain."""
LARGEST_HOLE = 0.15
"""Holes of up to this part of the body's area are closed in the mask; larger ones are the inside of a ring."""
RADIUS_RANGE = (0.75, 1.25)
"""Radii of circles that are looked for, in radii of the dark body."""
CIRCLE_FLOOR = 0.04
COMPONENT_PERCENTILE = 15.0
"""Of filled areas, below which SuperCryoPicker's program drops objects (super-pixels with k-means)."""
SUPER_PIXELS_PER_DIAMETER = 4.0
"""About as fine as the published settings, which are 2 to 3 for half-size micrographs; rings need the finer ones."""
SUPER_PIXEL_SMOOTHING = 0.2
"""Gaussian sigma in radii of the dark body: super-pixels follow whatever edges they are shown, those of noise too."""
MASS_RADII = 1.1
MASS_STEPS = 4
SIDE_LEVELS, SIDE_CLASSES = 5, 8
"""Side views of hollow particles are looked for in the darkest one to five of eight clusters."""
SIDE_SIZE = (0.55, 1.5)
"""Feret diameters of side views, in diameters of the dark body."""

SAME_PARTICLE = 0.4
"""Objects closer than this many diameters are one particle."""

TOP, SIDE, IRREGULAR = 1, 2, 3
VIEWS = {TOP: "top view", SIDE: "side view", IRREGULAR: "irregular"}


@dataclass(frozen=True, eq=False)
class WorkingImage:
    """A micrograph in which a particle is `NOMINAL_PARTICLE_PX` wide.

    Parameters
    ----------
    pixels : (h, w) float32, particles dark, about zero mean and unit variance
    scale : between these pixels and the stored ones
    border : strips without data, in which the stored image repeats its last good row; 0 here
    """

    pixels: NDArray[np.float32]
    scale: ScaleMap
    border: Border = NO_BORDER


@dataclass(frozen=True, eq=False)
class Found:
    """Objects of one micrograph in working pixels: centres (n, 2), scores, radii and views (n,)."""

    xy_px: NDArray[np.float64]
    score: NDArray[np.float32]
    radius_px: NDArray[np.float64]
    view: NDArray[np.int32]


def known_size(micrographs: Sequence[Micrograph], diameter: Length | None, body: float | None) -> ParticleSize | None:
    """The size as given where diameter and dark body are both known, else as measured on these micrographs."""
    if diameter is not None and body is not None:
        return ParticleSize(diameter, body, is_hollow=body == 1.0, evidence=np.nan)
    return measure_size(micrographs, diameter=diameter)


def nothing_seen(micrographs: int) -> str:
    """The finding where no diameter was given and none can be measured."""
    return (
        f"saw no consistent particles in {micrographs} micrograph(s): at no size do dark discs or rings stand out in "
        "numbers"
    )


def working_image(micrograph: Micrograph, *, diameter_px: float, preprocessing: Preprocessing) -> WorkingImage | None:
    """The micrograph at working size; None where it is smaller than a particle or all its pixels are one value.

    Raises
    ------
    SettingsError
        If the diameter is below `SMALLEST_DIAMETER_PX`.
    """
    if diameter_px < SMALLEST_DIAMETER_PX:
        raise SettingsError(
            f"{micrograph.name}: the diameter is {diameter_px:.3g} px, expected {SMALLEST_DIAMETER_PX:g} px or more; "
            "check --diameter and the pixel size, or use micrographs that are binned less"
        )
    pixels = micrograph.pixels
    if min(pixels.shape) < diameter_px or not np.ptp(fill_non_finite(pixels)) > 0:
        return None
    border = find_repeated_border(fill_non_finite(pixels))
    if border:
        pixels = border.filled(fill_non_finite(pixels))
    factor = NOMINAL_PARTICLE_PX / diameter_px
    if preprocessing == "published":
        prepared, half = prepare_autocryopicker(pixels)
        working, rest = resample(prepared.astype(np.float32), factor=factor / half.factor)
        scale = ScaleMap((half.factor_yx[0] * rest.factor_yx[0], half.factor_yx[1] * rest.factor_yx[1]))
        working = (working - working.mean()) / np.float32(float(working.std()) or 1.0)
    else:
        working, scale = resample(pixels, factor=factor)
        working = normalize_locally(working, diameter_px=NOMINAL_PARTICLE_PX)
    inner = border.scaled(scale.factor_yx)
    # streaks would pass for particles, so there is grey, the mean
    return WorkingImage(inner.blanked(working), scale, inner)


def stretched(image: WorkingImage, *, smoothing_px: float = SMOOTHING_PX) -> NDArray[np.float32]:
    """The working image smoothed and stretched to [0, 1] between its extreme percentiles."""
    import cv2

    smooth = cv2.GaussianBlur(image.pixels, (0, 0), smoothing_px, borderType=cv2.BORDER_REFLECT)
    low, high = np.percentile(smooth, STRETCH_PERCENT)
    return np.asarray(np.clip((smooth - low) / max(high - low, 1e-6), 0, 1), np.float32)


def intensity_mask(image: WorkingImage, *, clustering: Clustering, clusters: int, k: int = 4) -> NDArray[np.bool_]:
    """(h, w) True on the darkest of k intensity clusters."""
    grey = stretched(image)
    if clustering == "thresholds":
        return np.asarray(intensity_classes(grey, k=k) < clusters)
    return np.asarray(grey < k_means_borders(grey, k=k)[clusters - 1])


def super_pixel_mask(
    image: WorkingImage, size: ParticleSize, *, clusters: int, k: int = 5, is_rarest: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Super-pixels of the darkest of k clusters, and how near the others are to being among them.

    Parameters
    ----------
    is_rarest : take the one cluster of the fewest pixels instead, dark or bright, as the published program does

    Returns
    -------
    mask : (h, w) True on super-pixels of the darkest clusters
    nearness : (h, w) float32, 1 in the mask, falling to 0 through the next cluster
    """
    grey = stretched(image, smoothing_px=max(SMOOTHING_PX, SUPER_PIXEL_SMOOTHING * body_radius_px(size)))
    means = super_pixel_means(grey, side_px=NOMINAL_PARTICLE_PX / SUPER_PIXELS_PER_DIAMETER)
    borders = [*k_means_borders(means, k=k), float(means.max())]
    if is_rarest:
        label = np.searchsorted(borders[:-1], means, side="right")
        count = np.bincount(label.ravel(), minlength=k)
        chosen = label == int(np.argmin(np.where(count > 0, count, means.size + 1)))
        return chosen, chosen.astype(np.float32)
    inner, outer = borders[clusters - 1], borders[clusters]
    nearness = np.clip((outer - means) / max(outer - inner, 1e-6), 0, 1)
    return np.asarray(means < inner), np.asarray(nearness, np.float32)


def body_radius_px(size: ParticleSize) -> float:
    """Radius of the dark part in working pixels."""
    return 0.5 * size.body * NOMINAL_PARTICLE_PX


def clean_mask(mask: NDArray[np.bool_], size: ParticleSize) -> NDArray[np.bool_]:
    """Without grain, with small holes closed; limits follow from the area of the dark body."""
    area = np.pi * body_radius_px(size) ** 2
    return fill_holes(remove_small(mask, min_area_px=SMALLEST_OBJECT * area), max_area_px=LARGEST_HOLE * area)


def find_round(mask: NDArray[np.bool_], size: ParticleSize, *, min_support: float = CIRCLE_FLOOR) -> Found:
    """Top views: circles of about the dark body's size."""
    radius = body_radius_px(size)
    limits = RADIUS_RANGE[0] * radius, RADIUS_RANGE[1] * radius
    xy, radii, support = find_circles(mask, radius_px=limits, min_support=min_support)
    return Found(xy, support, radii, np.full(len(xy), TOP, np.int32))


def find_square(mask: NDArray[np.bool_], size: ParticleSize) -> Found:
    """Side views: objects of about the particle's size that are not round but fill their rectangle.

    The score is the part of the rectangle that is filled. An object is replaced by its rectangle's centre; those that
    reach the border of the image are incomplete and left out. Components cannot share pixels, but the rectangles that
    replace them can; among training examples those that do are left out (`without_overlap`).
    """
    objects = find_objects(fill_holes(mask))
    body = 2 * body_radius_px(size)
    rows: list[tuple[float, float, float, float]] = []
    is_candidate = ~objects.touches_edge()
    is_candidate &= (objects.box_xywh[:, 2:] >= SIDE_SIZE[0] * body).all(axis=1)
    is_candidate &= (objects.box_xywh[:, 2:] <= 1.5 * SIDE_SIZE[1] * body).all(axis=1)
    for index in np.flatnonzero(is_candidate).tolist():
        shape = objects.window(index)
        if is_square_view(shape):
            rectangle = smallest_rectangle(shape)
            if SIDE_SIZE[0] * body <= rectangle.short_px and rectangle.long_px <= SIDE_SIZE[1] * body:
                left, top = objects.box_xywh[index, :2]
                fill = np.count_nonzero(shape) / (rectangle.short_px * rectangle.long_px)
                rows.append((left + rectangle.x, top + rectangle.y, fill, 0.5 * rectangle.long_px))
    table = np.array(rows).reshape(-1, 4)
    view = np.full(len(table), SIDE, np.int32)
    return Found(table[:, :2], np.clip(table[:, 2], 0, 1).astype(np.float32), table[:, 3], view)


def find_square_at_levels(image: WorkingImage, size: ParticleSize) -> Found:
    """Side views of hollow particles, each at the level of grey that shows its outline best.

    They let the beam through where top views stand on edge, so they are fainter, and the ice under them decides which
    cluster they are in. What is looked at is smoothed as for super-pixels, over their tiers and gaps.
    """
    found = [find_square(mask, size) for mask in masks_at_levels(image, size)]
    return distinct_objects([reduce(joined, found)])


def find_round_at_levels(image: WorkingImage, size: ParticleSize, *, min_support: float = CIRCLE_FLOOR) -> Found:
    """Top views of hollow particles, each at the level of grey that shows its outline best.

    The darkest of four clusters holds the rims of the strongest particles and pieces of those of the others.
    """
    found = [find_round(mask, size, min_support=min_support) for mask in masks_at_levels(image, size)]
    return distinct_objects([reduce(joined, found)])


def masks_at_levels(image: WorkingImage, size: ParticleSize) -> list[NDArray[np.bool_]]:
    """Cleaned masks of the darkest one to five of eight clusters of the smoothed image."""
    grey = stretched(image, smoothing_px=max(SMOOTHING_PX, SUPER_PIXEL_SMOOTHING * body_radius_px(size)))
    borders = k_means_borders(grey, k=SIDE_CLASSES)[:SIDE_LEVELS]
    return [clean_mask(np.asarray(grey < border), size) for border in borders]


def find_components(mask: NDArray[np.bool_]) -> Found:
    """The published way from super-pixels to particles: connected objects, cleaned, the smallest 15 % left out.

    Eroded and dilated with a cross; those with a filled area from the 15th percentile of this micrograph on are kept,
    so that a fixed share is dropped whatever it shows. Centres are those of the boxes around objects, and the score is
    the filled area over the largest.
    """
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opened = cv2.dilate(cv2.erode(mask.astype(np.uint8), cross), cross).astype(bool)
    objects = find_objects(fill_holes(opened))
    if len(objects) == 0:
        return Found(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros(0), np.zeros(0, np.int32))
    kept = objects.area_px >= np.percentile(objects.area_px, COMPONENT_PERCENTILE)
    box = objects.box_xywh[kept].astype(np.float64)
    score = (objects.area_px[kept] / objects.area_px.max()).astype(np.float32)
    view = np.full(len(box), IRREGULAR, np.int32)
    return Found(box[:, :2] + (box[:, 2:] - 1) / 2, score, box[:, 2:].max(axis=1) / 2, view)


def find_irregular(
    mask: NDArray[np.bool_], nearness: NDArray[np.float32], size: ParticleSize, *, min_score: float
) -> Found:
    """Particles of any outline: places where a disc of the dark body is covered and its surroundings are not.

    This splits touching objects, where connected components would give one for all. The score is the covered share
    of the disc less that of the ring around it, -1 to 1. Centres are moved to the centre of mass of `nearness` within
    the body, because a faint particle has only some of its super-pixels in the mask.
    """
    import cv2

    radius = body_radius_px(size)
    solid = fill_holes(mask, max_area_px=np.pi * radius**2) if size.is_hollow else mask
    reach = int(np.ceil(1.4 * radius))
    offset = np.arange(-reach, reach + 1)
    distance = np.hypot(offset[:, None], offset)
    disc = (distance <= radius).astype(np.float32)
    ring = ((distance > radius) & (distance <= 1.4 * radius)).astype(np.float32)
    kernel = disc / disc.sum() - 0.7 * ring / max(float(ring.sum()), 1.0)
    cover = cv2.filter2D(solid.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT)
    cover = cv2.GaussianBlur(cover, (0, 0), 0.15 * radius)
    xy, score = find_peaks(np.asarray(cover, np.float32), min_score=min_score, radius_px=0.5 * radius)
    weight = np.maximum(nearness, solid.astype(np.float32))
    xy = _to_centres_of_mass(xy, weight, (distance <= MASS_RADII * radius).astype(np.float32))
    return Found(xy, score, np.full(len(xy), radius), np.full(len(xy), IRREGULAR, np.int32))


def _to_centres_of_mass(
    xy: NDArray[np.float64], weight: NDArray[np.float32], disc: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Each centre moved, a few times, to the centre of the weight in a disc around it (mean shift)."""
    import cv2
    from scipy.ndimage import map_coordinates

    reach = disc.shape[0] // 2
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    kernels = disc, disc * offset, disc * offset[:, None]
    mass, right, down = (cv2.filter2D(weight, -1, kernel, borderType=cv2.BORDER_CONSTANT) for kernel in kernels)
    mass = np.maximum(mass, 1e-3)
    shifts = right / mass, down / mass
    for _ in range(MASS_STEPS):
        step = [map_coordinates(shift, xy.T[::-1], order=1, mode="nearest") for shift in shifts]
        xy = xy + np.stack(step, axis=1)
    return np.asarray(xy)


def joined(first: Found, second: Found) -> Found:
    """Both lists as one, `first` first."""
    return Found(
        np.concatenate([first.xy_px, second.xy_px]),
        np.concatenate([first.score, second.score]).astype(np.float32),
        np.concatenate([first.radius_px, second.radius_px]),
        np.concatenate([first.view, second.view]).astype(np.int32),
    )


def distinct_objects(stages: Sequence[Found]) -> Found:
    """All objects, those of later stages left out where an earlier stage, or a better one of the same, has one."""
    from scipy.spatial import cKDTree

    order = [np.argsort(-found.score, kind="stable") for found in stages]
    parts = [
        (found.xy_px[i], found.score[i], found.radius_px[i], found.view[i])
        for found, i in zip(stages, order, strict=True)
    ]
    xy, score, radius, view = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    is_kept = np.ones(len(xy), bool)
    if len(xy):
        pairs = cKDTree(xy).query_pairs(SAME_PARTICLE * NOMINAL_PARTICLE_PX, output_type="ndarray")
        pairs = np.sort(pairs, axis=1)
        for better, worse in pairs[np.argsort(pairs[:, 0], kind="stable")]:
            if is_kept[better]:
                is_kept[worse] = False
    return Found(xy[is_kept], score[is_kept], radius[is_kept], view[is_kept].astype(np.int32))


def to_picks(
    found: Found,
    micrograph: Micrograph,
    scale: ScaleMap,
    diameter_px: float,
    *,
    maps: Mapping[str, NDArray[np.float32]],
) -> Picks:
    """Objects in working pixels as candidates in stored ones, best first, equal ones by row and column."""
    xy_px = scale.to_stored_xy(found.xy_px)
    by_place = np.lexsort((xy_px[:, 0], xy_px[:, 1]))
    return Picks.of_candidates(
        micrograph, xy_px[by_place], found.score[by_place], diameter_px, class_id=found.view[by_place], maps=maps
    )
