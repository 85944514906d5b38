"""Settings typed once: the fields of a frozen dataclass become command-line options, TOML entries and documentation.

A field is `name: Annotated[type, "help sentence"] = default`. Lengths are written with their unit (`180A`, `108px`).
"""

from __future__ import annotations

import json
import numbers
import re
import types
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length, as_length
from cryopick.types import plain_number
from cryopick.user_paths import with_home_folder

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a settings dataclass, as the command line, the config file and the docs show it."""

    name: str
    annotation: Any
    help: str
    default: Any
    """The default value; `dataclasses.MISSING` where the setting must be given."""

    @property
    def flag(self) -> str:
        """`min_distance` gives `--min-distance`; the unit Å, which every bare length has, is left out of flags, and so
        is the `_` behind a word of Python."""
        return "--" + self.name.removesuffix("_angstrom").removesuffix("_").replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.annotation is bool

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder, if it is set."""
        return self.annotation is Path or Path in get_args(self.annotation)

    @property
    def type_name(self) -> str:
        """The type in the words of a user: `length|number`, `dark|bright`, `true|false`."""
        return "|".join(dict.fromkeys(_type_names(self.annotation)))

    @property
    def default_text(self) -> str:
        if self.default is MISSING:
            return "must be given"
        return "not set" if self.default is None else as_text(self.default)


def settings_of(cls: type[Any]) -> list[Setting]:
    """The settings of a dataclass in the order of its fields."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):
        if not field.init or field.name.startswith("_"):
            continue
        annotation, help_text = hints[field.name], ""
        if hasattr(annotation, "__metadata__"):
            help_text = next((m for m in annotation.__metadata__ if isinstance(m, str)), "")
            annotation = annotation.__origin__
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found.append(Setting(name=field.name, annotation=annotation, help=help_text, default=default))
    return found


def require_known(given: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Refuse names of settings that are none of the known ones, which are listed (`SettingsError`)."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingsError(f"{where} has no setting {', '.join(unknown)}; it has: {', '.join(sorted(known))}")


def require_choices(settings: Any, *, where: str) -> None:
    """Refuse a value of a field of fixed words, a `Literal`, that is none of them (`SettingsError`)."""
    for setting in settings_of(type(settings)):
        parts = get_args(setting.annotation) if get_origin(setting.annotation) is not Literal else (setting.annotation,)
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        value = getattr(settings, setting.name)
        if words and value not in words and not (value is None and type(None) in parts):
            raise SettingsError(f"{where}: {setting.name} is {value!r}, expected {' or '.join(map(str, words))}")


def convert_settings(cls: type[Any], given: Mapping[str, Any], *, section: str) -> dict[str, Any]:
    """Convert texts and TOML values to the types of the fields of `cls`.

    Raises
    ------
    SettingsError
        For a name that `cls` does not have (the known ones are listed) and a value of the wrong type.
    """
    known = {setting.name: setting for setting in settings_of(cls)}
    require_known(given, known, where=section)
    return {
        name: convert(value, known[name].annotation, where=f"{section}: {known[name].flag}")
        for name, value in given.items()
    }


def convert(value: Any, annotation: Any, *, where: str) -> Any:
    """Convert one value, from Python, TOML or the command line, to the type that `annotation` names."""
    if annotation is Any:
        return value
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(annotation), annotation, where)
    if origin is Literal:
        choices = get_args(annotation)
        for choice in choices:
            if value == choice or str(value) == str(choice):
                return choice
        raise _wrong(value, annotation, where)
    if origin in (tuple, list):
        (item_type, *_rest) = get_args(annotation) or (str,)
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if isinstance(items, np.ndarray) and items.ndim == 1:
            items = list(items)
        if not isinstance(items, list | tuple):
            items = [items]
        converted = [convert(item, item_type, where=where) for item in items]
        return tuple(converted) if origin is tuple else converted
    return _convert_plain(value, annotation, where)


def _convert_union(value: Any, members: tuple[Any, ...], annotation: Any, where: str) -> Any:
    if type(None) in members and (value is None or value in ("", "none")):
        return None
    for member in members:
        if member is not type(None):
            try:
                return convert(value, member, where=where)
            except SettingsError:
                if len([m for m in members if m is not type(None)]) == 1:
                    raise
    raise _wrong(value, annotation, where)


def _convert_plain(value: Any, annotation: Any, where: str) -> Any:
    if isinstance(value, np.bool_):
        value = bool(value)
    if isinstance(value, np.generic | np.ndarray) and annotation in (int, float, Length):
        value = _number(value, annotation, where)
    if annotation is Length and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return as_length(value)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
    if annotation is bool and isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    is_number = isinstance(value, str | numbers.Real) and not isinstance(value, bool)
    if annotation in (int, float) and is_number:
        number = _number(value, annotation, where)
        if annotation is float:
            return float(number)
        if number == int(number):
            return int(number)
    if annotation is Path and isinstance(value, str):
        return Path(with_home_folder(value))
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    raise _wrong(value, annotation, where)


def _number(value: Any, annotation: Any, where: str) -> float:
    """A finite number from a text or from a number of Python or numpy."""
    if isinstance(value, str):
        try:
            value = float(unicodedata.normalize("NFKC", value))
        except ValueError as error:
            hint = "; write decimals with a point" if re.fullmatch(r"\s*[0-9]+,[0-9]+\s*", value) else ""
            raise SettingsError(f"{_wrong(value, annotation, where)}{hint}") from error
    try:
        return plain_number(value, where)
    except SettingsError as error:
        raise _wrong(value, annotation, where) from error


def _wrong(value: Any, annotation: Any, where: str) -> SettingsError:
    return SettingsError(f"{where}: expected {'|'.join(_type_names(annotation))}, got {value!r}")


def _type_names(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [name for part in get_args(annotation) if part is not type(None) for name in _type_names(part)]
    if origin is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if origin in (tuple, list):
        (item, *_rest) = get_args(annotation) or (str,)
        return [f"{'|'.join(_type_names(item))},..."]
    if annotation is bool:
        return ["true", "false"]
    plain = {Length: "length", float: "number", int: "whole number", str: "text", Path: "path"}
    return [plain.get(annotation, str(getattr(annotation, "__name__", annotation)))]


_TIME_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TIME_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)


def seconds_of(given: str | float, *, name: str) -> float:
    """Seconds of `2s`, `30m`, `1h30m`, `4 h` or a bare number of seconds.

    Raises
    ------
    SettingsError
        If it is no such time, or less than 0.
    """
    text = str(given).strip()
    parts = _TIME_PART.findall(text)
    is_time = parts and not _TIME_PART.sub("", text) and all(unit.lower() in _TIME_UNITS for _, unit in parts)
    if isinstance(given, bool) or not is_time:
        raise SettingsError(f"{name} {given!r}: expected a time such as 2s, 30m, 1h30m, or seconds")
    return sum(float(number) * _TIME_UNITS[unit.lower()] for number, unit in parts)


def as_text(value: Any) -> str:
    """A setting's value as the command line would take it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(as_text(item) for item in value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def as_plain(settings: Any) -> dict[str, Any]:
    """The settings of a dataclass instance as numbers, texts, booleans and lists; values that are None are left out."""
    values = {setting.name: getattr(settings, setting.name) for setting in settings_of(type(settings))}
    return {name: _plain(value, name) for name, value in values.items() if value is not None}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Length | Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item, name) for item in value]
    raise SettingsError(f"setting {name} is a {type(value).__name__}, which a config file cannot hold")


def to_toml(content: Mapping[str, Any]) -> str:
    """TOML text of plain values and of tables of them, each in the order given, the values before the tables.

    `tomli-w` does the same, but spreads every list over several lines; texts of earlier versions are compared letter by
    letter with those of this one (`recipe.toml` when a simulation is resumed).
    """
    values = {name: value for name, value in content.items() if not isinstance(value, Mapping)}
    tables = {name: table for name, table in content.items() if isinstance(table, Mapping)}
    blocks = [_toml_lines(values)] if values else []
    blocks += [f"[{name}]\n{_toml_lines(table)}" for name, table in tables.items()]
    return "\n".join(blocks)


def _toml_lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in values.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # a TOML basic string has JSON's escapes, and does not allow the delete character that JSON does
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
