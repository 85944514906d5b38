"""Training examples without labels: good particles chosen among clustered objects, background between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.objects import (
    IRREGULAR,
    SIDE,
    TOP,
    Found,
    WorkingImage,
    body_radius_px,
    clean_mask,
    find_irregular,
    find_round,
    find_square,
    intensity_mask,
    joined,
    super_pixel_mask,
)
from cryopick.pickers.deepcryopicker.shapes import circularity, is_square_view, perimeter
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.processing.regions import fill_holes, find_objects
from cryopick.processing.scale import NOMINAL_PARTICLE_PX

ROUND_SUPPORT, SQUARE_FILL, IRREGULAR_COVER = 0.10, 0.85, 0.15
"""Smallest scores of an object that may become an example: the default thresholds of the two pickers."""
SAME_PARTICLE = 0.4
"""Objects closer than this many diameters are one particle."""
AREA_LIMITS = (0.7, 1.3)
"""Areas of good irregular particles, over the mean area (equation 6 with limits of ours; the paper gives none)."""
PROFILE_REACH = 0.75
PROFILE_RINGS = 12
SMALLEST_LIKENESS = 0.3
"""Correlation of an example's radial profile with the mean profile of its view."""
CONTRAST_SIGMAS = 3.5
"""Examples darker than the others by more robust standard deviations are ice."""
DECOY_DIAMETERS = 0.9
"""Decoys are at least this far from every example: inverted fringes of particles are no noise."""
MINIMUM_EXAMPLES = 40
"""A run with fewer good particles has not shown a consistent kind of particle."""

CHANCE_PERCENTILE = 90.0
"""Examples have more contrast than this percentile of what the same procedure finds in the inverted micrographs."""
MINIMUM_SHARE = 0.25
"""Of the objects that look right, so many have to stand out from chance."""

SMALLEST_VIEW = 0.2
"""Share of the examples that side views and irregular ones have to be."""

ALONE, AREA, LIKENESS = "found by one picker only", "area", "unlike the others"
TOO_STRONG, CHANCE = "darker than the others", "no stronger than chance"
RARE = "a view of too few"


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One micrograph with its examples, in working pixels.

    Parameters
    ----------
    pixels : (h, w) float32
    mask : (h, w) bool, the darkest intensity cluster, cleaned
    xy_px : (n, 2)
    view : (n,) int32, `TOP`, `SIDE` or `IRREGULAR`
    reason : (n,) str, why an object is no example; "" for the chosen ones
    score : (n,) of the clustering stage
    decoy_xy_px : (m, 2) places that would be chosen in the inverted image; there is no particle there
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    xy_px: NDArray[np.float64]
    view: NDArray[np.int32]
    reason: NDArray[np.str_]
    score: NDArray[np.float32]
    decoy_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """(n,) True for chosen examples."""
        return np.asarray(self.reason == "")


def label_images(images: Sequence[WorkingImage], size: ParticleSize) -> list[LabelledImage]:
    """Cluster every micrograph, choose good particles, and drop those unlike the others.

    Each micrograph is judged by its own averages, as the paper's algorithms 1 and 2 say. The checks that follow are
    ours and look at the whole run, so that dirt and noise, which have no common look, do not become a class: a profile
    like the others', no more contrast than the others, and more than bright objects have, which are there by chance.
    Those bright objects, as far as they lie apart from the chosen ones, are the decoys: noise that looks right.
    """
    dark = _drop_outliers([_label(image, size) for image in images])
    bright = _drop_outliers([_label(WorkingImage(-image.pixels, image.scale), size) for image in images])
    by_chance = np.concatenate([_contrast(image, size)[image.is_good] for image in bright])
    limit = float(np.percentile(by_chance, CHANCE_PERCENTILE)) if len(by_chance) else 0.0
    judged = [
        _with_reason(image, np.where(image.is_good & (_contrast(image, size) <= limit), CHANCE, image.reason))
        for image in dark
    ]
    with_decoys = [
        replace(image, decoy_xy_px=_apart(inverted.xy_px[inverted.is_good], image.xy_px[image.is_good]))
        for image, inverted in zip(judged, bright, strict=True)
    ]
    return _without_rare_views(with_decoys)


def _apart(xy: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those places that are `DECOY_DIAMETERS` or more from all others."""
    from scipy.spatial import cKDTree

    if len(xy) == 0 or len(others) == 0:
        return xy
    distance, _ = cKDTree(others).query(xy)
    return np.asarray(xy[distance >= DECOY_DIAMETERS * NOMINAL_PARTICLE_PX])


def _without_rare_views(images: list[LabelledImage]) -> list[LabelledImage]:
    """Views that too few examples show are ill-drawn ones of the others, such as a ring whose outline is nearly square.

    Rare side views count as irregular. Rare irregular ones are left out, since they may show any of the views.
    """
    if _is_rare(images, SIDE):
        images = [
            replace(image, view=np.where(image.view == SIDE, IRREGULAR, image.view).astype(np.int32))
            for image in images
        ]
    if _is_rare(images, IRREGULAR):
        images = [
            _with_reason(image, np.where(image.is_good & (image.view == IRREGULAR), RARE, image.reason))
            for image in images
        ]
    return images


def _is_rare(images: Sequence[LabelledImage], view: int) -> bool:
    views = np.concatenate([image.view[image.is_good] for image in images])
    return bool(np.count_nonzero(views == view) < SMALLEST_VIEW * len(views))


def why_inconsistent(labelled: Sequence[LabelledImage]) -> str:
    """A sentence saying why these micrographs show no consistent kind of particle; "" where they do."""
    good = sum(int(image.is_good.sum()) for image in labelled)
    chance = sum(int((image.reason == CHANCE).sum()) for image in labelled)
    objects = sum(len(image.reason) for image in labelled)
    if good >= MINIMUM_EXAMPLES and good >= MINIMUM_SHARE * (good + chance):
        return ""
    return (
        f"saw no consistent particles in {len(labelled)} micrograph(s): of {objects} dark objects {good} look alike "
        f"and stand out from chance, expected at least {MINIMUM_EXAMPLES} and {MINIMUM_SHARE:.0%} of those that look "
        "right"
    )


def _with_reason(image: LabelledImage, reason: NDArray[np.str_]) -> LabelledImage:
    return replace(image, reason=reason.astype("<U32"))


def _contrast(image: LabelledImage, size: ParticleSize) -> NDArray[np.float64]:
    """(n,) how much darker the body of each object is than its surroundings, in standard deviations of the image."""
    profiles = radial_profiles(image.pixels, image.xy_px)
    radius = (np.arange(PROFILE_RINGS) + 0.5) * PROFILE_REACH / PROFILE_RINGS * 2  # in particle radii
    is_body = (radius > 0.6) & (radius < 1.0) if size.is_hollow else radius < max(size.body, radius[1])
    return np.asarray(profiles[:, radius > 1.0].mean(axis=1) - profiles[:, is_body].mean(axis=1))


def _label(image: WorkingImage, size: ParticleSize) -> LabelledImage:
    radius = body_radius_px(size)
    mask = clean_mask(intensity_mask(image, clustering="lloyd", clusters=1), size)
    darkest, nearness = super_pixel_mask(image, size, clusters=2 if size.is_hollow else 1)
    super_mask = clean_mask(darkest, size)
    # side views let the beam through where top views stand on edge, so they may be in the second darkest cluster only
    wider = clean_mask(intensity_mask(image, clustering="lloyd", clusters=2), size)
    squares = joined(find_square(mask, size), find_square(wider, size))
    stages = [
        squares,
        _at_least(find_round(mask, size), ROUND_SUPPORT),
        find_irregular(super_mask, nearness, size, min_score=IRREGULAR_COVER),
    ]
    distinct = _distinct(stages)
    is_alone = ~(_has_near(distinct, *stages[:2]) & _has_near(distinct, stages[2]))
    shapes = [_own_shape(super_mask | mask, xy, reach_px=1.3 * radius) for xy in distinct.xy_px]
    view, reason = _judge(shapes, distinct.view)
    reason[(reason == "") & is_alone & (view != SIDE)] = ALONE
    return LabelledImage(image.pixels, mask, distinct.xy_px, view, reason, distinct.score)


def _at_least(found: Found, score: float) -> Found:
    kept = found.score >= score
    return Found(found.xy_px[kept], found.score[kept], found.radius_px[kept], found.view[kept])


def _distinct(stages: Sequence[Found]) -> Found:
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


def _has_near(objects: Found, *stages: Found) -> NDArray[np.bool_]:
    """(n,) True for objects that one of the stages has found too."""
    from scipy.spatial import cKDTree

    others = np.concatenate([stage.xy_px for stage in stages])
    if len(others) == 0 or len(objects.xy_px) == 0:
        return np.zeros(len(objects.xy_px), bool)
    distance, _ = cKDTree(others).query(objects.xy_px)
    return np.asarray(distance <= SAME_PARTICLE * NOMINAL_PARTICLE_PX)


def _own_shape(mask: NDArray[np.bool_], xy: NDArray[np.float64], *, reach_px: float) -> NDArray[np.bool_]:
    """The part of a mask that belongs to one particle: within reach of its centre, holes filled, the largest object."""
    x, y = xy
    top, left = max(0, int(y - reach_px)), max(0, int(x - reach_px))
    part = mask[top : int(y + reach_px) + 2, left : int(x + reach_px) + 2]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    inside = np.hypot(columns + left - x, rows + top - y) <= reach_px
    solid = fill_holes(part & inside)
    objects = find_objects(solid)
    if len(objects) == 0:
        return np.zeros((1, 1), bool)
    return objects.window(int(np.argmax(objects.area_px)))


def _judge(shapes: Sequence[NDArray[np.bool_]], view: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Views and reasons by the averages of this micrograph: roundness of round ones, area of irregular ones.

    A circle whose particle is less round than the average may still be a good irregular one, so it is tried as that.
    """
    n = len(shapes)
    reason = np.full(n, "", dtype="<U32")
    view = view.copy()
    if n == 0:
        return view, reason
    area = np.array([max(1, np.count_nonzero(shape)) for shape in shapes], np.float64)
    roundness = np.array([circularity(a, perimeter(s)) for a, s in zip(area, shapes, strict=True)])
    is_round = view == TOP
    if is_round.any():
        view[is_round & (roundness > roundness[is_round].mean())] = IRREGULAR
    for index in np.flatnonzero(view == IRREGULAR).tolist():
        if area[index] > 1 and is_square_view(shapes[index]):
            view[index] = SIDE
    share = area / area.mean()
    is_odd = (view == IRREGULAR) & ((share < AREA_LIMITS[0]) | (share > AREA_LIMITS[1]))
    reason[is_odd] = AREA
    return view, reason


def radial_profiles(pixels: NDArray[np.float32], xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, rings) mean grey value in rings around centres, out to `PROFILE_REACH` diameters; edges are reflected."""
    import cv2

    reach = PROFILE_REACH * NOMINAL_PARTICLE_PX
    pad = int(np.ceil(reach)) + 1
    offset = np.arange(-pad, pad + 1)
    ring = np.hypot(offset[:, None], offset) * PROFILE_RINGS / reach
    padded = cv2.copyMakeBorder(pixels, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    weights = np.stack([np.clip(1 - np.abs(ring - k - 0.5), 0, 1) for k in range(PROFILE_RINGS)])
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    flat = weights.reshape(PROFILE_RINGS, -1)
    profiles = np.zeros((len(xy_px), PROFILE_RINGS))
    for index, (x, y) in enumerate(np.rint(xy_px).astype(int)):
        profiles[index] = flat @ padded[y : y + 2 * pad + 1, x : x + 2 * pad + 1].ravel()
    return profiles


def _drop_outliers(images: list[LabelledImage]) -> list[LabelledImage]:
    """Reasons filled in for examples whose profile or contrast is unlike that of the run's others of their view."""
    view = np.concatenate([image.view for image in images])
    reason = np.concatenate([image.reason for image in images]).astype("<U32")
    profiles = np.concatenate([radial_profiles(image.pixels, image.xy_px) for image in images])
    for kind in (TOP, SIDE, IRREGULAR):
        own = np.flatnonzero((view == kind) & (reason == ""))
        if len(own) < 3:
            continue
        mean = np.median(profiles[own], axis=0)
        mean = mean - mean.mean()
        centred = profiles[own] - profiles[own].mean(axis=1, keepdims=True)
        strength = centred @ mean / max(float(mean @ mean), 1e-12)  # contrast, in that of the typical particle
        likeness = centred @ mean / np.maximum(np.linalg.norm(centred, axis=1) * np.linalg.norm(mean), 1e-12)
        spread = 1.4826 * float(np.median(np.abs(strength - np.median(strength))))
        is_far = strength - np.median(strength) > CONTRAST_SIGMAS * max(spread, 1e-6)
        reason[own[is_far]] = TOO_STRONG
        reason[own[likeness < SMALLEST_LIKENESS]] = LIKENESS
    ends = np.cumsum([len(image.view) for image in images])[:-1]
    return [_with_reason(image, own) for image, own in zip(images, np.split(reason, ends), strict=True)]
