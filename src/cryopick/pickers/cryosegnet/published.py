"""The published system behind its U-Net, whole or in part: the program's selection of masks, and its ablations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryosegnet.map_masks import mask_pictures
from cryopick.pickers.cryosegnet.mask_generation import Masks
from cryopick.pickers.cryosegnet.masks import WRONG_SIZE, equivalent_diameter
from cryopick.pickers.cryosegnet.model import ON_A_PARTICLE, Seen
from cryopick.processing.regions import find_objects, remove_small
from cryopick.types import Micrograph, Picks

Modules = Literal["all", "unet", "unet+sam", "sam"]
PostProcessing = Literal["corrected", "published", "none"]
PUBLISHED_IOU = 0.94
"""Boxes must have a higher predicted IoU."""
PUBLISHED_SIZE_SHARE = 0.2
PUBLISHED_DUPLICATE_IOU = 0.9999
"""Picks above it are written twice, the second one displaced at random."""


@dataclass(frozen=True, kw_only=True)
class PublishedChain:
    """From masks to picks as published; settings of the picker, by their names there.

    Parameters
    ----------
    modules : all, or those of an ablation: unet+sam leaves the post-processing out, sam the U-Net
    postprocessing : all masks are picks unless it is published
    """

    modules: Modules
    postprocessing: PostProcessing
    kept_iou: float
    box_diameter: bool
    jittered_duplicates: bool

    @property
    def is_stretched(self) -> bool:
        """Whether Segment Anything sees the picture stretched to 256 levels, as the program does with its map."""
        return self.postprocessing == "published" and self.modules != "sam"

    def picks(self, micrograph: Micrograph, seen: Seen, masks: Masks, *, is_compact: bool) -> Picks:
        """Of the generator's masks, those of the post-processing, or all that it kept.

        Parameters
        ----------
        is_compact : whether Segment Anything is one of ours
        """
        (rows, columns), (height, width) = seen.picture.shape, micrograph.shape_yx
        if self.modules == "unet+sam" or self.postprocessing != "published":
            kept, factor_xy = masks.kept(), (width / columns, height / rows)
            xy_px, score = box_centres(kept, factor_xy=factor_xy), kept.predicted_iou
            sizes: NDArray[np.float64] | float = equivalent_diameter(kept.area_px * (factor_xy[0] * factor_xy[1]))
        else:
            # the program does not seed; ours repeats itself
            random = np.random.default_rng(crc32(micrograph.name.encode())) if self.jittered_duplicates else None
            found = published_picks(
                masks,
                map_shape_yx=(rows, columns),
                shape_yx=(height, width),
                kept_iou=self.kept_iou,
                duplicates=random,
            )
            masks = replace(masks, reason=found.reason)
            xy_px, score = found.xy_px, found.score
            sizes = max(found.diameter_px if self.box_diameter else found.disc_diameter_px, 1.0)
        pictures = seen.pictures | mask_pictures(masks, seen.picture.shape)
        warnings = () if len(xy_px) else (why_no_masks(masks, is_compact=is_compact),)
        return Picks.of_candidates(micrograph, xy_px, score, sizes, maps=pictures, warnings=warnings)


def region_picks(micrograph: Micrograph, seen: Seen, *, smallest_px: float) -> Picks:
    """The connected regions of a map that are particles, where the U-Net alone is to say: no size is needed.

    Scores are means of the map; regions of fewer than `smallest_px` pixels are left out.
    """
    objects = find_objects(remove_small(seen.picture > ON_A_PARTICLE, min_area_px=smallest_px))
    total = np.bincount(objects.labels.ravel(), weights=seen.picture.ravel(), minlength=len(objects) + 1)[1:]
    score = np.asarray(total / objects.area_px, np.float32)
    factor_y, factor_x = seen.scale.factor_yx
    sizes = equivalent_diameter(objects.area_px * (1 / factor_x * (1 / factor_y)))
    return Picks.of_candidates(micrograph, seen.scale.to_stored_xy(objects.xy_px), score, sizes, maps=seen.pictures)


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
    discs_px = equivalent_diameter(masks.area_px[index] * (factor_x * factor_y))
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


def why_no_masks(masks: Masks, *, is_compact: bool) -> str:
    """A sentence for the user where no mask became a pick.

    Parameters
    ----------
    is_compact : whether Segment Anything is one of ours
    """
    if len(masks) == 0:
        return "Segment Anything was not asked anywhere, so there are no masks"
    reasons, counts = np.unique(masks.reason, return_counts=True)
    fates = ", ".join(f"{reason} {count}" for reason, count in zip(reasons.tolist(), counts.tolist(), strict=True))
    told = f"none of {len(masks)} masks passes ({fates}); the highest predicted IoU is {masks.predicted_iou.max():.2f}"
    if is_compact:
        told += (
            "; the published filters are for Meta's models, and the compact one in the package predicts less: give "
            "Meta's (--sam sam_vit_h_4b8939.pth), or --postprocessing corrected"
        )
    return told


def _first_mode(values: NDArray[np.float64]) -> float:
    """The commonest value; of several the one that comes first."""
    unique, first, count = np.unique(values, return_index=True, return_counts=True)
    best = count == count.max()
    return float(unique[best][np.argmin(first[best])])
