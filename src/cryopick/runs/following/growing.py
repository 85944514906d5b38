"""A run whose micrographs come one after the other, go away, and are renamed, while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cryopick.errors import RunFolderError
from cryopick.io.inputs.sources import MicrographSource
from cryopick.pickers.protocol import surveys
from cryopick.pickers.survey import Survey
from cryopick.processing.belief import OpenCandidates
from cryopick.runs.folder import PREPARED, assign_keys
from cryopick.runs.one import Looked, Outcome, Task, file_stamp
from cryopick.runs.picked_with import is_stale, picked_with
from cryopick.runs.pinning import settle_computing
from cryopick.runs.record import Record
from cryopick.runs.renames import drop_record
from cryopick.runs.report.page import write_report
from cryopick.runs.results import RunSummary, read_finished, write_results
from cryopick.runs.run import Run
from cryopick.runs.settings import PickSettings, settings_sections
from cryopick.runs.stored_settings import read_survey
from cryopick.runs.threshold import Cut, open_candidates
from cryopick.settings import to_toml


class GrowingRun(Run):
    """A run of which every micrograph is added, picked and kept by itself."""

    threshold: float
    """By which picks are counted and written so far."""

    def begin(self) -> None:
        """Take over what an earlier call has left: how the run computes, what was seen, which threshold holds."""
        is_begun = any(record.is_done for record in self.records.values())
        computing = settle_computing(self.folder, self.plan.picker, is_begun=is_begun, ask=self._ask)
        self.plan = replace(self.plan, computing=computing)
        self.require_computing_here()
        survey = None
        if surveys(self.plan.picker):
            try:
                survey = read_survey(self.folder, type(self.plan.picker))
            except RunFolderError as error:
                self._log(f"{error}; it is made again")
        self.look_by(survey)
        self.threshold = self.threshold_so_far()

    def add(self, sources: Iterable[MicrographSource]) -> None:
        """Take in micrographs that were not there before, and those that have changed."""
        new = {source.name: source for source in sources}
        self.sources |= new
        unkeyed = [name for name in new if name not in self.keys]
        if unkeyed:
            taken = {name: record.key for name, record in self.records.items()} | self.keys
            self.keys |= assign_keys(unkeyed, taken, problems=self.unnamable)
            self._match_masks_of_all()

    def has_picks(self, name: str) -> bool:
        """Whether a micrograph was picked from the file as it is now, by whatever survey."""
        return self._is_finished(name)

    def is_stale(self, name: str) -> bool:
        """Whether the run would pick a micrograph otherwise now."""
        record = self.records.get(name)
        return record is not None and is_stale(record, self.plan)

    def look_by(self, survey: Survey | None, settings: PickSettings | None = None) -> None:
        """Pick by another survey, and other settings, from now on."""
        plan = replace(self.plan, survey=survey, settings=settings or self.plan.settings)
        self.plan = replace(plan, picked_with=picked_with(plan))

    def keep_survey(self) -> None:
        """Write the survey into the folder."""
        if self.plan.survey is not None:
            text = to_toml({"survey": self.plan.survey.to_plain()})
            self.folder.write(self.folder.path / PREPARED, text, is_durable=True)

    def open_candidates(self, name: str) -> OpenCandidates:
        """Of a micrograph that has its picks, what the threshold of the run is chosen from."""
        return open_candidates(self.folder.read_candidates(self.records[name]), self.plan.picker)

    def write_tables_so_far(self, cut: Cut, status: Mapping[str, str], so_far: str) -> RunSummary:
        """Write the tables and the report of what there is, marked as provisional.

        Parameters
        ----------
        cut : in force
        status : of micrographs that are not simply done, by name
        so_far : how far the run has come, for the report
        """
        finished = read_finished(self.folder, self.plan.picker)
        self.folder.begin_tables()
        results = write_results(
            self.folder,
            self.plan,
            finished,
            facts=self._facts(is_stopped=True),
            notes=self.notes,
            status=status,
            so_far=cut,
        )
        write_report(self.folder, results, settings_sections(self.plan.settings), so_far=so_far)
        self.folder.end_tables()
        return results.summary

    def warn(self, sentence: str) -> None:
        """Say something to whoever reads logs, and to `run.log`."""
        self._warn(sentence)

    def note_in_log(self, line: str) -> None:
        """A line for `run.log`."""
        self._log(line)

    def task(self, name: str) -> Task:
        """A micrograph as workers pick it that began with another survey."""
        looked = Looked(survey=self.plan.survey, picked_with=self.plan.picked_with)
        return replace(self._task(name), looked=looked)

    def keep(self, outcome: Outcome) -> Record:
        """Write the files of a micrograph, the record last."""
        self._keep(outcome, self.threshold)
        return self.records[outcome.name]

    def drop(self, name: str) -> bool:
        """Forget a micrograph and remove its files; False where there is no record of it."""
        self.sources.pop(name, None)
        self.keys.pop(name, None)
        record = self.records.pop(name, None)
        if record is None:
            return False
        drop_record(self.folder, record)
        return True

    def _match_masks_of_all(self) -> None:
        if self.plan.settings.run.exclusion_masks is not None:
            self._mask_of = self._match_masks()
            self._mask_stamps = {name: file_stamp(path) for name, path in self._mask_of.items()} | self._mask_stamps
