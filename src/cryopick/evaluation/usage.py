"""Run another program to its end: measured, within limits, and never left behind.

The program is started by a small process of its own, its keeper (this module run with `python -m`), for two reasons.
Linux counts the memory of whoever starts a program into that program's peak, so a large starter would be measured
instead; and a starter that is killed can end nothing any more. The keeper leads a session of its own, looks whether
its starter still lives, and when all is over ends whatever of that session is left, such as ranks of MPI.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import WorkerError
from cryopick.scale.processes import end_process, start_python

STOPPING_SECONDS = 20.0
"""For a measured program to end by itself when it is stopped."""
TIME_LIMIT, SILENCE = "time limit", "silence"
"""Why a keeper ended a program."""
NOT_STARTED = 127
"""The exit status of a program that cannot be started, as shells have it."""
_LOOK_SECONDS = 0.1
_GROWTH_LOOK_SECONDS = 5.0
"""Between two looks at the sizes of files, which cost more."""


@dataclass(frozen=True)
class Usage:
    """What a program took.

    Parameters
    ----------
    exit_code : minus the signal where one ended it
    cpu_seconds : summed over its cores and children; NaN where the system does not tell
    peak_memory_bytes : of its largest process; None where the system does not tell
    output : stdout and stderr together, where they were not sent to files
    ended_by : `TIME_LIMIT` or `SILENCE` where a limit ended it, and empty otherwise
    """

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    output: str = ""
    ended_by: str = ""

    @property
    def last_line(self) -> str:
        """Of the output, for a message."""
        return last_line(self.output) or "no output"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a program is ended.

    Parameters
    ----------
    time_s : its longest time
    silence_s : its longest time in which neither its output nor any file below `watched` grows or changes
    """

    time_s: float | None = None
    silence_s: float | None = None
    watched: Path | None = None


def last_line(output: str) -> str:
    """The last line of what a program said that is not blank; "" where it said nothing."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def run_measured(command: Sequence[str], *, cwd: Path | None = None) -> Usage:
    """Run `command` in folder `cwd`, keep its output, and measure it."""
    with tempfile.TemporaryDirectory(prefix="cryopick-measure-") as folder:
        output = Path(folder) / "output.txt"
        usage = run_kept(command, out=output, err=output, cwd=cwd)
        text = output.read_text(encoding="utf-8", errors="replace")
        return Usage(usage.exit_code, usage.wall_seconds, usage.cpu_seconds, usage.peak_memory_bytes, text)


def run_kept(
    command: Sequence[str],
    *,
    out: Path,
    err: Path,
    cwd: Path | None = None,
    limits: Limits | None = None,
    environment: Mapping[str, str] | None = None,
) -> Usage:
    """Run `command` in folder `cwd` with its output in files, within limits; whoever stops this stops the program.

    Parameters
    ----------
    out, err : files that are written anew; both may be the same
    environment : variables that win over those of this process

    Raises
    ------
    WorkerError
        If the process that keeps it is ended from outside.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="cryopick-keep-") as folder:
        request, result = Path(folder) / "request.json", Path(folder) / "usage.json"
        request.write_text(
            json.dumps(
                {
                    "command": list(command),
                    "out": os.path.abspath(out),
                    "err": os.path.abspath(err),
                    "starter": os.getpid(),
                    "time_s": limits.time_s,
                    "silence_s": limits.silence_s,
                    "watched": None if limits.watched is None else os.path.abspath(limits.watched),
                }
            ),
            encoding="utf-8",
        )
        keeper = start_python(
            *(__spec__.name, str(request), str(result)),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            environment=environment,
            start_new_session=True,
        )
        try:
            status = keeper.wait()
        finally:  # whoever stops this process stops the program too, and waits until it has put its things in order
            end_process(keeper, grace_seconds=STOPPING_SECONDS)
            _end_session(keeper.pid)
        if status != 0:
            raise WorkerError(f"{command[0]}: the process that measures it ended with status {status}")
        return Usage(**json.loads(result.read_text(encoding="utf-8")))


# --------------------------------------------------------------------------------------------------------- the keeper


def _keep(request: Mapping[str, Any], result: Path) -> None:
    start = time.perf_counter()
    ended_by = ""
    with ExitStack() as stack:
        out = stack.enter_context(open(request["out"], "wb"))
        err = out if request["err"] == request["out"] else stack.enter_context(open(request["err"], "wb"))
        try:
            exit_code, ended_by = _call(request, out, err)
        except OSError as error:
            err.write(f"{request['command'][0]}: {error.strerror}\n".encode())
            exit_code = NOT_STARTED
    wall_seconds = time.perf_counter() - start
    cpu_seconds, peak = float("nan"), None
    if sys.platform != "win32":
        import resource

        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    content: dict[str, Any] = {"exit_code": exit_code, "wall_seconds": wall_seconds, "cpu_seconds": cpu_seconds}
    content |= {"peak_memory_bytes": peak, "ended_by": ended_by}
    unfinished = result.with_suffix(".partial")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.replace(result)


def _call(request: Mapping[str, Any], out: Any, err: Any) -> tuple[int, str]:
    """Run the command to its end, or to a limit; SIGTERM, or the end of the starter, ends it and this process."""
    process = subprocess.Popen(request["command"], stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0)

    def stop(number: int, _frame: object) -> None:
        _end_group(process, grace_seconds=STOPPING_SECONDS / 2)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    is_due = _limit(request)
    while (status := _wait(process)) is None:
        if os.getppid() != request["starter"]:  # killed: nobody waits, and the same command may soon begin anew
            _end_group(process, grace_seconds=0.0)
            os._exit(1)
        if why := is_due():
            _end_group(process, grace_seconds=STOPPING_SECONDS / 2)
            return process.returncode, why
    _end_session(os.getsid(0))
    return status, ""


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _limit(request: Mapping[str, Any]) -> Callable[[], str]:
    """A function that says why the program must end now, or nothing."""
    begun = time.monotonic()
    time_s, silence_s = request["time_s"], request["silence_s"]
    files = [Path(request["out"]), Path(request["err"])]
    watched = None if request["watched"] is None else Path(request["watched"])
    seen: list[Any] = [None]
    grown, next_look = begun, begun

    def is_due() -> str:
        nonlocal grown, next_look
        now = time.monotonic()
        if time_s is not None and now - begun > time_s:
            return TIME_LIMIT
        if silence_s is None or now < next_look:
            return ""
        next_look = now + min(_GROWTH_LOOK_SECONDS, silence_s / 4)
        state = sorted(_sizes(files, watched))
        if state != seen[0]:
            seen[0], grown = state, now
        return SILENCE if now - grown > silence_s else ""

    return is_due


def _sizes(files: Sequence[Path], watched: Path | None) -> Iterator[tuple[str, int, int]]:
    below = watched.rglob("*") if watched is not None else ()
    for path in (*files, *below):
        with suppress(OSError):
            found = path.stat()
            yield str(path), found.st_size, found.st_mtime_ns


def _end_group(process: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
    """Ask the program and its children, wait, then kill; mpirun passes a first question on to its ranks."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGTERM if grace_seconds > 0 else signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    _end_session(os.getsid(0))
    with suppress(subprocess.TimeoutExpired):
        process.wait(5.0)


def _end_session(session: int) -> None:
    """Kill what is left of a session but ourselves: ranks of MPI are groups of their own. Linux only."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and int(folder.name) != os.getpid() and fields[0] != "Z":
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue


if __name__ == "__main__":
    _keep(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
