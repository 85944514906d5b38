"""Named changes of frame for coordinates; pixel centres map to pixel centres.

Each takes centres in one image and gives them in the changed image, of which `transformed_shape` is the size:
`flip_y` of coordinates belongs to `pixels[::-1]`, `flip_x` to `pixels[:, ::-1]`, `transpose` to `pixels.T`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def identity(xy_px: NDArray[np.float64], _: tuple[int, int]) -> NDArray[np.float64]:
    """The same coordinates."""
    return np.array(xy_px, dtype=np.float64)


def flip_y(xy_px: NDArray[np.float64], shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Rows counted from the other end: `y -> h - 1 - y`. Its own inverse.

    Parameters
    ----------
    xy_px : (n, 2) centres
    shape_yx : (h, w) of the image
    """
    return np.stack([xy_px[:, 0], shape_yx[0] - 1 - xy_px[:, 1]], axis=1)


def flip_x(xy_px: NDArray[np.float64], shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Columns counted from the other end: `x -> w - 1 - x`. Its own inverse."""
    return np.stack([shape_yx[1] - 1 - xy_px[:, 0], xy_px[:, 1]], axis=1)


def transpose(xy_px: NDArray[np.float64], _: tuple[int, int]) -> NDArray[np.float64]:
    """x and y exchanged. Its own inverse."""
    return np.array(xy_px[:, ::-1], dtype=np.float64)


TRANSFORMS: dict[str, Callable[[NDArray[np.float64], tuple[int, int]], NDArray[np.float64]]] = {
    "identity": identity,
    "flip_y": flip_y,
    "flip_x": flip_x,
    "transpose": transpose,
}


def transformed_shape(name: str, shape_yx: tuple[int, int]) -> tuple[int, int]:
    """The size of the image after the named transform."""
    return (shape_yx[1], shape_yx[0]) if name == "transpose" else shape_yx
