"""Segment Anything's generator on one picture as its authors run it: the whole picture, then zoomed crops of it.

Each crop is enlarged to the square that the model sees and asked at a grid of points of its own. Masks that touch a
border of the crop which is none of the picture are dropped, as another crop shows them whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.mask_generation import (
    DUPLICATE,
    GeneratorSettings,
    Masks,
    Segmenter,
    box_suppression,
    described,
    filtered,
    joined,
    point_grid,
)
from cryopick.processing.regions import without_small_regions

AT_CROP_EDGE = "at the edge of a crop"
CROP_OVERLAP = 512 / 1500
"""Of neighbouring crops, as a share of the picture's shorter side divided by half the crops per side."""
CROP_EDGE_PX = 20
"""Boxes closer than this to a border of their crop touch it."""
MOST_LAYERS, LARGEST_GRID = 4, 512


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Grids and crops; the defaults are those of Segment Anything's generator, which CryoSegNet's program leaves.

    Parameters
    ----------
    points_per_side : of the grid on the whole picture
    layers : layer `i` has 2^i x 2^i crops; 0 sees the whole picture alone
    points_divisor : a layer has so many times fewer points per side than the one before
    """

    points_per_side: int = 32
    layers: int = 0
    points_divisor: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.points_per_side <= LARGEST_GRID:
            raise SettingsError(f"points_per_side is {self.points_per_side}, expected 1 to {LARGEST_GRID}")
        if not 0 <= self.layers <= MOST_LAYERS:
            raise SettingsError(f"crop_layers is {self.layers}, expected 0 to {MOST_LAYERS}")


@dataclass(frozen=True)
class Crop:
    """A window of the picture: (left, top, right, bottom), pixel edges, and the layer that it is of."""

    box: tuple[int, int, int, int]
    layer: int

    @property
    def area_px(self) -> int:
        """Pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def crops_of(shape_yx: tuple[int, int], *, layers: int) -> list[Crop]:
    """The whole picture, then the overlapping crops of each layer."""
    height, width = shape_yx
    found = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(CROP_OVERLAP * min(shape_yx) * 2 / per_side)
        size_x, size_y = (-(-(overlap * (per_side - 1) + size) // per_side) for size in (width, height))
        lefts, tops = ([(size - overlap) * number for number in range(per_side)] for size in (size_x, size_y))
        found += [
            Crop((left, top, min(left + size_x, width), min(top + size_y, height)), layer)
            for left in lefts
            for top in tops
        ]
    return found


def masks_by_grid(
    segmenter: Segmenter, picture: NDArray[np.float32], settings: GeneratorSettings, crops: CropSettings
) -> Masks:
    """All masks of a picture, in its pixels, by descending predicted IoU; those that are dropped say why.

    Parameters
    ----------
    picture : (h, w) in 0..255, of any size
    settings : `smallest_region_px` in pixels of the picture; small regions are removed at last, and doubles once more

    References
    ----------
    A. Kirillov et al., Segment Anything, ICCV 2023, appendix B; the arithmetic of its program.
    """
    untouched = replace(settings, smallest_region_px=0.0, counts_last_pixel=False)
    windows = crops_of((picture.shape[0], picture.shape[1]), layers=crops.layers)
    found, sizes = [], []
    for window in windows:
        per_side = crops.points_per_side // crops.points_divisor**window.layer
        if per_side > 0:
            masks = _masks_of_crop(segmenter, picture, window, untouched, points_per_side=per_side)
            found.append(masks)
            sizes.append(np.full(len(masks), window.area_px))
    masks, area = joined(found), np.concatenate(sizes)
    if len(found) > 1:  # of one thing that several crops show, the closest look counts
        masks = _without_doubles(masks, 1 / area, limit=settings.nms_iou)
    if settings.smallest_region_px > 0:
        masks = cleaned(masks, smallest_px=settings.smallest_region_px, limit=settings.nms_iou)
    return masks.take(np.argsort(-masks.predicted_iou, kind="stable"))


def _masks_of_crop(
    segmenter: Segmenter, picture: NDArray[np.float32], crop: Crop, settings: GeneratorSettings, *, points_per_side: int
) -> Masks:
    """Of one crop, in pixels of the picture."""
    left, top, right, bottom = crop.box
    shape_yx = bottom - top, right - left
    shown, shown_yx = _enlarged(picture[top:bottom, left:right], side=segmenter.image_px)
    embedding = segmenter.embed(shown[None])
    prompts = point_grid(shape_yx, points_per_side=points_per_side)
    factor_xy = np.array([shown_yx[1] / shape_yx[1], shown_yx[0] / shape_yx[0]])
    found = []
    for chosen in _batches(len(prompts), settings.prompts_per_batch):
        count = chosen.stop - chosen.start
        logits, predicted = segmenter.decode(embedding, np.zeros(count, np.intp), prompts[chosen] * factor_xy)
        found.append(
            described(
                _as_crop(logits, shown_yx=shown_yx, shape_yx=shape_yx),
                predicted,
                prompts[chosen] + [left, top],
                corner=np.tile([left, top], (count, 1)),
                shape_yx=(picture.shape[0], picture.shape[1]),
                settings=settings,
            )
        )
    masks = joined(found)
    at_edge = _is_at_crop_edge(masks.box_xyxy_px, crop, shape_yx=(picture.shape[0], picture.shape[1]))
    # what is at an edge must not push others out
    inner, outer = masks.take(~at_edge), masks.take(at_edge)
    told = replace(outer, reason=np.full(len(outer), AT_CROP_EDGE, "<U32"))
    return joined([filtered(inner, settings), told])


def _enlarged(crop: NDArray[np.float32], *, side: int) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """The crop with its longer side as the model sees it, continued by zeros to a square, and its shape in there."""
    from PIL import Image

    height, width = crop.shape
    factor = side / max(height, width)
    shape_yx = int(height * factor + 0.5), int(width * factor + 0.5)
    if shape_yx != crop.shape:
        levels = Image.fromarray(np.rint(crop).astype(np.uint8))  # as the program resizes
        crop = np.asarray(levels.resize(shape_yx[::-1], Image.Resampling.BILINEAR), np.float32)
    square = np.zeros((side, side), np.float32)
    square[: shape_yx[0], : shape_yx[1]] = crop
    return square, shape_yx


def _as_crop(
    logits: NDArray[np.float32], *, shown_yx: tuple[int, int], shape_yx: tuple[int, int]
) -> NDArray[np.float32]:
    """(n, m, side, side) logits without the padding, at the size of the crop."""
    inside = logits[..., : shown_yx[0], : shown_yx[1]]
    if inside.shape[-2:] == shape_yx:
        return inside
    import torch
    from torch.nn.functional import interpolate

    with torch.inference_mode():
        resized = interpolate(torch.from_numpy(inside), size=shape_yx, mode="bilinear", align_corners=False)
    return np.asarray(resized.numpy(), np.float32)


def _is_at_crop_edge(box_xyxy_px: NDArray[np.int64], crop: Crop, *, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """(n,) True where a side of the box lies at one of the crop's that is none of the picture's."""
    whole = np.array([0, 0, shape_yx[1], shape_yx[0]])
    near = [np.abs(box_xyxy_px - borders) <= CROP_EDGE_PX for borders in (np.array(crop.box), whole)]
    return np.asarray((near[0] & ~near[1]).any(axis=1))


def _without_doubles(masks: Masks, preference: NDArray[np.floating], *, limit: float) -> Masks:
    """Of standing masks whose boxes overlap more than `limit`, those with the lower preference are dropped."""
    standing = np.flatnonzero(masks.reason == "")
    is_kept = box_suppression(masks.box_xyxy_px[standing], preference[standing], limit=limit, counts_last_pixel=False)
    reason = masks.reason.copy()
    reason[standing[~is_kept]] = DUPLICATE
    return replace(masks, reason=reason)


def cleaned(masks: Masks, *, smallest_px: float, limit: float) -> Masks:
    """Standing masks without holes and islands smaller than so many pixels, then without the doubles that this makes.

    Of two that are now alike the one that was whole before stands.
    """
    box, area, centroid = masks.box_xyxy_px.copy(), masks.area_px.copy(), masks.centroid_xy_px.copy()
    patches, is_changed = list(masks.patches), np.zeros(len(masks), bool)
    for i in np.flatnonzero(masks.reason == "").tolist():
        whole = without_small_regions(patches[i], smallest_px=smallest_px)
        is_changed[i] = not np.array_equal(whole, patches[i])
        if is_changed[i]:
            y, x = np.nonzero(whole)
            left, top = masks.box_xyxy_px[i, :2]
            patches[i] = whole[y.min() : y.max() + 1, x.min() : x.max() + 1]
            box[i] = left + x.min(), top + y.min(), left + x.max(), top + y.max()
            area[i], centroid[i] = len(x), (left + x.mean(), top + y.mean())
    masks = replace(masks, box_xyxy_px=box, area_px=area, centroid_xy_px=centroid, patches=tuple(patches))
    return _without_doubles(masks, 1.0 - is_changed, limit=limit)


def _batches(count: int, length: int) -> Iterator[slice]:
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))
