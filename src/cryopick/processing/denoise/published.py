"""The denoiser of CryoTransformer and CryoSegNet, which share it, as their programs run it.

It is here so that weights trained by those programs see the images they know. For anything else use
`cryopick.processing.denoise.corrected`: this one moves the content by (-3, -3) px, lets a single hot pixel set the
contrast, and takes ten seconds for a 4096 x 4096 micrograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.denoise.filters import (
    GUIDED_EPSILON,
    GUIDED_WINDOW_PX,
    corner_wiener,
    equalize_8bit,
    guided_filter,
    to_8bit,
    to_float32,
)

GAUSSIAN_KERNEL_PX = 9
"""Sigma is left to OpenCV, which takes 0.3 * ((9 - 1) / 2 - 1) + 0.8 = 1.7 px."""
NLM_STRENGTH = 10.0
NLM_TEMPLATE_PX = 7
NLM_SEARCH_PX = 21

SHIFT_XY_PX = (-3.0, -3.0)
"""Where a symmetric blob is found in the result, less where it was: -4 by the "Wiener" filter, +1 by two even boxes."""


@dataclass(frozen=True, eq=False)
class PublishedStages:
    """The image after each step, all (h, w), in order.

    Parameters
    ----------
    standardized : uint8, after the Gaussian blur, stretched by its extreme pixels
    non_local_means : uint8
    wiener : float64, about 1/31 of the step before it
    equalized : uint8
    guided : float32
    image : uint8, the result
    """

    standardized: NDArray[np.uint8]
    non_local_means: NDArray[np.uint8]
    wiener: NDArray[np.float64]
    equalized: NDArray[np.uint8]
    guided: NDArray[np.float32]
    image: NDArray[np.uint8]


def denoise_published(
    pixels: NDArray[np.generic], *, guide: Literal["wiener", "equalized"] = "wiener"
) -> PublishedStages:
    """Gaussian, standardisation, non-local means, "Wiener", CLAHE and guided filter, with the programs' parameters.

    Parameters
    ----------
    pixels : (h, w) real. The programs reverse the rows of an MRC first: pass `pixels[::-1]` for their picture. uint8,
        uint16, int16, float32 and float64 are blurred in their own type, as CryoTransformer does; CryoSegNet converts
        to float32 first, so convert first for that. The programs stop at other types, which become float32 here.
    guide : of the guided filter, which filters the other of the two images: "wiener" as the programs have it,
        "equalized" as the articles describe it

    Returns
    -------
    stages : the image after each step. Content lies at `SHIFT_XY_PX` from where it was. A constant image gives zeros
        and NaN or inf become the median, where the programs divide by zero or return no image.

    References
    ----------
    A. Dhakal et al., CryoTransformer, Bioinformatics 40(3), 2024, btae109; R. Gyawali et al., CryoSegNet, Briefings in
    Bioinformatics 25(4), 2024, bbae282. The articles name the CLAHE image as the guide; the programs use the "Wiener"
    image, which has so little contrast that the guided filter equals two box blurs of the CLAHE image.
    """
    import cv2

    standardized = blur_and_standardize(pixels)
    non_local_means = np.asarray(
        cv2.fastNlMeansDenoising(standardized, None, NLM_STRENGTH, NLM_TEMPLATE_PX, NLM_SEARCH_PX), np.uint8
    )
    wiener = corner_wiener(non_local_means)
    equalized = equalize_8bit(to_8bit(wiener))
    filtered, guiding = (equalized / 255).astype(np.float32), (wiener / 255).astype(np.float32)
    if guide == "equalized":
        filtered, guiding = guiding, filtered
    guided = np.asarray(
        guided_filter(filtered, guiding, window_px=GUIDED_WINDOW_PX, epsilon=GUIDED_EPSILON), np.float32
    )
    return PublishedStages(standardized, non_local_means, wiener, equalized, guided, to_8bit(guided))


def blur_and_standardize(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The first two steps: Gaussian blur, zero mean and unit variance, then 0..255 by the extreme pixels.

    Parameters
    ----------
    pixels : as for `denoise_published`

    Returns
    -------
    standardized : (h, w) uint8. The extreme pixels set the scale: one hot pixel costs the rest most of its levels.
    """
    import cv2

    size = GAUSSIAN_KERNEL_PX, GAUSSIAN_KERNEL_PX
    blurred = np.asarray(cv2.GaussianBlur(_as_blurred_type(pixels), size, 0))
    spread = blurred.std()
    # without the test a constant image divides by zero; `to_8bit` makes it zeros
    standardized = (blurred - blurred.mean()) / (spread if spread > 0 else 1)
    return to_8bit(standardized)


def _as_blurred_type(pixels: NDArray[np.generic]) -> NDArray[np.integer | np.floating]:
    """The pixels in a type that OpenCV blurs: their own where it does, float32 where the programs stop."""
    if pixels.dtype in (np.uint8, np.uint16, np.int16) or (pixels.dtype == np.float64 and np.isfinite(pixels).all()):
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(to_float32(pixels))
