"""Borders that motion correction or padding filled by repeating the outermost good row or column: no data there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_SHARE = 0.1
"""Of a side; a repeated strip wider than this is not looked for."""
START_SHARE = 0.015
"""A strip begins within this part of the side: filters applied later ring at the very edge of the image."""
SMALLEST_SHARE, SMALLEST_PX = 0.005, 5
"""Narrower strips do no harm, and filters that mirror at the edge leave a few pixels that look like one."""
REPEATED, DIFFERENT = 0.2, 0.5
"""Difference between neighbouring rows over that between neighbouring pixels along them. It is about 1 in noise and in
pictures that were filtered alike in both directions, 0 where rows repeat; compression and filters leave a little."""


@dataclass(frozen=True)
class Border:
    """Widths of the repeated strips, pixels."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)

    def inside(self, shape_yx: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns that hold data."""
        height, width = shape_yx
        return slice(self.top, height - self.bottom), slice(self.left, width - self.right)

    def scaled(self, factor_yx: tuple[float, float]) -> Border:
        """The strips of an image resampled by these factors of rows and columns, to whole pixels."""
        down, across = factor_yx
        return Border(
            round(self.top * down), round(self.bottom * down), round(self.left * across), round(self.right * across)
        )

    def filled(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image with its strips replaced by mirrored data, so that averages near them are those of data."""
        inner = pixels[self.inside((pixels.shape[0], pixels.shape[1]))]
        return np.pad(inner, ((self.top, self.bottom), (self.left, self.right)), mode="symmetric")

    def blanked(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image with 0 in its strips."""
        result = np.zeros_like(pixels)
        inner = self.inside((pixels.shape[0], pixels.shape[1]))
        result[inner] = pixels[inner]
        return result


NO_BORDER = Border()


def find_repeated_border(pixels: NDArray[np.float32]) -> Border:
    """The strips along each side in which every row (or column) is nearly a copy of the next.

    Parameters
    ----------
    pixels : (h, w) float32, finite

    Returns
    -------
    border : of widths from `SMALLEST_PX` up to a tenth of each side; 0 where a side has no such strip
    """
    turned = (pixels, pixels[::-1], pixels.T, pixels.T[::-1])
    return Border(*(_strip(rows) for rows in turned))


def _strip(rows: NDArray[np.float32]) -> int:
    """Number of repeated rows from the first on."""
    depth = int(LARGEST_SHARE * len(rows))
    if depth < 2 or rows.shape[1] < 2:
        return 0
    part = np.asarray(rows[: depth + 1], np.float32)
    across = np.abs(np.diff(part, axis=0)).mean(axis=1)
    along = np.abs(np.diff(part, axis=1)).mean(axis=1)[:-1]
    ratio = np.where(along > 0, across / np.where(along > 0, along, 1), np.inf)  # constant rows: nothing to see in them
    repeated = np.flatnonzero(ratio < REPEATED)
    if len(repeated) == 0 or repeated[0] > START_SHARE * len(rows):
        return 0
    later = np.flatnonzero(ratio[repeated[-1] :] >= DIFFERENT)
    # a strip that goes on beyond the depth is a picture with stripes, such as a gradient, and no border
    width = int(repeated[-1] + later[0]) if len(later) else 0
    return width if width >= max(SMALLEST_PX, SMALLEST_SHARE * len(rows)) else 0
