"""The record of one micrograph of a run: what it holds, and which names may stand in it.

Records are read back from a folder that may have been damaged or may come from somebody else, so every field is
checked, and no name in one can lead to a file outside the run folder.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cryopick.errors import FormatError
from cryopick.io.files.atomic import TEMPORARY_PREFIX
from cryopick.io.star import quoted

PICKS_TAIL = "_picks.star"
"""Put after a micrograph's key; the longest of the endings that every micrograph gets."""
MOST_NAME_BYTES = 255
"""Of one file or folder name, on every common file system."""
_MOST_PIXELS_A_SIDE = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
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
    """Size and time of change of the file before it was read; -1 where there was none."""
    shape_yx: tuple[int, int] | None = None
    pixel_size_angstrom: float | None = None
    seconds: float = 0.0
    maps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    candidate_count: int | None = None
    """Rows of its table of candidates; None in runs of version 0.1."""
    junk_share: float | None = None
    """Of the image, that the picker takes for carbon, ice or contamination; None where it maps none."""
    mask_stamp: tuple[int, int] | None = None
    """Size and time of change of its exclusion mask, -1 where it had none; None where the run has no masks."""
    picked_with: str = ""
    """16 hexadecimal digits of all that its candidates depend on besides its file, see `runs.picked_with`; "" in older
    runs."""
    inode: int | None = None
    """Number of the file in its file system, by which one that was renamed is known; None in older runs."""
    least_centring_error_px: Mapping[str, float] = field(default_factory=dict)
    """As in `Picks`."""
    processor: str = ""
    """Model of the CPU or graphics card that picked it; "" in older runs."""

    @property
    def is_done(self) -> bool:
        return not self.error


def record_text(record: Record) -> str:
    """The JSON text of a record."""
    return json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n"


def read_record(text: str, *, key: str) -> Record:
    """The record in a JSON text, every field checked.

    Parameters
    ----------
    key : of the file that the text stands in, which must be the record's own

    Raises
    ------
    ValueError
        That says which field is wrong.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected an object")
    missing = sorted({"name", "key", "source", "relion_name", "size_bytes", "modified_ns"} - set(content))
    if missing:
        raise ValueError(f"has no {', '.join(missing)}")
    fields = {name: _checked(name, content[name], check) for name, check in _CHECKS.items() if name in content}
    if fields["key"] != key:
        raise ValueError(f"key is {fields['key'][:60]!r}, expected {key[:60]!r} as its file is called")
    return Record(**fields)


def key_problem(key: str) -> str:
    """Why files of a micrograph cannot be named after `key`, or "" where they can."""
    parts = re.split(r"[/\\]" if os.sep == "\\" else "/", key)
    if any(part in ("", ".", "..") for part in parts) or ".." in re.split(r"[/\\]", key) or os.path.isabs(key):
        return "it would lead out of the run folder"
    if re.search(r"[\x00-\x1f]", key):
        return "it has a control character"
    if any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        return f"names that begin with {TEMPORARY_PREFIX} are those of unfinished files"
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        return "it has half of a character"
    sizes[-1] += len(PICKS_TAIL)
    if max(sizes) > MOST_NAME_BYTES:
        return f"with {PICKS_TAIL} it has {max(sizes)} bytes, more than the {MOST_NAME_BYTES} that file systems allow"
    return ""


def map_problem(key: str, name: str) -> str:
    """Why the picture of a map cannot be kept beside that of its micrograph, or "" where it can."""
    if not name or re.search(r"[/\\\x00-\x1f]", name):
        return "its name cannot stand in the name of a file"
    try:
        size = len(os.fsencode(f"{key.rpartition('/')[2]}.{name}.png"))
    except UnicodeEncodeError:
        return "its name has half of a character"
    return "" if size <= MOST_NAME_BYTES else f"the name of its file would have {size} bytes"


# ---------------------------------------------------------------------------------------------------- single fields


def _checked(name: str, value: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except (TypeError, OverflowError, FormatError) as error:
        raise ValueError(f"{name} is {str(value)[:60]!r}") from error
    except ValueError as error:
        raise ValueError(f"{name} is {str(value)[:60]!r}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode("utf-8", errors="surrogateescape")
    return value


def _name(value: Any) -> str:
    if not _text(value):
        raise ValueError("empty")
    quoted(value)
    return str(value)


def _key(value: Any) -> str:
    problem = key_problem(_text(value))
    if problem:
        raise ValueError(problem)
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if _whole(value) < 0:
        raise ValueError("negative")
    return int(value)


def _not_negative(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError
    return float(value)


def _distances(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise TypeError
    return {_text(whose): _not_negative(distance) for whose, distance in value.items()}


def _share(value: Any) -> float | None:
    if value is not None and _not_negative(value) > 1:
        raise ValueError("expected 0 to 1")
    return None if value is None else float(value)


def _pixel_size(value: Any) -> float | None:
    return None if value is None else _positive(_not_negative(value))


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("not positive")
    return value


def _shape(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError
    height, width = (_whole(side) for side in value)
    if not (0 < height < _MOST_PIXELS_A_SIDE and 0 < width < _MOST_PIXELS_A_SIDE):
        raise ValueError("expected rows and columns of an image")
    return height, width


def _stamp(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError
    return _whole(value[0]), _whole(value[1])


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(one) for one in value)


def _map_names(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    bad = [name for name in names if map_problem("", name)]
    if bad:
        raise ValueError(map_problem("", bad[0]))
    return names


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "name": _name,
    "key": _key,
    "source": _text,
    "relion_name": _name,
    "size_bytes": _whole,
    "modified_ns": _whole,
    "shape_yx": _shape,
    "pixel_size_angstrom": _pixel_size,
    "seconds": _not_negative,
    "maps": _map_names,
    "warnings": _texts,
    "error": _text,
    "candidate_count": _count,
    "junk_share": _share,
    "mask_stamp": _stamp,
    "picked_with": _text,
    "inode": _count,
    "least_centring_error_px": _distances,
    "processor": _text,
}
"""How each field of a record is checked; what a newer version adds is passed over."""
