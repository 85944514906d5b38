"""Training of the published network of CryoTransformer on labelled micrographs (COCO too) or on simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import RankedOutcomes, rank_outcomes
from cryopick.pickers.cryotransformer.detr_model import (
    AT_FULL_SIZE,
    LONGEST_SIDE_PX,
    NETWORK,
    SHORT_SIDE_PX,
    Answers,
    Behaviour,
    Denoising,
    DetrModel,
    Grey,
    PreparedImage,
    as_shares,
    build_detr,
    detr_model,
    full_size_picture,
    is_upside_down,
    needs_diameter,
    particle_class,
    prepare_image,
    resized,
    sees_wholes,
)
from cryopick.pickers.cryotransformer.matching import detr_losses
from cryopick.pickers.cryotransformer.tiles import tile_side_px
from cryopick.processing.denoise.published import SHIFT_XY_PX
from cryopick.processing.scale import ScaleMap
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

HELD_OUT_SEED = 1001
SIMULATED_JUDGES = 32
"""Simulated images that judge a network, unless the task says how many."""
PAPER_IMAGES = 5172
"""Training micrographs of the article; an epoch of simulated images is as long."""


@dataclass(frozen=True, kw_only=True)
class DetrTask:
    """What the network is and what it sees; the defaults are those of the article."""

    backbone: Annotated[Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"], "of the network"] = (
        "resnet152"
    )
    backbone_width: Annotated[int, "channels that leave the stem of the backbone; all later ones go with it"] = 64
    queries: Annotated[int, "answers per image"] = 600
    width: Annotated[int, "channels of a query"] = 256
    heads: Annotated[int, "heads of every attention"] = 8
    layers: Annotated[int, "layers of the encoder, and of the decoder"] = 6
    feed_width: Annotated[int, "channels of the feed-forward networks"] = 2048
    dropout: Annotated[float, "dropout of the transformer"] = 0.1
    behaviour: Annotated[
        Behaviour,
        "article: whole micrographs, two classes; published: the same upside down, particles labelled as nothing, "
        "boxes cut at the border, as the program has it; corrected: tiles in which the queries suffice",
    ] = "article"
    denoising: Annotated[
        Denoising,
        "of the micrographs: article and published take ten seconds for each; as_is takes 8-bit pictures that are "
        "denoised already, such as the authors'; none stretches the grey values",
    ] = "article"
    short_px: Annotated[int, "shorter side at which the network sees an image"] = SHORT_SIDE_PX
    longest_px: Annotated[int, "largest longer side"] = LONGEST_SIDE_PX
    augment: Annotated[
        Literal["published", "turns", "none"],
        "of the training images; published: flip left to right, always resize, cut half of them, as the program (tiles "
        "are turned too); turns: flips and quarter turns alone",
    ] = "published"
    backbone_rate: Annotated[float, "learning rate of the backbone over that of the rest"] = 0.1
    backbone_weights: Annotated[
        Path | None, "file of torch with weights of an ImageNet ResNet, named as torchvision does, to start from"
    ] = None
    coco_weights: Annotated[
        Path | None, "file of torch with a DETR of COCO to start from; class head and queries stay new, as published"
    ] = None
    batch_size: Annotated[int, "images per batch"] = 8
    validation_images: Annotated[
        int | None, f"images that judge the network; where not set, all of a data set, and {SIMULATED_JUDGES} simulated"
    ] = None
    norm_images: Annotated[int, "images that set the frozen norms of a new backbone"] = 2

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise SettingsError(
                f"[task] width is {self.width}, expected a multiple of 4 times the {self.heads} heads, for the sine "
                "and cosine of x and y"
            )
        for name in (
            "queries",
            "layers",
            "short_px",
            "batch_size",
            "validation_images",
            "norm_images",
            "backbone_width",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"[task] {name} is {value}, expected at least 1")
        if not self.backbone_rate >= 0:
            raise SettingsError(f"[task] backbone_rate is {self.backbone_rate}, expected 0 or more")

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
        return [crops.crop(number) for number in range(self.validation_images or SIMULATED_JUDGES)]


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """One training image.

    Parameters
    ----------
    grey : (h, w) uint8, or float32 in [0, 1]
    boxes : (n, 4) centre and size in 0..1 of the image
    """

    grey: Grey
    boxes: NDArray[np.float64]


@dataclass
class DetrTrainable(LearnsFromCrops):
    """The network, its images and its loss."""

    task: DetrTask
    picker: str = field(default="cryotransformer", init=False)
    _seen: TrainLosses = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._seen = TrainLosses()
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
            return [sized(boxed_crop(crop, self.task), self.task) for crop in self.task.crops_to_judge()]
        sampler = ImageSampler(self.validation, self.task, seed=HELD_OUT_SEED)
        rng = np.random.default_rng(0)
        # tiles are places of a micrograph, so that all micrographs are not all that there is
        most = SIMULATED_JUDGES if self.task.behaviour == "corrected" else len(sampler.items)
        count = self.task.validation_images or most
        if sees_wholes(self.task.behaviour):
            count = min(count, len(sampler.items))
        return [sized(sampler.crop(number, rng), self.task) for number in range(count)]

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
            "backbone_width": task.backbone_width,
            "queries": task.queries,
            "width": task.width,
            "heads": task.heads,
            "layers": task.layers,
            "feed_width": task.feed_width,
            "dropout": task.dropout,
        }

    def build_network(self) -> nn.Module:
        """A new network, or one that starts from others' weights; norms that nobody gave fit the first images."""
        import torch

        from cryopick.pickers.cryotransformer.detr_network import normalized
        from cryopick.pickers.cryotransformer.published_weights import start_backbone, start_from_coco

        network = build_detr(self.architecture())
        taken = frozenset[str]()
        if self.task.backbone_weights is not None:
            start_backbone(network, self.task.backbone_weights)
        if self.task.coco_weights is not None:
            taken = start_from_coco(network, self.task.coco_weights)
        if self.task.backbone_weights is None:
            rng = np.random.default_rng(0)
            first = chain.from_iterable(self._images(index, rng) for index in count())
            grey, _ = padded([sized(image, self.task).grey for image in islice(first, self.task.norm_images)])
            network.set_norms(normalized(torch.from_numpy(grey)), but=taken)
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The backbone learns at a tenth of the rate, or as the task says."""
        parts: tuple[list[Any], list[Any]] = ([], [])
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parts["backbone" in name].append(parameter)
        return [{"params": parts[0]}, {"params": parts[1], "lr_factor": self.task.backbone_rate}]

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Images in turn; see `batch_of`."""
        return batch_of([augmented(image, self.task, rng) for image in self._images(index, rng)])

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from cryopick.pickers.cryotransformer.detr_network import normalized

        answers = network(normalized(batch["grey"]), batch["mask"])
        answers = [(logits.float(), boxes.float()) for logits, boxes in answers]
        rows = batch["boxes"]
        targets = [rows[rows[:, 0] == image, 1:] for image in range(len(batch["grey"]))]
        losses = detr_losses(answers, targets, particle_class=particle_class(self.task.behaviour))
        if network.training:
            self._seen.add(losses["loss"])
        return losses

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Losses on what judges the network, the training loss since the last validation, and how the boxes fare.

        `score` is minus the validation loss where the network is the article's or the program's. With the program's
        class fault no score of a box means anything, and in the others the average precision stays at 0 for long while
        the loss falls already. Ours is scored by average precision. `best_f1` is at a quarter of a box.
        """
        losses = self._held_out_losses(network)
        scores = {"train_loss": self._seen.mean(), **{f"validation_{name}": value for name, value in losses.items()}}
        detection = detection_scores(self._outcomes(network))
        scores |= {"average_precision": detection["score"], "best_f1": detection["best_f1"]}
        by_loss = sees_wholes(self.task.behaviour)
        return {"score": -losses["loss"] if by_loss else detection["score"], **scores}

    def _held_out_losses(self, network: nn.Module) -> dict[str, float]:
        """Mean losses by image over what judges the network."""
        sums: dict[str, float] = {}
        for start in range(0, len(self.held_out), self.task.batch_size):
            images = self.held_out[start : start + self.task.batch_size]
            batch = {name: one.to(device_of(network)) for name, one in batch_of(images).items()}
            for name, value in self.loss(network, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(images)
        return {name: value / len(self.held_out) for name, value in sums.items()}

    def steps_per_epoch(self) -> int:
        """Whole batches of the training micrographs, as the program counts; simulated ones as if they were as many as
        the article's."""
        items = PAPER_IMAGES if self.train is None else len(self.train.items)
        return max(1, items // self.task.batch_size)

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """With a calibration, but for networks with the program's class fault, whose scores say nothing."""
        postprocessing = {}
        if self.task.behaviour != "published":
            postprocessing["calibration"] = calibrated(self._outcomes(network), surest_counts=True).to_list()
        return {"preprocessing": self.preprocessing(), "postprocessing": postprocessing, "data": self.card_data()}

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
        return detr_model(plain, self.preprocessing(), None, device=device_of(network), precision="float32")


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
    image : (h, w) uint8, or float32 in [0, 1]
    xy_px, particle_px : (n, 2) certain particles and their diameter, in its pixels
    """

    image: Grey
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
        behaviour, denoising = self.task.behaviour, self.task.denoising
        is_turned = is_upside_down(behaviour, denoising)
        diameter_px = item.diameter_px if needs_diameter(behaviour, denoising) else None
        prepared = self._prepared(item, diameter_px=diameter_px, is_turned=is_turned)
        xy = item.labels.xy_px[~item.labels.is_uncertain]
        if is_turned:
            xy = np.column_stack([xy[:, 0], item.shape_yx[0] - 1 - xy[:, 1]])
        if behaviour == "published":  # the shift of the denoiser is left in, as the program leaves it
            prepared = replace(prepared, shift_xy_px=(0.0, 0.0))
        xy = prepared.to_working_xy(xy)
        return PreparedMicrograph(prepared.grey, xy, item.diameter_px * prepared.scale.factor)

    def _prepared(self, item: LabelledMicrograph, *, diameter_px: float | None, is_turned: bool) -> PreparedImage:
        """The picture of a micrograph, from the disk where it was made before."""
        denoising = self.task.denoising

        def pixels() -> NDArray[np.float32]:
            stored = item.read().pixels
            return np.ascontiguousarray(stored[::-1]) if is_turned else stored

        if denoising not in AT_FULL_SIZE:
            return prepare_image(pixels(), diameter_px=diameter_px, denoising=denoising, name=item.name)
        settings = {"of": "cryotransformer", "version": 1, "denoising": denoising, "is_turned": is_turned}
        picture = self.prepared.of(item, settings, lambda: full_size_picture(pixels(), denoising, name=item.name))
        shift = (0.0, 0.0) if denoising == "as_is" else SHIFT_XY_PX
        return PreparedImage(picture, ScaleMap((1.0, 1.0)), shift)

    def crop(self, position: int, rng: np.random.Generator) -> BoxedImage:
        """The next micrograph, or a tile of it, not yet at the network's size."""
        one: PreparedMicrograph = self.whole(self.index_at(position))
        if sees_wholes(self.task.behaviour):
            return boxed(one.image, one.xy_px, one.particle_px, self.task)
        side = round(tile_side_px(self.task.queries, diameter_px=one.particle_px))
        rows, columns = (min(side, size) for size in one.image.shape)
        top = int(rng.integers(one.image.shape[0] - rows + 1))
        left = int(rng.integers(one.image.shape[1] - columns + 1))
        tile = one.image[top : top + rows, left : left + columns]
        return boxed(tile, one.xy_px - [left, top], one.particle_px, self.task)


def boxed_crop(crop: Crop, task: DetrTask) -> BoxedImage:
    """A simulated crop as an image, not yet at the network's size."""
    diameter_px = typical_diameter_px(crop.diameter_px)
    given_px = diameter_px if needs_diameter(task.behaviour, task.denoising) else None
    prepared = prepare_image(crop.image, diameter_px=given_px, denoising=task.denoising, name="simulated crop")
    return boxed(prepared.grey, prepared.to_working_xy(crop.xy_px), diameter_px * prepared.scale.factor, task)


def boxed(grey: Grey, xy_px: NDArray[np.float64], particle_px: float, task: DetrTask) -> BoxedImage:
    """A picture with the boxes of its particles; those whose centre is outside are none."""
    height, width = grey.shape
    inside = ((xy_px >= -0.5) & (xy_px < np.array([width, height]) - 0.5)).all(axis=1)
    share = (xy_px[inside] + 0.5) / [width, height]
    size = np.broadcast_to([particle_px / width, particle_px / height], share.shape)
    boxes = np.concatenate([share, size], axis=1)
    return BoxedImage(grey, clipped(boxes) if task.behaviour == "published" else boxes)


def sized(image: BoxedImage, task: DetrTask) -> BoxedImage:
    """An image at the network's size."""
    return BoxedImage(resized(image.grey, short_px=task.short_px, longest_px=task.longest_px), image.boxes)


def clipped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes cut at the border of the image, as published: the centres of those at the border move inwards."""
    low = np.clip(boxes[:, :2] - boxes[:, 2:] / 2, 0, 1)
    high = np.clip(boxes[:, :2] + boxes[:, 2:] / 2, 0, 1)
    whole = np.concatenate([(low + high) / 2, high - low], axis=1)
    return np.asarray(whole[(whole[:, 2:] > 0).all(axis=1)])


SHORTER_SIDES = tuple(range(480, 801, 32))
"""To one of these the shorter side is resized in the end; before a piece is cut, to one of `SIDES_BEFORE_CUTTING`."""
SIDES_BEFORE_CUTTING = (400, 500, 600)
SMALLEST_PIECE_PX, LARGEST_PIECE_PX = 384, 600


def augmented(image: BoxedImage, task: DetrTask, rng: np.random.Generator) -> BoxedImage:
    """What the network is shown of an image in training.

    As published: a flip from left to right for half of the images; then each is resized, so that the shorter side is
    one of 480, 512, ... 800 px, and before that half of them are resized to 400, 500 or 600 px and cut to a piece whose
    sides are 384 to 600 px. For another `short_px` than 800 all of this is in proportion. The article tells of no
    augmentation, so it gets the program's. Ours, of tiles, flips and turns, and cuts and resizes half of them.
    """
    if task.augment == "none":
        return sized(image, task)
    if task.augment == "turns":
        return _turned(sized(image, task), rng)
    if sees_wholes(task.behaviour):
        return _augmented_as_published(image, task, rng)
    image = _turned(sized(image, task), rng)
    if rng.random() < 0.5:
        unit = task.short_px / SHORT_SIDE_PX
        image = _piece(image, unit, rng, is_clipped=False) if rng.random() < 0.5 else image
        side = round(int(rng.choice(SHORTER_SIDES)) * unit)
        image = BoxedImage(resized(image.grey, short_px=side, longest_px=task.longest_px), image.boxes)
    return image


def _turned(image: BoxedImage, rng: np.random.Generator) -> BoxedImage:
    """One of the eight flips and quarter turns."""
    image = _flipped(image) if rng.random() < 0.5 else image
    if rng.random() < 0.5:
        boxes = image.boxes
        image = BoxedImage(image.grey[::-1], np.column_stack([boxes[:, 0], 1 - boxes[:, 1], boxes[:, 2:]]))
    if rng.random() < 0.5:
        image = BoxedImage(image.grey.T, image.boxes[:, [1, 0, 3, 2]])
    return image


def _augmented_as_published(image: BoxedImage, task: DetrTask, rng: np.random.Generator) -> BoxedImage:
    unit = task.short_px / SHORT_SIDE_PX
    image = _flipped(image) if rng.random() < 0.5 else image
    if rng.random() < 0.5:
        side = round(int(rng.choice(SIDES_BEFORE_CUTTING)) * unit)
        image = BoxedImage(resized(image.grey, short_px=side, longest_px=None), image.boxes)
        image = _piece(image, unit, rng, is_clipped=True)
    side = round(int(rng.choice(SHORTER_SIDES)) * unit)
    return BoxedImage(resized(image.grey, short_px=side, longest_px=task.longest_px), image.boxes)


def _flipped(image: BoxedImage) -> BoxedImage:
    """Left to right."""
    boxes = np.column_stack([1 - image.boxes[:, 0], image.boxes[:, 1:]])
    return BoxedImage(image.grey[:, ::-1], boxes)


def _piece(image: BoxedImage, unit: float, rng: np.random.Generator, *, is_clipped: bool) -> BoxedImage:
    """A rectangle of an image at a random place; boxes that it cuts are cut, or kept whole where their centre is in."""
    height, width = image.grey.shape
    smallest, largest = round(SMALLEST_PIECE_PX * unit), round(LARGEST_PIECE_PX * unit)
    rows, columns = (int(rng.integers(min(smallest, size), min(largest, size) + 1)) for size in (height, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    size = np.array([width, height, width, height])
    moved = (image.boxes * size - [left, top, 0, 0]) / [columns, rows, columns, rows]
    inside = ((moved[:, :2] >= 0) & (moved[:, :2] < 1)).all(axis=1)
    moved = clipped(moved) if is_clipped else moved[inside]
    return BoxedImage(image.grey[top : top + rows, left : left + columns], moved)


# --------------------------------------------------------------------------------------------------------- batches


@dataclass
class TrainLosses:
    """The mean loss of the steps since it was last asked for; of this process."""

    total: Any = 0.0
    steps: int = 0

    def add(self, loss: Tensor) -> None:
        self.total = self.total + loss.detach()
        self.steps += 1

    def mean(self) -> float:
        """NaN where there was no step; begins anew."""
        mean = float(self.total) / self.steps if self.steps else float("nan")
        self.total, self.steps = 0.0, 0
        return mean


def batch_of(images: Sequence[BoxedImage]) -> dict[str, Tensor]:
    """`grey` and `mask` of the padded images; `boxes` is (n, 5): number of the image, then a box in 0..1 of the padded
    batch."""
    import torch

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


def padded(images: Sequence[Grey]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(b, h, w) images padded with the value that the network sees as 0, and 1 where a pixel is an image's.

    The published program pads the normalised image with 0, which is nearly the same grey.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    grey = np.full((len(images), height, width), 0.456, np.float32)
    mask = np.zeros_like(grey)
    for number, image in enumerate(images):
        grey[number, : image.shape[0], : image.shape[1]] = as_shares(image)
        mask[number, : image.shape[0], : image.shape[1]] = 1
    return grey, mask
