"""CryoSPARC `.cs` particle locations: a structured NPY array with centres as fractions of the image.

Which way the fraction of y runs depends on who aligned the movies: Patch Motion and MotionCor2 write vertically
opposite images of the same movie, and converters disagree with each other. So the convention is always given:

- rows="relion": `center_y_frac = row / h`
- rows="flipped": `center_y_frac = 1 - row / h`

After Select 2D or a refinement CryoSPARC keeps what a job did not change, the locations among it, in the job's
passthrough file. Rows of the two belong together by their `uid`.
"""

from __future__ import annotations

import hashlib
import io
import re
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, FormatError, MissingExtraError, SettingsError
from cryopick.extras import missing_extra
from cryopick.io.coordinates.grouping import as_float32, group_picks, require_name, require_writable, without_sentinels
from cryopick.io.files.atomic import write_bytes_atomic
from cryopick.io.files.reading import read_bytes
from cryopick.types import Picks

ROWS = ("relion", "flipped")
_NPY_MAGIC = b"\x93NUMPY"
_CSDAT_MAGIC = b"CSDAT"  # after a first byte that tells the version
_TOO_DEEP = (RecursionError, MemoryError, tokenize.TokenError)
_NUMBER_IN_FRONT = re.compile(r"^([0-9]{15,22})_")
_NEEDED = (
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/center_x_frac",
    "location/center_y_frac",
)
_SCORE = "pick_stats/ncc_score"
_PIXEL_SIZE_TOLERANCE = 1e-4  # relative; float32 and unit conversions differ by less, magnifications by more


def read_cryosparc(path: Path, *, rows: str | None) -> dict[str, Picks]:
    """Picks by micrograph path, with `pick_stats/ncc_score` as score, the image size and the pixel size.

    A file without locations is completed on `uid` from a .cs file beside it that has those of all its particles (the
    job's passthrough file), with a warning that names it.

    Parameters
    ----------
    rows : "relion" or "flipped", see the module; None raises, since the file does not say

    Raises
    ------
    FormatError
        If the file is damaged or holds no locations.
    MissingExtraError
        If it is in the compressed form (CSDAT) and cryosparc-tools is not installed.
    SettingsError
        If `rows` is missing or unknown.
    """
    table = _load(path)
    require_rows(rows, source=str(path))
    warnings_told: tuple[str, ...] = ()
    missing = _missing(table)
    if missing:
        table, other = _with_locations(table, path)
        warnings_told = (f"{path}: has no locations; they are taken from {other.name}, by uid",)
    depth = next((name for name in table.dtype.names or () if name.startswith(("location/center_z", "tomo"))), None)
    if depth is not None:
        raise FormatError(f"{path}: has {depth}, so these are particles of tomograms; expected those of micrographs")
    names = [_text(value) for value in table["location/micrograph_path"].tolist()]
    shape_hw = _numbers(table, "location/micrograph_shape", path, shape=(2,))
    if not ((shape_hw >= 1) & (shape_hw < 2**31)).all():
        row = int(np.argmin(((shape_hw >= 1) & (shape_hw < 2**31)).all(axis=1)))
        raise FormatError(f"{path} row {row + 1}: location/micrograph_shape has a size of 0 or beyond any detector")
    fractions = np.stack([_numbers(table, f"location/center_{axis}_frac", path) for axis in "xy"], axis=1)
    if rows == "flipped":
        fractions[:, 1] = 1 - fractions[:, 1]
    columns: dict[str, Any] = {}
    if _SCORE in (table.dtype.names or ()):
        score = _numbers(table, _SCORE, path, is_nan_allowed=True)
        columns["score"] = as_float32(without_sentinels(score), path=path, what=_SCORE)
    grouped = group_picks(names, fractions * shape_hw[:, ::-1], **columns)
    psize_name = "location/micrograph_psize_A"
    has_psize = psize_name in (table.dtype.names or ())
    psize = _numbers(table, psize_name, path, is_nan_allowed=True) if has_psize else np.zeros(len(table))
    shape_of: dict[str, tuple[int, int]] = {}
    size_of: dict[str, float] = {}  # the first that is known; merged sets have 0 where it is not
    for name, (height, width), size in zip(names, shape_hw.astype(int).tolist(), psize.tolist(), strict=True):
        is_other_shape = shape_of.setdefault(name, (height, width)) != (height, width)
        first = size_of.setdefault(name, size) if size > 0 else size
        if is_other_shape or (size > 0 and abs(size - first) > _PIXEL_SIZE_TOLERANCE * first):
            raise FormatError(
                f"{path}: micrograph {name} appears with two sizes or pixel sizes; the file is inconsistent"
            )
    return {
        name: replace(one, shape_yx=shape_of[name], pixel_size_angstrom=size_of.get(name), warnings=warnings_told)
        for name, one in grouped.items()
    }


def write_cryosparc(
    path: Path, picks: Sequence[Picks], *, rows: str | None, pixel_size_angstrom: float | None = None
) -> None:
    """Write locations and pick statistics that CryoSPARC's Import Result Group and cryosparc-tools read.

    A number in front of a micrograph's name (`008578565574161745010_...`) is CryoSPARC's own and becomes the
    micrograph's uid; otherwise uids are made from the names, so the same picks give the same file.

    Parameters
    ----------
    rows : "relion" or "flipped", see the module; None raises
    pixel_size_angstrom : for micrographs that do not know theirs

    Raises
    ------
    SettingsError
        If `rows`, an image size or a pixel size is missing.
    InputError
        If a centre is not finite, or a name has a null character or is no text.
    """
    require_rows(rows, source=str(path))
    for one in picks:
        require_writable(one)
        require_name(one.micrograph_name, forbidden="\0", holder="a .cs file")
    names = [one.micrograph_name for one in picks]
    width = max([len(name.encode("utf-8", errors="surrogateescape")) for name in names], default=1)
    dtype = np.dtype(
        [
            ("uid", "<u8"),
            ("location/micrograph_uid", "<u8"),
            ("location/exp_group_id", "<u4"),
            ("location/micrograph_path", f"S{max(1, width)}"),
            ("location/micrograph_shape", "<u4", (2,)),
            ("location/center_x_frac", "<f4"),
            ("location/center_y_frac", "<f4"),
            ("location/micrograph_psize_A", "<f4"),
            ("pick_stats/ncc_score", "<f4"),
            ("pick_stats/power", "<f4"),
            ("pick_stats/template_idx", "<u4"),
            ("pick_stats/angle_rad", "<f4"),
        ]
    )
    parts = []
    for one in picks:
        shape_yx, size = known_sizes(path, one, pixel_size_angstrom)
        part = np.zeros(len(one), dtype=dtype)
        fractions = one.xy_px / np.array([shape_yx[1], shape_yx[0]])
        part["uid"] = particle_uids(one.micrograph_name, len(one))
        part["location/micrograph_uid"] = _micrograph_uid(one.micrograph_name)
        part["location/exp_group_id"] = 1
        part["location/micrograph_path"] = one.micrograph_name.encode("utf-8", errors="surrogateescape")
        part["location/micrograph_shape"] = shape_yx
        part["location/center_x_frac"] = fractions[:, 0]
        part["location/center_y_frac"] = fractions[:, 1] if rows == "relion" else 1 - fractions[:, 1]
        part["location/micrograph_psize_A"] = size
        part["pick_stats/ncc_score"] = one.score
        part["pick_stats/power"] = one.score
        parts.append(part)
    table = np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, table, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())


def known_sizes(path: Path, picks: Picks, pixel_size_angstrom: float | None) -> tuple[tuple[int, int], float]:
    """The micrograph's image size and pixel size, which a .cs file needs; an unknown one raises `SettingsError`."""
    size = picks.pixel_size_angstrom or pixel_size_angstrom
    if picks.shape_yx is None or size is None:
        unknown = "image size" if picks.shape_yx is None else "pixel size"
        remedy = "--micrographs DIR" if picks.shape_yx is None else "--pixel-size (Å per pixel)"
        raise SettingsError(f"{path}: CryoSPARC needs the {unknown} of {picks.micrograph_name}; give {remedy}")
    return picks.shape_yx, size


def require_rows(rows: str | None, *, source: str) -> None:
    """Refuse a missing or unknown row convention, with what to do."""
    if rows not in ROWS:
        given = "is not given" if rows is None else f"is {rows!r}"
        raise SettingsError(
            f"{source}: the row convention {given} and a .cs file does not say it; give rows='relion' or "
            "rows='flipped' (on the command line --cs-rows), or let --flip-y auto measure it from the micrographs"
        )


def _missing(table: NDArray[Any]) -> list[str]:
    return [name for name in _NEEDED if name not in (table.dtype.names or ())]


def _with_locations(table: NDArray[Any], path: Path) -> tuple[NDArray[Any], Path]:
    """The rows of a .cs file without locations, as those of a file beside it that has them, and that file."""
    found: list[tuple[Path, NDArray[Any]]] = []
    if _has_uids(table):
        for other in sorted(path.parent.glob("*.cs")):
            if other.name.startswith(".") or other.name == path.name:
                continue
            try:
                located = _load(other)
            except (CryopickError, OSError):  # some other file of the job, or a damaged one: not the one we look for
                continue
            rows = None if _missing(located) or not _has_uids(located) else _rows_of(located["uid"], table["uid"])
            if rows is not None:
                found.append((other, located[rows]))
    distinct = [(other, rows) for k, (other, rows) in enumerate(found) if k == 0 or not _is_same(rows, found[0][1])]
    if len(distinct) > 1:
        names = ", ".join(other.name for other, _ in distinct[:4])
        raise FormatError(
            f"{path}: has no locations, and {names} beside it have different ones; leave one of them there"
        )
    if not found:
        raise FormatError(
            f"{path}: has no {', '.join(_missing(table))}; expected particle locations. CryoSPARC splits a job's "
            "columns over two files, *_particles*.cs and *_passthrough_particles*.cs: give the one that has locations, "
            "or put it beside this file, and it is found by its uids"
        )
    other, completed = found[0]
    if _SCORE in (table.dtype.names or ()) and _SCORE not in (completed.dtype.names or ()):
        fields = [(name, completed.dtype[name]) for name in completed.dtype.names or ()]
        joined = np.zeros(len(completed), dtype=np.dtype([*fields, (_SCORE, table.dtype[_SCORE])]))
        for name, _ in fields:
            joined[name] = completed[name]
        joined[_SCORE] = table[_SCORE]
        completed = joined
    return completed, other


def _has_uids(table: NDArray[Any]) -> bool:
    return "uid" in (table.dtype.names or ()) and table.dtype["uid"].kind in "iu" and table["uid"].ndim == 1


def _rows_of(uids: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64] | None:
    """(n,) Where each wanted uid stands among `uids`; None unless all of them are there."""
    order = np.argsort(uids, kind="stable")
    place = np.minimum(np.searchsorted(uids[order], wanted), max(len(uids) - 1, 0))
    if not len(wanted) or not len(uids) or not (uids[order][place] == wanted).all():
        return None
    return np.asarray(order[place], dtype=np.int64)


def _is_same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """True where both have the same locations, row by row."""
    return all(np.array_equal(first[name], second[name]) for name in _NEEDED)


def _load(path: Path) -> NDArray[Any]:
    content = read_bytes(path)
    if content[1:6] == _CSDAT_MAGIC:
        return _load_compressed(path)
    if not content.startswith(_NPY_MAGIC):
        raise FormatError(f"{path}: not a CryoSPARC .cs file (no NPY header); is it truncated, or another format?")
    try:
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings(action="ignore"):  # of a header from Python 2, which is read all the same
            shape, is_fortran, dtype = read_header(stream)
        expected = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
        found = len(content) - stream.tell()
    # A damaged header is a Python literal gone wrong, which numpy evaluates; these are all the ways it fails.
    except (ValueError, SyntaxError, TypeError, LookupError, EOFError, ArithmeticError, *_TOO_DEEP) as error:
        raise FormatError(f"{path}: damaged NPY header ({str(error)[:100]}); copy or export the file again") from error
    if dtype.hasobject or dtype.names is None or len(shape) != 1 or shape[0] < 0 or is_fortran:
        raise FormatError(f"{path}: holds {dtype} of shape {shape}, expected a table of named columns")
    if found < expected:
        raise FormatError(f"{path}: truncated, {found} bytes of {expected}; copy or export the file again")
    return np.frombuffer(content, dtype=dtype, count=shape[0], offset=len(content) - found)


def _load_compressed(path: Path) -> NDArray[Any]:
    try:
        from cryosparc.dataset import Dataset
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: is in CryoSPARC's compressed form (CSDAT); {missing_extra('cryosparc', 'reading it')}, "
            "or save it uncompressed there: Dataset.load(path).save(path, format=NUMPY_FORMAT)"
        ) from error
    try:
        return np.asarray(Dataset.load(str(path)).to_records(fixed=True))
    except Exception as error:  # the reader of another package, whose errors are not documented
        raise FormatError(f"{path}: cryosparc-tools cannot read it ({str(error)[:100]})") from error


def _numbers(
    table: NDArray[Any], name: str, path: Path, *, shape: tuple[int, ...] = (), is_nan_allowed: bool = False
) -> NDArray[np.float64]:
    column = table[name]
    if column.dtype.kind not in "fiu" or column.shape[1:] != shape:
        raise FormatError(f"{path}: column {name} is {table.dtype[name]}, expected numbers")
    numbers = column.astype(np.float64)
    is_bad = np.isinf(numbers) | (np.isnan(numbers) & (not is_nan_allowed))
    if is_bad.any():
        row = int(np.argmax(is_bad.reshape(len(table), -1).any(axis=1)))
        raise FormatError(f"{path} row {row + 1}: {name} is {numbers[row]}, expected a number")
    return numbers


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    return str(value)


def _micrograph_uid(name: str) -> int:
    match = _NUMBER_IN_FRONT.match(PurePosixPath(name).name)
    if match is not None and int(match.group(1)) < 2**64:
        return int(match.group(1))
    return _hashed(name)


def particle_uids(name: str, count: int) -> NDArray[np.uint64]:
    """(count,) uids of the particles of one micrograph, the same whenever they are made."""
    generator = np.random.default_rng(_hashed(f"particles of {name}"))
    return generator.integers(1, 2**63, size=count, dtype=np.uint64)


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1
