"""Training examples without labels: good particles chosen among clustered objects, background between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.evidence import contrast_of, radial_profiles
from cryopick.pickers.deepcryopicker.objects import (
    IRREGULAR,
    SAME_PARTICLE,
    SIDE,
    TOP,
    Clustering,
    Found,
    WorkingImage,
    body_radius_px,
    clean_mask,
    distinct_objects,
    find_irregular,
    find_round,
    find_square,
    intensity_mask,
    joined,
    super_pixel_mask,
)
from cryopick.pickers.deepcryopicker.shapes import (
    circularity,
    is_square_view,
    own_shape,
    perimeter,
    smallest_rectangle,
    without_overlap,
)
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.processing.scale import NOMINAL_PARTICLE_PX

ROUND_SUPPORT, SQUARE_FILL, IRREGULAR_COVER = 0.10, 0.85, 0.15
"""Smallest scores of an object that may become an example: the default thresholds of the two pickers."""
AREA_LIMITS = (0.7, 1.3)
"""Areas of good irregular particles, over the mean area (equation 6 with limits of ours; the paper gives none)."""
SMALLEST_LIKENESS = 0.3
"""Correlation of an example's radial profile with the mean profile of its view."""
CONTRAST_SIGMAS = 3.5
"""Examples darker than the others by more robust standard deviations are ice."""
DECOY_DIAMETERS = 0.9
"""Decoys are at least this far from every example: inverted fringes of particles are no noise."""
MINIMUM_EXAMPLES = 10
"""A run with fewer good particles has not shown a consistent kind of particle."""
ENOUGH_EXAMPLES = 40
"""With fewer than these, as in sparse micrographs, the examples have to stand out from chance more clearly."""

CHANCE_PERCENTILE = 90.0
"""Examples have more contrast than this percentile of what the same procedure finds in the inverted micrographs."""
MINIMUM_SHARE, FEW_SHARE = 0.25, 0.5
"""Of the objects that look right, so many have to stand out from chance; the second where examples are few."""

SMALLEST_VIEW = {SIDE: 0.1, IRREGULAR: 0.2}
"""Share of the examples that these views have to be."""
ROUND_QUARTER = 1.05
"""Particles are round, and Algorithm 1 is for them, where a quarter of the circles found have a circularity below it.
Judged by benchmarks/round_or_irregular.py, where barrels and rings, clear and faint, have 0.98 to 1.01, and lose
their views when they are taken for irregular; the rest is margin, as real rings reach 1.03. Long proteins, with
twice as many good examples when they are taken for irregular, have 1.02 and more; of discs, 0.98 to 1.29, about as
many are chosen either way."""

ALONE, AREA, LIKENESS = "found by one picker only", "area", "unlike the others"
NOT_ROUND, OVERLAP = "less round than average", "overlaps another"
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
    extent_px : (n, 3) of the perfect mask: sides of the rectangle around it (twice the radius of a circle), long first,
        and the angle of the long side in degrees
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    xy_px: NDArray[np.float64]
    view: NDArray[np.int32]
    reason: NDArray[np.str_]
    score: NDArray[np.float32]
    decoy_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    extent_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """(n,) True for chosen examples."""
        return np.asarray(self.reason == "")


def label_images(
    images: Sequence[WorkingImage],
    size: ParticleSize,
    *,
    clustering: Clustering = "lloyd",
    is_round: bool | None = None,
) -> list[LabelledImage]:
    """Cluster every micrograph, choose good particles, and drop those unlike the others.

    Each micrograph is judged by its own averages, as the paper's algorithms 1 and 2 say. The checks that follow are
    ours and look at the whole run, so that dirt and noise, which have no common look, do not become a class: a profile
    like the others', no more contrast than the others, and more than bright objects have, which are there by chance.
    Those bright objects, as far as they lie apart from the chosen ones, are the decoys: noise that looks right.

    Parameters
    ----------
    is_round : whether circles are round particles rather than irregular ones; where not given, `ROUND_QUARTER` tells
    """
    measured = [_measured(image, size, clustering) for image in images]
    if is_round is None:
        quarter = _quarter(measured)
        is_round = quarter is not None and quarter < ROUND_QUARTER
    dark = _drop_outliers([_label(one, is_round=is_round) for one in measured])
    inverted = [_measured(WorkingImage(-image.pixels, image.scale), size, clustering) for image in images]
    bright = _drop_outliers([_label(one, is_round=is_round) for one in inverted])
    by_chance = np.concatenate([contrast_of(image.pixels, image.xy_px, size)[image.is_good] for image in bright])
    limit = float(np.percentile(by_chance, CHANCE_PERCENTILE)) if len(by_chance) else 0.0
    judged = [
        _with_reason(image, np.where(image.is_good & (own <= limit), CHANCE, image.reason))
        for image in dark
        for own in [contrast_of(image.pixels, image.xy_px, size)]
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
    """Views that too few examples show are left out: they are ill-drawn ones of the others.

    Such as a ring whose outline is nearly square.
    """
    views = np.concatenate([image.view[image.is_good] for image in images])
    for view, share in SMALLEST_VIEW.items():
        if np.count_nonzero(views == view) < share * len(views):
            images = [
                _with_reason(image, np.where(image.is_good & (image.view == view), RARE, image.reason))
                for image in images
            ]
    return images


def why_inconsistent(labelled: Sequence[LabelledImage]) -> str:
    """A sentence saying why these micrographs show no consistent kind of particle; "" where they do."""
    good = sum(int(image.is_good.sum()) for image in labelled)
    chance = sum(int((image.reason == CHANCE).sum()) for image in labelled)
    objects = sum(len(image.reason) for image in labelled)
    share = MINIMUM_SHARE if good >= ENOUGH_EXAMPLES else FEW_SHARE
    if good >= MINIMUM_EXAMPLES and good >= share * (good + chance):
        return ""
    return (
        f"saw no consistent particles in {len(labelled)} micrograph(s): of {objects} dark objects {good} look alike "
        f"and stand out from chance, expected at least {MINIMUM_EXAMPLES} and {share:.0%} of those that look right"
    )


def _with_reason(image: LabelledImage, reason: NDArray[np.str_]) -> LabelledImage:
    return replace(image, reason=reason.astype("<U32"))


@dataclass(frozen=True, eq=False)
class _Measured:
    """All objects of one micrograph with what they are judged by: masks' shapes, and who has found them."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    objects: Found
    shapes: list[NDArray[np.bool_]]
    area: NDArray[np.float64]
    roundness: NDArray[np.float64]
    is_alone: NDArray[np.bool_]


def _measured(image: WorkingImage, size: ParticleSize, clustering: Clustering) -> _Measured:
    radius = body_radius_px(size)
    mask = clean_mask(intensity_mask(image, clustering=clustering, clusters=1), size)
    darkest, nearness = super_pixel_mask(image, size, clusters=2 if size.is_hollow else 1)
    super_mask = clean_mask(darkest, size)
    # side views let the beam through where top views stand on edge, so they may be in the second darkest cluster only
    wider = clean_mask(intensity_mask(image, clustering=clustering, clusters=2), size)
    squares = joined(find_square(mask, size), find_square(wider, size))
    stages = [
        squares,
        _at_least(find_round(mask, size), ROUND_SUPPORT),
        find_irregular(super_mask, nearness, size, min_score=IRREGULAR_COVER),
    ]
    distinct = distinct_objects(stages)
    is_alone = ~(_has_near(distinct, *stages[:2]) & _has_near(distinct, stages[2]))
    shapes = [own_shape(super_mask | mask, xy, reach_px=1.3 * radius) for xy in distinct.xy_px]
    area = np.array([max(1, np.count_nonzero(shape)) for shape in shapes], np.float64)
    roundness = np.array([circularity(a, perimeter(s)) for a, s in zip(area, shapes, strict=True)], np.float64)
    return _Measured(image.pixels, mask, distinct, shapes, area, roundness, is_alone)


def quarter_of_circles(
    images: Sequence[WorkingImage], size: ParticleSize, *, clustering: Clustering = "lloyd"
) -> float | None:
    """What is compared with `ROUND_QUARTER`: the lower quartile of the circularity of all circles, 1 where these are
    perfect; None without any circle."""
    return _quarter([_measured(image, size, clustering) for image in images])


def _quarter(measured: Sequence[_Measured]) -> float | None:
    roundness = np.concatenate([one.roundness[one.objects.view == TOP] for one in measured])
    return float(np.percentile(roundness, 25)) if len(roundness) else None


def _label(one: _Measured, *, is_round: bool) -> LabelledImage:
    view, reason = _judge(one, is_round=is_round)
    reason[(reason == "") & one.is_alone & (view != SIDE)] = ALONE
    extent = _perfect_masks(one, view)
    side = np.flatnonzero((view == SIDE) & (reason == ""))
    overlaps = ~without_overlap(one.objects.xy_px[side], extent[side])
    reason[side[overlaps]] = OVERLAP
    return LabelledImage(one.pixels, one.mask, one.objects.xy_px, view, reason, one.objects.score, extent_px=extent)


def _perfect_masks(one: _Measured, view: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n, 3) the circle or rectangle that takes the place of each object's mask, see `LabelledImage`.

    Top views become the circle that was found, side views the rectangle of their Feret diameters; irregular ones keep
    their mask, and what is told is the rectangle around it.
    """
    extent = np.zeros((len(view), 3))
    extent[:, :2] = 2 * one.objects.radius_px[:, None]
    for index in np.flatnonzero(view != TOP).tolist():
        if one.shapes[index].any():
            rectangle = smallest_rectangle(one.shapes[index])
            extent[index] = rectangle.long_px, rectangle.short_px, rectangle.angle_deg
    return extent


def _at_least(found: Found, score: float) -> Found:
    kept = found.score >= score
    return Found(found.xy_px[kept], found.score[kept], found.radius_px[kept], found.view[kept])


def _has_near(objects: Found, *stages: Found) -> NDArray[np.bool_]:
    """(n,) True for objects that one of the stages has found too."""
    from scipy.spatial import cKDTree

    others = np.concatenate([stage.xy_px for stage in stages])
    if len(others) == 0 or len(objects.xy_px) == 0:
        return np.zeros(len(objects.xy_px), bool)
    distance, _ = cKDTree(others).query(objects.xy_px)
    return np.asarray(distance <= SAME_PARTICLE * NOMINAL_PARTICLE_PX)


def _judge(one: _Measured, *, is_round: bool) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Views and reasons by the averages of this micrograph: Algorithm 1 for round particles, 2 for irregular ones.

    Of round particles, those that are less round than the average are bad ones (Algorithm 1), not irregular ones. Where
    particles are not round, what the Hough transform found are irregular ones, and are judged by their area.
    """
    view = one.objects.view.copy()
    reason = np.full(len(view), "", dtype="<U32")
    if len(view) == 0:
        return view, reason
    for index in np.flatnonzero(view != SIDE).tolist():
        if one.area[index] > 1 and is_square_view(one.shapes[index]):
            view[index] = SIDE
    circles = view == TOP
    if is_round and circles.any():
        reason[circles & (one.roundness > one.roundness[circles].mean())] = NOT_ROUND
    elif not is_round:
        view[circles] = IRREGULAR
    share = one.area / one.area.mean()
    reason[(view == IRREGULAR) & ((share < AREA_LIMITS[0]) | (share > AREA_LIMITS[1]))] = AREA
    return view, reason


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
