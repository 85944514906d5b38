"""One program of RELION's as a stage of a project: its words, its limits, its logs, its files.

`programs/STAGE.cmd` holds the command as a shell takes it, `.out` and `.err` what it said, `.json` what it took; the
last is written when it has ended.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryopick.errors import OutputError
from cryopick.evaluation.relion_programs.failures import ProgramFailedError, failure_of
from cryopick.evaluation.relion_programs.markers import FAILURE, remove_markers
from cryopick.evaluation.usage import Limits, Usage, run_kept
from cryopick.io.files.atomic import write_text_atomic
from cryopick.scale.processes import THREAD_VARIABLES

PROGRAMS = "programs"
HANG_SECONDS = 1800.0
"""Longest time in which nothing grows: the longest of RELION's steps without a word take minutes."""
STACKS_OF_SPACE = 3
_TAIL_BYTES = 20_000


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is run.

    Attributes
    ----------
    name : of its logs; may have folders
    words : the command, started in the project folder
    folder : in which it writes, from the project folder; made, and rid of markers
    expected : files that must be there afterwards, from the project folder
    ranks : of MPI
    time_limit_s, hang_s : see `Limits`; None is none
    """

    name: str
    words: Sequence[str]
    folder: str
    expected: Sequence[str] = ()
    ranks: int = 1
    time_limit_s: float | None = None
    hang_s: float | None = HANG_SECONDS
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRun:
    """A stage that did what it should."""

    name: str
    usage: Usage
    out: Path
    err: Path


def run_stage(stage: Stage, project: Path, *, said: str = "") -> StageRun:
    """Run a program to its end in the project folder.

    Parameters
    ----------
    said : RELION's version, for the record

    Raises
    ------
    ProgramFailedError
        If it fails in any way, in one sentence.
    OutputError
        If its folders cannot be made.
    """
    logs = project / PROGRAMS
    command, out, err, record = (logs / f"{stage.name}.{suffix}" for suffix in ("cmd", "out", "err", "json"))
    folder = project / stage.folder
    try:
        command.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        remove_markers(folder)
        record.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made or written ({error.strerror})") from error
    write_text_atomic(command, f"{shlex.join(stage.words)}\n")
    started = datetime.now(UTC)
    # one thread in each library: RELION's own threads and ranks fill the cores
    environment = dict.fromkeys(THREAD_VARIABLES, "1") | dict(stage.environment)
    limits = Limits(time_s=stage.time_limit_s, silence_s=stage.hang_s, watched=folder)
    usage = run_kept(stage.words, out=out, err=err, cwd=project, limits=limits, environment=environment)
    missing = [name for name in stage.expected if not _is_there(project / name)]
    failure = failure_of(
        stage.name,
        usage,
        out=_tail(out),
        err=_tail(err),
        missing=missing,
        ranks=stage.ranks,
        said_failure=(folder / FAILURE).exists(),
    )
    content = {
        "argv": list(stage.words),
        "exit_code": usage.exit_code,
        "ended_by": usage.ended_by,
        "wall_seconds": round(usage.wall_seconds, 3),
        "cpu_seconds": round(usage.cpu_seconds, 3),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "ranks": stage.ranks,
        "version": said,
        "host": platform.node(),
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "failure": "" if failure is None else str(failure),
    }
    write_text_atomic(record, json.dumps(content, indent=1) + "\n")
    if failure is not None:
        raise failure
    return StageRun(stage.name, usage, out, err)


def require_space(folder: Path, stack_bytes: int, *, scratch: str = "") -> None:
    """Before a refinement: the disk holds three times the particles, which extraction and iterations take together.

    Raises
    ------
    ProgramFailedError
        Of kind `disk`, with what is needed and what is free.
    """
    place = Path(scratch) if scratch else folder
    needed, free = STACKS_OF_SPACE * stack_bytes, shutil.disk_usage(place).free
    if free < needed:
        raise ProgramFailedError(
            f"{place}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB are needed, three times the particles; "
            "free some, or give another disk by --scratch",
            "disk",
        )


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _tail(path: Path) -> str:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace")
