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


_PUBLISHED_TRAINING = TrainSettings(
    epochs=300,
    learning_rate=1e-4,
    weight_decay=1e-4,
    warmup_steps=0,
    gradient_clip=0.1,
    schedule="drop",
    drop_at=2 / 3,
    ema_decay=0.0,
    validate_every_epochs=1,
    checkpoint_every_epochs=1,
)

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
    "article": Preset(
        task=DetrTask(),
        training=_PUBLISHED_TRAINING,
        about="the network of the article from random weights: 300 epochs, days on a GPU for its 5,172 micrographs",
    ),
    "program": Preset(
        task=DetrTask(behaviour="published", denoising="published"),
        training=replace(_PUBLISHED_TRAINING, drop_at=0.5),
        about=(
            "as the released program trains, class fault included: the rate drops after 150 of 300 epochs; give it the "
            "weights that it starts from with backbone_weights and coco_weights"
        ),
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
