"""Simulate labelled micrographs into a folder: resumable, in several processes, the same bytes however it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, RunFolderError, SettingsError
from cryopick.scale.processes import end_process, start_python
from cryopick.simulation.series import SimulationSettings, claim_folder, micrograph_name, read_settings, simulate_one
from cryopick.simulation.truth_files import (
    is_written,
    read_facts,
    write_relion_tables,
    write_set_json,
    write_simulated,
)


@dataclass(frozen=True)
class SimulationSummary:
    """What a run came to: `names` of all micrographs in the folder, how many were made now, and in what time.

    `kinds` counts those of a session, and is empty otherwise.
    """

    folder: Path
    names: tuple[str, ...]
    made: int
    seconds: float
    particles: int
    diameter_px: float | None
    kinds: Mapping[str, int] = field(default_factory=dict)


def simulate(
    output: Path | str,
    settings: SimulationSettings,
    *,
    count: int,
    workers: int = 1,
    on_done: Callable[[str], None] | None = None,
) -> SimulationSummary:
    """Simulate micrographs into a folder (see `cryopick.simulation.truth_files` for its files).

    Parameters
    ----------
    output : a new folder, or one of an earlier run with equal settings, in which only what is missing is made
    count : micrographs in the end, of a session no more than it has; a larger number later adds to the same series
    workers : processes; the files do not depend on it
    on_done : called with the name of each micrograph as it is finished

    Raises
    ------
    RunFolderError
        The folder belongs to other settings, or to something else.
    SettingsError, InputError, OutputError
        Impossible settings, unreadable structures, a disk that is full.
    """
    if count < 1:
        raise SettingsError(f"count is {count}, expected 1 or more micrographs")
    if settings.session and count > len(settings.session):
        raise SettingsError(f"count is {count}, but the session has {len(settings.session)} micrographs")
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected 1 or more")
    started = time.monotonic()
    folder = Path(output)
    claim_folder(folder, settings)
    names = [micrograph_name(index) for index in range(count)]
    missing = [index for index, name in enumerate(names) if not is_written(folder, name)]
    if workers == 1 or len(missing) < 2:
        for index in missing:
            write_simulated(folder, simulate_one(settings, index))
            if on_done is not None:
                on_done(names[index])
    else:
        _simulate_in_processes(folder, missing, min(workers, len(missing)), on_done)
    write_relion_tables(folder, names)
    facts = [read_facts(folder, name) for name in names]
    known = [one["diameter_px"] for one in facts if one["diameter_px"] is not None]
    diameter_px = float(np.median(known)) if known else None
    write_set_json(
        folder,
        diameter_px=None if diameter_px is None else round(diameter_px, 2),
        pixel_size_angstrom=settings.recipe.pixel_size_angstrom,
        protein=", ".join(Path(one).name for one in settings.structures),
    )
    return SimulationSummary(
        folder=folder,
        names=tuple(names),
        made=len(missing),
        seconds=time.monotonic() - started,
        particles=sum(int(one["particles"]) for one in facts),
        diameter_px=diameter_px,
        kinds=Counter(settings.session[:count]),
    )


# Workers are plain processes that read the settings from the folder, so nothing is forked or pickled and a script that
# calls `simulate` needs no guard. Each line they print is JSON: a finished micrograph or an error.


def _simulate_in_processes(
    folder: Path, missing: Sequence[int], workers: int, on_done: Callable[[str], None] | None
) -> None:
    processes = []
    try:
        for worker in range(workers):
            indices = ",".join(str(index) for index in missing[worker::workers])
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            processes.append(start_python(__spec__.name, str(folder), indices, **streams))
        _listen(processes, on_done)
    finally:
        for process in processes:
            end_process(process)
            if process.stdout is not None:
                process.stdout.close()


def _listen(processes: Sequence[subprocess.Popen[str]], on_done: Callable[[str], None] | None) -> None:
    """Pass on what the workers say until all have ended; the first failure ends the run."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.stdout, selectors.EVENT_READ, process)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if not line:
                    selector.unregister(key.fileobj)
                    if key.data.wait() != 0:
                        raise RunFolderError(
                            f"a simulation worker ended with status {key.data.returncode} (out of memory?); "
                            "run the same command again with fewer workers to resume"
                        )
                    continue
                message = json.loads(line)
                if "error" in message:
                    raise CryopickError(message["error"])
                if on_done is not None:
                    on_done(message["done"])


def _work(folder: Path, indices: Sequence[int]) -> None:
    """What a worker process does."""
    try:
        settings = read_settings(folder)
        for index in indices:
            write_simulated(folder, simulate_one(settings, index))
            sys.stdout.write(json.dumps({"done": micrograph_name(index)}) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:  # whoever started this is gone
        os._exit(1)
    except (CryopickError, MemoryError, OSError) as error:
        sys.stdout.write(json.dumps({"error": str(error) or type(error).__name__}) + "\n")


if __name__ == "__main__":
    _work(Path(sys.argv[1]), [int(index) for index in sys.argv[2].split(",")])
