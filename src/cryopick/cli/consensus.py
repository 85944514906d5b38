"""`cryopick consensus`: one run from the picks of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    sets: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, coordinate files, or folders of them.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder of the consensus.")],
    names: Annotated[
        str | None, typer.Option(help="What to call them, with commas between.", show_default="their pickers")
    ] = None,
    micrographs: Annotated[list[Path] | None, typer.Option(help="The images; runs know theirs.")] = None,
    rule: Annotated[
        Literal["expected-f1", "majority", "union", "intersection"] | None,
        typer.Option(
            help="By the probability that all give together, or by how many have a pick.",
            show_default="expected-f1 for runs of pickers that it knows, else majority",
        ),
    ] = None,
    diameter: Annotated[
        str | None, typer.Option(help="Particle diameter (180A, 108px).", show_default="the picks' median")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, above what files say.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per micrograph, no progress bar.")] = False,
) -> None:
    """Join the picks of several runs, or of other programs, into one run: of each particle one pick.

    Example: cryopick consensus run1 run2 -o agreed --rule majority
    """
    from cryopick.cli.console import command_line, progress_listener
    from cryopick.cli.json_lines import json_lines
    from cryopick.cli.pick import print_summary
    from cryopick.runs.run import summary_as_dict
    from cryopick.workflows.consensus import consensus

    with json_lines(is_wanted=json) as say, progress_listener(say) as listener:
        summary = consensus(
            sets,
            output,
            names=[one.strip() for one in names.split(",")] if names else (),
            micrographs=micrographs or (),
            rule=rule,
            diameter=diameter,
            pixel_size_angstrom=pixel_size,
            overwrite=overwrite,
            command=command_line(),
            on_event=listener,
        )
        if say is not None:
            say(summary_as_dict(summary), is_kept=True)
    if not json:
        print_summary(summary, output)
