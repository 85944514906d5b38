"""The run folder: where each file of a picking run lies, what marks a micrograph as finished, and who may write.

A micrograph is finished when its record is there; the record is written last. Everything else at the top of the
folder is made again from the per-micrograph files, so a killed run loses only the micrographs that were being picked.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import repeat
from pathlib import Path

import numpy as np

from cryopick.errors import OutputError, RunFolderError
from cryopick.io.coordinates.candidates import CANDIDATE_COLUMNS, candidates_text
from cryopick.io.coordinates.names import without_extension
from cryopick.io.coordinates.relion import PICKS_FOLDER, UNFINISHED_RUN, unfinished_run_text
from cryopick.io.files.atomic import TEMPORARY_PREFIX, atomic_path, write_bytes_atomic
from cryopick.io.files.folder_lock import LOCK_FILE, FolderLock, locked_folder, one_at_a_time, shared_folder
from cryopick.runs.record import PICKS_TAIL, Record, key_problem, read_record, record_text
from cryopick.runs.renames import RENAMING, finish_renaming
from cryopick.types import Picks

PICKS, CANDIDATES, RECORDS, IMAGES = PICKS_FOLDER, "candidates", "records", "images"
AUTOPICK, PARTICLES, MICROGRAPHS = "autopick.star", "particles.star", "micrographs.star"
REPORT, SUMMARY, CONFIG, COMMAND, LOG = "report.html", "summary.json", "config.toml", "command.txt", "run.log"
PREPARED, MODEL, MOVED_THRESHOLD, LOCK = "prepared.toml", "model", "threshold.json", LOCK_FILE
PLACE, FILES, UNFINISHED, COMPUTING = "place.json", "files.json", UNFINISHED_RUN, "computing.json"
PREPARE_LOCK = ".prepare.lock"
STATE = "state.json"
"""Only while the run follows a session and its tables are provisional."""
REPLACING, REPLACED = ".replacing", ".replaced"
FOLDERS = (PICKS, CANDIDATES, RECORDS, IMAGES, MODEL)
CONTENTS = (
    *(PICKS, CANDIDATES, RECORDS, IMAGES, AUTOPICK, PARTICLES, MICROGRAPHS, REPORT, SUMMARY, COMMAND, LOG, PREPARED),
    *(MODEL, MOVED_THRESHOLD, PLACE, FILES, UNFINISHED, COMPUTING, STATE, CONFIG),
)
OWN_FOLDERS = (PICKS, CANDIDATES, RECORDS, IMAGES, MODEL)
"""Folders that hold nothing but what runs wrote; what else lies in a run folder may be the user's."""
UNNAMED = "not-picked"
"""Folder of the records of micrographs whose names cannot name files."""
_RELION_JOB = re.compile(r"^[A-Za-z0-9_]+/job[0-9]{3,}/")
_CANDIDATES_HEADER = ",".join(CANDIDATE_COLUMNS)
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR)


class UnusableNameError(RunFolderError):
    """The file system does not take the name of a micrograph's file."""


class DamagedError(RunFolderError):
    """A file of one micrograph in a run folder is damaged; picking that micrograph again makes it anew.

    `what` is the message without the remedy.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path
    _known: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    """Device and inode of the lock while this process holds it, and of folders that are known to lie inside."""
    _locks: list[FolderLock] = field(default_factory=list, repr=False, compare=False)
    """The lock, while this process holds it."""

    def picks_path(self, key: str) -> Path:
        return self._inside(self.path / PICKS / f"{key}{PICKS_TAIL}")

    def candidates_path(self, key: str) -> Path:
        return self._inside(self.path / CANDIDATES / f"{key}.csv")

    def record_path(self, key: str) -> Path:
        return self._inside(self.path / RECORDS / f"{key}.json")

    def image_path(self, key: str) -> Path:
        return self._inside(self.path / IMAGES / f"{key}.jpg")

    def map_path(self, key: str, name: str) -> Path:
        return self._inside(self.path / IMAGES / f"{key}.{name}.png")

    @property
    def is_run(self) -> bool:
        return (self.path / CONFIG).is_file()

    def _inside(self, path: Path) -> Path:
        """`path`, or `RunFolderError` where links lead it out of the run folder."""
        folder = str(path.parent)
        if folder not in self._known or path.is_symlink():
            root, real = os.path.realpath(self.path), os.path.realpath(path)
            if not Path(real).is_relative_to(root):
                raise RunFolderError(
                    f"{path}: a link leads out of the run folder, to {real}; put the file or folder itself in its place"
                )
            self._known[folder] = (0, 0)
        return path

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, path: Path, content: bytes | str, *, is_durable: bool = False) -> None:
        """Write a file of this run atomically, unless it already has this content.

        Parameters
        ----------
        is_durable : force it to the disk, for what cannot be made again from other files of the run

        Raises
        ------
        RunFolderError
            If it cannot be written (disk full, permission); nothing finished is lost.
        """
        data = content.encode("utf-8", errors="surrogateescape") if isinstance(content, str) else content
        with self.writing(path):
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return
            write_bytes_atomic(path, data, below=self.path, is_durable=is_durable)

    @contextmanager
    def writing_piecewise(self, path: Path) -> Iterator[Callable[[str], object]]:
        """As `write`, for a text that is too long to be held at once: gives the function that takes its pieces."""
        with (
            self.writing(path),
            atomic_path(path, below=self.path, keep_same=True) as temporary,
            open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as stream,
        ):
            yield stream.write

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn a failure to write `path` into a `RunFolderError` that says what to do."""
        self.require_still_there()
        try:
            yield
        except (OutputError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            if number in _NAME_ERRORS:
                raise UnusableNameError(f"{error}; what was finished is kept") from error
            if number == errno.ENOENT:
                self.require_still_there()
            if isinstance(error, OSError):
                raise RunFolderError(
                    f"{path}: cannot be replaced ({error.strerror}); what was finished is kept"
                ) from error
            raise RunFolderError(f"{error}; then run the same command again: what was finished is kept") from error

    def require_still_there(self) -> None:
        """Raise `RunFolderError` if the folder that this process has locked was removed, renamed or replaced."""
        locked = self._known.get(LOCK)
        if locked is None:
            return
        try:
            status = os.stat(self.path / LOCK)
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != locked:
            raise RunFolderError(
                f"{self.path}: the run folder was removed, renamed or replaced while cryopick was writing to it; what "
                "was picked before is where it went; move it back, or choose another with -o, and run the same "
                "command again"
            )
        for lock in self._locks:
            lock.require()

    def write_candidates(self, key: str, picks: Picks) -> None:
        """All candidates of one micrograph with the reason for each rejection that no threshold can change."""
        self.write(self.candidates_path(key), candidates_text(picks), is_durable=True)

    def write_record(self, record: Record) -> None:
        self.write(self.record_path(record.key), record_text(record), is_durable=True)

    def remove_results(self, key: str, maps: Sequence[str] = ()) -> None:
        """Remove the picks, candidates and pictures of one micrograph, where there are any."""
        for path in (self.picks_path(key), self.candidates_path(key), self.image_path(key)):
            with self.writing(path):
                path.unlink(missing_ok=True)
        self.remove_pictures(key, maps)

    def remove_pictures(self, key: str, maps: Sequence[str]) -> None:
        """Remove the pictures of these maps of one micrograph, where there are any."""
        for path in (self.map_path(key, name) for name in maps):
            with self.writing(path):
                path.unlink(missing_ok=True)

    def append_log(self, line: str) -> None:
        """A line in run.log; a log that cannot be written stops nothing, but a run folder that is gone does."""
        self.require_still_there()
        with _ignore_missing_space(), open(self.path / LOG, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(line + "\n")

    # ------------------------------------------------------------------------------------------------ reading

    def read_candidates(self, record: Record) -> Picks:
        """The candidates of one finished micrograph.

        Raises
        ------
        DamagedError
            If the table is missing, empty, cut, or no table of candidates.
        """
        path = self.candidates_path(record.key)
        try:
            return _parsed_candidates(path.read_text(encoding="utf-8"), record)
        except (OSError, ValueError, IndexError, OverflowError, csv.Error) as error:
            raise DamagedError(
                f"{path}: expected a whole table of candidates with {', '.join(CANDIDATE_COLUMNS)} ({error})",
                "run the same `cryopick pick` command again, which picks this micrograph again (otherwise delete "
                f"{self.record_path(record.key)} to leave it out)",
            ) from error

    def records(self) -> list[Record]:
        """Every record, finished and failed, sorted by name.

        Raises
        ------
        DamagedError
            If one is damaged; the message says how many are, and why the first.
        """
        found, damaged = self.read_records()
        if damaged:
            key, reason = next(iter(damaged.items()))
            more = f", and {len(damaged) - 1} more like it" if len(damaged) > 1 else ""
            raise DamagedError(
                f"{self.record_path(key)}{more}: expected the JSON record of a micrograph ({reason})",
                "run the same `cryopick pick` command again, which picks what is damaged again, or delete the file",
            )
        return found

    def read_records(self) -> tuple[list[Record], dict[str, str]]:
        """Every record that can be read, sorted by name; and what is wrong with the others, by key."""
        found: dict[str, Record] = {}
        damaged: dict[str, str] = {}
        folder = self._inside(self.path / RECORDS / "any").parent
        for path in sorted(folder.rglob("*.json")):
            key = path.relative_to(folder).as_posix().removesuffix(".json")
            try:
                record = read_record(self._inside(path).read_bytes().decode("utf-8", "surrogateescape"), key=key)
                if record.name in found:
                    raise ValueError(f"{record.name} has another record, {found[record.name].key}")
            except (OSError, ValueError, RunFolderError) as error:
                damaged[key] = " ".join(str(error).split())[:200]
                continue
            found[record.name] = record
        return sorted(found.values(), key=lambda record: record.name), damaged

    def moved_threshold(self) -> float | None:
        """The threshold set by `cryopick rethreshold`, or None."""
        path = self.path / MOVED_THRESHOLD
        if not path.is_file():
            return None
        try:
            threshold = json.loads(path.read_text(encoding="utf-8"))["threshold"]
            if isinstance(threshold, bool) or not isinstance(threshold, int | float) or math.isnan(threshold):
                raise ValueError(f"threshold is {str(threshold)[:60]}")
            return float(threshold)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RunFolderError(
                f'{path}: expected {{"threshold": number}} ({error}); set it again with '
                f"`cryopick rethreshold {self.path} --threshold NUMBER`, or take it back with --reset"
            ) from error

    # ------------------------------------------------------------------------------------------- unfinished tables

    def begin_tables(self) -> None:
        """Mark picks and tables as not belonging together until `end_tables`; readers refuse them meanwhile."""
        self.write(self.path / UNFINISHED, "cryopick removes this file when all picks and tables are written.\n")

    def end_tables(self) -> None:
        """All tables are written and belong together."""
        with self.writing(self.path / UNFINISHED):
            (self.path / UNFINISHED).unlink(missing_ok=True)

    def refuse_unfinished(self) -> None:
        """Raise `RunFolderError` if picks and tables may not belong together."""
        if (self.path / UNFINISHED).exists():
            raise RunFolderError(unfinished_run_text(self.path))

    # ------------------------------------------------------------------------------------------ opening, cleaning

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while this one writes; a killed process holds no lock."""
        with locked_folder(self.path) as lock, self._held(lock):
            yield

    @contextmanager
    def lock_with_others(self) -> Iterator[None]:
        """Write files of single micrographs, as others do meanwhile, each those of its own; see `runs.parts`."""
        with shared_folder(self.path) as lock, self._held(lock):
            yield

    @contextmanager
    def preparing(self) -> Iterator[bool]:
        """Wait until no other process makes the files that all parts of a run share; see `one_at_a_time`."""
        with one_at_a_time(self.path, PREPARE_LOCK) as is_alone:
            yield is_alone

    @contextmanager
    def _held(self, lock: FolderLock) -> Iterator[None]:
        self._known[LOCK] = lock.identity
        self._locks.append(lock)
        try:
            self._require_own_contents()
            yield
        finally:
            del self._known[LOCK]
            self._locks.remove(lock)

    @property
    def lock_doubt(self) -> str:
        """What is to be said where this process keeps others out without a lock of the file system; else ""."""
        return next((lock.doubt for lock in self._locks), "")

    def _require_own_contents(self) -> None:
        """Raise `RunFolderError` where a link leads out of the folder, or a file stands for a folder."""
        for name in CONTENTS:
            path = self._inside(self.path / name)
            if path.exists() and path.is_dir() != (name in FOLDERS):
                kind, expected = ("folder", "file") if path.is_dir() else ("file", "folder")
                raise RunFolderError(f"{path}: is a {kind}, expected a {expected}; move it away, or choose another -o")

    def clean_up(self) -> None:
        """Remove the half-written files of a killed run; settle what was being replaced or renamed. Under the lock."""
        for folder in (self.path, *(self.path / name for name in (PICKS, CANDIDATES, RECORDS, IMAGES))):
            pattern = f"{TEMPORARY_PREFIX}*"
            for path in folder.glob(pattern) if folder == self.path else folder.rglob(pattern):
                with self.writing(path):
                    path.unlink(missing_ok=True)
        with self.writing(self.path / PREPARE_LOCK):
            (self.path / PREPARE_LOCK).unlink(missing_ok=True)  # nobody waits for it while the folder is locked
        self._settle_replacement()
        finish_renaming(self)

    def refuse_unsettled(self) -> None:
        """Raise `RunFolderError` where a call was killed that replaced or renamed files: a whole call settles it."""
        there = [name for name in (REPLACING, REPLACED, RENAMING) if os.path.lexists(self.path / name)]
        if there:
            raise RunFolderError(
                f"{self.path}: a call was interrupted while it replaced or renamed files ({', '.join(there)}); run the "
                "`cryopick pick` command once without --part or --add, then go on"
            )

    def has_records(self) -> bool:
        """True where any micrograph was finished, failed or not, readable or not."""
        return next((self.path / RECORDS).rglob("*.json"), None) is not None

    def forget_preparation(self) -> None:
        """Remove what a picker learnt with settings that no longer hold."""
        for name in (PREPARED, MODEL):
            with self.writing(self.path / name):
                _remove(self.path / name)

    def set_aside(self) -> None:
        """Move everything that a run wrote, and nothing else, out of the way of a new run.

        Raises
        ------
        RunFolderError
            If something could not be removed afterwards; nothing has changed then.
        """
        there = [self.path / name for name in CONTENTS if os.path.lexists(self.path / name)]
        folders = [self.path, *(Path(here) for path in there for here, _, _ in os.walk(path))]
        locked = next((folder for folder in folders if not os.access(folder, os.W_OK | os.X_OK)), None)
        if locked is not None:
            raise RunFolderError(
                f"{locked}: no permission to replace what is in it, so nothing was removed; change its permissions, or "
                "choose another folder with -o"
            )
        aside = self.path / REPLACING
        try:
            aside.mkdir(exist_ok=True)
            for path in there:
                path.rename(aside / path.name)
            aside.rename(self.path / REPLACED)
        except OSError as error:
            self._settle_replacement()
            raise RunFolderError(
                f"{error.filename or self.path}: cannot be replaced ({error.strerror}), so nothing was removed; choose "
                "another folder with -o"
            ) from error

    def _settle_replacement(self) -> None:
        """Finish what a killed `set_aside`, or the run after it, left: the new run, or the old one as it was."""
        if (self.path / REPLACED).is_dir():
            if any(record.is_done for record in self.read_records()[0]):
                self.drop_replaced()
            else:
                self.restore_replaced()
        self._move_back()

    def restore_replaced(self) -> bool:
        """Bring back what `set_aside` moved, in place of what was written since; False where there is nothing."""
        is_there = (self.path / REPLACED).is_dir()
        if is_there:
            with self.writing(self.path / REPLACED):
                for name in CONTENTS:
                    _remove(self.path / name)
                (self.path / REPLACED).rename(self.path / REPLACING)
        self._move_back()
        return is_there

    def _move_back(self) -> None:
        """From `.replacing`, which a run is only in while it is moved: what is there is missing at the top."""
        if (self.path / REPLACING).is_dir():
            with self.writing(self.path / REPLACING):
                for path in (self.path / REPLACING).iterdir():
                    path.rename(self.path / path.name)
                (self.path / REPLACING).rmdir()

    def drop_replaced(self) -> None:
        """Remove what `set_aside` moved; a new run has begun in its place."""
        if (self.path / REPLACED).is_dir():
            with self.writing(self.path / REPLACED):
                shutil.rmtree(self.path / REPLACED)

    def refuse_foreign_contents(self) -> None:
        """Raise `RunFolderError` if the folder is no run but holds files that a run would replace."""
        foreign = [name for name in CONTENTS if os.path.lexists(self.path / name)]
        is_moved = any((self.path / name).is_dir() for name in (REPLACING, REPLACED))
        if foreign and not self.is_run and not is_moved:
            raise RunFolderError(
                f"{self.path}: has {', '.join(foreign)} but no {CONFIG}, so it is not a run folder of cryopick and "
                "would be overwritten; choose another with -o"
            )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _csv_columns(lines: Sequence[str], *, count: int) -> list[Sequence[str]]:
    """The columns of a CSV table without its header; lines without quotes, as ours are, are cut in one go."""
    text = ",".join(lines)
    if '"' not in text and set(map(str.count, lines, repeat(","))) <= {count - 1}:
        words = text.split(",") if lines else []
        return [words[start::count] for start in range(count)]
    return list(zip(*csv.reader(lines), strict=True)) or [()] * count


def _parsed_candidates(text: str, record: Record) -> Picks:
    """The candidates in a CSV text; `ValueError` and its like where it is not whole."""
    lines = text.splitlines()
    if not lines or lines[0] != _CANDIDATES_HEADER or not text.endswith("\n"):
        raise ValueError("it is empty, cut, or has another header")
    if record.candidate_count is not None and len(lines) - 1 != record.candidate_count:
        raise ValueError(f"{len(lines) - 1} rows of {record.candidate_count}")
    columns = _csv_columns(lines[1:], count=len(CANDIDATE_COLUMNS))
    x, y, score, diameter = (np.array(column, dtype=np.float64) for column in columns[:4])
    limit = float(np.finfo(np.float32).max)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a centre is not finite")
    if any((np.isfinite(values) & (np.abs(values) > limit)).any() for values in (score, diameter)):
        raise ValueError("a number is too large")
    return Picks(
        xy_px=np.stack([x, y], axis=1),
        score=score.astype(np.float32),
        diameter_px=diameter.astype(np.float32),
        class_id=np.array(columns[4], dtype=np.int32),
        reason=np.array(columns[5], dtype=np.str_),
        micrograph_name=record.name,
        shape_yx=record.shape_yx,
        pixel_size_angstrom=record.pixel_size_angstrom,
        warnings=record.warnings,
    )


def assign_keys(
    names: Sequence[str], taken: Mapping[str, str], *, problems: dict[str, str] | None = None
) -> dict[str, str]:
    """Where each micrograph's files lie: its name without the extension, or the whole name where two would collide.

    A leading `JobType/job012/` is left out, as RELION leaves it out when it looks for coordinate files.

    Parameters
    ----------
    taken : names of earlier calls and their keys, which never change
    problems : receives the names that cannot name files in a run folder, and why; only the record that says so is
        kept for these, below the key `not-picked/`. Where it is not given such a name is an error

    Raises
    ------
    RunFolderError
        If a name would leave the run folder, is too long, or shares its files with another, and `problems` is None.
    """
    taken = {name: key for name, key in taken.items() if not key.startswith(f"{UNNAMED}/")}
    stems = {name: _RELION_JOB.sub("", without_extension(name)) for name in names}
    counts = Counter([*stems.values(), *(key for name, key in taken.items() if name not in stems)])
    keys = {name: taken.get(name) or (stem if counts[stem] == 1 else name) for name, stem in stems.items()}
    shared = Counter(keys.values())
    found = {name: key_problem(key) for name, key in keys.items()}
    found |= {
        name: f"files of another micrograph are called {key}"
        for name, key in keys.items()
        if shared[key] > 1 and name not in taken
    }
    found = {name: problem for name, problem in found.items() if problem}
    if found and problems is None:
        raise RunFolderError(
            f"micrograph names {', '.join(list(found)[:3])} cannot name files in a run folder "
            f"({next(iter(found.values()))}); pick these micrographs in a run of their own"
        )
    for name, problem in found.items():
        assert problems is not None
        problems[name] = f"its name cannot name files in the run folder: {problem}; rename the file"
        keys[name] = unnamed_key(name)
    return keys


def unnamed_key(name: str) -> str:
    """The key of the record of a micrograph whose name cannot name files."""
    return f"{UNNAMED}/{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


@contextmanager
def _ignore_missing_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
