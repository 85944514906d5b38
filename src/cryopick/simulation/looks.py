"""How archives hold micrographs: raw, binned, band-passed, denoised, with local contrast, as 8-bit JPEG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError


def band_pass(
    image: NDArray[np.float32], *, longest_px: float | None, shortest_px: float | None
) -> NDArray[np.float32]:
    """Keep structure between two lengths, (h, w) float32; the mean stays.

    Parameters
    ----------
    longest_px : half height of the high-pass, Gaussian; None keeps all low frequencies
    shortest_px : half height of the low-pass, Gaussian; None keeps all high frequencies
    """
    spectrum = fft.rfft2(image)
    response = band_pass_response(image.shape, longest_px=longest_px, shortest_px=shortest_px)
    return np.asarray(fft.irfft2(spectrum * response, s=image.shape), dtype=np.float32)


def band_pass_response(
    shape_yx: tuple[int, ...], *, longest_px: float | None, shortest_px: float | None
) -> NDArray[np.float32]:
    """The transfer function of `band_pass` on the grid of `scipy.fft.rfft2`, 1 at zero frequency."""
    y = fft.fftfreq(shape_yx[0]).astype(np.float32)[:, None]
    x = fft.rfftfreq(shape_yx[1]).astype(np.float32)[None, :]
    squared = y * y + x * x  # (cycles per pixel)²
    response = np.ones(squared.shape, dtype=np.float32)
    half = np.float32(np.log(2))
    if longest_px is not None:
        response -= np.exp(-half * squared * np.float32(longest_px**2))
    if shortest_px is not None:
        response *= np.exp(-half * squared * np.float32(shortest_px**2))
    response[0, 0] = 1
    return response


def to_8_bit(image: NDArray[np.float32], *, saturation: float) -> NDArray[np.uint8]:
    """Stretch to 0..255, (h, w) uint8; a fraction `saturation` of the pixels is clipped at each end."""
    sample = image[:: max(1, image.shape[0] // 256), :: max(1, image.shape[1] // 256)]
    low, high = np.quantile(sample, [saturation, 1 - saturation])
    scale = 255.0 / max(float(high - low), 1e-12)
    scaled = (image - np.float32(low)) * np.float32(scale) + np.float32(0.5)
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def jpeg(image: NDArray[np.uint8], *, quality: int) -> NDArray[np.uint8]:
    """The image after JPEG compression and decompression, (h, w) uint8."""
    import cv2

    is_done, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_done:
        raise SettingsError(f"an image of shape {image.shape} cannot be JPEG-compressed; expected at most 65535 a side")
    return np.asarray(cv2.imdecode(buffer, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def denoise_8_bit(image: NDArray[np.uint8], *, method: str, strength: float) -> NDArray[np.uint8]:
    """Denoise or sharpen local contrast, (h, w) uint8.

    Parameters
    ----------
    method : "nlm" (non-local means), "bilateral", "median", "clahe" (contrast-limited adaptive equalisation)
    strength : in (0, 1]
    """
    import cv2

    if method == "nlm":
        spread = 0.5 + strength
        sigma = float(np.std(image[::4, ::4].astype(np.float32)))
        out = cv2.fastNlMeansDenoising(image, None, h=spread * sigma, templateWindowSize=5, searchWindowSize=11)
    elif method == "bilateral":
        sigma = float(np.std(image[::4, ::4].astype(np.float32)))
        out = cv2.bilateralFilter(image, 5, sigmaColor=(1 + 3 * strength) * sigma, sigmaSpace=1.5)
    elif method == "median":
        out = cv2.medianBlur(image, 3 if strength < 0.7 else 5)
    elif method == "clahe":
        tiles = int(2 + round(6 * strength))
        out = cv2.createCLAHE(clipLimit=1 + 3 * strength, tileGridSize=(tiles, tiles)).apply(image)
    else:
        raise SettingsError(f"denoising method {method!r} is unknown; use nlm, bilateral, median or clahe")
    return np.asarray(out, dtype=np.uint8)
