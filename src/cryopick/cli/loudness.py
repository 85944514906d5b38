"""How much a command says on stderr: with -q errors and warnings alone, with -v what the library logs as well."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import typer

_is_quiet: ContextVar[bool] = ContextVar("is_quiet", default=False)
_HANDLER = "cryopick -v"
QUIET_HELP = "No progress on stderr: errors and warnings alone. What goes to stdout stays."
VERBOSE_HELP = "Also what the library logs, with times, on stderr."


def is_quiet() -> bool:
    return _is_quiet.get()


def say_progress(text: str) -> None:
    """A line on stderr about what is going on, unless -q was given."""
    if not is_quiet():
        typer.echo(text, err=True)


def be(*, quiet: bool, verbose: bool) -> None:
    """As loud as the command line says; a second call in one process takes the first one back."""
    _is_quiet.set(quiet)
    log = logging.getLogger("cryopick")
    for handler in [one for one in log.handlers if one.name == _HANDLER]:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        handler.name = _HANDLER
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)


def with_loudness(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the options -q and -v. A command that has an option --quiet of its own keeps it."""
    signature = inspect.signature(function, eval_str=True)
    long = [] if "quiet" in signature.parameters else ["--quiet"]
    quiet: Any = Annotated[bool, typer.Option(*long, "-q", help=QUIET_HELP)]
    verbose: Any = Annotated[bool, typer.Option("--verbose", "-v", help=VERBOSE_HELP)]

    def command(**values: Any) -> None:
        be(quiet=values.pop("is_quiet"), verbose=values.pop("is_verbose"))
        function(**values)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("is_quiet", quiet), ("is_verbose", verbose))
    ]
    command.__dict__.update(function.__dict__)
    command.__doc__ = function.__doc__
    full = inspect.Signature([*signature.parameters.values(), *added])
    command.__signature__ = full  # type: ignore[attr-defined]  # typer reads the options from it
    command.__annotations__ = {one.name: one.annotation for one in full.parameters.values()}
    return command
