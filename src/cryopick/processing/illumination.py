"""Uneven illumination: brightness that changes smoothly over the whole image, as a beam's edge or a ramp makes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.median import median

DEGREE = 4
"""Of the polynomial in x and y; a beam's edge bends up to the fourth power of the distance."""
BLOCKS_ACROSS = 32
"""Blocks along the longer side whose medians are fitted."""
LEAST_RANGE_SIGMA = 2.0
"""Change of brightness, in standard deviations of a pixel's noise, below which nothing is done."""
LEAST_EXPLAINED = 0.96
"""Share of the variance of the blocks that the polynomial must explain. Measured: 0.98 and more where the corners of
simulated micrographs were darkened to 0.7 and further, or ramps added; at most 0.89 on 30 real ones and 0.86 on edges
of carbon, which must stay."""
_PIXELS_ACROSS_BLOCK = 32
_ROUNDS = 8
_TOLERANCE = 2.0


def without_uneven_illumination(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Subtract a smooth change of brightness, where there is a large one and it is all that there is.

    Edges, such as those of carbon, are no such change. What networks see is scaled by its local contrast, so that
    subtracting serves as well as dividing, and needs no zero of the grey values.

    Parameters
    ----------
    pixels : (h, w) float32, may hold NaN and inf; not changed

    Returns
    -------
    pixels : the very array that was given where nothing is subtracted
    warnings : what was done, a sentence
    """
    height, width = pixels.shape
    side = max(8, -(-max(height, width) // BLOCKS_ACROSS))
    rows, columns = height // side, width // side
    if min(rows, columns) < 2 * DEGREE:
        return pixels, ()
    step = max(1, side // _PIXELS_ACROSS_BLOCK)
    blocks = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side)[:, ::step, :, ::step]
    values = blocks.transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    is_whole = np.isfinite(values).all(axis=1)
    if np.count_nonzero(is_whole) < 0.5 * len(values):
        return pixels, ()
    medians = median(values[is_whole], axis=1).astype(np.float64)
    across_y, across_x = (_powers(np.arange(count) * side + (side - 1) / 2, total) for count, total in (
        (rows, height), (columns, width)
    ))  # fmt: skip
    is_term = np.add.outer(np.arange(DEGREE + 1), np.arange(DEGREE + 1)) <= DEGREE
    terms = np.einsum("ri,cj->rcij", across_y, across_x)[:, :, is_term].reshape(rows * columns, -1)[is_whole]
    coefficients = _robust_fit(terms, medians)
    fitted = terms @ coefficients
    variance = float(np.var(medians))
    low, high = np.percentile(fitted, (1, 99))
    change = float(high - low)
    if float(np.var(medians - fitted)) > (1 - LEAST_EXPLAINED) * variance:
        return pixels, ()
    noise = _noise(values[is_whole])
    if not (noise > 0 and change > LEAST_RANGE_SIGMA * noise):
        return pixels, ()
    surface = np.zeros((DEGREE + 1, DEGREE + 1))
    surface[is_term] = coefficients
    offset = float(np.median(fitted))
    at_y, at_x = (_powers(np.arange(total), total).astype(np.float32) for total in (height, width))
    flat = pixels - (at_y @ surface.astype(np.float32) @ at_x.T - np.float32(offset))
    return flat, (
        f"the brightness changes smoothly across the image by {change / noise:.1f} times the noise of a pixel, as at "
        "the edge of the beam or along a ramp; this change is taken out before picking",
    )


def _powers(place: NDArray[np.floating] | NDArray[np.integer], total: int) -> NDArray[np.float64]:
    """(n, DEGREE + 1) powers of places along a side, which goes from -1 to 1."""
    return np.asarray((2 * place + 1) / total - 1, np.float64)[:, None] ** np.arange(DEGREE + 1)


def _robust_fit(terms: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares in which values far from the rest count less, so that ice and particles do not bend the surface."""
    weight = np.ones(len(values))
    for _ in range(_ROUNDS):
        coefficients = np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0]
        residual = np.abs(values - terms @ coefficients)
        typical = 1.4826 * float(np.median(residual))
        if not typical > 0:
            break
        weight = 1 / np.sqrt(np.maximum(1, residual / (_TOLERANCE * typical)))
    return np.asarray(coefficients)


def _noise(values: NDArray[np.float32]) -> float:
    """Standard deviation within blocks, robust: the median over blocks of their median deviations."""
    deviation = np.abs(values - median(values, axis=1)[:, None])
    return 1.4826 * float(median(deviation))
