"""Clustering by intensity: fixed thresholds, k-means in one dimension, and both on super-pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def intensity_classes(image: NDArray[np.floating], *, k: int = 4) -> NDArray[np.uint8]:
    """Class 0 (darkest) to k - 1 of each pixel: the nearest of R/k, 2R/k .. R, with R the range of the image.

    The published program counts the centres from 0 instead of from the smallest value; for images in [0, 1], as its
    pre-processing makes them, both agree: four classes end at 0.375, 0.625 and 0.875. A tie goes to the darker class.

    Returns
    -------
    classes : (h, w) uint8; all 0 for a constant image
    """
    low, high = float(image.min()), float(image.max())
    if not high > low:
        return np.zeros(image.shape, np.uint8)
    borders = low + (np.arange(1, k) + 0.5) * (high - low) / k
    return np.searchsorted(borders, image, side="left").astype(np.uint8)


def k_means_borders(
    values: NDArray[np.floating], *, k: int, weights: NDArray[np.floating] | None = None, max_iterations: int = 100
) -> NDArray[np.float64]:
    """Borders between k intensity classes by Lloyd's algorithm, from centres evenly spaced over the range.

    Values are first counted in 1024 bins, so that each iteration costs the same for any number of pixels.

    Parameters
    ----------
    values : any shape, finite
    weights : same shape; 1 each where not given

    Returns
    -------
    borders : (k - 1,) ascending; a class that loses all its values keeps its centre

    References
    ----------
    S. P. Lloyd, IEEE Trans. Inf. Theory 28 (1982) 129-137; AutoCryoPicker's clustering as its paper describes it.
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.full(k - 1, high)
    count, edges = np.histogram(values, bins=1024, range=(low, high), weights=weights)
    middle = 0.5 * (edges[1:] + edges[:-1])
    centres = low + (np.arange(k) + 0.5) * (high - low) / k
    for _ in range(max_iterations):
        nearest = np.searchsorted(0.5 * (centres[1:] + centres[:-1]), middle)
        mass = np.bincount(nearest, weights=count, minlength=k)
        total = np.bincount(nearest, weights=count * middle, minlength=k)
        moved = np.where(mass > 0, total / np.maximum(mass, 1e-12), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.asarray(0.5 * (centres[1:] + centres[:-1]), np.float64)


def super_pixel_means(image: NDArray[np.float32], *, side_px: float, compactness: float = 0.1) -> NDArray[np.float32]:
    """The image with every super-pixel replaced by its mean, averaged over the four flips of the image.

    Super-pixels grow from a grid of seeds, so those of one pass move with the seeds; the average belongs to the image.

    Parameters
    ----------
    image : (h, w), about unit range
    side_px : of a super-pixel, about
    compactness : weight of nearness against likeness

    References
    ----------
    R. Achanta et al., IEEE TPAMI 34 (2012) 2274-2282 (SLIC).
    """
    total = np.zeros(image.shape, np.float32)
    for rows in (1, -1):
        for columns in (1, -1):
            flipped = np.ascontiguousarray(image[::rows, ::columns])
            total += _one_pass(flipped, side_px, compactness)[::rows, ::columns]
    return np.asarray(total / 4, np.float32)


def _one_pass(image: NDArray[np.float32], side_px: float, compactness: float) -> NDArray[np.float32]:
    from skimage.segmentation import slic

    count = max(1, round(image.size / side_px**2))
    labels = slic(
        image, n_segments=count, compactness=compactness, max_num_iter=10, channel_axis=None, start_label=0,
        enforce_connectivity=False,
    )  # fmt: skip
    number = np.bincount(labels.ravel())
    total = np.bincount(labels.ravel(), weights=image.ravel())
    return np.asarray((total / np.maximum(number, 1))[labels], np.float32)
