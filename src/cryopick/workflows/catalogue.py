"""The pickers as the command line and the documentation list them, made from the registry."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.workflows.settings import Setting, settings_of


@dataclass(frozen=True)
class PickerRow:
    """One picker in one line."""

    name: str
    summary: str
    """First sentence of the picker's docstring."""
    score_meaning: str
    threshold: str


def picker_rows() -> list[PickerRow]:
    """All registered pickers by name."""
    return [
        PickerRow(
            name=name,
            summary=" ".join((inspect.getdoc(picker_class(name)) or "").split("\n\n")[0].split()),
            score_meaning=picker_class(name).score_meaning,
            threshold=f"{picker_class(name).default_threshold:g}",
        )
        for name in list_pickers()
    ]


def settings_rows(name: str) -> list[Setting]:
    """The settings of one picker."""
    return settings_of(picker_class(name))


def pickers_markdown() -> str:
    """The table of pickers for the README."""
    rows = [f"| `{row.name}` | {row.summary} | {row.score_meaning} |" for row in picker_rows()]
    return "\n".join(["| picker | what it does | score |", "|---|---|---|", *rows]) + "\n"
