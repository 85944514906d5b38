"""`cryopick cryosparc`: a finished run as an External job of cryoSPARC."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from cryopick.cli.json_lines import print_json
from cryopick.workflows import cryosparc_job


def command(
    run: Annotated[Path, typer.Argument(help="Run folder made by `cryopick pick`.")],
    *,
    project: Annotated[str, typer.Option(metavar="UID", help="Project, such as P3.")],
    workspace: Annotated[str, typer.Option(metavar="UID", help="Workspace in which the job is made, such as W1.")],
    exposures: Annotated[
        str, typer.Option(metavar="JOB.OUTPUT", help="The micrographs that were picked, such as J42.exposures.")
    ],
    cs_rows: Annotated[
        Literal["relion", "flipped"],
        typer.Option(help="Which way cryoSPARC counts y on these micrographs; docs/frames.md says how to find out."),
    ],
    title: Annotated[str, typer.Option(help="Title of the job.", show_default="cryopick RUN")] = "",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The server.", show_default="$CRYOSPARC_BASE_URL")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="What was saved as JSON on stdout.")] = False,
) -> None:
    """Save the picks of a run into a cryoSPARC project, bound to its exposures.

    cryopick cryosparc run1 --project P3 --workspace W1 --exposures J42.exposures --cs-rows relion

    The account comes from `python -m cryosparc.tools login`, or from the variables CRYOSPARC_EMAIL and
    CRYOSPARC_PASSWORD.
    """
    client = cryosparc_job.connect(url)
    saved = cryosparc_job.save_to_cryosparc(
        run, client, project=project, workspace=workspace, exposures=exposures, rows=cs_rows, title=title
    )
    if saved.left_out:
        typer.echo(
            f"warning: {len(saved.left_out):,} micrographs of the run are not among {exposures}, such as "
            f"{saved.left_out[0]}; their picks are left out",
            err=True,
        )
    if json:
        print_json({"event": "cryosparc", **asdict(saved)})
    else:
        typer.echo(
            f"{saved.particles:,} particles in {saved.micrographs:,} of {saved.exposures:,} exposures saved as "
            f"{saved.project} {saved.job}; connect its particles to Inspect Picks or Extract from Micrographs"
        )
