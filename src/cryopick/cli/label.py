"""`cryopick label`: training labels as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryopick.cli.loudness import say_progress


def command(
    source: Annotated[
        Path, typer.Argument(help="A simulation, data set, run folder, or coordinate file with --micrographs.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the labels.")],
    kind: Annotated[str, typer.Option("--as", help="masks, boxes, coco or heatmap.")] = "masks",
    shape: Annotated[
        str, typer.Option(help="Of masks: auto, disc, density (from coordinates), projection (from poses and --map).")
    ] = "auto",
    micrographs: Annotated[list[str] | None, typer.Option(help="The images, where they lie elsewhere.")] = None,
    diameter: Annotated[str | None, typer.Option("--diameter", "-d", help="Particle diameter (180A, 108px).")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, above what files say.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", help="3D map (MRC) for projections.")] = None,
    flip_y: Annotated[str | None, typer.Option(help="auto, yes or no: count y from the other end.")] = None,
    stride: Annotated[int, typer.Option(help="Pixels per heatmap pixel.")] = 4,
) -> None:
    """Make training labels from simulations, or from any coordinates.

    Example: cryopick label sim/ -o labels/ --as masks

    Example: cryopick label particles.star -o labels/ --as masks --map map.mrc --micrographs mics/
    """
    from cryopick.geometry.units import parse_length
    from cryopick.workflows.label import label

    summary = label(
        source,
        output,
        kind=kind,
        shape=shape,
        micrographs=micrographs or (),
        diameter=None if diameter is None else parse_length(diameter),
        pixel_size_angstrom=pixel_size,
        map_path=map_,
        flip_y=flip_y,
        stride_px=stride,
        on_done=say_progress,
    )
    ways = "".join(f", {way} on {count}" for way, count in summary.shapes.items())
    typer.echo(f"{summary.kind} of {summary.particles} particles on {summary.micrographs} micrographs{ways}")
    if summary.fallbacks:
        typer.echo(f"{summary.fallbacks} particles could not be segmented and are discs")
    if summary.uncertain:
        typer.echo(f"{summary.uncertain} uncertain labels were left out")
    typer.echo(f"labels: {summary.folder}")
