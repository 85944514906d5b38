"""Training of the published network of CryoTransformer on labelled micrographs (COCO too) or on simulation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import RankedOutcomes, precision_recall_curve, rank_outcomes
from cryopick.pickers.cryotransformer.detr_model import (
    LONGEST_SIDE_PX,
    NETWORK,
    SHORT_SIDE_PX,
    DetrModel,
    PreparedImage,
    build_detr,
    detr_model,
    prepare_image,
    resized,
)
from cryopick.pickers.cryotransformer.matching import NOTHING, PARTICLE, detr_losses
from cryopick.pickers.cryotransformer.published import Answers
from cryopick.pickers.cryotransformer.tiles import tile_side_px
from cryopick.processing.probability import Calibration
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import fit_calibration
from cryopick.training.sampling import epoch_index

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset

CACHED_IMAGES = 64
BACKBONE_RATE = 0.1
"""The backbone learns at 1e-5 where the rest learns at 1e-4."""
SIMULATED_SEED = 1


@dataclass(frozen=True, kw_only=True)
class DetrTask:
    """What the network is and what it sees; the defaults are those of the article."""

    backbone: Annotated[Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"], "of the network"] = (
        "resnet152"
    )
    queries: Annotated[int, "answers per image"] = 600
    width: Annotated[int, "channels of a query"] = 256
    heads: Annotated[int, "heads of every attention"] = 8
    layers: Annotated[int, "layers of the encoder, and of the decoder"] = 6
    feed_width: Annotated[int, "channels of the feed-forward networks"] = 2048
    dropout: Annotated[float, "dropout of the transformer"] = 0.1
    behaviour: Annotated[
        Literal["corrected", "published"],
        "published: whole micrographs upside down, particles labelled as nothing, boxes cut at the border",
    ] = "corrected"
    denoising: Annotated[
        Literal["corrected", "published", "none"], "of the micrographs; published takes ten seconds for each"
    ] = "corrected"
    short_px: Annotated[int, "shorter side at which the network sees an image"] = SHORT_SIDE_PX
    longest_px: Annotated[int, "largest longer side"] = LONGEST_SIDE_PX
    augment: Annotated[bool, "flip (corrected: also turn), resize and cut the training images"] = True
    batch_size: Annotated[int, "images per batch"] = 8
    validation_images: Annotated[int, "images that judge the network"] = 32
    norm_images: Annotated[int, "images that set the frozen norms of a new backbone"] = 2

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise SettingsError(
                f"[task] width is {self.width}, expected a multiple of 4 times the {self.heads} heads, for the sine "
                "and cosine of x and y"
            )
        for name in ("queries", "layers", "short_px", "batch_size", "validation_images", "norm_images"):
            if getattr(self, name) < 1:
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True, eq=False)
class View:
    """One training image.

    Parameters
    ----------
    grey : (h, w) float32 in [0, 1]
    boxes : (n, 4) centre and size in 0..1 of the image
    """

    grey: NDArray[np.float32]
    boxes: NDArray[np.float64]


@dataclass
class DetrTrainable:
    """The network, its images and its loss.

    Parameters
    ----------
    train, validation : labelled micrographs with known diameters, or None for simulated crops
    """

    task: DetrTask
    train: Dataset | None = None
    validation: Dataset | None = None
    picker: str = field(default="cryotransformer", init=False)

    def __post_init__(self) -> None:
        for dataset in (self.train, self.validation):
            unknown = [] if dataset is None else [i.name for i in dataset.items if i.labels and i.diameter_px is None]
            if unknown:
                raise SettingsError(
                    f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A or 108px)"
                )

    @cached_property
    def images(self) -> TrainingImages:
        return TrainingImages(self.task, self.train, seed=SIMULATED_SEED)

    @cached_property
    def held_out(self) -> list[View]:
        images = TrainingImages(self.task, self.validation, seed=SIMULATED_SEED + 1000)
        rng = np.random.default_rng(0)
        return [images.view(number, rng) for number in range(self.task.validation_images)]

    def architecture(self) -> dict[str, Any]:
        task = self.task
        return {
            "network": NETWORK,
            "backbone": task.backbone,
            "queries": task.queries,
            "width": task.width,
            "heads": task.heads,
            "layers": task.layers,
            "feed_width": task.feed_width,
            "dropout": task.dropout,
        }

    def build_network(self) -> nn.Module:
        """A new network; the frozen norms of its backbone fit its first images."""
        import torch

        from cryopick.pickers.cryotransformer.detr_network import normalized

        network = build_detr(self.architecture())
        rng = np.random.default_rng(0)
        grey, _ = padded([self.images.view(number, rng).grey for number in range(self.task.norm_images)])
        network.set_norms(normalized(torch.from_numpy(grey)))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The backbone learns at a tenth of the rate."""
        parts: tuple[list[Any], list[Any]] = ([], [])
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parts["backbone" in name].append(parameter)
        return [{"params": parts[0]}, {"params": parts[1], "lr_factor": BACKBONE_RATE}]

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Images in turn; `boxes` is (n, 5): number of the image, then a box in 0..1 of the padded batch."""
        import torch

        views = [self.images.view(index * self.task.batch_size + i, rng) for i in range(self.task.batch_size)]
        if self.task.augment:
            views = [augmented(view, self.task, rng) for view in views]
        grey, mask = padded([view.grey for view in views])
        height, width = grey.shape[1:]
        rows = []
        for number, view in enumerate(views):
            share = np.array([view.grey.shape[1] / width, view.grey.shape[0] / height] * 2)
            rows.append(np.column_stack([np.full(len(view.boxes), number), view.boxes * share]))
        return {
            "grey": torch.from_numpy(grey),
            "mask": torch.from_numpy(mask),
            "boxes": torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        }

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from cryopick.pickers.cryotransformer.detr_network import normalized

        answers = network(normalized(batch["grey"]), batch["mask"])
        answers = [(logits.float(), boxes.float()) for logits, boxes in answers]
        rows = batch["boxes"]
        targets = [rows[rows[:, 0] == image, 1:] for image in range(len(batch["grey"]))]
        particle = NOTHING if self.task.behaviour == "published" else PARTICLE
        return detr_losses(answers, targets, particle_class=particle)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Average precision and best F1 of the answers at a quarter of a box, with their own scores."""
        curve = precision_recall_curve(self._outcomes(network))
        best = float(np.nanmax(curve.f1)) if len(curve.threshold) else 0.0
        return {"score": curve.average_precision, "best_f1": best}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        outcomes = self._outcomes(network)
        score = np.concatenate([one.score for one in outcomes])
        # right is what no surer answer has found: of many answers on a particle the nearest is not the one that counts
        calibration = fit_calibration(score, np.concatenate([one.is_true for one in outcomes]))
        data: dict[str, Any] = {"kind": "simulation", "seed": SIMULATED_SEED}
        if self.train is not None and self.validation is not None:
            data = {"train": self.train.card_entry(), "validation": self.validation.card_entry()}
        return {
            "preprocessing": self.preprocessing(),
            "postprocessing": {"calibration": calibration.to_list()},
            "data": data,
        }

    def preprocessing(self) -> dict[str, Any]:
        task = self.task
        return {
            "denoising": task.denoising,
            "behaviour": task.behaviour,
            "short_px": task.short_px,
            "longest_px": task.longest_px,
        }

    def _outcomes(self, network: nn.Module) -> list[RankedOutcomes]:
        model = self.as_model(network)
        return [outcome(model.answers(view.grey), view.boxes) for view in self.held_out]

    def as_model(self, network: nn.Module) -> DetrModel:
        """The network as the picker runs it, not yet calibrated."""
        device = str(next(network.parameters()).device)
        plain: Any = network
        return detr_model(plain, self.preprocessing(), Calibration.none(), device=device)


def outcome(answers: Answers, boxes: NDArray[np.float64]) -> RankedOutcomes:
    """Answers against the boxes of one image; a centre may be off by a quarter of the typical box."""
    size = np.median(boxes[:, 2:], axis=0) if len(boxes) else np.array([0.05, 0.05])
    nobody = np.zeros((0, 2))
    return rank_outcomes(
        answers.boxes[:, :2] / size, answers.probability, boxes[:, :2] / size, nobody, max_distance_px=0.25
    )


# --------------------------------------------------------------------------------------------------------- images


class TrainingImages:
    """Images and boxes, from a data set or from simulation; prepared micrographs are kept in memory."""

    def __init__(self, task: DetrTask, dataset: Dataset | None, *, seed: int) -> None:
        self.task, self.seed = task, seed
        self.items = () if dataset is None else dataset.labelled().items
        is_training = seed == SIMULATED_SEED  # on the bank that all trainings share
        self.simulated = SimulatedCrops() if is_training else SimulatedCrops(seed=seed, far_scale_share=0.0, count=0)
        self._prepared: OrderedDict[int, PreparedImage] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": OrderedDict()}  # worker processes prepare their own

    def view(self, number: int, rng: np.random.Generator) -> View:
        """Image `number` of an endless sequence, at the network's size and not yet augmented.

        Of a data set: whole micrographs as published, or tiles in which the queries suffice (`tile_side_px`) anywhere.
        """
        if not self.items:
            return self._of_crop(number)
        index = epoch_index(number, len(self.items), seed=self.seed)
        item = self.items[index]
        if item.labels is None or item.diameter_px is None:
            raise ValueError(f"{item.name}: has no labels with a diameter")
        prepared = self._prepare(index, item.diameter_px)
        certain = item.labels.xy_px[~item.labels.is_uncertain]
        particle_px = item.diameter_px * prepared.scale.factor
        if self.task.behaviour == "published":  # the shift of the denoiser is left in, as the program leaves it
            upside_down = np.column_stack([certain[:, 0], item.shape_yx[0] - 1 - certain[:, 1]])
            return self._sized(prepared.grey, prepared.scale.to_working_xy(upside_down), particle_px)
        xy = prepared.to_working_xy(certain)
        side = round(tile_side_px(self.task.queries, diameter_px=particle_px))
        rows, columns = (min(side, size) for size in prepared.grey.shape)
        top = int(rng.integers(prepared.grey.shape[0] - rows + 1))
        left = int(rng.integers(prepared.grey.shape[1] - columns + 1))
        return self._sized(prepared.grey[top : top + rows, left : left + columns], xy - [left, top], particle_px)

    def _of_crop(self, number: int) -> View:
        crop = self.simulated.crop(number)
        diameter_px = float(np.median(crop.diameter_px)) if len(crop.diameter_px) else 20.0
        prepared = prepare_image(crop.image, diameter_px=diameter_px, denoising=self.task.denoising)
        xy = prepared.to_working_xy(crop.xy_px)
        return self._sized(prepared.grey, xy, diameter_px * prepared.scale.factor)

    def _prepare(self, index: int, diameter_px: float) -> PreparedImage:
        if index not in self._prepared:
            pixels = self.items[index].read().pixels
            if self.task.behaviour == "published":  # the program turns micrographs upside down first
                pixels = np.ascontiguousarray(pixels[::-1])
            self._prepared[index] = prepare_image(pixels, diameter_px=diameter_px, denoising=self.task.denoising)
            while len(self._prepared) > CACHED_IMAGES:
                self._prepared.popitem(last=False)
        return self._prepared[index]

    def _sized(self, grey: NDArray[np.float32], xy_px: NDArray[np.float64], particle_px: float) -> View:
        """The part at the network's size; particles whose centre is outside are none."""
        height, width = grey.shape
        inside = ((xy_px >= -0.5) & (xy_px < np.array([width, height]) - 0.5)).all(axis=1)
        share = (xy_px[inside] + 0.5) / [width, height]
        size = np.broadcast_to([particle_px / width, particle_px / height], share.shape)
        boxes = np.concatenate([share, size], axis=1)
        if self.task.behaviour == "published":
            boxes = clipped(boxes)
        return View(resized(grey, short_px=self.task.short_px, longest_px=self.task.longest_px), boxes)


def clipped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes cut at the border of the image, as published: the centres of those at the border move inwards."""
    low = np.clip(boxes[:, :2] - boxes[:, 2:] / 2, 0, 1)
    high = np.clip(boxes[:, :2] + boxes[:, 2:] / 2, 0, 1)
    whole = np.concatenate([(low + high) / 2, high - low], axis=1)
    return np.asarray(whole[(whole[:, 2:] > 0).all(axis=1)])


def augmented(view: View, task: DetrTask, rng: np.random.Generator) -> View:
    """Flip, and half of the time resize or cut and resize, as published; corrected images are flipped and turned.

    Sizes are the published ones (480 to 800, pieces of 384 to 600) for a shorter side of 800 and in proportion.
    """
    grey, boxes = view.grey, view.boxes
    if rng.random() < 0.5:
        grey, boxes = grey[:, ::-1], np.column_stack([1 - boxes[:, 0], boxes[:, 1:]])
    if task.behaviour == "corrected":
        if rng.random() < 0.5:
            grey, boxes = grey[::-1], np.column_stack([boxes[:, 0], 1 - boxes[:, 1], boxes[:, 2:]])
        if rng.random() < 0.5:
            grey, boxes = grey.T, boxes[:, [1, 0, 3, 2]]
    if rng.random() < 0.5:
        unit = task.short_px / SHORT_SIDE_PX
        if rng.random() < 0.5:
            grey, boxes = _piece(grey, boxes, unit, rng, is_clipped=task.behaviour == "published")
        side = round(int(rng.choice(np.arange(480, 801, 32))) * unit)
        grey = resized(np.ascontiguousarray(grey), short_px=side, longest_px=task.longest_px)
    return View(np.ascontiguousarray(grey), boxes)


def _piece(
    grey: NDArray[np.float32],
    boxes: NDArray[np.float64],
    unit: float,
    rng: np.random.Generator,
    *,
    is_clipped: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    height, width = grey.shape
    rows, columns = (
        int(rng.integers(min(round(384 * unit), size), min(round(600 * unit), size) + 1)) for size in (height, width)
    )
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    size = np.array([width, height, width, height])
    moved = (boxes * size - [left, top, 0, 0]) / [columns, rows, columns, rows]
    inside = ((moved[:, :2] >= 0) & (moved[:, :2] < 1)).all(axis=1)
    moved = clipped(moved) if is_clipped else moved[inside]
    return grey[top : top + rows, left : left + columns], moved


def padded(images: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(b, h, w) images padded with the value that the network sees as 0, and 1 where a pixel is an image's.

    The published program pads the normalised image with 0, which is nearly the same grey.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    grey = np.full((len(images), height, width), 0.456, np.float32)
    mask = np.zeros_like(grey)
    for number, image in enumerate(images):
        grey[number, : image.shape[0], : image.shape[1]] = image
        mask[number, : image.shape[0], : image.shape[1]] = 1
    return grey, mask
