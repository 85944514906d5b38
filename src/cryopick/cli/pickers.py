"""`cryopick pickers`: the table of pickers, or one picker's settings."""

from __future__ import annotations

from typing import Annotated

import typer

from cryopick.pickers.catalogue import picker_rows, settings_rows
from cryopick.pickers.configurations import configurations_of
from cryopick.pickers.registry import picker_class


def command(name: Annotated[str | None, typer.Argument(help="Show the settings of this picker.")] = None) -> None:
    """List the pickers, or show one picker's settings.

    cryopick pickers blob
    """
    if name is None:
        for row in picker_rows():
            typer.echo(f"{row.name:<18}{row.summary}")
        typer.echo("\nSettings of one: cryopick pickers NAME; pick with it: cryopick pick INPUT -o RUN --picker NAME")
        return
    settings = settings_rows(name)  # raises for an unknown name, listing the known ones
    chosen = next(row for row in picker_rows() if row.name == name)
    typer.echo(f"{name}: {chosen.summary}\nscore: {chosen.score_meaning}; default threshold {chosen.threshold}\n")
    width = max(len(f"{s.flag} {s.type_name}") for s in settings) + 2
    for setting in settings:
        typer.echo(f"{f'{setting.flag} {setting.type_name}':<{width}}{setting.help} [{setting.default_text}]")
    for word, configuration in configurations_of(picker_class(name)).items():
        typer.echo(f"\n--as {word}: {configuration.about}")
        for line in configuration.lines():
            typer.echo(f"  {line}")
