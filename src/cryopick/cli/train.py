"""`cryopick train`: parse, run the workflow, show how the training goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import command_line
from cryopick.cli.options import with_options
from cryopick.cli.training_monitor import ConsoleMonitor
from cryopick.errors import SettingsError
from cryopick.pickers.configurations import require_configuration_name
from cryopick.settings import settings_of
from cryopick.training.folder import CONFIG
from cryopick.training.loop import TrainResult
from cryopick.training.trainable import TrainSettings
from cryopick.workflows.train import DataSettings, plan_training, resumed_plan, train_picker


def train(
    *,
    picker: Annotated[str | None, typer.Argument(help="The picker to train; may stand in the config file.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, card, logs and curves.")],
    data: Annotated[
        str | None, typer.Option(help="A labelled data set, or 'simulation'.", show_default="simulation")
    ] = None,
    micrographs: Annotated[
        list[str] | None, typer.Option(help="Images of the data set, where they lie elsewhere.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="A named set of settings: small, article, program, …", show_default="small")
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", metavar="article|program", help="Train a published system; the preset of this name."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, or a picker's name for the shipped ones.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML settings, for example trained/config.toml; options given here win.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the picker's own task.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    given: dict[str, Any] | None = None,
) -> None:
    """Train a picker on simulated or labelled micrographs.

    cryopick train general --data simulation -o trained/ --preset small

    cryopick train cryosegnet --as article --data cryoppp/ -o trained/

    A killed or stopped run goes on with: cryopick train -o trained/ --resume

    Where a preset sets something, its value replaces the default shown here.
    """
    if as_ is not None:
        if preset is not None:
            raise SettingsError("--as and --preset both name the settings to start from; give one of them")
        require_configuration_name(as_)
        preset = as_
    of_data = {setting.name for setting in settings_of(DataSettings)}
    given = given or {}
    changes: dict[str, Any] = {
        "data": data,
        "preset": preset,
        "start": start,
        "data_settings": {name: value for name, value in given.items() if name in of_data},
        "training": {name: value for name, value in given.items() if name not in of_data},
        "task": parse_assignments(set_ or []),
    }
    # with a picker named, --resume on a fresh folder starts: the same line serves first and later calls
    if resume and config is None and (picker is None or (output / CONFIG).exists()):
        plan = resumed_plan(output, None, picker=picker, **changes)
    else:
        plan = plan_training(picker, config=config, **changes)
    result = train_picker(
        plan,
        output,
        resume=resume,
        micrographs=micrographs or (),
        command=command_line(),
        monitor=ConsoleMonitor(),
    )
    print_result(result, output)


def parse_assignments(texts: list[str]) -> dict[str, str]:
    """`["crop_px=128"]` to a dict; anything without `=` is an error."""
    assignments = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise SettingsError(f"--set {text}: expected NAME=VALUE, for example --set batch_size=8")
        assignments[name.strip().replace("-", "_")] = value.strip()
    return assignments


def print_result(result: TrainResult, output: Path) -> None:
    """What a training run came to and where things are."""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in result.scores.items())
    typer.echo(f"{result.reason} after {result.steps} steps; kept the weights of step {result.best_step}: {scores}")
    if not result.is_finished:
        typer.echo(f"go on with: cryopick train -o {output} --resume")
    typer.echo(f"weights: {result.weights}")
    typer.echo(f"curves:  {output / 'loss.png'}")


command = with_options(train, [("", DataSettings), ("", TrainSettings)], given_as="given")
