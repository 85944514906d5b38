"""The pre-processing of AutoCryoPicker, which DeepCryoPicker and SuperCryoPicker reuse, from its MATLAB operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.processing.denoise.filters import guided_filter, min_max, to_float32
from cryopick.processing.denoise.histogram import equalize, equalize_adaptively, stretch_quantiles
from cryopick.processing.scale import ScaleMap

RAYLEIGH_ALPHA = 0.4
GUIDED_WINDOW_PX = 5
GUIDED_EPSILON = 0.01


@dataclass(frozen=True, kw_only=True)
class AutoCryoPickerSettings:
    """What the published scripts change from one data set to the next.

    Parameters
    ----------
    wiener_window_px : 5; 3 in the script for MRC files
    guided_passes : 4; 0 in the script for one set
    opening_px : widths of the square openings before that with the 3 x 3 cross; SuperCryoPicker has one of 5, MATLAB's
        approximation of a disc of radius 3
    """

    wiener_window_px: int = 5
    guided_passes: int = 4
    opening_px: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.wiener_window_px < 1 or self.wiener_window_px % 2 == 0:
            raise SettingsError(f"wiener_window_px is {self.wiener_window_px}, expected an odd number from 1 on")
        if self.guided_passes < 0 or any(width < 1 for width in self.opening_px):
            raise SettingsError(
                f"guided_passes is {self.guided_passes} and opening_px {self.opening_px}, expected no negative number"
            )


def prepare_autocryopicker(
    pixels: NDArray[np.generic], *, settings: AutoCryoPickerSettings | None = None
) -> tuple[NDArray[np.float64], ScaleMap]:
    """Halve, stretch, equalise, adaptive Wiener, equalise three times more, guided filter, opening.

    There are no published values to compare with: the steps follow the scripts, each operator the documentation of
    MATLAB's Image Processing Toolbox.

    Parameters
    ----------
    pixels : (h, w) real, particles dark
    settings : default those of AutoCryoPicker's main script

    Returns
    -------
    prepared : (ceil(h / 2), ceil(w / 2)) float64 in [0, 1], particles dark, nothing shifted; all 0 for a constant image
    scale : maps coordinates between both images; the scripts never went back

    References
    ----------
    A. Al-Azzawi et al., AutoCryoPicker, BMC Bioinformatics 20, 2019, 326.
    """
    import cv2

    settings = settings or AutoCryoPickerSettings()
    half = halve(min_max(to_float32(pixels).astype(np.float64)))
    if not half.max() > half.min():
        return np.zeros(half.shape), ScaleMap((0.5, 0.5))
    image = equalize(stretch_quantiles(min_max(half)))
    image = wiener_adaptively(image, window_px=settings.wiener_window_px)
    image = equalize(np.clip(image, 0.0, 1.0))
    for clip_limit in (0.02, 0.99):
        image = equalize_adaptively(image, clip_limit=clip_limit, rayleigh_alpha=RAYLEIGH_ALPHA).astype(np.float64)
    for _ in range(settings.guided_passes):
        image = guided_filter(image, image, window_px=GUIDED_WINDOW_PX, epsilon=GUIDED_EPSILON, repeats_border=True)
    image = stretch_quantiles(np.clip(image, 0.0, 1.0))
    for width in settings.opening_px:
        image = np.asarray(cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones((width, width), np.uint8)), np.float64)
    # the scripts open five times with the same cross, which changes nothing after the first
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_OPEN, cross), np.float64), ScaleMap((0.5, 0.5))


def halve(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Half the size by cubic interpolation, the kernel widened to twice its size against aliasing (`imresize`).

    Parameters
    ----------
    image : (h, w)

    Returns
    -------
    half : (ceil(h / 2), ceil(w / 2)) float64; its pixel (i, j) lies at (2 i + 1/2, 2 j + 1/2) of the image

    References
    ----------
    R. Keys, Cubic convolution interpolation, IEEE TASSP 29(6), 1981, eq. 15.
    """
    distance = np.abs(np.arange(-3, 5) - 0.5) / 2  # of 8 pixels from the place between the two in the middle
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weight = np.where(distance <= 1, inner, outer)
    weight /= weight.sum()
    # three pixels before the first and, where the size is odd, one more beyond the last four
    padded = np.pad(image.astype(np.float64), (3, 5), mode="symmetric")
    height, width = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
    rows = sum(weight[k] * padded[k : k + 2 * height : 2] for k in range(8))
    return np.asarray(sum(weight[k] * rows[:, k : k + 2 * width : 2] for k in range(8)))


def wiener_adaptively(image: NDArray[np.floating], *, window_px: int) -> NDArray[np.float64]:
    """Keep what varies more than the noise, average the rest (`wiener2`).

    Parameters
    ----------
    image : (h, w)
    window_px : width of the window of the local mean and variance, zeros beyond the border; odd

    Returns
    -------
    filtered : (h, w) float64; the noise is the mean of the local variances

    References
    ----------
    J. S. Lim, Two-dimensional signal and image processing, 1990, eq. 9.26 to 9.29.
    """
    import cv2

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.blur(values, (window_px, window_px), borderType=cv2.BORDER_CONSTANT))

    values = image.astype(np.float64)
    local_mean = mean(values)
    variance = np.maximum(mean(values * values) - local_mean * local_mean, 0.0)
    noise = float(variance.mean())
    if noise == 0.0:
        return values
    kept = np.maximum(variance - noise, 0.0) / np.maximum(variance, noise)
    return np.asarray(local_mean + kept * (values - local_mean))
