"""Pickers by name. A new picker is one file in this folder plus its line in `BUILTIN_MODULES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from cryopick.errors import SettingsError

BUILTIN_MODULES: tuple[str, ...] = (
    *("blob", "general", "template"),
    *("autocryopicker", "supercryopicker", "deepcryopicker"),
    "segmentation_crf",
    "cryosegnet",
    *("cryotransformer", "cryoemmae"),
)
ENTRY_POINT_GROUP = "cryopick.pickers"

_registered: dict[str, type[Any]] = {}
_is_loaded = False

PickerClass = TypeVar("PickerClass", bound=type[Any])


def register_picker(name: str) -> Callable[[PickerClass], PickerClass]:
    """Class decorator that makes a picker known by `name`; a second use of a name raises."""

    def decorate(cls: PickerClass) -> PickerClass:
        other = _registered.get(name)
        if other is not None and other.__module__ != cls.__module__:
            raise ValueError(f"picker {name!r} of {cls.__module__} is already registered by {other.__module__}")
        cls.name = name
        _registered[name] = cls
        return cls

    return decorate


def list_pickers() -> list[str]:
    """Names of all pickers, built-in and from entry points, sorted."""
    _load()
    return sorted(_registered)


def picker_class(name: str) -> type[Any]:
    """The settings dataclass registered under `name`."""
    _load()
    if name not in _registered:
        raise SettingsError(f"unknown picker {name!r}; known pickers: {', '.join(sorted(_registered))}")
    return _registered[name]


def make_picker(name: str, **settings: Any) -> Any:
    """Build a picker from its settings; an unknown setting is listed against the valid ones."""
    cls = picker_class(name)
    valid = {f.name for f in fields(cls) if f.init} if is_dataclass(cls) else set()
    unknown = sorted(set(settings) - valid)
    if unknown:
        raise SettingsError(f"picker {name!r} has no setting {', '.join(unknown)}; it has: {', '.join(sorted(valid))}")
    return cls(**settings)


def _load() -> None:
    global _is_loaded  # noqa: PLW0603  # the registry is process-wide by nature
    if _is_loaded:
        return
    _is_loaded = True
    for module in BUILTIN_MODULES:
        import_module(f"cryopick.pickers.{module}")
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        import_module(entry.value)
