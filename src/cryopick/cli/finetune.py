"""`cryopick finetune`: adapt a picker to one's own micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import command_line
from cryopick.cli.options import with_options
from cryopick.cli.train import parse_assignments
from cryopick.cli.training_monitor import ConsoleMonitor
from cryopick.geometry.units import parse_length
from cryopick.training.trainable import TrainSettings
from cryopick.workflows.finetune import finetune as run_finetune


def finetune(
    *,
    picker: Annotated[str, typer.Argument(help="The picker to adapt.")],
    picks: Annotated[Path, typer.Option(help="Coordinates of particles (any format), or a labelled data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, card, logs and curves.")],
    micrographs: Annotated[list[str] | None, typer.Option(help="The images that the picks are from.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights to start from: name, file or training folder.", show_default="shipped")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="sparse when not every particle is picked, complete when every one is.")
    ] = "sparse",
    diameter: Annotated[str | None, typer.Option("--diameter", "-d", help="Particle diameter (180A, 108px).")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, above what files say.")] = None,
    flip_y: Annotated[
        str | None, typer.Option(help="auto, yes or no: count y of the picks from the other end.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the picker's own task.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Adapt a trained picker to your own micrographs, without forgetting what it knew.

    cryopick finetune general --picks good.star --micrographs mics/ -o tuned/ --diameter 180A

    Fine-tuning is short; its values replace the defaults shown here.
    """
    result = run_finetune(
        picker,
        picks,
        output,
        micrographs=micrographs or (),
        weights=weights,
        diameter=None if diameter is None else parse_length(diameter),
        pixel_size_angstrom=pixel_size,
        labels=labels,
        flip_y=flip_y,
        task=parse_assignments(set_ or []),
        training=given or {},
        resume=resume,
        command=command_line(),
        monitor=ConsoleMonitor(),
    )
    for text in result.warnings:
        typer.echo(f"warning: {text}", err=True)
    typer.echo("              before   after")
    for name, title in (("new", "your data"), ("old", "old data")):
        after = result.after.get(name, float("nan"))
        typer.echo(f"{title:<12}{result.before[name]:>8.4f}{after:>8.4f}")
    typer.echo(f"kept the weights of step {result.training.best_step} of {result.training.steps}")
    if not result.training.is_finished:
        typer.echo(f"{result.training.reason}; the same command with --resume goes on")
    typer.echo(f"weights: {result.training.weights}")
    typer.echo(f"curves:  {output / 'loss.png'}")
    typer.echo(f"use them: cryopick pick MICROGRAPHS -o RUN --picker {picker} --weights {result.training.weights}")


command = with_options(finetune, [("", TrainSettings)], given_as="given")
