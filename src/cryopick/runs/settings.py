"""The settings of a picking run: those of the picker, of the selection, and of the run itself."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cryopick.errors import InputError, SettingsError, WeightsError
from cryopick.geometry.selection import SelectionSettings
from cryopick.inference.computing import Computing, pinned
from cryopick.io.images.info import MAX_PIXELS
from cryopick.io.weights import find_weights
from cryopick.pickers.configurations import ConfigurationName, find_configuration, require_configuration_name
from cryopick.pickers.registry import make_picker, picker_class
from cryopick.pickers.survey import NOTHING_SEEN, Survey
from cryopick.settings import as_plain, as_text, convert_settings, settings_of

DEFAULT_PICKER = "general"

FILLED_IN_BEFORE = ("measured", "found", "filled_share", "is_empty", "decoy_share", "contrast_doubt")
"""What runs of version 0.1 wrote among a picker's settings though nobody set it; now part of the run's survey."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What holds for every picker: how micrographs are read and which candidates are kept."""

    as_: Annotated[
        ConfigurationName | None,
        "run a published system as its article describes it, or as its program does, faults included; `cryopick "
        "pickers NAME` shows what that sets. Ours where not set",
    ] = None
    pixel_size_angstrom: Annotated[
        float | None, "Å per pixel, for all micrographs; wins over optics tables and image headers"
    ] = None
    contrast: Annotated[
        Literal["dark", "bright"], "how particles look: dark (cryo) or bright (most negative stain)"
    ] = "dark"
    target_precision: Annotated[
        float | None, "choose the threshold so that this fraction of picks (0 to 1) is right, where the picker can tell"
    ] = None
    exclusion_masks: Annotated[
        Path | None, "folder of images named like the micrographs, of any size; nothing is picked where they are not 0"
    ] = None

    drop_bad: Annotated[
        bool,
        "leave micrographs whose verdict is not good (empty, mostly junk, ...) out of the tables for RELION and others",
    ] = False

    keep_junk: Annotated[bool, "keep picks on what the picker maps as carbon, ice or contamination"] = False

    full_maps: Annotated[
        bool,
        "keep the picker's maps at the size of the micrograph, for `cryopick evaluate --masks`; pictures of them else",
    ] = False

    max_pixels: Annotated[
        int | None, "largest image that is read, pixels; 268,435,456 (16,384 x 16,384) where not set"
    ] = None

    def __post_init__(self) -> None:
        if self.max_pixels is not None and not 0 < self.max_pixels <= MAX_PIXELS:
            raise SettingsError(f"max pixels {self.max_pixels}: expected 1 to {MAX_PIXELS}")
        if self.pixel_size_angstrom is not None and not 0 < self.pixel_size_angstrom < 1000:
            raise SettingsError(f"pixel size {self.pixel_size_angstrom:g}: expected Å per pixel, above 0")
        if self.target_precision is not None and not 0 < self.target_precision < 1:
            raise SettingsError(f"target precision {self.target_precision:g}: expected a fraction between 0 and 1")
        if self.exclusion_masks is not None and not os.path.isdir(self.exclusion_masks):
            raise SettingsError(f"exclusion masks: {self.exclusion_masks} is not a folder")


@dataclass(frozen=True, kw_only=True)
class PickSettings:
    """Everything that changes the result of a run."""

    picker: Any
    """An instance of a registered picker."""
    run: RunSettings = field(default_factory=RunSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)


@dataclass(frozen=True, kw_only=True)
class PickPlan:
    """How every micrograph of a run is picked: by what was asked, and by what was seen on some of them."""

    settings: PickSettings
    survey: Survey | None = None
    """None where nothing was looked at beforehand, and each micrograph speaks for itself."""
    computing: Computing | None = None
    """On what device and in which numbers the whole run computes; None where every process decides for itself."""
    picked_with: str = ""
    """By what candidates of this plan are known, see `runs.picked_with`; "" where no records are kept."""

    @property
    def picker(self) -> Any:
        return self.settings.picker

    def pinned_here(self) -> PickPlan:
        """The plan as this process picks by it: `auto` for device and precision means what it does in the whole run."""
        return replace(self, settings=replace(self.settings, picker=pinned(self.picker, self.computing)))

    def with_absolute_paths(self) -> PickPlan:
        """The plan with files and folders named from the root, as they mean the same in whatever folder it is used.

        What is recorded of a run keeps them as the user wrote them. A name of shipped or downloaded weights stays one.
        """
        settings = replace(self.settings, picker=_absolute(self.picker), run=_absolute(self.settings.run))
        return replace(self, settings=settings, survey=None if self.survey is None else _absolute(self.survey))

    @property
    def seen(self) -> Survey:
        """The survey, empty where there is none."""
        return NOTHING_SEEN if self.survey is None else self.survey


def _absolute(settings: Any) -> Any:
    """The same settings where all paths are absolute, else a copy in which those are that lead somewhere."""
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    made: dict[str, Path] = {}
    for setting in settings_of(type(settings)):
        value = getattr(settings, setting.name)
        if not (setting.is_path and isinstance(value, Path)):
            continue
        path = value.expanduser()
        if setting.name == "weights":
            try:
                path = find_weights(value)
            except WeightsError:  # the picker says what is the matter
                continue
            if path.is_absolute() and not os.path.exists(value):
                continue
        if not value.is_absolute() and os.path.exists(path):
            made[setting.name] = Path(os.path.abspath(path))
    return replace(settings, **made) if made else settings


def make_settings(picker: str | Any = DEFAULT_PICKER, **given: Any) -> PickSettings:
    """Settings of a run from one flat set of names: those of the picker, of the selection, and of the run.

    Texts are converted (`diameter="180A"`); an unknown name is listed against the known ones. A published configuration
    (`as_="article"`) sets its settings first; what is given besides wins, and is named in a warning.
    """
    cls = picker_class(picker) if isinstance(picker, str) else type(picker)
    parts: dict[type[Any], dict[str, Any]] = {cls: {}, SelectionSettings: {}, RunSettings: {}}
    owner = {setting.name: part for part in (RunSettings, SelectionSettings, cls) for setting in settings_of(part)}
    unknown = sorted(set(given) - set(owner))
    if unknown:
        raise SettingsError(f"no setting {', '.join(unknown)}; picker {cls.name!r} has: {', '.join(sorted(owner))}")
    for name, value in _with_configuration(cls, given).items():
        parts[owner[name]][name] = value
    own = convert_settings(cls, parts[cls], section=f"picker {cls.name}")
    chosen = PickSettings(
        picker=make_picker(picker, **own) if isinstance(picker, str) else replace(picker, **own),
        run=RunSettings(**convert_settings(RunSettings, parts[RunSettings], section="run")),
        selection=SelectionSettings(
            **convert_settings(SelectionSettings, parts[SelectionSettings], section="selection")
        ),
    )
    if chosen.selection.as_found and chosen.run.target_precision is not None:
        raise SettingsError(
            "target precision chooses a threshold, and with --as-found (which --as article and --as program set) all "
            "that the picker gives is kept; leave one of them out"
        )
    return chosen


def _with_configuration(cls: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` behind what the published configuration sets that it names."""
    name = given.get("as_")
    if name in (None, "", "none"):
        return dict(given)
    require_configuration_name(name)
    of_configuration = find_configuration(cls, name).settings
    changed = {
        one: given[one]
        for one, value in of_configuration.items()
        if one in given and as_text(given[one]) != as_text(value)
    }
    may_be_none = {setting.name for setting in settings_of(cls) if "none" in setting.type_name.split("|")}
    unset = [one for one, value in changed.items() if value in (None, "", "none") and one not in may_be_none]
    if unset:  # a config file holds no settings that are not set, so that it could not be told from the configuration
        raise SettingsError(f"--as {name} sets {', '.join(unset)}; give another value, or leave --as out")
    if changed:
        told = ", ".join(f"{one} = {as_text(value)}" for one, value in changed.items())
        _log.warning("%s as %s, but with %s as given", cls.name, name, told)
    return {**of_configuration, **given}


def settings_sections(settings: PickSettings) -> dict[str, dict[str, Any]]:
    """The settings as the sections of a config file."""
    return {
        "run": {"picker": settings.picker.name, **as_plain(settings.run)},
        "selection": as_plain(settings.selection),
        settings.picker.name: as_plain(settings.picker),
    }


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML config file as one flat set of names, `picker` among them, for `make_settings`.

    What a run of version 0.1 had filled in is left out, and named in the log.
    """
    given, left_out = read_older_config(path)
    if left_out:
        _log.warning("%s: %s", path, filled_in_text(left_out))
    return given


def read_older_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """As `read_config`, and the names that runs of version 0.1 had filled in, which are left out."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write a mark in front
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a TOML config file") from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: is not a TOML config file ({error})") from error
    run = content.get("run", {})
    picker = run.get("picker", DEFAULT_PICKER) if isinstance(run, dict) else DEFAULT_PICKER
    given: dict[str, Any] = {}
    for section, values in content.items():
        if section not in ("run", "selection", picker) or not isinstance(values, dict):
            raise SettingsError(f"{path}: [{section}] is not a section; expected [run], [selection] or [{picker}]")
        given |= values
    left_out = filled_in_before(picker_class(picker), content.get(picker, {})) if isinstance(picker, str) else []
    return {name: value for name, value in given.items() if name not in left_out} | {"picker": picker}, left_out


def filled_in_before(picker: type[Any], given: Iterable[str]) -> list[str]:
    """The names among `given` that runs of version 0.1 filled in and that are no settings of the picker."""
    known = {setting.name for setting in settings_of(picker)}
    return [name for name in given if name in FILLED_IN_BEFORE and name not in known]


def filled_in_text(names: Sequence[str]) -> str:
    """A sentence on settings of version 0.1 that are none now."""
    return f"runs of version 0.1 filled in {', '.join(names)}; these are no settings now and are passed over"
