"""Follow a microscope: pick what arrives in a folder while it arrives, and end as a batch run over all of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cryopick.errors import InputError, NoneDoneError, NothingArrivedError
from cryopick.inference.device import require_device
from cryopick.inference.models import HoldsModels
from cryopick.io.inputs.listings import lister_for
from cryopick.io.inputs.sources import MicrographSource, find_micrographs, search_warnings, shared_results_text
from cryopick.runs.folder import LOG, OWN_FOLDERS, RunFolder
from cryopick.runs.following.clock import Clock, SteadyClock
from cryopick.runs.following.ending import FinalRun, forget_survey, settle_records
from cryopick.runs.following.events import WatchEvent
from cryopick.runs.following.follower import STOP, Follower
from cryopick.runs.following.growing import GrowingRun
from cryopick.runs.following.options import WatchOptions
from cryopick.runs.following.settling import settled_before, settled_settings
from cryopick.runs.following.state import ENDING, read_state, remove_state
from cryopick.runs.place import output_folder
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent, summary_as_dict
from cryopick.runs.settings import DEFAULT_PICKER, PickSettings, make_settings, settings_sections
from cryopick.runs.workers import Workforce, who_picks
from cryopick.settings import seconds_of
from cryopick.workflows.begin import claim_folder, require_weights

_TIMES = ("poll", "quiet", "stop_idle", "grace", "summary_every")
_OTHERS = ("settle", "stop_count", "stop_file", "ignore")
_WORKFORCE = ("workers", "time_limit_seconds", "devices", "cluster", "jobs", "wait", "cluster_config")


def watch(
    folder: str | Path,
    picker: str | Any = DEFAULT_PICKER,
    *,
    output: str | Path,
    **settings: Any,
) -> Watch:
    """Follow a folder into which a microscope writes, and pick what arrives.

    Iterating over the result follows the session and gives its events; it ends when the session does. At the end the
    run folder is the one that `pick` makes of the same micrographs.

    Parameters
    ----------
    folder : where micrographs arrive; it need not exist yet. Or a RELION `micrographs.star` that grows
    picker : a name from `list_pickers()`, or a picker
    output : the run folder
    settings : as of `pick`, and how the session is followed: the times `poll` ("2s"), `quiet` ("4s"), `stop_idle`,
        `grace` ("60s") and `summary_every` ("60s"), further `settle`, `stop_count`, `stop_file`, `ignore`, `workers`,
        `time_limit_seconds`, `overwrite`; see `docs/watch.md`

    Returns
    -------
    Watch
        Iterate over it; `stop()`, from another thread or within the loop, ends the session properly.

    Examples
    --------
    >>> import cryopick
    >>> session = cryopick.watch("session/Micrographs", "blob", output="live", diameter="180A", stop_idle="30m")
    >>> session.summary is None  # until it was followed to its end: for event in session: ...
    True
    """
    given = {name: settings.pop(name) for name in (*_TIMES, *_OTHERS) if name in settings}
    workforce = {name: settings.pop(name) for name in _WORKFORCE if name in settings}
    overwrite = bool(settings.pop("overwrite", False))
    return Watch(
        folder,
        output,
        make_settings(picker, **settings),
        watch_options(**given),
        workforce=who_picks(output, **workforce),
        overwrite=overwrite,
    )


def watch_options(**given: Any) -> WatchOptions:
    """How a session is followed, from times such as `"30m"` and other words of the command line; None is the default.

    Raises
    ------
    SettingsError
        If a time is none, or a number impossible.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in _TIMES:
        if name in chosen:
            chosen[f"{name}_s"] = seconds_of(chosen.pop(name), name=name.replace("_", " "))
    if "ignore" in chosen:
        patterns = chosen["ignore"]
        chosen["ignore"] = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if "stop_file" in chosen:
        chosen["stop_file"] = Path(chosen["stop_file"])
    return WatchOptions(**chosen)


class Watch:
    """One call that follows one session; `watch` and the command line make it.

    Parameters
    ----------
    given : the folder or STAR file that is followed
    output : the run folder
    settings, options, workforce : what is picked, how the session is followed, and who picks
    overwrite : start again, removing what the folder holds of an earlier run once the first micrograph is picked
    command : what the user typed, for `command.txt`
    clock : by which everything is timed
    """

    def __init__(
        self,
        given: str | Path,
        output: str | Path,
        settings: PickSettings,
        options: WatchOptions,
        *,
        workforce: Workforce,
        overwrite: bool = False,
        command: str = "",
        clock: Clock | None = None,
    ) -> None:
        if not str(given).strip():
            raise InputError("no folder to follow was given; give the one into which the microscope writes")
        self.folder = RunFolder(output_folder(output))
        self.summary: RunSummary | None = None
        """None until the session was followed to its end."""
        self._given = str(given)
        self._settings = settings
        self._options = options
        self._workforce = workforce
        self._overwrite = overwrite
        self._command = command
        self._clock = clock or SteadyClock()
        self._follower: Follower | None = None
        self._stop_reason = ""

    # ------------------------------------------------------------------------------------------------------- public

    def stop(self, reason: str = "told to stop") -> None:
        """End the session properly: what has come is picked, and the final tables are written. From any thread."""
        self._stop_reason = self._stop_reason or reason
        if self._follower is not None:
            self._follower.stop(reason)

    def __iter__(self) -> Iterator[WatchEvent]:
        """Follow the session in a thread of its own, and give its events. Leaving the loop ends it where it is."""
        waiting: SimpleQueue[WatchEvent | BaseException | None] = SimpleQueue()
        is_left = threading.Event()

        def require_listener() -> None:
            if is_left.is_set():
                raise _LeftError

        def hand_over(event: WatchEvent) -> None:
            require_listener()
            waiting.put(event)

        def follow() -> None:
            try:
                self.run(hand_over, require_listener=require_listener)
            except _LeftError:
                return
            except BaseException as error:  # raised where the events are read
                waiting.put(error)
            else:
                waiting.put(None)

        thread = threading.Thread(target=follow, name="cryopick-watch", daemon=True)
        thread.start()
        try:
            while (event := waiting.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            is_left.set()
            thread.join()

    def run(
        self, on_event: Callable[[WatchEvent], None], *, require_listener: Callable[[], None] = lambda: None
    ) -> RunSummary:
        """Follow the session in this thread.

        Parameters
        ----------
        on_event : hears of everything
        require_listener : called again and again; what it raises ends the session where it is

        Raises
        ------
        NothingArrivedError
            If no whole micrograph came.
        InputError
            If two files would share results, after all others are final; or as `NoneDoneError` if none could be picked.
        RunFolderError, SettingsError, WorkerError
            As `pick_to_folder`; what was finished is kept, and the same call goes on.
        """
        settings, folder = self._settings, self.folder
        if self._workforce.cluster is None:
            require_device(settings.picker)
        self._workforce.require_fit(settings.picker)
        folder.refuse_foreign_contents()
        excluded = [folder.path / part for part in OWN_FOLDERS]
        lister = lister_for(self._given, exclude_folders=excluded, ignore=self._options.ignore)
        require_weights(settings)
        with self._workforce.leading(), folder.lock():
            folder.clean_up()
            if self._overwrite and folder.is_run:
                folder.set_aside()
            is_ending = (read_state(folder) or {}).get("state") == ENDING
            try:
                if self._options.settle is not None:
                    settings = settled_before(folder, settings)
                follower = self._follower = self._begin(
                    settings, lister, on_event, require_listener, is_settled=settings != self._settings
                )
                try:
                    if is_ending:
                        follower.stop("an earlier call was ending the run")
                    if self._stop_reason:
                        follower.stop(self._stop_reason)
                    follower.follow()
                    follower.wind_up()
                    self.summary = self._end(follower, excluded, on_event)
                finally:
                    follower.close()
            except BaseException:
                if folder.restore_replaced():
                    folder.append_log("--overwrite came to nothing before its first micrograph, so this run stays")
                raise
            finally:
                if self._workforce.cluster is not None:
                    self._workforce.cluster.close()
                if isinstance(settings.picker, HoldsModels):
                    settings.picker.close()
        return self.summary

    # ------------------------------------------------------------------------------------------------------- within

    def _begin(
        self,
        settings: PickSettings,
        lister: Any,
        on_event: Callable[[WatchEvent], None],
        require_listener: Callable[[], None],
        *,
        is_settled: bool,
    ) -> Follower:
        claim_folder(self.folder, settings, command=self._command)
        run = GrowingRun(self.folder, [], settings, None)
        if self._workforce.cluster is not None:
            run.pick_on(self._workforce.cluster)
        run.begin()
        on_event(
            WatchEvent(
                "start",
                content={
                    "output": os.path.abspath(self.folder.path),
                    "following": os.path.abspath(self._given),
                    "settings": settings_sections(settings),
                },
            )
        )

        def write_settled(survey: Any) -> Any:
            return settled_settings(self.folder, run.plan.settings, survey)

        follower = Follower(
            run,
            lister,
            self._options,
            open_executor=lambda: self._workforce.open(run.plan, tasks=None),
            clock=self._clock,
            write_settled=write_settled,
            on_event=on_event,
            require_listener=require_listener,
        )
        follower.preparing.is_settled = is_settled
        return follower

    def _end(self, follower: Follower, excluded: list[Path], on_event: Callable[[WatchEvent], None]) -> RunSummary:
        folder = self.folder
        sources, clashes = self._final_list(follower, excluded)
        settings = follower.run.plan.settings
        if not sources and not any(record.is_done for record in follower.run.records.values()):
            remove_state(folder)
            raise NothingArrivedError(
                f"no whole micrograph came to {self._given} while it was followed; check the folder, or --quiet and "
                "--ignore"
            )
        gone = settle_records(folder, sources, moved=follower.moved)
        for name in gone:
            if name not in follower.gone:
                on_event(WatchEvent("gone", name))
        if sources:
            forget_survey(folder, settings.picker)
        counts: dict[str, int] = {}

        def hear(event: PickEvent) -> None:
            if event.status in ("done", "failed"):
                if event.name in told_before:
                    follower.revisions[event.name] = follower.revisions.get(event.name, 0) + 1
                counts[event.name] = event.count
                on_event(follower.micrograph_event(event, is_provisional=False))

        run = FinalRun(folder, sources, settings, hear)
        told_before = set(run.records)
        if self._workforce.cluster is not None:
            run.pick_on(self._workforce.cluster)
        run.go_on_from(follower.run)
        run.gone = tuple(gone)
        run.status = dict.fromkeys(gone, "gone")
        run.assign_keys_anew()
        if sources:
            run.look_first()
        if run.again:
            reason = "at the end the run is prepared as a batch run is"
            on_event(WatchEvent("repick", content={"count": len(run.again), "reason": reason}))
        run.pick(self._workforce)
        before = {name: follower.threshold.count(name) for name in follower.threshold.candidates} | counts
        summary = run.finish()
        for name, count in sorted(before.items()):
            if run.counts.get(name, count) != count:
                on_event(WatchEvent("revised", name, {"count": run.counts[name], "threshold": summary.threshold}))
        if not any(record.is_done for record in run.records.values()):
            raise NoneDoneError(
                f"none of {len(sources)} micrographs could be picked; the first: "
                f"{next(iter(summary.failed.values()), '')} (all of them: {folder.path / LOG})"
            )
        remove_state(folder)
        with suppress(FileNotFoundError):
            os.unlink(folder.path / STOP)
        on_event(
            WatchEvent("run", content={key: value for key, value in summary_as_dict(summary).items() if key != "event"})
        )
        if clashes:
            raise InputError(f"{self._given}: {shared_results_text(clashes)}; all others are picked, and final")
        return summary

    def _final_list(self, follower: Follower, excluded: list[Path]) -> tuple[list[MicrographSource], list[list[str]]]:
        """What a batch run would pick, without what is not whole and what shares results with another."""
        clashes: list[list[str]] = []
        whole = follower.arrivals.whole()
        try:
            with search_warnings(are_logged=True) as told:
                found = find_micrographs([self._given], exclude_folders=excluded, clashing=clashes)
        except InputError as error:
            follower.run.note_in_log(f"at the end: {error}")
            return [], []
        for sentence in told:
            follower.run.note_in_log(sentence)
        left_out = set(follower.arrivals.clashing())
        sources = [source for source in found if str(source.path) in whole and source.name not in left_out]
        names = {source.name for source in sources} | left_out
        return sources, [clash for clash in clashes if len(set(clash) & names) > 1]


class _LeftError(BaseException):
    """Nobody reads the events any more."""
