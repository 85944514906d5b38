"""CryoSPARC `.cs` particle locations: a structured NPY array with centres as fractions of the image.

Which way the fraction of y runs depends on who aligned the movies: Patch Motion and MotionCor2 write vertically
opposite images of the same movie, and converters disagree with each other. So the convention is always given:

- rows="relion": `center_y_frac = row / h`
- rows="flipped": `center_y_frac = 1 - row / h`
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

from cryopick.errors import FormatError, MissingExtraError, SettingsError
from cryopick.extras import missing_extra
from cryopick.io.atomic import write_bytes_atomic
from cryopick.io.grouping import as_float32, group_picks
from cryopick.io.reading import read_bytes
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


def read_cryosparc(path: Path, *, rows: str | None) -> dict[str, Picks]:
    """Picks by micrograph path, with `pick_stats/ncc_score` as score, the image size and the pixel size.

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
    missing = [name for name in _NEEDED if name not in (table.dtype.names or ())]
    if missing:
        raise FormatError(
            f"{path}: has no {', '.join(missing)}; expected particle locations (a passthrough file has other "
            "columns; the job's *_particles.cs or extracted_particles.cs has them)"
        )
    names = [_text(value) for value in table["location/micrograph_path"].tolist()]
    shape_hw = _numbers(table, "location/micrograph_shape", path, shape=(2,))
    if not ((shape_hw >= 1) & (shape_hw < 2**31)).all():
        raise FormatError(f"{path}: location/micrograph_shape has a size of 0 or beyond any detector")
    fractions = np.stack([_numbers(table, f"location/center_{axis}_frac", path) for axis in "xy"], axis=1)
    if rows == "flipped":
        fractions[:, 1] = 1 - fractions[:, 1]
    columns: dict[str, Any] = {}
    if "pick_stats/ncc_score" in (table.dtype.names or ()):
        score = _numbers(table, "pick_stats/ncc_score", path, is_nan_allowed=True)
        columns["score"] = as_float32(score, path=path, what="pick_stats/ncc_score")
    grouped = group_picks(names, fractions * shape_hw[:, ::-1], **columns)
    psize_name = "location/micrograph_psize_A"
    has_psize = psize_name in (table.dtype.names or ())
    psize = _numbers(table, psize_name, path) if has_psize else np.zeros(len(table))
    known: dict[str, tuple[tuple[int, int], float | None]] = {}
    for name, (height, width), size in zip(names, shape_hw.astype(int).tolist(), psize.tolist(), strict=True):
        entry = ((height, width), size if size > 0 else None)
        if known.setdefault(name, entry) != entry:
            raise FormatError(
                f"{path}: micrograph {name} appears with two sizes or pixel sizes; the file is inconsistent"
            )
    return {
        name: replace(one, shape_yx=known[name][0], pixel_size_angstrom=known[name][1]) for name, one in grouped.items()
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
    """
    require_rows(rows, source=str(path))
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
        size = one.pixel_size_angstrom or pixel_size_angstrom
        if one.shape_yx is None or size is None:
            unknown = "image size" if one.shape_yx is None else "pixel size"
            remedy = "--micrographs DIR" if one.shape_yx is None else "--pixel-size (Å per pixel)"
            raise SettingsError(f"{path}: CryoSPARC needs the {unknown} of {one.micrograph_name}; give {remedy}")
        part = np.zeros(len(one), dtype=dtype)
        fractions = one.xy_px / np.array([one.shape_yx[1], one.shape_yx[0]])
        part["uid"] = _uids(one.micrograph_name, len(one))
        part["location/micrograph_uid"] = _micrograph_uid(one.micrograph_name)
        part["location/exp_group_id"] = 1
        part["location/micrograph_path"] = one.micrograph_name.encode("utf-8", errors="surrogateescape")
        part["location/micrograph_shape"] = one.shape_yx
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


def require_rows(rows: str | None, *, source: str) -> None:
    """Refuse a missing or unknown row convention, with what to do."""
    if rows not in ROWS:
        given = "is not given" if rows is None else f"is {rows!r}"
        raise SettingsError(
            f"{source}: the row convention {given} and a .cs file does not say it; give rows='relion' or "
            "rows='flipped' (on the command line --cs-rows), or let --flip-y auto measure it from the micrographs"
        )


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
    if dtype.hasobject or dtype.names is None or len(shape) != 1 or is_fortran:
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


def _uids(name: str, count: int) -> NDArray[np.uint64]:
    generator = np.random.default_rng(_hashed(f"particles of {name}"))
    return generator.integers(1, 2**63, size=count, dtype=np.uint64)


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1
