"""The settings that a run folder was made with: read again, and compared with those of a later call."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from cryopick.errors import RunFolderError, SettingsError
from cryopick.geometry.selection import SelectionSettings
from cryopick.pickers.older_pickers import is_older, survey_of_prepared
from cryopick.pickers.survey import Survey
from cryopick.runs.folder import CONFIG, PREPARED, RunFolder
from cryopick.runs.place import folder_of_the_first_pick
from cryopick.runs.record import Record
from cryopick.runs.settings import (
    PickPlan,
    PickSettings,
    RunSettings,
    filled_in_before,
    filled_in_text,
    make_settings,
    read_older_config,
    settings_sections,
)
from cryopick.settings import Setting, as_text, convert_settings, settings_of

NOT_COMPARED = ("device", "max_pixels")
"""Settings that say how to compute or what can be read, not what is found; a run may go on with others."""


_OLDER_NAMES = {
    "diameter": "particle_size",
    "working_diameter": "working_size",
    "filled_share": "filled_share",
    "is_empty": "is_empty",
    "decoy_share": "decoy_share",
    "added_noise": "noise_level",
    "body": "dark_part",
    "profile": "radial_profile",
    "contrast_doubt": "contrast_doubt",
    "model": "trained_model",
    "measured": "sentence",
    "found": "sentence",
}
"""What version 0.1 wrote into `prepared.toml` as settings of the picker, and what a survey calls it."""


def plan_of_run(folder: RunFolder) -> PickPlan:
    """The settings that a run was made with, and what was seen before it began."""
    return read_plan_of_run(folder)[0]


def read_plan_of_run(folder: RunFolder) -> tuple[PickPlan, dict[str, dict[str, Any]]]:
    """The plan of a run, and its settings as sections of a config file for the report.

    Exclusion masks are only in the latter: what they exclude is in the candidates, and their path may count from
    another folder than this one.
    """
    require_picking_config(folder)
    given, _ = read_older_config(folder.path / CONFIG)
    masks = given.pop("exclusion_masks", None)
    settings = make_settings(**given)
    sections = settings_sections(settings)
    if masks is not None:
        sections["run"]["exclusion_masks"] = str(masks)
    return PickPlan(settings=settings, survey=read_survey(folder, type(settings.picker))), sections


def read_survey(folder: RunFolder, picker: type[Any]) -> Survey | None:
    """What was seen before a run began; None where it has no `prepared.toml`.

    Raises
    ------
    RunFolderError
        If the file is damaged.
    """
    path = folder.path / PREPARED
    if not os.path.lexists(path):
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        if "survey" in content:
            return Survey.from_plain(content["survey"], where=PREPARED)
        return _older_survey(picker, content[picker.name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SettingsError) as error:
        raise RunFolderError(
            f"{path}: expected what picker {picker.name} saw before it began ({error!s:.200}); run the same "
            "`cryopick pick` command again, which makes it again"
        ) from error


def _older_survey(picker: type[Any], prepared: Mapping[str, Any]) -> Survey:
    """The survey in what version 0.1 wrote: all settings of the picker, those that the run had filled in among them."""
    if is_older(picker):
        return survey_of_prepared(picker, prepared)
    rest = {name: value for name, value in prepared.items() if name not in _OLDER_NAMES}
    convert_settings(picker, rest, section=PREPARED)
    seen = {_OLDER_NAMES[name]: value for name, value in prepared.items() if name in _OLDER_NAMES and value != "auto"}
    return Survey.from_plain(seen, where=PREPARED)


def require_picking_config(folder: RunFolder) -> None:
    """Raise `RunFolderError` if the config file of a folder is empty, damaged, or not that of a picking run."""
    refuse_foreign_config(folder)
    content, problem = _read_toml(folder.path / CONFIG)
    if not content:
        raise RunFolderError(
            f"{folder.path / CONFIG}: {problem or 'is empty'}; write the settings of the run into it again, which "
            "report.html and command.txt in the folder show, or start again with --overwrite"
        )


def refuse_foreign_config(folder: RunFolder) -> None:
    """Raise `RunFolderError` if the config file of a folder is whole and not that of a picking run."""
    content, _ = _read_toml(folder.path / CONFIG)
    run = content.get("run")
    if content and not (isinstance(run, dict) and isinstance(run.get("picker"), str)):
        raise RunFolderError(
            f"{folder.path / CONFIG}: is not that of a picking run (it has {', '.join(content)}), so the folder "
            "belongs to something else; choose another"
        )


def _read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a TOML file, and what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), ""
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"cannot be read ({error!s:.200})"


def require_same_settings(folder: RunFolder, settings: PickSettings, records: Sequence[Record]) -> None:
    """Raise `RunFolderError` that names every difference if the run in a folder was made with other settings.

    A setting that an older version did not write has its default; paths are the same where they lead to one file.
    """
    before = tomllib.loads((folder.path / CONFIG).read_text(encoding="utf-8"))
    own = settings.picker.name
    left_out = filled_in_before(type(settings.picker), before.get(own, {}))
    if left_out:
        folder.append_log(f"{CONFIG}: {filled_in_text(left_out)}")
    old, new = _flat(before), _flat(settings_sections(settings))
    for name in left_out:
        del old[f"{own} {name}"]
    known = _known_settings(settings)
    base = folder_of_the_first_pick(records)
    changes = []
    for name in dict.fromkeys([*old, *new]):
        one, other = old.get(name, _default(known.get(name))), new.get(name)
        is_same = one == other
        if one is not None and other is not None and name in known and known[name].is_path:
            is_same = _is_same_path(str(one), str(other), base)
        if not is_same and name.rpartition(" ")[2] not in NOT_COMPARED:
            changes.append(f"{name}: {as_text(one)} -> {as_text(other)}")
    if not changes:
        return
    only_threshold = all(change.startswith(("selection threshold", "run target_precision")) for change in changes)
    remedy = (
        f"to move only the threshold: cryopick rethreshold {folder.path} --threshold NUMBER"
        if only_threshold
        else "to pick everything again with the new settings add --overwrite, to keep both choose another -o"
    )
    raise RunFolderError(f"{folder.path}: was picked with other settings ({'; '.join(changes)}); {remedy}")


def _flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section} {name}": value
        for section, values in sections.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    }


def _known_settings(settings: PickSettings) -> dict[str, Setting]:
    parts = (("run", RunSettings), ("selection", SelectionSettings), (settings.picker.name, type(settings.picker)))
    return {f"{section} {setting.name}": setting for section, part in parts for setting in settings_of(part)}


def _default(setting: Setting | None) -> Any:
    if setting is None or setting.default is MISSING or setting.default is None:
        return None
    if isinstance(setting.default, tuple):
        return list(setting.default)
    return setting.default if isinstance(setting.default, bool | int | float) else str(setting.default)


def _is_same_path(old: str, new: str, base: Path | None) -> bool:
    """Whether a path in the settings of a run, counted from where it was made, and one of now lead to one file."""
    there = Path(old) if base is None or not os.path.exists(base / old) else base / old
    return os.path.realpath(there) == os.path.realpath(new) or (old == new and not os.path.exists(there))
