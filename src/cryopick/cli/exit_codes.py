"""How a command ends: one table of exit codes by kind, for the program, its JSON events, `--help` and the docs."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from cryopick.cli.process import NobodyListens, Stopped
from cryopick.errors import (
    CryopickError,
    InputError,
    MissingExtraError,
    NotAllDoneError,
    NothingArrivedError,
    OutputError,
    RunFolderError,
    ServerError,
    SettingsError,
    WeightsError,
    WorkerError,
)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One way in which a command ends."""

    code: int
    kind: str
    """The word for it in JSON events."""
    meaning: str
    errors: tuple[type[BaseException], ...] = ()
    """What ends a command in this way; the first ending that names a class of an error is its own."""


FAILED = Ending(
    code=1,
    kind="failed",
    meaning="the command came to its end, but not all that it was asked for could be done (with `--fail-on any` a "
    "micrograph, otherwise all of them; a check of `doctor`), or an error of no other kind",
    errors=(NotAllDoneError,),
)
USAGE = Ending(
    code=2, kind="usage", meaning="a word on the command line that the command does not know, or one missing"
)
FAULT = Ending(
    code=70, kind="fault", meaning="a fault of cryopick's own; its traceback stands on stderr: please report it"
)
OUTPUT = Ending(
    code=6,
    kind="output",
    meaning="results cannot be written: a full disk, no permission, a run folder that another process writes to, or "
    "that holds another run",
    errors=(OutputError, RunFolderError),
)
INPUT = Ending(
    code=5,
    kind="input",
    meaning="a file or folder that was given cannot be used: it is missing, empty, damaged or of another kind",
    errors=(InputError,),
)
STOPPED = "stopped"
"""The kind of every signal; its code is 128 and the signal's number."""

ENDINGS = (
    Ending(code=0, kind="done", meaning="all well, also where not one particle was found"),
    FAILED,
    USAGE,
    Ending(
        code=3,
        kind="nothing",
        meaning="nothing came: no whole micrograph arrived while a folder was followed",
        errors=(NothingArrivedError,),
    ),
    Ending(
        code=4, kind="settings", meaning="a setting of impossible value, or an unknown one", errors=(SettingsError,)
    ),
    INPUT,
    OUTPUT,
    Ending(
        code=7,
        kind="installation",
        meaning="weights or an optional package are missing or damaged",
        errors=(WeightsError, MissingExtraError),
    ),
    Ending(
        code=8,
        kind="machine",
        meaning="no worker process can be started, this machine cannot compute as the run was begun, or the memory "
        "does not suffice; the same call may work elsewhere",
        errors=(WorkerError, MemoryError),
    ),
    Ending(
        code=9,
        kind="server",
        meaning="the server of another program does not answer, or refuses what it is asked",
        errors=(ServerError,),
    ),
    FAULT,
    Ending(code=129, kind=STOPPED, meaning="its terminal was closed (SIGHUP)"),
    Ending(code=130, kind=STOPPED, meaning="Ctrl-C (SIGINT)"),
    Ending(
        code=NobodyListens.exit_code,
        kind="unheard",
        meaning="whoever read stdout went away; a run was finished all the same",
        errors=(NobodyListens,),
    ),
    Ending(code=128 + signal.SIGTERM, kind=STOPPED, meaning="told to end (SIGTERM)"),
)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def ending_of(error: BaseException) -> Ending:
    """The ending that an error, or a signal, is."""
    if isinstance(error, Stopped):
        return next(one for one in ENDINGS if one.code == error.exit_code)
    if isinstance(error, OSError) and not isinstance(error, CryopickError):
        return OUTPUT if error.errno in _DISK_ERRORS else INPUT
    found = next((one for one in ENDINGS if isinstance(error, one.errors)), None)
    if found is None:
        return FAILED if isinstance(error, CryopickError) else FAULT
    return found


def error_event(ending: Ending, message: str) -> dict[str, Any]:
    """What `--json` prints last where the exit code is not 0."""
    return {"event": "error", "kind": ending.kind, "message": message, "exit_code": ending.code}


def table_text() -> str:
    """The table in Markdown, as the documentation shows it."""
    rows = [f"| {one.code} | {one.kind} | {one.meaning} |" for one in ENDINGS]
    return "\n".join(["| exit code | `kind` | meaning |", "|---|---|---|", *rows]) + "\n"


def lines_text() -> str:
    """A paragraph for each exit code, as `cryopick --help` shows it."""
    indent = " " * 6
    paragraphs = (f"{one.code:>4}  {one.kind}: {one.meaning.replace('`', '')}" for one in ENDINGS)
    return "\n".join(fill(text, width=78, subsequent_indent=indent) for text in paragraphs)
