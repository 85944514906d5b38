"""The loop that follows a session: what arrives is picked, what was picked otherwise is picked again, sums are told."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cryopick.errors import RunFolderError
from cryopick.io.inputs.arrivals import Arrival, Arrivals
from cryopick.io.inputs.listings import Lister
from cryopick.pickers.protocol import SurveysInFolder
from cryopick.pickers.survey import Survey
from cryopick.runs.folder import MODEL, DamagedError, RunFolder
from cryopick.runs.following.clock import Clock
from cryopick.runs.following.events import EventKind, WatchEvent
from cryopick.runs.following.growing import GrowingRun
from cryopick.runs.following.moving_threshold import MovingThreshold
from cryopick.runs.following.options import WatchOptions
from cryopick.runs.following.preparing import Preparing
from cryopick.runs.following.state import ENDING, FOLLOWING, FollowState, now_text, write_state
from cryopick.runs.one import Outcome
from cryopick.runs.results import write_picks
from cryopick.runs.run import PickEvent, event_as_dict
from cryopick.runs.settings import PickSettings
from cryopick.runs.surveying import Surveyed, SurveyErrand
from cryopick.runs.threshold import Cut, choose_cut, needs_all_scores, open_candidates
from cryopick.scale.executor import Done, Executor

STOP = "STOP"
"""A file of this name in the run folder ends the run."""
SURVEY_KEY = "\0survey"
"""Of the look at the micrographs among the work given out; no micrograph can be called so."""
FULL_DISK_SECONDS = 30.0
"""Until a full disk is tried again."""
TABLES_SHARE = 0.02
"""Of the time, that writing provisional tables may take."""
BEHIND_SECONDS = 600.0
"""The backlog is told of when it has grown for so long."""
_LONGEST_WAIT_SECONDS = 0.25
"""Until a stop is noticed."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class _Rates:
    """What came and what was picked, at moments of the last while."""

    seen: deque[tuple[float, int, int]] = field(default_factory=deque)
    told: float = float("-inf")

    def behind(self, now: float, came: int, picked: int) -> str:
        """How fast micrographs come and are picked, where the backlog has grown all the while; "" elsewhere."""
        self.seen.append((now, came, picked))
        while len(self.seen) > 1 and self.seen[1][0] <= now - BEHIND_SECONDS:
            self.seen.popleft()
        begin, came_then, picked_then = self.seen[0]
        backlogs = [one - other for _, one, other in self.seen]
        third = max(1, len(backlogs) // 3)
        is_growing = min(backlogs[-third:]) > max(backlogs[:third])
        if not is_growing or now - begin < BEHIND_SECONDS or now - self.told < BEHIND_SECONDS:
            return ""
        self.told = now
        minutes = (now - begin) / 60
        return (
            f"arriving {(came - came_then) / minutes:.1f}/min, picking {(picked - picked_then) / minutes:.1f}/min: "
            "a larger --jobs or --workers would keep up"
        )


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Settings with the sizes that stay, and the survey with the sizes as the settings hold them."""

    settings: PickSettings
    survey: Survey


class Follower:
    """Follows one session into one run folder, which the caller has locked.

    Parameters
    ----------
    run : ready to grow, with its survey where it has one
    lister : tells what is there
    options : how the session is followed
    open_executor : makes who picks, for the plan of now; called again where the settings change
    clock : by which everything here is timed
    write_settled : keeps the settings with a size that stays; None where no settings can hold it
    on_event : hears of everything
    require_listener : called again and again; raises what ends the run where it is
    """

    def __init__(
        self,
        run: GrowingRun,
        lister: Lister,
        options: WatchOptions,
        *,
        open_executor: Callable[[], Executor],
        clock: Clock,
        write_settled: Callable[[Survey], Settled | None],
        on_event: Callable[[WatchEvent], None],
        require_listener: Callable[[], None] = lambda: None,
    ) -> None:
        self.run = run
        self.folder: RunFolder = run.folder
        self.options = options
        self._clock = clock
        self._open_executor = open_executor
        self._executor: Executor = open_executor()
        self._write_settled = write_settled
        self._emit = on_event
        self._require_listener = require_listener
        known = {record.name: (record.size_bytes, record.modified_ns) for record in run.records.values()}
        self.arrivals = Arrivals(lister, options.quiet_s, known=known)
        self.preparing = Preparing(run.plan.picker, settle=options.settle, survey=run.plan.survey)
        self.threshold = MovingThreshold(Cut(threshold=run.threshold))
        self.moved: list[str] = []
        self.gone: dict[str, None] = {}
        self.revisions: dict[str, int] = {}
        self.stop_reason = ""
        self._new: dict[str, None] = {}
        """Complete and not picked, in the order in which they were complete."""
        self._again: dict[str, None] = {}
        """Picked otherwise than the run would pick now, by name."""
        self._complete: dict[str, Arrival] = {}
        self._out: dict[str, None] = {}
        self._held: deque[Outcome] = deque()
        """What could not be written, since the disk is full."""
        self._unwritten: list[Callable[[], None]] = []
        self._since = now_text()
        self._begin = self._last_news = clock.now()
        self._next_look = self._begin
        self._next_summary = self._begin + options.summary_every_s
        self._next_tables = self._begin
        self._paused_until = float("-inf")
        self._is_paused = self._is_full = False
        self._has_news_for_tables = False
        self._came = self._picked = 0
        self._rates = _Rates()
        run.on_event = self._hear

    # ------------------------------------------------------------------------------------------------- the session

    def follow(self) -> None:
        """Everything until the run is to end; `stop` ends it."""
        self._write_state(FOLLOWING)
        while not self.stop_reason:
            self._step()
            self._look_for_a_reason_to_stop()

    def wind_up(self) -> None:
        """Wait for what is in hand, and for files that are not whole yet; nothing else is begun."""
        self._write_state(ENDING)
        self._tell("end", reason=self.stop_reason)
        self._take_in(self.arrivals.look(self._clock.now()))
        deadline = self._clock.now() + self.options.grace_s
        while self._out or (self.arrivals.is_waiting() and self._clock.now() < deadline):
            self._step(is_ending=True)
        self.close()
        for name in self.arrivals.incomplete():
            self._tell("incomplete", name)

    def stop(self, reason: str) -> None:
        """End properly; from any thread or signal handler."""
        self.stop_reason = self.stop_reason or reason

    def close(self) -> None:
        """End the workers, whatever they are at."""
        self._executor.close()

    def _step(self, *, is_ending: bool = False) -> None:
        """Look, give out work, take what is done, tell; or wait until one of these is due."""
        self._require_listener()
        now = self._clock.now()
        if now >= self._next_look:
            self._take_in(self.arrivals.look(now))
            took = self._clock.now() - now
            self._next_look = now + max(self.options.poll_s, 10 * took)
        self._write_held()
        if not (is_ending or self._is_paused):
            self._give_out()
        until = min(self._next_look, float("inf") if is_ending else self._next_summary) - self._clock.now()
        wait = min(max(until, 0.0), _LONGEST_WAIT_SECONDS)
        if self._out:
            done = self._executor.next(wait)
            if done is not None:
                self._take(done)
        else:
            self._clock.pause(wait)
        if self._clock.now() >= self._next_summary and not is_ending:
            self._sum_up()

    def _look_for_a_reason_to_stop(self) -> None:
        stop_file = self.options.stop_file or self.folder.path / STOP
        idle_s, count = self.options.stop_idle_s, self.options.stop_count
        is_busy = bool(self._out or self._again or self._held or (self._new and not self.preparing.is_waiting))
        if os.path.lexists(stop_file):
            self.stop(f"the file {stop_file} is there")
        elif count is not None and len(self._complete) + len(self.gone) >= count:
            self.stop(f"{count} micrographs have come")
        elif idle_s is not None and not is_busy and self._clock.now() - self._last_news >= idle_s:
            self.stop(f"nothing has come for {idle_s:g} s")

    # --------------------------------------------------------------------------------------------- what has arrived

    def _take_in(self, happened: Iterable[Arrival]) -> None:
        complete: list[Arrival] = []
        for one in happened:
            if one.what not in ("complete", "away", "back"):  # what cannot be read is complete again and again
                self._last_news = self._clock.now()
            if one.what == "complete":
                complete.append(one)
            else:
                self._note(one)
        if complete:
            self._add(complete)

    def _note(self, one: Arrival) -> None:
        if one.what == "seen":
            self._tell("seen", one.name, size=0 if one.stamp is None else one.stamp.size_bytes)
        elif one.what == "away":
            self._warn(f"{one.why}; waiting for it")
        elif one.what == "back":
            self.run.note_in_log("what is followed can be looked into")
        elif one.what == "changed":
            self._forget(one.name)
        elif one.what == "gone":
            self._forget(one.name)
            if one.name in self.run.records:
                self.gone[one.name] = None
                self._tell("gone", one.name)
                self._has_news_for_tables = True
        elif one.what == "moved":
            self._drop(one.before)
            self.moved.append(one.before)
            self._tell("moved", one.name, before=one.before)
        else:  # a companion, or a clash
            self._drop(one.name)
            kind: EventKind = "clash" if one.what == "clash" else "companion"
            self._tell(kind, one.name, of=one.before, why=one.why)

    def _add(self, arrivals: Iterable[Arrival]) -> None:
        of_name = {one.name: one for one in arrivals}
        sources = [one.source for one in of_name.values() if one.source is not None]
        self.run.add(sources)
        for name, one in of_name.items():
            if name not in self._complete and name not in self.run.records:
                self._came += 1
            self._complete[name] = one
            self.gone.pop(name, None)
            if name in self.run.unnamable:
                self._keep(Outcome(name=name, error=self.run.unnamable[name]))
            elif not self.run.has_picks(name) or not self._read_back(name):
                self._new[name] = None
            elif self.run.is_stale(name):
                self._again[name] = None

    def _read_back(self, name: str) -> bool:
        """Take a micrograph that an earlier call has picked into account; False where its files are damaged."""
        if name in self.threshold.candidates:
            return True
        record = self.run.records[name]
        try:
            candidates = self.folder.read_candidates(record)
        except DamagedError as error:
            self.run.note_in_log(f"{name}: {error.what}; picking it again")
            return False
        self.threshold.candidates[name] = open_candidates(candidates, self.run.plan.picker)
        self._picked += 1
        self._came += 1
        self._has_news_for_tables = True
        return True

    def _forget(self, name: str) -> None:
        """What is going on with a file that is not what it was."""
        for names in (self._complete, self._new, self._again):
            names.pop(name, None)

    def _drop(self, name: str) -> None:
        self._forget(name)
        self.threshold.candidates.pop(name, None)
        if self.run.drop(name):
            self._has_news_for_tables = True

    # ---------------------------------------------------------------------------------------------- who works on what

    def _give_out(self) -> None:
        while self._executor.free() > 0:
            now = self._clock.now()
            count = len(self._complete)
            is_due = SURVEY_KEY not in self._out and self.preparing.is_due(count, now)
            if is_due and (not self._new or self.preparing.cannot_wait(count)):
                self.preparing.begun(count, now)
                names = [name for name in self.arrivals.sources if name in self._complete]
                task = SurveyErrand(
                    tasks=tuple(self.run.task(name) for name in names), model_folder=self.folder.path / MODEL
                )
                self._out[SURVEY_KEY] = None
                self._executor.submit(SURVEY_KEY, task)
                continue
            name = None if self.preparing.is_waiting else self._next_name()
            if name is None:
                return
            self._out[name] = None
            self._executor.submit(name, self.run.task(name))

    def _next_name(self) -> str | None:
        """The next that is new, in the order of arrival, else the next that is picked again, by name."""
        for waiting in (self._new, self._again):
            for name in waiting:
                if name not in self._out:
                    del waiting[name]
                    return name
        return None

    def _take(self, done: Done) -> None:
        self._out.pop(done.key, None)
        if done.key == SURVEY_KEY:
            self._take_survey(done)
            return
        outcome: Outcome = (
            Outcome(name=done.key, error=done.lost, details=done.details, seconds=done.seconds)
            if done.result is None
            else done.result
        )
        arrival = self._complete.get(outcome.name)
        if arrival is None:  # gone, renamed or changed meanwhile
            return
        assert arrival.source is not None
        path, now = arrival.source.path, self._clock.now()
        is_other = outcome.stamp is not None and (
            (arrival.stamp is not None and outcome.stamp != arrival.stamp.content) or self.run.has_changed(outcome)
        )
        if is_other:
            self.run.note_in_log(f"{outcome.name}: the file changed while it was picked; waiting until it is whole")
            self._forget(outcome.name)
            self.arrivals.changed(path, now)
        elif outcome.is_unreadable and self.arrivals.refused(path, now):
            self.run.note_in_log(f"{outcome.name}: cannot be read yet: {outcome.error}")
            self._forget(outcome.name)
        elif outcome.ends_empty and self.arrivals.ends_empty(path, now):
            self.run.note_in_log(f"{outcome.name}: ends in empty rows; waiting until it has not changed for longer")
            self._forget(outcome.name)
        else:
            self._keep(outcome)

    def _keep(self, outcome: Outcome) -> None:
        if self._is_paused:
            self._held.append(outcome)
            return
        try:
            is_again = outcome.name in self.run.records
            self.revisions[outcome.name] = (
                self.revisions[outcome.name] + 1 if outcome.name in self.revisions else int(is_again)
            )
            record = self.run.keep(outcome)
        except RunFolderError as error:
            self._require_full_disk(error)
            self.revisions[outcome.name] -= 1
            if self.revisions[outcome.name] < 0:
                del self.revisions[outcome.name]
            self._held.append(outcome)
            return
        self._is_full = False
        self._last_news = self._clock.now()
        self._has_news_for_tables = True
        if not is_again:
            self._picked += 1
        if record.is_done and outcome.picks is not None:
            self.threshold.candidates[outcome.name] = self.run.open_candidates(outcome.name)
        else:
            self.threshold.candidates.pop(outcome.name, None)
        if record.is_done and self.run.is_stale(outcome.name):
            self._again[outcome.name] = None

    def _require_full_disk(self, error: RunFolderError) -> None:
        """Pause where the disk is full; any other error is raised."""
        cause: BaseException | None = error
        while cause is not None and not (isinstance(cause, OSError) and cause.errno in _DISK_ERRORS):
            cause = cause.__cause__
        if cause is None:
            raise error
        if not self._is_full:
            self._is_full = True
            self._warn(f"the disk of {self.folder.path} is full: picking pauses until there is space")
        self._is_paused = True
        self._paused_until = self._clock.now() + FULL_DISK_SECONDS

    def _write(self, write: Callable[[], None]) -> None:
        """Write something, later where the disk is full."""
        try:
            write()
        except RunFolderError as error:
            self._require_full_disk(error)
            self._unwritten.append(write)

    def _write_held(self) -> None:
        if not self._is_paused or self._clock.now() < self._paused_until:
            return
        self._is_paused = False
        unwritten, self._unwritten = self._unwritten, []
        for write in unwritten:
            self._write(write)
        held, self._held = self._held, deque()
        for outcome in held:
            if outcome.name in self._complete:
                self._keep(outcome)

    # -------------------------------------------------------------------------------------------------------- surveys

    def _take_survey(self, done: Done) -> None:
        seen: Surveyed | None = done.result
        problem = done.lost if seen is None else seen.error
        for line in () if seen is None else seen.log:
            self.run.note_in_log(line)
        if seen is None or seen.survey is None:
            self._tell("prepared", text=problem or "no micrograph can be read yet", found=False, settled=False)
            return
        taken = self.preparing.taken_over(seen.survey)
        survey, settled = taken.survey, self._settled(taken.survey)
        if settled is not None:
            survey = self.preparing.survey = settled.survey
        self.run.look_by(survey, None if settled is None else settled.settings)
        self._write(self.run.keep_survey)
        size = survey.working_size or survey.particle_size
        self._tell(
            "prepared",
            text=survey.sentence,
            working_size="" if size is None else str(size),
            found=size is not None,
            settled=self.preparing.is_settled,
        )
        if settled is not None:  # workers hold the settings
            self._executor.close()
            self._out.clear()
            self._executor = self._open_executor()
            self._new = dict.fromkeys(name for name in self._complete if not self.run.has_picks(name))
        stale = sorted(name for name in self._complete if self.run.has_picks(name) and self.run.is_stale(name))
        self._again = dict.fromkeys(stale)
        if stale:
            self._tell("repick", count=len(stale), reason=taken.why or "the size is settled")

    def _settled(self, survey: Survey) -> Settled | None:
        """The settings with the size that was found, where it is to stay from now on."""
        if not self.preparing.is_settled or self.options.settle is None:
            return None
        try:
            settled = self._write_settled(survey)
        except RunFolderError as error:
            self._require_full_disk(error)
            self.preparing.is_settled = False  # at the next look
            return None
        if settled is None and not isinstance(self.run.plan.picker, SurveysInFolder):
            self.preparing.is_settled, self.preparing.settle = False, None
            self._warn(
                f"picker {self.run.plan.picker.name} goes by what no setting of it can hold, so its sizes are not "
                "settled and are measured until the end"
            )
        return settled

    # ------------------------------------------------------------------------------------------------------ summaries

    def _sum_up(self) -> None:
        now = self._clock.now()
        self._next_summary = now + self.options.summary_every_s
        behind = self._rates.behind(now, self._came, self._picked)
        if behind:
            self._warn(behind)
        if self._is_paused:
            return
        try:
            self._move_threshold()
            if self._has_news_for_tables and now >= self._next_tables:
                self._make_tables()
            self._write_state(FOLLOWING)
        except RunFolderError as error:
            self._require_full_disk(error)

    def _move_threshold(self) -> None:
        plan = self.run.plan
        if not needs_all_scores(plan) or self.folder.moved_threshold() is not None or not self.threshold.candidates:
            return
        before = self.threshold.cut.threshold
        move = self.threshold.moved_to(choose_cut(plan, self.threshold.in_order()))
        if move is None:
            return
        self.run.threshold = move.cut.threshold
        self._tell("threshold", old=before, new=move.cut.threshold, picks_changed=sum(move.changed.values()))
        for name in sorted(move.changed):
            record = self.run.records[name]
            try:
                candidates = self.folder.read_candidates(record)
            except DamagedError as error:
                self.run.note_in_log(f"{name}: {error.what}; picking it again")
                self._again[name] = None
                continue
            result = write_picks(self.folder, record, candidates, move.cut)
            self._tell("revised", name, count=result.count, threshold=move.cut.threshold)

    def _make_tables(self) -> None:
        begin = self._clock.now()
        status = {name: "provisional" for name in self.run.records if self.run.is_stale(name)} | dict.fromkeys(
            self.gone, "gone"
        )
        so_far = (
            f"provisional, {now_text()}: {len(self.threshold.candidates):,} picked, {self.backlog:,} waiting; sizes, "
            "threshold and picks may change until the session ends"
        )
        summary = self.run.write_tables_so_far(self.threshold.cut, status, so_far)
        took = self._clock.now() - begin
        self._next_tables = begin + took / TABLES_SHARE
        self._has_news_for_tables = False
        self._tell("summary", **asdict(summary))

    def _write_state(self, state: str) -> None:
        survey = self.preparing.survey
        size = None if survey is None else survey.working_size or survey.particle_size
        write_state(
            self.folder,
            FollowState(
                state="ending" if state == ENDING else "following",
                since=self._since,
                complete=len(self._complete),
                picked=sum(name in self.run.records for name in self._complete),
                stale=len(self._again),
                backlog=self.backlog,
                working_diameter="" if size is None else str(size),
                settled=self.preparing.is_settled,
                threshold=self.threshold.cut.threshold,
            ),
        )

    # ---------------------------------------------------------------------------------------------------------- telling

    @property
    def backlog(self) -> int:
        """Micrographs that are complete and not picked, or to be picked again."""
        return len(self._new) + len(self._again) + len([name for name in self._out if name != SURVEY_KEY])

    def _hear(self, event: PickEvent) -> None:
        if event.status in ("done", "failed"):
            self._emit(self.micrograph_event(event, is_provisional=True))

    def micrograph_event(self, event: PickEvent, *, is_provisional: bool) -> WatchEvent:
        """What a run says of a micrograph, with what only a run that is followed can say."""
        content = event_as_dict(event)
        del content["event"], content["name"]
        content |= {
            "provisional": is_provisional,
            "revision": self.revisions.get(event.name, 0),
            "backlog": self.backlog,
        }
        return WatchEvent("micrograph", event.name, content)

    def _tell(self, kind: EventKind, name: str = "", **content: Any) -> None:
        self._emit(WatchEvent(kind, name, {**content, "backlog": self.backlog}))

    def _warn(self, sentence: str) -> None:
        self.run.warn(sentence)
        self._tell("warning", text=sentence)
