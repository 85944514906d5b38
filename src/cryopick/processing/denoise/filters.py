"""Filters that several of the published chains share, faults included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.scale import fill_non_finite

WIENER_KERNEL_PX = 9
WIENER_SIGMA_PX = 3.0
WIENER_REGULARISER = 30.0
CLAHE_CLIP_LIMIT = 2.0
CLAHE_TILES = 16
GUIDED_WINDOW_PX = 20
"""Called a radius in the programs, but used as the full width of an even, hence uncentred, box."""
GUIDED_EPSILON = 0.1


def to_float32(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Any real pixels as finite float32; float16 and integers are widened before any arithmetic can overflow."""
    return fill_non_finite(np.asarray(pixels, np.float32))


def min_max(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Stretch to [0, 1] by the smallest and the largest pixel; all 0 for a constant image."""
    low, high = image.min(), image.max()
    if not high > low:
        return np.zeros_like(image)
    return np.asarray((image - low) / (high - low))


def to_8bit(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Stretch to 0..255 by the extreme pixels, truncate; 0 for a constant image, where the programs divide by 0."""
    return np.asarray(255 * min_max(image), np.uint8)


def corner_wiener(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """The programs' "Wiener" filter: a blur by a 9 x 9 Gaussian that also divides by 31 and moves everything.

    The kernel sits in the corner of the padded array instead of around its first pixel, so its conjugate moves the
    content by (-4, -4) px, around the borders; the regulariser is 30 times what it is added to, so this deconvolves
    nothing.

    Parameters
    ----------
    image : (h, w) real, finite

    Returns
    -------
    filtered : (h, w) float64, not negative; a constant image comes out divided by 31
    """
    import cv2
    from scipy.fft import irfft2, rfft2

    height, width = image.shape
    row = cv2.getGaussianKernel(WIENER_KERNEL_PX, WIENER_SIGMA_PX)
    # an image smaller than the kernel sees only the part of it that fits, as zero-padded transforms crop it
    transfer = rfft2((row @ row.T)[:height, :width], (height, width))
    gain = np.conj(transfer) / (np.abs(transfer) ** 2 + WIENER_REGULARISER)
    return np.asarray(np.abs(irfft2(rfft2(image.astype(np.float64)) * gain, (height, width))))


def equalize_8bit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Contrast-limited adaptive histogram equalisation by OpenCV, clip limit 2, 16 x 16 tiles."""
    import cv2

    return np.asarray(cv2.createCLAHE(CLAHE_CLIP_LIMIT, (CLAHE_TILES, CLAHE_TILES)).apply(image))


def guided_filter(
    image: NDArray[np.floating],
    guide: NDArray[np.floating],
    *,
    window_px: int,
    epsilon: float,
    repeats_border: bool = False,
) -> NDArray[np.floating]:
    """Smooth an image except where its guide has an edge.

    Parameters
    ----------
    image, guide : (h, w) float32 or float64, the same of both
    window_px : width of the square window; even ones are centred half a pixel before the middle, in each of two passes
    epsilon : guide variance below which a window counts as flat
    repeats_border : continue the images by their border pixels instead of by reflection

    References
    ----------
    K. He, J. Sun, X. Tang, Guided image filtering, IEEE TPAMI 35(6), 2013, eq. 5, 6 and 8.
    """
    import cv2

    border = cv2.BORDER_REPLICATE if repeats_border else cv2.BORDER_REFLECT_101
    # OpenCV cannot reflect an image of one row or column about that row
    border = border if min(image.shape) > 1 else cv2.BORDER_REPLICATE

    def mean(values: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.asarray(cv2.blur(values, (window_px, window_px), borderType=border))

    mean_image, mean_guide = mean(image), mean(guide)
    covariance = mean(image * guide) - mean_image * mean_guide
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    offset = mean_image - slope * mean_guide
    return np.asarray(mean(slope) * guide + mean(offset))
