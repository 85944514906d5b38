"""CryoSegNet's second half: from masks to particles, as published and as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import WeightsError
from cryopick.io.checkpoint import card_path, files_of_weights
from cryopick.io.read_once import read_once
from cryopick.processing.mask_generation import Masks
from cryopick.processing.probability import Calibration, logit

if TYPE_CHECKING:
    from cryopick.networks.segment_anything import SamSegmenter

WRONG_SIZE = "wrong size"
OVERLAPPING = "inside a better mask"

# -------------------------------------------------------------------------------------------------------- published

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
    index : (n,) the mask of each pick
    reason : (m,) over all masks: why it is no pick, or ""
    """

    xy_px: NDArray[np.float64]
    score: NDArray[np.float32]
    diameter_px: float
    index: NDArray[np.intp]
    reason: NDArray[np.str_]


def published_picks(
    masks: Masks,
    *,
    map_shape_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    duplicates: np.random.Generator | None = None,
) -> PublishedPicks:
    """The published post-processing, with its arithmetic and its faults.

    Of the boxes with a predicted IoU above 0.94 those are kept whose width and height are near the commonest ones. The
    tolerance is a fifth of the radius in pixels of the micrograph but is applied to boxes in pixels of the map, so that
    it grows with the micrograph. Centres are those of the boxes, cut to whole pixels.

    Parameters
    ----------
    masks : kept by the generator, by descending predicted IoU
    map_shape_yx : of the map that the masks lie in (published 1024 x 1024)
    shape_yx : of the micrograph
    duplicates : where given, picks above 0.9999 are written twice, as published; the program does not seed

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program, February 2024 and later.
    """
    reason = masks.reason.astype("<U32")
    reason[(reason == "") & ~(masks.predicted_iou > PUBLISHED_IOU)] = "predicted IoU of 0.94 or less"
    standing = np.flatnonzero(reason == "")
    if len(standing) == 0:  # the program stops here with an error
        return PublishedPicks(np.zeros((0, 2)), np.zeros(0, np.float32), 0.0, standing, reason)
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
    left_top = masks.box_xyxy_px[index, :2]
    middle = left_top + masks.size_px[index] / 2
    xy_px = np.floor(middle * [factor_x, factor_y])
    if duplicates is not None:
        again = np.flatnonzero(masks.predicted_iou[index] > PUBLISHED_DUPLICATE_IOU)
        reach = int(radius / 10)
        offset = duplicates.integers(-reach, reach, size=(len(again), 2), endpoint=True)
        xy_px = np.concatenate([xy_px, xy_px[again] + offset])
        index = np.concatenate([index, index[again]])
    return PublishedPicks(xy_px, masks.predicted_iou[index], float(2 * radius), index, reason)


def _first_mode(values: NDArray[np.float64]) -> float:
    """The commonest value; of several the one that comes first."""
    unique, first, count = np.unique(values, return_index=True, return_counts=True)
    best = count == count.max()
    return float(unique[best][np.argmin(first[best])])


# -------------------------------------------------------------------------------------------------------- corrected

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


def equivalent_diameter(area_px: NDArray[np.integer]) -> NDArray[np.float64]:
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


@dataclass(frozen=True, eq=False)
class MaskScore:
    """How likely a mask is a particle: a logistic regression on `score_features`, then a calibration.

    Parameters
    ----------
    weights, offset : (k,) and one, of the regression
    calibration : of its result
    refused : what a maximum of the map is worth where Segment Anything gave no usable mask; None where not known
    """

    weights: NDArray[np.float64]
    offset: float
    calibration: Calibration
    refused: Calibration | None = None

    def raw(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) in 0 to 1, not calibrated."""
        return np.asarray(1 / (1 + np.exp(-np.clip(features @ self.weights + self.offset, -30, 30))))

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n,) probabilities."""
        return self.calibration(self.raw(features))

    def to_card(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "weights": self.weights.tolist(),
            "offset": self.offset,
            "calibration": self.calibration.to_list(),
            "refused": None if self.refused is None else self.refused.to_list(),
        }

    @classmethod
    def from_card(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_card`."""
        return cls(
            np.asarray(entry["weights"], np.float64),
            float(entry["offset"]),
            Calibration.from_list(entry["calibration"]),
            None if entry.get("refused") is None else Calibration.from_list(entry["refused"]),
        )


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


# ------------------------------------------------------------------------------------------------- Segment Anything

EMBEDDED = "cryosegnet_sam"
"""Name of the shipped compact model, and the picker that its card names."""


@dataclass(frozen=True, eq=False)
class LoadedSam:
    """Segment Anything with what its masks are worth; `score` is None for models that were not calibrated here."""

    segmenter: SamSegmenter
    score: MaskScore | None


def _files_of_sam(sam: str | None, **_: Any) -> list[Path]:
    """What `load_segmenter` reads; nothing that is known of a name to download."""
    if sam is None:
        return files_of_weights(EMBEDDED)
    path = Path(sam)
    return sorted(path.iterdir()) if path.is_dir() else [path, card_path(path)]


@read_once(_files_of_sam, most=2)
def load_segmenter(sam: str | None, *, device: str = "auto", precision: str = "auto") -> LoadedSam:
    """Segment Anything by path or name; None: the compact one shipped with the package.

    Raises
    ------
    WeightsError
        If there is no such model.
    """
    from cryopick.io.checkpoint import find_weights, load_checkpoint
    from cryopick.networks.segment_anything import COMPACT_NAME, build_compact_sam, load_sam

    path = None if sam is None else Path(sam)
    is_ours = path is None or (path.suffix == ".safetensors" and path.with_suffix(".json").is_file())
    is_ours = is_ours or (path is not None and (path / "weights.safetensors").is_file())
    if not is_ours:
        return LoadedSam(as_segmenter(load_sam(str(sam)), device=device, precision=precision, name=str(sam)), None)
    checkpoint = load_checkpoint(find_weights(EMBEDDED if path is None else path), picker=EMBEDDED)
    card = checkpoint.card
    if card.architecture.get("network") != COMPACT_NAME:
        raise WeightsError(f"{checkpoint.path}: holds {card.architecture.get('network')!r}, expected {COMPACT_NAME!r}")
    model = checkpoint.build(build_compact_sam)
    with checkpoint.reading_card():
        entry = card.postprocessing.get("mask_score")
        score = None if entry is None else MaskScore.from_card(entry)
    return LoadedSam(as_segmenter(model, device=device, precision=precision, name="compact"), score)


def as_segmenter(model: Any, *, device: str = "auto", precision: str = "auto", name: str = "compact") -> SamSegmenter:
    """A `SamModel` on its device, ready to segment."""
    from cryopick.networks.segment_anything import SamSegmenter
    from cryopick.pickers.dense import chosen_bfloat16, chosen_device

    place = chosen_device(device)
    return SamSegmenter(model.eval().to(place), device=place, is_bfloat16=chosen_bfloat16(place, precision), name=name)


def with_reason(masks: Masks, reason: NDArray[np.str_]) -> Masks:
    """The same masks, dropped for these reasons."""
    return replace(masks, reason=reason)
