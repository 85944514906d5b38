"""Pick particles: one micrograph in memory, or a run over many that fills a run folder and can be interrupted."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.io.inputs import find_micrographs
from cryopick.pickers.protocol import ChoosesThreshold, PreparesForRun
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick_one import Task, pick_micrograph, read_task
from cryopick.workflows.pick_settings import DEFAULT_PICKER, PickSettings, make_settings, settings_sections
from cryopick.workflows.results import RunSummary, at_threshold
from cryopick.workflows.run import PickEvent, Run
from cryopick.workflows.run_folder import COMMAND, CONFIG, LOG, RunFolder
from cryopick.workflows.settings import as_text, to_toml

# ---------------------------------------------------------------------------------------------------- from Python


@overload
def pick(
    micrographs: ArrayLike | Micrograph, picker: str | Any = ..., *, output: None = ..., **settings: Any
) -> Picks: ...
@overload
def pick(
    micrographs: str | Path | Sequence[str | Path], picker: str | Any = ..., *, output: str | Path, **settings: Any
) -> RunSummary: ...


def pick(
    micrographs: Any, picker: str | Any = DEFAULT_PICKER, *, output: str | Path | None = None, **settings: Any
) -> Picks | RunSummary:
    """Pick particles from one image in memory, or from files into a run folder.

    Parameters
    ----------
    micrographs : without `output` one image: an (h, w) array, a `Micrograph`, or the path of one; with `output` any
        number of files, folders, globs, `@list.txt` or a RELION `micrographs.star`
    picker : a name from `list_pickers()`, or a picker
    output : the run folder
    settings : as on the command line with `_` for `-`: `diameter="180A"`, `pixel_size_angstrom=1.77`, `threshold=0.4`;
        with `output` also `workers` and `overwrite`

    Returns
    -------
    Picks
        Without `output`: every candidate; `.kept()` gives the accepted ones, `.reason` says why others are not.
    RunSummary
        With `output`: as `summary.json`; the picks are in the folder.

    Examples
    --------
    >>> import numpy as np, cryopick
    >>> picks = cryopick.pick(np.zeros((64, 64)), "blob", diameter="20px")
    >>> len(picks.kept())
    0
    """
    if output is not None:
        options = {name: settings.pop(name) for name in ("workers", "overwrite") if name in settings}
        inputs = [micrographs] if isinstance(micrographs, str | Path) else list(micrographs)
        chosen = make_settings(picker, **settings)
        return pick_to_folder(inputs, Path(output), chosen, **options)
    chosen = make_settings(picker, **settings)
    micrograph = read_task(_task_in_memory(micrographs), chosen.run)
    if isinstance(chosen.picker, PreparesForRun):
        chosen = replace(chosen, picker=chosen.picker.prepare([micrograph]))
    picks = pick_micrograph(micrograph, chosen)
    return at_threshold(picks, _threshold_in_memory(picks, chosen))


def _task_in_memory(given: Any) -> Task:
    if isinstance(given, Micrograph):
        return Task(name=given.name, micrograph=given)
    if isinstance(given, str | Path):
        return Task(name=Path(given).name, path=Path(given))
    pixels = np.asarray(given)
    if pixels.ndim != 2 or pixels.dtype.kind not in "buif":
        raise InputError(
            f"expected one image, (h, w) numbers, got an array of shape {pixels.shape} and type {pixels.dtype}; "
            "call pick once per image, or give paths and output="
        )
    return Task(name="micrograph", micrograph=Micrograph(pixels.astype(np.float32)))


def _threshold_in_memory(picks: Picks, settings: PickSettings) -> float:
    if settings.selection.threshold is not None:
        return settings.selection.threshold
    if isinstance(settings.picker, ChoosesThreshold):
        return float(
            settings.picker.choose_threshold(picks.kept().score, target_precision=settings.run.target_precision)
        )
    return float(settings.picker.default_threshold)


# ------------------------------------------------------------------------------------------------------ whole runs

_NOT_OF_THE_RESULT = ("run max_pixels",)
"""Settings that may change when a run is resumed: they say what can be read, not what is found in it."""


def pick_to_folder(
    inputs: Sequence[str | Path],
    output: Path,
    settings: PickSettings,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    command: str = "",
    on_event: Callable[[PickEvent], None] | None = None,
) -> RunSummary:
    """Pick every micrograph of `inputs` that the run folder has not finished yet, and write its tables and report.

    Parameters
    ----------
    inputs : files, folders, globs, `@list.txt` or a RELION `micrographs.star`
    output : the run folder; made if missing, resumed if it holds a run of the same settings
    workers : processes that pick side by side; by default one per core, at most 8. The result does not depend on it
    overwrite : start again, removing what the folder holds of an earlier run
    command : what the user typed, for `command.txt`
    on_event : called once per micrograph, in the order in which they end

    Raises
    ------
    RunFolderError
        If the folder holds a run of other settings or of other micrographs of the same names, or cannot be written.
    InputError
        If no micrograph is found, or not one of them could be picked.
    """
    sources = find_micrographs(inputs, exclude_folders=[output])
    if workers is not None and workers < 1:
        raise SettingsError(f"workers {workers}: expected 1 or more")
    folder = RunFolder(output)
    folder.refuse_foreign_contents()
    with folder.lock():
        folder.clean_up()
        if overwrite:
            folder.clear()
        _check_same_settings(folder, settings)
        folder.write(output / CONFIG, to_toml(settings_sections(settings)))
        _note_start(folder, command)
        run = Run(folder, sources, settings, on_event)
        run.prepare()
        run.pick(workers)
        summary = run.finish()
    if not any(record.is_done for record in run.records.values()):
        raise InputError(
            f"none of {len(sources)} micrographs could be picked; the first: {next(iter(summary.failed.values()), '')} "
            f"(all of them: {output / LOG})"
        )
    return summary


def _check_same_settings(folder: RunFolder, settings: PickSettings) -> None:
    """Raise `RunFolderError` that names every difference if the folder holds a run of other settings."""
    if not folder.is_run:
        return
    try:
        before = tomllib.loads((folder.path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{folder.path / CONFIG}: cannot be read ({error}); --overwrite starts again") from error
    old, new = _flat(before), _flat(settings_sections(settings))
    changes = [
        f"{name}: {as_text(old.get(name))} -> {as_text(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name) and name not in _NOT_OF_THE_RESULT
    ]
    if not changes:
        return
    only_threshold = all(change.startswith(("selection threshold", "run target_precision")) for change in changes)
    remedy = (
        f"to move only the threshold: cryopick rethreshold {folder.path} --threshold NUMBER"
        if only_threshold
        else "to pick everything again with the new settings add --overwrite, to keep both choose another -o"
    )
    raise RunFolderError(f"{folder.path}: was picked with other settings ({'; '.join(changes)}); {remedy}")


def _flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section} {name}": value
        for section, values in sections.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    }


def _note_start(folder: RunFolder, command: str) -> None:
    from cryopick import __version__

    if command:
        folder.write(folder.path / COMMAND, command + "\n")
    folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} cryopick {__version__}: {command or 'called from Python'}")
