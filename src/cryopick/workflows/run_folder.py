"""The run folder: where each file of a picking run lies, what marks a micrograph as finished, and who may write.

A micrograph is finished when its record is there; the record is written last. Everything else at the top of the
folder is made again from the per-micrograph files, so a killed run loses only the micrographs that were being picked.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

import numpy as np

from cryopick.errors import OutputError, RunFolderError
from cryopick.io.atomic import TEMPORARY_PREFIX, write_bytes_atomic
from cryopick.io.names import without_extension
from cryopick.types import Picks

PICKS, CANDIDATES, RECORDS, IMAGES = "picks", "candidates", "records", "images"
AUTOPICK, PARTICLES, MICROGRAPHS = "autopick.star", "particles.star", "micrographs.star"
REPORT, SUMMARY, CONFIG, COMMAND, LOG = "report.html", "summary.json", "config.toml", "command.txt", "run.log"
PREPARED, MODEL, MOVED_THRESHOLD, LOCK = "prepared.toml", "model", "threshold.json", ".lock"
CONTENTS = (
    *(PICKS, CANDIDATES, RECORDS, IMAGES, AUTOPICK, PARTICLES, MICROGRAPHS, REPORT, SUMMARY, COMMAND, LOG, PREPARED),
    *(MODEL, MOVED_THRESHOLD, CONFIG),
)
OWN_FOLDERS = (PICKS, CANDIDATES, RECORDS, IMAGES, MODEL)
"""Folders that hold nothing but what runs wrote; what else lies in a run folder may be the user's."""
_RELION_JOB = re.compile(r"^[A-Za-z0-9_]+/job[0-9]{3,}/")
_COLUMNS = ("x_px", "y_px", "score", "diameter_px", "class_id", "reason")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run remembers of one micrograph besides its candidates; `error` is "" where picking worked."""

    name: str
    key: str
    """Where its files lie: `picks/<key>_picks.star`, `candidates/<key>.csv`, `images/<key>.jpg`."""
    source: str
    relion_name: str
    """As the user's micrographs.star has it, else the path as it was given, which RELION counts from its project."""
    size_bytes: int
    modified_ns: int
    shape_yx: tuple[int, int] | None = None
    pixel_size_angstrom: float | None = None
    seconds: float = 0.0
    maps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_done(self) -> bool:
        return not self.error


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path

    def picks_path(self, key: str) -> Path:
        return self.path / PICKS / f"{key}_picks.star"

    def candidates_path(self, key: str) -> Path:
        return self.path / CANDIDATES / f"{key}.csv"

    def record_path(self, key: str) -> Path:
        return self.path / RECORDS / f"{key}.json"

    def image_path(self, key: str) -> Path:
        return self.path / IMAGES / f"{key}.jpg"

    def map_path(self, key: str, name: str) -> Path:
        return self.path / IMAGES / f"{key}.{name}.png"

    @property
    def is_run(self) -> bool:
        return (self.path / CONFIG).is_file()

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, path: Path, content: bytes | str) -> None:
        """Write a file of this run atomically, unless it already has this content.

        Raises
        ------
        RunFolderError
            If it cannot be written (disk full, permission); nothing finished is lost.
        """
        data = content.encode("utf-8", errors="surrogateescape") if isinstance(content, str) else content
        with self.writing(path):
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return
            write_bytes_atomic(path, data)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn a failure to write `path` into a `RunFolderError` that says what to do."""
        try:
            yield
        except OutputError as error:
            raise RunFolderError(f"{error}; then run the same command again: what was finished is kept") from error
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be replaced ({error.strerror}); what was finished is kept") from error

    def write_candidates(self, key: str, picks: Picks) -> None:
        """All candidates of one micrograph with the reason for each rejection that no threshold can change."""
        self.write(self.candidates_path(key), candidates_text(picks))

    def write_record(self, record: Record) -> None:
        self.write(self.record_path(record.key), json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")

    def append_log(self, line: str) -> None:
        """A line in run.log; a log that cannot be written stops nothing."""
        with _ignore_missing_space(), open(self.path / LOG, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(line + "\n")

    # ------------------------------------------------------------------------------------------------ reading

    def read_candidates(self, record: Record) -> Picks:
        """The candidates of one finished micrograph."""
        path = self.candidates_path(record.key)
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
            columns = list(zip(*rows[1:], strict=True)) or [()] * len(_COLUMNS)
            x, y, score, diameter = (np.array(column, dtype=np.float64) for column in columns[:4])
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
        except (OSError, ValueError, IndexError) as error:
            raise RunFolderError(
                f"{path}: expected a table of candidates with the columns {', '.join(_COLUMNS)} ({error}); "
                f"delete {self.record_path(record.key)} and run the same `cryopick pick` command to pick it again"
            ) from error

    def records(self) -> list[Record]:
        """Every record, finished and failed, sorted by name."""
        found = [self._read_record(path) for path in sorted((self.path / RECORDS).rglob("*.json"))]
        return sorted(found, key=lambda record: record.name)

    def _read_record(self, path: Path) -> Record:
        try:
            content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
            shape = content["shape_yx"]
            return Record(
                **content
                | {
                    "shape_yx": None if shape is None else tuple(shape),
                    "maps": tuple(content["maps"]),
                    "warnings": tuple(content["warnings"]),
                }
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            names = ", ".join(field.name for field in fields(Record))
            raise RunFolderError(f"{path}: expected a JSON record with {names} ({error}); delete the file") from error

    def moved_threshold(self) -> float | None:
        """The threshold set by `cryopick rethreshold`, or None."""
        path = self.path / MOVED_THRESHOLD
        if not path.is_file():
            return None
        try:
            return float(json.loads(path.read_text())["threshold"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f'{path}: expected {{"threshold": number}} ({error}); delete the file') from error

    # ------------------------------------------------------------------------------------------ opening, cleaning

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while this one writes; a killed process holds no lock."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = open(self.path / LOCK, "a")  # noqa: SIM115  # held open for as long as the lock
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot make or write the run folder ({error.strerror}); choose another with -o"
            ) from error
        with stream:
            _lock_or_raise(stream.fileno(), self.path)
            yield

    def clean_up(self) -> None:
        """Remove the half-written files of a killed run. Only under the lock."""
        for folder in (self.path, *(self.path / name for name in (PICKS, CANDIDATES, RECORDS, IMAGES))):
            pattern = f"{TEMPORARY_PREFIX}*"
            for path in folder.glob(pattern) if folder == self.path else folder.rglob(pattern):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything that a run wrote, and nothing else."""
        for name in CONTENTS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def refuse_foreign_contents(self) -> None:
        """Raise `RunFolderError` if the folder is no run but holds files that a run would replace."""
        foreign = [name for name in CONTENTS if (self.path / name).exists()]
        if foreign and not self.is_run:
            raise RunFolderError(
                f"{self.path}: has {', '.join(foreign)} but no {CONFIG}, so it is not a run folder of cryopick and "
                "would be overwritten; choose another with -o"
            )


def candidates_text(picks: Picks) -> str:
    """The CSV text of candidates. Rounded (0.001 px, 6 digits of score), so that no machine's last bit shows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for (x, y), score, diameter, class_id, reason in zip(
        picks.xy_px.tolist(),
        picks.score.tolist(),
        picks.diameter_px.tolist(),
        picks.class_id.tolist(),
        picks.reason.tolist(),
        strict=True,
    ):
        writer.writerow((f"{x:.3f}", f"{y:.3f}", f"{score:.6g}", f"{diameter:.2f}", class_id, reason))
    return stream.getvalue()


def assign_keys(names: Sequence[str], taken: Mapping[str, str]) -> dict[str, str]:
    """Where each micrograph's files lie: its name without the extension, or the whole name where two would collide.

    A leading `JobType/job012/` is left out, as RELION leaves it out when it looks for coordinate files.

    `taken` maps names of earlier calls to their keys, which never change.

    Raises
    ------
    RunFolderError
        If two names still collide, or a name would leave the run folder.
    """
    stems = {name: _RELION_JOB.sub("", without_extension(name)) for name in names}
    counts = Counter([*stems.values(), *(key for name, key in taken.items() if name not in stems)])
    keys = {name: taken.get(name) or (stem if counts[stem] == 1 else name) for name, stem in stems.items()}
    twice = [key for key, count in Counter(keys.values()).items() if count > 1]
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if twice or outside:
        raise RunFolderError(
            f"micrograph names {', '.join((twice or outside)[:3])} cannot name files in a run folder; "
            "pick these micrographs in a run of their own"
        )
    return keys


def _lock_or_raise(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; runs there are not guarded against each other
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(
            f"{folder}: another cryopick is writing to this run folder; wait for it to end, or choose another with -o"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # some network file systems have no locks
            raise


@contextmanager
def _ignore_missing_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
