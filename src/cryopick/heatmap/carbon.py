"""Carbon seen as a whole: a dark region whose rim is junk is junk as far as it reaches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = (-1.0, -1.5, -2.0, -2.5)
"""Backgrounds below which an area is a dark region, in units of the third of `network_planes`."""
RIM_DIAMETERS = 1.0
"""Width of a region's rim; networks know carbon by its edge."""
LEAST_RIM = 0.5
"""Mean probability of junk on the rim from which on the whole region is taken for it."""
LEAST_DIAMETERS = 2.0
"""Side of a square as large as the smallest region that counts."""


def with_whole_carbon(
    junk: NDArray[np.float32], shade: NDArray[np.float32], *, particle_px: float
) -> NDArray[np.float32]:
    """A map of junk that covers dark regions as a whole where their rims are junk.

    A network that looks at some ten diameters at once finds the edge of a carbon film; further inside, the film looks
    like ice. It is darker as far as it reaches, and nothing but film, gold or heaps is dark and has an edge of junk:
    gradients of the ice have none.

    Parameters
    ----------
    junk : (h, w) probability
    shade : (h, w) background counted from the brightest, the third of `network_planes`
    particle_px : particle diameter in pixels of these maps

    Returns
    -------
    (h, w); nowhere lower than `junk`
    """
    import cv2

    whole = junk.copy()
    if not (junk > LEAST_RIM).any():
        return whole
    for level in LEVELS:
        is_dark = (shade < level).astype(np.uint8)
        _, region, statistics, _ = cv2.connectedComponentsWithStats(is_dark)
        to_border = cv2.distanceTransform(is_dark, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # that of the image is none
        is_large = statistics[:, cv2.CC_STAT_AREA] >= (LEAST_DIAMETERS * particle_px) ** 2
        for number in np.flatnonzero(is_large[1:]) + 1:  # 0 is what is not dark
            is_inside = region == number
            rim = is_inside & (to_border <= RIM_DIAMETERS * particle_px)
            if not rim.any():
                continue
            probability = np.float32(junk[rim].mean())
            if probability >= LEAST_RIM:
                whole[is_inside] = np.maximum(whole[is_inside], probability)
    return whole
