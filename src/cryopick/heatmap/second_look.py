"""Particles that stand out are not junk: what is taken for junk is looked at again in noise.

Beyond a matched-filter signal-to-noise ratio of 30 training showed no particles, and the network takes sharp ones for
contamination. In white noise they look as it knows them; carbon and ice stay junk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.scale import THINNED, gaussian_blur
from cryopick.types import JUNK_PROBABILITY

LIKELY_SCORE = 0.35
"""Least calibrated probability of a candidate whose rejection is worth a second look, and least centre probability that
it keeps in noise. Only the latter was varied, at noise 2 up to SNR 30: 0.2 was no different."""
ADDED_NOISE = 1.0
"""Standard deviation of the noise, in that of the detail of the working image. 1 and 2 served alike on 150 simulated
crops of one seed (matched-filter SNR 4 to 300), where noise in the whole image, and weighing both probabilities, gave
lower recall."""
USUAL_KURTOSIS = 4.1
"""Of the detail that the network sees (noise: 3): exceeded by a quarter of 120 simulated crops as in training. What
stands out from noise raises it; below, nothing is looked at again."""
CLEARED_DIAMETERS = 0.25
"""Radius around a candidate in which its junk is taken back."""


def in_noise(working: NDArray[np.float32], *, particle_px: float) -> NDArray[np.float32]:
    """A working image with white noise as strong as its own detail, the same at every call."""
    detail = working - gaussian_blur(working, sigma_px=1.5 * particle_px)
    variance = gaussian_blur(detail * detail, sigma_px=3 * particle_px)[::THINNED, ::THINNED]
    sigma = np.float32(ADDED_NOISE * np.sqrt(max(float(np.median(variance)), 0.0)))
    return working + sigma * np.random.default_rng(0).standard_normal(working.shape, dtype=np.float32)


def stands_out(detail: NDArray[np.float32]) -> bool:
    """Whether the detail, the first of `network_planes`, holds more than most of training showed above the noise."""
    centred = detail - np.mean(detail, dtype=np.float64)
    squares = centred * centred
    variance = float(np.mean(squares))
    return variance > 0 and float(np.mean(squares * squares)) > USUAL_KURTOSIS * variance**2


def doubted(junk_at: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) True for likely candidates on what is taken for junk."""
    return np.asarray((junk_at > JUNK_PROBABILITY) & (score >= LIKELY_SCORE))


def without_doubted_junk(
    junk: NDArray[np.float32],
    index_yx: NDArray[np.intp],
    *,
    noisy_centre: NDArray[np.float32],
    noisy_junk: NDArray[np.float32],
    particle_px: float,
) -> NDArray[np.float32]:
    """Junk taken back around the doubted candidates that in noise are particles and not junk.

    Parameters
    ----------
    junk, noisy_centre, noisy_junk : (h, w) probabilities, the latter two as seen in noise
    index_yx : (n, 2) pixels of the doubted candidates
    particle_px : particle diameter in pixels of these maps

    Returns
    -------
    (h, w); nowhere higher than `junk`
    """
    import cv2

    near = cv2.dilate(noisy_centre, np.ones((3, 3), np.uint8))  # noise moves the peak by a pixel
    row, column = index_yx.T
    stands = (noisy_junk[row, column] <= JUNK_PROBABILITY) & (near[row, column] >= LIKELY_SCORE)
    if not stands.any():
        return junk
    cleared = np.zeros(junk.shape, np.uint8)
    for y, x in index_yx[stands]:
        cv2.circle(cleared, (int(x), int(y)), max(1, round(CLEARED_DIAMETERS * particle_px)), 1, -1)
    return np.where(cleared > 0, np.minimum(junk, noisy_junk), junk)
