"""The pickers as the command line and the documentation list them, made from the registry."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.settings import Setting, settings_of

TABLE_BEGIN, TABLE_END = "<!-- pickers: made by `make docs` -->", "<!-- end of pickers -->"


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
    """The table of this package's pickers for the README; those of other packages are left out."""
    rows = [
        f"| `{row.name}` | {row.summary} |"
        for row in picker_rows()
        if picker_class(row.name).__module__.startswith("cryopick.")
    ]
    return "\n".join(["| picker | what it does |", "|---|---|", *rows]) + "\n"


def with_current_table(readme: str) -> str:
    """The text of the README with its table of pickers made anew between the two markers."""
    before, rest = readme.split(TABLE_BEGIN)
    _, after = rest.split(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{pickers_markdown()}{TABLE_END}{after}"


def main(arguments: Sequence[str]) -> None:
    """`python -m cryopick.pickers.catalogue README.md`: renew the table in that file."""
    path = Path(arguments[0])
    path.write_text(with_current_table(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
