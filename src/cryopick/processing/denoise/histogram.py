"""Histogram operations of MATLAB's Image Processing Toolbox on images in [0, 1], written from its documentation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


def histogram(image: NDArray[np.floating]) -> NDArray[np.int64]:
    """(256,) pixels at each level, the nearest of 0, 1/255 .. 1."""
    return np.bincount(_levels(image).ravel(), minlength=LEVELS)


def stretch_quantiles(image: NDArray[np.floating], *, low: float = 0.01, high: float = 0.99) -> NDArray[np.floating]:
    """Map two quantiles, taken from the 256-level histogram, to 0 and 1 and clip (`imadjust` with `stretchlim`).

    Parameters
    ----------
    image : (h, w) in [0, 1]
    low, high : part of the pixels below the new black, and below the new white

    Returns
    -------
    stretched : (h, w) in [0, 1]; unchanged where both quantiles fall on one level
    """
    share = np.cumsum(histogram(image)) / image.size
    black = np.argmax(share > low) / (LEVELS - 1)
    white = np.argmax(share >= high) / (LEVELS - 1)
    if not white > black:
        return image
    return np.asarray(np.clip((image - black) / (white - black), 0.0, 1.0))


def equalize(image: NDArray[np.floating], *, output_levels: int = 64) -> NDArray[np.floating]:
    """Give about as many pixels to each of a few grey levels (`histeq`).

    Parameters
    ----------
    image : (h, w) in [0, 1]
    output_levels : grey levels of the result

    Returns
    -------
    equalized : (h, w), each value one of 0, 1/(n-1) .. 1: the lowest level whose share of the flat histogram is not
        less than the share of pixels up to the middle of the input's level
    """
    count = histogram(image)
    half = count / 2
    half[[0, -1]] = 0  # the darkest and the brightest level are placed by all their pixels
    flat = np.arange(1, output_levels + 1) * (image.size / output_levels)
    level = np.searchsorted(flat, np.cumsum(count) - half - 1e-9 * image.size)
    table = np.minimum(level, output_levels - 1) / (output_levels - 1)
    return np.asarray(table[_levels(image)])


def equalize_adaptively(
    image: NDArray[np.floating],
    *,
    clip_limit: float,
    tiles_yx: tuple[int, int] = (8, 8),
    rayleigh_alpha: float | None = None,
) -> NDArray[np.float32]:
    """Equalise each tile's histogram, limited in contrast, and blend between the tiles (`adapthisteq`, CLAHE).

    Flipping the image flips the result, up to a pixel: the padding is the same at both ends, one more at the end where
    it is odd, and a tile's own map holds at its centre.

    Parameters
    ----------
    image : (h, w) in [0, 1]
    clip_limit : in [0, 1], where a level's count is cut: 0 gives every level the same count, 1 cuts nothing
    tiles_yx : along rows and columns; fewer where the image has fewer than two pixels for each
    rayleigh_alpha : parameter of the Rayleigh distribution to aim at; None for a uniform one

    Returns
    -------
    equalized : (h, w) float32 in [0, 1]

    References
    ----------
    K. Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994, VIII.5.
    """
    height, width = image.shape
    level, (before_y, before_x), tile_yx = _pad_to_tiles(_levels(image), tiles_yx)
    n_y, n_x = level.shape[0] // tile_yx[0], level.shape[1] // tile_yx[1]
    tile = level.reshape(n_y, tile_yx[0], n_x, tile_yx[1]).swapaxes(1, 2).reshape(n_y * n_x, -1)  # (tiles, pixels)
    offset = LEVELS * np.arange(n_y * n_x)[:, None]
    count = np.bincount((tile + offset).ravel(), minlength=LEVELS * n_y * n_x).reshape(-1, LEVELS)
    share = np.cumsum(_clip_counts(count, clip_limit), axis=1) / tile.shape[1]
    table = _quantile(share, rayleigh_alpha).astype(np.float32).reshape(n_y, n_x, LEVELS)

    equalized = np.empty((height, width), np.float32)
    shown = level[before_y : before_y + height, before_x : before_x + width]
    for rows, upper, lower, down in _between_centres(height, before_y, tile_yx[0], n_y):
        for columns, left, right, across in _between_centres(width, before_x, tile_yx[1], n_x):
            block = shown[rows, columns]
            above = table[upper, left][block] * (1 - across) + table[upper, right][block] * across
            below = table[lower, left][block] * (1 - across) + table[lower, right][block] * across
            equalized[rows, columns] = above * (1 - down[:, None]) + below * down[:, None]
    return equalized


def _levels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.floor(image * (LEVELS - 1) + 0.5), 0, LEVELS - 1), np.uint8)


def _pad_to_tiles(
    level: NDArray[np.uint8], tiles_yx: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]:
    """Reflect at both ends until whole tiles of even size fit: the padded image, the padding before, a tile's size."""
    padding, tile_yx = [], []
    for size, tiles in zip(level.shape, tiles_yx, strict=True):
        n = max(1, min(tiles, size // 2))
        tile_px = -(-size // n)
        tile_px += tile_px % 2
        missing = n * tile_px - size
        padding.append((missing // 2, missing - missing // 2))
        tile_yx.append(tile_px)
    padded = np.pad(level, padding, mode="symmetric")
    return padded, (padding[0][0], padding[1][0]), (tile_yx[0], tile_yx[1])


def _clip_counts(count: NDArray[np.int64], clip_limit: float) -> NDArray[np.int64]:
    """(tiles, 256) counts cut at the limit, what was cut given evenly to the levels that are below it."""
    pixels = int(count[0].sum())
    smallest = -(-pixels // LEVELS)
    limit = smallest + round(clip_limit * (pixels - smallest))
    excess = np.maximum(count - limit, 0).sum(axis=1)  # (tiles,)
    share = excess[:, None] // LEVELS
    clipped = np.minimum(np.minimum(count, limit) + share, limit)
    left = pixels - clipped.sum(axis=1)
    while left.any():
        has_room = clipped < limit
        # spread over the levels with room, evenly from the darkest on, one to each at most in a round
        rank = np.cumsum(has_room, axis=1) - 1
        room = has_room.sum(axis=1, keepdims=True)
        given = np.minimum(left[:, None], room)
        quota = (rank + 1) * given // np.maximum(room, 1) - rank * given // np.maximum(room, 1)
        clipped = clipped + np.where(has_room, quota, 0)
        left = pixels - clipped.sum(axis=1)
    return np.asarray(clipped, np.int64)


def _quantile(share: NDArray[np.floating], rayleigh_alpha: float | None) -> NDArray[np.floating]:
    """The value below which that share of the target distribution lies, cut off so that 1 stays the largest."""
    if rayleigh_alpha is None:
        return share
    scale = 2 * rayleigh_alpha**2
    largest = 1 - np.exp(-1 / scale)
    return np.asarray(np.minimum(np.sqrt(-scale * np.log(1 - largest * share)), 1.0))


def _between_centres(
    size: int, before: int, tile_px: int, n: int
) -> Iterator[tuple[slice, int, int, NDArray[np.float32]]]:
    """The runs of pixels between two tiles' centres: where, the tile before and after, and the latter's weight."""
    position = (np.arange(size) + before - (tile_px - 1) / 2) / tile_px
    first = np.floor(position).astype(np.intp)
    weight = (position - first).astype(np.float32)
    for tile in range(int(first[0]), int(first[-1]) + 1):
        run = slice(int(np.searchsorted(first, tile)), int(np.searchsorted(first, tile + 1)))
        yield run, max(tile, 0), min(tile + 1, n - 1), weight[run]
