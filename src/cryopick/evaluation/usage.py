"""Run a program to its end and measure its time and memory.

The program is started by a small process of its own (this module run with `python -m`): Linux counts the memory of
whoever starts a program into that program's peak, so a large starter would be measured instead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryopick.errors import WorkerError
from cryopick.scale.processes import end_process, start_python

STOPPING_SECONDS = 20.0
"""For a measured program to end by itself when it is stopped."""


@dataclass(frozen=True)
class Usage:
    """What a program took.

    Parameters
    ----------
    cpu_seconds : summed over its cores and children; NaN where the system does not tell
    peak_memory_bytes : of its largest process; None where the system does not tell
    output : stdout and stderr together
    """

    exit_code: int
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    output: str = ""

    @property
    def last_line(self) -> str:
        """Of the output, for a message."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else "no output"


def run_measured(command: Sequence[str], *, cwd: Path | None = None) -> Usage:
    """Run `command` in folder `cwd`, keep its output, and measure it."""
    with tempfile.TemporaryDirectory(prefix="cryopick-measure-") as folder:
        result, output = Path(folder) / "usage.json", Path(folder) / "output.txt"
        process = start_python(*(__spec__.name, str(result), str(output), *command), cwd=cwd, stdin=subprocess.DEVNULL)
        try:
            status = process.wait()
        finally:  # whoever stops this process stops the program too, and waits until it has put its things in order
            end_process(process, grace_seconds=STOPPING_SECONDS)
        if status != 0:
            raise WorkerError(f"{command[0]}: the process that measures it ended with status {status}")
        content = json.loads(result.read_text(encoding="utf-8"))
        return Usage(**content, output=output.read_text(encoding="utf-8", errors="replace"))


def _measure(result: Path, output: Path, command: list[str]) -> None:
    start = time.perf_counter()
    with output.open("wb") as stream:
        try:
            exit_code = _call_passing_signals_on(command, stream)
        except OSError as error:
            stream.write(f"{command[0]}: {error.strerror}\n".encode())
            exit_code = 127  # as a shell reports a program that cannot be started
    wall_seconds = time.perf_counter() - start
    cpu_seconds, peak = float("nan"), None
    if sys.platform != "win32":
        import resource

        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    content = {"exit_code": exit_code, "wall_seconds": wall_seconds, "cpu_seconds": cpu_seconds}
    result.write_text(json.dumps(content | {"peak_memory_bytes": peak}), encoding="utf-8")


def _call_passing_signals_on(command: list[str], stream: IO[bytes]) -> int:
    """Run the command to its end; SIGTERM ends it and then this process, so that nothing is left running."""
    process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)

    def stop(number: int, _frame: object) -> None:
        end_process(process, grace_seconds=STOPPING_SECONDS / 2)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    return process.wait()


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
