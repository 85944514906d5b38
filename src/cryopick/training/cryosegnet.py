"""Training of CryoSegNet's U-Net: on simulated crops, on labelled micrographs, or exactly as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import PrecisionRecallCurve, RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.networks.attention_unet import build_attention_unet
from cryopick.pickers.cryosegnet_map import (
    PARTICLE_PX,
    ParticleMapper,
    map_peaks,
    particle_mapper,
)
from cryopick.pickers.diameter import WORKING_FACTOR
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import ScaleMap
from cryopick.processing.targets import disc_mask
from cryopick.simulation.crops import Crop
from cryopick.training.calibrating import fit_calibration
from cryopick.training.cryosegnet_tasks import PRESETS, SamTask, UNetTask
from cryopick.training.losses import dice_loss
from cryopick.training.quarters import LearnsFromQuarters
from cryopick.training.trainable import Trainable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.io.checkpoint import Checkpoint
    from cryopick.training.datasets import Dataset

__all__ = ["FINETUNE_TASK", "FINETUNE_TRAINING", "PRESETS", "make_finetunable", "make_trainable"]

DISC_SHARE = 0.6
"""Diameter of the discs that the small network learns to mark, over the particle's; the paper marks all of it (1.0).
Neighbours in projection may be 0.6 diameters apart, and discs of this size then still do not merge."""
PICKED_RATIO = (0.6, 1.65)
"""Particles whose diameter over the nominal one lies in this range are to be marked …"""
UNDECIDED_RATIO = (0.45, 2.2)
"""… those outside this one are not; what lies between is left out of the loss."""
JUNK_WEIGHT = 0.1
PAPER_SMOOTH = 1e-4
"""Added to both sides of the fraction in the published Dice loss."""
MAPPED_PARTICLE_PX = PARTICLE_PX / WORKING_FACTOR
"""Diameter of particles of the nominal size in pixels of the map: the picker looks at particles larger than nominal."""
NO_PARTICLES = np.zeros((0, 2))


def make_trainable(task: Any, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The U-Net on simulation or on labelled micrographs, or the compact Segment Anything on simulation."""
    from cryopick.training.cryosegnet_data import LabelledUNetTrainable, PublishedUNetTrainable
    from cryopick.training.cryosegnet_sam import SamTrainable

    if isinstance(task, SamTask):
        if train is not None or validation is not None:
            raise SettingsError(
                "the compact Segment Anything learns from maps of simulated crops only: leave --data out, and train "
                "the U-Net (--preset small or paper) on your micrographs"
            )
        return SamTrainable(task)
    if task.view == "published":
        if train is None or validation is None:
            raise SettingsError(
                "the published U-Net learns from whole labelled micrographs: give --data, such as a folder of "
                "`cryopick simulate` or of CryoPPP; crops of simulation are for --preset small"
            )
        return PublishedUNetTrainable(task, train, validation)
    if train is None or validation is None:
        return SimulatedUNetTrainable(task)
    return LabelledUNetTrainable(task, train, validation)


FINETUNE_TASK: Mapping[str, Any] = {"batch_size": 8, "validation_crops": 16, "calibration_crops": 64}
"""Fine-tuning is to take minutes: smaller batches and fewer simulated crops than training."""
FINETUNE_TRAINING: Mapping[str, Any] = {"optimizer": "adamw", "learning_rate": 2e-4}
"""Orthogonal steps move all of a matrix, also what few new labels say nothing about."""


def make_finetunable(task: UNetTask, *, train: Dataset, validation: Dataset, start: Checkpoint) -> Trainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them."""
    from cryopick.training.cryosegnet_data import LabelledUNetTrainable, estimate_prior

    network = build_attention_unet(task.architecture())
    start.load_into(network)
    trainable = LabelledUNetTrainable(task, train, validation)
    return replace(trainable, prior=estimate_prior(as_mapper(network.eval(), task), trainable.sampler))


# ------------------------------------------------------------------------------------------------------- simulation


@dataclass
class SimulatedUNetTrainable(LearnsFromQuarters):
    """The small U-Net, its simulated crops and its loss."""

    task: UNetTask
    picker: str = field(default="cryosegnet", init=False)

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_attention_unet(self.architecture())

    def example(self, crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.task.seen.planes(crop.image), crop_targets(crop)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return map_loss(network(planes).float(), batch["targets"], dice_share=self.task.dice_share)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision and best F1 of the map's peaks over the validation crops, at a quarter of a diameter."""
        mapper = as_mapper(network, self.task)
        curve = precision_recall_curve([crop_outcomes(mapper, crop) for crop in self.validation])
        return {"score": curve.average_precision, "best_f1": best_f1(curve)}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        mapper = as_mapper(network, self.task)
        calibration = calibrated([picked_outcomes(mapper, crop) for crop in self.task.crops_to_calibrate()])
        return {
            "preprocessing": self.task.seen.to_card(),
            "postprocessing": {"calibration": calibration.to_list(), "disc_share": DISC_SHARE},
            "data": {"kind": "simulation", "seed": self.task.simulation_seed},
        }


def crop_targets(crop: Crop) -> NDArray[np.float32]:
    """(3, h, w): discs on particles of about the nominal size, junk, and the weight of a pixel's first answer."""
    shape_yx = crop.image.shape[0], crop.image.shape[1]
    ratio = crop.diameter_px / PARTICLE_PX
    is_marked = (ratio >= PICKED_RATIO[0]) & (ratio <= PICKED_RATIO[1])
    is_undecided = ~is_marked & (ratio >= UNDECIDED_RATIO[0]) & (ratio <= UNDECIDED_RATIO[1])
    marked, undecided = (
        disc_mask(crop.xy_px[which], DISC_SHARE * crop.diameter_px[which], shape_yx=shape_yx)
        if which.any()
        else np.zeros(shape_yx, bool)
        for which in (is_marked, is_undecided)
    )
    return np.stack([marked, crop.junk, ~(undecided & ~marked)]).astype(np.float32)


def map_loss(logits: Tensor, targets: Tensor, *, dice_share: float) -> dict[str, Tensor]:
    """Cross-entropy and Dice of the discs, and cross-entropy of junk where the network maps it.

    Parameters
    ----------
    logits : (b, 1 or 2, h, w)
    targets : (b, 3, h, w) of `crop_targets`: discs, junk, weight
    dice_share : 0.5 weighs both parts alike, as published
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    disc, weight = targets[:, 0], targets[:, 2]
    per_pixel = binary_cross_entropy_with_logits(logits[:, 0], disc, reduction="none")
    bce = (per_pixel * weight).sum() / weight.sum().clamp(min=1)
    is_counted = weight > 0
    dice = dice_loss(logits[:, 0][is_counted], disc[is_counted], smooth=PAPER_SMOOTH)
    loss = (1 - dice_share) * bce + dice_share * dice
    parts = {"bce": bce, "dice": dice}
    if logits.shape[1] > 1:
        parts["junk"] = binary_cross_entropy_with_logits(logits[:, 1], targets[:, 1])
        loss = loss + JUNK_WEIGHT * parts["junk"]
    return {"loss": loss, **parts}


# ---------------------------------------------------------------------------------------------------------- judging


def as_mapper(network: nn.Module, task: UNetTask) -> ParticleMapper:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    device = str(next(network.parameters()).device)
    return particle_mapper(network, task.seen, Calibration.none(), device=device, precision="float32")


def crop_outcomes(mapper: ParticleMapper, crop: Crop) -> RankedOutcomes:
    """Peaks of a crop's map against its particles, at a quarter of their diameter."""
    probability = mapper.maps(mapper.view.planes(crop.image))[0]
    xy_px, height = map_peaks(probability, particle_px=PARTICLE_PX)
    return rank_outcomes(xy_px, height, crop.xy_px, NO_PARTICLES, max_distance_px=tolerance_px(crop.diameter_px))


@dataclass(frozen=True, eq=False)
class MappedCrop:
    """The U-Net's particle map of a simulated crop, and the crop's particles in its pixels.

    Parameters
    ----------
    probability : (h, w) in [0, 1]
    xy_px, diameter_px : (n, 2) and (n,)
    """

    probability: NDArray[Any]
    xy_px: NDArray[np.float64]
    diameter_px: NDArray[np.float64]


def mapped(mapper: ParticleMapper, crop: Crop) -> MappedCrop:
    """As the picker maps it: all its looks, at the size at which it works."""
    diameter_px = WORKING_FACTOR * PARTICLE_PX
    scale = ScaleMap((PARTICLE_PX / diameter_px, PARTICLE_PX / diameter_px))
    return MappedCrop(
        probability=mapper.mean_maps(crop.image, diameter_px=diameter_px)[0],
        xy_px=scale.to_working_xy(crop.xy_px),
        diameter_px=crop.diameter_px.astype(np.float64) * scale.factor,
    )


def picked_outcomes(mapper: ParticleMapper, crop: Crop) -> RankedOutcomes:
    """Peaks as the picker finds them against the crop's particles, at a quarter of their diameter."""
    seen = mapped(mapper, crop)
    return outcomes_on(seen, *map_peaks(seen.probability, particle_px=PARTICLE_PX))


def outcomes_on(crop: MappedCrop, xy_px: NDArray[np.float64], score: NDArray[np.floating]) -> RankedOutcomes:
    """Candidates in pixels of a crop's map against its particles, at a quarter of their diameter."""
    return rank_outcomes(xy_px, score, crop.xy_px, NO_PARTICLES, max_distance_px=tolerance_px(crop.diameter_px))


def tolerance_px(diameter_px: NDArray[np.floating]) -> float:
    """A quarter of the diameter of a crop's particles (n,)."""
    return 0.25 * (float(np.median(diameter_px)) if len(diameter_px) else PARTICLE_PX)


def best_f1(curve: PrecisionRecallCurve) -> float:
    """Highest F1 of any threshold; NaN where there is none."""
    return curve.best_f1()[0]


def calibrated(outcomes: list[RankedOutcomes]) -> Calibration:
    """What a score is worth, from candidates of held-out crops; as it is where there are no candidates at all."""
    score = np.concatenate([one.score for one in outcomes])
    if len(score) == 0:
        return Calibration.none()
    return fit_calibration(score, np.concatenate([one.is_paired for one in outcomes]))
