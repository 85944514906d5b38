"""Micrographs and picks as one picture, for notebooks: arrays to PNG, without a drawing library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

KEPT_BGR, REJECTED_BGR = (100, 201, 23), (0, 160, 245)
"""Green and amber, as in the report."""
CONTRAST_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class Picture:
    """A PNG that notebooks show."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: Path | str) -> Path:
        """Write it to a file."""
        Path(path).write_bytes(self.png)
        return Path(path)


def picture_of(
    pixels: NDArray[np.floating],
    *,
    xy_px: ArrayLike = (),
    diameter_px: ArrayLike = (),
    is_kept: ArrayLike = (),
    width_px: int = 900,
) -> Picture:
    """A micrograph with circles around picks, kept ones green and others amber.

    Parameters
    ----------
    pixels : (h, w), any values; the 1st and 99th percentile become black and white, what is not finite grey
    xy_px, diameter_px, is_kept : (n, 2), (n,), (n,); where a diameter is NaN the circle has an 80th of the width
    width_px : most pixels of the picture from left to right; larger micrographs are averaged down to it
    """
    import cv2

    height, width = pixels.shape
    scale = min(1.0, width_px / width)
    is_known = np.isfinite(pixels)
    middle = float(np.median(pixels[is_known])) if is_known.any() else 0.0
    filled = np.where(is_known, pixels, middle).astype(np.float32)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(filled, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, CONTRAST_PERCENTILES)
    grey = (255 * np.clip((small - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    canvas: Any = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    shift = 4  # fractional bits of OpenCV's drawing, so that circles stand where the pick is and not on whole pixels
    centres = (np.asarray(xy_px, np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
    diameters = np.asarray(diameter_px, np.float64).reshape(-1)
    for centre, diameter, kept in zip(centres, diameters, np.asarray(is_kept, bool).reshape(-1), strict=True):
        radius = (diameter if np.isfinite(diameter) else width / 80) * scale / 2
        x, y = (round(float(value) * 2**shift) for value in centre)
        colour = KEPT_BGR if kept else REJECTED_BGR
        cv2.circle(canvas, (x, y), round(radius * 2**shift), colour, 1, cv2.LINE_AA, shift)
    return Picture(cv2.imencode(".png", canvas)[1].tobytes())
