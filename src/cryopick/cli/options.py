"""Command-line options made from settings dataclasses, so that each setting is typed once."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from cryopick.errors import SettingsError
from cryopick.settings import Setting, settings_of
from cryopick.user_paths import with_home_folder

SHORT_FLAGS = {"diameter": "-d"}
_BEFORE_PATH = re.compile(r"(--[\w-]+=|-[a-zA-Z])?(?=~)")
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})(/|$)")


def with_options(
    function: Callable[..., None], groups: Sequence[tuple[str, type[Any]]], *, given_as: str
) -> Callable[..., None]:
    """`function` with one option per setting of the dataclasses in `groups`.

    The options that the user gave arrive as texts in the dict that `function` takes as its keyword `given_as`. A name
    that two dataclasses share becomes one option.

    Parameters
    ----------
    groups : (text before the help of each option, settings dataclass)
    """
    settings: dict[str, tuple[str, Setting]] = {}
    for title, cls in groups:
        for setting in settings_of(cls):
            settings.setdefault(setting.name, (title, setting))
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != given_as]

    def command(**values: Any) -> None:
        given = {name: values.pop(name) for name in settings}
        function(**values, **{given_as: {name: value for name, value in given.items() if value is not None}})

    options = [_parameter(title, setting) for title, setting in settings.values()]
    signature = inspect.Signature([*own, *options])
    command.__signature__ = signature  # type: ignore[attr-defined]  # typer reads the options from it
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = function.__doc__
    return command


def _parameter(title: str, setting: Setting) -> inspect.Parameter:
    help_text = f"{title}{setting.help} [{setting.default_text}]"
    flags = [setting.flag, *([SHORT_FLAGS[setting.name]] if setting.name in SHORT_FLAGS else [])]
    if setting.is_switch:
        flags = [f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"]
        option = typer.Option(None, *flags, help=help_text, show_default=False)
        annotation: Any = bool | None
    else:
        option = typer.Option(None, *flags, help=help_text, metavar=setting.type_name, show_default=False)
        annotation = str | None
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def as_meant(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with the home folder for `~` where the shell left it: in quotes, behind `=`.

    Raises
    ------
    InputError
        If there is no such home folder.
    SettingsError
        If the output is empty or begins with a variable that was not replaced; a folder `$NAME` would be made.
    """
    words = [_with_home_folder(word) for word in arguments]
    output = option_value(words, "-o", "--output")
    if output is not None and not output.strip():
        raise SettingsError("--output is empty: is a variable not set? Give a folder; the working folder is .")
    if output is not None and _VARIABLE.match(output) and not os.path.lexists(output):
        raise SettingsError(f"--output {output}: begins with a variable that no shell replaced; use double quotes")
    return words


def _with_home_folder(word: str) -> str:
    """`~/run`, `--output=~/run` and `-o~/run` with the home folder; `--output=` itself may not hold a `~`."""
    match = _BEFORE_PATH.match(word)
    return word if match is None else match.group() + with_home_folder(word[match.end() :])


def option_value(arguments: Sequence[str], *flags: str) -> str | None:
    """The value of an option on a command line that is not parsed yet: `--picker blob` or `--picker=blob`."""
    value = None
    for position, word in enumerate(arguments):
        if word == "--":
            break
        if word in flags and position + 1 < len(arguments):
            value = arguments[position + 1]
        for flag in flags:
            if word.startswith(f"{flag}="):
                value = word.removeprefix(f"{flag}=")
    return value


def parse_files(words: Iterable[str], *, flag: str, example: str) -> dict[str, Path]:
    """`["sam=sam.pth"]` to files by name; what is no NAME=FILE is an error (`SettingsError`)."""
    named = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (sign and name and value):
            raise SettingsError(f"{flag} {word}: expected {example}")
        named[name] = Path(value)
    return named
