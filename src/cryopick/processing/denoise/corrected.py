"""What the published denoisers set out to do: nothing shifted, no pixel setting the scale, at a working resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.processing.denoise.filters import guided_filter, to_float32
from cryopick.processing.denoise.histogram import equalize_adaptively
from cryopick.processing.normalize import normalize_locally, robust_spread
from cryopick.processing.scale import ScaleMap, gaussian_blur, resample

RANGE_SIGMA = 4.0
"""The result's 0 and 1 lie this many standard deviations below and above the background."""


@dataclass(frozen=True, kw_only=True)
class CorrectedSettings:
    """How strongly to denoise; lengths are in particle diameters, so that the pixel size does not matter.

    Parameters
    ----------
    particle_px : diameter to which a particle is shrunk; a smaller one is left at its size
    normalizes_locally : mean and variance around each pixel, which removes carbon and ice gradients (Cryo-EMMAE), or
        median and spread of the whole micrograph, which keeps them (CryoTransformer, CryoSegNet)
    nlm_strength : of non-local means, in standard deviations of the image; 0 for none. Published 10 of 255 grey levels,
        which span about eight standard deviations where no outlier stretches them.
    low_pass_diameters : sigma of the Gaussian that the "Wiener" filter amounts to; published 3 px of about 100
    clip_limit : of the contrast-limited adaptive equalisation, see `equalize_adaptively`
    guided_diameters : width of the guided filter's window, made odd; published 20 px of about 100
    guided_epsilon : variance of the guide, in [0, 1], below which a window counts as flat
    """

    particle_px: float = 24.0
    normalizes_locally: bool = True
    nlm_strength: float = 0.3
    low_pass_diameters: float = 0.03
    clip_limit: float = 0.01
    guided_diameters: float = 0.19
    guided_epsilon: float = 0.01

    def __post_init__(self) -> None:
        for name in ("particle_px", "clip_limit", "guided_diameters", "guided_epsilon"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise SettingsError(f"{name} is {getattr(self, name)}, expected a positive number")
        for name in ("nlm_strength", "low_pass_diameters"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.clip_limit > 1:
            raise SettingsError(f"clip_limit is {self.clip_limit}, expected at most 1, which cuts nothing")


NLM_TEMPLATE_PX = 3
NLM_SEARCH_PX = 7
"""At the working resolution; published 7 and 21 px, of micrographs with particles four to five times as wide."""
CLAHE_TILE_DIAMETERS = 2.5
"""Width of a tile of the adaptive equalisation; published 1/16 of the micrograph, 256 px for particles of about 100."""
NEUTRAL = 0.5
"""Value of the background, and of an image that shows nothing."""


def denoise_corrected(
    pixels: NDArray[np.generic], *, diameter_px: float, settings: CorrectedSettings | None = None
) -> tuple[NDArray[np.float32], ScaleMap]:
    """Shrink, normalise, non-local means, low-pass, and a filter guided by the locally equalised image.

    Brightness and contrast of the micrograph do not matter (but its sign does), and one hot pixel no more than its
    neighbourhood. All filters are symmetric and continue the image by reflection.

    Parameters
    ----------
    pixels : (h, w) real, of any type; float16 and integers are widened first; NaN and inf become the median
    diameter_px : of a particle, in pixels of `pixels`
    settings : default `CorrectedSettings()`

    Returns
    -------
    denoised : (h', w') float32 in [0, 1], the background near 0.5, particles dark where they were dark; 0.5 everywhere
        for a constant image
    scale : maps coordinates between `denoised` and `pixels`

    Raises
    ------
    SettingsError
        If the diameter is not a positive number.

    Notes
    -----
    As the articles say and the programs do not, the low-passed image is filtered and the equalised one is its guide.

    A 4096 x 4096 micrograph costs 0.2 s of one core for particles of 108 px, 0.6 s for 60 px, 1.3 s for 40 px (2-core
    virtual machine): time goes with the working image, hence with the inverse square of the diameter.
    """
    settings = settings or CorrectedSettings()
    if not (math.isfinite(diameter_px) and diameter_px > 0):
        raise SettingsError(f"diameter_px is {diameter_px}, expected a positive number of pixels")
    working, scale = resample(to_float32(pixels), factor=min(1.0, settings.particle_px / diameter_px))
    particle_px = diameter_px * scale.factor
    if settings.normalizes_locally:
        standardized = normalize_locally(working, diameter_px=particle_px)
    else:
        standardized = _standardize(working)
    image = np.clip(NEUTRAL + standardized / (2 * RANGE_SIGMA), 0.0, 1.0).astype(np.float32)
    if not np.ptp(image) > 0:
        return image, scale
    if settings.nlm_strength > 0:
        image = _average_alike(image, strength=settings.nlm_strength / (2 * RANGE_SIGMA))
    if settings.low_pass_diameters > 0:
        image = gaussian_blur(image, sigma_px=settings.low_pass_diameters * particle_px)
    rows, columns = (max(1, round(size / (CLAHE_TILE_DIAMETERS * particle_px))) for size in image.shape)
    guide = equalize_adaptively(image, clip_limit=settings.clip_limit, tiles_yx=(rows, columns))
    window_px = _odd(settings.guided_diameters * particle_px)
    denoised = guided_filter(image, guide, window_px=window_px, epsilon=settings.guided_epsilon)
    return np.clip(denoised, 0.0, 1.0).astype(np.float32), scale


def _standardize(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median 0 and robust spread 1 over the whole image; 0 for a constant one, up to the rounding of float32."""
    middle, spread = robust_spread(image)
    if not spread > 1e-6 * max(abs(middle), 1e-30):
        return np.zeros_like(image)
    return np.asarray((image - np.float32(middle)) / np.float32(spread), np.float32)


def _average_alike(image: NDArray[np.float32], *, strength: float) -> NDArray[np.float32]:
    """Non-local means of an image in [0, 1], in 256 levels because OpenCV has it for 8-bit images only."""
    import cv2

    levels = np.rint(255 * image).astype(np.uint8)
    averaged = cv2.fastNlMeansDenoising(levels, None, 255 * strength, NLM_TEMPLATE_PX, NLM_SEARCH_PX)
    return np.asarray(averaged / np.float32(255), np.float32)


def _odd(width_px: float) -> int:
    """The nearest odd width, at least 3: an even window has no centre pixel."""
    return max(3, 2 * round((width_px - 1) / 2) + 1)
