"""The small pictures of micrographs and of pickers' maps that a report shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.scale import fill_non_finite

GALLERY_CELL_PX = 72
OVERVIEW_PX = 768
"""Longer side of the overview images that the report shows."""


def overview_jpeg(pixels: NDArray[np.float32]) -> bytes:
    """A small grey picture of a micrograph, its contrast stretched between the 0.5 and 99.5 percentiles."""
    import cv2

    pixels = fill_non_finite(pixels)
    height, width = pixels.shape
    scale = min(1.0, OVERVIEW_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.GaussianBlur(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), (0, 0), 0.8)
    low, high = np.percentile(small[::2, ::2], (0.5, 99.5))
    grey = np.clip((small - low) / max(high - low, np.finfo(np.float32).tiny) * 255, 0, 255).astype(np.uint8)
    return _encoded(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 80])


def full_jpeg(pixels: NDArray[np.float32]) -> bytes:
    """A grey picture of a part of a micrograph, pixel for pixel, smoothed and stretched as in `overview_jpeg`."""
    import cv2

    smooth = cv2.GaussianBlur(fill_non_finite(pixels), (0, 0), 0.8)
    low, high = np.percentile(smooth[::2, ::2], (0.5, 99.5))
    grey = np.clip((smooth - low) / max(high - low, np.finfo(np.float32).tiny) * 255, 0, 255)
    return _encoded(".jpg", grey.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])


def map_png(values: NDArray[np.float32], *, shape_yx: tuple[int, int] | None = None) -> bytes:
    """A map as a grey PNG, 0 to 1 black to white: a picture for people, or of the size `shape_yx`."""
    import cv2

    plain = np.nan_to_num(np.asarray(values, dtype=np.float32))
    if plain.min() < 0 or plain.max() > 1:  # no probability: stretched, so that there is something to see
        low, high = np.percentile(plain, (1, 99.8))
        plain = (plain - low) / max(high - low, np.finfo(np.float32).tiny)
    scale = min(1.0, OVERVIEW_PX / max(plain.shape))
    height, width = shape_yx or (max(1, round(side * scale)) for side in plain.shape)
    is_larger = height * width > plain.size
    method = cv2.INTER_LINEAR if is_larger else cv2.INTER_AREA
    sized = plain if plain.shape == (height, width) else cv2.resize(plain, (width, height), interpolation=method)
    grey = np.clip(sized * 255, 0, 255)
    return _encoded(".png", np.rint(grey).astype(np.uint8), [])


def gallery_png(views: Sequence[NDArray[np.float32]], *, columns: int = 12) -> bytes:
    """Square windows side by side as one grey PNG, each smoothed and stretched by itself.

    Parameters
    ----------
    views : at least one
    """
    import cv2

    cells = []
    for view in views:
        smooth = cv2.GaussianBlur(fill_non_finite(view), (0, 0), max(0.5, len(view) / GALLERY_CELL_PX))
        low, high = np.percentile(smooth, (1, 99))
        grey = np.clip((smooth - low) / max(high - low, np.finfo(np.float32).tiny) * 255, 0, 255).astype(np.uint8)
        cell = cv2.resize(grey, (GALLERY_CELL_PX, GALLERY_CELL_PX), interpolation=cv2.INTER_AREA)
        cells.append(np.pad(cell, 1, constant_values=255))
    rows = -(-len(cells) // columns)
    columns = min(columns, len(cells))
    side = GALLERY_CELL_PX + 2
    sheet = np.full((rows * side, columns * side), 255, np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = cell
    return _encoded(".png", sheet, [])


def _encoded(suffix: str, grey: NDArray[np.uint8], options: list[int]) -> bytes:
    import cv2

    is_encoded, data = cv2.imencode(suffix, grey, options)
    if not is_encoded:
        raise RuntimeError(f"OpenCV could not encode a {grey.shape} picture as {suffix}")
    return bytes(data)
