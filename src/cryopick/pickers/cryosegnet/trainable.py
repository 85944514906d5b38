"""What the training loop needs to know of the U-Net that learns on simulated crops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.metrics.detection import precision_recall_curve
from cryopick.pickers.cryosegnet.judging import as_mapper, best_f1, calibrated, crop_outcomes, picked_outcomes
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.targets import DISC_SHARE, crop_targets, map_loss
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.simulation.crops import Crop
from cryopick.training.quarters import LearnsFromQuarters

if TYPE_CHECKING:
    from torch import Tensor, nn


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
