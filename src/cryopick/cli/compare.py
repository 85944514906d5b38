"""`cryopick compare`: what several runs, or picks of other programs, have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress


def command(
    sets: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, coordinate files, or folders of them.")
    ],
    *,
    names: Annotated[
        str | None, typer.Option(help="What to call them, with commas between.", show_default="their folders' names")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for a page with pictures of what only one has, tables, and JSON."),
    ] = None,
    micrographs: Annotated[
        list[Path] | None, typer.Option(help="The images, for their sizes and the pictures; runs know theirs.")
    ] = None,
    diameter: Annotated[
        str | None, typer.Option(help="Particle diameter (180A, 108px).", show_default="the picks' median")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest distance of two picks of one particle, in diameters.")
    ] = 0.25,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, where the sets do not say.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Compare the picks of several runs, or of other programs: who agrees, what only one has, whether frames differ.

    Example: cryopick compare run1 run2 -o compared/
    """
    from json import dumps

    from cryopick.evaluation.comparison import as_json_object, as_text
    from cryopick.workflows.compare import compare

    comparison = compare(
        sets,
        names=[one.strip() for one in names.split(",")] if names else (),
        output=output,
        micrographs=micrographs or (),
        diameter=diameter,
        tolerance=tolerance,
        pixel_size_angstrom=pixel_size,
    )
    typer.echo(
        dumps(as_json_object(comparison), ensure_ascii=False, indent=1) if json else as_text(comparison), nl=json
    )
    if output is not None:
        say_progress(f"look: {output / 'comparison.html'}")
