"""Boxes around particles: corner and centre, in the conventions of the programs that store corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def centres_of_integer_boxes(corner_xy_px: NDArray[np.float64], size_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of boxes of whole pixels: `corner + size // 2`, as RELION and EMAN count.

    The centre of an image of n pixels is pixel `n // 2` (the origin of its Fourier transform), for odd n too.

    Parameters
    ----------
    corner_xy_px : (n, 2) first pixel of each box
    size_px : (n, 2) width and height, whole numbers
    """
    return np.asarray(corner_xy_px + np.floor(size_px / 2))


def corners_of_integer_boxes(centre_xy_px: NDArray[np.float64], size_px: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, 2) First pixels of the whole-pixel boxes nearest to the centres; up to half a pixel is lost in each axis.

    The inverse of `centres_of_integer_boxes` for whole centres. Halves round up, so that a row of equal spacing stays
    one.
    """
    return np.asarray(np.floor(centre_xy_px - np.floor(size_px / 2) + 0.5), dtype=np.int64)


def centres_of_boxes(corner_xy_px: NDArray[np.float64], size_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of boxes with fractional edges: `corner + size / 2`, as crYOLO and COCO files are used in the field."""
    return np.asarray(corner_xy_px + size_px / 2)


def corners_of_boxes(centre_xy_px: NDArray[np.float64], size_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) Corners of boxes with fractional edges; the inverse of `centres_of_boxes`."""
    return np.asarray(centre_xy_px - size_px / 2)
