"""The pre-processing of Cryo-EMMAE, from a micrograph to a picture of 1024 x 1024: as its program runs it, and as the
article has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.processing.denoise.filters import (
    GUIDED_EPSILON,
    GUIDED_WINDOW_PX,
    WIENER_KERNEL_PX,
    WIENER_REGULARISER,
    WIENER_SIGMA_PX,
    corner_wiener,
    equalize_8bit,
    guided_filter,
    min_max,
    to_8bit,
    to_float32,
)

PICTURE_PX = 1024

SHIFT_XY_PX = (-3.0, -3.0)
"""In pixels of the micrograph as stored: -4 by the "Wiener" filter, +1 by two even boxes."""


@dataclass(frozen=True, eq=False)
class CryoEmmaeStages:
    """The image after each step, (h, w) except the picture, in order.

    Parameters
    ----------
    normalized : float64 in [0, 1], locally normalised, stretched by its extreme pixels
    wiener : float64, about 1/31 of the step before it; of the article's chain in [0, 1]
    equalized : uint8
    guided : uint8
    picture : (1024, 1024) uint8, the aspect ratio not kept
    """

    normalized: NDArray[np.float64]
    wiener: NDArray[np.float64]
    equalized: NDArray[np.uint8]
    guided: NDArray[np.uint8]
    picture: NDArray[np.uint8]


def prepare_cryoemmae(pixels: NDArray[np.generic], *, diameter_px: int) -> CryoEmmaeStages:
    """Local normalisation under a mask, "Wiener" filter, CLAHE, guided filter, reduction to 1024 x 1024.

    Parameters
    ----------
    pixels : (h, w) real. The program reverses the rows of an MRC first: pass `pixels[::-1]` for its picture.
    diameter_px : of a particle, in pixels of the micrograph as stored; made even by adding one

    Returns
    -------
    stages : content lies at `SHIFT_XY_PX` from where it was. Places without variance become 0 and NaN or inf the
        median, where the program divides by zero. It stops at odd sizes; here the padding of the mask is one longer at
        the end.

    Raises
    ------
    SettingsError
        If the mask does not fit into the micrograph.

    References
    ----------
    A. Zamanos et al., Self-supervised learning for generalizable particle picking in cryo-EM micrographs, Cell Reports
    Methods, 2025. The article's mask is the particle's disc; the program's is the square around it without the disc.
    """
    normalized = _normalized(pixels, corner_mask(diameter_px), diameter_px)
    wiener = corner_wiener(normalized)
    equalized = equalize_8bit(to_8bit(wiener))
    guided = to_8bit(
        guided_filter(
            (equalized / 255).astype(np.float32),
            (wiener / 255).astype(np.float32),
            window_px=GUIDED_WINDOW_PX,
            epsilon=GUIDED_EPSILON,
        )
    )
    return CryoEmmaeStages(normalized, wiener, equalized, guided, _picture_of(guided))


def prepare_as_written(pixels: NDArray[np.generic], *, diameter_px: float) -> CryoEmmaeStages:
    """The chain as the article words it; numbers that it does not give are the program's.

    Local mean and deviation under a disc of the particle's diameter (eq. 1 and 2), a Wiener filter, CLAHE, and a guided
    filter whose guide is the equalised image. Nothing is shifted and no row reversed: the Wiener kernel lies around its
    pixel, and the guided filter's window is odd, one pixel wider than the program's.

    Parameters
    ----------
    pixels : (h, w) real
    diameter_px : of a particle, in pixels of the micrograph as stored

    Raises
    ------
    SettingsError
        If the mask does not fit into the micrograph.
    """
    normalized = _normalized(pixels, disc_mask(diameter_px), diameter_px)
    wiener = np.asarray(min_max(_centred_wiener(normalized)), np.float64)
    equalized = equalize_8bit(to_8bit(wiener))
    guided = to_8bit(
        guided_filter(
            wiener.astype(np.float32),
            (equalized / 255).astype(np.float32),
            window_px=GUIDED_WINDOW_PX + 1,
            epsilon=GUIDED_EPSILON,
        )
    )
    return CryoEmmaeStages(normalized, wiener, equalized, guided, _picture_of(guided))


def _normalized(pixels: NDArray[np.generic], mask: NDArray[np.bool_], diameter_px: float) -> NDArray[np.float64]:
    """Locally normalised under the mask, stretched by its extreme pixels."""
    if mask.shape[0] > min(pixels.shape):
        raise SettingsError(
            f"a particle diameter of {diameter_px:g} px does not fit into a micrograph of "
            f"{pixels.shape[1]} x {pixels.shape[0]} px; give the diameter in pixels of the micrograph as stored"
        )
    stretched = min_max(to_float32(pixels).astype(np.float64))
    return np.asarray(min_max(_normalize_under_mask(stretched, mask)), np.float64)


def _picture_of(guided: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    # Pillow's bicubic averages over the pixels it merges, OpenCV's does not
    return np.asarray(Image.fromarray(guided).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC))


def disc_mask(diameter_px: float) -> NDArray[np.bool_]:
    """(2n + 1, 2n + 1) True in the disc of a particle around the middle pixel: the mask of eq. 1 and 2."""
    radius = diameter_px / 2
    offset = np.arange(-int(radius), int(radius) + 1)
    return np.asarray(offset[:, None] ** 2 + offset**2 <= radius**2)


def _centred_wiener(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """The program's Wiener filter (`corner_wiener`) with its kernel around the pixel instead of beside it."""
    import cv2
    from scipy.fft import irfft2, rfft2

    row = cv2.getGaussianKernel(WIENER_KERNEL_PX, WIENER_SIGMA_PX)
    padded = np.zeros(image.shape)
    reach = WIENER_KERNEL_PX // 2
    places = np.arange(-reach, reach + 1)
    np.add.at(padded, (places[:, None] % image.shape[0], places % image.shape[1]), row @ row.T)
    transfer = rfft2(padded)
    gain = np.conj(transfer) / (np.abs(transfer) ** 2 + WIENER_REGULARISER)
    return np.asarray(irfft2(rfft2(image) * gain, image.shape), np.float64)


def corner_mask(diameter_px: int) -> NDArray[np.bool_]:
    """The pixels over which the program takes local statistics: a square of the particle's size without its disc.

    Parameters
    ----------
    diameter_px : at least 4; made even by adding one

    Returns
    -------
    mask : (d, d) True in the four corners; the two middle rows both count as the centre, and so do the columns
    """
    if diameter_px < 4:
        raise SettingsError(
            f"particle diameter is {diameter_px} px, expected at least 4: smaller discs fill their square"
        )
    even_px = diameter_px + diameter_px % 2
    radius = even_px // 2
    offset = np.concatenate([np.arange(1 - radius, 1), np.arange(radius)])
    return np.asarray(offset[:, None] ** 2 + offset**2 >= radius**2)


def _normalize_under_mask(image: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Subtract the mean under the mask around each pixel, divide by the standard deviation there; borders wrap."""
    from scipy.fft import fftshift, irfft2, rfft2

    height, width = image.shape
    # the middle of the mask, of an even one the first pixel after it, comes to where `fftshift` expects it
    top, left = height // 2 - mask.shape[0] // 2, width // 2 - mask.shape[1] // 2
    padded = np.zeros((height, width))
    padded[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    conjugate = np.conj(rfft2(padded)) / np.count_nonzero(mask)

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(fftshift(np.abs(irfft2(rfft2(values) * conjugate, (height, width)))))

    local_mean = mean(image)
    variance = mean(image * image) - local_mean * local_mean
    is_varied = variance > 1e-12  # of values in [0, 1]; less is rounding, or a patch of one value
    deviation = np.sqrt(np.where(is_varied, variance, 1.0))
    return np.where(is_varied, (image - local_mean) / deviation, 0.0)
