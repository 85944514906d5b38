"""Local maxima of a response image, to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def find_peaks(
    response: NDArray[np.float32], *, min_score: float, radius_px: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Find local maxima and refine each by a parabola through its neighbours along x and along y.

    Nothing wraps around: a maximum in the first row knows nothing of the last. A maximum in the outermost row or column
    is reported at the centre of its pixel along that axis.

    Parameters
    ----------
    response : (h, w) float32, finite
    min_score : only maxima of at least this value
    radius_px : a maximum is the largest value within this distance; at least 1, the eight neighbours

    Returns
    -------
    xy_px : (n, 2) float64, in pixels of `response`, best first; ties by y, then x
    score : (n,) float32, value of `response` at the whole pixel
    """
    import cv2

    reach = max(1, int(radius_px))
    offset = np.arange(-reach, reach + 1)
    disc = (np.hypot(offset[:, None], offset) <= max(radius_px, 1.5)).astype(np.uint8)
    response = np.ascontiguousarray(response, dtype=np.float32)
    # cv2 pads with the smallest (dilate) or largest (erode) value, so the border neither makes nor hides a maximum
    highest = cv2.dilate(response, disc)
    lowest = cv2.erode(response, disc)
    is_peak = (response >= highest) & (response > lowest) & (response >= min_score)  # `> lowest`: a plateau is no peak
    row, column = np.nonzero(is_peak)
    score = response[row, column]
    xy_px = np.stack(
        [column + _vertex(response, row, column, step=(0, 1)), row + _vertex(response, row, column, step=(1, 0))],
        axis=1,
    )
    order = np.lexsort((xy_px[:, 0], xy_px[:, 1], -score))
    return xy_px[order], score[order]


def _vertex(
    response: NDArray[np.float32], row: NDArray[np.intp], column: NDArray[np.intp], *, step: tuple[int, int]
) -> NDArray[np.float64]:
    """(n,) offset in [-0.5, 0.5] of the vertex of the parabola through three pixels along `step` (y, x)."""
    height, width = response.shape
    row_after, column_after = row + step[0], column + step[1]
    row_before, column_before = row - step[0], column - step[1]
    is_inner = (row_before >= 0) & (column_before >= 0) & (row_after < height) & (column_after < width)
    offset = np.zeros(len(row))
    i = np.nonzero(is_inner)[0]
    before = response[row_before[i], column_before[i]].astype(np.float64)
    after = response[row_after[i], column_after[i]].astype(np.float64)
    offset[i] = vertex_offset(before, response[row[i], column[i]], after)
    return offset


def vertex_offset(before: ArrayLike, here: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
    """Where a parabola through three values peaks, in steps from the middle one: -0.5 to 0.5; 0 where it has no peak.

    Parameters
    ----------
    before, here, after : of one shape, `here` a maximum
    """
    before, here, after = (np.asarray(value, np.float64) for value in (before, here, after))
    curvature = before + after - 2.0 * here
    vertex = np.divide(0.5 * (before - after), curvature, out=np.zeros_like(curvature), where=curvature < 0)
    return np.clip(vertex, -0.5, 0.5)
