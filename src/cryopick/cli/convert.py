"""`cryopick convert`: coordinates from any format to any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.io.coordinates.formats import FORMATS

_NAMES = list(FORMATS)


def command(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="Coordinate file, or folder of them, or a run folder.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="File, or folder for one file per micrograph.")],
    *,
    to: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}; else by TO's ending."),
    ] = None,
    from_format: Annotated[
        str | None, typer.Option("--from", help="The format of FROM, where it is not recognised.")
    ] = None,
    flip_y: Annotated[
        str | None, typer.Option(help="yes, no, or auto: measure on --micrographs which way round the picks fit.")
    ] = None,
    micrographs: Annotated[
        list[str] | None, typer.Option(help="Images: names, sizes, pixel sizes. Folder, file, pattern or STAR.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(help="Side of boxes, for example 200px; else a run's suggested box, or each pick's diameter."),
    ] = None,
    diameter: Annotated[str | None, typer.Option(help="Particle diameter (180A, 108px), for --flip-y auto.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel.")] = None,
    cs_rows: Annotated[
        str | None, typer.Option(help="To write .cs: relion (y fraction = row / height) or flipped (1 - row / height).")
    ] = None,
    keep_all: Annotated[bool, typer.Option("--all", help="Rejected candidates too; CSV says which.")] = False,
) -> None:
    """Convert coordinates between formats.

    Example: cryopick convert run1 picks/ --to box
    """
    from cryopick.workflows.convert import convert

    done = convert(
        source,
        target,
        to=to,
        from_format=from_format,
        flip_y=flip_y,
        micrographs=micrographs or (),
        box=box,
        diameter=diameter,
        pixel_size_angstrom=pixel_size,
        cs_rows=cs_rows,
        keep_rejected=keep_all,
    )
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if done.fit is not None:
        typer.echo(f"orientation: {done.fit.describe()}; y {'was' if done.is_flipped else 'not'} flipped", err=True)
    files = f"{len(done.files)} files in {target}" if len(done.files) > 1 else str(target)
    typer.echo(f"{done.particles} particles of {done.micrographs} micrographs written to {files}")
