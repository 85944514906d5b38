"""Pick particles: one micrograph in memory, or a run over many that fills a run folder and can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from cryopick.errors import InputError, NoneDoneError, SettingsError, WorkerError
from cryopick.inference.device import require_device
from cryopick.inference.models import HoldsModels
from cryopick.io.inputs.sources import find_micrographs, search_warnings
from cryopick.runs.exclusion_masks import match_masks
from cryopick.runs.folder import LOG, OWN_FOLDERS, RunFolder
from cryopick.runs.in_memory import pick_all
from cryopick.runs.one import Task, read_task
from cryopick.runs.parts import PartSummary
from cryopick.runs.place import output_folder
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import DEFAULT_PICKER, PickSettings, make_settings
from cryopick.runs.stored_settings import refuse_foreign_config
from cryopick.runs.workers import who_picks
from cryopick.types import Micrograph, Picks
from cryopick.workflows.begin import begin_run, require_weights
from cryopick.workflows.pick_part import pick_some

RUN_OPTIONS = (
    *("workers", "devices", "time_limit_seconds", "overwrite"),
    *("cluster", "jobs", "wait", "cluster_config"),
)
"""Of a run, not of its picks: another value is no other run."""

# ---------------------------------------------------------------------------------------------------- from Python


@overload
def pick(
    micrographs: ArrayLike | Micrograph, picker: str | Any = ..., *, output: None = ..., **settings: Any
) -> Picks: ...
@overload
def pick(
    micrographs: str | Path | Sequence[str | Path],
    picker: str | Any = ...,
    *,
    output: str | Path,
    part: str,
    **settings: Any,
) -> PartSummary: ...
@overload
def pick(
    micrographs: str | Path | Sequence[str | Path],
    picker: str | Any = ...,
    *,
    output: str | Path,
    add: Literal[True],
    root: str | Path,
    **settings: Any,
) -> PartSummary: ...
@overload
def pick(
    micrographs: str | Path | Sequence[str | Path], picker: str | Any = ..., *, output: str | Path, **settings: Any
) -> RunSummary: ...


def pick(
    micrographs: Any,
    picker: str | Any = DEFAULT_PICKER,
    *,
    output: str | Path | None = None,
    part: str | None = None,
    add: bool = False,
    root: str | Path | None = None,
    **settings: Any,
) -> Picks | RunSummary | PartSummary:
    """Pick particles from one image in memory, or from files into a run folder.

    Parameters
    ----------
    micrographs : without `output` one image: an (h, w) array, a `Micrograph`, or the path of one; with `output` any
        number of files, folders, globs, `@list.txt` or a RELION `micrographs.star`
    picker : a name from `list_pickers()`, or a picker, which keeps its networks from one image to the next
    output : the run folder
    part : with `output`, `K/N`: the K-th of N parts of the run, from 0, and no tables; see `pick_part`
    add, root : with `output`: these micrographs are added to the run, named from the folder `root`, and no tables; see
        `add_to_folder`
    settings : as on the command line with `_` for `-`: `diameter="180A"`, `pixel_size_angstrom=1.77`, `threshold=0.4`;
        with `output` also `workers`, `devices`, `time_limit_seconds`, `overwrite`, and `cluster="slurm", jobs=16` with
        what else belongs to a cluster, see `pick_to_folder`

    Returns
    -------
    Picks
        Without `output`: every candidate; `.kept()` gives the accepted ones, `.reason` says why others are not.
    RunSummary
        With `output`: as `summary.json`; the picks are in the folder.
    PartSummary
        With `part` or `add`: what was picked; the same call without them writes the tables.

    Examples
    --------
    >>> import numpy as np, cryopick
    >>> picks = cryopick.pick(np.zeros((64, 64)), "blob", diameter="20px")
    >>> len(picks.kept())
    0
    """
    if output is not None:
        if not str(output).strip():
            raise SettingsError("output is empty; give the run folder, the working folder is '.'")
        options = {name: settings.pop(name) for name in RUN_OPTIONS if name in settings}
        inputs = [micrographs] if isinstance(micrographs, str | Path) else list(micrographs)
        chosen = make_settings(picker, **settings)
        if part is None and not add and root is None:
            return pick_to_folder(inputs, output, chosen, **options)
        return pick_some(inputs, output, chosen, part=part, add=add, root=root, **options)
    if part is not None or add or root is not None:
        raise SettingsError("part, add and root are for runs; give the run folder with output=")
    chosen = make_settings(picker, **settings)
    require_device(chosen.picker)
    require_weights(chosen)
    micrograph = read_task(_task_in_memory(micrographs), chosen.run)
    masks = chosen.run.exclusion_masks
    mask = None if masks is None else match_masks([micrograph.name], masks).of_micrograph.get(micrograph.name)
    return pick_all([micrograph], chosen, masks=[mask]).picks[0]


def _task_in_memory(given: Any) -> Task:
    if isinstance(given, Micrograph):
        return Task(name=given.name, micrograph=given)
    if isinstance(given, str | Path):
        return Task(name=Path(given).name, path=Path(given))
    if isinstance(given, np.ma.MaskedArray) and given.dtype.kind in "buif":
        given = np.ma.filled(np.ma.array(given, dtype=np.float32), np.nan)  # what is masked is missing
    pixels = np.asarray(given)
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise InputError(
            f"expected one image, (h, w) numbers, got an array of shape {pixels.shape} and type {pixels.dtype}; "
            "call pick once per image, or give paths and output="
        )
    return Task(name="micrograph", micrograph=Micrograph(pixels.astype(np.float32)))


# ------------------------------------------------------------------------------------------------------ whole runs


def pick_to_folder(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: PickSettings,
    *,
    workers: int | None = None,
    devices: str = "",
    time_limit_seconds: float | None = None,
    overwrite: bool = False,
    command: str = "",
    on_event: Callable[[PickEvent], None] | None = None,
    cluster: str | None = None,
    jobs: int | None = None,
    wait: str | float | None = None,
    cluster_config: str | Path | None = None,
) -> RunSummary:
    """Pick every micrograph of `inputs` that the run folder has not finished yet, and write its tables and report.

    Parameters
    ----------
    inputs : files, folders, globs, `@list.txt` or a RELION `micrographs.star`
    output : the run folder; made if missing, resumed if it holds a run of the same settings. Settings with which no
        micrograph was finished are replaced
    workers : processes that pick side by side; by default one per core, at most 8. The result does not depend on it
    devices : graphics cards of this machine, such as `cuda:0,cuda:1`: each worker process has one, in turn, and two
        share each unless `workers` says otherwise. By default the picker's `device` holds for all
    time_limit_seconds : for one micrograph, which fails when it takes longer; by default two hours where several
        processes pick. 0 is no limit. Kept by worker processes, so that with a limit even one worker is a process
    overwrite : start again, removing what the folder holds of an earlier run once the first micrograph is picked
    command : what the user typed, for `command.txt`
    on_event : called once per micrograph, in the order in which they end
    cluster : where to pick in place of this machine: `slurm`, `local`, or a Dask scheduler's `tls://HOST:PORT`
    jobs : to keep at work on the cluster, needed for `slurm`
    wait : for a first worker of the cluster, such as `10m` or seconds, before that is an error; by default for ever
    cluster_config : TOML file with the table `[cluster]`; by default that of `$CRYOPICK_CLUSTER_CONFIG`, else the
        user's own, see docs/cluster.md

    Raises
    ------
    RunFolderError
        If the folder holds a run of other settings or of other micrographs of the same names, or cannot be written.
    InputError
        If no micrograph is found; as `NoneDoneError` if not one of them could be picked.
    SettingsError
        If the picker's device, or one of `devices`, is not there, or what is said of the cluster is impossible.
    MissingExtraError
        If a cluster is asked for and Dask is not installed.
    WorkerError
        If no worker can be started, here or on the cluster; what was finished is in the folder's tables.
    """
    workforce = who_picks(
        output,
        workers=workers,
        time_limit_seconds=time_limit_seconds,
        devices=devices,
        cluster=cluster,
        jobs=jobs,
        wait=wait,
        cluster_config=cluster_config,
    )
    if workforce.cluster is None:
        require_device(settings.picker)
    output = output_folder(output)
    workforce.require_fit(settings.picker)
    folder = RunFolder(output)
    folder.refuse_foreign_contents()
    with search_warnings(are_logged=True) as told_of_search:
        sources = find_micrographs(inputs, exclude_folders=[output / part for part in OWN_FOLDERS])
    require_weights(settings)
    with workforce.leading(), folder.lock():
        folder.clean_up()
        if overwrite and folder.is_run:
            if not folder.has_records():
                refuse_foreign_config(folder)
            folder.set_aside()
        try:
            run = begin_run(
                folder,
                sources,
                settings,
                command=command,
                on_event=on_event,
                told_of_search=told_of_search,
                cluster=workforce.cluster,
            )
            try:
                run.pick(workforce)
            except WorkerError:
                if any(record.is_done for record in run.records.values()):
                    run.finish(is_stopped=True)
                raise
            summary = run.finish()
            if not any(record.is_done for record in run.records.values()):
                raise NoneDoneError(
                    f"none of {len(sources)} micrographs could be picked; the first: "
                    f"{next(iter(summary.failed.values()), '')} (all of them: {output / LOG})"
                )
        except BaseException:
            if folder.restore_replaced():
                folder.append_log("--overwrite came to nothing before its first micrograph, so this run stays")
            raise
        finally:
            if workforce.cluster is not None:
                workforce.cluster.close()
            if isinstance(settings.picker, HoldsModels):
                settings.picker.close()
    return summary
