"""Selection of masks as in the authors' program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryosegnet.mask_generation import Masks

WRONG_SIZE = "wrong size"
PUBLISHED_IOU = 0.94
"""Boxes must have a higher predicted IoU."""
PUBLISHED_SIZE_SHARE = 0.2
PUBLISHED_DUPLICATE_IOU = 0.9999
"""Picks above it are written twice, the second one displaced at random."""


@dataclass(frozen=True, eq=False)
class PublishedPicks:
    """What the published program writes for one micrograph.

    Parameters
    ----------
    xy_px : (n, 2) whole pixels of the micrograph
    score : (n,) predicted IoU, which the program does not write
    diameter_px : twice the radius that it draws: the diagonal of the commonest box, 41 % more than a disc's diameter
    disc_diameter_px : of the disc with the area of the median mask among the picks
    index : (n,) the mask of each pick
    reason : (m,) over all masks: why it is no pick, or ""
    """

    xy_px: NDArray[np.float64]
    score: NDArray[np.float32]
    diameter_px: float
    disc_diameter_px: float
    index: NDArray[np.intp]
    reason: NDArray[np.str_]


def published_picks(
    masks: Masks,
    *,
    map_shape_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    kept_iou: float = PUBLISHED_IOU,
    duplicates: np.random.Generator | None = None,
) -> PublishedPicks:
    """The published post-processing, with its arithmetic and its faults.

    Of the boxes with a predicted IoU above `kept_iou` those are kept whose width and height are near the commonest
    ones. The tolerance is a fifth of the radius in pixels of the micrograph but is applied to boxes in pixels of the
    map, so that it grows with the micrograph. Centres are those of the boxes, cut to whole pixels.

    Parameters
    ----------
    masks : kept by the generator, by descending predicted IoU
    map_shape_yx : of the map that the masks lie in (published 1024 x 1024)
    shape_yx : of the micrograph
    kept_iou : 0.94 in the program; one value per protein in the article, which lists none
    duplicates : where given, picks above 0.9999 are written twice, as published; the program does not seed

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program, February 2024 and later.
    """
    reason = masks.reason.astype("<U32")
    reason[(reason == "") & ~(masks.predicted_iou > kept_iou)] = f"predicted IoU of {kept_iou:g} or less"
    standing = np.flatnonzero(reason == "")
    if len(standing) == 0:  # the program stops here with an error
        return PublishedPicks(np.zeros((0, 2)), np.zeros(0, np.float32), 0.0, 0.0, standing, reason)
    width, height = masks.size_px[standing].T
    factor_x, factor_y = shape_yx[1] / map_shape_yx[1], shape_yx[0] / map_shape_yx[0]
    usual_width, usual_height = _first_mode(width), _first_mode(height)
    radius = int(np.hypot(usual_width * factor_x, usual_height * factor_y) // 2)
    margin = PUBLISHED_SIZE_SHARE * radius
    is_usual = np.ones(len(standing), bool)
    for size, usual in ((width, usual_width), (height, usual_height)):
        is_usual &= (size > usual - margin / 3) & (size < usual + margin)
    reason[standing[~is_usual]] = WRONG_SIZE
    index = standing[is_usual]
    xy_px = box_centres(masks.take(index), factor_xy=(factor_x, factor_y))
    discs_px = disc_diameters(masks.area_px[index], factor_xy=(factor_x, factor_y))
    disc_px = float(np.median(discs_px)) if len(index) else 0.0  # the commonest width and height may be of two masks
    if duplicates is not None:
        again = np.flatnonzero(masks.predicted_iou[index] > PUBLISHED_DUPLICATE_IOU)
        reach = int(radius / 10)
        offset = duplicates.integers(-reach, reach, size=(len(again), 2), endpoint=True)
        xy_px = np.concatenate([xy_px, xy_px[again] + offset])
        index = np.concatenate([index, index[again]])
    return PublishedPicks(xy_px, masks.predicted_iou[index], float(2 * radius), disc_px, index, reason)


def box_centres(masks: Masks, *, factor_xy: tuple[float, float]) -> NDArray[np.float64]:
    """(n, 2) where the program puts masks, cut to whole pixels of the micrograph, of which a mask's has `factor_xy`."""
    return np.floor((masks.box_xyxy_px[:, :2] + masks.size_px / 2) * factor_xy)


def disc_diameters(area_px: NDArray[np.integer], *, factor_xy: tuple[float, float]) -> NDArray[np.float64]:
    """(n,) of discs with the areas of masks, in pixels of the micrograph."""
    return np.asarray(2 * np.sqrt(area_px * (factor_xy[0] * factor_xy[1]) / np.pi))


def _first_mode(values: NDArray[np.float64]) -> float:
    """The commonest value; of several the one that comes first."""
    unique, first, count = np.unique(values, return_index=True, return_counts=True)
    best = count == count.max()
    return float(unique[best][np.argmin(first[best])])
