"""Blobs at known centres, and how far from them they are found after an image has been worked on."""

from __future__ import annotations

import numpy as np


def lattice_of_centres(*, pitch_px=60.0, count=5, seed=1):
    """(n, 2) centres far enough apart not to disturb each other, at all places between pixels and between tiles."""
    x, y = np.meshgrid(np.arange(count), np.arange(count))
    jitter = np.random.default_rng(seed).uniform(-0.07 * pitch_px, 0.07 * pitch_px, (count * count, 2))
    return pitch_px * (np.stack([x.ravel(), y.ravel()], axis=1) + 0.75) + jitter


def draw_blobs(shape_yx, centres_xy, *, sigma_px):
    """(h, w) float32, a Gaussian of height 1 around each centre."""
    x, y = np.arange(shape_yx[1]), np.arange(shape_yx[0])
    pixels = np.zeros(shape_yx)
    for centre_x, centre_y in centres_xy:
        pixels += np.outer(
            np.exp(-((y - centre_y) ** 2) / (2 * sigma_px**2)), np.exp(-((x - centre_x) ** 2) / (2 * sigma_px**2))
        )
    return pixels.astype(np.float32)


def mean_shift(bright, centres_xy, *, radius_px):
    """(x, y): from the given centres to where the centre of mass inside a circle that follows it rests, on average."""
    shifts = []
    for start in centres_xy:
        centre = np.asarray(start, float)
        for _ in range(40):
            low = np.maximum(np.floor(centre - radius_px).astype(int), 0)
            window = bright[low[1] : low[1] + 2 * radius_px + 3, low[0] : low[0] + 2 * radius_px + 3]
            y, x = np.mgrid[: window.shape[0], : window.shape[1]] + low[::-1, None, None]
            weight = np.where(np.hypot(x - centre[0], y - centre[1]) <= radius_px, window, 0)
            centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        shifts.append(centre - start)
    return np.mean(shifts, axis=0)
