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
    response = np.ascontiguousarray(response, dtype=np.float32)
    row, column = np.nonzero(_is_highest_beside(response) & (response >= min_score))
    is_kept = _is_highest_within(response, row, column, radius_px=max(radius_px, 1.5))
    row, column = row[is_kept], column[is_kept]
    score = response[row, column]
    xy_px = np.stack(
        [column + _vertex(response, row, column, step=(0, 1)), row + _vertex(response, row, column, step=(1, 0))],
        axis=1,
    )
    order = np.lexsort((xy_px[:, 0], xy_px[:, 1], -score))
    return xy_px[order], score[order]


def _is_highest_beside(response: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(h, w) whether none of the eight neighbours is higher."""
    import cv2

    # cv2 pads with the smallest value, so the border hides no maximum
    return np.asarray(response >= cv2.dilate(response, np.ones((3, 3), np.uint8)))


def _is_highest_within(
    response: NDArray[np.float32], row: NDArray[np.intp], column: NDArray[np.intp], *, radius_px: float
) -> NDArray[np.bool_]:
    """(n,) whether nothing within the distance is higher, and something is lower: a plateau is no peak."""
    import cv2

    height, width = response.shape
    reach = int(radius_px)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    is_near = np.hypot(down, right) <= radius_px
    if len(row) * np.count_nonzero(is_near) > response.size:  # so many that all pixels are as fast
        disc = is_near.astype(np.uint8)  # cv2 pads with the smallest value for `dilate`, with the largest for `erode`
        highest, lowest = cv2.dilate(response, disc)[row, column], cv2.erode(response, disc)[row, column]
    else:
        y, x = row[:, None] + down[is_near], column[:, None] + right[is_near]  # (n, m)
        is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        near = response[np.where(is_inside, y, row[:, None]), np.where(is_inside, x, column[:, None])]
        highest, lowest = near.max(axis=1), near.min(axis=1)
    here = response[row, column]
    return np.asarray((here >= highest) & (here > lowest))


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
