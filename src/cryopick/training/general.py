"""Training of the `general` picker's network on simulated crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.metrics.detection import PrecisionRecallCurve, precision_recall_curve, rank_outcomes
from cryopick.pickers.diameter import WORKING_FACTOR
from cryopick.pickers.general import (
    NOMINAL_PARTICLE_PX,
    STRIDE_PX,
    HeatmapModel,
    centre_targets,
    centres_from_maps,
    heatmap_model,
    picks_at_scale,
)
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import PLANES, network_planes
from cryopick.simulation.crops import Crop
from cryopick.training.calibrating import fit_calibration
from cryopick.training.quarters import LearnsFromQuarters, QuarterTask
from cryopick.training.trainable import Preset, TrainSettings
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.io.checkpoint import Checkpoint
    from cryopick.training.datasets import Dataset
    from cryopick.training.general_finetune import LabelledGeneralTrainable

PICKED_RATIO = (0.6, 1.65)
"""Particles whose diameter over the nominal one lies in this range are to be picked …"""
UNDECIDED_RATIO = (0.45, 2.2)
"""… those outside this one are not; what lies between is left out of the loss."""
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


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=GeneralTask(has_shape=True),
        training=TrainSettings(
            steps=14_000,
            learning_rate=0.015,
            optimizer="muon",
            weight_decay=0.03,
            warmup_steps=200,
            gradient_clip=2.0,
            ema_decay=0.999,
            validate_every=2000,
            checkpoint_every=500,
            precision="bf16-mixed",
            stored_as="float16",
        ),
        about="the shipped network: less than two hours on 2 CPU cores with bfloat16 arithmetic, crops included",
    ),
}


def make_trainable(task: GeneralTask, *, train: Dataset | None, validation: Dataset | None) -> GeneralTrainable:
    """Trains on simulation; data sets are for `cryopick finetune`."""
    if train is not None or validation is not None:
        raise SettingsError(
            "general is trained on simulation only (--data simulation); to adapt it to your micrographs use "
            "`cryopick finetune general`"
        )
    return GeneralTrainable(task)


FINETUNE_TASK: Mapping[str, Any] = {"batch_size": 8, "validation_crops": 16, "micrograph_share": 0.2}
"""Fine-tuning is to take minutes: smaller batches, fewer validation crops, and fewer of the costly crops."""
FINETUNE_TRAINING: Mapping[str, Any] = {"optimizer": "adamw", "learning_rate": 1.5e-4}
"""Orthogonal steps move all of a matrix, also what few new labels say nothing about."""


def make_finetunable(
    task: GeneralTask, *, train: Dataset, validation: Dataset, start: Checkpoint
) -> LabelledGeneralTrainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them."""
    from cryopick.training.general_finetune import LabelledGeneralTrainable, estimate_prior

    network = GeneralTrainable(task).build_network()
    start.load_into(network)
    return LabelledGeneralTrainable(task, train, validation, prior=estimate_prior(network.eval(), train))


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
        from cryopick.networks.heatmap_unet import build_heatmap_unet

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


# -------------------------------------------------------------------------------------------------------- targets


def example(crop: Crop, input_planes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A crop as the network sees it, and what it should answer.

    Returns
    -------
    planes : (input_planes, h, w), see `network_planes`
    targets : (10, h / 2, w / 2): centre, offset x, offset y, log size, junk share, weight of the centre loss, and those
        of `shape_targets`
    """
    planes = network_planes(crop.image, particle_px=NOMINAL_PARTICLE_PX, count=input_planes)
    shape_yx = crop.image.shape[0] // STRIDE_PX, crop.image.shape[1] // STRIDE_PX
    ratio = crop.diameter_px / NOMINAL_PARTICLE_PX
    is_picked = (ratio >= PICKED_RATIO[0]) & (ratio <= PICKED_RATIO[1])
    is_undecided = ~is_picked & (ratio >= UNDECIDED_RATIO[0]) & (ratio <= UNDECIDED_RATIO[1])
    diameter_px = crop.diameter_px.astype(np.float64)
    centre, geometry = centre_targets(
        crop.xy_px[is_picked], diameter_px[is_picked], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    undecided, _ = centre_targets(
        crop.xy_px[is_undecided], diameter_px[is_undecided], shape_yx=shape_yx, stride_px=STRIDE_PX
    )
    weight = 1 - undecided * (1 - centre)
    targets = np.stack([centre, *geometry, covered_share(crop.junk), weight])
    return planes, np.concatenate([targets, shape_targets(crop)])


def covered_share(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(h / 2, w / 2): share of each pixel of the network's maps that a mask of working pixels covers."""
    import cv2

    height, width = mask.shape
    share = cv2.resize(mask.astype(np.float32), (width // STRIDE_PX, height // STRIDE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(share, np.float32)


def shape_targets(crop: Crop) -> NDArray[np.float32]:
    """Which pixels belong to particles, and where from there the centre lies.

    Returns
    -------
    (4, h / 2, w / 2): share of the pixel that any particle covers; inward x and y, from the pixel's middle to the
    centre of the particle on it, in quarters of its diameter; and 1 where that is known: on particles to be picked
    """
    height, width = (side // STRIDE_PX for side in crop.image.shape)
    number = crop.instances[::STRIDE_PX, ::STRIDE_PX]
    is_known = (number > 0) & (number <= len(crop.xy_px))
    row, column = np.nonzero(is_known)
    which = number[row, column] - 1
    here = np.column_stack([column, row]) * STRIDE_PX + (STRIDE_PX - 1) / 2
    inward = np.zeros((2, height, width), np.float32)
    inward[:, row, column] = (4 * (crop.xy_px[which] - here) / crop.diameter_px[which, None]).T
    return np.stack([covered_share(crop.instances > 0), *inward, is_known.astype(np.float32)])


def heatmap_loss(maps: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Binary cross-entropy of centres and junk (so that both are probabilities), L1 of offsets and sizes at centres.

    Parameters
    ----------
    maps : (b, 5 or 8, h, w) logits and regressions of `HeatmapUNet`; 8 with shapes, of which the same is asked
    targets : (b, 10, h, w) of `example`
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    from cryopick.networks.heatmap_unet import OUTPUTS

    centre, weight = targets[:, 0], targets[:, 5]
    per_pixel = binary_cross_entropy_with_logits(maps[:, 0], centre, reduction="none")
    centre_loss = (per_pixel * weight).sum() / weight.sum().clamp(min=1)
    at_centres = centre.sum().clamp(min=1)
    offset_loss = ((maps[:, 1:3] - targets[:, 1:3]).abs().sum(1) * centre).sum() / at_centres
    size_loss = ((maps[:, 3] - targets[:, 3]).abs() * centre).sum() / at_centres
    junk_loss = binary_cross_entropy_with_logits(maps[:, 4], targets[:, 4])
    loss = centre_loss + 0.02 * offset_loss + 0.05 * size_loss + 0.2 * junk_loss
    parts = {"centre": centre_loss, "offset": offset_loss, "size": size_loss, "junk": junk_loss}
    if maps.shape[1] > len(OUTPUTS):
        inside = targets[:, 9]
        particle_loss = binary_cross_entropy_with_logits(maps[:, 5], targets[:, 6])
        inward_loss = ((maps[:, 6:8] - targets[:, 7:9]).abs().sum(1) * inside).sum() / inside.sum().clamp(min=1)
        loss = loss + 0.3 * particle_loss + 0.1 * inward_loss
        parts |= {"particle": particle_loss, "inward": inward_loss}
    return {"loss": loss, **parts}


# -------------------------------------------------------------------------------------------------------- judging


def as_model(network: nn.Module) -> HeatmapModel:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    from cryopick.networks.heatmap_unet import HeatmapUNet

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

    from cryopick.networks.heatmap_unet_int8 import activation_ranges

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
