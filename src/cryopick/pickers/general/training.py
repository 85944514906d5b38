"""Training of the `general` picker's network on simulated crops, and its fine-tuning on labelled micrographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cryopick.errors import SettingsError
from cryopick.heatmap.targets import crop_targets
from cryopick.pickers.general.trainable import GeneralTask, GeneralTrainable, as_model
from cryopick.training.finetuning import estimate_prior
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

LARGEST_PRIOR = 0.2
"""Particle centres (discs of 0.2 diameters) cannot cover more of a micrograph than this unless they overlap."""
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


def make_finetunable(task: GeneralTask, *, train: Dataset, validation: Dataset, start: Checkpoint) -> GeneralTrainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them."""
    network = GeneralTrainable(task).build_network()
    start.load_into(network)
    model = as_model(network.eval())
    prior = estimate_prior(
        train, seen=lambda image: model(image)[0], labelled=lambda crop: crop_targets(crop)[0], largest=LARGEST_PRIOR
    )
    return GeneralTrainable(task, train, validation, prior=prior)


FAMILY = Family(
    presets=PRESETS,
    make_trainable=make_trainable,
    make_finetunable=make_finetunable,
    # fine-tuning is to take minutes: smaller batches, fewer validation crops, and fewer of the costly crops
    finetune_task={"batch_size": 8, "validation_crops": 16, "micrograph_share": 0.2},
    # orthogonal steps move all of a matrix, also what few new labels say nothing about
    finetune_training={"optimizer": "adamw", "learning_rate": 1.5e-4},
    learns_from_background=True,
)
