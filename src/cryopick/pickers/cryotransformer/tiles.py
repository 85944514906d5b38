"""Overlapping tiles whose particles have one owner each, for networks that give a fixed number of answers per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME_DIAMETERS = 0.5
"""Answers of different tiles closer than this many diameters are the same particle, seen twice."""
OVERLAP_DIAMETERS = 2.0
CLOSE_PACKING = 1.9
"""Tiles hold no more than one particle per query even where they lie 0.8 diameters apart, closely packed: 1.8 in a
square of one diameter."""


@dataclass(frozen=True)
class Tile:
    """A rectangle that a network looks at, and the part of it that it owns; all tiles' cores divide the image.

    Parameters
    ----------
    region : (left, top, right, bottom) in whole pixels; right and bottom are the first outside
    core : the same of the owned part; fractional
    """

    region: tuple[int, int, int, int]
    core: tuple[float, float, float, float]

    def depth_px(self, xy_px: NDArray[np.float64], *, shape_yx: tuple[int, int]) -> NDArray[np.float64]:
        """(n,) How far inside the core centres lie, negative outside; the border of the image is no edge of a core."""
        left, top, right, bottom = self.core
        height, width = shape_yx
        x, y = xy_px[:, 0] + 0.5, xy_px[:, 1] + 0.5
        edges = [
            np.full(len(xy_px), np.inf),
            *([x - left] if left > 0 else []),
            *([y - top] if top > 0 else []),
            *([right - x] if right < width else []),
            *([bottom - y] if bottom < height else []),
        ]
        return np.asarray(np.min(edges, axis=0))


def tile_side_px(queries: int, *, diameter_px: float) -> float:
    """Side of a square in which closely packed particles do not outnumber the queries."""
    return math.sqrt(queries / CLOSE_PACKING) * diameter_px


def lay_tiles(shape_yx: tuple[int, int], *, side_px: float, overlap_px: float) -> list[Tile]:
    """As few tiles of at most `side_px` as cover the image with at least `overlap_px` between neighbours, all alike."""
    rows, columns = (_spans(size, side_px=side_px, overlap_px=overlap_px) for size in shape_yx)
    return [
        Tile((left, top, right, bottom), (core_left, core_top, core_right, core_bottom))
        for top, bottom, core_top, core_bottom in rows
        for left, right, core_left, core_right in columns
    ]


def _spans(size: int, *, side_px: float, overlap_px: float) -> list[tuple[int, int, float, float]]:
    side = max(math.ceil(side_px), 1)
    if size <= side:
        return [(0, size, 0.0, float(size))]
    if not side > overlap_px:
        raise ValueError(f"tiles of {side_px:g} px cannot overlap by {overlap_px:g} px")
    count = math.ceil((size - overlap_px) / (side - overlap_px))
    starts = [round(i * (size - side) / (count - 1)) for i in range(count)]
    edges = [0.0, *((starts[i] + side + starts[i + 1]) / 2 for i in range(count - 1)), float(size)]
    return [(start, start + side, edges[i], edges[i + 1]) for i, start in enumerate(starts)]


def owned(
    tiles: Sequence[Tile],
    answers: Sequence[NDArray[np.float64]],
    *,
    shape_yx: tuple[int, int],
    same_px: float,
) -> list[NDArray[np.bool_]]:
    """Which answers of each tile stand, so that every particle is answered for once; any order of tiles gives the same.

    An answer stands where its centre lies in its tile's core. Near a seam two tiles see the same particle at slightly
    different places: of two answers of different tiles closer than `same_px` the one deeper in its core stands, also
    where each tile puts the centre into the other's core. Answers of one tile never affect each other.

    Parameters
    ----------
    answers : (n, 2) centres of each tile, in pixels of the whole image
    """
    from scipy.spatial import cKDTree

    tile_of = np.concatenate([np.full(len(one), number) for number, one in enumerate(answers)]).astype(np.intp)
    xy_px = np.concatenate([np.asarray(one, np.float64).reshape(-1, 2) for one in answers])
    depth = np.concatenate(
        [tile.depth_px(one.reshape(-1, 2), shape_yx=shape_yx) for tile, one in zip(tiles, answers, strict=True)]
    )
    # ties by place and then by region: nothing depends on the order in which tiles come
    region = np.array([tile.region for tile in tiles]).reshape(-1, 4)[tile_of]
    order = np.lexsort((region[:, 0], region[:, 1], xy_px[:, 0], xy_px[:, 1], -depth))
    tree = cKDTree(xy_px) if len(xy_px) else None
    is_claimed, stands = np.zeros(len(xy_px), bool), np.zeros(len(xy_px), bool)
    for i in order:
        if is_claimed[i] or tree is None:
            continue
        near = np.array([j for j in tree.query_ball_point(xy_px[i], same_px) if tile_of[j] != tile_of[i]], np.intp)
        near = near[~is_claimed[near] & ~stands[near]]
        if depth[i] < -same_px or (depth[i] < 0 and len(near) == 0):
            continue  # the tile that owns the place sees nothing there
        stands[i] = True
        distance = np.hypot(*(xy_px[near] - xy_px[i]).T)
        near = near[np.lexsort((xy_px[near, 0], xy_px[near, 1], distance))]
        _, first = np.unique(tile_of[near], return_index=True)  # the nearest one of each other tile
        is_claimed[near[first]] = True
    ends = np.cumsum([len(one) for one in answers])[:-1]
    return [np.asarray(part) for part in np.split(stands, ends)]
