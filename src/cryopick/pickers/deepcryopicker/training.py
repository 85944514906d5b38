"""Training a DeepCryoPicker model to reuse: examples from clusters, or from given labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.pickers.deepcryopicker.classifier import COMPACT_WINDOW_PX, PAPER_WINDOW_PX, architecture, paper_image
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, VIEWS, known_size, nothing_seen, working_image
from cryopick.pickers.deepcryopicker.picker import label_run, network_diameter_px, network_images, without_border
from cryopick.pickers.deepcryopicker.published import PER_CLASS, BalancedSet, PartOfSet
from cryopick.pickers.deepcryopicker.self_labels import why_inconsistent
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.deepcryopicker.windows import (
    BACKGROUND_SHARE,
    LABEL_SMOOTHING,
    DrawsWindows,
    ExampleImage,
    ExampleWindows,
    HeldOut,
    classification_loss,
    judge,
    split_images,
    training_record,
)
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.processing.spread import evenly_taken
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset, LabelledMicrograph
    from cryopick.data.labels import Labels


@dataclass(frozen=True, kw_only=True)
class DeepCryoPickerTask:
    """What the classifier is and where its examples come from."""

    network: Annotated[Literal["compact", "paper"], "compact, or the published AlexNet geometry"] = "compact"
    classes: Annotated[
        int, "4: three views and background (or bad objects, has_background = false); 5: both; 3: views alone"
    ] = 4
    has_background: Annotated[bool, "whether 4 classes have background; else bad objects in its place"] = True
    activation: Annotated[Literal["relu", "sigmoid"], "of network = paper"] = "relu"
    initial: Annotated[Literal["he", "uniform"], "weights of network = paper at the start: he, or from [0, 1]"] = "he"
    label_smoothing: Annotated[float, "of the cross-entropy, 0 to less than 1"] = LABEL_SMOOTHING
    background_share: Annotated[float, "of a batch, where training_set = drawn; the views share the rest"] = (
        BACKGROUND_SHARE
    )
    training_set: Annotated[
        Literal["drawn", "balanced"],
        "drawn: windows at random, shifted and turned; balanced: per_class samples of each class, as in the paper",
    ] = "drawn"
    per_class: Annotated[int, "samples of each class, where training_set = balanced"] = PER_CLASS
    bad_objects: Annotated[
        Literal["sure", "all"], "which objects teach what no particle is: those that surely are none, or all not chosen"
    ] = "sure"
    clustering: Annotated[Literal["lloyd", "thresholds"], "of the stage that labels, as for autocryopicker"] = "lloyd"
    labels: Annotated[
        Literal["clusters", "given"],
        "clusters: as the picker labels a run itself; given: the data set's, with their class_id 1 top, 2 side, "
        "3 irregular as views (irregular where there is none)",
    ] = "clusters"
    diameter: Annotated[
        Length | None, "particle diameter, of all sets; else each data set's own, else measured for each set"
    ] = None
    preprocessing: Annotated[Literal["corrected", "published"], "as for the picker"] = "corrected"
    micrographs: Annotated[int, "micrographs that examples are taken from, at most, spread evenly over all sets"] = 40
    batch_size: Annotated[int, "windows per batch"] = 96
    validation_windows: Annotated[int, "held-out windows that the network is judged by"] = 400

    def __post_init__(self) -> None:
        if self.classes not in (3, 4, 5):
            raise SettingsError(f"[task] classes is {self.classes}, expected 3, 4 or 5")
        if not self.has_background and self.classes != 4:
            raise SettingsError(f"[task] has_background = false is for 4 classes, not {self.classes}")
        if (self.classes == 3 or not self.has_background) and self.training_set != "balanced":
            raise SettingsError("[task] classes without background need training_set = balanced")
        for name in ("micrographs", "batch_size", "validation_windows"):
            if getattr(self, name) < 1:
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected 1 or more")
        for name in ("label_smoothing", "background_share"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected 0 to less than 1")

    @property
    def has_bad_class(self) -> bool:
        """Whether bad objects are a class of their own."""
        return self.classes == 5 or (self.classes == 4 and not self.has_background)


_PUBLISHED_TASK = DeepCryoPickerTask(
    network="paper",
    activation="sigmoid",
    initial="uniform",
    label_smoothing=0.0,
    training_set="balanced",
    bad_objects="all",
    preprocessing="published",
    batch_size=32,
)
_PUBLISHED_TRAINING = TrainSettings(
    steps=5000,
    learning_rate=1e-4,
    optimizer="sgd",
    weight_decay=1e-4,
    schedule="constant",
    warmup_steps=0,
    gradient_clip=0.0,
    ema_decay=0.0,
    validate_every=250,
)
PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=DeepCryoPickerTask(),
        training=TrainSettings(
            steps=600, learning_rate=3e-3, warmup_steps=50, ema_decay=0.99, validate_every=100, checkpoint_every=200
        ),
        about="the network that the picker trains for a run, for twice as long",
    ),
    "article": Preset(
        task=_PUBLISHED_TASK,
        training=_PUBLISHED_TRAINING,
        about="as the paper describes it: 1,500 samples of each class, AlexNet with sigmoids, weights from [0, 1], SGD "
        "1e-4; for a GPU, and it learns nothing, as the documentation explains",
    ),
    "program": Preset(
        task=replace(_PUBLISHED_TASK, activation="relu", initial="he", clustering="thresholds"),
        training=_PUBLISHED_TRAINING,
        about="the same with AlexNet's own activation and weights; for a GPU. No program of the network was released",
    ),
}


def make_trainable(
    task: DeepCryoPickerTask, *, train: Dataset | None, validation: Dataset | None
) -> DeepCryoPickerTrainable:
    """Examples come from the micrographs of a data set; the network is meant for micrographs like these."""
    if train is None:
        raise SettingsError(
            "deepcryopicker learns from micrographs: give --data with a data set; its labels are used only with "
            "[task] labels = given"
        )
    return DeepCryoPickerTrainable(task, train, validation)


@dataclass
class DeepCryoPickerTrainable:
    """The classifier, its windows and its loss."""

    task: DeepCryoPickerTask
    train: Dataset
    validation: Dataset | None
    picker: str = field(default="deepcryopicker", init=False)

    @cached_property
    def sizes(self) -> dict[str, ParticleSize]:
        """Of the particles of each set, by its name: given, the set's own, or measured."""
        return {group: self._size_of(group, items) for group, items in self._by_set(self.train).items()}

    def _by_set(self, dataset: Dataset) -> dict[str, list[LabelledMicrograph]]:
        """The micrographs that examples are taken from, by the set that they are from.

        Micrographs of one set whose diameters are stated and differ are taken for sets of their own.
        """
        groups: dict[str, list[LabelledMicrograph]] = {}
        for item in evenly_taken(dataset.items, self.task.micrographs):
            stated = None if self.task.diameter is not None else item.diameter_px
            groups.setdefault(item.group if stated is None else f"{item.group} ({stated:.6g} px)", []).append(item)
        return groups

    def _size_of(self, group: str, items: Sequence[LabelledMicrograph]) -> ParticleSize:
        diameter = self.task.diameter
        if diameter is None and (stated := items[0].diameter_px) is not None:
            diameter = Length(stated, stated, "px")
        size = known_size([item.read() for item in evenly_taken(items, 8)], diameter, None)
        if size is None:
            raise TrainingError(
                f"{self.train.path}: set {group}: deepcryopicker {nothing_seen(len(items))}; give the diameter, or "
                "check the contrast"
            )
        if size.doubt and self.task.labels == "clusters":
            raise TrainingError(f"{self.train.path}: set {group}: {size.doubt}")
        return size

    @cached_property
    def _windows_of_train_and_rest(self) -> tuple[ExampleWindows, ExampleWindows]:
        """Windows to train on and windows to judge by, from different micrographs."""
        train = self._images(self.train)
        if self.validation is not None and len(self.validation):
            validation = self._images(self.validation)
        elif self.task.training_set == "balanced":
            validation = []
        else:
            train, validation = split_images(train)
        return self._windows(train), self._windows(validation)

    @cached_property
    def examples(self) -> tuple[ExampleWindows | BalancedSet, DrawsWindows]:
        """Windows to train on and windows to judge by."""
        train, rest = self._windows_of_train_and_rest
        if self.task.training_set == "drawn":
            return train, rest if rest.views else train
        has_background = self.task.has_background and self.task.classes != 3
        balanced = BalancedSet(train, per_class=self.task.per_class, has_background=has_background)
        return balanced, rest if rest.views else PartOfSet(balanced, "validation")

    def steps_per_epoch(self) -> int:
        """Batches that go once through the balanced set."""
        train = self.examples[0]
        if not isinstance(train, BalancedSet):
            raise SettingsError(
                "deepcryopicker draws windows at random, which have no end; give steps, or training_set = balanced"
            )
        return max(1, len(train) // self.task.batch_size)

    def _windows(self, images: Sequence[ExampleImage]) -> ExampleWindows:
        return ExampleWindows(
            images,
            diameter_px=max((image.diameter_px or 0.0 for image in images), default=0.0) or NOMINAL_PARTICLE_PX,
            window_px=window_px_of(self.task.network),
            has_bad_class=self.task.has_bad_class,
            background_share=self.task.background_share,
        )

    def _images(self, dataset: Dataset) -> list[ExampleImage]:
        images: list[ExampleImage] = []
        for group, items in self._by_set(dataset).items():
            size = self.sizes.get(group) or self._size_of(group, items)
            if self.task.labels == "given":
                images += [self._given(item, size) for item in items if item.labels is not None]
                continue
            labelled = label_run(
                [item.read() for item in items],
                size,
                preprocessing=self.task.preprocessing,
                clustering=self.task.clustering,
            )
            why = why_inconsistent(labelled.images) if labelled.images else "saw no micrograph larger than a particle"
            if why and dataset is self.train:
                raise TrainingError(
                    f"{dataset.path}: set {group}: deepcryopicker {why}; give the diameter, or labels = given"
                )
            images += network_images(
                labelled,
                size,
                network=self.task.network,
                preprocessing=self.task.preprocessing,
                bad_objects=self.task.bad_objects,
            )
        return images

    def _given(self, item: LabelledMicrograph, size: ParticleSize) -> ExampleImage:
        """A micrograph with its own labels and their views; uncertain ones are neither particle nor background."""
        micrograph = item.read()
        diameter_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
        prepare_image = paper_image if self.task.network == "paper" else working_image
        image = prepare_image(micrograph, diameter_px=diameter_px, preprocessing=self.task.preprocessing)
        if image is None or item.labels is None:
            raise TrainingError(f"{item.name}: is blank or smaller than a particle; leave it out")
        kind = np.where(item.labels.is_uncertain, -1, views_of(item.labels)).astype(np.int64)
        example = without_border(image, image.scale.to_working_xy(item.labels.xy_px), kind)
        own_px = network_diameter_px(micrograph, size, network=self.task.network)
        return replace(example, diameter_px=own_px)

    def architecture(self) -> dict[str, Any]:
        return architecture(
            self.task.network,
            5 if self.task.has_bad_class else 4,
            activation=self.task.activation,
            initial=self.task.initial,
        )

    def build_network(self) -> nn.Module:
        from cryopick.pickers.deepcryopicker.network import build_classifier

        return build_classifier(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:  # noqa: ARG002  # rng knows the index
        """Balanced windows; see `ExampleWindows.draw`."""
        import torch

        windows, classes = self.examples[0].draw(self.task.batch_size, rng)
        return {"windows": torch.from_numpy(windows), "classes": torch.from_numpy(classes)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": self._loss(network, batch)}

    def _loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        smoothing = self.task.label_smoothing
        return classification_loss(network, batch["windows"], batch["classes"], label_smoothing=smoothing)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Share of held-out windows whose class is the label's, and of those told from background rightly."""
        held_out = self._held_out(network)
        return {"score": held_out.accuracy, "particle_or_not": held_out.particle_accuracy}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        record = training_record(self._held_out(network), self.examples[0].counts)
        return {
            "preprocessing": {"mode": self.task.preprocessing, "particle_px": NOMINAL_PARTICLE_PX},
            "postprocessing": self._size_entry(),
            "data": {
                "kind": f"labels from {self.task.labels}",
                **record,
                "diameters": {group: str(size.diameter) for group, size in self.sizes.items()},
                "set": self.train.card_entry(),
            },
        }

    def _size_entry(self) -> dict[str, Any]:
        """The diameter, where all sets have the same; a model of several sizes is told or measures each run's."""
        sizes = list(self.sizes.values())
        if len({str(size.diameter) for size in sizes}) > 1:
            return {}
        return {"diameter": str(sizes[0].diameter), "body": sizes[0].body}

    def _held_out(self, network: nn.Module) -> HeldOut:
        _, validation = self.examples
        device = next(network.parameters()).device
        held_out = judge(network.cpu(), validation, count=self.task.validation_windows)
        network.to(device)
        return held_out


def views_of(labels: Labels) -> NDArray[np.int64]:
    """(n,) the views of given labels: their classes 1 top, 2 side, 3 irregular; irregular where they have none."""
    if labels.class_id is None:
        return np.full(len(labels), IRREGULAR, np.int64)
    certain = labels.class_id[~labels.is_uncertain]
    unknown = sorted(set(certain.tolist()) - {0, *VIEWS})
    if unknown:
        known = ", ".join(f"{view} {name}" for view, name in VIEWS.items())
        raise TrainingError(
            f"{labels.micrograph_name}: labels of class {unknown[0]}, expected {known}, or 0 where the view is not "
            "known; change the column class_id, or leave it out"
        )
    return np.where(labels.class_id == 0, IRREGULAR, labels.class_id).astype(np.int64)


def window_px_of(network: Literal["compact", "paper"]) -> int:
    """Side of the network's window in pixels."""
    return PAPER_WINDOW_PX if network == "paper" else COMPACT_WINDOW_PX


FAMILY = Family(presets=PRESETS, make_trainable=make_trainable)
