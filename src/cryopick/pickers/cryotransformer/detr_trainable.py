"""Training of the published network of CryoTransformer on labelled micrographs (COCO too) or on simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import RankedOutcomes, rank_outcomes
from cryopick.pickers.cryotransformer.detr_model import (
    LONGEST_SIDE_PX,
    NETWORK,
    SHORT_SIDE_PX,
    DetrModel,
    build_detr,
    detr_model,
    prepare_image,
    resized,
)
from cryopick.pickers.cryotransformer.matching import NOTHING, PARTICLE, detr_losses
from cryopick.pickers.cryotransformer.published import Answers
from cryopick.pickers.cryotransformer.tiles import tile_side_px
from cryopick.processing.probability import Calibration
from cryopick.simulation.crops import Crop
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import (
    NO_PARTICLES,
    TOLERANCE_DIAMETERS,
    calibrated,
    detection_scores,
    device_of,
    typical_diameter_px,
)
from cryopick.training.quarters import Example
from cryopick.training.sampling import MicrographSampler
from cryopick.training.sources import LearnsFromCrops

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset, LabelledMicrograph

BACKBONE_RATE = 0.1
"""The backbone learns at 1e-5 where the rest learns at 1e-4."""
HELD_OUT_SEED = 1001


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

    # what `FromSimulation` asks of a task: whole crops of the bank that all trainings share

    learns_from_quarters: ClassVar[bool] = False
    simulation_seed: ClassVar[int] = 1

    @property
    def crops_per_batch(self) -> int:
        """Each is an image."""
        return self.batch_size

    def training_crops(self) -> SimulatedCrops:
        """The crops that teach."""
        return SimulatedCrops(seed=self.simulation_seed)

    def crops_to_judge(self) -> list[Crop]:
        """Others, particles near the nominal size."""
        crops = SimulatedCrops(seed=HELD_OUT_SEED, far_scale_share=0.0, count=0)
        return [crops.crop(number) for number in range(self.validation_images)]


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """One training image.

    Parameters
    ----------
    grey : (h, w) float32 in [0, 1]
    boxes : (n, 4) centre and size in 0..1 of the image
    """

    grey: NDArray[np.float32]
    boxes: NDArray[np.float64]


@dataclass
class DetrTrainable(LearnsFromCrops):
    """The network, its images and its loss."""

    task: DetrTask
    picker: str = field(default="cryotransformer", init=False)

    def __post_init__(self) -> None:
        for dataset in (self.train, self.validation):
            unknown = [] if dataset is None else [i.name for i in dataset.items if i.labels and i.diameter_px is None]
            if unknown:
                raise SettingsError(
                    f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A or 108px)"
                )

    @cached_property
    def held_out(self) -> list[BoxedImage]:
        """What the network is judged on, not augmented."""
        if self.validation is None:
            return [boxed_crop(crop, self.task) for crop in self.task.crops_to_judge()]
        sampler = ImageSampler(self.validation, self.task, seed=HELD_OUT_SEED)
        rng = np.random.default_rng(0)
        return [sampler.crop(number, rng) for number in range(self.task.validation_images)]

    def simulated_example(self, crop: Crop) -> Example:
        return vars(boxed_crop(crop, self.task))

    def sampler_of(self, dataset: Dataset) -> ImageSampler:
        """Images of labelled micrographs."""
        return ImageSampler(dataset, self.task, seed=self.task.simulation_seed)

    def labelled_example(self, crop: BoxedImage) -> Example:
        return vars(crop)

    def _images(self, index: int, rng: np.random.Generator) -> Iterator[BoxedImage]:
        """Those of batch `index`, at the network's size and not yet augmented."""
        return (BoxedImage(**one) for one in self.source.examples(index, rng))

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
        first = chain.from_iterable(self._images(index, rng) for index in count())
        grey, _ = padded([image.grey for image in islice(first, self.task.norm_images)])
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

        images = list(self._images(index, rng))
        if self.task.augment:
            images = [augmented(image, self.task, rng) for image in images]
        grey, mask = padded([image.grey for image in images])
        height, width = grey.shape[1:]
        rows = []
        for number, image in enumerate(images):
            share = np.array([image.grey.shape[1] / width, image.grey.shape[0] / height] * 2)
            rows.append(np.column_stack([np.full(len(image.boxes), number), image.boxes * share]))
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
        return detection_scores(self._outcomes(network))

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        calibration = calibrated(self._outcomes(network), surest_counts=True)
        return {
            "preprocessing": self.preprocessing(),
            "postprocessing": {"calibration": calibration.to_list()},
            "data": self.card_data(),
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
        return [outcome(model.answers(image.grey), image.boxes) for image in self.held_out]

    def as_model(self, network: nn.Module) -> DetrModel:
        """The network as the picker runs it, not yet calibrated."""
        plain: Any = network
        return detr_model(plain, self.preprocessing(), Calibration.none(), device=device_of(network))


def outcome(answers: Answers, boxes: NDArray[np.float64]) -> RankedOutcomes:
    """Answers against the boxes of one image; a centre may be off by a quarter of the typical box."""
    size = np.median(boxes[:, 2:], axis=0) if len(boxes) else np.array([0.05, 0.05])
    places, particles = answers.boxes[:, :2] / size, boxes[:, :2] / size
    return rank_outcomes(places, answers.probability, particles, NO_PARTICLES, max_distance_px=TOLERANCE_DIAMETERS)


# --------------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True, eq=False)
class PreparedMicrograph:
    """A labelled micrograph as the network is shown it, but for its size.

    Parameters
    ----------
    image : (h, w) grey, in [0, 1]
    xy_px, particle_px : (n, 2) certain particles and their diameter, in its pixels
    """

    image: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    particle_px: float


class ImageSampler(MicrographSampler[Any]):
    """Labelled micrographs: whole as published, or tiles in which the queries suffice (`tile_side_px`) anywhere."""

    def __init__(self, dataset: Dataset, task: DetrTask, *, seed: int) -> None:
        super().__init__(dataset, seed=seed)
        self.task = task

    def at_working_scale(self, item: LabelledMicrograph) -> PreparedMicrograph:
        if item.labels is None or item.diameter_px is None:
            raise ValueError(f"{item.name}: has no labels with a diameter")
        pixels = item.read().pixels
        is_published = self.task.behaviour == "published"
        if is_published:  # the program turns micrographs upside down first
            pixels = np.ascontiguousarray(pixels[::-1])
        prepared = prepare_image(pixels, diameter_px=item.diameter_px, denoising=self.task.denoising)
        xy = item.labels.xy_px[~item.labels.is_uncertain]
        if is_published:  # the shift of the denoiser is left in, as the program leaves it
            xy = prepared.scale.to_working_xy(np.column_stack([xy[:, 0], item.shape_yx[0] - 1 - xy[:, 1]]))
        else:
            xy = prepared.to_working_xy(xy)
        return PreparedMicrograph(prepared.grey, xy, item.diameter_px * prepared.scale.factor)

    def crop(self, position: int, rng: np.random.Generator) -> BoxedImage:
        """The next micrograph, or a tile of it."""
        one: PreparedMicrograph = self.whole(self.index_at(position))
        if self.task.behaviour == "published":
            return sized(one.image, one.xy_px, one.particle_px, self.task)
        side = round(tile_side_px(self.task.queries, diameter_px=one.particle_px))
        rows, columns = (min(side, size) for size in one.image.shape)
        top = int(rng.integers(one.image.shape[0] - rows + 1))
        left = int(rng.integers(one.image.shape[1] - columns + 1))
        tile = one.image[top : top + rows, left : left + columns]
        return sized(tile, one.xy_px - [left, top], one.particle_px, self.task)


def boxed_crop(crop: Crop, task: DetrTask) -> BoxedImage:
    """A simulated crop as an image."""
    diameter_px = typical_diameter_px(crop.diameter_px)
    prepared = prepare_image(crop.image, diameter_px=diameter_px, denoising=task.denoising)
    return sized(prepared.grey, prepared.to_working_xy(crop.xy_px), diameter_px * prepared.scale.factor, task)


def sized(grey: NDArray[np.float32], xy_px: NDArray[np.float64], particle_px: float, task: DetrTask) -> BoxedImage:
    """A picture at the network's size; particles whose centre is outside are none."""
    height, width = grey.shape
    inside = ((xy_px >= -0.5) & (xy_px < np.array([width, height]) - 0.5)).all(axis=1)
    share = (xy_px[inside] + 0.5) / [width, height]
    size = np.broadcast_to([particle_px / width, particle_px / height], share.shape)
    boxes = np.concatenate([share, size], axis=1)
    if task.behaviour == "published":
        boxes = clipped(boxes)
    return BoxedImage(resized(grey, short_px=task.short_px, longest_px=task.longest_px), boxes)


def clipped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes cut at the border of the image, as published: the centres of those at the border move inwards."""
    low = np.clip(boxes[:, :2] - boxes[:, 2:] / 2, 0, 1)
    high = np.clip(boxes[:, :2] + boxes[:, 2:] / 2, 0, 1)
    whole = np.concatenate([(low + high) / 2, high - low], axis=1)
    return np.asarray(whole[(whole[:, 2:] > 0).all(axis=1)])


def augmented(image: BoxedImage, task: DetrTask, rng: np.random.Generator) -> BoxedImage:
    """Flip, and half of the time resize or cut and resize, as published; corrected images are flipped and turned.

    Sizes are the published ones (480 to 800, pieces of 384 to 600) for a shorter side of 800 and in proportion.
    """
    grey, boxes = image.grey, image.boxes
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
    return BoxedImage(np.ascontiguousarray(grey), boxes)


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
