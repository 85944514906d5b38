"""CryoSegNet's second half, from masks to particles, as it should be; `published` has it as published."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryosegnet.mask_generation import Masks
from cryopick.processing.probability import logit

WRONG_SIZE, OVERLAPPING = "wrong size", "inside a better mask"
SIZE_RANGE = (0.5, 1.7)
"""Masks whose equivalent diameter over the particle's lies outside are dropped."""
CONTAINED_SHARE = 0.6
"""Masks of which a larger share lies in a better one are dropped."""
CENTRING_REACH = 0.12
"""A mask whose centroid lies farther than so many diameters from the maximum that asked for it does not move it."""


def particle_centres(masks: Masks, *, particle_px: float, is_peak: bool) -> NDArray[np.float64]:
    """(n, 2) centroids of masks; where one has strayed from the map's maximum that asked for it, that maximum.

    Parameters
    ----------
    particle_px : diameter of a particle in pixels of the map
    is_peak : whether the prompts are maxima of the map; points of a grid say nothing of centres
    """
    gap = np.hypot(*(masks.centroid_xy_px - masks.prompt_xy_px).T)
    has_strayed = is_peak & (gap > CENTRING_REACH * particle_px)
    return np.where(has_strayed[:, None], masks.prompt_xy_px, masks.centroid_xy_px)


def equivalent_diameter(area_px: NDArray[np.number]) -> NDArray[np.float64]:
    """(n,) diameter of the disc with the same area."""
    return np.asarray(2 * np.sqrt(np.asarray(area_px, np.float64) / np.pi))


def corrected_selection(masks: Masks, score: NDArray[np.floating], *, particle_px: float) -> NDArray[np.str_]:
    """(n,) why each mask is no particle, or "": the generator's reasons, then size, then overlap with a better one.

    Parameters
    ----------
    score : (n,) higher is better
    particle_px : diameter that a particle's mask should have, in pixels of the map
    """
    reason = masks.reason.astype("<U32")
    relative = equivalent_diameter(masks.area_px) / particle_px
    reason[(reason == "") & ((relative < SIZE_RANGE[0]) | (relative > SIZE_RANGE[1]))] = WRONG_SIZE
    standing = np.flatnonzero(reason == "")
    order = standing[np.argsort(-np.asarray(score, np.float64)[standing], kind="stable")]
    reason[order[contained(masks.take(order), limit=CONTAINED_SHARE)]] = OVERLAPPING
    return reason


def contained(masks: Masks, *, limit: float) -> NDArray[np.bool_]:
    """(n,) True where more than `limit` of a mask, or of a better one, is shared with a better one that stands.

    Parameters
    ----------
    masks : best first
    """
    from scipy.spatial import cKDTree

    n = len(masks)
    is_contained = np.zeros(n, bool)
    if n < 2:
        return is_contained
    reach = float(np.hypot(*(masks.size_px + 1).T).max())
    pairs = cKDTree(masks.centroid_xy_px).query_pairs(reach, output_type="ndarray")
    pairs.sort(axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    box = masks.box_xyxy_px
    low, high = (
        np.maximum(box[pairs[:, 0], :2], box[pairs[:, 1], :2]),
        np.minimum(box[pairs[:, 0], 2:], box[pairs[:, 1], 2:]),
    )
    touching = (high >= low).all(axis=1)
    for (better, worse), (left, top), (right, bottom) in zip(
        pairs[touching].tolist(), low[touching].tolist(), high[touching].tolist(), strict=True
    ):
        if is_contained[better] or is_contained[worse]:
            continue
        parts = [
            masks.patches[i][top - box[i, 1] : bottom + 1 - box[i, 1], left - box[i, 0] : right + 1 - box[i, 0]]
            for i in (better, worse)
        ]
        shared = int(np.count_nonzero(parts[0] & parts[1]))
        is_contained[worse] = shared > limit * min(masks.area_px[better], masks.area_px[worse])
    return is_contained


# ------------------------------------------------------------------------------------------------------------ score


def score_features(height: NDArray[np.floating], masks: Masks, *, particle_px: float) -> NDArray[np.float64]:
    """(n, 6) what speaks for a mask: map, predicted IoU, stability, size, in forms of which a sum makes sense.

    Parameters
    ----------
    height : (n,) of the blurred particle map at the mask, 0 to 1
    particle_px : diameter that a particle's mask should have
    """
    predicted = np.asarray(masks.predicted_iou, np.float64)
    log_size = np.log(np.maximum(equivalent_diameter(masks.area_px), 1.0) / particle_px).clip(-1.5, 1.5)
    map_logit = logit(np.clip(np.asarray(height, np.float64), 1e-4, 1 - 1e-4))
    bounded = np.clip(predicted, 0.0, 1.0)
    return np.stack([map_logit, bounded, bounded**2, masks.stability, log_size, log_size**2], axis=1).astype(np.float64)


def height_at(probability: NDArray[np.float32], xy_px: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n,) of a map at places between its pixels, bilinear; the outermost pixel beyond its border."""
    import cv2

    if len(xy_px) == 0:
        return np.zeros(0, np.float32)
    x, y = np.asarray(xy_px, np.float32).T
    found = [
        cv2.remap(
            probability,
            x[i : i + 30_000, None],
            y[i : i + 30_000, None],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[:, 0]
        for i in range(0, len(x), 30_000)  # OpenCV's largest picture
    ]
    return np.asarray(np.concatenate(found), np.float32)
