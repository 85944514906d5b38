"""What an object is judged by: how its grey values fall off around its centre, and what is there by chance.

In the inverted micrograph there are no particles, so what the same procedure finds there is what it finds by chance:
the micrograph's own negatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.objects import Found
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.processing.scale import NOMINAL_PARTICLE_PX

PROFILE_REACH = 0.75
PROFILE_RINGS = 12

# Chosen with benchmarks/sparse_barrels.py, seeds 20 to 29; judged on other seeds by benchmarks/deepcryopicker.py.
FALSE_SHARE = 0.1
"""Negatives of at least an object's contrast, over all objects of at least that contrast, at most."""
TOUCHING_DIAMETERS = 1.0
"""A bright object whose centre is closer to that of a particle is its fringe, or the gap to the next one."""


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


def contrast_of(pixels: NDArray[np.float32], xy_px: NDArray[np.float64], size: ParticleSize) -> NDArray[np.float64]:
    """(n,) how much darker the body of each object is than its surroundings, in standard deviations of the image."""
    profiles = radial_profiles(pixels, xy_px)
    radius = (np.arange(PROFILE_RINGS) + 0.5) * PROFILE_REACH / PROFILE_RINGS * 2  # in particle radii
    is_body = (radius > 0.6) & (radius < 1.0) if size.is_hollow else radius < max(size.body, radius[1])
    return np.asarray(profiles[:, radius > 1.0].mean(axis=1) - profiles[:, is_body].mean(axis=1))


def standing_out(
    found: Found,
    negatives: Found,
    pixels: NDArray[np.float32],
    size: ParticleSize,
    *,
    threshold: float,
    false_share: float = FALSE_SHARE,
) -> Found:
    """The objects whose contrast is more than what is there by chance.

    Sorted by contrast, objects count down to where the negatives of that contrast are `false_share` of them. Negatives
    that touch a particle are its fringes and gaps, no chance: they are left out, the limit is found again, and so on
    until nothing changes. So in crowded micrographs, where all bright things lie between particles, nothing is refused.

    Parameters
    ----------
    found, negatives : objects in `pixels` and in `-pixels`
    pixels : (h, w) of the working image
    threshold : score of the objects and negatives that are counted; of those below, the same contrast is asked
    """
    from scipy.spatial import cKDTree

    contrast = contrast_of(pixels, found.xy_px, size)
    is_counted = found.score >= threshold
    by_chance = contrast_of(-pixels, negatives.xy_px, size)
    is_negative = negatives.score >= threshold
    chosen = np.zeros(len(contrast), bool)
    while True:
        limit = _limit(contrast[is_counted], by_chance[is_negative], false_share)
        chosen_now = is_counted & (contrast >= limit)
        if np.array_equal(chosen_now, chosen):
            kept = contrast >= limit
            return Found(found.xy_px[kept], found.score[kept], found.radius_px[kept], found.view[kept])
        # grows from round to round, as the negatives become fewer, so it comes to an end
        chosen = chosen_now
        if len(by_chance) and chosen.any():
            distance, _ = cKDTree(found.xy_px[chosen]).query(negatives.xy_px)
            is_negative &= distance >= TOUCHING_DIAMETERS * NOMINAL_PARTICLE_PX


def _limit(contrast: NDArray[np.float64], by_chance: NDArray[np.float64], false_share: float) -> float:
    """Smallest contrast of an object down to which no more than this share is there by chance; infinite without any."""
    own, other = np.sort(contrast), np.sort(by_chance)
    so_strong = np.arange(len(own), 0, -1)
    chance = len(other) - np.searchsorted(other, own, side="left")
    enough = np.flatnonzero(chance <= false_share * so_strong)
    return float(own[enough[0]]) if len(enough) else np.inf
