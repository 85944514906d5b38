"""Training of the segmentation networks and their CRFs, on simulated crops or on labelled micrographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.inference.channels_last import channels_last
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.metrics.segmentation import ConfusionMatrix
from cryopick.pickers.segmentation_crf.losses import OWN_BELIEF, segmentation_loss, weight_of_sparse
from cryopick.pickers.segmentation_crf.model import (
    CELLS_PER_DIAMETER,
    CORE_RADIUS,
    CRFS,
    SegmentationModel,
    core_map,
    particle_map,
    segmentation_model,
    working_particle_px,
)
from cryopick.pickers.segmentation_crf.published_training import (
    PUBLISHED_PRESETS,
    PublishedTask,
    PublishedTrainable,
)
from cryopick.pickers.segmentation_crf.regions import find_regions
from cryopick.pickers.segmentation_crf.targets import MapSampler, WorkingMap, crop_example, map_example
from cryopick.processing.scale import PLANES
from cryopick.simulation.crops import Crop, CropGenerator, CropRanges
from cryopick.simulation.recipe import LayoutRanges, Recipe
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import (
    NO_PARTICLES,
    TOLERANCE_DIAMETERS,
    Candidates,
    device_of,
    fit_calibration,
    tolerance_px,
)
from cryopick.training.quarters import QuarterTask
from cryopick.training.sources import FromSimulation, LearnsFromCrops
from cryopick.training.trainable import Family, Preset, TrainSettings
from cryopick.types import Picks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

CRF_SHARE = 0.5
"""Weight of the loss behind the CRFs, relative to that before them."""
TRUNK_RATE = 0.3
"""Learning rate of a trunk that is trained already, relative to that of new heads."""


@dataclass(frozen=True, kw_only=True)
class SegmentationTask(QuarterTask):
    """What the network is and what it sees."""

    backbone: Annotated[
        Literal["small", "fcn-resnet50", "fcn-resnet101", "deeplabv3-resnet50", "deeplabv3-resnet101"],
        "small holds an FCN and a DeepLabv3 head on one light trunk; the others are torchvision's",
    ] = "small"
    start: Annotated[
        Literal["general", "random", "given"],
        "first weights of the small trunk: those of `general`, random, or with all others those of --start",
    ] = "general"
    widths: Annotated[tuple[int, int, int], "small trunk: channels at strides 4, 8 and 16"] = (64, 128, 192)
    depths: Annotated[tuple[int, int, int], "small trunk: residual blocks at each of them"] = (2, 3, 2)
    in_channels: Annotated[int, "planes that it sees, see `general`"] = 3
    dropout: Annotated[float, "of torchvision's heads"] = 0.5
    crop_px: Annotated[int, "side of a crop, working pixels; small learns from two of its quarters at a time"] = 448
    crf_from_step: Annotated[int, "batch from which the CRFs are trained together with the network"] = 430
    crf_crops: Annotated[int, "crops of a batch that the CRFs see"] = 4
    simulation_seed: Annotated[int, "seed of the simulated crops; not that of the trunk's, which knows those"] = 2
    calibration_crops: Annotated[int, "simulated crops that probabilities are calibrated on; a third seed"] = 96

    def __post_init__(self) -> None:
        if self.is_small:
            super().__post_init__()
        elif self.crop_px % 64:
            raise SettingsError(f"[task] crop_px is {self.crop_px}, expected a multiple of 64")
        if not 0 <= self.crf_crops <= self.batch_size:
            raise SettingsError(f"[task] crf_crops is {self.crf_crops}, expected 0 to batch_size ({self.batch_size})")

    @property
    def is_small(self) -> bool:
        return self.backbone == "small"

    @property
    def stride_px(self) -> int:
        """Working pixels per cell of the maps."""
        return 2 if self.is_small else 8

    @property
    def learns_from_quarters(self) -> bool:
        """The large backbones learn from whole crops."""
        return self.is_small

    def training_crops(self) -> SimulatedCrops | CropGenerator:
        """Crops with particles of the backbone's working size."""
        return super().training_crops() if self.is_small else self.large_crops(self.simulation_seed)

    def large_crops(self, seed: int) -> CropGenerator:
        """Crops for the large backbones, whose particles have more working pixels."""
        particle_px = working_particle_px(self.stride_px)
        layout = LayoutRanges(spacing_diameters=(0.6, 1.3), packed_probability=0.2)
        ranges = CropRanges(diameter_error=(0.7, 1.4), empty_probability=0.1, junk_only_probability=0.15)
        return CropGenerator(
            Recipe(layout=layout),
            seed,
            crop_px=self.crop_px,
            particle_px_range=(particle_px, particle_px),
            ranges=ranges,
        )

    def _held_out(self, count: int, *, seed: int) -> list[Crop]:
        if self.is_small:
            return super()._held_out(count, seed=seed)
        source = self.large_crops(seed)
        return [source.crop(index) for index in range(count)]


def _large(head: str, task: SegmentationTask) -> Preset:
    return Preset(
        task=replace(task, crf_from_step=80_000, start="random"),
        training=TrainSettings(
            steps=100_000,
            learning_rate=1e-3,
            optimizer="adam",
            weight_decay=0.0,
            schedule="cosine",
            ema_decay=0.0,
            validate_every=1000,
            checkpoint_every=1000,
            precision="bf16-mixed",
            workers=8,
        ),
        about=f"our classes, loss and crops on torchvision's {head}, particles 80 px wide; needs a GPU",
    )


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=SegmentationTask(),
        training=TrainSettings(
            steps=640,
            learning_rate=1.5e-3,
            weight_decay=0.02,
            warmup_steps=40,
            gradient_clip=2.0,
            ema_decay=0.99,
            validate_every=640,
            checkpoint_every=150,
            precision="bf16-mixed",
            stored_as="float16",
        ),
        about="the shipped network: 12 minutes on 2 CPU cores with bfloat16 units, crops not counted, from `general`",
    ),
    **PUBLISHED_PRESETS,
    "large": _large("FCN", SegmentationTask(backbone="fcn-resnet101", batch_size=7, crop_px=512, crf_crops=2)),
    "large-deeplabv3": _large(
        "DeepLabv3", SegmentationTask(backbone="deeplabv3-resnet50", batch_size=2, crop_px=1024, crf_crops=1)
    ),
}


@dataclass
class SegmentationTrainable(LearnsFromCrops):
    """A network with its CRFs, its examples and its loss."""

    task: SegmentationTask
    picker: str = field(default="segmentation-crf", init=False)

    def sampler_of(self, dataset: Dataset) -> MapSampler:
        """Segmentation maps of labelled micrographs."""
        return MapSampler(dataset, crop_px=self.task.example_px, stride_px=self.task.stride_px)

    def simulated_example(self, crop: Crop) -> dict[str, NDArray[Any]]:
        return crop_example(crop, stride_px=self.task.stride_px, input_planes=self.task.in_channels).arrays()

    def labelled_example(self, crop: WorkingMap) -> dict[str, NDArray[Any]]:
        return map_example(crop, stride_px=self.task.stride_px, input_planes=self.task.in_channels).arrays()

    # --------------------------------------------------------------------------------------------- the network

    def architecture(self) -> dict[str, Any]:
        shared = {"network": "segmentation", "backbone": self.task.backbone, "in_channels": self.task.in_channels}
        if self.task.is_small:
            return {**shared, "widths": list(self.task.widths), "depths": list(self.task.depths)}
        return {**shared, "dropout": self.task.dropout}

    def build_network(self) -> nn.Module:

        from cryopick.pickers.segmentation_crf.network import build_segmentation

        network = build_segmentation(self.architecture())
        if self.task.is_small and self.task.start == "general":
            load_trunk(network)
        return channels_last(network)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """A trained trunk learns more slowly than new heads."""
        if not self.task.is_small or self.task.start == "random":
            return [{"params": list(network.parameters())}]
        trunk: Any = network.trunk
        inside = {id(parameter) for parameter in trunk.parameters()}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in inside]
        return [{"params": list(trunk.parameters()), "lr_factor": TRUNK_RATE}, {"params": rest}]

    # ------------------------------------------------------------------------------------------------ examples

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Maps; from `crf_from_step` on the CRFs see some of them too."""
        import torch

        crf_crops = self.task.crf_crops if index >= self.task.crf_from_step else 0
        return {**super().make_batch(index, rng), "crf_crops": torch.tensor(crf_crops)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over the heads; later also of what the CRFs make of the first crops, through which all is trained."""
        import torch

        from cryopick.pickers.segmentation_crf.network import CLASSES

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        crf_crops, labels = int(batch["crf_crops"]), len(CLASSES)
        refined = None
        if crf_crops:
            maps, refined = network(planes, batch["guide"][:crf_crops])
        else:
            maps = network(planes)
        heads = [maps[:, i : i + labels].float() for i in range(0, maps.shape[1] - labels, labels)]
        target, weight, is_complete = batch["target"], batch["weight"], batch["is_complete"]
        parts = []
        for logits in heads:
            kept = weight_of_sparse(logits, target, weight, is_complete)
            parts.append(segmentation_loss(logits, target, kept))
        losses = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        if refined is not None:
            some, some_weight = target[:crf_crops], weight[:crf_crops]
            behind = []
            for first in (0, labels):
                logits = refined[:, first : first + labels].float()
                kept = weight_of_sparse(logits, some, some_weight, is_complete[:crf_crops])
                behind.append(segmentation_loss(logits, some, kept)["loss"])
            losses["crf"] = torch.stack(behind).mean()
            losses["loss"] = losses["loss"] + CRF_SHARE * losses["crf"]
        return losses

    # ------------------------------------------------------------------------------------------------- judging

    @cached_property
    def judged(self) -> list[Judged]:
        """Simulated crops, or whole held-out micrographs."""
        return self._judged(self.source.held_out)

    def _judged(self, crops: Sequence[Crop | WorkingMap]) -> list[Judged]:
        task = self.task
        return [judged(one, stride_px=task.stride_px, input_planes=task.in_channels) for one in crops]

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision at a quarter of a diameter, and pixel scores, of every head; `score` is their mean."""
        scores: dict[str, float] = {}
        for head in network.head_names:  # type: ignore[union-attr]
            model = as_model(network, head=head)
            outcomes, matrix = [], ConfusionMatrix.empty(2)
            for one in self.judged:
                probability = model.refined(model.maps(one.planes, views=1), one.planes[0], crf="none")
                outcomes.append(ranked(probability, one))
                matrix += pixel_matrix(probability, one)
            curve = precision_recall_curve(outcomes)
            best_f1, _ = curve.best_f1()
            scores[f"{head}_average_precision"] = curve.average_precision
            scores[f"{head}_best_f1"] = best_f1
            scores[f"{head}_pixel_iou"] = float(matrix.iou[1])
        # what a set cannot tell (no particle at all) is left out
        told = [value for name, value in scores.items() if name.endswith(("precision", "iou")) and np.isfinite(value)]
        return {"score": float(np.mean(told)) if told else float("nan"), **scores}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        is_simulated = isinstance(self.source, FromSimulation)
        examples = self._judged(self.task.crops_to_calibrate()) if is_simulated else self.judged
        return {
            "preprocessing": {
                "particle_px": working_particle_px(self.task.stride_px),
                "planes": ", ".join(PLANES[: self.task.in_channels]),
            },
            "postprocessing": {"calibrations": calibrated_on(network, examples)},
            "data": self.card_data(),
        }

    def card_data(self) -> dict[str, Any]:
        """What was learnt from."""
        data = self.source.card_data()
        if self.task.start == "general" and self.task.is_small:
            data["start"] = "trunk of the shipped `general` weights, trained on simulation"
        return data


def load_trunk(network: nn.Module) -> None:
    """Copy the trunk of the shipped `general` weights into a small network, but what sees further planes.

    Raises
    ------
    WeightsError
        If they are missing or have other widths or depths.
    """
    from cryopick.heatmap.layout import TRUNK_STRIDE_PX
    from cryopick.io.weights import find_weights, load_checkpoint

    trunk: Any = network.trunk
    checkpoint = load_checkpoint(find_weights("general"), picker="general")
    inside = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("head.")}
    first = "stem.0.weight"  # its inputs are plane by plane
    inside[first] = inside[first][:, : trunk.in_channels * TRUNK_STRIDE_PX**2]
    replace(checkpoint, tensors=inside).load_into(trunk)


# --------------------------------------------------------------------------------------------------------- judging


def as_model(network: nn.Module, *, head: str) -> SegmentationModel:
    """The network as the picker runs it, in float32 and not yet calibrated."""
    return segmentation_model(network, {}, head=head, device=device_of(network), precision="float32")  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network is judged on, at working scale.

    Parameters
    ----------
    planes : see `network_planes`
    is_particle, is_counted : (h / stride, w / stride) truth, and where it counts
    xy_px : (n, 2) particles, working pixels
    tolerance_px : a quarter of a diameter
    is_complete : False where unlabelled places may hold particles
    """

    planes: NDArray[np.float32]
    is_particle: NDArray[np.bool_]
    is_counted: NDArray[np.bool_]
    xy_px: NDArray[np.float64]
    tolerance_px: float
    stride_px: int
    is_complete: bool = True


def judged(seen: Crop | WorkingMap, *, stride_px: int, input_planes: int = 2) -> Judged:
    """A simulated crop, or a whole labelled micrograph, with its truth."""
    nominal_px = working_particle_px(stride_px)
    if isinstance(seen, Crop):
        example = crop_example(seen, stride_px=stride_px, input_planes=input_planes)
        allowed_px = tolerance_px(seen.diameter_px, nominal_px=nominal_px)
    else:
        example = map_example(seen, stride_px=stride_px, input_planes=input_planes)
        allowed_px = TOLERANCE_DIAMETERS * nominal_px
    is_particle, is_counted = particle_map(example.target) > 0.5, example.weight > 0.5
    return Judged(example.planes, is_particle, is_counted, seen.xy_px, allowed_px, stride_px, example.is_complete)


def candidates(probability: NDArray[np.float32], *, stride_px: int) -> Candidates:
    """Centres (n, 2), working pixels, and scores (n,) of a map's candidates, thinned as picks are."""
    regions = find_regions(
        particle_map(probability),
        core_map(probability),
        diameter_px=CELLS_PER_DIAMETER,
        core_radius=CORE_RADIUS,
    )
    xy_px = (regions.xy_px + 0.5) * stride_px - 0.5
    sizes = np.full(len(xy_px), working_particle_px(stride_px))
    picks = Picks(xy_px=xy_px, score=regions.score.astype(np.float32), diameter_px=sizes)
    kept = select(picks, SelectionSettings(), threshold=0.0).is_kept
    return xy_px[kept], regions.score[kept]


def ranked(probability: NDArray[np.float32], truth: Judged) -> RankedOutcomes:
    """The candidates of a map against the truth."""
    found = candidates(probability, stride_px=truth.stride_px)
    return rank_outcomes(*found, truth.xy_px, NO_PARTICLES, max_distance_px=truth.tolerance_px)


def pixel_matrix(probability: NDArray[np.float32], truth: Judged) -> ConfusionMatrix:
    """Cells that are more likely particle than not, against the truth, where that counts."""
    found = particle_map(probability) > 0.5
    return ConfusionMatrix.of(truth.is_particle[truth.is_counted], found[truth.is_counted], classes=2)


def told(probability: NDArray[np.float32], truth: Judged) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of the candidates of a map, and whether each is right.

    Where labels may miss particles, unlabelled candidates that the network believes in are left out, as from the loss.
    """
    outcomes = ranked(probability, truth)
    is_told = outcomes.is_paired | (truth.is_complete | (outcomes.score <= OWN_BELIEF))
    return np.asarray(outcomes.score[is_told], np.float64), np.asarray(outcomes.is_paired[is_told])


def calibrated_on(network: nn.Module, examples: list[Judged]) -> dict[str, dict[str, list[list[float]]]]:
    """Calibration knots by head and CRF: each combination's scores mean something else."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for head in network.head_names:  # type: ignore[union-attr]
        model = as_model(network, head=head)
        outcomes: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {crf: [] for crf in CRFS}
        for one in examples:
            maps = model.maps(one.planes)
            for crf in CRFS:
                outcomes[crf].append(told(model.refined(maps, one.planes[0], crf=crf), one))
        found[head] = {
            crf: fit_calibration(*(np.concatenate(column) for column in zip(*each, strict=True))).to_list()
            for crf, each in outcomes.items()
        }
    return found


# --------------------------------------------------------------------------------------------------- for the loop


def make_trainable(
    task: SegmentationTask | PublishedTask, *, train: Dataset | None, validation: Dataset | None
) -> SegmentationTrainable | PublishedTrainable:
    """Trains on simulated crops, or on labelled micrographs where they are given; the published network on those alone.

    Raises
    ------
    SettingsError
        If the published network is given no micrographs.
    """
    if isinstance(task, PublishedTask):
        if train is None or validation is None:
            raise SettingsError(
                "the published network learns from micrographs and their masks: give --data with a folder of `cryopick "
                "label`, with images/ and masks/, or of a simulation (cryopick simulate --recipe segmentation-crf)"
            )
        return PublishedTrainable(task, train, validation)
    return SegmentationTrainable(task, train, validation)


def make_finetunable(
    task: SegmentationTask | PublishedTask,
    *,
    train: Dataset,
    validation: Dataset,
    start: Checkpoint,  # noqa: ARG001  # the loop loads it
) -> SegmentationTrainable | PublishedTrainable:
    """Learns from labelled micrographs, complete or sparse, and keeps the calibration to their held-out part.

    All first weights are those that fine-tuning starts from.
    """
    if isinstance(task, PublishedTask):
        return PublishedTrainable(replace(task, start_weights=None), train, validation)
    return SegmentationTrainable(replace(task, start="given"), train, validation)


FAMILY = Family(
    presets=PRESETS,
    make_trainable=make_trainable,
    make_finetunable=make_finetunable,
    finetune_task={"batch_size": 8, "crf_from_step": 100},
)
