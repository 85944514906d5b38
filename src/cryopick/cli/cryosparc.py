"""`cryopick cryosparc`: a finished run as an External job of cryoSPARC."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cryopick.cli.json_lines import print_json
from cryopick.errors import SettingsError
from cryopick.geometry.units import as_length
from cryopick.workflows import cryosparc_job

if TYPE_CHECKING:
    from cryopick.workflows.cryosparc_maps import MapsAsked


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
    maps: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also reconstruct there: extraction, 2D classes, maps; resumes in FOLDER."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the jobs that --maps makes, and make none.")] = False,
    symmetry: Annotated[str, typer.Option(help="Of the maps: C1, D7, O, ...")] = "C1",
    seeds: Annotated[int, typer.Option(help="Starts of each map.")] = 3,
    select2d: Annotated[str, typer.Option(help="2D selections, a map each: none, auto.")] = "none,auto",
    box_size: Annotated[int | None, typer.Option(help="Of the boxes, in pixels.", show_default="the run's")] = None,
    bin_to: Annotated[
        int | None, typer.Option(help="Pixels that boxes are cropped to.", show_default="not binned")
    ] = None,
    diameter: Annotated[
        str | None, typer.Option(help="Of the particle, such as 180A.", show_default="the run's")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The true map (MRC), where it is known.")] = None,
    lane: Annotated[str | None, typer.Option(help="Lane of the queue.", show_default="the server's")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was saved as JSON on stdout.")] = False,
) -> None:
    """Save the picks of a run into a cryoSPARC project, bound to its exposures.

    cryopick cryosparc run1 --project P3 --workspace W1 --exposures J42.exposures --cs-rows relion

    With --maps, cryoSPARC then reconstructs from them, and the half maps are judged as `cryopick validate3d` judges.

    The account comes from `python -m cryosparc.tools login`, or from the variables CRYOSPARC_EMAIL and
    CRYOSPARC_PASSWORD.
    """
    if maps is not None:
        asked = _asked(
            project=project, workspace=workspace, exposures=exposures, rows=cs_rows, symmetry=symmetry, seeds=seeds,
            select2d=select2d, box_size=box_size, bin_to=bin_to, diameter=diameter, lane=lane,
        )  # fmt: skip
        _maps(run, asked, output=maps, is_dry=dry_run, truth=truth, url=url, is_json=json)
        return
    if dry_run:
        raise SettingsError("--dry-run prints the jobs of --maps; give --maps FOLDER, too")
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


def _asked(
    *,
    seeds: int,
    select2d: str,
    box_size: int | None,
    bin_to: int | None,
    diameter: str | None,
    **known: Any,
) -> MapsAsked:
    from cryopick.workflows.cryosparc_maps import MapsAsked

    if seeds < 1:
        raise SettingsError(f"--seeds is {seeds}, expected 1 or more")
    length = None if diameter is None else as_length(diameter)
    if length is not None and length.unit != "A":
        raise SettingsError(f"--diameter {diameter}: give it in Å, such as 180A, since cryoSPARC may bin the pixels")
    return MapsAsked(
        seeds=tuple(range(1, seeds + 1)),
        selections=tuple(one.strip() for one in select2d.split(",") if one.strip()),
        box_px=box_size,
        scaled_px=bin_to,
        diameter_angstrom=None if length is None else length.middle_px(1.0),
        **known,
    )


def _maps(
    run: Path, asked: MapsAsked, *, output: Path, is_dry: bool, truth: Path | None, url: str | None, is_json: bool
) -> None:
    from cryopick.workflows.cryosparc_maps import maps_in_cryosparc, plan_text, table_lines

    if is_dry:
        for line in plan_text(run, asked):
            typer.echo(line)
        return
    found = maps_in_cryosparc(
        run,
        cryosparc_job.connect(url),
        asked,
        output=output,
        truth=truth,
        on_line=lambda line: typer.echo(line, err=True),
    )
    if is_json:
        print_json({"event": "cryosparc", "maps": [asdict(one) for one in found]})
    else:
        for line in table_lines(found):
            typer.echo(line)
