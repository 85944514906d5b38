"""Published systems by one word: `--as article` and `--as program` set everything that a paper or its program fixes.

A picker class that implements a published system says what its configurations are:

    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = {"article": Configuration(...), ...}

`article` is what the paper describes, `program` what its released program does, faults included, to reproduce it.
Without either a picker is ours. The family of the picker (`pickers/families.py`) has presets of the same names, which
train the network that the configuration picks with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cryopick.errors import SettingsError
from cryopick.settings import as_text

ConfigurationName = Literal["article", "program"]
CONFIGURATION_NAMES: tuple[ConfigurationName, ...] = get_args(ConfigurationName)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What one word sets.

    Parameters
    ----------
    about : one sentence: what it is, and what is needed for it, such as weights
    settings : value by name, of the picker, of the selection (`as_found` switches all rules off that are ours), and of
        the run. What a user gives besides wins, and is named
    departs : sentences on what differs from the paper or the program all the same, and why
    """

    about: str
    settings: Mapping[str, Any]
    departs: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people: one line per setting, then what departs."""
        width = max(map(len, self.settings), default=0)
        values = [f"{name:<{width}}  {as_text(value)}" for name, value in self.settings.items()]
        return [*values, *(f"departs: {sentence}" for sentence in self.departs)]


def configurations_of(picker: type[Any]) -> Mapping[ConfigurationName, Configuration]:
    """The published configurations of a picker class; none for pickers that implement no published system."""
    found: Mapping[ConfigurationName, Configuration] = getattr(picker, "configurations", {})
    return found


def require_configuration_name(name: str) -> None:
    """Refuse what `--as` does not know (`SettingsError`)."""
    if name not in CONFIGURATION_NAMES:
        raise SettingsError(f"--as {name}: expected {' or '.join(CONFIGURATION_NAMES)}")


def find_configuration(picker: type[Any], name: str) -> Configuration:
    """One of them by name; unknown ones are listed against the known ones."""
    known = configurations_of(picker)
    for one, configuration in known.items():
        if one == name:
            return configuration
    if not known:
        raise SettingsError(
            f"picker {picker.name!r} is of no published system, so it has nothing to be run as {name!r}"
        )
    raise SettingsError(f"picker {picker.name!r} cannot be run as {name!r}; it can as {' or '.join(known)}")
