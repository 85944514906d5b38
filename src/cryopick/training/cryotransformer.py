"""Presets of the `cryotransformer` picker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cryopick.training.cryotransformer_local import LocalTask, LocalTrainable
from cryopick.training.trainable import Preset, Trainable, TrainSettings

if TYPE_CHECKING:
    from cryopick.training.datasets import Dataset


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=LocalTask(),
        training=TrainSettings(
            steps=1200,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=60,
            gradient_clip=2.0,
            ema_decay=0.997,
            validate_every=400,
            checkpoint_every=200,
            precision="bf16-mixed",
            workers=1,
        ),
        about="the shipped network, from the general picker's trunk: 25 minutes on 2 cores with bfloat16 matrix units",
    ),
}


def make_trainable(task: LocalTask, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The trainable of a preset's settings; without data sets it learns from simulation."""
    return LocalTrainable(task, train, validation)
