"""Automatic mask generation: one mask per prompt point, of a whole picture, whatever network segments.

The steps are those of Segment Anything's generator: prompts in batches, filters on predicted IoU and stability, removal
of small regions, non-maximum suppression of boxes. Pictures larger than the network's input are covered by tiles; every
prompt is answered in the tile that holds it farthest from a border, so that nothing is seen twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import stand_best_first
from cryopick.processing.regions import without_small_regions

LOW_IOU = "low predicted IoU"
UNSTABLE = "unstable"
EMPTY = "empty"
DUPLICATE = "duplicate"
REASONS = (EMPTY, LOW_IOU, UNSTABLE, DUPLICATE)
"""Why the generator drops a mask, in the order in which it looks."""


class Segmenter(Protocol):
    """A promptable segmentation network."""

    @property
    def image_px(self) -> int:
        """Side of the square that it sees."""
        ...

    def embed(self, tiles: NDArray[np.float32]) -> object:
        """(t, side, side) pictures in 0..255 to whatever `decode` needs of them; computed once per tile."""
        ...

    def decode(
        self, embeddings: object, tile: NDArray[np.intp], xy_px: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks for point prompts.

        Parameters
        ----------
        tile : (n,) the tile of each prompt
        xy_px : (n, 2) its place in the tile

        Returns
        -------
        logits : (n, m, side, side), m masks per prompt
        predicted_iou : (n, m)
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """What the generator keeps; the defaults are those of Segment Anything, which CryoSegNet uses.

    Parameters
    ----------
    predicted_iou : masks must be above it
    stability : masks must reach it: the IoU of the mask at logits +`stability_offset` and -`stability_offset`
    nms_iou : of two masks whose boxes overlap more, the one with the lower predicted IoU is dropped
    smallest_region_px : smaller holes and islands are removed, in pixels of the picture; 0 keeps all
    prompts_per_batch : prompts decoded at once
    tile_overlap : share of a tile's side that it shares with its neighbour, on either side
    counts_last_pixel : whether boxes hold their last row and column when their overlap is measured. Segment Anything's
        generator leaves them out, which for a box of 12 pixels changes an IoU by a few hundredths
    """

    predicted_iou: float = 0.88
    stability: float = 0.95
    stability_offset: float = 1.0
    nms_iou: float = 0.7
    smallest_region_px: float = 0.0
    prompts_per_batch: int = 64
    tile_overlap: float = 0.19
    counts_last_pixel: bool = True

    def __post_init__(self) -> None:
        for name in ("nms_iou", "stability"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        if not self.smallest_region_px >= 0:
            raise SettingsError(f"smallest_region_px is {self.smallest_region_px}, expected 0 or more")
        if self.prompts_per_batch < 1:
            raise SettingsError(f"prompts_per_batch is {self.prompts_per_batch}, expected at least 1")
        if not 0 <= self.tile_overlap < 0.5:
            raise SettingsError(f"tile_overlap is {self.tile_overlap}, expected 0 to less than 0.5")


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of one picture with what is known of each; those that were dropped too.

    Parameters
    ----------
    prompt_xy_px : (n, 2) the point that asked for it
    predicted_iou, stability : (n,)
    box_xyxy_px : (n, 4) first and last column and row of the mask, as (left, top, right, bottom); 0 where it is empty
    area_px : (n,) pixels
    centroid_xy_px : (n, 2) mean position of its pixels; the prompt where it is empty
    patches : n masks, each cut to its box
    reason : (n,) one of `REASONS`, or "" where it is kept
    """

    prompt_xy_px: NDArray[np.float64]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    box_xyxy_px: NDArray[np.int64]
    area_px: NDArray[np.int64]
    centroid_xy_px: NDArray[np.float64]
    patches: tuple[NDArray[np.bool_], ...]
    reason: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.patches)

    @classmethod
    def none(cls) -> Masks:
        """No masks."""
        nothing = np.zeros(0)
        return cls(
            prompt_xy_px=np.zeros((0, 2)),
            predicted_iou=nothing.astype(np.float32),
            stability=nothing.astype(np.float32),
            box_xyxy_px=np.zeros((0, 4), np.int64),
            area_px=nothing.astype(np.int64),
            centroid_xy_px=np.zeros((0, 2)),
            patches=(),
            reason=nothing.astype("<U32"),
        )

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Masks:
        """Those at `index` (integers or a mask)."""
        chosen = np.flatnonzero(index) if index.dtype == bool else index
        return Masks(
            prompt_xy_px=self.prompt_xy_px[chosen],
            predicted_iou=self.predicted_iou[chosen],
            stability=self.stability[chosen],
            box_xyxy_px=self.box_xyxy_px[chosen],
            area_px=self.area_px[chosen],
            centroid_xy_px=self.centroid_xy_px[chosen],
            patches=tuple(self.patches[int(i)] for i in chosen),
            reason=self.reason[chosen],
        )

    def kept(self) -> Masks:
        """Those without a reason for being dropped."""
        return self.take(self.reason == "")

    @property
    def size_px(self) -> NDArray[np.float64]:
        """(n, 2) width and height of the boxes, last minus first pixel, as the published program counts them."""
        return np.asarray(self.box_xyxy_px[:, 2:] - self.box_xyxy_px[:, :2], np.float64)

    def draw(self, shape_yx: tuple[int, int]) -> NDArray[np.float32]:
        """(h, w) picture: 1 on any of the masks, 0.5 on the rim of each so that neighbours are told apart."""
        import cv2

        picture = np.zeros(shape_yx, np.float32)
        cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
        for (left, top, right, bottom), patch in zip(self.box_xyxy_px.tolist(), self.patches, strict=True):
            if not patch.size:
                continue
            inside = cv2.erode(patch.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            window = picture[top : bottom + 1, left : right + 1]
            np.maximum(window, np.where(inside > 0, 1.0, np.where(patch, 0.5, 0.0)), out=window)
        return picture


def point_grid(shape_yx: tuple[int, int], *, points_per_side: int = 32) -> NDArray[np.float64]:
    """(n², 2) prompts in n x n equal cells, row by row, as the published generator places them.

    On 1024 x 1024 pixels with 32 points the first lies at (16, 16): the generator counts from the corner of the picture
    to the middle of the cell, and the model that it asks counts from the centre of the first pixel.
    """
    if points_per_side < 1:
        raise SettingsError(f"points_per_side is {points_per_side}, expected at least 1")
    height, width = shape_yx
    steps = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(steps * width, steps * height)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def generate_masks(
    segmenter: Segmenter,
    picture: NDArray[np.float32],
    prompts_xy_px: NDArray[np.float64],
    settings: GeneratorSettings | None = None,
) -> Masks:
    """Masks for every prompt, by descending predicted IoU; those that the filters drop say why.

    Parameters
    ----------
    picture : (h, w) in 0..255
    prompts_xy_px : (n, 2) in pixels of the picture, `(0, 0)` the centre of the first one
    """
    settings = settings or GeneratorSettings()
    if len(prompts_xy_px) == 0:
        return Masks.none()
    tiles = _Tiles(picture, side=segmenter.image_px, overlap=settings.tile_overlap)
    tile_of = tiles.nearest(prompts_xy_px)
    used = np.unique(tile_of)
    order = np.argsort(tile_of, kind="stable")
    found: list[Masks] = []
    per_batch = max(1, settings.prompts_per_batch)
    for some in _runs(used, per_batch):
        embeddings = segmenter.embed(tiles.cut(some))
        mine = order[np.isin(tile_of[order], some)]
        for start in range(0, len(mine), per_batch):
            chosen = mine[start : start + per_batch]
            corner = tiles.corner_xy[tile_of[chosen]]
            place = np.searchsorted(some, tile_of[chosen])
            logits, predicted = segmenter.decode(embeddings, place, prompts_xy_px[chosen] - corner)
            found.append(
                described(
                    logits,
                    predicted,
                    prompts_xy_px[chosen],
                    corner=corner,
                    shape_yx=tiles.shape_yx,
                    settings=settings,
                )
            )
    return filtered(joined(found), settings)


def filtered(masks: Masks, settings: GeneratorSettings) -> Masks:
    """Masks by descending predicted IoU, those that the settings drop with the reason."""
    masks = masks.take(np.argsort(-masks.predicted_iou, kind="stable"))
    reason = masks.reason.copy()
    reason[masks.stability < settings.stability] = UNSTABLE
    reason[~(masks.predicted_iou > settings.predicted_iou)] = LOW_IOU
    reason[masks.area_px == 0] = EMPTY
    standing = np.flatnonzero(reason == "")
    is_kept = box_suppression(
        masks.box_xyxy_px[standing],
        masks.predicted_iou[standing],
        limit=settings.nms_iou,
        counts_last_pixel=settings.counts_last_pixel,
    )
    reason[standing[~is_kept]] = DUPLICATE
    return replace(masks, reason=reason)


def joined(parts: Sequence[Masks]) -> Masks:
    """All masks of several sets, one after the other."""
    if not parts:
        return Masks.none()
    return Masks(
        prompt_xy_px=np.concatenate([one.prompt_xy_px for one in parts]),
        predicted_iou=np.concatenate([one.predicted_iou for one in parts]),
        stability=np.concatenate([one.stability for one in parts]),
        box_xyxy_px=np.concatenate([one.box_xyxy_px for one in parts]),
        area_px=np.concatenate([one.area_px for one in parts]),
        centroid_xy_px=np.concatenate([one.centroid_xy_px for one in parts]),
        patches=tuple(patch for one in parts for patch in one.patches),
        reason=np.concatenate([one.reason for one in parts]),
    )


def box_suppression(
    box_xyxy_px: NDArray[np.int64], score: NDArray[np.floating], *, limit: float, counts_last_pixel: bool = True
) -> NDArray[np.bool_]:
    """(n,) True for boxes that no better kept box overlaps by more than `limit` (IoU); ties go to the earlier one.

    Parameters
    ----------
    counts_last_pixel : see `GeneratorSettings`
    """
    from scipy.spatial import cKDTree

    n = len(box_xyxy_px)
    is_kept = np.ones(n, bool)
    if n < 2:
        return is_kept
    low, high = box_xyxy_px[:, :2].astype(np.float64), box_xyxy_px[:, 2:].astype(np.float64) + counts_last_pixel
    sides = high - low
    area = sides.prod(axis=1)
    # boxes whose IoU is above `limit` have centres closer than half the sum of their sides
    reach = float(np.hypot(*sides.T).max())
    pairs = cKDTree((low + high) / 2).query_pairs(reach, output_type="ndarray")
    shared = np.minimum(high[pairs[:, 0]], high[pairs[:, 1]]) - np.maximum(low[pairs[:, 0]], low[pairs[:, 1]])
    both = np.clip(shared, 0, None).prod(axis=1)
    covered = area[pairs[:, 0]] + area[pairs[:, 1]] - both
    overlap = np.divide(both, covered, out=np.zeros(len(pairs)), where=covered > 0)
    rank = np.empty(n, np.intp)
    rank[np.argsort(-np.asarray(score, np.float64), kind="stable")] = np.arange(n)
    pairs = rank[pairs[overlap > limit]]
    pairs.sort(axis=1)
    return stand_best_first(n, pairs)[rank]


# -------------------------------------------------------------------------------------------------------- one mask


def described(
    logits: NDArray[np.float32],
    predicted: NDArray[np.float32],
    prompts: NDArray[np.float64],
    *,
    corner: NDArray[np.int64],
    shape_yx: tuple[int, int],
    settings: GeneratorSettings,
) -> Masks:
    """All masks of a batch of prompts, prompt by prompt, in the frame of the picture.

    Parameters
    ----------
    logits, predicted : (n, m, h, w) and (n, m), as `Segmenter.decode` gives them
    corner : (n, 2) first column and row of the logits in the picture
    shape_yx : of the picture; what lies beyond is padding
    """
    per_prompt = logits.shape[1]
    of_each = [
        _one_of_each(logits[:, k], predicted[:, k], prompts, corner=corner, shape_yx=shape_yx, settings=settings)
        for k in range(per_prompt)
    ]
    order = np.arange(per_prompt * len(prompts)).reshape(per_prompt, len(prompts)).T.ravel()
    return joined(of_each).take(order)


def _one_of_each(
    logits: NDArray[np.float32],
    predicted: NDArray[np.float32],
    prompts: NDArray[np.float64],
    *,
    corner: NDArray[np.int64],
    shape_yx: tuple[int, int],
    settings: GeneratorSettings,
) -> Masks:
    """One mask of each prompt."""
    mask = logits > 0
    inner = (logits > settings.stability_offset).sum(axis=(1, 2))
    outer = (logits > -settings.stability_offset).sum(axis=(1, 2))
    stability = np.where(outer > 0, inner / np.maximum(outer, 1), 0.0).astype(np.float32)
    n = len(mask)
    box = np.zeros((n, 4), np.int64)
    area = np.zeros(n, np.int64)
    centroid = prompts.astype(np.float64).copy()
    patches = []
    for i in range(n):
        left, top = (int(value) for value in corner[i])
        inside = mask[i, : max(shape_yx[0] - top, 0), : max(shape_yx[1] - left, 0)]  # not the padding
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) == 0:
            patches.append(np.zeros((0, 0), bool))
            continue
        patch = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        if settings.smallest_region_px > 0:
            patch = without_small_regions(patch, smallest_px=settings.smallest_region_px)
        y, x = np.nonzero(patch)
        first_x, first_y = left + int(columns[0]), top + int(rows[0])
        # small regions may have been the outermost ones
        patches.append(patch[y.min() : y.max() + 1, x.min() : x.max() + 1])
        box[i] = first_x + x.min(), first_y + y.min(), first_x + x.max(), first_y + y.max()
        area[i] = len(x)
        centroid[i] = first_x + x.mean(), first_y + y.mean()
    return Masks(
        prompt_xy_px=prompts,
        predicted_iou=predicted,
        stability=stability,
        box_xyxy_px=box,
        area_px=area,
        centroid_xy_px=centroid,
        patches=tuple(patches),
        reason=np.full(n, "", "<U32"),
    )


# ----------------------------------------------------------------------------------------------------------- tiles


class _Tiles:
    """Squares that cover a picture; one only, padded with zeros, where the picture is no larger."""

    def __init__(self, picture: NDArray[np.float32], *, side: int, overlap: float) -> None:
        self.side = side
        self.shape_yx = (picture.shape[0], picture.shape[1])
        starts = [_starts(size, side, overlap) for size in self.shape_yx]
        y, x = np.meshgrid(*starts, indexing="ij")
        self.corner_xy = np.stack([x.ravel(), y.ravel()], axis=1)
        self.starts = starts
        padding = [(0, max(0, side - size)) for size in self.shape_yx]
        self.padded = np.pad(picture.astype(np.float32), padding)

    def nearest(self, xy_px: NDArray[np.float64]) -> NDArray[np.intp]:
        """(n,) the tile whose middle is nearest."""
        place = []
        for axis, starts in zip((1, 0), self.starts, strict=True):  # y, then x
            middles = starts + (self.side - 1) / 2
            place.append(np.abs(xy_px[:, axis][:, None] - middles).argmin(axis=1))
        return np.asarray(place[0] * len(self.starts[1]) + place[1], np.intp)

    def cut(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """(t, side, side)."""
        side = self.side
        return np.stack([self.padded[y : y + side, x : x + side] for x, y in self.corner_xy[numbers]])


def _starts(size: int, side: int, overlap: float) -> NDArray[np.int64]:
    """First pixels of the tiles along one axis, spread evenly, both ends covered."""
    if size <= side:
        return np.zeros(1, np.int64)
    step = side * (1 - 2 * overlap)
    count = 1 + int(np.ceil((size - side) / step))
    return np.linspace(0, size - side, count).round().astype(np.int64)


def _runs(numbers: NDArray[np.intp], length: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(numbers), length):
        yield numbers[start : start + length]
