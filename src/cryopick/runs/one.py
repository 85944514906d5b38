"""One micrograph: read, pick, select, and draw its overview. Runs in the calling process or in a worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, SettingsError, UnknownPixelSizeError
from cryopick.geometry.selection import select
from cryopick.geometry.units import too_wide
from cryopick.inference.computing import processor_of, why_not_here
from cryopick.pickers.registry import sizes_in_force, those_accepted
from cryopick.pickers.survey import Survey
from cryopick.processing.defects import ends_in_empty_rows, mend_pixels
from cryopick.processing.illumination import without_uneven_illumination
from cryopick.runs.exclusion_masks import doubts_about_mask, read_mask
from cryopick.runs.picked_with import picked_with_on
from cryopick.runs.report.pictures import map_png, overview_jpeg
from cryopick.runs.settings import PickPlan, RunSettings
from cryopick.runs.verdicts import MOST_JUNK_SHARE
from cryopick.types import JUNK_MAP, JUNK_PROBABILITY, Micrograph, Picks

NO_FILE = (-1, -1)
"""The stamp of a file that is not there."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a micrograph is picked by in a run whose survey changes while it grows, in place of what its plan holds."""

    survey: Survey | None
    picked_with: str


class Errand(Protocol):
    """Something else than picking that a worker of a run does, between two micrographs."""

    def done(self, plan: PickPlan) -> Any:
        """Do it by the plan of the worker, and give what came of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One micrograph to pick: where it is, or the micrograph itself."""

    name: str
    path: Path | None = None
    optics_pixel_size_angstrom: float | None = None
    micrograph: Micrograph | None = None
    exclusion_mask: Path | None = None
    """The image of where nothing may be picked, if the run has masks and this micrograph has one."""
    stamp: tuple[int, int] | None = None
    """Size and time of change of the file just before it was read; see `file_stamp`."""
    looked: Looked | None = None

    def plan_of(self, plan: PickPlan) -> PickPlan:
        """The plan by which it is picked, where the worker has `plan`."""
        if self.looked is None:
            return plan
        return replace(plan, survey=self.looked.survey, picked_with=self.looked.picked_with)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of one micrograph; `error` is "" where picking worked."""

    name: str
    picks: Picks | None = None
    overview: bytes = b""
    """JPEG, the longer side at most `OVERVIEW_PX`."""
    maps: Mapping[str, bytes] = field(default_factory=dict)
    """PNG of each of the picker's maps, grey: 0 to 1 is black to white, maps of another range are stretched."""
    seconds: float = 0.0
    junk_share: float | None = None
    """Of the image; None where the picker maps no junk."""
    error: str = ""
    is_settings_error: bool = False
    details: str = ""
    """A traceback for the log, where the error was not one of ours."""
    stamp: tuple[int, int] | None = None
    """Of the file that was picked, from before it was read; None where it was never begun."""
    picked_with: str = ""
    """Of the plan that it was picked by, on this micrograph; see `Record`."""
    processor: str = ""
    """Model of the CPU or graphics card that picked it; "" where it failed."""
    is_unreadable: bool = False
    """Whether it failed since its file cannot be read, as that of a file which is not whole yet."""
    ends_empty: bool = False
    """Whether the last rows of the file hold nothing, so that it may not be whole yet."""


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns, by which a replaced file is known; `NO_FILE` where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # gone or unreadable: reading it gives the error that the user sees
        return NO_FILE
    return status.st_size, status.st_mtime_ns


def outcomes_of(tasks: Iterable[Task], plan: PickPlan, *, draw: bool = True) -> Iterator[Outcome]:
    """Pick each micrograph, in order, reading the next one meanwhile."""
    return results_of(tasks, plan, draw=draw)


def results_of(items: Iterable[Task | Errand], plan: PickPlan, *, draw: bool = True) -> Iterator[Any]:
    """As `outcomes_of`, and what came of errands among the tasks."""
    plan = plan.pinned_here()
    for task, micrograph, seconds in _read_ahead(items, plan.settings.run):
        if not isinstance(task, Task):
            yield task.done(plan)
            continue
        outcome = _outcome(task, micrograph, task.plan_of(plan), seconds, draw)
        yield replace(outcome, stamp=task.stamp)


class PickWorker:
    """The worker of a run, in whatever process: tasks go in, outcomes come out.

    Raises
    ------
    SettingsError
        If the graphics card of this process cannot compute as the run was begun: better no worker than one whose
        every micrograph fails.
    """

    def __init__(self, plan: PickPlan) -> None:
        if plan.computing is not None and plan.computing.device != "cpu":
            why = why_not_here(plan.picker, plan.computing)
            if why:
                raise SettingsError(why)
        self._plan = plan

    def results_of(self, items: Iterator[Task | Errand]) -> Iterator[Any]:
        return results_of(items, self._plan)


def read_task(task: Task, run: RunSettings) -> Micrograph:
    """The micrograph of a task as pickers expect it: without defects of the pixels, and particles dark."""
    from cryopick.io.images.micrographs import read_micrograph

    micrograph = task.micrograph
    if micrograph is None:
        if task.path is None:
            raise ValueError(f"{task.name}: a task needs a path or a micrograph")
        micrograph = read_micrograph(
            task.path,
            pixel_size_angstrom=run.pixel_size_angstrom,
            optics_pixel_size_angstrom=task.optics_pixel_size_angstrom,
            name=task.name,
            max_pixels=run.max_pixels,
        )
    elif run.pixel_size_angstrom is not None:
        micrograph = replace(micrograph, pixel_size_angstrom=run.pixel_size_angstrom)
    mended = mend_pixels(micrograph.pixels, is_last_row_first=_is_last_row_first(micrograph))
    pixels, told = without_uneven_illumination(mended.pixels)
    micrograph = replace(micrograph, pixels=pixels, warnings=(*micrograph.warnings, *mended.warnings, *told))
    return micrograph.inverted() if run.contrast == "bright" else micrograph


def _is_last_row_first(micrograph: Micrograph) -> bool:
    from cryopick.io.images.formats import is_image_name

    return micrograph.path is not None and is_image_name(micrograph.path.name, "TIFF")


def pick_micrograph(micrograph: Micrograph, plan: PickPlan, *, exclusion_mask: Path | None = None) -> Picks:
    """All candidates of one dark-particle micrograph, with the reasons for rejection that no threshold changes.

    Parameters
    ----------
    exclusion_mask : the micrograph's image in the folder of masks (see `cryopick.runs.exclusion_masks`)

    Raises
    ------
    SettingsError
        If the particle diameter is too small for the picker, or wider than the micrograph.
    """
    settings, survey = plan.settings, plan.survey
    _refuse_wider_particles(settings.picker, survey, micrograph)
    mask = None if exclusion_mask is None else read_mask(exclusion_mask, max_pixels=settings.run.max_pixels)
    doubts: tuple[str, ...] = ()
    if mask is not None:
        doubts = doubts_about_mask(mask, micrograph.shape_yx)
    elif settings.run.exclusion_masks is not None:
        doubts = ("no exclusion mask belongs to it, so nothing is excluded",)
    found: Picks = settings.picker.pick(micrograph, survey)
    if not np.isfinite(found.xy_px).all():
        raise ValueError(f"{micrograph.name}: a centre is not finite")
    picks = replace(
        found,
        micrograph_name=micrograph.name,
        shape_yx=micrograph.shape_yx,
        pixel_size_angstrom=micrograph.pixel_size_angstrom,
        warnings=tuple(dict.fromkeys((*micrograph.warnings, *found.warnings, *doubts))),
    )
    junk = None if settings.run.keep_junk or settings.selection.as_found else junk_mask(picks)
    if junk is not None and (share := float(junk.mean())) > MOST_JUNK_SHARE:
        told = (
            f"carbon, ice or contamination is thought to cover {share:.0%} of the image, and nothing is picked there; "
            "look at it, and if that is wrong give --keep-junk"
        )
        picks = replace(picks, warnings=(*picks.warnings, told))
    return select(picks, settings.selection, threshold=-np.inf, exclusion_mask=mask, junk_mask=junk)


def wide_enough(picker: Any, micrographs: Sequence[Micrograph]) -> list[Micrograph]:
    """Those micrographs that a particle of the given size fits on, for a picker to look at before it picks.

    Raises
    ------
    SettingsError
        If it fits on none of them, before anything is computed with the size.
    """
    return those_accepted(micrographs, lambda one: _refuse_wider_particles(picker, None, one))


def _refuse_wider_particles(picker: Any, survey: Survey | None, micrograph: Micrograph) -> None:
    """Raise `SettingsError` where a particle is wider than the micrograph; an unknown pixel size is not told here."""
    size_px = micrograph.pixel_size_angstrom
    for diameter in sizes_in_force(picker, survey):
        if diameter.unit == "A" and size_px is None:
            continue
        if diameter.to_px(size_px)[0] > min(micrograph.shape_yx):
            told = too_wide(diameter, shape_yx=micrograph.shape_yx, pixel_size_angstrom=size_px)
            raise SettingsError(f"{micrograph.name}: {told}")


def junk_mask(picks: Picks) -> NDArray[np.bool_] | None:
    """True where the picker thinks that there may be junk; None where it maps none."""
    junk = picks.maps.get(JUNK_MAP)
    return None if junk is None else np.asarray(junk > JUNK_PROBABILITY)


def _outcome(
    task: Task, micrograph: Micrograph | Exception | None, plan: PickPlan, read_seconds: float, draw: bool
) -> Outcome:
    start = time.perf_counter()
    try:
        if isinstance(micrograph, Exception):
            raise micrograph
        assert micrograph is not None
        picks = pick_micrograph(micrograph, plan, exclusion_mask=task.exclusion_mask)
        junk = junk_mask(picks)
        size = picks.shape_yx if plan.settings.run.full_maps else None
        return Outcome(
            name=task.name,
            picks=replace(picks, maps={}) if draw else picks,
            overview=overview_jpeg(micrograph.pixels) if draw else b"",
            maps={name: map_png(values, shape_yx=size) for name, values in picks.maps.items()} if draw else {},
            seconds=read_seconds + time.perf_counter() - start,
            junk_share=None if junk is None else round(float(junk.mean()), 4),
            picked_with=picked_with_on(micrograph, plan) if plan.picked_with else "",
            processor=processor_of(plan.picker, plan.computing),
            ends_empty=ends_in_empty_rows(micrograph.pixels, is_last_row_first=_is_last_row_first(micrograph)),
        )
    except (CryopickError, OSError, MemoryError) as error:
        return Outcome(
            name=task.name,
            seconds=read_seconds + time.perf_counter() - start,
            error=" ".join(str(error).split()) or type(error).__name__,
            is_settings_error=isinstance(error, SettingsError) and not isinstance(error, UnknownPixelSizeError),
            is_unreadable=error is micrograph,
        )
    except Exception as error:  # one micrograph must not end a run of thousands; the log keeps the traceback
        return Outcome(
            name=task.name,
            seconds=read_seconds + time.perf_counter() - start,
            error=f"unexpected {type(error).__name__} in picker {plan.picker.name}: {' '.join(str(error).split())}",
            details=traceback.format_exc(),
        )


def _read(task: Task, run: RunSettings) -> tuple[Task, Micrograph | Exception]:
    if task.path is not None:
        task = replace(task, stamp=file_stamp(task.path))
    try:
        return task, read_task(task, run)
    except Exception as error:  # handed to the consumer, which tells expected from unexpected
        return task, error


_Read = tuple[Task | Errand, Micrograph | Exception | None, float]
"""An item, its micrograph, or what reading it raised, or None for an errand, and the seconds that reading took."""


def _read_ahead(items: Iterable[Task | Errand], run: RunSettings) -> Iterator[_Read]:
    """Each item with what was read for it; the next one is read in a thread meanwhile."""
    ready: Queue[_Read | Exception | None] = Queue(maxsize=1)
    is_abandoned = Event()

    def hand_over(item: _Read | Exception | None) -> None:
        while not is_abandoned.is_set():
            try:
                ready.put(item, timeout=0.2)
            except Full:
                continue
            return

    def read_all() -> None:
        try:
            for item in items:
                start = time.perf_counter()
                task, result = _read(item, run) if isinstance(item, Task) else (item, None)
                hand_over((task, result, time.perf_counter() - start))
                if is_abandoned.is_set():
                    return
            hand_over(None)
        except Exception as error:  # from the iterable of tasks itself
            hand_over(error)

    Thread(target=read_all, name="cryopick-read-ahead", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_abandoned.set()
