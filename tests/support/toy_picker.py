"""A tiny trainable picker for tests of the training path; `cryopick_with_toy.py` is the command line that knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from cryopick.geometry.units import Length
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import Survey
from cryopick.processing.targets import disc_mask
from cryopick.simulation.crops import CropGenerator
from cryopick.training.sampling import CropSampler
from cryopick.training.trainable import Preset, TrainSettings
from cryopick.types import Micrograph, Picks


@register_picker("toy")
@dataclass(frozen=True, kw_only=True)
class ToyPicker:
    trainable: ClassVar[str] = "toy_picker"
    score_meaning: ClassVar[str] = "none"
    default_threshold: ClassVar[float] = 0.0
    diameter: Annotated[Length | None, "particle diameter"] = None

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        return Picks(xy_px=np.empty((0, 2)), micrograph_name=micrograph.name)


@dataclass(frozen=True, kw_only=True)
class ToyTask:
    channels: int = 4
    batch_size: int = 4
    dropout: float = 0.1
    has_norm: bool = True
    fails_after: int = -1
    """Batches from this one on are not numbers."""


@dataclass
class ToyTrainable:
    """Segments simulated particles, or those of a data set, with two convolutions."""

    task: ToyTask
    data: Any = None
    picker: str = field(default="toy", init=False)

    @cached_property
    def generator(self) -> CropGenerator:
        return CropGenerator(seed=3, crop_px=64, particle_px_range=(16.0, 16.0), pool_size=2, views_per_species=8)

    @cached_property
    def sampler(self) -> CropSampler:
        return CropSampler(self.data[0], crop_px=64, particle_px=16.0)

    def crop(self, number: int, rng: np.random.Generator) -> tuple[Any, Any]:
        """(64, 64) image and mask."""
        if self.data is None or self.data[0] is None:
            simulated = self.generator.crop(number)
            return simulated.image, simulated.instances > 0
        crop = self.sampler.crop(number, rng)
        return crop.image, disc_mask(crop.xy_px, crop.diameter_px, shape_yx=(64, 64))

    def architecture(self) -> dict[str, Any]:
        return {"network": "toy", "channels": self.task.channels, "has_norm": self.task.has_norm}

    def build_network(self) -> Any:
        import torch
        from torch import nn

        c = self.task.channels
        norm = nn.BatchNorm2d(c) if self.task.has_norm else nn.Identity()
        network = nn.Sequential(
            nn.Conv2d(1, c, 5, padding=2), norm, nn.ReLU(), nn.Dropout(self.task.dropout), nn.Conv2d(c, 1, 5, padding=2)
        )
        return network.to(memory_format=torch.channels_last)  # as the package's own networks

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        import torch

        crops = [self.crop(index * self.task.batch_size + i, rng) for i in range(self.task.batch_size)]
        images = np.stack([(image - image.mean()) / (image.std() + 1e-6) for image, _ in crops])[:, None]
        images = images + 0.1 * rng.standard_normal(images.shape).astype(np.float32)
        if 0 <= self.task.fails_after <= index:
            images = images * np.nan
        masks = np.stack([mask for _, mask in crops])[:, None].astype(np.float32)
        return {"image": torch.from_numpy(images.astype(np.float32)), "mask": torch.from_numpy(masks)}

    def loss(self, network: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        from torch.nn.functional import binary_cross_entropy_with_logits

        bce = binary_cross_entropy_with_logits(network(batch["image"]), batch["mask"])
        return {"loss": bce, "bce": bce.detach()}

    def validate(self, network: Any) -> dict[str, float]:
        batch = self.make_batch(10**6, np.random.default_rng(5))
        return {"score": -float(self.loss(network, batch)["loss"])}

    def card_entries(self, network: Any) -> dict[str, Any]:
        return {"preprocessing": {"standardized": True}, "data": {"kind": "simulation"}}


PRESETS = {
    "small": Preset(
        task=ToyTask(),
        training=TrainSettings(
            steps=40,
            warmup_steps=5,
            learning_rate=3e-3,
            validate_every=10,
            checkpoint_every=3,
            log_every=2,
            accelerator="cpu",
        ),
    )
}


def make_trainable(task: ToyTask, *, train: Any, validation: Any) -> ToyTrainable:
    return ToyTrainable(task, data=(train, validation))


def train_toy(folder: Path, *, resume: bool = False, task: Mapping[str, Any] | None = None, **training: Any) -> Any:
    """Train through the real path, with settings changed by name."""
    from cryopick.workflows.train import plan_training, train_picker

    plan = plan_training("toy", task=task or {}, training=training)
    return train_picker(plan, folder, resume=resume)
