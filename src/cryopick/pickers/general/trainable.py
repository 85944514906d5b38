"""What the training loop needs to know of the `general` network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.heatmap.model import STRIDE_PX, HeatmapModel, centres_from_maps, heatmap_model, picks_at_scale
from cryopick.heatmap.targets import example, heatmap_loss
from cryopick.metrics.detection import PrecisionRecallCurve, precision_recall_curve, rank_outcomes
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, PLANES
from cryopick.simulation.crops import Crop
from cryopick.training.judging import fit_calibration
from cryopick.training.quarters import LearnsFromQuarters, QuarterTask
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_PARTICLES = np.zeros((0, 2))
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
class GeneralTrainable(LearnsFromQuarters):
    """The network, its simulated crops and its loss."""

    task: GeneralTask
    picker: str = field(default="general", init=False)

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

    def example(self, crop: Crop) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return example(crop, self.task.input_planes)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return heatmap_loss(network(planes).float(), batch["targets"])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision and best F1 over the validation crops, at a quarter of a diameter."""
        curve = detection_curve(as_model(network), self.validation)
        return {
            "score": curve.average_precision,
            "best_f1": float(np.nanmax(curve.f1)),
            "junk_iou": junk_iou(as_model(network), self.validation),
        }

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        crops = self.task.crops_to_calibrate()
        model = as_model(network)
        return {
            "preprocessing": {
                "nominal_particle_px": NOMINAL_PARTICLE_PX,
                "planes": ", ".join(PLANES[: self.task.input_planes]),
            },
            "postprocessing": {
                "calibration": calibrated_on(partial(picker_candidates, model), crops).to_list(),
                "activation_ranges": ranges_on(model, crops[:RANGE_CROPS]),
            },
            "data": {"kind": "simulation", "seed": self.task.simulation_seed},
        }


def as_model(network: nn.Module) -> HeatmapModel:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    from cryopick.heatmap.network import HeatmapUNet

    if not isinstance(network, HeatmapUNet):
        raise TypeError(f"expected a HeatmapUNet, got {type(network)}")
    device = str(next(network.parameters()).device)
    return heatmap_model(network, Calibration.none(), device=device, precision="float32")


def candidates(model: HeatmapModel, crop: Crop) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2) and centre-map values (n,) of a crop's candidates, thinned as picks are."""
    maps = model(crop.image)
    xy_px, index_yx = centres_from_maps(maps, stride_px=STRIDE_PX)
    value = maps[0, index_yx[:, 0], index_yx[:, 1]].astype(np.float64)
    picks = Picks(xy_px=xy_px, score=value, diameter_px=np.full(len(value), NOMINAL_PARTICLE_PX))
    kept = select(picks, SelectionSettings(), threshold=0.0).is_kept
    return xy_px[kept], value[kept]


def detection_curve(model: HeatmapModel, crops: list[Crop]) -> PrecisionRecallCurve:
    """Pooled precision and recall over crops, tolerance a quarter of each crop's particle diameter."""
    outcomes = []
    for crop in crops:
        xy_px, value = candidates(model, crop)
        outcomes.append(rank_outcomes(xy_px, value, crop.xy_px, NO_PARTICLES, max_distance_px=_tolerance_px(crop)))
    return precision_recall_curve(outcomes)


def _tolerance_px(crop: Crop) -> float:
    diameter_px = float(np.median(crop.diameter_px)) if len(crop.diameter_px) else NOMINAL_PARTICLE_PX
    return 0.25 * diameter_px


def junk_iou(model: HeatmapModel, crops: list[Crop]) -> float:
    """Intersection over union of predicted and true junk, pooled over crops."""
    both = either = 0
    for crop in crops:
        maps = model(crop.image)
        truth = crop.junk[::STRIDE_PX, ::STRIDE_PX]
        found = maps[4] > 0.5
        both += int((truth & found).sum())
        either += int((truth | found).sum())
    return both / max(either, 1)


def ranges_on(model: HeatmapModel, crops: Sequence[Crop]) -> dict[str, list[float]]:
    """What 8-bit integers need to know of the network's activations, as plain JSON."""
    import torch

    from cryopick.heatmap.network_int8 import activation_ranges

    images = (torch.from_numpy(model.planes(crop.image))[None].to(model.dense.device) for crop in crops)
    found = activation_ranges(model.dense.network, images)
    return {name: [round(low, 5), round(high, 5)] for name, (low, high) in found.items()}


def picker_candidates(model: HeatmapModel, crop: Crop) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same as the picker finds them: all its looks, at the size at which it works."""
    picks = picks_at_scale(model, Micrograph(crop.image), diameter_px=WORKING_FACTOR * NOMINAL_PARTICLE_PX)
    sized = replace(picks, diameter_px=np.full(len(picks), NOMINAL_PARTICLE_PX, np.float32))
    kept = select(sized, SelectionSettings(), threshold=0.0).kept()
    return kept.xy_px, kept.score.astype(np.float64)


def calibrated_on(
    find: Callable[[Crop], tuple[NDArray[np.float64], NDArray[np.float64]]], crops: list[Crop]
) -> Calibration:
    """The calibration of the values that `find` gives the candidates of held-out crops."""
    outcomes = []
    for crop in crops:
        xy_px, value = find(crop)
        outcomes.append(rank_outcomes(xy_px, value, crop.xy_px, NO_PARTICLES, max_distance_px=_tolerance_px(crop)))
    return fit_calibration(np.concatenate([o.score for o in outcomes]), np.concatenate([o.is_paired for o in outcomes]))
