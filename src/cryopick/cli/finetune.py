"""`cryopick finetune`: adapt a picker to one's own micrographs."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import command_line
from cryopick.cli.options import with_options
from cryopick.cli.train import parse_assignments
from cryopick.cli.training_monitor import ConsoleMonitor
from cryopick.errors import SettingsError
from cryopick.geometry.units import parse_length
from cryopick.training.trainable import TrainSettings
from cryopick.workflows.finetune import finetune as run_finetune


def finetune(
    *,
    picker: Annotated[str, typer.Argument(help="The picker to adapt.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, card, logs and curves.")],
    picks: Annotated[
        Path | None,
        typer.Option(
            help="Coordinates of particles (any format), a labelled data set, or a run folder, whose micrographs, "
            "diameter, pixel size and contrast are then used, and its weights if it is of this picker."
        ),
    ] = None,
    micrographs: Annotated[list[str] | None, typer.Option(help="The images that the picks are from.")] = None,
    self_train: Annotated[
        bool, typer.Option("--self-train", help="No picks needed: the picker's own confident ones teach it.")
    ] = False,
    confidence: Annotated[
        float, typer.Option(help="With --self-train: expected precision of the picks that teach.")
    ] = 0.95,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Least score of the picks that teach; the others count neither way. With --self-train only needed "
            "where scores are no probabilities."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: name, file or training folder.", show_default="the run's, or shipped"
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="article|program", help="Train the published network on as published.", show_default="card"
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="sparse when not every particle is picked, complete when every one is.")
    ] = "sparse",
    diameter: Annotated[str | None, typer.Option("--diameter", "-d", help="Particle diameter (180A, 108px).")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å per pixel, above what files say.")] = None,
    contrast: Annotated[
        str | None, typer.Option(help="dark or bright: how particles look in the files.", show_default="dark")
    ] = None,
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

    cryopick finetune cryosegnet --picks run/ -o tuned/

    cryopick finetune general --picks run/ --min-score 0.9 -o tuned/

    cryopick finetune general --self-train --micrographs mics/ -o tuned/

    Fine-tuning is short; its values replace the defaults shown here.
    """
    if self_train:
        if picks is not None or not micrographs:
            raise SettingsError("--self-train takes --micrographs and no --picks: the picker's own picks teach it")
        if contrast is not None:
            raise SettingsError("--self-train does not look at --contrast; invert the micrographs first")
        _self_train(
            picker,
            micrographs,
            output,
            weights=weights,
            diameter=None if diameter is None else parse_length(diameter),
            pixel_size_angstrom=pixel_size,
            confidence=confidence,
            min_score=min_score,
            as_=as_,
            task=parse_assignments(set_ or []),
            training=given or {},
            resume=resume,
        )
        return
    if picks is None:
        raise SettingsError("no picks to learn from: give --picks, or --self-train to learn without any")
    result = run_finetune(
        picker,
        picks,
        output,
        micrographs=micrographs or (),
        weights=weights,
        diameter=None if diameter is None else parse_length(diameter),
        pixel_size_angstrom=pixel_size,
        contrast=contrast,
        labels=labels,
        min_score=min_score,
        flip_y=flip_y,
        as_=as_,
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
        if name == "old" and name not in result.after:
            continue
        after = result.after.get(name, float("nan"))
        typer.echo(f"{title:<12}{result.before[name]:>8.4f}{after:>8.4f}")
    if not result.is_better and result.training.is_finished:
        typer.echo("kept the old weights: no step was better on the labels that validate; nothing has to be changed")
        typer.echo(f"curves:  {output / 'loss.png'}")
        return
    typer.echo(f"kept the weights of step {result.training.best_step} of {result.training.steps}")
    if not result.training.is_finished:
        typer.echo(f"{result.training.reason}; the same command with --resume goes on")
    typer.echo(f"weights: {result.training.weights}")
    typer.echo(f"curves:  {output / 'loss.png'}")
    if result.is_better:
        typer.echo(f"use them: cryopick pick MICROGRAPHS -o RUN --picker {picker} --weights {result.training.weights}")


def _self_train(picker: str, micrographs: list[str], output: Path, **settings: Any) -> None:
    from cryopick.workflows.self_train import AFTER, self_train

    result = self_train(picker, micrographs, output, monitor=ConsoleMonitor(), **settings)
    typer.echo(f"{result.teachers:,} confident picks taught")
    if isfinite(result.before):
        typer.echo(f"expected F1 of the run: {result.before:.3f} before, {result.after:.3f} after")
    tuned = result.finetuning
    for name, title in (("new", "held-out picks"), ("old", "old data")):
        if isfinite(tuned.before[name]):
            typer.echo(f"{title}: {tuned.before[name]:.4f} before, {tuned.after.get(name, float('nan')):.4f} after")
    kept = "the new weights are kept" if result.is_better else "no improvement: the old weights are kept"
    typer.echo(f"{kept}: {result.weights}")
    if result.is_better:
        typer.echo(f"picks with them: {output / AFTER / 'report.html'}")


command = with_options(finetune, [("", TrainSettings)], given_as="given")
