"""Scale normalisation: a micrograph resampled so that the particle has a nominal size, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.median import median

NOMINAL_PARTICLE_PX = 20.0
"""Diameter that particles are resampled to before the network sees them."""


PLANES = ("detail", "background", "background from the brightest")
"""What `network_planes` gives, in this order."""
BRIGHT_SHARE = 0.2
"""Share of a micrograph's area that is at least taken to be ice: brighter than carbon, and not torn."""

THINNED = 4
"""Medians and quantiles of smooth fields are taken of every fourth row and column."""


@dataclass(frozen=True)
class ScaleMap:
    """Where pixels of a resampled image lie in the image as stored.

    Parameters
    ----------
    factor_yx : working pixels per stored pixel, rows and columns (they differ by rounding to whole pixels)
    """

    factor_yx: tuple[float, float]

    def to_stored_xy(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) centres in working pixels to stored pixels; both have `(0, 0)` at the first pixel's centre."""
        factor_xy = np.array([self.factor_yx[1], self.factor_yx[0]])
        return np.asarray((np.asarray(xy_px, np.float64) + 0.5) / factor_xy - 0.5)

    def to_working_xy(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `to_stored_xy`."""
        factor_xy = np.array([self.factor_yx[1], self.factor_yx[0]])
        return np.asarray((np.asarray(xy_px, np.float64) + 0.5) * factor_xy - 0.5)

    @property
    def factor(self) -> float:
        """Geometric mean of the two factors, for lengths."""
        return float(np.sqrt(self.factor_yx[0] * self.factor_yx[1]))


def resample(pixels: NDArray[np.float32], *, factor: float) -> tuple[NDArray[np.float32], ScaleMap]:
    """Resample by `factor` (area mean when shrinking, cubic when growing); non-finite pixels become the median.

    Parameters
    ----------
    pixels : (h, w) float32
    factor : working pixels per stored pixel, > 0

    Returns
    -------
    working : (round(h * factor), round(w * factor)) float32, at least 1 x 1
    scale : maps coordinates between both images
    """
    import cv2

    height, width = pixels.shape
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == (width, height):
        return fill_non_finite(pixels), ScaleMap((1.0, 1.0))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    working = np.asarray(cv2.resize(pixels, size, interpolation=method), np.float32)
    if not _is_finite(working):  # every pixel has its share, so one that is no number shows, in an image soon read
        working = np.asarray(cv2.resize(fill_non_finite(pixels), size, interpolation=method), np.float32)
    return working, ScaleMap((size[1] / height, size[0] / width))


def fill_non_finite(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """NaN and inf replaced by the median of the finite pixels (0 where none is finite); unchanged when all are."""
    if _is_finite(pixels):
        return pixels
    is_finite = np.isfinite(pixels)
    fill = median(pixels[is_finite]) if is_finite.any() else 0.0
    return np.where(is_finite, pixels, np.float32(fill))


def _is_finite(pixels: NDArray[np.float32]) -> bool:
    """Whether no pixel is NaN or inf."""
    # one pass decides: a sum is finite unless a pixel is not, or the sum itself overflows
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.sum(pixels)
    return bool(np.isfinite(total) or np.isfinite(pixels).all())


def network_planes(working: NDArray[np.float32], *, particle_px: float, count: int = 2) -> NDArray[np.float32]:
    """Views of a scale-normalised micrograph for a network: local detail and large-scale background, twice.

    Parameters
    ----------
    working : (h, w) float32, finite, particles about `particle_px` wide
    particle_px : nominal particle diameter
    count : 2, or 3 for the background counted from the brightest, too

    Returns
    -------
    planes : (count, h, w) float32. Plane 0: background removed (Gaussian of 1.5 diameters), divided by the local
        standard deviation (Gaussian of 3 diameters), clipped to ±6. Plane 1: the background in units of the detail's
        robust standard deviation, through asinh, so that carbon and thick ice show and nothing saturates; counted from
        its median, which may itself lie on carbon. Plane 2: the same, counted from where its brightest fifth begins, so
        that carbon is dark however far away its border is and however much of the micrograph it covers.
    """
    working = working - np.float32(np.mean(working, dtype=np.float64))
    background = gaussian_blur(working, sigma_px=1.5 * particle_px)
    detail = working - background
    variance = gaussian_blur(detail * detail, sigma_px=3 * particle_px)
    thin = np.s_[::THINNED, ::THINNED]  # both are far smoother than that
    typical = float(np.median(variance[thin]))
    planes = np.zeros((count, *working.shape), np.float32)
    rounding = 1e-5 * float(max(working.max(), -working.min()))
    if not typical > rounding**2:  # flat: what is left is rounding
        return planes
    # where an image is flat (replicated borders, masked corners) noise must not be blown up: the variance is floored
    np.sqrt(variance + np.float32(0.05 * typical), out=variance)
    np.divide(detail, variance, out=planes[0])
    np.clip(planes[0], -6, 6, out=planes[0])
    background /= np.float32(np.sqrt(typical))
    np.arcsinh(background - np.median(background[thin]), out=planes[1])
    if count > 2:
        np.arcsinh(background - np.float32(np.quantile(background[thin], 1 - BRIGHT_SHARE)), out=planes[2])
    return planes


def gaussian_blur(image: NDArray[np.float32], *, sigma_px: float) -> NDArray[np.float32]:
    """Gaussian blur with reflected borders; wide ones run on a shrunken copy, to within a few per mille."""
    import cv2

    shrink = int(sigma_px // 4)
    height, width = image.shape
    if shrink < 2 or min(height, width) < 4 * shrink:
        blurred = cv2.GaussianBlur(image, (0, 0), max(sigma_px, 1e-3), borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32)
    small_size = -(-width // shrink), -(-height // shrink)
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    sigma = sigma_px * small_size[0] / width
    small = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
