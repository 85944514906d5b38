"""Centres made precise on the image itself: particles are aligned to their own rotational average."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPREAD = 0.05
"""Standard deviation, in diameters and along each axis, of the centres that are to be improved."""
REACH = 0.2
"""No centre is moved further, in diameters."""
OUTER = 0.75
"""The average ends at this radius, in diameters; it falls to nothing over its last fifth."""
NOISE_OUTER = 0.6
"""Noise is measured within this radius, in diameters."""
ROUNDS = 2
FEWEST = 5.0
"""Where all weights together are less, an average would mostly show the noise of its particles: nothing is moved."""
MOST_PATCHES = 300
_AT_ONCE = 8192


def recentred(
    image: NDArray[np.float32], xy_px: NDArray[np.float64], weight: NDArray[np.floating], *, diameter_px: float
) -> NDArray[np.float64]:
    """(n, 2) centres nearer to the middle of what lies around them.

    Particles are averaged over all of them and over all angles. The new centre is the mean of the posterior: a Gaussian
    around the given centre times the likelihood of the average being there, by a matched filter. What the filter takes
    for noise is all that differs from the average around particles, so neighbours and particles that are not round
    count as noise too, and the less alike particles are the less they are moved.

    Parameters
    ----------
    image : (h, w), background removed
    xy_px : (n, 2) centres, pixels
    weight : (n,) share of each in the average, 0 to 1; with 0 it is only moved
    diameter_px : of particles; about 20 are enough

    References
    ----------
    P. Penczek, M. Radermacher, J. Frank, Ultramicroscopy 40, 1992, 33: centring on a rotationally averaged reference.
    """
    from scipy import fft

    order = np.argsort(-np.asarray(weight, np.float64), kind="stable")
    order = order[weight[order] > 0]
    if float(weight.sum()) < FEWEST:
        return np.array(xy_px, np.float64)
    padding = int(np.ceil(OUTER * diameter_px))
    height, width = (fft.next_fast_len(side + 2 * padding, real=True) for side in image.shape)
    padded = np.zeros((height, width), np.float32)
    padded[padding : padding + image.shape[0], padding : padding + image.shape[1]] = image
    start = np.asarray(xy_px, np.float64) + padding
    spectrum = fft.rfft2(padded)
    averaged, share = start[order], np.asarray(weight, np.float64)[order]
    for rounds_left in reversed(range(ROUNDS)):
        average, noise = _average_and_noise(padded, averaged, share, diameter_px=diameter_px)
        likelihood = _matched_filter(spectrum, average, noise, shape_yx=(height, width))
        averaged = _posterior_mean(likelihood, start[order] if rounds_left else start, diameter_px=diameter_px)
    return averaged - padding


def _average_and_noise(
    image: NDArray[np.float32], xy_px: NDArray[np.float64], share: NDArray[np.float64], *, diameter_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2 r + 1, 2 r + 1) rotational average, and the power of what is left, by rings of a Fourier pixel."""
    import cv2
    from scipy import fft

    radius = int(np.ceil(OUTER * diameter_px))
    side = 2 * radius + 1
    distance = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1])
    mean = np.zeros((side, side))
    patches: list[NDArray[np.float32]] = []
    for (x, y), one in zip(xy_px.tolist(), share.tolist(), strict=True):
        patch = np.asarray(cv2.getRectSubPix(image, (side, side), (x, y)), np.float32)
        mean += one * patch
        if len(patches) < MOST_PATCHES:
            patches.append(patch)
    profile = _ring_means(mean / share.sum(), distance)
    profile -= np.interp(OUTER * diameter_px, np.arange(len(profile)), profile)
    average = np.interp(distance, np.arange(len(profile)), profile) * _fade(distance / diameter_px, OUTER)
    window = _fade(distance / diameter_px, NOISE_OUTER)
    power = np.abs(fft.rfft2((np.stack(patches) - average) * window)) ** 2
    mean_power = power.mean(axis=0) / (window**2).sum()
    return average, _ring_means(mean_power, _frequency((side, side)) * side)


def _fade(radius: NDArray[np.float64], outer: float) -> NDArray[np.float64]:
    """1 inside, 0 from `outer` on."""
    return np.clip((outer - radius) / (0.2 * outer), 0, 1)


def _frequency(shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Cycles per pixel on the grid of `rfft2`."""
    from scipy import fft

    return np.asarray(np.hypot(fft.fftfreq(shape_yx[0])[:, None], fft.rfftfreq(shape_yx[1])[None, :]))


def _ring_means(values: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean at distances 0, 1, 2, …, each value shared between its two nearest."""
    low = distance.astype(np.intp).ravel()
    part = distance.ravel() - low
    size = int(low.max()) + 2
    total = np.bincount(low, (1 - part) * values.ravel(), size) + np.bincount(low + 1, part * values.ravel(), size)
    count = np.bincount(low, 1 - part, size) + np.bincount(low + 1, part, size)
    return np.asarray(total / np.maximum(count, 1e-9))


def _matched_filter(
    spectrum: NDArray[np.complexfloating],
    average: NDArray[np.float64],
    noise: NDArray[np.float64],
    *,
    shape_yx: tuple[int, int],
) -> NDArray[np.float32]:
    """(h, w) logarithm of the likelihood, up to a constant, that the average lies at each pixel."""
    from scipy import fft

    radius = average.shape[0] // 2
    template = np.zeros(shape_yx)
    template[: 2 * radius + 1, : 2 * radius + 1] = average
    template = np.roll(template, (-radius, -radius), (0, 1))
    power = np.interp(_frequency(shape_yx) * average.shape[0], np.arange(len(noise)), noise)
    floor = max(1e-6 * float(noise.max()), 1e-30)
    return np.asarray(
        fft.irfft2(spectrum * fft.rfft2(template).conj() / np.maximum(power, floor), shape_yx), np.float32
    )


def _posterior_mean(
    likelihood: NDArray[np.float32], xy_px: NDArray[np.float64], *, diameter_px: float
) -> NDArray[np.float64]:
    """(n, 2) mean place under the likelihood and the Gaussian around each of `xy_px`."""
    import cv2

    side = int(np.ceil(2 * REACH * diameter_px))
    offset_y, offset_x = (one.ravel() / 2.0 for one in np.mgrid[-side : side + 1, -side : side + 1])
    squared = (offset_x**2 + offset_y**2) / diameter_px**2
    is_near = squared <= REACH**2
    offset_xy, log_prior = np.stack([offset_x, offset_y], axis=1)[is_near], -squared[is_near] / (2 * SPREAD**2)
    moved = []
    for first in range(0, len(xy_px), _AT_ONCE):  # OpenCV's sides end at 32767
        x, y = (xy_px[first : first + _AT_ONCE, None, :] + offset_xy).astype(np.float32).transpose(2, 0, 1)
        at = cv2.remap(likelihood, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        log_posterior = at + log_prior
        posterior = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        moved.append(xy_px[first : first + _AT_ONCE] + posterior @ offset_xy / posterior.sum(axis=1, keepdims=True))
    return np.concatenate(moved)
