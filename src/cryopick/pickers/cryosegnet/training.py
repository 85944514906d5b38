"""Training of CryoSegNet's U-Net: on simulated crops, on labelled micrographs, or exactly as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.judging import as_mapper
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.tasks import PRESETS, SamTask, UNetTask
from cryopick.pickers.cryosegnet.trainable import SimulatedUNetTrainable
from cryopick.training.trainable import Trainable

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

__all__ = ["FINETUNE_TASK", "FINETUNE_TRAINING", "PRESETS", "make_finetunable", "make_trainable"]


def make_trainable(task: Any, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The U-Net on simulation or on labelled micrographs, or the compact Segment Anything on simulation."""
    from cryopick.pickers.cryosegnet.labelled_trainable import LabelledUNetTrainable
    from cryopick.pickers.cryosegnet.published_trainable import PublishedUNetTrainable
    from cryopick.pickers.cryosegnet.sam_trainable import SamTrainable

    if isinstance(task, SamTask):
        if train is not None or validation is not None:
            raise SettingsError(
                "the compact Segment Anything learns from maps of simulated crops only: leave --data out, and train "
                "the U-Net (--preset small or paper) on your micrographs"
            )
        return SamTrainable(task)
    if task.view == "published":
        if train is None or validation is None:
            raise SettingsError(
                "the published U-Net learns from whole labelled micrographs: give --data, such as a folder of "
                "`cryopick simulate` or of CryoPPP; crops of simulation are for --preset small"
            )
        return PublishedUNetTrainable(task, train, validation)
    if train is None or validation is None:
        return SimulatedUNetTrainable(task)
    return LabelledUNetTrainable(task, train, validation)


FINETUNE_TASK: Mapping[str, Any] = {"batch_size": 8, "validation_crops": 16, "calibration_crops": 64}
"""Fine-tuning is to take minutes: smaller batches and fewer simulated crops than training."""
FINETUNE_TRAINING: Mapping[str, Any] = {"optimizer": "adamw", "learning_rate": 2e-4}
"""Orthogonal steps move all of a matrix, also what few new labels say nothing about."""


def make_finetunable(task: UNetTask, *, train: Dataset, validation: Dataset, start: Checkpoint) -> Trainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them."""
    from cryopick.pickers.cryosegnet.labelled_trainable import LabelledUNetTrainable, estimate_prior

    network = build_attention_unet(task.architecture())
    start.load_into(network)
    trainable = LabelledUNetTrainable(task, train, validation)
    return replace(trainable, prior=estimate_prior(as_mapper(network.eval(), task), trainable.sampler))


# ------------------------------------------------------------------------------------------------------- simulation


# ---------------------------------------------------------------------------------------------------------- judging
