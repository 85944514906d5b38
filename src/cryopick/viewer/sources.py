"""What is looked at: a run folder, which may still grow, or picks of another program with their micrographs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, InputError, RunFolderError
from cryopick.geometry.units import Length
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.info import ImageInfo
from cryopick.io.images.micrographs import probe_image
from cryopick.io.inputs.sources import find_micrographs
from cryopick.pickers.protocol import gives_probabilities
from cryopick.processing.local_power import coarsening, local_power, power_at
from cryopick.runs.folder import CONFIG, RECORDS, SUMMARY, RunFolder
from cryopick.runs.one import Task, file_stamp, read_task
from cryopick.runs.record import Record, key_problem, read_record
from cryopick.runs.report.pictures import OVERVIEW_PX
from cryopick.runs.results import read_summary
from cryopick.runs.settings import PickPlan, RunSettings
from cryopick.runs.sizes import run_diameter
from cryopick.runs.stored_settings import plan_of_run
from cryopick.types import Micrograph, Picks
from cryopick.workflows.edits import UNKNOWN_DIAMETER_SHARE
from cryopick.workflows.run_index import LOWEST, RunIndex, part_of

INDEX_FOLDER, INDEX_FILE = ".view", "index.npz"
LOOK_AT_ALL_EVERY, CLOCK_DOUBT_S = 12, 5.0
"""Looks for new records of which one looks at every file, and by how much clocks may differ."""
_REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}
"""OpenCV's IMREAD_GRAYSCALE and IMREAD_REDUCED_GRAYSCALE_2, 4 and 8."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One micrograph as the list shows it.

    Parameters
    ----------
    stamp : changes when its picks do
    belief : of the run in it, see `runs.threshold.Cut`
    told : the run's verdict and its reason, "" where there is none
    """

    name: str
    key: str
    source: Path
    stamp: str
    relion_name: str = ""
    shape_yx: tuple[int, int] | None = None
    pixel_size_angstrom: float | None = None
    candidate_count: int | None = None
    maps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    picked_stamp: tuple[int, int] | None = None
    expected_right: float | None = None
    belief: float = 1.0
    told: str = ""


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """The cut that holds in a run, and what the run's summary tells at it.

    Parameters
    ----------
    threshold : smallest score that is kept, after it is multiplied by the micrograph's belief
    source : where it comes from
    summary : `summary.json`; empty where the run is not finished
    """

    threshold: float
    source: str
    summary: Mapping[str, Any] = field(default_factory=dict)


class Source:
    """Micrographs with candidates. A micrograph keeps the number under which it was first seen.

    `refresh` may be called from one thread while others read.
    """

    title: str = ""
    picker: str = ""
    score_meaning: str = ""
    is_probability = False
    can_learn = False
    run_settings = RunSettings()

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.index = RunIndex()
        self.indexed = 0
        self.cutting = Cutting(threshold=LOWEST, source="")
        self._diameter: Length | None = None
        self.guard = threading.Lock()

    def refresh(self) -> list[int]:
        """Look for new and changed micrographs; their numbers."""
        raise NotImplementedError

    def candidates(self, number: int) -> Picks:
        """All candidates of one micrograph; errors as `CryopickError`."""
        raise NotImplementedError

    def overview(self, number: int) -> bytes | None:
        """The picture that the run holds, JPEG; None without one."""
        raise NotImplementedError

    def map_png(self, number: int, which: int) -> bytes | None:
        """The picture of a map; None without one."""
        raise NotImplementedError

    def micrograph(self, number: int) -> Micrograph:
        """The micrograph as the picker saw it, particles dark; errors as `CryopickError`, and `OSError`."""
        row = self.rows[number]
        return read_task(Task(name=row.name, path=row.source), self.run_settings)

    def diameter_px(self, number: int) -> float:
        """Of a particle; three hundredths of the width where nobody knows it."""
        row = self.rows[number]
        width = (row.shape_yx or (1, 1))[1]
        if self._diameter is not None and (self._diameter.unit == "px" or row.pixel_size_angstrom):
            return float(self._diameter.middle_px(row.pixel_size_angstrom))
        known = self.cutting.summary.get("diameter_px")
        return float(known) if isinstance(known, int | float) else max(1.0, UNKNOWN_DIAMETER_SHARE * width)

    @property
    def has_diameter(self) -> bool:
        return self._diameter is not None or isinstance(self.cutting.summary.get("diameter_px"), int | float)

    def has_changed(self, number: int) -> bool:
        """Whether the file is another than the one that was picked."""
        row = self.rows[number]
        return row.picked_stamp is not None and file_stamp(row.source) not in ((-1, -1), row.picked_stamp)

    def powers(self, number: int, candidates: Picks) -> NDArray[np.float32] | None:
        """(n,) Local power of candidates, on the run's own picture; None without one."""
        picture = self.overview(number)
        if picture is None or candidates.shape_yx is None:
            return None
        import cv2

        # decoded as small as the power may be measured on: that takes most of the time
        diameter = self.diameter_px(number) * min(1.0, OVERVIEW_PX / max(candidates.shape_yx))
        times = next((times for times in (8, 4, 2) if times <= coarsening(diameter)), 1)
        small = cv2.imdecode(np.frombuffer(picture, np.uint8), _REDUCED[times])
        if small is None:
            return None
        diameter = self.diameter_px(number) * small.shape[1] / candidates.shape_yx[1]
        power = local_power(small.astype(np.float32), diameter_px=max(diameter, 0.5))
        return power_at(power, candidates.xy_px, shape_yx=candidates.shape_yx)

    def index_one(self, number: int) -> None:
        """Put one micrograph into the index, unless it is there."""
        row = self.rows[number]
        if row.error or self.index.has(row.key, row.stamp):
            return
        try:
            candidates = self.candidates(number)
            part = part_of(candidates, power=self.powers(number, candidates), stamp=row.stamp)
        except (CryopickError, OSError):
            return  # the micrograph's own page says why
        with self.guard:
            self.index.put(row.key, part)

    def save_index(self) -> None:
        """Keep the index for the next start, where the folder can be written."""


class RunSource(Source):
    """A run folder of `cryopick pick`, finished or not.

    Raises
    ------
    RunFolderError
        If it is no run folder.
    """

    can_learn = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder = RunFolder(path)
        if not self.folder.is_run or not (path / RECORDS).is_dir():
            raise RunFolderError(
                f"{path}: has no {CONFIG} or no {RECORDS}, so it is no run folder of `cryopick pick`; give one, or "
                "picks of another program with --picks and --micrographs"
            )
        self.plan: PickPlan = plan_of_run(self.folder)
        self.run_settings = self.plan.settings.run
        self.title = path.resolve().name
        self.picker = str(self.plan.picker.name)
        self.score_meaning = str(self.plan.picker.score_meaning)
        self.is_probability = gives_probabilities(self.plan.picker)
        self._records: dict[str, Record] = {}
        self._stamps: dict[str, str] = {}
        self._number: dict[str, int] = {}
        self._cut_stamp: tuple[int, int] | None = None
        self._record_folders: list[str] = []
        self._looked, self._looks = 0.0, 0
        self.damaged: dict[str, str] = {}
        probability = self.plan.picker.run_probabilities if self.is_probability else None
        seen = self.plan.seen
        self.index = RunIndex(None if probability is None else lambda scores: probability(scores, seen))
        self.refresh()
        stamps = {row.key: row.stamp for row in self.rows}
        self.index.load(path / INDEX_FOLDER / INDEX_FILE, stamps=stamps)

    def refresh(self) -> list[int]:
        is_recut = self._read_cut()
        changed = []
        for path, key in self._record_files():
            try:
                status = path.stat()
                stamp = f"{status.st_mtime_ns:x}-{status.st_size:x}"
                if self._stamps.get(key) == stamp:
                    continue
                safe = self.folder.record_path(key)  # refuses links that lead out of the folder
                record = read_record(safe.read_bytes().decode("utf-8", "surrogateescape"), key=key)
            except (OSError, ValueError, RunFolderError) as error:
                self.damaged[key] = " ".join(str(error).split())[:200]
                continue
            self.damaged.pop(key, None)
            self._stamps[key], self._records[key] = stamp, record
            changed.append(self._put(key))
        if is_recut:
            for key in self._records:
                self._put(key)
            changed = list(range(len(self.rows)))
        return changed

    def _record_files(self) -> list[tuple[Path, str]]:
        """Every record and its key, sorted; none where no folder of them changed since they were last looked at.

        Records are written by renaming, which changes the time of their folder. A look at all of thousands of files
        holds up whoever waits for an answer, so that is done anyway only now and then.
        """
        top, now = self.folder.path / RECORDS, time.time()
        if self._looks % LOOK_AT_ALL_EVERY and not any(_is_newer(one, self._looked) for one in self._record_folders):
            self._looks += 1
            return []
        found, folders = [], []
        for folder, _, names in os.walk(top):
            folders.append(folder)
            inside = Path(folder).relative_to(top)
            found += [
                (Path(folder, name), (inside / name).as_posix().removesuffix(".json"))
                for name in names
                if name.endswith(".json")
            ]
        self._record_folders, self._looked, self._looks = folders, now, 1
        return sorted(found)

    def _put(self, key: str) -> int:
        record = self._records[key]
        verdict = self.cutting.summary.get("verdicts", {}).get(record.name) or {}
        row = Row(
            name=record.name,
            key=key,
            source=Path(record.source),
            stamp=self._stamps[key],
            relion_name=record.relion_name,
            shape_yx=record.shape_yx,
            pixel_size_angstrom=record.pixel_size_angstrom,
            candidate_count=record.candidate_count,
            maps=record.maps,
            warnings=record.warnings,
            error=record.error,
            picked_stamp=(record.size_bytes, record.modified_ns),
            expected_right=verdict.get("expected_right"),
            belief=float(verdict.get("belief", 1.0)),
            told=": ".join(filter(None, (str(verdict.get("verdict") or ""), str(verdict.get("reason") or "")))),
        )
        number = self._number.setdefault(key, len(self.rows))
        if number == len(self.rows):
            self.rows.append(row)
        else:
            self.rows[number] = row
        return number

    def _read_cut(self) -> bool:
        """Read the summary where it is new; whether it was."""
        stamp = file_stamp(self.folder.path / SUMMARY)
        if stamp == self._cut_stamp:
            return False
        if stamp == (-1, -1):
            given = self.plan.settings.selection.threshold
            moved = self.folder.moved_threshold()
            known = moved if moved is not None else given
            threshold = float(self.plan.picker.default_threshold) if known is None else known
            self.cutting = Cutting(threshold=threshold, source="until the run is finished")
        else:
            try:
                summary = read_summary(self.folder.path)
            except RunFolderError:
                return False  # being written; the next look finds it whole
            self.cutting = Cutting(
                threshold=float(summary["threshold"]), source=str(summary.get("threshold_source", "")), summary=summary
            )
        self._cut_stamp = stamp
        survey = self.plan.survey
        self._diameter = run_diameter(self.plan.picker, survey)
        return True

    @property
    def is_finished(self) -> bool:
        return self._cut_stamp not in (None, (-1, -1))

    def record(self, number: int) -> Record:
        return self._records[self.rows[number].key]

    def candidates(self, number: int) -> Picks:
        record = self.record(number)
        if record.error:
            return Picks(xy_px=np.zeros((0, 2)), micrograph_name=record.name, shape_yx=record.shape_yx)
        return self.folder.read_candidates(record)

    def overview(self, number: int) -> bytes | None:
        return _read(self.folder.image_path(self.rows[number].key))

    def map_png(self, number: int, which: int) -> bytes | None:
        row = self.rows[number]
        return _read(self.folder.map_path(row.key, row.maps[which]))

    def save_index(self) -> None:
        path = self.folder.path / INDEX_FOLDER / INDEX_FILE
        try:
            with self.guard:
                self.index.save(path)
        except CryopickError:
            return  # a folder that cannot be written: made again next time


class PicksSource(Source):
    """Picks of any program, and the micrographs they are on.

    Parameters
    ----------
    picks : any coordinate file or folder of them
    micrographs : their images, as `cryopick pick` takes them
    diameter : of a particle; None takes the median of the rows' own

    Raises
    ------
    InputError
        If no micrograph has picks.
    """

    def __init__(self, picks: Path, micrographs: Sequence[str], *, diameter: Length | None = None) -> None:
        super().__init__()
        self.title = picks.name
        self.picker = "imported"
        found = find_micrographs(micrographs)
        info: dict[str, ImageInfo] = {}
        unreadable: dict[str, str] = {}
        for one in found:
            try:
                info[one.name] = probe_image(one.path)
            except (CryopickError, OSError) as failure:
                unreadable[one.name] = " ".join(str(failure).split())
        shapes = {name: known.shape_yx for name, known in info.items()}
        read = read_picks(picks, shapes_yx=shapes)
        matched = {micrograph: name for name, micrograph in match_micrograph_names(read, shapes).items()}
        if not matched:
            raise InputError(
                f"none of the {len(read)} micrographs in {picks} ({', '.join(sorted(read)[:3])}) is among the "
                f"{len(found)} given ({', '.join(sorted(shapes)[:3])}); names must agree, folder and extension aside"
            )
        self.left_out = sorted(set(read) - set(matched.values()))
        self._picks: dict[str, Picks] = {}
        for one in found:
            told = info.get(one.name)
            key = os.path.splitext(one.name)[0]
            problem = key_problem(key)
            error = unreadable.get(one.name, f"its name cannot name files: {problem}" if problem else "")
            shape = None if told is None else told.shape_yx
            size = one.pixel_size_angstrom or (None if told is None else told.pixel_size_angstrom) or None
            mine = read[matched[one.name]] if one.name in matched else Picks(xy_px=np.zeros((0, 2)))
            self._picks[one.name] = Picks(
                xy_px=mine.xy_px,
                score=mine.score,
                diameter_px=mine.diameter_px,
                class_id=mine.class_id,
                reason=mine.reason,
                micrograph_name=one.name,
                shape_yx=shape,
                pixel_size_angstrom=size,
            )
            self.rows.append(
                Row(
                    name=one.name,
                    key=key,
                    source=one.path,
                    stamp="0",
                    relion_name=one.listed_name or one.path.as_posix(),
                    shape_yx=shape,
                    pixel_size_angstrom=size,
                    candidate_count=len(mine),
                    warnings=mine.warnings,
                    error=error,
                )
            )
        every = np.concatenate([one.diameter_px for one in self._picks.values()])
        every = every[np.isfinite(every)]
        middle = float(np.median(every)) if len(every) else 0.0
        self._diameter = diameter or (Length(middle, middle, "px") if middle > 0 else None)
        self.score_meaning = "as the other program gave it"
        self.cutting = Cutting(threshold=LOWEST, source="all that was imported")

    def refresh(self) -> list[int]:
        return []

    def candidates(self, number: int) -> Picks:
        return self._picks[self.rows[number].name]

    def overview(self, number: int) -> bytes | None:  # noqa: ARG002  # made from the original by whoever wants it
        return None

    def map_png(self, number: int, which: int) -> bytes | None:  # noqa: ARG002  # other programs' maps are not read
        return None


def _is_newer(folder: str, seconds: float) -> bool:
    """Whether a folder changed since a time, or so shortly before it that clocks and file systems may disagree."""
    try:
        return os.stat(folder).st_mtime > seconds - CLOCK_DOUBT_S
    except OSError:
        return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
