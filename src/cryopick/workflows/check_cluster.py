"""Whether a cluster can pick: one job that says how long it waited, where it runs and what is there."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryopick.errors import OutputError, WorkerError
from cryopick.extras import is_installed
from cryopick.runs.on_cluster import ClusterRequest
from cryopick.scale.cluster.executor import DaskExecutor
from cryopick.scale.cluster.place import open_place
from cryopick.scale.executor import entry_of
from cryopick.version import __version__

MARK = "seen"


@dataclass(frozen=True, kw_only=True)
class ClusterCheck:
    """What one worker says.

    Attributes
    ----------
    joined_seconds : from asking for the job until its worker was there
    answered_seconds : until it had loaded what picking needs, and had answered
    """

    host: str
    versions: str
    processor: str
    cores: int
    device: str
    folder: str
    joined_seconds: float
    answered_seconds: float


class ProbeWorker:
    """Says what is there where it runs."""

    def __init__(self, state: Any) -> None:
        del state

    def results_of(self, items: Iterator[Path]) -> Iterator[dict[str, Any]]:
        for folder in items:
            yield _probed(folder)


def _probed(folder: Path) -> dict[str, Any]:
    from cryopick.inference.computing import processor_model
    from cryopick.inference.device import chosen_device, cuda_devices
    from cryopick.scale.processes import usable_cores

    count, reason, complaint = cuda_devices()
    names = ", ".join(processor_model(f"cuda:{index}") for index in range(count))
    device = (
        f"graphics card {names}" if chosen_device("auto") == "cuda" else f"no graphics card ({complaint or reason})"
    )
    libraries = [f"{name} {version(name)}" for name in ("openvino", "torch") if is_installed(name)]
    (folder / MARK).write_text(platform.node())
    return {
        "host": platform.node(),
        "versions": f"cryopick {__version__}, Python {platform.python_version()}, {', '.join(libraries)}",
        "processor": processor_model("cpu"),
        "cores": usable_cores(),
        "device": device,
    }


def check_cluster(request: ClusterRequest, folder: Path) -> ClusterCheck:
    """Ask a cluster for one job and let it answer.

    Parameters
    ----------
    folder : in which runs will be written; the worker writes a file there, which is looked for and removed

    Raises
    ------
    OutputError
        If the folder cannot be written from here.
    WorkerError
        If no job is taken, none starts in time, or a worker lacks something, with the reason; or if what it wrote is
        not seen here.
    """
    begun = time.monotonic()
    joined: list[float] = []
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        if line.startswith("worker ") and " joined" in line:
            joined.append(time.monotonic() - begun)

    with ExitStack() as stack:
        try:
            own = stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".cryopick-doctor-"))
        except OSError as error:
            raise OutputError(f"{folder.absolute()}: cannot be written ({error.strerror})") from error
        shared = Path(os.path.abspath(own))
        place = open_place(
            request.where,
            folder=shared / ".cluster",
            jobs=request.jobs,
            settings=request.settings,
            wait_seconds=request.wait_seconds,
            on_line=note,
        )
        stack.callback(place.close)
        executor = DaskExecutor(place, entry_of(ProbeWorker), None)
        executor.submit("the question", shared)
        done = executor.next(None)
        if done is None or done.result is None:
            raise WorkerError(f"a worker joined and did not answer: {'' if done is None else done.lost}")
        answered = time.monotonic() - begun
        if not (shared / MARK).is_file():
            raise WorkerError(f"host {done.result['host']} wrote a file into {shared}, which is not seen here")
        return ClusterCheck(
            **done.result,
            folder=str(folder.absolute()),
            joined_seconds=min(joined, default=answered),
            answered_seconds=answered,
        )
