"""Pickers that can be trained, and what trains them.

A package of a picker that learns says in its `__init__`

    @register_family("general")
    def family() -> Any:
        from cryopick.pickers.general import training

        return training

so that nothing of training, and no torch, is imported until something is to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.training.trainable import Preset, Trainable

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

_families: dict[str, Callable[[], Any]] = {}


def register_family(picker: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Decorator of a function that imports and returns what trains `picker`, see `cryopick.training.trainable`."""

    def decorate(family: Callable[[], Any]) -> Callable[[], Any]:
        _families[picker] = family
        return family

    return decorate


def trainable_pickers() -> list[str]:
    """Names of the pickers that can be trained."""
    return [name for name in list_pickers() if _maker(name) is not None]


def _maker(picker: str) -> Callable[[], Any] | None:
    cls = picker_class(picker)  # imports the picker's package, which registers its family
    module = getattr(cls, "trainable", None)  # as plug-ins for cryopick 0.1 say it: the module's name
    return partial(import_module, module) if isinstance(module, str) else _families.get(picker)


def training_module(picker: str) -> Any:
    """What trains a picker: `PRESETS`, `make_trainable` and so on.

    Raises
    ------
    SettingsError
        If the picker is unknown or has nothing to train.
    """
    family = _maker(picker)
    if family is None:
        known = ", ".join(trainable_pickers()) or "none"
        raise SettingsError(f"picker {picker!r} has nothing to train; pickers that can be trained: {known}")
    return family()


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
