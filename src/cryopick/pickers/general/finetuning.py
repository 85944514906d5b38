"""Fine-tuning of the `general` picker's network on a user's own labelled micrographs, complete or sparse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cryopick.data.datasets import Dataset
from cryopick.heatmap.model import STRIDE_PX, HeatmapModel, centres_from_maps
from cryopick.heatmap.targets import crop_targets
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.pickers.general.trainable import GeneralTask, GeneralTrainable, as_model
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, network_planes
from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import sparse_score
from cryopick.training.losses import non_negative_pu_loss
from cryopick.training.sampling import CropSampler

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_PRIOR = 0.2
"""Particle centres (discs of 0.2 diameters) cannot cover more of a micrograph than this unless they overlap."""
PRIOR_MICROGRAPHS = 4
CROPS_PER_BATCH = 8


@dataclass
class LabelledGeneralTrainable:
    """The network of `general`, learning from labelled micrographs.

    Parameters
    ----------
    train, validation : labelled, with known particle diameters
    prior : share of the output pixels that lie on particle centres, labelled or not; used for sparse labels
    """

    task: GeneralTask
    train: Dataset
    validation: Dataset
    prior: float
    picker: str = field(default="general", init=False)

    @cached_property
    def sampler(self) -> CropSampler:
        return CropSampler(self.train, crop_px=self.task.quarter_px, particle_px=NOMINAL_PARTICLE_PX)

    @cached_property
    def held_out(self) -> list[LabelledCrop]:
        sampler = CropSampler(self.validation, crop_px=self.task.quarter_px, particle_px=NOMINAL_PARTICLE_PX)
        return [sampler.whole(index) for index in range(len(sampler.items))]

    def architecture(self) -> dict[str, Any]:
        return GeneralTrainable(self.task).architecture()

    def build_network(self) -> nn.Module:
        return GeneralTrainable(self.task).build_network()

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        import torch

        count = min(CROPS_PER_BATCH, self.task.batch_size)
        crops = [self.sampler.crop(index * count + number, rng) for number in range(count)]
        planes = np.stack(
            [
                network_planes(crop.image, particle_px=NOMINAL_PARTICLE_PX, count=self.task.input_planes)
                for crop in crops
            ]
        )
        targets = np.stack([crop_targets(crop) for crop in crops])
        is_complete = np.array([crop.is_complete for crop in crops])
        return {
            "planes": torch.from_numpy(planes),
            "targets": torch.from_numpy(targets),
            "is_complete": torch.from_numpy(is_complete),
        }

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of centres where labels are complete, non-negative PU risk where they are sparse."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        maps, targets, is_complete = network(planes).float(), batch["targets"], batch["is_complete"]
        logits, centre, weight = maps[:, 0], targets[:, 0], targets[:, 4]
        parts = []
        if bool(is_complete.any()):
            chosen = is_complete
            entropy = binary_cross_entropy_with_logits(logits[chosen], centre[chosen], reduction="none")
            mean = (entropy * weight[chosen]).sum() / weight[chosen].sum().clamp(min=1)
            parts.append(mean * chosen.float().mean())
        if not bool(is_complete.all()):
            chosen = ~is_complete
            risk = non_negative_pu_loss(logits[chosen], centre[chosen], weight[chosen], prior=self.prior)
            parts.append(risk * chosen.float().mean())
        centre_loss = torch.stack(parts).sum()
        at_centres = centre.sum().clamp(min=1)
        offset_loss = ((maps[:, 1:3] - targets[:, 1:3]).abs().sum(1) * centre).sum() / at_centres
        return {"loss": centre_loss + 0.02 * offset_loss, "centre": centre_loss, "offset": offset_loss}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision where all labels are complete, else the largest recall² over share of picks."""
        model = as_model(network)
        outcomes = [ranked(model, crop) for crop in self.held_out]
        if all(crop.is_complete for crop in self.held_out):
            return {"score": precision_recall_curve(outcomes).average_precision}
        return {"score": sparse_score(outcomes)}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002  # the calibration is that of the old data
        return {"data": {"train": self.train.card_entry(), "validation": self.validation.card_entry()}}


def ranked(model: HeatmapModel, crop: LabelledCrop) -> RankedOutcomes:
    """Candidates of a whole micrograph at working scale against its labels, at a quarter of a diameter."""
    maps = model(crop.image)
    xy_px, index_yx = centres_from_maps(maps, stride_px=STRIDE_PX)
    value = maps[0, index_yx[:, 0], index_yx[:, 1]].astype(np.float64)
    certain = crop.xy_px[~crop.is_uncertain]
    tolerance_px = 0.25 * NOMINAL_PARTICLE_PX
    return rank_outcomes(xy_px, value, certain, crop.xy_px[crop.is_uncertain], max_distance_px=tolerance_px)


def estimate_prior(network: nn.Module, dataset: Dataset) -> float:
    """Share of output pixels on particle centres, as the network before fine-tuning sees it, but not below the labels'.

    The centre map is a probability, so its mean is the expected share.
    """
    model = as_model(network)
    sampler = CropSampler(dataset, crop_px=64, particle_px=NOMINAL_PARTICLE_PX)
    expected, labelled = [], []
    for index in range(min(len(sampler.items), PRIOR_MICROGRAPHS)):
        crop = sampler.whole(index)
        expected.append(float(model(crop.image)[0].mean()))
        labelled.append(float(crop_targets(crop)[0].mean()))
    return float(np.clip(max(np.mean(expected), np.mean(labelled)), 1e-4, LARGEST_PRIOR))
