"""JSON files of coordinates: reading one as an object, with errors that name the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError
from cryopick.io.files.text import read_text


def read_json_object(path: Path, *, what: str) -> dict[str, Any]:
    """The top-level object of a JSON file; anything else raises `FormatError`."""
    try:
        content = json.loads(read_text(path, what=what))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({str(error)[:100]}); expected {what}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: holds a {type(content).__name__}, expected {what}")
    return content


def finite_number(value: object, *, where: str) -> float:
    """The value as a float; anything but a finite number (a truth value too) raises `FormatError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{where} is {str(value)[:60]!r}, expected a number; fix or delete the entry")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FormatError(f"{where} is {str(value)[:60]}, expected a finite number; fix or delete the entry")
    return number
