"""Training of CryoSegNet's compact Segment Anything on particle maps of simulated crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.cryosegnet.judging import MAPPED_PARTICLE_PX, MappedCrop, mapped
from cryopick.pickers.cryosegnet.map_masks import CALIBRATED_FILTERS, disc_share, refused_peaks, segment_map
from cryopick.pickers.cryosegnet.masks import corrected_selection, height_at, particle_centres, score_features
from cryopick.pickers.cryosegnet.model import PEAK_BLUR, ParticleMapper, load_mapper, map_peaks
from cryopick.pickers.cryosegnet.sam_network import build_compact_sam, segment
from cryopick.pickers.cryosegnet.segmenter import EMBEDDED, LoadedSam, MaskScore, as_segmenter
from cryopick.pickers.cryosegnet.tasks import SamTask
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, gaussian_blur
from cryopick.processing.targets import disc_instances
from cryopick.simulation.crops import CropGenerator
from cryopick.training.counted_sizes import counted_sizes
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import detection_scores, device_of, fit_calibration, outcomes_on
from cryopick.training.quarters import keep_crops

if TYPE_CHECKING:
    from torch import Tensor, nn

PROMPT_REACH = 0.5
"""A prompt closer than this many diameters to a particle's centre asks for that particle."""
PEAK_SHARE, PARTICLE_SHARE = 0.5, 0.35
"""Shares of the prompts at maxima of the map and on particles; the others lie anywhere."""
IOU_WEIGHT = 1.0
FAR_WEIGHT = 0.05
SURROUNDINGS_PX = 9
"""Pixels of the mask's grid around a particle's disc, both sides of it together, that count fully."""
ASKS_NOTHING, ASKS_UNKNOWN = -1, -2


@dataclass
class SamTrainable:
    """The compact Segment Anything, maps of simulated crops, prompts and their masks."""

    task: SamTask
    picker: str = field(default=EMBEDDED, init=False)
    _maps: dict[int, MappedCrop] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"task": self.task, "picker": self.picker, "_maps": {}}  # worker processes make their own

    @cached_property
    def mapper(self) -> ParticleMapper:
        """The U-Net whose maps it learns to segment."""
        return load_mapper(self.task.unet)

    @cached_property
    def source(self) -> SimulatedCrops | CropGenerator:
        return self.task.training_crops()

    def prepare(self, batches: int, tell: Callable[[int, int], None]) -> None:  # noqa: ARG002  # however many batches, they share these crops
        """Makes the simulated crops, unless they are on disk or are not to be kept there."""
        keep_crops(self.source, self.task.mapped_crops, tell)

    @cached_property
    def validation(self) -> list[MappedCrop]:
        return [mapped(self.mapper, crop) for crop in self.task.crops_to_judge()]

    def mapped_crop(self, number: int) -> MappedCrop:
        """That of a training crop, made once: a map costs more than a training step on it."""
        if number not in self._maps:
            made = mapped(self.mapper, self.source.crop(number))
            self._maps[number] = replace(made, probability=made.probability.astype(np.float16))
        kept = self._maps[number]
        return replace(kept, probability=kept.probability.astype(np.float32))

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_compact_sam(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Parts of the maps of crops `index * batch_size` onwards, with prompts and the mask that each asks for."""
        import torch

        examples = []
        for i in range(self.task.batch_size):
            number = (index * self.task.batch_size + i) % self.task.mapped_crops
            examples.append(
                example(
                    self.mapped_crop(number),
                    rng,
                    side_px=self.task.image_px,
                    block_px=self.task.patch_px // 4,
                    prompts=self.task.prompts,
                    mask_share=disc_share(self.mapper),
                )
            )
        pictures, points, masks, kinds = (np.stack(arrays) for arrays in zip(*examples, strict=True))
        return {
            "pictures": torch.from_numpy(pictures),
            "points": torch.from_numpy(points),
            "masks": torch.from_numpy(masks),
            "kinds": torch.from_numpy(kinds),
        }

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy and Dice of the masks that were asked for; squared error of the predicted IoU."""
        logits, predicted = segment(network, batch["pictures"], batch["points"])
        return mask_loss(
            logits.float().flatten(0, 1),
            predicted.float().flatten(0, 1),
            batch["masks"].flatten(0, 1),
            batch["kinds"].flatten(),
        )

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision of masks as picks, by predicted IoU, at a quarter of a diameter."""
        sam = LoadedSam(as_segmenter(network, device=device_of(network)), None)
        outcomes = []
        for crop in self.validation:
            xy_px, features = candidates(sam, self.mapper, crop.probability)
            outcomes.append(outcomes_on(crop, (xy_px, features[:, 1])))
        return detection_scores(outcomes)

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        crops = [mapped(self.mapper, crop) for crop in self.task.crops_to_calibrate()]
        sam = LoadedSam(as_segmenter(network, device=device_of(network)), None)
        score = fit_mask_score(sam, self.mapper, crops)
        return {
            "preprocessing": {"particle_px": NOMINAL_PARTICLE_PX, "unet": self.mapper.sha256},
            "postprocessing": {"mask_score": None if score is None else score.to_card()},
            "data": {"kind": "simulation", "seed": self.task.simulation_seed},
        }


# ------------------------------------------------------------------------------------------------ what is asked for


def example(
    crop: MappedCrop,
    rng: np.random.Generator,
    *,
    side_px: int,
    block_px: int,
    prompts: int,
    mask_share: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """A part of a crop's map with prompts.

    Returns
    -------
    picture : (side, side) in 0..255
    points : (n, 2) prompts in pixels of the part
    masks : (n, side / block, side / block) share of each block of pixels that the mask covers
    kinds : (n,) the particle that is asked for, `ASKS_NOTHING`, or `ASKS_UNKNOWN` where either answer is fine
    """
    height, width = crop.probability.shape
    top, left = (int(rng.integers(max(size - side_px, 0) + 1)) for size in (height, width))
    part = crop.probability[top : top + side_px, left : left + side_px]
    xy = crop.xy_px - [left, top]
    diameter = crop.diameter_px
    is_wanted, is_undecided = counted_sizes(diameter, nominal_px=MAPPED_PARTICLE_PX)
    points = _draw_prompts(part, xy[is_wanted], diameter[is_wanted], rng, count=prompts)
    kinds = np.full(prompts, ASKS_NOTHING, np.int64)
    if len(xy):
        gap = np.hypot(*(points[:, None] - xy[None]).transpose(2, 0, 1)) / diameter
        nearest = gap.argmin(axis=1)
        is_asked = gap[np.arange(prompts), nearest] <= PROMPT_REACH
        kinds[is_asked & is_wanted[nearest]] = nearest[is_asked & is_wanted[nearest]]
        kinds[is_asked & is_undecided[nearest]] = ASKS_UNKNOWN
    masks = np.zeros((prompts, side_px // block_px, side_px // block_px), np.float32)
    if is_wanted.any():
        labels = np.zeros((side_px, side_px), np.int64)
        numbers = np.flatnonzero(is_wanted)
        drawn = disc_instances(xy[is_wanted], mask_share * diameter[is_wanted], shape_yx=(side_px, side_px)).labels
        labels[drawn > 0] = numbers[drawn[drawn > 0] - 1] + 1
        blocks = labels.reshape(side_px // block_px, block_px, side_px // block_px, block_px)
        for i in np.flatnonzero(kinds >= 0):
            masks[i] = (blocks == kinds[i] + 1).mean(axis=(1, 3))
        kinds[(kinds >= 0) & (masks.max(axis=(1, 2)) < 0.5)] = ASKS_UNKNOWN  # hardly inside the part
    return np.asarray(255 * part, np.float32), points.astype(np.float32), masks, kinds


def _draw_prompts(
    part: NDArray[np.float32],
    xy_px: NDArray[np.float64],
    diameter_px: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    count: int,
) -> NDArray[np.float64]:
    """(count, 2): maxima of the map, places on particles, places anywhere."""
    side = part.shape[0]
    peaks = map_peaks(part, particle_px=NOMINAL_PARTICLE_PX)[0]
    peaks = peaks[rng.permutation(len(peaks))[: round(PEAK_SHARE * count)]]
    angle, radius = rng.uniform(0, 2 * np.pi, len(xy_px)), PROMPT_REACH * np.sqrt(rng.uniform(0, 1, len(xy_px)))
    on = xy_px + (radius * diameter_px)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    on = on[((on >= 0) & (on <= side - 1)).all(axis=1)]
    on = on[rng.permutation(len(on))[: round(PARTICLE_SHARE * count)]]
    anywhere = rng.uniform(0, side - 1, (count - len(peaks) - len(on), 2))
    return np.concatenate([np.clip(peaks, 0, side - 1), on, anywhere])


def mask_loss(logits: Tensor, predicted: Tensor, masks: Tensor, kinds: Tensor) -> dict[str, Tensor]:
    """Cross-entropy and Dice of asked masks; squared error of the predicted IoU, which is 0 where nothing is there.

    Parameters
    ----------
    logits : (n, 1, h, w)
    predicted : (n, 1)
    masks : (n, h, w) in [0, 1]
    kinds : (n,)
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d

    asked = kinds >= 0
    given = logits[:, 0]
    with torch.no_grad():
        found, wanted = given > 0, masks >= 0.5
        both = (found & wanted).sum(dim=(1, 2)).float()
        either = (found | wanted).sum(dim=(1, 2)).float()
        iou = torch.where(asked, both / either.clamp(min=1), torch.zeros_like(both))
    is_known = kinds != ASKS_UNKNOWN
    iou_loss = (predicted[:, 0] - iou)[is_known].square().mean() if bool(is_known.any()) else given.sum() * 0
    if bool(asked.any()):
        # masks are a hundredth of a picture: their surroundings count fully, the far rest little, or it would rule
        weight = FAR_WEIGHT + max_pool2d(masks[asked][:, None], SURROUNDINGS_PX, stride=1, padding=SURROUNDINGS_PX // 2)
        per_pixel = binary_cross_entropy_with_logits(given[asked], masks[asked], reduction="none")
        bce = (weight[:, 0] * per_pixel).sum() / weight.sum()
        dice = mask_dice_loss(given[asked], masks[asked])
        mean_iou = iou[asked].mean()
    else:
        bce = dice = mean_iou = given.sum() * 0
    return {"loss": bce + dice + IOU_WEIGHT * iou_loss, "bce": bce, "dice": dice, "iou": iou_loss, "mean_iou": mean_iou}


def mask_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over masks of 1 - soft Dice; (n, h, w) both. One pixel is added to either side of the fraction."""
    probability = logits.sigmoid()
    both = (probability * masks).sum(dim=(1, 2))
    loss: Tensor = 1 - (2 * both + 1) / (probability.sum(dim=(1, 2)) + masks.sum(dim=(1, 2)) + 1)
    return loss.mean()


# ---------------------------------------------------------------------------------------------------------- judging


def candidates(
    sam: LoadedSam, mapper: ParticleMapper, probability: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2) and `score_features` (n, k) of the masks that a map gives, doubles resolved by predicted IoU."""
    masks = segment_map(probability, sam, particle_px=NOMINAL_PARTICLE_PX, settings=CALIBRATED_FILTERS)
    mask_px = disc_share(mapper) * NOMINAL_PARTICLE_PX
    height = height_at(gaussian_blur(probability, sigma_px=PEAK_BLUR * NOMINAL_PARTICLE_PX), masks.centroid_xy_px)
    reason = corrected_selection(masks, masks.predicted_iou, particle_px=mask_px)
    kept = reason == ""
    features = score_features(height, masks, particle_px=mask_px)
    return particle_centres(masks.take(kept), particle_px=NOMINAL_PARTICLE_PX, is_peak=True), features[kept]


def fit_mask_score(sam: LoadedSam, mapper: ParticleMapper, crops: list[MappedCrop]) -> MaskScore | None:
    """The regression on one half of the crops, its calibration on the other.

    None where either half holds no right or no wrong mask, as after a few steps of training.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = [candidates(sam, mapper, crop.probability) for crop in crops]
    rights = [_is_right(crop, *one) for crop, one in zip(crops, found, strict=True)]
    halves = []
    for start in (0, 1):
        features = np.concatenate([features for _, features in found[start::2]])
        halves.append((features, np.concatenate(rights[start::2])))
    (features, right), (other_features, other_right) = halves
    if any(right_half.all() or not right_half.any() for _, right_half in halves):
        return None
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, right)
    scaler, regression = fitted[0], fitted[1]
    weights = regression.coef_[0] / scaler.scale_
    offset = float(regression.intercept_[0] - np.dot(weights, scaler.mean_))
    score = MaskScore(np.asarray(weights), offset, Calibration.none())
    calibration = fit_calibration(score.raw(other_features), other_right)
    height, is_right = _refused(crops, [xy_px for xy_px, _ in found])
    refused = fit_calibration(height, is_right) if is_right.any() else None
    return MaskScore(score.weights, offset, calibration, refused)


def _refused(
    crops: list[MappedCrop], masks_xy_px: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Height of the maxima without a mask, and whether each is a particle that no mask found."""
    heights, rights = [], []
    for crop, found_px in zip(crops, masks_xy_px, strict=True):
        xy_px, height = refused_peaks(crop.probability, found_px, particle_px=NOMINAL_PARTICLE_PX)
        together = np.concatenate([found_px, xy_px])
        rank = np.arange(len(together))[::-1].astype(np.float64)
        heights.append(height)
        rights.append(outcomes_on(crop, (together, rank)).is_paired[len(found_px) :])
    return np.concatenate(heights), np.concatenate(rights)


def _is_right(crop: MappedCrop, xy_px: NDArray[np.float64], features: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether each candidate is paired with a particle, in the candidates' order."""
    order = np.argsort(-features[:, 0], kind="stable")
    outcome = outcomes_on(crop, (xy_px[order], np.arange(len(order))[::-1].astype(np.float64)))
    right = np.zeros(len(order), bool)
    right[order] = outcome.is_paired
    return right
