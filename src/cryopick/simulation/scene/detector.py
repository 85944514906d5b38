"""From the electron wave's intensity to the stored image: counting, blur, and the faults of real cameras."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expose(
    rng: np.random.Generator, intensity: NDArray[np.float32], *, electrons_per_pixel: float
) -> NDArray[np.float32]:
    """Count electrons: Poisson noise, returned in units of the mean count, (h, w) float32.

    Above 400 electrons per pixel the normal approximation is used (its skewness error is below 5 %): at working scale
    a pixel collects hundreds to thousands.
    """
    if electrons_per_pixel > 400:
        noise = rng.standard_normal(intensity.shape, dtype=np.float32)
        noise *= np.sqrt(np.maximum(intensity, 0) / np.float32(electrons_per_pixel))
        noise += intensity
        return noise
    counts = rng.poisson(np.maximum(intensity, 0) * np.float32(electrons_per_pixel))
    return np.asarray(counts, dtype=np.float32) / np.float32(electrons_per_pixel)


def transfer(frequency_per_nyquist: NDArray[np.float32], *, at_nyquist: float) -> NDArray[np.float32]:
    """Modulation transfer: a Gaussian-like fall from 1 to `at_nyquist` at the Nyquist frequency."""
    return np.asarray(np.float32(at_nyquist) ** (frequency_per_nyquist**2), dtype=np.float32)


def add_gain_residue(rng: np.random.Generator, image: NDArray[np.float32], *, strength: float) -> None:
    """Multiply `image` in place by what an imperfect gain reference leaves: per-column, per-row and per-tile errors."""
    height, width = image.shape
    image *= 1 + np.float32(strength) * rng.standard_normal((1, width), dtype=np.float32)
    image *= 1 + np.float32(0.5 * strength) * rng.standard_normal((height, 1), dtype=np.float32)
    tiles = 1 + np.float32(0.3 * strength) * rng.standard_normal((2, 4), dtype=np.float32)
    for row, band in enumerate(np.array_split(np.arange(height), 2)):
        for column, stripe in enumerate(np.array_split(np.arange(width), 4)):
            image[band[0] : band[-1] + 1, stripe[0] : stripe[-1] + 1] *= tiles[row, column]


def add_hot_pixels(rng: np.random.Generator, image: NDArray[np.float32], *, count: int, strength: float) -> None:
    """Overwrite `count` random pixels in place by values `strength` standard deviations off, bright or dark."""
    if count <= 0:
        return
    row = rng.integers(0, image.shape[0], count)
    column = rng.integers(0, image.shape[1], count)
    sign = np.where(rng.random(count) < 0.7, 1.0, -1.0)
    image[row, column] += (sign * strength * float(image.std())).astype(np.float32)


def add_dead_lines(rng: np.random.Generator, image: NDArray[np.float32], *, count: int) -> NDArray[np.bool_]:
    """Replace `count` random rows or columns in place by their neighbour; (h, w) mask of what was replaced."""
    mask = np.zeros(image.shape, dtype=bool)
    for _ in range(count):
        lines, masked = (image, mask) if rng.random() < 0.5 else (image.T, mask.T)
        index = int(rng.integers(1, len(lines)))
        lines[index] = lines[index - 1]
        masked[index] = True
    return mask


def replicate_border(image: NDArray[np.float32], *, widths_px: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Fill the border in place by repeating the outermost good pixel, as motion correction does; (h, w) mask of it.

    Parameters
    ----------
    widths_px : top, bottom, left, right
    """
    top, bottom, left, right = widths_px
    height, width = image.shape
    mask = np.ones(image.shape, dtype=bool)
    mask[top : height - bottom, left : width - right] = False
    image[:top] = image[top]
    image[height - bottom :] = image[height - bottom - 1]
    image[:, :left] = image[:, left : left + 1]
    image[:, width - right :] = image[:, width - right - 1 : width - right]
    return mask
