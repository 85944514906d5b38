"""The `cryopick` command: one file per sub-command in this folder, imported only when that command is called."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from cryopick.cli.process import NobodyListens, Stopped, prepared_process
from cryopick.version import __version__

if TYPE_CHECKING:
    import typer

# Each name is a module of this folder that holds a typer function `command`, or makes one with `command_for` where its
# options depend on what is typed. The help lines stand here, so that `cryopick --help` imports none of them.
COMMANDS = {
    "pick": "Pick particles from micrographs.",
    "rethreshold": "Move the score threshold of a finished run; instant.",
    "evaluate": "Score picks against labels.",
    "compare": "Compare the picks of several runs or programs.",
    "convert": "Convert coordinates between formats.",
    "inspect": "Say what is in a file, folder or data set.",
    "pickers": "List the pickers, or show one picker's settings.",
    "doctor": "Check this installation.",
    "simulate": "Simulate micrographs with full truth.",
    "label": "Make training labels from simulations or coordinates.",
    "denoise": "Write denoised micrographs.",
    "train": "Train a picker.",
    "import-weights": "Take over weights that the authors of a system published.",
    "finetune": "Adapt a trained picker to your own micrographs.",
    "benchmark": "Compare pickers on labelled sets.",
    "reproduce": "Make the tables and figures of a published system's paper.",
}
_RESUMING = {
    **dict.fromkeys(
        ("pick", "simulate", "denoise", "benchmark", "reproduce"),
        "what was finished is kept, and the same command resumes",
    ),
    **dict.fromkeys(("train", "finetune"), "the same command with --resume goes on from the last checkpoint"),
}


def build_app(called: str | None, arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with only the called command's module imported; `arguments` are the words typed."""
    import typer

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
            app.command(name, no_args_is_help=False)(command_of(name, arguments))
        else:
            app.command(name, help=help_line)(_not_called)
    return app


def command_of(name: str, arguments: Sequence[str] = ()) -> Callable[..., None]:
    """The typer function of a command, with the options that these words ask for."""
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    command: Callable[..., None] = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    return command


def _not_called() -> None:
    raise AssertionError("only the called command's module is imported")


def main() -> None:
    """Entry point: known errors and signals become one line on stderr and an exit code, without a traceback.

    Exit codes: 0 well, 1 an error, 2 a wrong option, 128 + number for a signal: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP,
    and 141 where whoever read stdout went away.
    """
    with prepared_process():
        called = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
        try:
            code = _called(called)
        except Stopped as stop:
            kept = _RESUMING.get(called or "", "files that were finished are whole")
            code = _fail(f"{stop}; {kept}", code=stop.exit_code)
        sys.exit(code)


def _called(called: str | None) -> int | str | None:
    """The exit code of a command."""
    from cryopick.cli.options import as_meant
    from cryopick.errors import CryopickError

    code: int | str | None = 0
    try:
        try:
            sys.argv[1:] = as_meant(sys.argv[1:])
            build_app(called, sys.argv[1:])()
        except SystemExit as end:  # the way every command ends
            code = end.code
        if code == 128 + signal.SIGINT:  # what typer makes of a KeyboardInterrupt, without a word
            raise Stopped(signal.SIGINT)
        sys.stdout.flush()
    except NobodyListens as gone:
        return gone.exit_code
    except CryopickError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"the memory of this machine does not suffice ({error or 'no more can be had'})")
    except OSError as error:  # of a file or folder that no reader of ours was in charge of
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    return code


def _fail(text: str, *, code: int = 1) -> int:
    sys.stderr.write(f"cryopick: {text}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
