"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.models import ArgumentInfo, ParameterInfo

from cryopick.cli.exit_codes import table_text
from cryopick.cli.main import COMMANDS, command_of
from cryopick.pickers.catalogue import picker_rows, settings_rows
from cryopick.pickers.configurations import configurations_of
from cryopick.pickers.registry import picker_class

_COMMAND_LINE = re.compile(r"(?:^|(?<=: ))\s*(cryopick [a-z]+ .*\S)\s*$")


def place_of_command(name: str) -> str:
    return f"reference/commands/{name}.md"


def commands_overview() -> str:
    """All commands in one table, what holds for each of them, and the exit codes."""
    rows = [f"| [`cryopick {name}`](commands/{name}.md) | {text} |" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "# Commands",
            "",
            "`cryopick COMMAND --help` shows the same as these pages.",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "## Exit codes",
            "",
            "The same for every command; `kind` is the word for it in the events of `--json`.",
            "",
            table_text(),
        ]
    )


def page_of_command(name: str) -> str:
    """One command: its help text, and tables of what can be given."""
    given = parameters_of(name)
    arguments = [one for one in given if one.is_argument]
    usage = " ".join(["cryopick", name, *(one.shown for one in arguments), "[OPTIONS]"])
    help_text = inspect.cleandoc(command_of(name).__doc__ or "")
    parts = [f"# cryopick {name}", "", f"```text\n{usage}\n```", "", _help_markdown(help_text)]
    if arguments:
        parts += [
            "",
            "## Arguments",
            "",
            _table(("argument", "meaning"), [(f"`{a.shown}`", a.help) for a in arguments]),
        ]
    rows = [(one.shown, one.help) for one in given if not one.is_argument]
    parts += ["", "## Options", "", _table(("option", "meaning"), [*rows, ("`--help`", "Show the help and exit.")])]
    if name == "pick":
        parts += [
            "",
            "Each picker has options of its own: [settings of the pickers](../pickers.md). Shown here: `general`.",
        ]
    return "\n".join(parts) + "\n"


def settings_of_pickers() -> str:
    """The settings of every picker of this package."""
    parts = [
        "# Settings of the pickers",
        "",
        "Options of `cryopick pick --picker NAME`, keywords of `cryopick.pick`, and entries of the section of the",
        "picker's name in a [config file](../settings.md). `cryopick pickers NAME` shows the same.",
    ]
    for row in picker_rows():
        cls = picker_class(row.name)
        if not cls.__module__.startswith("cryopick."):
            continue
        rows = [
            (f"`{one.flag}`", f"`{one.type_name}`", one.help, f"`{one.default_text}`")
            for one in settings_rows(row.name)
        ]
        parts += ["", f"## {row.name}", "", row.summary, ""]
        parts += [f"Score: {row.score_meaning}; default threshold {row.threshold}.", ""]
        parts += [_table(("option", "value", "meaning", "default"), rows)]
        for word, configuration in configurations_of(cls).items():
            parts += ["", f"`--as {word}`: {configuration.about}"]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class Shown:
    """An argument or option as its page shows it."""

    is_argument: bool
    shown: str
    help: str


def parameters_of(name: str) -> list[Shown]:
    """What a command takes, read from its function as typer reads it."""
    found = []
    for parameter in inspect.signature(command_of(name), eval_str=True).parameters.values():
        annotation, info, default = parameter.annotation, None, parameter.default
        if get_origin(annotation) is Annotated:
            annotation, *notes = get_args(annotation)
            info = next((one for one in notes if isinstance(one, ParameterInfo)), None)
        if isinstance(default, ParameterInfo):
            info, default = default, default.default
        if annotation is typer.Context:
            continue
        if info is None:
            raise TypeError(f"cryopick {name}: parameter {parameter.name} has no typer.Option or typer.Argument")
        if not info.hidden:
            found.append(_shown(parameter.name, annotation, info, default))
    return found


def _shown(name: str, annotation: Any, info: ParameterInfo, default: Any) -> Shown:
    help_text = info.help or ""
    if isinstance(info, ArgumentInfo):
        return Shown(True, info.metavar or name.upper(), help_text)
    first = (info.default,) if isinstance(info.default, str) and info.default.startswith("-") else ()
    flags = (*first, *(info.param_decls or ()))  # in `Annotated` typer takes the first flag for its default
    if not any(flag.startswith("--") for flag in flags):
        flags = (f"--{name.replace('_', '-')}", *flags)
    kinds = [one for one in (get_args(annotation) or (annotation,)) if one is not type(None)]
    is_switch = kinds == [bool]
    value = "" if is_switch else f" {info.metavar or _value_word(annotation)}"
    if default in (inspect.Parameter.empty, ...):
        help_text += " Must be given."
    elif isinstance(info.show_default, str):
        help_text += f" [{info.show_default}]"
    elif info.show_default and not is_switch and default not in (None, "", (), []):
        help_text += f" [{default}]"
    names = ", ".join(f"`{part}`" for flag in sorted(flags, key=len, reverse=True) for part in flag.split("/"))
    return Shown(False, names + (f" `{value.strip()}`" if value else ""), help_text)


def _value_word(annotation: Any) -> str:
    kinds = [one for one in (get_args(annotation) or (annotation,)) if one is not type(None)]
    if all(isinstance(one, str) for one in kinds):
        return "|".join(kinds)
    if get_origin(kinds[0]) is Literal:
        return "|".join(map(str, get_args(kinds[0])))
    return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kinds[0], "TEXT")


def _help_markdown(text: str) -> str:
    """A help text with its command lines as code."""
    lines, is_code = [], False
    for line in text.replace("\b\n", "").splitlines():
        found = _COMMAND_LINE.search(line)
        if found and found.start() == 0:
            lines += [*([] if is_code else ["", "```"]), found.group(1)]
            is_code = True
            continue
        lines += [*(["```", ""] if is_code else []), _COMMAND_LINE.sub(r"`\1`", line)]
        is_code = False
    return _without_markup("\n".join([*lines, *(["```"] if is_code else [])]))


def _without_markup(text: str) -> str:
    """Angle brackets outside code would be taken for HTML."""
    return re.sub(r"<(?=[A-Za-z/])", "&lt;", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(text) for text in row) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return _without_markup(" ".join(text.split())).replace("|", "\\|")
