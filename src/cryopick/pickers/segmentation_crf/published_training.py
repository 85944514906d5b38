"""Training as the abstract's notebooks do it: crops of whole micrographs at full resolution, against drawn masks.

`article` mends what contradicts the method: the softmax is taken once, and what masks leave open is left out of the
loss. `program` keeps the notebooks' faults: softmax twice, and the rim of every micrograph left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.data.mask_folders import silhouettes
from cryopick.errors import FormatError, SettingsError, WeightsError
from cryopick.io.weights import file_sha256
from cryopick.metrics.segmentation import ConfusionMatrix
from cryopick.pickers.segmentation_crf.mixture_normalization import normalized_by_mixture
from cryopick.pickers.segmentation_crf.published import PublishedModel, Refinement
from cryopick.processing.targets import density_instances, disc_mask
from cryopick.training.judging import device_of
from cryopick.training.sampling import MicrographSampler, epoch_index, prepare_all
from cryopick.training.sources import stacked
from cryopick.training.trainable import Preset, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

_logger = logging.getLogger(__name__)

LEFT_OUT = 255
"""In a map of classes: a pixel that is not counted."""
PREPARED = 1
"""Version of what is kept on disk of a micrograph; raised when its making changes."""


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """What the network is and what it sees."""

    backbone: Annotated[
        Literal["fcn-resnet50", "fcn-resnet101", "deeplabv3-resnet50", "deeplabv3-resnet101"], "of torchvision"
    ] = "fcn-resnet101"
    in_channels: Annotated[int, "planes that it sees, each of which is the micrograph"] = 1
    classes: Annotated[int | None, "of its answer; counted in the masks where not given"] = None
    dropout: Annotated[float, "of the FCN head"] = 0.5
    crop_px: Annotated[int, "side of a crop, pixels of the micrograph, and of the pieces that are seen later"] = 512
    batch_size: Annotated[int, "crops per batch"] = 7
    label_smoothing: Annotated[float, "share of the target that is spread evenly over all classes"] = 0.1
    softmax_twice: Annotated[bool, "the loss takes the softmax of probabilities, as in the notebooks"] = False
    count_ignored: Annotated[bool, "what masks leave open counts as they have it, as in the notebooks"] = False
    rim_px: Annotated[int, "pixels left out at every border of a micrograph"] = 0
    start_weights: Annotated[
        Path | None, "file of torchvision to start from: a ResNet (ImageNet), or a whole network (COCO); random without"
    ] = None

    def __post_init__(self) -> None:
        if self.crop_px % 8 or self.crop_px < 32:
            raise SettingsError(f"[task] crop_px is {self.crop_px}, expected a multiple of 8 from 32")
        if self.batch_size < (2 if self.head == "deeplabv3" else 1):
            raise SettingsError(
                f"[task] batch_size is {self.batch_size}, expected 1 or more, for DeepLabv3 2 or more: its batch norm "
                "has one value for each crop"
            )
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"[task] label_smoothing is {self.label_smoothing:g}, expected 0 or more, below 1")
        if self.classes is not None and self.classes < 2:
            raise SettingsError(f"[task] classes is {self.classes}, expected 2 or more")
        if self.rim_px < 0:
            raise SettingsError(f"[task] rim_px is {self.rim_px}, expected 0 or more")

    @property
    def head(self) -> str:
        return self.backbone.partition("-")[0]

    @property
    def depth(self) -> int:
        return int(self.backbone.rpartition("resnet")[2])


@dataclass(frozen=True, eq=False)
class DrawnWhole:
    """A micrograph at full resolution without its rim, normalised, and the class of each of its pixels.

    Parameters
    ----------
    image : (h, w) float32
    classes : (h, w) uint8, `LEFT_OUT` where it is not counted
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8]

    @property
    def xy_px(self) -> NDArray[np.float64]:
        """No particles: pixels are learnt."""
        return np.zeros((0, 2))


def class_map(item: LabelledMicrograph) -> NDArray[np.uint8]:
    """(h, w) class of every pixel, `LEFT_OUT` where labels are uncertain.

    Masks where the set has them, silhouettes of a simulation, else each particle segmented around its coordinate.

    Raises
    ------
    SettingsError
        If there are coordinates alone and nobody says the diameter.
    """
    if item.drawing is not None:
        classes = item.drawing.classes(item.region_px).copy()
        ignored = item.drawing.is_ignored(item.region_px)
        if ignored is not None:
            classes[ignored & (classes != item.drawing.particle)] = LEFT_OUT
        return classes
    if item.instances_path is not None:
        classes = silhouettes(item.instances_path).classes(item.region_px)
        if classes.shape != tuple(item.shape_yx):
            raise FormatError(f"{item.instances_path}: is {classes.shape}, its micrograph {tuple(item.shape_yx)}")
        return classes
    if item.labels is None or item.diameter_px is None:
        raise SettingsError(f"{item.name}: the particle diameter is unknown; give it (--diameter 180A or 108px)")
    certain = ~item.labels.is_uncertain
    drawn = density_instances(item.read().pixels, item.labels.xy_px[certain], item.diameter_px).mask
    classes = drawn.astype(np.uint8)
    if (~certain).any():
        discs = disc_mask(item.labels.xy_px[~certain], item.diameter_px, shape_yx=item.shape_yx)
        classes[discs & ~drawn] = LEFT_OUT
    return classes


def what_decides_classes(item: LabelledMicrograph) -> dict[str, Any]:
    """All that `class_map` depends on besides the micrograph, for the cache on disk."""
    drawing, labels = item.drawing, item.labels
    files = (*((drawing.path, drawing.ignored_path) if drawing is not None else ()), item.instances_path)
    there = [path for path in files if path is not None]
    return {
        "of": "segmentation-crf classes",
        "version": PREPARED,
        "files": [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in there],
        "drawing": None if drawing is None else [[int(level) for level in drawing.levels], drawing.particle],
        "labels": None
        if labels is None
        else [labels.xy_px.tolist(), np.asarray(labels.is_uncertain).tolist(), item.diameter_px],
    }


class DrawnSampler(MicrographSampler[DrawnWhole]):
    """Crops of micrographs at full resolution, anywhere on them, as they are: neither turned nor changed."""

    def __init__(self, dataset: Dataset, *, crop_px: int, rim_px: int, count_ignored: bool, seed: int = 0) -> None:
        super().__init__(dataset, seed=seed)
        self.crop_px, self.rim_px, self.count_ignored = crop_px, rim_px, count_ignored

    def at_working_scale(self, item: LabelledMicrograph) -> DrawnWhole:
        """The whole micrograph; its normalised pixels and its classes are kept on disk where there is a cache."""
        image = self.prepared.of(
            item,
            {"of": "segmentation-crf normalised", "version": PREPARED},
            lambda: normalized_by_mixture(item.read().pixels),
        )
        classes = self.prepared.of(item, what_decides_classes(item), lambda: class_map(item))
        if self.count_ignored and (classes == LEFT_OUT).any():
            classes = np.where(classes == LEFT_OUT, 0, classes).astype(np.uint8)
        height, width = image.shape
        rim = self.rim_px
        if min(height, width) - 2 * rim < self.crop_px:
            raise SettingsError(
                f"{item.name}: is {width} x {height}, which without a rim of {rim} px is less than crop_px "
                f"{self.crop_px}; set a smaller crop_px or rim_px under [task]"
            )
        inside = np.s_[rim : height - rim, rim : width - rim]
        return DrawnWhole(image[inside], classes[inside])

    def crop_of(self, index: int, rng: np.random.Generator) -> DrawnWhole:
        """A crop of micrograph `index`; its place is from `rng`."""
        whole = self.whole(index)
        top, left = (int(rng.integers(side - self.crop_px + 1)) for side in whole.image.shape)
        part = np.s_[top : top + self.crop_px, left : left + self.crop_px]
        return DrawnWhole(whole.image[part], whole.classes[part])

    def crop(self, position: int, rng: np.random.Generator) -> DrawnWhole:
        """Micrographs in turn, each once in an epoch."""
        return self.crop_of(self.index_at(position), rng)


@dataclass
class PublishedTrainable:
    """A network of torchvision's, crops of whole micrographs, and the notebooks' loss."""

    task: PublishedTask
    train: Dataset
    validation: Dataset
    picker: str = field(default="segmentation-crf", init=False)

    # --------------------------------------------------------------------------------------------- the network

    @cached_property
    def classes(self) -> int:
        """Of the masks of both sets."""
        found = [len(item.drawing.levels) for item in (*self.train.items, *self.validation.items) if item.drawing]
        most = max(found, default=2)
        if self.task.classes is None:
            return most
        if self.task.classes < most:
            raise SettingsError(f"[task] classes is {self.task.classes}, but the masks hold {most}")
        return self.task.classes

    def architecture(self) -> dict[str, Any]:
        from cryopick.pickers.segmentation_crf.published_network import published_architecture

        task = self.task
        return published_architecture(
            head=task.head,
            depth=task.depth,
            in_channels=task.in_channels,
            classes=self.classes,
            dropout=task.dropout,
        )

    def build_network(self) -> nn.Module:
        from cryopick.pickers.segmentation_crf.published_network import build_published

        network = build_published(self.architecture())
        if self.task.start_weights is not None:
            left = load_start(network, self.task.start_weights)
            if left:
                told = ", ".join(left[:3])
                _logger.info("%s: %d tensors start at random, such as %s", self.task.start_weights, len(left), told)
        return network

    # ------------------------------------------------------------------------------------------------ examples

    @cached_property
    def sampler(self) -> DrawnSampler:
        """Of the micrographs that teach."""
        return self._sampler_of(self.train)

    @cached_property
    def judging(self) -> DrawnSampler:
        """Of the micrographs that validate."""
        return self._sampler_of(self.validation)

    def _sampler_of(self, dataset: Dataset) -> DrawnSampler:
        task = self.task
        return DrawnSampler(dataset, crop_px=task.crop_px, rim_px=task.rim_px, count_ignored=task.count_ignored)

    def prepare(self, batches: int, tell: Callable[[int, int], None]) -> None:  # noqa: ARG002  # all are prepared at once
        """Normalises all micrographs for the cache on disk, where there is one."""
        prepare_all([self.sampler, self.judging], tell)

    def _starts(self) -> list[int]:
        """Where in an epoch each of its batches begins, and its end; a last batch of one crop joins the one before."""
        count, size = len(self.sampler.items), self.task.batch_size
        starts = list(range(0, count, size))
        if len(starts) > 1 and count - starts[-1] == 1:
            starts.pop()
        return [*starts, count]

    def steps_per_epoch(self) -> int:
        """Batches in which every micrograph comes once."""
        return len(self._starts()) - 1

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """One crop of each of the next micrographs; every epoch begins anew, so its last batch may be smaller."""
        starts = self._starts()
        epoch, number = divmod(index, len(starts) - 1)
        count = starts[-1]
        positions = [epoch * count + place for place in range(starts[number], starts[number + 1])]
        if len(positions) == 1 and self.task.head == "deeplabv3":
            positions *= 2  # two crops of the only micrograph: batch norm needs more than one
        indices = [epoch_index(position, count, seed=self.sampler.seed) for position in positions]
        crops = [self.sampler.crop_of(one, rng) for one in indices]
        return stacked({"image": np.array(one.image), "classes": one.classes.astype(np.int64)} for one in crops)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy with smoothed labels, over the pixels that count."""
        from torch.nn.functional import cross_entropy

        planes = batch["image"][:, None].expand(-1, self.task.in_channels, -1, -1)
        answer = network(planes, is_softmax_first=True) if self.task.softmax_twice else network(planes)
        target = batch["classes"]
        value = cross_entropy(answer.float(), target, label_smoothing=self.task.label_smoothing, ignore_index=LEFT_OUT)
        right = ((answer.argmax(dim=1) == target) & (target != LEFT_OUT)).sum()
        return {"loss": value, "accuracy": right / (target != LEFT_OUT).sum().clamp(min=1)}

    # ------------------------------------------------------------------------------------------------- judging

    def validate(self, network: nn.Module) -> dict[str, float]:
        """The loss of whole micrographs, put together of their pieces, and scores of their pixels, before any random
        field; `score` is the loss with opposite sign, mean over micrographs."""
        model = self._as_model(network)
        refinement = Refinement(is_softmax_first=self.task.softmax_twice)
        losses, matrix = [], ConfusionMatrix.empty(self.classes)
        for index in range(len(self.judging.items)):
            whole = self.judging.whole(index)
            probability, _ = model.maps(np.array(whole.image), refinement, tile_px=self.task.crop_px)
            is_counted = whole.classes != LEFT_OUT
            found, truth = probability[:, is_counted], whole.classes[is_counted].astype(np.intp)
            losses.append(_smoothed_loss(found, truth, self.task))
            matrix += ConfusionMatrix.of(truth, found.argmax(axis=0), classes=self.classes)
        loss = float(np.mean(losses))
        particle = self._particle_class()
        return {
            "score": -loss,
            "loss": loss,
            "accuracy": matrix.accuracy,
            "recall": float(matrix.recall[particle]),
            "precision": float(matrix.precision[particle]),
            "iou": float(matrix.iou[particle]),
            "f1": float(matrix.f1[particle]),
        }

    def _as_model(self, network: nn.Module) -> PublishedModel:
        return PublishedModel(
            network=network,
            device=device_of(network),
            is_bfloat16=False,
            backbone=self.task.backbone,
            in_channels=self.task.in_channels,
            classes=self.classes,
            class_names=(),
            particle_class=None,
            default_tile_px=self.task.crop_px,
        )

    def _particle_class(self) -> int:
        found = {item.drawing.particle for item in (*self.train.items, *self.validation.items) if item.drawing}
        if len(found) > 1:
            raise SettingsError(
                f"{self.train.path}: the particle is class {' in one folder and '.join(map(str, sorted(found)))} in "
                "another; number the classes alike"
            )
        return next(iter(found), 1)

    def card_entries(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002  # nothing is calibrated
        """What the picker needs to run the network, and what it was trained on; no calibration."""
        names = next((item.drawing.names for item in self.train.items if item.drawing), ())
        return {
            "preprocessing": {
                "normalisation": "two Gaussians, as topaz",
                "scale": "as stored",
                "tile_px": self.task.crop_px,
                "rim_px": self.task.rim_px,
            },
            "postprocessing": {"class_names": list(names), "particle_class": self._particle_class()},
            "data": self.card_data(),
            "notes": ("a published network: pick with --as article or --as program; its scores are not calibrated",),
        }

    def card_data(self) -> dict[str, Any]:
        """Both data sets, and the file of the first weights."""
        data = {"train": self.train.card_entry(), "validation": self.validation.card_entry()}
        start = self.task.start_weights
        return data if start is None else {**data, "start": {"file": start.name, "sha256": file_sha256(start)}}


def _smoothed_loss(probability: NDArray[np.float32], truth: NDArray[np.intp], task: PublishedTask) -> float:
    """Mean cross-entropy of (classes, n) probabilities against n classes, with smoothed labels."""
    from scipy.special import log_softmax

    if task.softmax_twice:
        log_probability = log_softmax(probability.astype(np.float64), axis=0)
    else:
        log_probability = np.log(np.maximum(probability.astype(np.float64), 1e-12))
    share = task.label_smoothing
    own = np.take_along_axis(log_probability, truth[None], axis=0)[0]
    return float(-((1 - share) * own + share * log_probability.mean(axis=0)).mean())


def load_start(network: nn.Module, path: Path) -> list[str]:
    """First weights from a file of torchvision: of a ResNet for its backbone, or of a whole network.

    Tensors of other shape (the first layer, where the planes differ, and the last, where the classes do) stay random,
    as in the notebooks; so do the classifier's where the file is of a ResNet alone.

    Returns
    -------
    random : names of the network's tensors that the file did not give

    Raises
    ------
    WeightsError
        If the file cannot be read safely, or is of another network.
    """
    import torch

    from cryopick.io.torch_files import read_torch_file

    content = read_torch_file(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected tensors by torchvision's names")
    is_whole = "backbone.conv1.weight" in content
    if not is_whole and "conv1.weight" not in content:
        raise WeightsError(
            f"{path}: holds neither conv1.weight nor backbone.conv1.weight; expected a file of torchvision"
        )
    given = {
        name if is_whole else f"backbone.{name}": value for name, value in content.items() if isinstance(name, str)
    }
    given = {name: value for name, value in given.items() if not name.startswith(("aux_classifier.", "backbone.fc."))}
    own = network.state_dict()
    may_differ = ("backbone.conv1.weight", "classifier.4.weight", "classifier.4.bias")
    unknown = [name for name in given if name not in own]
    wrong = [
        name
        for name, value in given.items()
        if name in own and own[name].shape != value.shape and name not in may_differ
    ]
    lacking = [name for name in own if name.startswith("backbone.") and name not in given and "num_batches" not in name]
    for problem, names in (("has unknown", unknown), ("has another shape of", wrong), ("lacks", lacking)):
        if names:
            raise WeightsError(f"{path}: is of another network: {problem} {', '.join(names[:3])} ({len(names)} in all)")
    taken = {name: value for name, value in given.items() if own[name].shape == value.shape}
    with torch.no_grad():
        network.load_state_dict({**own, **taken})
    return [name for name in own if name not in taken]


def _preset(task: PublishedTask, about: str) -> Preset:
    return Preset(
        task=task,
        training=TrainSettings(
            epochs=100,
            learning_rate=1e-3,
            optimizer="adam",
            weight_decay=0.0,
            schedule="plateau",
            plateau_factor=0.1,
            plateau_patience=4,
            warmup_steps=0,
            gradient_clip=0.0,
            ema_decay=0.0,
            validate_every_epochs=1,
            patience=20,
            checkpoint_every_epochs=1,
            workers=4,
        ),
        about=about,
    )


_FCN = PublishedTask()
_DEEPLAB = PublishedTask(backbone="deeplabv3-resnet50", crop_px=1024, batch_size=2)
_FAULTS: Mapping[str, Any] = {"softmax_twice": True, "count_ignored": True, "rim_px": 128}

PUBLISHED_PRESETS: Mapping[str, Preset] = {
    "article": _preset(_FCN, "torchvision's FCN-ResNet101 at full resolution, as published; needs masks and a GPU"),
    "article-deeplabv3": _preset(_DEEPLAB, "the same for DeepLabv3-ResNet50"),
    "program": _preset(replace(_FCN, **_FAULTS), "FCN-ResNet101 as the notebooks train it, faults included"),
    "program-deeplabv3": _preset(replace(_DEEPLAB, **_FAULTS), "DeepLabv3-ResNet50 as the notebooks train it"),
}
