"""Simulate labelled micrographs into a folder: resumable, in several processes, the same bytes however it is run."""

from __future__ import annotations

import inspect
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
from cryopick.geometry.units import parse_range
from cryopick.scale.processes import end_process, start_python
from cryopick.simulation.recipe_words import recipe_with
from cryopick.simulation.series import SimulationSettings, claim_folder, micrograph_name, read_settings, simulate_one
from cryopick.simulation.session import parse_session, session_kinds
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


def simulation_settings(
    *,
    structure: str | Path | Sequence[str | Path] = "random",
    count: int = 10,
    seed: int = 0,
    proteins: int = 1,
    diameter: str = "80-350A",
    recipe: str = "general",
    defocus: str | None = None,
    dose: str | float | None = None,
    size: str | None = None,
    pixel_size: float | None = None,
    session: str | None = None,
    snr: float | None = None,
) -> SimulationSettings:
    """The settings that words mean, which are those of `cryopick simulate`: `defocus="0.8-2.5um"`, `size="1024x1024"`.

    Parameters
    ----------
    structure : PDB, mmCIF or MRC files, which all occur together, or `"random"` for procedural proteins
    count : of a session, how many micrographs it has

    Raises
    ------
    SettingsError
        For words that are not understood, or two that both set the dose.
    """
    if dose is not None and snr is not None:
        raise SettingsError("--dose and --snr both set the dose; give one of them")
    structures = (structure,) if isinstance(structure, str | Path) else tuple(structure)
    weights = {} if session is None else parse_session(session)
    dose = None if dose is None else str(dose)
    return SimulationSettings(
        structures=tuple(str(one) for one in structures),
        proteins=proteins,
        diameter_angstrom=parse_range(diameter, what="diameter", units={"": 1.0, "A": 1.0, "Å": 1.0, "nm": 10.0}),
        seed=seed,
        recipe=recipe_with(recipe, defocus=defocus, dose=dose, size=size, pixel_size_angstrom=pixel_size),
        session=session_kinds(weights, count=count, seed=seed) if weights else (),
        snr=snr,
    )


def simulate(
    output: Path | str,
    settings: SimulationSettings | None = None,
    *,
    count: int = 10,
    workers: int = 1,
    on_done: Callable[[str], None] | None = None,
    **words: Any,
) -> SimulationSummary:
    """Simulate micrographs into a folder (see `cryopick.simulation.truth_files` for its files).

    Parameters
    ----------
    output : a new folder, or one of an earlier run with equal settings, in which only what is missing is made
    settings : what is simulated; or in its place the options of `cryopick simulate` as `words`
    count : micrographs in the end, of a session no more than it has; a larger number later adds to the same series
    workers : processes; the files do not depend on it
    on_done : called with the name of each micrograph as it is finished

    Raises
    ------
    RunFolderError
        The folder belongs to other settings, or to something else.
    SettingsError, InputError, OutputError
        Impossible settings, unreadable structures, a disk that is full.

    Examples
    --------
    `cryopick.simulate("sim/", structure="random", count=20, defocus="0.8-2.5um", size="2048x2048", seed=1)`
    """
    if settings is None:
        settable = {name for name in inspect.signature(simulation_settings).parameters if name != "count"}
        if unknown := sorted(set(words) - settable):
            raise SettingsError(f"simulate has no setting {', '.join(unknown)}; it has: {', '.join(sorted(settable))}")
        settings = simulation_settings(count=count, **words)
    elif words:
        raise SettingsError(f"simulate: give settings, or {', '.join(sorted(words))}; not both")
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
