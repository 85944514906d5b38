"""Pick some micrographs of a run while other processes pick others: parts of a job array, or one by one as they come.

No network is needed: the processes share the run folder alone. Each writes the files of its own micrographs; tables,
report and summary are left to a call of `pick_to_folder` afterwards, which picks what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from cryopick.errors import InputError, NoneDoneError, RunFolderError, SettingsError
from cryopick.inference.device import require_device
from cryopick.inference.models import HoldsModels
from cryopick.io.inputs.sources import MicrographSource, find_micrographs, search_warnings
from cryopick.pickers.protocol import SurveysInFolder, surveys
from cryopick.runs.folder import LOG, OWN_FOLDERS, PREPARED, RunFolder
from cryopick.runs.parts import Part, PartSummary, parse_part
from cryopick.runs.place import output_folder
from cryopick.runs.run import PickEvent, Run
from cryopick.runs.settings import PickSettings
from cryopick.runs.workers import Workforce, who_picks
from cryopick.workflows.begin import begin_run, require_weights


def pick_some(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: PickSettings,
    *,
    part: str | None,
    add: bool,
    root: str | Path | None,
    overwrite: bool = False,
    cluster: str | None = None,
    jobs: int | None = None,
    wait: str | float | None = None,
    cluster_config: str | Path | None = None,
    **options: Any,
) -> PartSummary:
    """`pick_part` or `add_to_folder`, as is asked for, after a check that what is asked for fits together."""
    if any(given is not None for given in (cluster, jobs, wait, cluster_config)):
        raise SettingsError(
            "--cluster, with --jobs, --wait and --cluster-config, sends micrographs to other machines; a process with "
            "--part or --add picks its own by itself; leave one of them out"
        )
    if overwrite:
        raise SettingsError(
            "--overwrite starts a run again, which parts of it cannot do, as others may be picking; remove the run "
            "folder, or run once with --overwrite and without --part or --add"
        )
    if part is not None and (add or root is not None):
        raise SettingsError(
            "--part picks a part of the micrographs that are given, --add all of them; give one of them"
        )
    if part is not None:
        return pick_part(inputs, output, settings, part=parse_part(part), **options)
    if not add or root is None:
        have, lack = ("--add", "--root DIR") if add else ("--root", "--add")
        raise SettingsError(
            f"{have} needs {lack}: micrographs that are added one by one are named from the folder DIR, as their names "
            "would otherwise depend on what else is given"
        )
    return add_to_folder(inputs, output, settings, root=root, **options)


def pick_part(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: PickSettings,
    *,
    part: Part,
    workers: int | None = None,
    devices: str = "",
    time_limit_seconds: float | None = None,
    command: str = "",
    on_event: Callable[[PickEvent], None] | None = None,
) -> PartSummary:
    """Pick a part of a run that is not finished yet: every so many-th micrograph of `inputs` by name.

    All parts are given the same inputs and settings. What a picker looks at before it picks is taken from all of them,
    by the part that comes first; the others wait for it. The same call as `pick_to_folder`, when all parts have ended,
    picks what is missing and writes the tables.

    Parameters
    ----------
    inputs, output, settings, workers, devices, time_limit_seconds, command, on_event : see `pick_to_folder`

    Raises
    ------
    RunFolderError
        If a process without part is writing to the folder, the folder holds a run of other settings, or cannot be
        written.
    InputError
        If no micrograph is found; as `NoneDoneError` if not one of this part could be picked.
    SettingsError, WorkerError
        See `pick_to_folder`.
    """
    return _pick_beside_others(
        inputs,
        output,
        settings,
        workforce=who_picks(output, workers=workers, devices=devices, time_limit_seconds=time_limit_seconds),
        command=command,
        on_event=on_event,
        part=part,
    )


def add_to_folder(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: PickSettings,
    *,
    root: str | Path,
    workers: int | None = None,
    devices: str = "",
    time_limit_seconds: float | None = None,
    command: str = "",
    on_event: Callable[[PickEvent], None] | None = None,
) -> PartSummary:
    """Pick micrographs into a run to which others are added at the same time or later, such as one by one.

    Parameters
    ----------
    root : the folder from which the micrographs are named, above all that will ever be added
    inputs, output, settings, workers, devices, time_limit_seconds, command, on_event : see `pick_to_folder`

    Raises
    ------
    SettingsError
        If the picker would have to measure the particle diameter on the few micrographs that are given first: give it,
        or prepare the run with a call of `pick_to_folder`.
    InputError
        If a micrograph is not below `root`.
    RunFolderError, WorkerError
        See `pick_part`.
    """
    return _pick_beside_others(
        inputs,
        output,
        settings,
        workforce=who_picks(output, workers=workers, devices=devices, time_limit_seconds=time_limit_seconds),
        command=command,
        on_event=on_event,
        root=Path(root),
    )


def _pick_beside_others(
    inputs: Sequence[str | Path],
    output: str | Path,
    settings: PickSettings,
    *,
    workforce: Workforce,
    command: str,
    on_event: Callable[[PickEvent], None] | None,
    part: Part | None = None,
    root: Path | None = None,
) -> PartSummary:
    """Either a `part` of the inputs, or all of them under names that count from `root`."""
    require_device(settings.picker)
    workforce.require_fit(settings.picker)
    folder = RunFolder(output_folder(output))
    with search_warnings(are_logged=True) as told_of_search:
        sources = find_micrographs(inputs, exclude_folders=[folder.path / name for name in OWN_FOLDERS])
    if root is not None:
        sources = [replace(source, name=_name_below(root, source)) for source in sources]
    require_weights(settings)
    with workforce.leading(), folder.lock_with_others(), _closing_models(settings):
        with folder.preparing() as is_alone:
            folder.refuse_unsettled()
            folder.refuse_foreign_contents()
            _refuse_to_prepare_badly(folder, settings, part=part, is_alone=is_alone)
            run = begin_run(
                folder,
                sources,
                settings,
                command=command,
                on_event=on_event,
                told_of_search=told_of_search,
                is_alone=False,
            )
        if part is not None:
            run.keep_to(part.of(run.sources))
        counts = _Counts(on_event)
        run.on_event = counts.hear
        run.pick(workforce)
    return _summary(run, counts, part)


@contextmanager
def _closing_models(settings: PickSettings) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(settings.picker, HoldsModels):
            settings.picker.close()


def _name_below(root: Path, source: MicrographSource) -> str:
    """The name of a micrograph, counted from `root`."""
    path, above = Path(os.path.abspath(source.path)), Path(os.path.abspath(root))
    if not path.is_relative_to(above):
        raise InputError(f"{source.path}: is not below --root {root}, from which the names of micrographs count")
    return PurePath(path.relative_to(above)).as_posix()


def _refuse_to_prepare_badly(folder: RunFolder, settings: PickSettings, *, part: Part | None, is_alone: bool) -> None:
    """Raise where what a picker looks at before it picks is not there, and this call is not the one to make it."""
    picker = settings.picker
    if not surveys(picker) or os.path.lexists(folder.path / PREPARED):
        return
    if part is None and (isinstance(picker, SurveysInFolder) or getattr(picker, "diameter", None) is None):
        learns = "learns from" if isinstance(picker, SurveysInFolder) else "measures the particle diameter on"
        give = "" if isinstance(picker, SurveysInFolder) else "give --diameter, or "
        raise SettingsError(
            f"picker {picker.name} {learns} several micrographs before it picks, and --add knows only those that are "
            f"given; {give}pick some in {folder.path} without --add first, which prepares the run for all"
        )
    if not is_alone and part is not None and part.number != 0:
        raise RunFolderError(
            f"{folder.path}: the file system has no locks (flock), so parts cannot wait for the one that prepares the "
            f"run; start part 0/{part.count} first, and the others when {PREPARED} is there"
        )


class _Counts:
    """Hears of the micrographs of a part and counts them, before others hear of them."""

    def __init__(self, listener: Callable[[PickEvent], None] | None) -> None:
        self._listener = listener
        self.of_status: dict[str, int] = {}
        self.particles = 0
        self.failed: dict[str, str] = {}

    def hear(self, event: PickEvent) -> None:
        if event.name:
            self.of_status[event.status] = self.of_status.get(event.status, 0) + 1
            self.particles += event.count
        if event.status == "failed":
            self.failed[event.name] = event.error
        if self._listener is not None:
            self._listener(event)


def _summary(run: Run, counts: _Counts, part: Part | None) -> PartSummary:
    if run.sources and len(counts.failed) == len(run.sources):
        first = next(iter(counts.failed.values()))
        raise NoneDoneError(
            f"none of {len(run.sources)} micrographs could be picked; the first: {first} (all of them: "
            f"{run.folder.path / LOG})"
        )
    return PartSummary(
        part="" if part is None else str(part),
        micrographs=len(run.sources),
        skipped=counts.of_status.get("skipped", 0),
        failed=counts.failed,
        particles=counts.particles,
        threshold=run.threshold_so_far(),
    )
