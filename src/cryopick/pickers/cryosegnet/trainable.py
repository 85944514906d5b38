"""What the training loop needs to know of the U-Net at working scale, on simulated crops or labelled micrographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cryopick.pickers.cryosegnet.judging import MappedCrop, as_mapper, mapped, peaks
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.targets import (
    DISC_SHARE,
    crop_targets,
    labelled_loss,
    labelled_targets,
    map_loss,
)
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import calibrated, outcomes_of
from cryopick.training.quarters import Example
from cryopick.training.sources import LearnsFromCrops

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class UNetTrainable(LearnsFromCrops):
    """The U-Net, its examples and its loss.

    Parameters
    ----------
    prior : share of the pixels that lie on particles' discs, labelled or not; used for sparse labels
    """

    task: UNetTask
    prior: float = 0.1
    picker: str = field(default="cryosegnet", init=False)
    most_labelled: ClassVar[int | None] = 8

    def simulated_example(self, crop: Crop) -> Example:
        return {"planes": self.task.seen.planes(crop.image), "targets": crop_targets(crop)}

    def labelled_example(self, crop: LabelledCrop) -> Example:
        return {
            "planes": self.task.seen.planes(crop.image),
            "targets": labelled_targets(crop),
            "is_complete": np.array(crop.is_complete),
        }

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_attention_unet(self.architecture())

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        logits, dice_share = network(planes).float(), self.task.dice_share
        if "is_complete" in batch:
            targets, is_complete = batch["targets"], batch["is_complete"]
            return labelled_loss(logits, targets, is_complete, dice_share=dice_share, prior=self.prior)
        return map_loss(logits, batch["targets"], dice_share=dice_share)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """How good the map's peaks are, at a quarter of a diameter."""
        find = partial(peaks, as_mapper(network, self.task))
        return self.source.scores(outcomes_of(find, self.source.held_out))

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """Scores are calibrated on simulated crops, whatever was learnt from."""
        mapper = as_mapper(network, self.task)
        crops = (mapped(mapper, crop) for crop in self.task.crops_to_calibrate())
        calibration = calibrated(outcomes_of(MappedCrop.peaks, crops))
        return {
            "preprocessing": self.task.seen.to_card(),
            "postprocessing": {"calibration": calibration.to_list(), "disc_share": DISC_SHARE},
            "data": self.card_data(),
        }
