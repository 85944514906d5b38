"""Pickers by name. A new picker is one file, or one package, in this folder."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any, Protocol, TypeVar, get_type_hints

import cryopick.pickers
from cryopick.errors import SettingsError
from cryopick.geometry.units import SMALLEST_DIAMETER_PX, Length, check_diameter, too_wide
from cryopick.pickers.older_pickers import adapt_older_picker
from cryopick.pickers.survey import Survey
from cryopick.settings import require_choices, require_known, settings_of
from cryopick.types import Micrograph, Picks

ENTRY_POINT_GROUP = "cryopick.pickers"

_registered: dict[str, type[Any]] = {}
_broken: dict[str, str] = {}
"""Why plug-ins are left out, by the name of their entry point."""
_is_loaded = False

_log = logging.getLogger(__name__)

PickerClass = TypeVar("PickerClass", bound=type[Any])


def register_picker(name: str) -> Callable[[PickerClass], PickerClass]:
    """Class decorator that makes a picker known by `name`; a second use of a name raises.

    It also puts the check of the diameter before `pick`, `survey` and `survey_in`, and that of settings with fixed
    words behind the making of a picker, the same ones for every picker.
    """

    def decorate(cls: PickerClass) -> PickerClass:
        other = _registered.get(name)
        if other is not None and other.__module__ != cls.__module__:
            raise ValueError(f"picker {name!r} of {cls.__module__} is already registered by {other.__module__}")
        cls.name = name
        _registered[name] = cls
        older = adapt_older_picker(cls)
        if older:
            _log.warning(
                "picker %s of %s is written for cryopick 0.1 (%s); it works", name, cls.__module__, ", ".join(older)
            )
        setattr(cls, "__init__", _checked_settings(cls.__init__, name))  # noqa: B010  # mypy minds the plain way
        cls.pick = _checked_pick(cls.pick)
        for method in ("survey", "survey_in"):
            if hasattr(cls, method):
                setattr(cls, method, _checked_survey(getattr(cls, method)))
        return cls

    return decorate


def list_pickers() -> list[str]:
    """Names of all pickers, built-in and from entry points, sorted."""
    _load()
    return sorted(_registered)


def picker_class(name: str) -> type[Any]:
    """The settings dataclass registered under `name`."""
    _load()
    if name in _registered:
        return _registered[name]
    if name in _broken:
        raise SettingsError(f"picker {name!r} cannot be used: {_broken[name]}")
    left_out = "".join(f"; left out: {reason}" for reason in _broken.values())
    raise SettingsError(f"unknown picker {name!r}; known pickers: {', '.join(sorted(_registered))}{left_out}")


def make_picker(name: str, **settings: Any) -> Any:
    """Build a picker from its settings; an unknown setting is listed against the valid ones."""
    cls = picker_class(name)
    valid = {setting.name for setting in settings_of(cls)} if is_dataclass(cls) else set()
    require_known(settings, valid, where=f"picker {name!r}")
    return cls(**settings)


def broken_plug_ins() -> dict[str, str]:
    """Why pickers of other packages are left out, by the name of their entry point."""
    _load()
    return dict(_broken)


def sizes_in_force(picker: Any, survey: Survey | None = None) -> list[Length]:
    """The particle diameters that a picker was given, of several species all; else the one that the run measured."""
    sizes = [size for size in (getattr(picker, "diameter", None), *getattr(picker, "species", ())) if size is not None]
    if not sizes and survey is not None and survey.particle_size is not None:
        return [survey.particle_size]
    return sizes


def _checked_settings(make: Callable[..., None], name: str) -> Callable[..., None]:
    @functools.wraps(make)
    def checked(self: Any, *args: Any, **settings: Any) -> None:
        try:
            make(self, *args, **settings)
        except SettingsError:  # of words together, which mean nothing where one of them is none
            require_choices(self, where=name)
            raise
        require_choices(self, where=name)

    return checked


# ------------------------------------------------------------------------------------------------- check of diameters


def _checked_pick(pick: Callable[..., Picks]) -> Callable[..., Picks]:
    @functools.wraps(pick)
    def checked(self: Any, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        _check_sizes(self, survey, micrograph)
        picks = pick(self, micrograph, survey)
        doubt = _doubt_of_width(self, survey, micrograph)
        return replace(picks, warnings=(*picks.warnings, doubt)) if doubt and doubt not in picks.warnings else picks

    return checked


def _checked_survey(survey: Callable[..., Survey]) -> Callable[..., Survey]:
    """Micrographs on which the diameter cannot be meant are left out: each of them says so when it is picked."""

    @functools.wraps(survey)
    def checked(self: Any, *folder_and_micrographs: Any) -> Survey:
        *folder, micrographs = folder_and_micrographs
        usable = those_accepted(micrographs, lambda one: _check_sizes(self, None, one))
        return survey(self, *folder, usable)

    return checked


def those_accepted(micrographs: Sequence[Micrograph], check: Callable[[Micrograph], None]) -> list[Micrograph]:
    """Those for which `check` raises no `SettingsError`; the first of these errors where it raises it for all."""
    accepted, refused = [], []
    for micrograph in micrographs:
        try:
            check(micrograph)
        except SettingsError as error:
            refused.append(error)
        else:
            accepted.append(micrograph)
    if refused and not accepted:
        raise refused[0]
    return accepted


class HasShape(Protocol):
    """A micrograph, or what is known of one that is not in memory."""

    @property
    def name(self) -> str: ...
    @property
    def shape_yx(self) -> tuple[int, int]: ...
    @property
    def pixel_size_angstrom(self) -> float | None: ...


def doubt_about_size(picker: Any, survey: Survey | None, micrograph: HasShape) -> str:
    """What `pick` warns of where the particle's size hardly fits on a micrograph; "" where it fits.

    Raises
    ------
    SettingsError
        If it is too small for the picker there, or in Å where the pixel size is unknown.
    """
    _check_sizes(picker, survey, micrograph)
    return _doubt_of_width(picker, survey, micrograph)


def _check_sizes(picker: Any, survey: Survey | None, micrograph: HasShape) -> None:
    """Raise `SettingsError` where a size that was given or measured is too small for the picker on this micrograph."""
    smallest_px = getattr(picker, "smallest_diameter_px", SMALLEST_DIAMETER_PX)
    sizes = [("diameter", size, smallest_px) for size in sizes_in_force(picker, survey)]
    working = getattr(picker, "working_diameter", None) or (None if survey is None else survey.working_size)
    if working is not None:  # networks look at a little less than the diameter
        sizes.append(("working diameter", working, smallest_px / 2))
    for what, size, least_px in sizes:
        check_diameter(
            size,
            shape_yx=micrograph.shape_yx,
            pixel_size_angstrom=micrograph.pixel_size_angstrom,
            smallest_px=least_px,
            enlarged_to_px=getattr(picker, "enlarged_to_px", 0.0),
            what=f"{micrograph.name}: {what}",
        )


def _doubt_of_width(picker: Any, survey: Survey | None, micrograph: HasShape) -> str:
    told = (
        too_wide(size, shape_yx=micrograph.shape_yx, pixel_size_angstrom=micrograph.pixel_size_angstrom)
        for size in sizes_in_force(picker, survey)
    )
    return next(filter(None, told), "")


# --------------------------------------------------------------------------------------------------------------------


def _load() -> None:
    global _is_loaded  # noqa: PLW0603  # the registry is process-wide by nature
    if _is_loaded:
        return
    _is_loaded = True
    for module in iter_modules(cryopick.pickers.__path__, f"{cryopick.pickers.__name__}."):
        import_module(module.name)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        _load_plug_in(entry)


def _load_plug_in(entry: EntryPoint) -> None:
    """Register the pickers of another package; one that fails is left out, named, and stops no other picker."""
    before = dict(_registered)
    try:
        loaded = entry.load()  # a module whose pickers register themselves, or `module:Class`
        if isinstance(loaded, type) and loaded not in _registered.values():
            register_picker(entry.name)(loaded)
        for cls in _registered.values():
            if cls not in before.values():
                _require_picker(cls)
    except (Exception, SystemExit) as error:  # of somebody else's code, which may raise anything
        _registered.clear()
        _registered.update(before)
        package = "an unknown package" if entry.dist is None else f"package {entry.dist.name} {entry.dist.version}"
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        _broken[entry.name] = (
            f"plug-in {entry.name!r} of {package} ({entry.value}) fails with {reason}; mend or uninstall that package"
        )
        _log.warning("%s; the other pickers work", _broken[entry.name])


def _require_picker(cls: type[Any]) -> None:
    """Raise `TypeError` that says what a class lacks to be a picker."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is no dataclass, so it has no settings to show")
    lacking = [name for name in ("pick", "score_meaning", "default_threshold") if not hasattr(cls, name)]
    lacking += [] if "diameter" in {f.name for f in fields(cls)} else ["diameter"]
    if lacking:
        raise TypeError(f"{cls.__name__} has no {', '.join(lacking)}, which every picker has (pickers/protocol.py)")
    get_type_hints(cls, include_extras=True)  # raises for annotations that mean nothing
