"""One call of the picking workflow on a run folder: what is finished, what is left, what each micrograph came to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import RunFolderError, SettingsError
from cryopick.inference.computing import Computing, computing_here
from cryopick.inference.progress import told_to
from cryopick.io.coordinates.candidates import as_written
from cryopick.io.inputs.search import shown
from cryopick.io.inputs.sources import MicrographSource
from cryopick.pickers.protocol import surveys
from cryopick.pickers.survey import Survey
from cryopick.runs.exclusion_masks import match_masks, require_some_mask
from cryopick.runs.facts import FINISHED, RunFacts, facts_of_now, read_facts
from cryopick.runs.files import used_files
from cryopick.runs.folder import (
    LOG,
    MODEL,
    PREPARED,
    DamagedError,
    RunFolder,
    UnusableNameError,
    assign_keys,
    unnamed_key,
)
from cryopick.runs.on_cluster import Cluster
from cryopick.runs.one import NO_FILE, Outcome, Task, file_stamp
from cryopick.runs.picked_with import is_stale, picked_with
from cryopick.runs.pinning import require_computing_here, settle_computing
from cryopick.runs.place import folder_of_the_first_pick
from cryopick.runs.record import Record, map_problem
from cryopick.runs.renames import drop_record, moved_records, rename_keys
from cryopick.runs.report.page import write_report
from cryopick.runs.results import MicrographResult, RunSummary, read_finished, write_picks, write_results
from cryopick.runs.settings import PickPlan, PickSettings, settings_sections
from cryopick.runs.stored_settings import read_survey
from cryopick.runs.surveying import SurveyErrand, Surveying
from cryopick.runs.threshold import Cut, at_threshold, cut_of
from cryopick.runs.workers import Workforce
from cryopick.scale.executor import Executor, run_all
from cryopick.settings import to_toml
from cryopick.types import Picks

MOST_NAMED = 3
"""Micrographs that a warning about several names; the log names all."""
MOST_REFUSED = 16
"""Micrographs for which the settings may be impossible before the run ends, where no other has worked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PickEvent:
    """What the caller of a run hears of each micrograph."""

    name: str
    status: str
    """`done`, `failed`, or `skipped` where an earlier call had finished it; before them `started`, with no name, and
    before that `surveying`, also with no name, while the picker looks at a few micrographs. On a cluster also
    `workers`, with no name, whenever their number changes."""
    position: int
    """1 for the first micrograph, 0 for the start; while surveying, of those that are looked at."""
    total: int
    doing: str = ""
    """What the survey is at, such as `measuring the particle diameter`; of `workers`, how many there are and why no
    more, such as `3 of 16 workers; 13 jobs pending (Resources)`."""
    count: int = 0
    """Picks at the run's threshold; provisional where the picker chooses the threshold from all scores at the end."""
    candidates: int = 0
    mean_score: float | None = None
    diameter_px: float | None = None
    diameter_angstrom: float | None = None
    threshold: float | None = None
    """The score by which `count` was counted."""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""
    path: str = ""
    """Of the image; this and the following are absolute, and "" where there is no such file."""
    picks_file: str = ""
    candidates_file: str = ""
    image_file: str = ""
    """The picture of the report."""
    output: str = ""
    """The run folder, at the start."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the run, at the start, as the sections of `config.toml`."""


class Run:
    """The state of one call of `pick_to_folder`."""

    def __init__(
        self,
        folder: RunFolder,
        sources: Sequence[MicrographSource],
        settings: PickSettings,
        on_event: Callable[[PickEvent], None] | None,
        *,
        is_alone: bool = True,
    ) -> None:
        """`is_alone` is False where other processes pick other micrographs of the run meanwhile."""
        self.folder = folder
        self._is_alone = is_alone
        self.plan = PickPlan(settings=settings)
        self.on_event = on_event
        self.cluster: Cluster | None = None
        """Where the run is looked at and picked, if not on this machine."""
        self._begun = facts_of_now()
        self._has_picked = False
        self.status: dict[str, str] = {}
        """What `micrographs.star` calls micrographs that are not simply done, by name."""
        self.counts: dict[str, int] = {}
        """Picks of each finished micrograph, once the tables are written."""
        self.notes: dict[str, int] = {}
        """Warnings about the run as a whole, and for how many micrographs each holds."""
        records, self._damaged_records = folder.read_records()
        self.records = {record.name: record for record in records}
        self.moved = self._drop_moved([source.path for source in sources]) if is_alone else {}
        """Where micrographs are now that were renamed since they were picked, by their old name."""
        self._base = folder_of_the_first_pick(records)
        # names depend on what else is given, so a file that this run knows keeps the name that it has here
        known = {record.source: record.name for record in self.records.values()}
        self.sources = {known.get(os.path.abspath(source.path), source.name): source for source in sources}
        taken = {name: record.key for name, record in self.records.items()}
        self.unnamable: dict[str, str] = {}
        self.keys = assign_keys(list(self.sources), taken, problems=self.unnamable)
        self._mask_of = self._match_masks()
        # before any is read, so that one that is replaced meanwhile is known as another
        self._mask_stamps = {name: file_stamp(path) for name, path in self._mask_of.items()}
        self.skipped = [name for name in self.sources if self._is_finished(name)]
        self._position = 0
        if folder.lock_doubt:
            self._note(folder.lock_doubt, folder.lock_doubt)
        others = sorted(set(self.records) - set(self.sources)) if is_alone else []
        if others:
            self._log(f"{len(others)} micrographs of this run are not among those given now; they stay in it")
        gone = [name for name in others if not os.path.lexists(self.records[name].source)]
        if gone:
            told = (
                f"{len(gone)} micrographs of this run are not among those given now, and their files are gone, such as "
                f"{gone[0]}; their picks stay in its tables: pick into a new folder to leave them out"
            )
            self._note(told, told)

    def _drop_moved(self, given: Sequence[Path]) -> dict[str, Path]:
        """Remove what was picked under names that files no longer have; they are picked under the new ones."""
        moved = moved_records(self.records.values(), given)
        if moved:
            self.folder.begin_tables()
        for name, path in moved.items():
            drop_record(self.folder, self.records.pop(name))
            self._log(f"{name}: was renamed to {path}; it is picked under its new name, and the old picks are removed")
        return moved

    def assign_keys_anew(self) -> list[str]:
        """Call files as a run would that was given all these micrographs at once; the tables must be written after it.

        A run that grew called its files when it knew fewer micrographs. Those that are not given keep their keys. Where
        this is killed, the same call finishes it.

        Returns
        -------
        names : of the micrographs whose files have another key now
        """
        others = {name: record.key for name, record in self.records.items() if name not in self.sources}
        self.unnamable = {}
        self.keys = assign_keys(list(self.sources), others, problems=self.unnamable)
        done = {name: record for name, record in self.records.items() if name in self.sources and record.is_done}
        renamed = [name for name, record in done.items() if record.key != self.keys[name]]
        lost = [name for name in renamed if name in self.unnamable]
        for name in lost:
            self.folder.begin_tables()
            drop_record(self.folder, self.records.pop(name))
            self._keep(Outcome(name=name, error=self.unnamable[name]), self.threshold_so_far())
        keys = {done[name].key: self.keys[name] for name in renamed if name not in lost}
        rename_keys(self.folder, keys)
        for name in renamed:
            if name not in lost:
                self.records[name] = replace(done[name], key=self.keys[name])
                self._log(f"{name}: its files are called {self.keys[name]} now, and were {done[name].key}")
        return renamed

    def look_first(self) -> None:
        """Settle how the run computes, and let a picker that wants to see some micrographs first do so, once a folder.

        Afterwards it is known which micrographs were picked otherwise than the run would pick them now.
        """
        is_begun = not self._is_alone or any(record.is_done for record in self.records.values())
        computing = settle_computing(self.folder, self.plan.picker, is_begun=is_begun, ask=self._ask)
        self.plan = replace(self.plan, computing=computing)
        self._look()
        self.plan = replace(self.plan, picked_with=picked_with(self.plan))
        self._pick_stale_again()

    def keep_to(self, names: Iterable[str]) -> None:
        """Pick these alone of the micrographs that are given; after `look_first`, which looks at all of them."""
        own = set(names)
        self.sources = {name: source for name, source in self.sources.items() if name in own}
        self.skipped = [name for name in self.skipped if name in own]

    def _ask(self, picker: Any) -> Computing:
        """What the settings of a picker mean where it will run."""
        return computing_here(picker) if self.cluster is None else self.cluster.computing(self.plan)

    def pick_on(self, cluster: Cluster) -> None:
        """Look at the micrographs and pick them on a cluster; whoever opened it closes it."""
        self.cluster = cluster
        cluster.on_line, cluster.on_status = self._log, self._tell_workers

    def _tell_workers(self, text: str) -> None:
        if self.on_event is not None:
            self.on_event(PickEvent(name="", status="workers", position=0, total=len(self.sources), doing=text))

    def stale(self) -> list[str]:
        """Names of finished micrographs, given now or not, that were picked otherwise than the plan of now would."""
        return [name for name, record in self.records.items() if is_stale(record, self.plan)]

    def _pick_stale_again(self) -> None:
        stale = set(self.stale())
        again = [name for name in self.skipped if name in stale and file_stamp(self.sources[name].path) != NO_FILE]
        self.skipped = [name for name in self.skipped if name not in set(again)]
        if again:
            self._note_many(
                "{} was picked with another measured size, other weights or other numbers than the run has now, and is "
                "picked again",
                dict.fromkeys(again, "was picked otherwise than the run picks now; picking it again"),
            )
        left = sorted(name for name in stale if name in self.skipped or name not in self.sources)
        if left:
            self._note_many(
                "{} was picked with another measured size, other weights or other numbers than the run has now, and "
                "stays so, as it is not given or its file is gone",
                dict.fromkeys(left, "was picked otherwise than the run picks now, and stays so"),
            )

    def _look(self) -> None:
        """Fill in the survey of the plan: that of the folder, or a new one."""
        picker = self.plan.picker
        if not surveys(picker):
            return
        try:
            survey = read_survey(self.folder, type(picker))
        except RunFolderError as error:
            self._note(f"{PREPARED} was damaged and was made again", f"{error}")
            survey = None
        if survey is None:
            self.require_computing_here()
            self._log(f"picker {picker.name} looks at some micrographs first, to measure what it was not given")
            survey = self._survey()
            if survey is None:  # nothing can be read: each micrograph will say why
                return
            self.folder.write(self.folder.path / PREPARED, to_toml({"survey": survey.to_plain()}), is_durable=True)
            self._log(f"picker {picker.name} looked at the micrographs first: {survey.to_plain() or 'nothing learnt'}")
        self.plan = replace(self.plan, survey=survey)

    def require_computing_here(self) -> None:
        """Raise `WorkerError` where this machine, if it is to pick, cannot compute as the run was begun."""
        if self.plan.computing is not None and self.cluster is None:
            require_computing_here(self.folder, self.plan.picker, self.plan.computing)

    def _survey(self) -> Survey | None:
        tasks = [self._task(name) for name in self.sources]
        if self.cluster is not None:
            return self._surveyed_on(self.cluster, tasks)
        with told_to(self._tell_survey):
            return Surveying(tasks, self.plan, self.folder.path / MODEL, self._log).survey()

    def _surveyed_on(self, cluster: Cluster, tasks: Sequence[Task]) -> Survey | None:
        self._tell_survey("looking at some micrographs, on a worker", 1, 1)
        errand = SurveyErrand(tasks=tuple(tasks), model_folder=Path(os.path.abspath(self.folder.path)) / MODEL)
        seen = cluster.surveyed(self.plan, errand)
        for line in seen.log:
            self._log(line)
        if seen.error:
            raise SettingsError(seen.error)
        return seen.survey

    def _tell_survey(self, doing: str, position: int, total: int) -> None:
        if self.on_event is not None:
            self.on_event(PickEvent(name="", status="surveying", position=position, total=total, doing=doing))

    def _match_masks(self) -> dict[str, Path]:
        """The exclusion mask of each micrograph that has one."""
        folder = self.plan.settings.run.exclusion_masks
        if folder is None:
            return {}
        names = list(dict.fromkeys([*self.sources, *self.records]))
        matched = match_masks(names, folder)
        require_some_mask(matched, names, folder)
        if matched.unused:
            self._warn(
                f"exclusion masks: {len(matched.unused)} images in {folder} belong to no micrograph of this run, or to "
                f"one that has another mask: {shown(path.name for path in matched.unused)}"
            )
        return matched.of_micrograph

    def pick(self, workforce: Workforce) -> None:
        """Pick what is not finished, and keep what comes of it, in the order in which it ends."""
        threshold = self.threshold_so_far()
        if self.on_event is not None:
            self.on_event(
                PickEvent(
                    name="",
                    status="started",
                    position=0,
                    total=len(self.sources),
                    output=os.path.abspath(self.folder.path),
                    settings=settings_sections(self.plan.settings),
                )
            )
        todo = self._left_to_pick(threshold)
        if not todo:
            return
        self.require_computing_here()
        self.folder.begin_tables()
        for name in todo:
            if name in self.unnamable:
                self._keep(Outcome(name=name, error=self.unnamable[name]), threshold)
        names = [name for name in todo if name not in self.unnamable]
        with closing(workforce.open(self.plan, tasks=len(names))) as executor:
            finished = len(self.sources) - len(todo)
            self._log(f"{len(names)} micrographs to pick, {finished} finished before, by {executor}")
            changed = self._pick_all(executor, names, threshold)
            self._pick_changed(executor, changed, threshold)

    def _pick_all(self, executor: Executor, names: Sequence[str], threshold: float) -> list[str]:
        """Pick these and keep what comes of them; given back are those whose file was replaced meanwhile."""
        changed: list[str] = []
        # Settings may be impossible for one micrograph alone, whose pixel size is unknown; of all they end the run.
        refused: list[Outcome] = []
        for outcome in self.outcomes(executor, names):
            if outcome.is_settings_error and not any(record.is_done for record in self.records.values()):
                refused.append(outcome)
                if len(refused) == MOST_REFUSED and not surveys(self.plan.picker):
                    break  # preparation has looked at micrographs from the whole run
                continue
            if self.has_changed(outcome):
                self._log(f"{outcome.name}: the file changed while it was picked; picking it again")
                changed.append(outcome.name)
                continue
            for one in (*refused, outcome):
                self._keep(one, threshold)
            refused = []
        if changed:
            for one in refused:
                self._keep(one, threshold)
        elif refused:
            first = refused[0]
            raise SettingsError(f"{first.name}: {first.error.removeprefix(f'{first.name}: ')}")
        return changed

    def _pick_changed(self, executor: Executor, names: Sequence[str], threshold: float) -> None:
        """Once more what was replaced while it was picked; a second change is only told."""
        unsettled: dict[str, str] = {}
        for outcome in self.outcomes(executor, names):
            if self.has_changed(outcome):
                unsettled[outcome.name] = "the file changed again while it was picked"
            self._keep(outcome, threshold)
        if unsettled:
            self._note_many(
                "{} changed while it was picked, so its picks may be of an earlier image; when it is whole run the "
                "same command again",
                unsettled,
            )

    def outcomes(
        self, executor: Executor, names: Iterable[str | None], *, poll_s: float | None = None
    ) -> Iterator[Outcome]:
        """What comes of the micrographs of these names, as it ends; nothing is kept yet.

        Parameters
        ----------
        names : asked for the next one whenever there is room for it; None says that there is none now, see `run_all`
        poll_s : after a None, ask again after so many seconds at the latest
        """
        items = (None if name is None else (name, self._task(name)) for name in names)
        for done in run_all(executor, items, poll_s=poll_s):
            if done.result is None:
                yield Outcome(name=done.key, error=done.lost, details=done.details, seconds=done.seconds)
            else:
                outcome: Outcome = done.result
                yield outcome

    def _left_to_pick(self, threshold: float) -> list[str]:
        """The names that are not finished, or whose files are damaged; the others are told of as skipped."""
        skipped = set(self.skipped)
        todo: list[str] = []
        damaged: dict[str, str] = {}
        for name in self.sources:
            result = self._read_back(name, threshold, damaged) if name in skipped else None
            if result is not None:
                self._tell(_event("skipped", result, self.folder, threshold))
                continue
            todo.append(name)
            if self.keys[name] in self._damaged_records:
                damaged[name] = self._damaged_records[self.keys[name]]
        if damaged:
            self._note_many("{} was damaged in the run folder and is picked again", damaged)
        return todo

    def finish(self, *, is_stopped: bool = False) -> RunSummary:
        """Write tables and report; every micrograph must have its record, unless picking was stopped."""
        finished = read_finished(self.folder, self.plan.picker)
        there = {record.name for record in finished.records}
        missing = [name for name in self.sources if name not in there]
        if missing and not is_stopped:
            raise RunFolderError(
                f"{self.folder.path}: {len(missing)} of {len(self.sources)} micrographs have no record, the first "
                f"being {missing[0]}; files were removed from the run folder, or damaged, while cryopick was writing "
                "to it; run the same command again"
            )
        if finished.damaged:
            self._note_many(
                "{} is damaged in the run folder and left out of the tables; give its micrograph too to pick it again",
                finished.damaged,
            )
        self.folder.begin_tables()
        self._log("choosing the threshold; writing tables and report")
        results = write_results(
            self.folder,
            self.plan,
            finished,
            facts=self._facts(is_stopped=is_stopped),
            notes=self.notes,
            status=self.status,
        )
        write_report(self.folder, results, settings_sections(self.plan.settings), full_with=self.plan.settings.run)
        self.folder.end_tables()
        summary = results.summary
        self.counts = {one.record.name: one.count for one in results.micrographs}
        self._log(f"{summary.particles} particles in {summary.micrographs} micrographs, {len(summary.failed)} failed")
        return summary

    def _facts(self, *, is_stopped: bool) -> RunFacts:
        before = read_facts(self.folder)
        if not (self._has_picked or is_stopped) and before.state == FINISHED:
            return before  # of the call that picked
        facts = replace(self._begun, files=used_files(self.plan.picker, self.plan.survey))
        return facts.with_computing(self.plan.computing).at_end(is_stopped=is_stopped)

    def _read_back(self, name: str, threshold: float, damaged: dict[str, str]) -> MicrographResult | None:
        """A finished micrograph from its files; None, and an entry in `damaged`, where they are not whole."""
        record = self.records[name]
        try:
            candidates = self.folder.read_candidates(record)
        except DamagedError as error:
            damaged[name] = error.what
            return None
        return MicrographResult(record=record, candidates=at_threshold(candidates, threshold))

    def has_changed(self, outcome: Outcome) -> bool:
        """Whether another file lies there than the one that was picked; one that is gone was not replaced."""
        now = file_stamp(self.sources[outcome.name].path)
        return outcome.stamp is not None and now not in (NO_FILE, outcome.stamp)

    def threshold_so_far(self) -> float:
        """By which picks are counted and written until the tables are."""
        if self.plan.settings.selection.threshold is None and self.folder.moved_threshold() is None:
            return float(self.plan.picker.default_threshold)
        return cut_of(self.folder, self.plan).threshold

    def _is_finished(self, name: str) -> bool:
        record = self.records.get(name)
        if record is None or not record.is_done:
            return False
        source = self.sources[name]
        stamp = file_stamp(source.path)
        if (record.size_bytes, record.modified_ns) == stamp:
            if record.mask_stamp not in (None, self._mask_stamp(name)):
                self._log(f"{name}: its exclusion mask changed since it was picked; picking it again")
                return False
            return True
        if record.source != os.path.abspath(source.path):
            raise RunFolderError(
                f"{self.folder.path}: holds the picks of another micrograph named {name} ({record.source}, now "
                f"{source.path}); choose another folder with -o, or --overwrite"
            )
        if stamp == NO_FILE:
            text = "the files of micrographs that were picked before are gone; their picks are kept"
            self._note(text, f"{name}: the file is gone; its picks are kept")
            return True
        self._log(f"{name}: the file changed since it was picked; picking it again")
        return False

    def _mask_stamp(self, name: str) -> tuple[int, int] | None:
        """By which a replaced exclusion mask is known; None in a run without masks."""
        return None if self.plan.settings.run.exclusion_masks is None else self._mask_stamps.get(name, NO_FILE)

    def _task(self, name: str) -> Task:
        """What a worker is given: paths from the root, so that errors name the same file whoever meets them."""
        source, mask = self.sources[name], self._mask_of.get(name)
        return Task(
            name=name,
            path=Path(os.path.abspath(source.path)),
            optics_pixel_size_angstrom=source.pixel_size_angstrom,
            exclusion_mask=None if mask is None else Path(os.path.abspath(mask)),
        )

    def _keep(self, outcome: Outcome, threshold: float) -> None:
        """Write the files of one micrograph, the record last."""
        self._has_picked = True
        source, picks = self.sources[outcome.name], outcome.picks
        before = self.records.get(outcome.name)
        key = self.keys[outcome.name]
        maps = {name: png for name, png in outcome.maps.items() if not map_problem(key, name)}
        left_out = tuple(
            f"the picture of map {name[:40]!r} is left out of the run folder: {map_problem(key, name)}"
            for name in outcome.maps
            if name not in maps
        )
        size_bytes, modified_ns = outcome.stamp or file_stamp(source.path)
        record = Record(
            name=outcome.name,
            key=key,
            source=os.path.abspath(source.path),
            relion_name=self._relion_name(source, before),
            size_bytes=size_bytes,
            modified_ns=modified_ns,
            shape_yx=None if picks is None else picks.shape_yx,
            pixel_size_angstrom=None if picks is None else picks.pixel_size_angstrom,
            seconds=round(outcome.seconds, 4),
            maps=tuple(sorted(maps)),
            warnings=() if picks is None else (*picks.warnings, *left_out),
            error=outcome.error,
            candidate_count=None if picks is None else len(picks),
            junk_share=None if picks is None else outcome.junk_share,
            mask_stamp=self._mask_stamp(outcome.name),
            picked_with=outcome.picked_with,
            inode=_inode(source.path),
            least_centring_error_px={} if picks is None else _rounded(picks.least_centring_error_px),
            processor=outcome.processor,
        )
        result: MicrographResult | None = None
        stale_maps = () if before is None or before.key != key else [name for name in before.maps if name not in maps]
        try:
            if picks is None:
                self.folder.remove_results(key, stale_maps)
            else:
                result = self._write_results_of(record, picks, outcome.overview, maps, threshold)
                self.folder.remove_pictures(key, stale_maps)
            self.folder.write_record(record)
        except UnusableNameError as error:
            result = None
            record = replace(record, key=unnamed_key(record.name), maps=(), candidate_count=None, error=str(error))
            self.folder.write_record(record)
        if result is not None:
            self.folder.drop_replaced()
        self.records[outcome.name] = record
        if record.error:
            self._log(f"{outcome.name}: failed: {record.error}\n{outcome.details}".rstrip())
        for warning in record.warnings:
            self._log(f"{outcome.name}: {warning}")
        self._tell(_event("failed" if result is None else "done", result or record, self.folder, threshold))

    def _write_results_of(
        self, record: Record, picks: Picks, overview: bytes, maps: Mapping[str, bytes], threshold: float
    ) -> MicrographResult:
        self.folder.write_candidates(record.key, picks)
        self.folder.write(self.folder.image_path(record.key), overview)
        for name, png in maps.items():
            self.folder.write(self.folder.map_path(record.key, name), png)
        candidates = replace(as_written(picks), micrograph_name=record.name, warnings=record.warnings)
        return write_picks(self.folder, record, candidates, Cut(threshold=threshold), is_durable=True)

    def _relion_name(self, source: MicrographSource, before: Record | None) -> str:
        """What RELION calls a micrograph: as at the first pick, from whichever folder this call is made."""
        if source.listed_name is not None:
            return source.listed_name
        place = os.path.abspath(source.path)
        if before is not None and before.source == place:
            return before.relion_name
        if self._base is not None and Path(place).is_relative_to(self._base):
            return Path(place).relative_to(self._base).as_posix()
        return source.path.as_posix()

    def _note(self, warning: str, line: str) -> None:
        """A warning for the summary, counted, and what it is about for the log."""
        self.notes[warning] = self.notes.get(warning, 0) + 1
        self._log(line)

    def _note_many(self, warning: str, details: Mapping[str, str]) -> None:
        """One warning about several micrographs, with the names of the first in place of `{}`; all in the log."""
        names = ", ".join(list(details)[:MOST_NAMED])
        more = f" (and {len(details) - MOST_NAMED} more, see {LOG})" if len(details) > MOST_NAMED else ""
        self.notes[warning.format(names + more)] = len(details)
        for name, detail in details.items():
            self._log(f"{name}: {detail}")

    def _tell(self, event: PickEvent) -> None:
        self._position += 1
        if self.on_event is not None:
            self.on_event(replace(event, position=self._position, total=len(self.sources)))

    def _warn(self, sentence: str) -> None:
        _log.warning("%s", sentence)
        self.folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} {sentence}")

    def _log(self, line: str) -> None:
        _log.info(line)
        self.folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except (OSError, ValueError):  # gone meanwhile
        return None


def _event(status: str, result: MicrographResult | Record, folder: RunFolder, threshold: float) -> PickEvent:
    """The event of a micrograph that has candidates, or of one that failed; the run numbers it."""
    if isinstance(result, Record):
        return PickEvent(
            name=result.name,
            status=status,
            position=0,
            total=0,
            seconds=result.seconds,
            error=result.error,
            path=result.source,
        )
    record = result.record
    kept = result.candidates.kept()
    known = kept.diameter_px[np.isfinite(kept.diameter_px)]
    diameter_px = float(np.median(known)) if len(known) else None
    angstrom_per_px = record.pixel_size_angstrom
    return PickEvent(
        name=record.name,
        status=status,
        position=0,
        total=0,
        count=len(kept),
        candidates=len(result.candidates),
        mean_score=result.mean_score if len(kept) else None,
        diameter_px=diameter_px,
        diameter_angstrom=None if diameter_px is None or angstrom_per_px is None else diameter_px * angstrom_per_px,
        threshold=threshold,
        seconds=record.seconds,
        warnings=record.warnings,
        path=record.source,
        picks_file=os.path.abspath(folder.picks_path(record.key)),
        candidates_file=os.path.abspath(folder.candidates_path(record.key)),
        image_file=os.path.abspath(folder.image_path(record.key)),
    )


def event_as_dict(event: PickEvent) -> dict[str, Any]:
    """An event as one flat JSON object."""
    if event.status == "started":
        return {"event": "start", "total": event.total, "output": event.output, "settings": event.settings}
    if event.status == "workers":
        return {"event": "workers", "text": event.doing}
    if event.status == "surveying":
        return {"event": "survey", "doing": event.doing, "position": event.position, "total": event.total}
    content = {name: value for name, value in asdict(event).items() if name not in ("output", "settings")}
    return {"event": "micrograph", **content}


def summary_as_dict(summary: RunSummary) -> dict[str, Any]:
    """A summary as one flat JSON object, the last line of `--json`."""
    return {"event": "run", **asdict(summary)}


def _rounded(distances: Mapping[str, float]) -> dict[str, float]:
    return {whose: round(distance, 4) for whose, distance in distances.items()}
