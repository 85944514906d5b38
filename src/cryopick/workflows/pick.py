"""Pick particles: one micrograph in memory, or a run over many that fills a run folder and can be interrupted."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from cryopick.errors import CryopickError, InputError, RunFolderError, SettingsError
from cryopick.geometry.selection import SelectionSettings
from cryopick.io.inputs import MicrographSource, find_micrographs
from cryopick.pickers.protocol import PreparesForRun
from cryopick.pickers.registry import make_picker, picker_class
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick_one import (
    Outcome,
    PickSettings,
    RunSettings,
    Task,
    pick_micrograph,
    read_task,
)
from cryopick.workflows.report import write_report
from cryopick.workflows.results import (
    MicrographResult,
    RunSummary,
    at_threshold,
    threshold_of,
    write_picks,
    write_results,
)
from cryopick.workflows.run_folder import COMMAND, CONFIG, LOG, PREPARED, Record, RunFolder, assign_keys
from cryopick.workflows.settings import as_plain, as_text, convert_settings, settings_of, to_toml
from cryopick.workflows.workers import default_workers, pick_in_workers

DEFAULT_PICKER = "blob"
SAMPLE_SIZE = 6
"""Micrographs, spread evenly over the run, that a picker which prepares itself is shown."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PickEvent:
    """What the caller of a run hears of each micrograph."""

    name: str
    status: str
    """`done`, `failed`, or `skipped` where an earlier call had finished it."""
    position: int
    """1 for the first event."""
    total: int
    count: int = 0
    """Picks at the run's threshold; provisional where the picker chooses the threshold from all scores at the end."""
    candidates: int = 0
    mean_score: float | None = None
    diameter_px: float | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""


# ------------------------------------------------------------------------------------------------------- settings


def make_settings(picker: str | Any = DEFAULT_PICKER, **given: Any) -> PickSettings:
    """Settings of a run from one flat set of names: those of the picker, of the selection, and of the run.

    Texts are converted (`diameter="180A"`); an unknown name is listed against the known ones.
    """
    cls = picker_class(picker) if isinstance(picker, str) else type(picker)
    parts: dict[type[Any], dict[str, Any]] = {cls: {}, SelectionSettings: {}, RunSettings: {}}
    owner = {setting.name: part for part in (RunSettings, SelectionSettings, cls) for setting in settings_of(part)}
    unknown = sorted(set(given) - set(owner))
    if unknown:
        raise SettingsError(f"no setting {', '.join(unknown)}; picker {cls.name!r} has: {', '.join(sorted(owner))}")
    for name, value in given.items():
        parts[owner[name]][name] = value
    own = convert_settings(cls, parts[cls], section=f"picker {cls.name}")
    return PickSettings(
        picker=make_picker(picker, **own) if isinstance(picker, str) else replace(picker, **own),
        run=RunSettings(**convert_settings(RunSettings, parts[RunSettings], section="run")),
        selection=SelectionSettings(
            **convert_settings(SelectionSettings, parts[SelectionSettings], section="selection")
        ),
    )


def settings_sections(settings: PickSettings) -> dict[str, dict[str, Any]]:
    """The settings as the sections of a config file."""
    return {
        "run": {"picker": settings.picker.name, **as_plain(settings.run)},
        "selection": as_plain(settings.selection),
        settings.picker.name: as_plain(settings.picker),
    }


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML config file as one flat set of names, `picker` among them, for `make_settings`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a TOML config file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not a TOML config file ({error})") from error
    run = content.get("run", {})
    picker = run.get("picker", DEFAULT_PICKER) if isinstance(run, dict) else DEFAULT_PICKER
    given: dict[str, Any] = {}
    for section, values in content.items():
        if section not in ("run", "selection", picker) or not isinstance(values, dict):
            raise SettingsError(f"{path}: [{section}] is not a section; expected [run], [selection] or [{picker}]")
        given |= values
    return given | {"picker": picker}


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
    from cryopick.pickers.protocol import ChoosesThreshold

    if settings.selection.threshold is not None:
        return settings.selection.threshold
    if isinstance(settings.picker, ChoosesThreshold):
        return float(
            settings.picker.choose_threshold(picks.kept().score, target_precision=settings.run.target_precision)
        )
    return float(settings.picker.default_threshold)


# ------------------------------------------------------------------------------------------------------ whole runs


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
        run = _Run(folder, sources, settings, on_event)
        run.prepare()
        run.pick(workers)
        summary = run.finish()
    if not any(record.is_done for record in run.records.values()):
        raise InputError(
            f"none of {len(sources)} micrographs could be picked; the first: {next(iter(summary.failed.values()), '')} "
            f"(all of them: {output / LOG})"
        )
    return summary


class _Run:
    """The state of one call of `pick_to_folder`."""

    def __init__(
        self,
        folder: RunFolder,
        sources: Sequence[MicrographSource],
        settings: PickSettings,
        on_event: Callable[[PickEvent], None] | None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.on_event = on_event
        self.records = {record.name: record for record in folder.records()}
        # names depend on what else is given, so a file that this run knows keeps the name that it has here
        known = {record.source: record.name for record in self.records.values()}
        self.sources = {known.get(str(source.path.absolute()), source.name): source for source in sources}
        taken = {name: record.key for name, record in self.records.items()}
        self.keys = assign_keys(list(self.sources), taken)
        self.skipped = [name for name in self.sources if self._is_finished(name)]
        self._position = 0

    def prepare(self) -> None:
        """Let a picker that wants to look at some micrographs first do so, once per run folder."""
        picker = self.settings.picker
        if not _prepares(picker):
            return
        path = self.folder.path / PREPARED
        if path.is_file():
            given = tomllib.loads(path.read_text(encoding="utf-8"))[picker.name]
            prepared = replace(picker, **convert_settings(type(picker), given, section=str(path)))
        else:
            prepared = picker.prepare(self._sample())
            self.folder.write(path, to_toml({picker.name: as_plain(prepared)}))
            before = as_plain(picker)
            learnt = {name: value for name, value in as_plain(prepared).items() if before.get(name) != value}
            self._log(f"picker {picker.name} prepared itself: {learnt or 'nothing changed'}")
        self.settings = replace(self.settings, picker=prepared)

    def _sample(self) -> list[Micrograph]:
        names = list(self.sources)
        wanted = dict.fromkeys(np.linspace(0, len(names) - 1, min(SAMPLE_SIZE, len(names))).round().astype(int))
        order = [*wanted, *(index for index in range(len(names)) if index not in wanted)]
        sample: list[Micrograph] = []
        for index in order:
            if len(sample) == len(wanted):
                break
            try:
                sample.append(read_task(self._task(names[index]), self.settings.run))
            except CryopickError as error:
                self._log(f"{names[index]}: left out of the preparation: {error}")
        return sample

    def pick(self, workers: int | None) -> None:
        threshold, _ = self._provisional_threshold()
        for name in self.skipped:
            if self.on_event is not None:
                record = self.records[name]
                candidates = at_threshold(self.folder.read_candidates(record), threshold)
                self._tell(_event("skipped", MicrographResult(record=record, candidates=candidates)))
        todo = [self._task(name) for name in self.sources if name not in set(self.skipped)]
        if not todo:
            return
        count = default_workers(len(todo), picker=self.settings.picker) if workers is None else workers
        self._log(f"{len(todo)} micrographs to pick, {len(self.skipped)} finished before, {count} worker(s)")
        for outcome in pick_in_workers(todo, self.settings, workers=count):
            if outcome.is_settings_error and not any(record.is_done for record in self.records.values()):
                raise SettingsError(f"{outcome.name}: {outcome.error}")
            self._keep(outcome, threshold)

    def finish(self) -> RunSummary:
        summary, results = write_results(self.folder, self.settings)
        write_report(self.folder, summary, results, settings_sections(self.settings))
        self._log(f"{summary.particles} particles in {summary.micrographs} micrographs, {len(summary.failed)} failed")
        return summary

    def _provisional_threshold(self) -> tuple[float, str]:
        picker = self.settings.picker
        if self.settings.selection.threshold is None and self.folder.moved_threshold() is None:
            return float(picker.default_threshold), "the picker's default"
        return threshold_of(self.folder, self.settings)

    def _is_finished(self, name: str) -> bool:
        record = self.records.get(name)
        if record is None or not record.is_done:
            return False
        size_bytes, modified_ns = _stat(self.sources[name].path)
        is_same_file = (record.size_bytes, record.modified_ns) == (size_bytes, modified_ns)
        if is_same_file:
            return self.folder.candidates_path(record.key).is_file()
        if record.source != str(self.sources[name].path.absolute()):
            raise RunFolderError(
                f"{self.folder.path}: holds the picks of another micrograph named {name} ({record.source}, now "
                f"{self.sources[name].path}); choose another folder with -o, or --overwrite"
            )
        self._log(f"{name}: the file changed since it was picked; picking it again")
        return False

    def _task(self, name: str) -> Task:
        source = self.sources[name]
        return Task(name=name, path=source.path, optics_pixel_size_angstrom=source.pixel_size_angstrom)

    def _keep(self, outcome: Outcome, threshold: float) -> None:
        """Write the files of one micrograph, the record last."""
        key, source = self.keys[outcome.name], self.sources[outcome.name]
        size_bytes, modified_ns = _stat(source.path)
        picks = outcome.picks
        record = Record(
            name=outcome.name,
            key=key,
            source=str(source.path.absolute()),
            relion_name=source.listed_name or source.path.as_posix(),
            size_bytes=size_bytes,
            modified_ns=modified_ns,
            shape_yx=None if picks is None else picks.shape_yx,
            pixel_size_angstrom=None if picks is None else picks.pixel_size_angstrom,
            seconds=round(outcome.seconds, 4),
            maps=tuple(sorted(outcome.maps)),
            warnings=() if picks is None else picks.warnings,
            error=outcome.error,
        )
        result: MicrographResult | None = None
        if picks is not None:
            self.folder.write_candidates(key, picks)
            self.folder.write(self.folder.image_path(key), outcome.overview)
            for map_name, png in outcome.maps.items():
                self.folder.write(self.folder.map_path(key, map_name), png)
            result = write_picks(self.folder, record, self.folder.read_candidates(record), threshold)
        self.folder.write_record(record)
        self.records[outcome.name] = record
        if outcome.error:
            self._log(f"{outcome.name}: failed: {outcome.error}\n{outcome.details}".rstrip())
        for warning in record.warnings:
            self._log(f"{outcome.name}: {warning}")
        self._tell(_event("failed" if result is None else "done", result or record))

    def _tell(self, event: PickEvent) -> None:
        self._position += 1
        if self.on_event is not None:
            self.on_event(replace(event, position=self._position, total=len(self.sources)))

    def _log(self, line: str) -> None:
        _log.info(line)
        self.folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")


def _event(status: str, result: MicrographResult | Record) -> PickEvent:
    """The event of a micrograph that has candidates, or of one that failed; the run numbers it."""
    if isinstance(result, Record):
        return PickEvent(
            name=result.name, status=status, position=0, total=0, seconds=result.seconds, error=result.error
        )
    kept = result.candidates.kept()
    known = kept.diameter_px[np.isfinite(kept.diameter_px)]
    return PickEvent(
        name=result.record.name,
        status=status,
        position=0,
        total=0,
        count=len(kept),
        candidates=len(result.candidates),
        mean_score=result.mean_score if len(kept) else None,
        diameter_px=float(np.median(known)) if len(known) else None,
        seconds=result.record.seconds,
        warnings=result.record.warnings,
    )


def _prepares(picker: Any) -> bool:
    return isinstance(picker, PreparesForRun)


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # gone or unreadable: reading it gives the error that the user sees
        return -1, -1
    return status.st_size, status.st_mtime_ns


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
        if old.get(name) != new.get(name)
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


def event_as_dict(event: PickEvent) -> dict[str, Any]:
    """An event as one flat JSON object."""
    return {"event": "micrograph", **asdict(event)}


def summary_as_dict(summary: RunSummary) -> dict[str, Any]:
    """A summary as one flat JSON object, the last line of `--json`."""
    return {"event": "run", **{field.name: getattr(summary, field.name) for field in fields(summary)}}
