"""Training a DeepCryoPicker model to reuse: examples from clusters, or from given labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.pickers.deepcryopicker.classifier import COMPACT_WINDOW_PX, PAPER_WINDOW_PX, architecture, paper_image
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, known_size, working_image
from cryopick.pickers.deepcryopicker.picker import label_run, network_diameter_px, network_images, without_border
from cryopick.pickers.deepcryopicker.self_labels import why_inconsistent
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.deepcryopicker.windows import (
    ExampleImage,
    ExampleWindows,
    HeldOut,
    classification_loss,
    judge,
    split_images,
    training_record,
)
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset, LabelledMicrograph


@dataclass(frozen=True, kw_only=True)
class DeepCryoPickerTask:
    """What the classifier is and where its examples come from."""

    network: Annotated[Literal["compact", "paper"], "compact, or the published AlexNet geometry"] = "compact"
    classes: Annotated[int, "4, or 5 with bad objects as a class of their own"] = 4
    labels: Annotated[
        Literal["clusters", "given"], "clusters: as the picker labels a run itself; given: the data set's, as one view"
    ] = "clusters"
    diameter: Annotated[Length | None, "particle diameter; else the data set's, else measured"] = None
    preprocessing: Annotated[Literal["corrected", "published"], "as for the picker"] = "corrected"
    micrographs: Annotated[int, "micrographs that examples are taken from, at most"] = 40
    batch_size: Annotated[int, "windows per batch"] = 96
    validation_windows: Annotated[int, "held-out windows that the network is judged by"] = 400

    def __post_init__(self) -> None:
        if self.classes not in (4, 5):
            raise SettingsError(f"[task] classes is {self.classes}, expected 4 or 5")
        for name in ("micrographs", "batch_size", "validation_windows"):
            if getattr(self, name) < 1:
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected 1 or more")


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=DeepCryoPickerTask(),
        training=TrainSettings(
            steps=600, learning_rate=3e-3, warmup_steps=50, ema_decay=0.99, validate_every=100, checkpoint_every=200
        ),
        about="the network that the picker trains for a run, for twice as long",
    ),
    "paper": Preset(
        task=DeepCryoPickerTask(network="paper", batch_size=32),
        training=TrainSettings(
            steps=5000,
            learning_rate=1e-4,
            optimizer="sgd",
            weight_decay=1e-4,
            schedule="constant",
            ema_decay=0.0,
            validate_every=250,
        ),
        about="the published network and optimizer, 227-pixel windows; for a GPU",
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
    def size(self) -> ParticleSize:
        """Of the particles: given, the data set's, or measured."""
        micrographs = [item.read() for item in self.train.items[: self.task.micrographs][:8]]
        diameter = self.task.diameter
        if diameter is None and (stated := self.train.items[0].diameter_px) is not None:
            diameter = Length(stated, stated, "px")
        size = known_size(micrographs, diameter, None)
        if size is None:
            raise TrainingError(
                f"{self.train.path}: no size of dark disc or ring is commoner than its bright counterpart; give the "
                "diameter, or check the contrast"
            )
        return size

    @cached_property
    def examples(self) -> tuple[ExampleWindows, ExampleWindows]:
        """Windows to train on and windows to judge by, from different micrographs."""
        train = self._images(self.train)
        if self.validation is not None and len(self.validation):
            validation = self._images(self.validation)
        else:
            train, validation = split_images(train)
        return self._windows(train), self._windows(validation)

    def _windows(self, images: Sequence[ExampleImage]) -> ExampleWindows:
        first = self.train.items[0].read()
        return ExampleWindows(
            images,
            diameter_px=network_diameter_px(first, self.size, network=self.task.network),
            window_px=window_px_of(self.task.network),
            has_bad_class=self.task.classes == 5,
        )

    def _images(self, dataset: Dataset) -> list[ExampleImage]:
        items = dataset.items[: self.task.micrographs]
        if self.task.labels == "given":
            return [self._given(item) for item in items if item.labels is not None]
        labelled = label_run([item.read() for item in items], self.size, preprocessing=self.task.preprocessing)
        why = why_inconsistent(labelled.images) if labelled.images else "saw no micrograph larger than a particle"
        if why and dataset is self.train:
            raise TrainingError(f"{dataset.path}: deepcryopicker {why}; give the diameter, or labels = given")
        return network_images(labelled, self.size, network=self.task.network, preprocessing=self.task.preprocessing)

    def _given(self, item: LabelledMicrograph) -> ExampleImage:
        """A micrograph with its own labels, all of one view; uncertain ones are neither particle nor background."""
        micrograph = item.read()
        diameter_px = self.size.diameter.middle_px(micrograph.pixel_size_angstrom)
        prepare_image = paper_image if self.task.network == "paper" else working_image
        image = prepare_image(micrograph, diameter_px=diameter_px, preprocessing=self.task.preprocessing)
        if image is None or item.labels is None:
            raise TrainingError(f"{item.name}: is blank or smaller than a particle; leave it out")
        kind = np.where(item.labels.is_uncertain, -1, IRREGULAR).astype(np.int64)
        return without_border(image, image.scale.to_working_xy(item.labels.xy_px), kind)

    def architecture(self) -> dict[str, Any]:
        return architecture(self.task.network, self.task.classes)

    def build_network(self) -> nn.Module:
        from cryopick.pickers.deepcryopicker.network import build_classifier

        return build_classifier(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:  # noqa: ARG002  # rng knows the index
        """Balanced windows; see `ExampleWindows.draw`."""
        import torch

        windows, classes = self.examples[0].draw(self.task.batch_size, rng)
        return {"windows": torch.from_numpy(windows), "classes": torch.from_numpy(classes)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": classification_loss(network, batch["windows"], batch["classes"])}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Share of held-out windows whose class is the label's, and of those told from background rightly."""
        held_out = self._held_out(network)
        return {"score": held_out.accuracy, "particle_or_not": held_out.particle_accuracy}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        record = training_record(self._held_out(network), self.examples[0].counts)
        return {
            "preprocessing": {"mode": self.task.preprocessing, "particle_px": NOMINAL_PARTICLE_PX},
            "postprocessing": {"diameter": str(self.size.diameter), "body": self.size.body},
            "data": {"kind": f"labels from {self.task.labels}", **record, "set": self.train.card_entry()},
        }

    def _held_out(self, network: nn.Module) -> HeldOut:
        train, validation = self.examples
        device = next(network.parameters()).device
        held_out = judge(network.cpu(), validation if validation.views else train, count=self.task.validation_windows)
        network.to(device)
        return held_out


def window_px_of(network: Literal["compact", "paper"]) -> int:
    """Side of the network's window in pixels."""
    return PAPER_WINDOW_PX if network == "paper" else COMPACT_WINDOW_PX


FAMILY = Family(presets=PRESETS, make_trainable=make_trainable)
