"""The `cryopick` command: one file per sub-command in this folder, imported only when that command is called."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.cli.exit_codes import FAILED, FAULT, USAGE, Ending, ending_of, error_event, lines_text
from cryopick.cli.json_lines import JsonLines
from cryopick.cli.process import NobodyListens, Stopped, prepared_process
from cryopick.errors import CryopickError, MissingExtraError, OutputError
from cryopick.extras import extra_of, missing_extra
from cryopick.version import __version__

if TYPE_CHECKING:
    import typer

# Each name is a module of this folder that holds a typer function `command`, or makes one with `command_for` where its
# options depend on what is typed. The help lines stand here, so that `cryopick --help` imports none of them.
COMMANDS = {
    "pick": "Pick particles from micrographs.",
    "watch": "Follow a session: pick what arrives in a folder.",
    "view": "Look at picks in a browser, judge and mend them.",
    "relion": "Pick as an External job of RELION.",
    "cryosparc": "Save a run as an External job of cryoSPARC.",
    "rethreshold": "Move the score threshold of a finished run; instant.",
    "evaluate": "Score picks against labels.",
    "compare": "Compare the picks of several runs or programs.",
    "consensus": "Join the picks of several runs or programs into one.",
    "validate3d": "Judge picks by the map that they give.",
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
BEGIN = """\
Find protein particles in cryo-EM micrographs. To begin with:

  pick, with a report and files for RELION and cryoSPARC
    cryopick pick micrographs/ -o run1
  look, judge and mend in a browser
    cryopick view run1
  move the score threshold; instant
    cryopick rethreshold run1 --threshold 0.4
  precision and recall against labels
    cryopick evaluate run1 --truth labels/ --diameter 180A
  other formats
    cryopick convert run1 boxes/ --to box

No micrographs at hand: cryopick simulate -o sim/
All commands: cryopick -h      Options of one: cryopick pick -h
"""
"""What `cryopick` alone shows."""
COMPLETING = "_CRYOPICK_COMPLETE"
"""The variable by which a shell asks for completions."""
RELIONS_CALL = "cryopick relion --o External/job012/ --in_mics CtfFind/job003/micrographs_ctf.star"
RELIONS_WORDS = tuple(f"--in_{what}" for what in ("mics", "movies", "parts", "coords", "3dref", "mask"))
HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_RESUMING = {
    **dict.fromkeys(
        ("pick", "watch", "relion", "simulate", "denoise", "benchmark", "reproduce", "validate3d"),
        "what was finished is kept, and the same command resumes",
    ),
    "view": "every mark is saved, and the same command shows it again",
    **dict.fromkeys(("train", "finetune"), "the same command with --resume goes on from the last checkpoint"),
}


def build_app(called: str | None, arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with only the called command's module imported; `arguments` are the words typed."""
    import typer

    app = typer.Typer(
        name="cryopick",
        help="Find protein particles in cryo-EM micrographs.\n\nStart with: cryopick pick micrographs/ -o run1",
        epilog=f"\b\nExit codes:\n{lines_text()}",
        no_args_is_help=True,
        context_settings=HELP_FLAGS,
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
            function = command_of(name, arguments)
            words = {**HELP_FLAGS, **getattr(function, "context_settings", {})}  # such as: unknown options are taken
            app.command(name, no_args_is_help=False, context_settings=words)(function)
        else:
            app.command(name, help=help_line)(_not_called)
    return app


def command_of(name: str, arguments: Sequence[str] = ()) -> Callable[..., None]:
    """The typer function of a command, with the options that these words ask for."""
    from cryopick.cli.loudness import with_loudness

    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    command: Callable[..., None] = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    return with_loudness(command)


def _not_called() -> None:
    raise AssertionError("only the called command's module is imported")


def typed_words(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The words behind `cryopick`; where a shell asks how they might go on, those that it says were typed so far.

    typer's scripts for shells call the program without words, which stand in variables of the environment.
    """
    if COMPLETING not in environment:
        return list(arguments[1:])
    typed = environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS", "")
    return typed.split()[1:]


class _WrongWords(Exception):  # noqa: N818  # what typer calls a usage error, which it has shown on stderr
    """A command line that cannot be parsed."""


def main() -> None:
    """Entry point: whatever ends a command becomes one line on stderr and an exit code, without a traceback.

    The exit codes are the table of `cryopick.cli.exit_codes`. Where `--json` was typed, the line is also a JSON object,
    the last on stdout, whenever the exit code is not 0. Only a fault of cryopick's own has its traceback on stderr.
    """
    with prepared_process():
        called = next((word for word in typed_words(sys.argv, os.environ) if not word.startswith("-")), None)
        try:
            code = _called(called)
            if code:  # said on stderr by the command itself
                _tell(replace(FAILED, code=code), f"{called}: not all could be done; stderr says what")
        except NobodyListens as gone:
            code = gone.exit_code
        except _WrongWords as wrong:
            code = USAGE.code
            _tell(USAGE, str(wrong))
        except Stopped as stop:
            kept = _RESUMING.get(called or "", "files that were finished are whole")
            code = _fail(ending_of(stop), f"{stop}; {kept}")
        except (CryopickError, MemoryError, OSError) as error:
            code = _fail(ending_of(error), _sentence(error))
        except Exception as fault:
            extra = extra_of(fault.name or "") if isinstance(fault, ModuleNotFoundError) else None
            if extra is not None:  # what was not looked for beforehand
                missing = MissingExtraError(missing_extra(extra, called or "cryopick"))
                code = _fail(ending_of(missing), str(missing))
            else:
                traceback.print_exc()
                code = _fail(FAULT, f"a fault of cryopick's own: {type(fault).__name__}: {fault}")
        sys.exit(code)


def _called(called: str | None) -> int:
    """The exit code of a command; what it does not make of an error itself is raised."""
    from typer import Abort, BadParameter

    from cryopick.cli.options import as_meant

    # typer brings its own copy of click, or uses one that is installed; the base of its errors is not exported
    usage_error: type[Any] = next(one for one in BadParameter.__mro__ if one.__name__ == "ClickException")
    code: Any = 0
    try:
        sys.argv[1:] = as_meant(sys.argv[1:])
        words = typed_words(sys.argv, os.environ)
        if not words and COMPLETING not in os.environ:
            sys.stdout.write(BEGIN)
            sys.stdout.flush()
            return 0
        code = build_app(called, words)(standalone_mode=False, prog_name="cryopick")
    except SystemExit as end:
        code = end.code
    except usage_error as error:
        error.show()
        if called != "relion" and any(word.split("=")[0] in RELIONS_WORDS for word in sys.argv[1:]):
            sys.stderr.write(f"These are words of RELION, whose External jobs call: {RELIONS_CALL}\n")
        raise _WrongWords(" ".join(str(error.format_message()).split())) from None
    except Abort:  # what older versions of typer make of a KeyboardInterrupt
        raise Stopped(signal.SIGINT) from None
    if code == 128 + signal.SIGINT:  # what typer makes of a KeyboardInterrupt, without a word
        raise Stopped(signal.SIGINT)
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _sentence(error: CryopickError | MemoryError | OSError) -> str:
    if isinstance(error, CryopickError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"the memory of this machine does not suffice ({error or 'no more can be had'})"
    return f"{error.filename or 'a file'}: {error.strerror or error}"  # no reader of ours was in charge of it


def _fail(ending: Ending, text: str) -> int:
    sys.stderr.write(f"cryopick: {text}\n")
    sys.stderr.flush()
    _tell(ending, text)
    return ending.code


def _tell(ending: Ending, message: str) -> None:
    """The JSON event of an error, where `--json` was typed and somebody reads it."""
    words = itertools.takewhile(lambda word: word != "--", sys.argv[1:])
    if "--json" not in words:
        return
    with suppress(NobodyListens, OutputError):  # the exit code says what it was to say
        lines = JsonLines(patience_s=1.0, warns=False)
        lines(error_event(ending, message), is_kept=True)
        lines.close()


if __name__ == "__main__":
    main()
