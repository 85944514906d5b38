"""Text files as bytes come: UTF-8 where it is, other bytes carried through unchanged, numbers as short texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.files.atomic import write_bytes_atomic
from cryopick.io.files.reading import dangling_link

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_OTHER_LINE_END = re.compile(r"\r+\n|\r")


def read_text(path: Path, *, what: str) -> str:
    """The text of a file, lines ended by LF only; `what` names the expected content in errors, say "a STAR file".

    Line ends of Windows (CR LF) and of old Mac programs (CR) become LF. Bytes that are not UTF-8 survive as
    surrogates, because old micrograph names may be in any encoding.

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If it is binary or UTF-16.
    """
    try:
        content = path.read_bytes()
    except ValueError as error:  # a path with a null character
        raise InputError(f"{path}: cannot be read ({error}); expected {what}") from error
    except OSError as error:
        reason = dangling_link(path) or error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}); expected {what}") from error
    except MemoryError as error:
        raise InputError(f"{path}: is too large for this machine's memory; expected {what}") from error
    if content.startswith(_UTF_16_MARKS):
        raise FormatError(f"{path}: is text in UTF-16, expected {what} in UTF-8 or ASCII; save it as UTF-8")
    if b"\0" in content:
        raise FormatError(f"{path}: is binary, expected {what}; check the file's name or pass the format")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    return _OTHER_LINE_END.sub("\n", text) if "\r" in text else text


def write_text(path: Path, text: str) -> None:
    """Write atomically, with line ends as they are; what `read_text` carried through goes out as it came in."""
    try:
        content = text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise FormatError(f"{path}: {text[error.start]!r} in a name is no character; rename the micrograph") from error
    write_bytes_atomic(path, content)


def shortest(values: NDArray[np.floating], *, missing: str = "nan") -> list[str]:
    """Numbers as texts with the digits needed to read them back: 12 of a float64, 9 of a float32."""
    pattern = "{:.9g}" if values.dtype == np.float32 else "{:.12g}"
    texts = list(map(pattern.format, values.tolist()))
    if missing != "nan":
        for row in np.flatnonzero(np.isnan(values)):
            texts[row] = missing
    return texts


def read_number_rows(
    text: str, path: Path, *, names: Sequence[str], at_least: int, shown: str
) -> tuple[NDArray[np.float64], Sequence[int]]:
    """Rows of blank- or comma-separated numbers, without a header; empty lines and `#` comments are passed over.

    Parameters
    ----------
    names : of the columns that are read; further ones are ignored
    at_least : how many columns a row must have; all rows must have equally many
    shown : the expected row, for the message

    Returns
    -------
    rows : (n, c) finite numbers, c between `at_least` and `len(names)`
    lines : 1-based line of each row

    Raises
    ------
    FormatError
        For a short or ragged row, or a text that is no finite number, naming the line.
    """
    split = [(number, line.replace(",", " ").split()) for number, line in enumerate(text.split("\n"), start=1)]
    split = [(number, words) for number, words in split if words and not words[0].startswith("#")]
    lines = [number for number, _ in split]
    width = len(split[0][1]) if split else at_least
    for number, words in split:
        if len(words) < at_least or len(words) != width:
            raise FormatError(
                f"{path} line {number}: {len(words)} values, expected {max(width, at_least)}: {shown}; "
                "fix or delete the row"
            )
    width = min(width, len(names))
    cells = [words[:width] for _, words in split]
    try:
        rows = np.array(cells, dtype=np.float64).reshape(-1, width)
    except (ValueError, UnicodeError):
        rows = np.array([[number_or_nan(cell) for cell in row] for row in cells])
    is_bad = ~np.isfinite(rows)
    if is_bad.any():
        row, column = divmod(int(np.argmax(is_bad)), width)
        raise FormatError(
            f"{path} line {lines[row]}: {names[column]} is {cells[row][column][:60]!r}, expected a number; "
            "fix or delete the row"
        )
    return rows, lines


def number_or_nan(text: str) -> float:
    """The number that the text is, NaN for anything else."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
