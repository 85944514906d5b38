"""The connected objects of a binary mask, and a mask without its small holes and islands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Objects:
    """The connected objects of a mask, eight neighbours each, in reading order of their first pixel.

    Parameters
    ----------
    labels : (h, w) int32, 0 outside, `i + 1` on object `i`
    xy_px : (n, 2) float64, centres of mass
    area_px : (n,) int64, pixels
    box_xywh : (n, 4) int64, left, top, width, height of the box around each
    """

    labels: NDArray[np.int32]
    xy_px: NDArray[np.float64]
    area_px: NDArray[np.int64]
    box_xywh: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.area_px)

    def window(self, index: int) -> NDArray[np.bool_]:
        """(height, width) of the box: True on object `index`."""
        left, top, width, height = self.box_xywh[index]
        return np.asarray(self.labels[top : top + height, left : left + width] == index + 1)

    def touches_edge(self) -> NDArray[np.bool_]:
        """(n,) True where an object reaches the border of the image, so that a part of it may be missing."""
        height, width = self.labels.shape
        left, top, box_width, box_height = self.box_xywh.T
        return np.asarray((left == 0) | (top == 0) | (left + box_width == width) | (top + box_height == height))

    def keep(self, is_kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(h, w) mask of the chosen objects."""
        return np.asarray(np.concatenate([[False], is_kept])[self.labels])


def find_objects(mask: NDArray[np.bool_]) -> Objects:
    """The connected objects of a mask, with eight neighbours."""
    import cv2

    count, labels, statistics, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    table = np.asarray(statistics[1:count], np.int64)
    return Objects(np.asarray(labels, np.int32), np.asarray(centroids[1:count], np.float64), table[:, 4], table[:, :4])


def remove_small(mask: NDArray[np.bool_], *, min_area_px: float) -> NDArray[np.bool_]:
    """The mask without objects of fewer pixels."""
    objects = find_objects(mask)
    return objects.keep(objects.area_px >= min_area_px)


def fill_holes(mask: NDArray[np.bool_], *, max_area_px: float = np.inf) -> NDArray[np.bool_]:
    """The mask with its holes filled: background that does not reach the border, up to an area."""
    import cv2

    outside = (~np.pad(mask, 1)).astype(np.uint8)  # one background all around
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    is_hole = statistics[:count, 4] <= max_area_px
    is_hole[labels[0, 0]] = False
    is_hole[0] = False  # label 0 is the mask itself
    return np.asarray(mask | is_hole[labels][1:-1, 1:-1])


def without_small_regions(mask: NDArray[np.bool_], *, smallest_px: float) -> NDArray[np.bool_]:
    """Holes and islands below `smallest_px` pixels filled and removed; the largest island always stays."""
    islands = find_objects(np.pad(fill_holes(mask, max_area_px=np.ceil(smallest_px) - 1), 1))
    is_kept = islands.area_px >= smallest_px
    if len(islands):
        is_kept[np.argmax(islands.area_px)] = True
    return islands.keep(is_kept)[1:-1, 1:-1]
