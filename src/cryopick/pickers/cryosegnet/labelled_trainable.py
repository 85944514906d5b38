"""CryoSegNet's U-Net on labelled micrographs: at working scale, complete or sparse labels; and exactly as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.pickers.cryosegnet.judging import as_mapper
from cryopick.pickers.cryosegnet.model import ParticleMapper, map_peaks
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.targets import DISC_SHARE, map_loss
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.pickers.cryosegnet.trainable import SimulatedUNetTrainable
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.processing.targets import disc_mask
from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import sparse_score
from cryopick.training.losses import non_negative_pu_loss
from cryopick.training.sampling import CropSampler

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
        return CropSampler(self.train, crop_px=self.task.quarter_px, particle_px=NOMINAL_PARTICLE_PX)

    @cached_property
    def held_out(self) -> list[LabelledCrop]:
        sampler = CropSampler(self.validation, crop_px=self.task.quarter_px, particle_px=NOMINAL_PARTICLE_PX)
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
    xy_px, height = map_peaks(probability, particle_px=NOMINAL_PARTICLE_PX)
    is_certain = ~crop.is_uncertain
    return rank_outcomes(
        xy_px, height, crop.xy_px[is_certain], crop.xy_px[~is_certain], max_distance_px=0.25 * NOMINAL_PARTICLE_PX
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
