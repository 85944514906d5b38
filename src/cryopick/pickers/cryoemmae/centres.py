"""From the particle's cells to particle centres: the published rules, and peaks of particle-sized evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.peaks import find_peaks

FRAME_PX = 512
"""Side of the map that the published rules work on."""
AREA_SHARE = 0.04
"""Published: the highest threshold that leaves more than this share of the map as particles."""
LARGEST_RADIUS = 1.5
"""The article drops what is wider than a particle by "a threshold" that it does not give: this, in particle radii. Not
tuned; two touching particles as one component are 1.41 radii."""

DISC_RADII = (0.25, 0.35, 0.5)
"""Radii, in diameters, of the discs that a centre's evidence is looked for in: a particle's dark body may be half as
wide as the particle, or a ring as wide as all of it."""
RING_FACTOR = 1.5
"""The ring around a disc, in which there should be little evidence, ends at so many of its radii."""
PEAK_RADII = 0.5
"""Only the highest place within this many disc radii is a candidate; touching particles stay apart."""
CANDIDATE_FLOOR = 0.02


# ------------------------------------------------------------------------------------------------------- published


def smooth_mask(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mask of cells to a map of 512 x 512 in [0, 1]: 3 x 3 mean, stretched to its maximum, bilinear, 256 levels."""
    from PIL import Image
    from scipy.ndimage import convolve

    total = convolve(mask.astype(np.float32), np.ones((3, 3), np.float32), mode="constant")
    if total.max() > 0:
        total = total / total.max()
    picture = Image.fromarray((255 * total).astype(np.float32))
    grown = np.asarray(picture.resize((FRAME_PX, FRAME_PX), Image.Resampling.BILINEAR))
    return np.asarray(np.clip(grown, 0, 255).astype(np.uint8) / 255, np.float64)


def area_threshold(smooth: NDArray[np.float64], *, share: float = AREA_SHARE) -> float | None:
    """The first of 1.00, 0.97 … 0.00 that leaves more than `share` of the map above it; None where none does."""
    for threshold in np.linspace(1, 0, 30).round(2):
        if np.count_nonzero(smooth > threshold) > share * smooth.size:
            return float(threshold)
    return None


def find_components(smooth: NDArray[np.float64], *, threshold: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres (n, 2) x, y, weighted by the map, and areas (n,) of the 4-connected places above the threshold."""
    from scipy.ndimage import label

    labels, count = label(smooth > threshold)
    if count == 0:
        return np.zeros((0, 2)), np.zeros(0, np.int64)
    flat = labels.ravel()
    mass = np.bincount(flat, weights=smooth.ravel(), minlength=count + 1)[1:]
    y, x = np.indices(labels.shape)
    moments = [np.bincount(flat, weights=(smooth * axis).ravel(), minlength=count + 1)[1:] / mass for axis in (x, y)]
    return np.stack(moments, axis=1), np.bincount(flat, minlength=count + 1)[1:]


def drop_neighbours(xy: NDArray[np.float64], weight: NDArray[np.int64], *, radius: float) -> NDArray[np.bool_]:
    """(n,) True for components to keep: of those closer than `radius`, only one heavier than all its neighbours.

    Decided for all at once: of two equally heavy ones both go.
    """
    from scipy.spatial import cKDTree

    keep = np.ones(len(xy), bool)
    if len(xy) == 0:
        return keep
    for index, near in enumerate(cKDTree(xy).query_ball_point(xy, radius)):
        others = [i for i in near if i != index and np.hypot(*(xy[i] - xy[index])) < radius]
        if others:
            if (weight[index] > weight[others]).all():
                keep[others] = False
            else:
                keep[index] = False
    return keep


def is_off_border(xy: NDArray[np.float64], *, diameter: float, side: float = FRAME_PX) -> NDArray[np.bool_]:
    """(n,) True where a circle of two thirds of the diameter around the centre stays on the map."""
    reach = diameter / 1.5
    return np.asarray(((xy - reach >= 0) & (xy + reach <= side)).all(axis=1))


def published_centres(
    mask: NDArray[np.bool_], *, diameter_512: float, area_share: float = AREA_SHARE, drops_wide: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres (n, 2) x, y by the published rules, without their rounding to whole pixels, and sizes (n,), on 512 x 512.

    Parameters
    ----------
    mask : (256, 256) cells of the particle's cluster
    diameter_512 : particle diameter, pixels of the map of 512 x 512
    drops_wide : also drop components wider than `LARGEST_RADIUS`, as the article says and the program does not
    """
    smooth = smooth_mask(mask)
    threshold = area_threshold(smooth, share=area_share)
    if threshold is None:
        return np.zeros((0, 2)), np.zeros(0, np.int64)
    xy, weight = find_components(smooth, threshold=threshold)
    keep = drop_neighbours(xy, weight, radius=diameter_512 / 2) & is_off_border(xy, diameter=diameter_512)
    if drops_wide:
        keep &= np.sqrt(weight / np.pi) <= LARGEST_RADIUS * diameter_512 / 2
    return xy[keep], weight[keep]


# ------------------------------------------------------------------------------------------------------- corrected


def disc_responses(evidence: NDArray[np.float32], *, diameter: float) -> NDArray[np.float32]:
    """(r, h, w) mean evidence in a disc around each cell, less that in the ring around the disc, for each disc radius.

    Parameters
    ----------
    evidence : (h, w) in [0, 1]
    diameter : of a particle, cells
    """
    return np.stack([_disc_response(evidence, radius=share * diameter) for share in DISC_RADII])


def _disc_response(evidence: NDArray[np.float32], *, radius: float) -> NDArray[np.float32]:
    import cv2

    inner = disc_kernel(radius)
    outer = disc_kernel(RING_FACTOR * radius)
    pad = (outer.shape[0] - inner.shape[0]) // 2
    ring = outer - np.pad(inner, pad)
    kernel = np.pad(inner / inner.sum(), pad) - ring / ring.sum()
    return np.asarray(cv2.filter2D(evidence, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def disc_kernel(radius: float) -> NDArray[np.float32]:
    """(2n + 1, 2n + 1) a disc around the middle cell, its edge cells in part."""
    reach = int(np.ceil(radius)) + 1
    offset = np.arange(-reach, reach + 1)
    return np.clip(radius + 0.5 - np.hypot(offset[:, None], offset), 0, 1).astype(np.float32)


def find_centres(responses: NDArray[np.float32], *, diameter: float) -> NDArray[np.float64]:
    """(n, 2) candidates x, y in cells, sub-cell: the maxima of all responses, one particle's up to one of each."""
    found = [
        find_peaks(response, min_score=CANDIDATE_FLOOR, radius_px=max(1.5, PEAK_RADII * share * diameter))[0]
        for share, response in zip(DISC_RADII, responses, strict=True)
    ]
    return np.concatenate(found)
