"""`--settle`: sizes that were measured become settings, as if they had been given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cryopick.pickers.survey import Survey
from cryopick.runs.folder import CONFIG, RunFolder
from cryopick.runs.following.follower import Settled
from cryopick.runs.following.preparing import look_names
from cryopick.runs.settings import PickSettings, make_settings, read_config, settings_sections
from cryopick.settings import settings_of, to_toml

GIVEN_AS = {
    "particle_size": "diameter",
    "working_size": "working_diameter",
    "noise_level": "added_noise",
    "dark_part": "body",
    "radial_profile": "profile",
    "trained_model": "model",
}
"""What a survey measures, and the setting by which a user gives it, where a picker has that."""
_TOLD_BESIDES = frozenset({"prepared_settings"})


def settled_settings(folder: RunFolder, settings: PickSettings, survey: Survey) -> Settled | None:
    """Write what was measured into `config.toml`, and give it as it is read from there.

    None, and nothing written, where the picker looks by something that none of its settings can hold.
    """
    picker = settings.picker
    own = {one.name: one for one in settings_of(type(picker))}
    nothing = Survey()
    given: dict[str, Any] = {}
    for name in sorted(look_names(picker, survey) | {"particle_size"}):
        value = getattr(survey, name)
        if value == getattr(nothing, name):
            continue
        setting = GIVEN_AS.get(name)
        if setting is None or setting not in own:
            return None
        if getattr(picker, setting) == own[setting].default:
            given[setting] = value
    chosen = replace(settings, picker=replace(picker, **given))
    folder.write(folder.path / CONFIG, to_toml(settings_sections(chosen)), is_durable=True)
    kept = make_settings(**read_config(folder.path / CONFIG))
    seen = {name: getattr(kept.picker, setting) for name, setting in GIVEN_AS.items() if setting in given}
    return Settled(settings=kept, survey=replace(survey, **seen))


def settled_before(folder: RunFolder, settings: PickSettings) -> PickSettings:
    """The settings with the sizes that an earlier call of the same run has settled; as they are where it has not."""
    if not folder.is_run:
        return settings
    before = read_config(folder.path / CONFIG)
    picker = settings.picker
    if before.get("picker") != picker.name:
        return settings
    kept = make_settings(**before).picker
    given: dict[str, Any] = {}
    for one in settings_of(type(picker)):
        if one.name in GIVEN_AS.values() and getattr(picker, one.name) == one.default:
            given[one.name] = getattr(kept, one.name)
    return replace(settings, picker=replace(picker, **given))
