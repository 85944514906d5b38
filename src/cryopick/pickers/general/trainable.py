"""What the training loop needs to know of the `general` network, on simulated crops and on labelled micrographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.heatmap.layout import STRIDE_PX
from cryopick.heatmap.model import HeatmapModel, centres_from_maps, heatmap_model, picks_at_scale
from cryopick.heatmap.targets import crop_targets, example, heatmap_loss
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, PLANES, network_planes
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import Candidates, calibrated, device_of, outcomes_of
from cryopick.training.losses import loss_by_completeness, non_negative_pu_loss
from cryopick.training.quarters import Example, QuarterTask
from cryopick.training.sources import LearnsFromCrops
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from torch import Tensor, nn

RANGE_CROPS = 32
"""Crops on which the activations' ranges are measured."""


@dataclass(frozen=True, kw_only=True)
class GeneralTask(QuarterTask):
    """What the network is and what it sees."""

    input_planes: Annotated[int, "2: detail and background; 3: background counted from the brightest, too"] = 3
    widths: Annotated[tuple[int, int, int], "channels at strides 4, 8 and 16"] = (64, 128, 192)
    depths: Annotated[tuple[int, int, int], "residual blocks of the encoder at each of them"] = (2, 3, 2)
    has_shape: Annotated[bool, "learn besides which pixels belong to particles, and where their centres lie"] = False

    def __post_init__(self) -> None:
        if self.input_planes not in (2, 3):
            raise SettingsError(f"[task] input_planes is {self.input_planes}, expected 2 or 3")
        super().__post_init__()


@dataclass
class GeneralTrainable(LearnsFromCrops):
    """The network, its examples and its loss.

    Parameters
    ----------
    prior : share of the output pixels that lie on particle centres, labelled or not; used for sparse labels
    """

    task: GeneralTask
    prior: float = 0.1
    picker: str = field(default="general", init=False)
    most_labelled: ClassVar[int | None] = 8

    def simulated_example(self, crop: Crop) -> Example:
        planes, targets = example(crop, self.task.input_planes)
        return {"planes": planes, "targets": targets}

    def labelled_example(self, crop: LabelledCrop) -> Example:
        return {
            "planes": network_planes(crop.image, particle_px=NOMINAL_PARTICLE_PX, count=self.task.input_planes),
            "targets": crop_targets(crop),
            "is_complete": np.array(crop.is_complete),
        }

    def architecture(self) -> dict[str, Any]:
        return {
            "network": "heatmap_unet",
            "in_channels": self.task.input_planes,
            "widths": list(self.task.widths),
            "depths": list(self.task.depths),
            **({"has_shape": True} if self.task.has_shape else {}),
        }

    def build_network(self) -> nn.Module:
        from cryopick.heatmap.network import build_heatmap_unet

        return build_heatmap_unet(self.architecture())

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        maps = network(planes).float()
        if "is_complete" in batch:
            return labelled_loss(maps, batch["targets"], batch["is_complete"], prior=self.prior)
        return heatmap_loss(maps, batch["targets"])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """How good the centre map's peaks are; on simulated crops also how well junk is marked."""
        model, crops = as_model(network), self.source.held_out
        scores = self.source.scores(outcomes_of(partial(candidates, model), crops))
        return scores if self.train is not None else {**scores, "junk_iou": junk_iou(model, crops)}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """Probabilities are calibrated on simulated crops, whatever was learnt from."""
        crops = self.task.crops_to_calibrate()
        model = as_model(network)
        return {
            "preprocessing": {
                "nominal_particle_px": NOMINAL_PARTICLE_PX,
                "planes": ", ".join(PLANES[: self.task.input_planes]),
            },
            "postprocessing": {
                "calibration": calibrated(outcomes_of(partial(picker_candidates, model), crops)).to_list(),
                "activation_ranges": ranges_on(model, crops[:RANGE_CROPS]),
            },
            "data": self.card_data(),
        }


# ------------------------------------------------------------------------------------------------------------ loss


def labelled_loss(maps: Tensor, targets: Tensor, is_complete: Tensor, *, prior: float) -> dict[str, Tensor]:
    """Cross-entropy of centres where labels are complete, non-negative PU risk where they are sparse; and offsets."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    logits, centre, weight, background = maps[:, 0], targets[:, 0], targets[:, 4], targets[:, 5]

    def entropy(chosen: Tensor) -> Tensor:
        per_pixel = binary_cross_entropy_with_logits(logits[chosen], centre[chosen], reduction="none")
        return (per_pixel * weight[chosen]).sum() / weight[chosen].sum().clamp(min=1)

    def risk(chosen: Tensor) -> Tensor:
        return non_negative_pu_loss(
            logits[chosen], centre[chosen], weight[chosen], prior=prior, is_negative=background[chosen]
        )

    centre_loss = loss_by_completeness(is_complete, complete=entropy, sparse=risk)
    at_centres = centre.sum().clamp(min=1)
    offset_loss = ((maps[:, 1:3] - targets[:, 1:3]).abs().sum(1) * centre).sum() / at_centres
    return {"loss": centre_loss + 0.02 * offset_loss, "centre": centre_loss, "offset": offset_loss}


# --------------------------------------------------------------------------------------------------------- judging


def as_model(network: nn.Module) -> HeatmapModel:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    from cryopick.heatmap.network import HeatmapUNet

    if not isinstance(network, HeatmapUNet):
        raise TypeError(f"expected a HeatmapUNet, got {type(network)}")
    return heatmap_model(network, Calibration.none(), device=device_of(network), precision="float32")


def candidates(model: HeatmapModel, crop: Crop | LabelledCrop) -> Candidates:
    """Peaks of the centre map and their values; on simulated crops thinned as picks are."""
    maps = model(crop.image)
    xy_px, index_yx = centres_from_maps(maps, stride_px=STRIDE_PX)
    value = maps[0, index_yx[:, 0], index_yx[:, 1]].astype(np.float64)
    if isinstance(crop, LabelledCrop):
        return xy_px, value
    picks = Picks(xy_px=xy_px, score=value, diameter_px=np.full(len(value), NOMINAL_PARTICLE_PX))
    kept = select(picks, SelectionSettings(), threshold=0.0).is_kept
    return xy_px[kept], value[kept]


def picker_candidates(model: HeatmapModel, crop: Crop) -> Candidates:
    """The same as the picker finds them: all its looks, at the size at which it works."""
    picks = picks_at_scale(model, Micrograph(crop.image), diameter_px=WORKING_FACTOR * NOMINAL_PARTICLE_PX)
    sized = replace(picks, diameter_px=np.full(len(picks), NOMINAL_PARTICLE_PX, np.float32))
    kept = select(sized, SelectionSettings(), threshold=0.0).kept()
    return kept.xy_px, kept.score.astype(np.float64)


def junk_iou(model: HeatmapModel, crops: Sequence[Crop]) -> float:
    """Intersection over union of predicted and true junk, pooled over crops."""
    both = either = 0
    for crop in crops:
        truth = crop.junk[::STRIDE_PX, ::STRIDE_PX]
        found = model(crop.image)[4] > 0.5
        both += int((truth & found).sum())
        either += int((truth | found).sum())
    return both / max(either, 1)


def ranges_on(model: HeatmapModel, crops: Sequence[Crop]) -> dict[str, list[float]]:
    """What 8-bit integers need to know of the network's activations, as plain JSON."""
    import torch

    from cryopick.heatmap.activation_ranges import activation_ranges
    from cryopick.inference.torch_network import TorchNetwork

    seen = model.dense.network
    if not isinstance(seen, TorchNetwork):
        raise TypeError(f"expected a network of torch, got {type(seen)}")

    images = (torch.from_numpy(model.planes(crop.image))[None].to(model.dense.device) for crop in crops)
    found = activation_ranges(seen.module, images)
    return {name: [round(low, 5), round(high, 5)] for name, (low, high) in found.items()}
