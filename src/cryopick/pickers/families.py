"""Pickers that can be trained: how their presets and trainables are found."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.training.trainable import Family, Preset, Trainable, as_family

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint


def trainable_pickers() -> list[str]:
    """Names of the pickers that can be trained."""
    return [name for name in list_pickers() if getattr(picker_class(name), "trainable", None)]


def family_of(picker: str) -> Family:
    """How a picker is trained.

    Raises
    ------
    SettingsError
        If the picker is unknown or has nothing to train.
    """
    return as_family(training_module(picker))


def training_module(picker: str) -> Any:
    """The module that says so; raises as `family_of`."""
    module = getattr(picker_class(picker), "trainable", None)
    if not module:
        known = ", ".join(trainable_pickers()) or "none"
        raise SettingsError(f"picker {picker!r} has nothing to train; pickers that can be trained: {known}")
    return import_module(module)


def find_preset(picker: str, name: str) -> Preset:
    """A preset of a picker by name; unknown names are listed against the known ones."""
    presets = family_of(picker).presets
    if name not in presets:
        raise SettingsError(f"picker {picker!r} has no preset {name!r}; it has: {', '.join(presets)}")
    return presets[name]


def make_trainable(picker: str, task: Any, *, train: Dataset | None, validation: Dataset | None) -> Trainable:
    """The picker's trainable for these settings and data; None trains on simulation."""
    return family_of(picker).make_trainable(task, train=train, validation=validation)


def make_finetunable(picker: str, task: Any, *, train: Dataset, validation: Dataset, start: Checkpoint) -> Trainable:
    """The picker's trainable that learns from labelled data alone, for fine-tuning from the weights `start`."""
    make = family_of(picker).make_finetunable
    if make is None:
        return make_trainable(picker, task, train=train, validation=validation)
    return make(task, train=train, validation=validation, start=start)
