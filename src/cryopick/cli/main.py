"""The `cryopick` command: one file per sub-command in this folder, imported only when that command is called."""

from __future__ import annotations

import io
import sys
from importlib import import_module

import typer

from cryopick import __version__
from cryopick.cli.options import as_meant
from cryopick.errors import CryopickError

# Each name is a module of this folder that holds a typer function `command`. The help lines stand here, so that
# `cryopick --help` imports none of them.
COMMANDS = {
    "pick": "Pick particles from micrographs.",
    "rethreshold": "Move the score threshold of a finished run; instant.",
    "evaluate": "Score picks against labels.",
    "convert": "Convert coordinates between formats.",
    "inspect": "Say what is in a file, folder or data set.",
    "pickers": "List the pickers, or show one picker's settings.",
    "doctor": "Check this installation.",
    "simulate": "Simulate micrographs with full truth.",
    "label": "Make training labels from simulations or coordinates.",
    "train": "Train a picker.",
    "finetune": "Adapt a trained picker to your own micrographs.",
    "benchmark": "Compare pickers on labelled sets.",
}


def build_app(called: str | None) -> typer.Typer:
    """The application with only the called command's module imported."""
    app = typer.Typer(
        name="cryopick",
        help="Find protein particles in cryo-EM micrographs.\n\nStart with: cryopick pick micrographs/ -o run1",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback(invoke_without_command=True)
    def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        if version:
            typer.echo(f"cryopick {__version__}")
            raise typer.Exit

    for name, help_line in COMMANDS.items():
        if name == called:
            module = import_module(f"cryopick.cli.{name}")
            context_settings = getattr(module, "CONTEXT_SETTINGS", None)
            app.command(name, context_settings=context_settings, no_args_is_help=False)(module.command)
        else:
            app.command(name, help=help_line)(_not_called)
    return app


def _not_called() -> None:
    raise AssertionError("only the called command's module is imported")


def main() -> None:
    """Entry point: known errors become one line on stderr and exit code 1, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be in no encoding at all
    called = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        sys.argv[1:] = as_meant(sys.argv[1:])
        build_app(called)()
    except CryopickError as error:
        typer.echo(f"cryopick: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("cryopick: interrupted; what was finished is kept, and the same command resumes", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
