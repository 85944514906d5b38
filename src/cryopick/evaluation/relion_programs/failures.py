"""What went wrong with a program of RELION's, in one sentence with what to do.

RELION says little by its exit status: it may end with 0 and without its files, and kills leave no word at all. So the
status, the limits, the files that are missing and both outputs are looked at together.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cryopick.errors import CryopickError
from cryopick.evaluation.usage import NOT_STARTED, SILENCE, TIME_LIMIT, Usage, last_line

Kind = Literal[
    "program",  # it failed, and says why or not
    "memory",  # killed, as the system does when memory is short
    "stopped",  # somebody asked it to end
    "time",  # its limit
    "hung",  # nothing grew
    "environment",  # MPI, permissions, cores
    "tables",  # a table that we wrote, or that was given
    "reference",  # of another pixel or box
    "path",  # a file is not where it was said
    "disk",
    "picks",  # there is nothing to work with
]
"""What kind of failure: `picks` is a result of bad picks, all others are faults of the way."""


class ProgramFailedError(CryopickError):
    """A program of another package failed; the message says how, and where its words are.

    Attributes
    ----------
    kind : see `Kind`
    """

    def __init__(self, message: str, kind: Kind = "program") -> None:
        super().__init__(message)
        self.kind: Kind = kind


@dataclass(frozen=True)
class _Row:
    """Words of an output, what kind of failure they mean, and what to do."""

    pattern: str
    kind: Kind
    told: str


_KNOWN = (
    _Row(
        r"contains more columns than the number of labels|table\.? .*more than one .*label|label .* twice",
        "tables",
        "a table has a column twice; drop rlnAngle*, rlnOrigin*, rlnClassNumber and rlnRandomSubset from picks before "
        "they are added",
    ),
    _Row(
        r"reference pixel size is .* but|reference box size is .* but|box size of the reference",
        "reference",
        "the reference must have the particles' pixel size and box; resample it (relion_image_handler --new_box, then "
        "--rescale_angpix)",
    ),
    _Row(
        r"prohibited|as root|--allow-run-as-root",
        "environment",
        "Open MPI refuses to run as root; add --allow-run-as-root, or run as another user",
    ),
    _Row(
        r"not enough slots|There are not enough slots",
        "environment",
        "MPI has fewer slots than ranks; add --oversubscribe, or ask for fewer ranks (--mpi 3)",
    ),
    _Row(
        r"error while loading shared libraries",
        "environment",
        "a library of RELION's is missing; load the modules it was built with",
    ),
    _Row(r"No space left on device|disk quota|Disk quota", "disk", "the disk is full; free some, or use --scratch"),
    _Row(
        r"bad_alloc|Cannot allocate memory|out of memory|oom-kill",
        "memory",
        "memory ran out; ask for fewer ranks, smaller boxes, or do not preread images",
    ),
    _Row(
        r"no images|[^1-9]0 particles|no particles|There are no (?:particles|micrographs)|empty (?:STAR|star) file",
        "picks",
        "there are no particles to work with",
    ),
    _Row(
        r"(?:cannot|Cannot|could not|can not) (?:find|open|read)|does not exist|not exist|No such file",
        "path",
        "a file is not where the table says; RELION counts paths from the project folder, and coordinates as "
        "coord_dir + the micrograph's path with its folders, without job012/",
    ),
)
_PASSED_ON = re.compile(r"exited on signal (\d+)")


def failure_of(  # noqa: PLR0911  # one return for each way to fail, the surest sign first
    stage: str, usage: Usage, *, out: str, err: str, missing: Sequence[str], ranks: int = 1, said_failure: bool = False
) -> ProgramFailedError | None:
    """What a run of a program came to; None where it did what it should.

    Parameters
    ----------
    stage : for the message and the names of logs
    out, err : the ends of its outputs
    missing : files it should have written and did not
    said_failure : it left RELION_JOB_EXIT_FAILURE
    """
    is_ended = bool(usage.ended_by) or usage.exit_code != 0 or said_failure
    if not is_ended and not missing:
        return None
    see = f"see programs/{stage}.err"
    if usage.ended_by == TIME_LIMIT:
        return ProgramFailedError(f"{stage}: ended after its time limit, {usage.wall_seconds:.0f} s; {see}", "time")
    if usage.ended_by == SILENCE:
        return ProgramFailedError(
            f"{stage}: hung: neither its output nor its files grew for long, and it was ended after "
            f"{usage.wall_seconds:.0f} s; {see}",
            "hung",
        )
    if usage.exit_code == NOT_STARTED and "mpirun" in (out + err):
        return ProgramFailedError(
            f"{stage}: mpirun or the program cannot be started ({_last(err, out)})", "environment"
        )
    words = err + "\n" + out
    if (number := _signal_of(usage.exit_code, words)) is not None:
        return _of_signal(stage, number, usage, ranks, see)
    for text in (_last(err, out), words):  # its own sentence before warnings that stand around it
        for row in _KNOWN:
            if (match := re.search(row.pattern, text)) is not None:
                said = _line_around(text, match.start())
                return ProgramFailedError(f"{stage}: {row.told} ({said}; {see})", row.kind)
    if is_ended:
        status = f"exit status {usage.exit_code}" if usage.exit_code else "its failure marker"
        return ProgramFailedError(f"{stage}: failed with {status}: {_last(err, out)}; {see}")
    return ProgramFailedError(f"{stage}: ended well and wrote no {', '.join(missing)}: {see}")


def _signal_of(exit_code: int, words: str) -> int | None:
    """The signal that ended the program, or one of its ranks, which ends all."""
    if exit_code < 0:
        return -exit_code
    if (match := _PASSED_ON.search(words)) is not None:
        return int(match[1])
    return exit_code - 128 if exit_code in (128 + signal.SIGTERM, 128 + signal.SIGKILL) else None


def _of_signal(stage: str, number: int, usage: Usage, ranks: int, see: str) -> ProgramFailedError:
    if number == signal.SIGKILL:
        peak = usage.peak_memory_bytes
        took = "" if peak is None else f" (it took {peak / 1e6:,.0f} MB x {ranks} rank{'s' if ranks > 1 else ''})"
        return ProgramFailedError(
            f"{stage}: killed by signal 9; did memory run out{took}? Ask for fewer ranks or smaller boxes; {see}",
            "memory",
        )
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return ProgramFailedError(f"{stage}: stopped by {name}; the same command goes on from here", "stopped")
    return ProgramFailedError(f"{stage}: crashed with {name}; {see}")


def _last(err: str, out: str) -> str:
    """The sentence of the program: RELION's own after ERROR, else the last line of what was said."""
    for text in (err, out):
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        for place, line in enumerate(lines):
            if line.startswith("ERROR"):
                rest = line.removeprefix("ERROR").strip(": ")
                return (rest or (lines[place + 1] if place + 1 < len(lines) else line))[:200]
    return (last_line(f"{err}\n{out}") or "it said nothing")[:200]


def _line_around(words: str, place: int) -> str:
    start = max(words.rfind("\n", 0, place), words.rfind("\r", 0, place)) + 1
    return words[start:].splitlines()[0].strip()[:200]
