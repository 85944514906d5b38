"""Pickers that can be trained: how their presets and trainables are found."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.training.trainable import Preset, Trainable

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint


def trainable_pickers() -> list[str]:
    """Names of the pickers that can be trained."""
    return [name for name in list_pickers() if getattr(picker_class(name), "trainable", None)]


def training_module(picker: str) -> Any:
    """The module with `PRESETS` and `make_trainable` of a picker.

    Raises
    ------
    SettingsError
        If the picker is unknown or has nothing to train.
    """
    module = getattr(picker_class(picker), "trainable", None)
    if not module:
        known = ", ".join(trainable_pickers()) or "none"
        raise SettingsError(f"picker {picker!r} has nothing to train; pickers that can be trained: {known}")
    return import_module(module)


def needs_labels(picker: str) -> bool:
    """False for a picker that learns from micrographs alone."""
    return bool(getattr(training_module(picker), "NEEDS_LABELS", True))


def find_preset(picker: str, name: str) -> Preset:
    """A preset of a picker by name; unknown names are listed against the known ones."""
    presets: Mapping[str, Preset] = training_module(picker).PRESETS
    if name not in presets:
        raise SettingsError(f"picker {picker!r} has no preset {name!r}; it has: {', '.join(presets)}")
    return presets[name]


def make_trainable(picker: str, task: Any, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The picker's trainable for these settings and data; None trains on simulation."""
    trainable: Trainable = training_module(picker).make_trainable(task, train=train, validation=validation)
    return trainable


def make_finetunable(picker: str, task: Any, *, train: Dataset, validation: Dataset, start: Checkpoint) -> Trainable:
    """The picker's trainable that learns from labelled data alone, for fine-tuning from the weights `start`."""
    module = training_module(picker)
    if hasattr(module, "make_finetunable"):
        special: Trainable = module.make_finetunable(task, train=train, validation=validation, start=start)
        return special
    return make_trainable(picker, task, train=train, validation=validation)
