"""CryoSegNet's U-Net on labelled micrographs: at working scale, complete or sparse labels; and exactly as published."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.networks.attention_unet import build_attention_unet
from cryopick.pickers.cryosegnet_map import PARTICLE_PX, ParticleMapper, map_peaks, squeeze_published
from cryopick.processing.targets import disc_mask
from cryopick.training.augment import LabelledCrop
from cryopick.training.cryosegnet import DISC_SHARE, PAPER_SMOOTH, SimulatedUNetTrainable, as_mapper, map_loss
from cryopick.training.cryosegnet_tasks import UNetTask
from cryopick.training.datasets import Dataset, LabelledMicrograph
from cryopick.training.general_finetune import sparse_score
from cryopick.training.losses import dice_loss, non_negative_pu_loss
from cryopick.training.sampling import CropSampler, epoch_index

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_PRIOR = 0.5
"""Discs of 0.6 diameters cannot cover more of a micrograph than this unless they overlap."""
PRIOR_MICROGRAPHS = 4
CROPS_PER_BATCH = 8


@dataclass
class LabelledUNetTrainable:
    """The U-Net at working scale, learning from labelled micrographs.

    Parameters
    ----------
    train, validation : labelled, with known particle diameters
    prior : share of the pixels that lie on particles' discs, labelled or not; used for sparse labels
    """

    task: UNetTask
    train: Dataset
    validation: Dataset
    prior: float = 0.1
    picker: str = field(default="cryosegnet", init=False)

    @cached_property
    def sampler(self) -> CropSampler:
        return CropSampler(self.train, crop_px=self.task.quarter_px, particle_px=PARTICLE_PX)

    @cached_property
    def held_out(self) -> list[LabelledCrop]:
        sampler = CropSampler(self.validation, crop_px=self.task.quarter_px, particle_px=PARTICLE_PX)
        return [sampler.whole(index) for index in range(len(sampler.items))]

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_attention_unet(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        import torch

        count = min(CROPS_PER_BATCH, self.task.batch_size)
        crops = [self.sampler.crop(index * count + number, rng) for number in range(count)]
        return {
            "planes": torch.from_numpy(np.stack([self.task.seen.planes(crop.image) for crop in crops])),
            "targets": torch.from_numpy(np.stack([labelled_targets(crop) for crop in crops])),
            "is_complete": torch.from_numpy(np.array([crop.is_complete for crop in crops])),
        }

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy and Dice where labels are complete, non-negative PU risk where they are sparse; no junk."""
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        logits, targets, is_complete = network(planes).float()[:, :1], batch["targets"], batch["is_complete"]
        parts = []
        if bool(is_complete.any()):
            some = map_loss(logits[is_complete], targets[is_complete], dice_share=self.task.dice_share)
            parts.append(some["loss"] * is_complete.float().mean())
        if not bool(is_complete.all()):
            sparse = ~is_complete
            disc, weight = targets[sparse, 0], targets[sparse, 2]
            risk = non_negative_pu_loss(logits[sparse, 0], disc, weight, prior=self.prior)
            parts.append(risk * sparse.float().mean())
        return {"loss": torch.stack(parts).sum()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision where all labels are complete, else the largest recall² over share of picks."""
        mapper = as_mapper(network, self.task)
        outcomes = [labelled_outcomes(mapper, crop) for crop in self.held_out]
        if all(crop.is_complete for crop in self.held_out):
            return {"score": precision_recall_curve(outcomes).average_precision}
        return {"score": sparse_score(outcomes)}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """As after training on simulation, on which scores are calibrated, but for the data."""
        entries = SimulatedUNetTrainable(self.task).card_entries(network)
        return {**entries, "data": {"train": self.train.card_entry(), "validation": self.validation.card_entry()}}


def labelled_targets(crop: LabelledCrop) -> NDArray[np.float32]:
    """(3, h, w): discs, nothing known of junk, and the weight; uncertain labels weigh nothing."""
    shape_yx = crop.image.shape[0], crop.image.shape[1]
    certain = ~crop.is_uncertain
    marked, uncertain = (
        disc_mask(crop.xy_px[which], DISC_SHARE * crop.diameter_px[which], shape_yx=shape_yx)
        if which.any()
        else np.zeros(shape_yx, bool)
        for which in (certain, ~certain)
    )
    return np.stack([marked, np.zeros(shape_yx), ~(uncertain & ~marked)]).astype(np.float32)


def labelled_outcomes(mapper: ParticleMapper, crop: LabelledCrop) -> RankedOutcomes:
    """Peaks of a whole micrograph's map against its labels, at a quarter of a diameter."""
    probability = mapper.maps(mapper.view.planes(crop.image))[0]
    xy_px, height = map_peaks(probability, particle_px=PARTICLE_PX)
    is_certain = ~crop.is_uncertain
    return rank_outcomes(
        xy_px, height, crop.xy_px[is_certain], crop.xy_px[~is_certain], max_distance_px=0.25 * PARTICLE_PX
    )


def estimate_prior(mapper: ParticleMapper, sampler: CropSampler) -> float:
    """Share of pixels on particles' discs, as the network before fine-tuning sees it, but not below the labels'."""
    expected, labelled = [], []
    for index in range(min(len(sampler.items), PRIOR_MICROGRAPHS)):
        crop = sampler.whole(index)
        expected.append(float(mapper.maps(mapper.view.planes(crop.image))[0].mean()))
        labelled.append(float(labelled_targets(crop)[0].mean()))
    return float(np.clip(max(np.mean(expected), np.mean(labelled)), 1e-4, LARGEST_PRIOR))


# -------------------------------------------------------------------------------------------------------- published

CACHED_MICROGRAPHS = 2048
"""Denoised micrographs and masks kept in memory, 2 MB each at 1024 pixels; denoising one takes ten seconds."""


@dataclass
class PublishedUNetTrainable:
    """The published U-Net and training: whole micrographs, denoised and squeezed; full discs; no augmentation.

    Parameters
    ----------
    train, validation : completely labelled, with known particle diameters
    """

    task: UNetTask
    train: Dataset
    validation: Dataset
    picker: str = field(default="cryosegnet", init=False)
    _cache: OrderedDict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(
        default_factory=OrderedDict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for part in (self.train, self.validation):
            unknown = [item.name for item in part if item.diameter_px is None]
            if unknown:
                raise SettingsError(f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A)")
            sparse = [item.name for item in part if not item.is_complete]
            if sparse:
                raise SettingsError(
                    f"{sparse[0]}: not every particle is labelled, and the published training takes the rest for "
                    "background; use --preset small, or --labels complete where they are complete"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}  # worker processes denoise their own micrographs

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_attention_unet(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:  # noqa: ARG002  # nothing is random
        import torch

        size = self.task.batch_size
        numbers = [epoch_index(index * size + i, len(self.train), seed=0) for i in range(size)]
        pairs = [self.example(self.train.items[number]) for number in numbers]
        planes, masks = (np.stack(arrays)[:, None] for arrays in zip(*pairs, strict=True))
        return {"planes": torch.from_numpy(planes), "mask": torch.from_numpy(masks)}

    def example(self, item: LabelledMicrograph) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(side, side) picture and mask, both in [0, 1]."""
        if item.name not in self._cache:
            self._cache[item.name] = published_example(item, side_px=self.task.side_px)
            while len(self._cache) > CACHED_MICROGRAPHS:
                self._cache.popitem(last=False)
        picture, mask = self._cache[item.name]
        return picture.astype(np.float32) / np.float32(255), mask.astype(np.float32) / np.float32(255)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return published_loss(network(planes).float(), batch["mask"])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """1 - Dice loss over the validation micrographs, as published, one by one."""
        import torch

        losses = []
        device = next(network.parameters()).device
        for item in self.validation:
            picture, mask = (torch.from_numpy(array)[None, None].to(device) for array in self.example(item))
            losses.append(float(dice_loss(network(picture).float(), mask, smooth=PAPER_SMOOTH)))
        return {"score": 1 - float(np.mean(losses))}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002  # nothing is calibrated
        return {
            "preprocessing": self.task.seen.to_card(),
            "postprocessing": {"disc_share": 1.0},
            "data": {"train": self.train.card_entry(), "validation": self.validation.card_entry()},
        }


def published_example(item: LabelledMicrograph, *, side_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The denoised picture and the mask of full discs, squeezed, 0 to 255.

    The published masks are JPEG files; the ringing that this adds to their rims is left out.
    """
    import cv2

    if item.labels is None or item.diameter_px is None:
        raise ValueError(f"{item.name}: has no labels with a diameter")
    pixels = item.read().pixels
    squeezed, _ = squeeze_published(pixels, side_px=side_px)
    full = np.zeros(pixels.shape, np.uint8)
    radius = int(item.diameter_px / 2)
    for x, y in np.rint(item.labels.xy_px).astype(int).tolist():
        cv2.circle(full, (x, y), radius, 255, thickness=-1)
    mask = cv2.resize(full, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.rint(255 * squeezed).astype(np.uint8), np.asarray(mask, np.uint8)


def published_loss(logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Half of cross-entropy plus Dice loss, the latter over the whole batch.

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program (the article does not halve the sum).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    bce, dice = binary_cross_entropy_with_logits(logits, mask), dice_loss(logits, mask, smooth=PAPER_SMOOTH)
    return {"loss": (bce + dice) / 2, "bce": bce, "dice": dice}
