"""Bring a micrograph to local zero mean and unit variance without letting ice, carbon or hot pixels set the scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.scale import gaussian_blur

OUTLIER_SIGMA = 8.0
"""Pixels are clipped here, in robust standard deviations of the whole image, before any local average sees them."""
DETAIL_SIGMA = 4.0
"""Normalised pixels are clipped here: a particle differs from its surroundings by less, contamination by more."""
SCALE_DIAMETERS = 1.2
"""Sigma of the Gaussian over which mean and variance are local, in particle diameters."""
VARIANCE_FLOOR = 0.2
"""Local variance is floored at this part of its median: a flat patch (masked corner, replicated border) stays flat."""


def robust_spread(values: NDArray[np.floating]) -> tuple[float, float]:
    """Median, and standard deviation from the median absolute deviation; from all values where that one is 0."""
    middle = float(np.median(values))
    deviation = np.abs(values - middle)
    spread = 1.4826 * float(np.median(deviation))  # 1.4826: MAD to standard deviation of a normal distribution
    return middle, spread if spread > 0 else float(np.std(values, dtype=np.float64))


def normalize_locally(pixels: NDArray[np.float32], *, diameter_px: float) -> NDArray[np.float32]:
    """Subtract the local mean, divide by the local standard deviation, clip what is left of outliers.

    Parameters
    ----------
    pixels : (h, w) float32, finite
    diameter_px : of a particle; averages are taken over a few of them

    Returns
    -------
    normalized : (h, w) float32 within ±`DETAIL_SIGMA`; all 0 for a constant image
    """
    middle, spread = robust_spread(pixels)
    if not spread > 1e-6 * max(abs(middle), 1e-30):  # a constant image, up to the rounding of float32
        return np.zeros_like(pixels)
    x = np.clip((pixels - np.float32(middle)) / np.float32(spread), -OUTLIER_SIGMA, OUTLIER_SIGMA)
    sigma_px = SCALE_DIAMETERS * diameter_px
    x = x - gaussian_blur(x, sigma_px=sigma_px)
    # the variance of a place is that of its noise, so what stands out by more than three sigma is counted as three
    _, detail_spread = robust_spread(x)
    variance = gaussian_blur(np.minimum(x * x, np.float32(9 * detail_spread**2)), sigma_px=sigma_px)
    floor = VARIANCE_FLOOR * typical_variance(variance)
    return np.asarray(np.clip(x / np.sqrt(np.maximum(variance, floor)), -DETAIL_SIGMA, DETAIL_SIGMA), np.float32)


def typical_variance(variance: NDArray[np.floating]) -> float:
    """Median of the local variances, leaving out places without any; positive unless there is no other place."""
    is_flat = variance <= 1e-6 * float(variance.max(initial=0.0))
    varied = variance[~is_flat]
    return float(np.median(varied)) if varied.size else 1.0
