"""Training of CryoSegNet's U-Net: on simulated crops, on labelled micrographs, or exactly as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.judging import as_mapper, particle_map
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.targets import labelled_targets
from cryopick.pickers.cryosegnet.tasks import PRESETS, SamTask, UNetTask
from cryopick.pickers.cryosegnet.trainable import UNetTrainable
from cryopick.training.finetuning import estimate_prior
from cryopick.training.trainable import Family, Trainable

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

LARGEST_PRIOR = 0.5
"""Discs of 0.6 diameters cannot cover more of a micrograph than this unless they overlap."""


def make_trainable(task: Any, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The U-Net on simulation or on labelled micrographs, or the compact Segment Anything on simulation."""
    from cryopick.pickers.cryosegnet.published_trainable import PublishedUNetTrainable
    from cryopick.pickers.cryosegnet.sam_trainable import SamTrainable

    if isinstance(task, SamTask):
        if train is not None or validation is not None:
            raise SettingsError(
                "the compact Segment Anything learns from maps of simulated crops only: leave --data out, and train "
                "the U-Net (--preset small, or --as article or program) on your micrographs"
            )
        return SamTrainable(task)
    if task.view == "published":
        return PublishedUNetTrainable(task, train, validation)
    return UNetTrainable(task, train, validation)


def make_finetunable(task: UNetTask, *, train: Dataset, validation: Dataset, start: Checkpoint) -> Trainable:
    """Learns from labelled micrographs, complete or sparse; `start` tells how many particles to expect on them.

    A network of the published view learns from whole micrographs, as when it was trained, and takes what is not
    labelled for background, as its authors do when they fine-tune with predicted labels.
    """
    from cryopick.pickers.cryosegnet.published_trainable import PublishedUNetTrainable

    if task.view == "published":
        return PublishedUNetTrainable(task, train, validation, rest_is_background=True)
    network = build_attention_unet(task.architecture())
    start.load_into(network)
    mapper = as_mapper(network.eval(), task)
    prior = estimate_prior(
        train,
        seen=lambda image: particle_map(mapper, image),
        labelled=lambda crop: labelled_targets(crop)[0],
        largest=LARGEST_PRIOR,
    )
    return UNetTrainable(task, train, validation, prior=prior)


FAMILY = Family(
    presets=PRESETS,
    make_trainable=make_trainable,
    make_finetunable=make_finetunable,
    # fine-tuning is to take minutes: smaller batches and fewer simulated crops than training
    finetune_task={"batch_size": 8, "validation_crops": 16, "calibration_crops": 64},
    # orthogonal steps move all of a matrix, also what few new labels say nothing about
    finetune_training={"optimizer": "adamw", "learning_rate": 2e-4},
)
