"""How archives hold micrographs: raw, binned, band-passed, denoised, with local contrast, as 8-bit JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.simulation.recipe import LookRanges, draw, draw_count, draw_log


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is done to a micrograph between camera and archive; the default is nothing.

    Parameters
    ----------
    shortest_px, longest_px : of the band-pass, see `band_pass`
    coarser : factor (below 1) to which the image was shrunk before it was grown again, 1 for not at all
    denoise : method of `denoise_8_bit`, or "" for none
    denoise_strength : in (0, 1]
    is_8_bit : stored in 8 bits
    saturation : fraction clipped at each end in 8 bits
    jpeg_quality : 1 to 100, or 0 for no JPEG
    """

    shortest_px: float | None = None
    longest_px: float | None = None
    coarser: float = 1.0
    denoise: str = ""
    denoise_strength: float = 0.5
    is_8_bit: bool = False
    saturation: float = 1e-3
    jpeg_quality: int = 0


def draw_look(rng: np.random.Generator, ranges: LookRanges, *, diameter_px: float, pixel_size_angstrom: float) -> Look:
    """One look within the ranges, for particles of a diameter."""
    shortest_px = longest_px = None
    if rng.random() < ranges.low_pass_probability:
        # Either a resolution or a share of the particle: people filter by both.
        by_resolution = draw(rng, ranges.low_pass_angstrom) / pixel_size_angstrom
        by_particle = diameter_px / draw_log(rng, ranges.low_pass_per_diameter)
        shortest_px = by_resolution if rng.random() < 0.3 else by_particle
    if rng.random() < ranges.high_pass_probability:
        longest_px = diameter_px * draw(rng, ranges.high_pass_diameters)
    is_denoised = rng.random() < ranges.denoise_probability
    is_jpeg = rng.random() < ranges.jpeg_probability
    methods = ["nlm", "bilateral", "median", "clahe"]
    return Look(
        shortest_px=shortest_px,
        longest_px=longest_px,
        coarser=float(rng.uniform(0.45, 0.9)) if rng.random() < ranges.coarser_probability else 1.0,
        denoise=str(rng.choice(methods, p=[0.2, 0.25, 0.2, 0.35])) if is_denoised else "",
        denoise_strength=float(rng.uniform(0.1, 1.0)),
        is_8_bit=is_denoised or is_jpeg or rng.random() < ranges.eight_bit_probability,
        saturation=draw_log(rng, (1e-4, 2e-2)),
        jpeg_quality=draw_count(rng, ranges.jpeg_quality) if is_jpeg else 0,
    )


def apply_look(
    image: NDArray[np.float32], look: Look, *, response: NDArray[np.float32] | None = None, workers: int = 1
) -> NDArray[np.float32]:
    """The image as the archive holds it, (h, w) float32 (whole numbers 0..255 in 8 bits).

    Parameters
    ----------
    response : transfer function on the grid of `scipy.fft.rfft2` that is applied in the same pass (the camera's MTF)
    """
    import cv2

    shape_yx = (image.shape[0], image.shape[1])
    if response is not None:
        spectrum = fft.rfft2(image, workers=workers)
        if look.shortest_px is not None and look.longest_px is None:
            response = np.asarray(
                response * band_pass_response(shape_yx, longest_px=None, shortest_px=look.shortest_px)
            )
        spectrum *= response
        image = np.asarray(fft.irfft2(spectrum, s=shape_yx, workers=workers), dtype=np.float32)
    if look.longest_px is not None or (look.shortest_px is not None and response is None):
        image = band_pass(image, longest_px=look.longest_px, shortest_px=look.shortest_px, workers=workers)
    if look.coarser < 1:
        small = cv2.resize(image, None, fx=look.coarser, fy=look.coarser, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, shape_yx[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    if not look.is_8_bit:
        return image
    stored = to_8_bit(image, saturation=look.saturation)
    if look.denoise:
        stored = denoise_8_bit(stored, method=look.denoise, strength=look.denoise_strength)
    if look.jpeg_quality > 0:
        stored = jpeg(stored, quality=look.jpeg_quality)
    return stored.astype(np.float32)


def band_pass(
    image: NDArray[np.float32], *, longest_px: float | None, shortest_px: float | None, workers: int = 1
) -> NDArray[np.float32]:
    """Keep structure between two lengths, (h, w) float32; the mean stays.

    Parameters
    ----------
    longest_px : half height of the high-pass, Gaussian; None keeps all low frequencies. The image is mirrored at its
        border, so that a brightness gradient leaves no frame
    shortest_px : half height of the low-pass, Gaussian; None keeps all high frequencies
    """
    import cv2

    height, width = image.shape
    mirrored = 0 if longest_px is None else min(int(longest_px), height - 1, width - 1)
    if mirrored:
        image = np.asarray(
            cv2.copyMakeBorder(image, mirrored, mirrored, mirrored, mirrored, cv2.BORDER_REFLECT_101), dtype=np.float32
        )
    spectrum = fft.rfft2(image, workers=workers)
    spectrum *= band_pass_response(image.shape, longest_px=longest_px, shortest_px=shortest_px)
    filtered = fft.irfft2(spectrum, s=image.shape, workers=workers)
    return np.ascontiguousarray(filtered[mirrored : mirrored + height, mirrored : mirrored + width], dtype=np.float32)


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
