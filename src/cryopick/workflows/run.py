"""One call of the picking workflow on a run folder: what is finished, what is left, what each micrograph came to."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, RunFolderError, SettingsError
from cryopick.io.inputs import MicrographSource
from cryopick.pickers.protocol import PreparesForRun, PreparesInFolder
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph
from cryopick.workflows.pick_one import Outcome, Task, read_task
from cryopick.workflows.pick_settings import PickSettings, settings_sections
from cryopick.workflows.report import write_report
from cryopick.workflows.results import (
    MicrographResult,
    RunSummary,
    at_threshold,
    threshold_of,
    write_picks,
    write_results,
)
from cryopick.workflows.run_folder import MODEL, PREPARED, Record, RunFolder, assign_keys
from cryopick.workflows.settings import as_plain, convert_settings, to_toml
from cryopick.workflows.workers import default_workers, pick_in_workers

SAMPLE_SIZE = 6
"""Micrographs, spread evenly over the run, that a picker which prepares itself is shown."""

MOST_REFUSED = 16
"""Micrographs for which the settings may be impossible before the run ends, where no other has worked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PickEvent:
    """What the caller of a run hears of each micrograph."""

    name: str
    status: str
    """`done`, `failed`, or `skipped` where an earlier call had finished it; first of all `started`, with no name."""
    position: int
    """1 for the first micrograph, 0 for the start."""
    total: int
    count: int = 0
    """Picks at the run's threshold; provisional where the picker chooses the threshold from all scores at the end."""
    candidates: int = 0
    mean_score: float | None = None
    diameter_px: float | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""


class Run:
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
        self.sources = {known.get(os.path.abspath(source.path), source.name): source for source in sources}
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
            sample = self._sample()
            if not sample:  # nothing can be read: each micrograph will say why
                return
            if isinstance(picker, PreparesInFolder):
                prepared = picker.prepare_in(self.folder.path / MODEL, sample)
            else:
                prepared = picker.prepare(sample)
            self.folder.write(path, to_toml({picker.name: as_plain(prepared)}))
            before = as_plain(picker)
            learnt = {name: value for name, value in as_plain(prepared).items() if before.get(name) != value}
            self._log(f"picker {picker.name} prepared itself: {learnt or 'nothing changed'}")
        self.settings = replace(self.settings, picker=prepared)

    def _sample(self) -> list[Micrograph]:
        names = list(self.sources)
        picker = self.settings.picker
        size = picker.sample_size if isinstance(picker, PreparesInFolder) else SAMPLE_SIZE
        wanted = dict.fromkeys(evenly_taken(range(len(names)), size))
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
        if self.on_event is not None:
            self.on_event(PickEvent(name="", status="started", position=0, total=len(self.sources)))
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
        # Settings may be impossible for one micrograph alone, whose pixel size is unknown; of all they end the run.
        refused: list[Outcome] = []
        for outcome in pick_in_workers(todo, self.settings, workers=count):
            if outcome.is_settings_error and not any(record.is_done for record in self.records.values()):
                refused.append(outcome)
                if len(refused) == MOST_REFUSED and not _prepares(self.settings.picker):
                    break  # preparation has looked at micrographs from the whole run
                continue
            for one in (*refused, outcome):
                self._keep(one, threshold)
            refused = []
        if refused:
            first = refused[0]
            raise SettingsError(f"{first.name}: {first.error.removeprefix(f'{first.name}: ')}")

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
        if record.source != os.path.abspath(self.sources[name].path):
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
            source=os.path.abspath(source.path),
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


def event_as_dict(event: PickEvent) -> dict[str, Any]:
    """An event as one flat JSON object."""
    if event.status == "started":
        return {"event": "start", "total": event.total}
    return {"event": "micrograph", **asdict(event)}


def summary_as_dict(summary: RunSummary) -> dict[str, Any]:
    """A summary as one flat JSON object, the last line of `--json`."""
    return {"event": "run", **asdict(summary)}
