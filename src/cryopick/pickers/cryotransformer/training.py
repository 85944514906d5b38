"""Presets of the `cryotransformer` picker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cryopick.pickers.cryotransformer.detr_trainable import DetrTask, DetrTrainable
from cryopick.pickers.cryotransformer.trainable import LocalTask, LocalTrainable
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=LocalTask(),
        training=TrainSettings(
            steps=1280,
            learning_rate=8e-4,
            weight_decay=0.01,
            warmup_steps=60,
            gradient_clip=2.0,
            ema_decay=0.997,
            validate_every=640,
            checkpoint_every=200,
            precision="bf16-mixed",
            stored_as="float16",
        ),
        about="the shipped network, from the general picker's trunk: 20 minutes on 2 CPU cores with bfloat16 units",
    ),
    "paper": Preset(
        task=DetrTask(),
        training=TrainSettings(
            steps=193_800,
            learning_rate=1e-4,
            weight_decay=1e-4,
            warmup_steps=0,
            gradient_clip=0.1,
            schedule="drop",
            ema_decay=0.0,
            validate_every=646,
            checkpoint_every=646,
        ),
        about="the published network: 300 epochs of 5,172 micrographs, 8 at a time, take days on a GPU",
    ),
}


def make_trainable(
    task: LocalTask | DetrTask, *, train: Dataset | None, validation: Dataset | None
) -> LocalTrainable | DetrTrainable:
    """The trainable of a preset's settings; without data sets it learns from simulation."""
    if isinstance(task, DetrTask):
        return DetrTrainable(task, train, validation)
    return LocalTrainable(task, train, validation)


def make_finetunable(
    task: LocalTask | DetrTask,
    *,
    train: Dataset,
    validation: Dataset,
    start: Checkpoint,  # noqa: ARG001  # the loop loads it
) -> LocalTrainable | DetrTrainable:
    """Learns from labelled micrographs; all first weights are those that fine-tuning starts from."""
    return make_trainable(
        replace(task, start="given") if isinstance(task, LocalTask) else task, train=train, validation=validation
    )


FAMILY = Family(presets=PRESETS, make_trainable=make_trainable, make_finetunable=make_finetunable)
