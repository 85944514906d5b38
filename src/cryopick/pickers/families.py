"""Pickers that can be trained, and what trains them.

A package of a picker that learns says in its `__init__`

    @register_family("general")
    def family() -> Family:
        from cryopick.pickers.general.training import FAMILY

        return FAMILY

so that nothing of training, and no torch, is imported until something is to be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.training.trainable import Family, Preset, Trainable, as_family

if TYPE_CHECKING:
    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

OLDER_NAME_OF_ARTICLE = "paper"
"""What version 0.1 called the preset `article`."""

_families: dict[str, Callable[[], Family]] = {}


def register_family(picker: str) -> Callable[[Callable[[], Family]], Callable[[], Family]]:
    """Decorator of a function that imports and returns the family of `picker`."""

    def decorate(family: Callable[[], Family]) -> Callable[[], Family]:
        _families[picker] = family
        return family

    return decorate


def trainable_pickers() -> list[str]:
    """Names of the pickers that can be trained."""
    return [name for name in list_pickers() if name in _families or _module_named_by(name)]


def family_of(picker: str) -> Family:
    """How a picker is trained.

    Raises
    ------
    SettingsError
        If the picker is unknown or has nothing to train.
    """
    module = _module_named_by(picker)
    if module:
        return as_family(import_module(module))
    if picker not in _families:
        known = ", ".join(trainable_pickers()) or "none"
        raise SettingsError(f"picker {picker!r} has nothing to train; pickers that can be trained: {known}")
    return _families[picker]()


def _module_named_by(picker: str) -> str:
    """The training module that a picker class of an outside package names, as all did in version 0.1; or ""."""
    return str(getattr(picker_class(picker), "trainable", ""))


def find_preset(picker: str, name: str) -> Preset:
    """A preset of a picker by name; unknown names are listed against the known ones."""
    presets = family_of(picker).presets
    if name == OLDER_NAME_OF_ARTICLE and name not in presets:
        name = "article"
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
