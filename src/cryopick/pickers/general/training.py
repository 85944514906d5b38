"""Training of the `general` picker's network on simulated crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.general.trainable import GeneralTask, GeneralTrainable
from cryopick.training.trainable import Preset, TrainSettings

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint
    from cryopick.pickers.general.finetuning import LabelledGeneralTrainable


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=GeneralTask(has_shape=True),
        training=TrainSettings(
            steps=14_000,
            learning_rate=0.015,
            optimizer="muon",
            weight_decay=0.03,
            warmup_steps=200,
            gradient_clip=2.0,
            ema_decay=0.999,
            validate_every=2000,
            checkpoint_every=500,
            precision="bf16-mixed",
            stored_as="float16",
        ),
        about="the shipped network: less than two hours on 2 CPU cores with bfloat16 arithmetic, crops included",
    ),
}


def make_trainable(task: GeneralTask, *, train: Dataset | None, validation: Dataset | None) -> GeneralTrainable:
    """Trains on simulation; data sets are for `cryopick finetune`."""
    if train is not None or validation is not None:
        raise SettingsError(
            "general is trained on simulation only (--data simulation); to adapt it to your micrographs use "
            "`cryopick finetune general`"
        )
    return GeneralTrainable(task)


FINETUNE_TASK: Mapping[str, Any] = {"batch_size": 8, "validation_crops": 16, "micrograph_share": 0.2}
"""Fine-tuning is to take minutes: smaller batches, fewer validation crops, and fewer of the costly crops."""
FINETUNE_TRAINING: Mapping[str, Any] = {"optimizer": "adamw", "learning_rate": 1.5e-4}
"""Orthogonal steps move all of a matrix, also what few new labels say nothing about."""


def make_finetunable(
    task: GeneralTask, *, train: Dataset, validation: Dataset, start: Checkpoint
) -> LabelledGeneralTrainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them."""
    from cryopick.pickers.general.finetuning import LabelledGeneralTrainable, estimate_prior

    network = GeneralTrainable(task).build_network()
    start.load_into(network)
    return LabelledGeneralTrainable(task, train, validation, prior=estimate_prior(network.eval(), train))


# -------------------------------------------------------------------------------------------------------- targets


# -------------------------------------------------------------------------------------------------------- judging
