"""STAR files: tables of text columns in, tables out, in the syntax that RELION 3.0 to 5 reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.coordinates.names import without_extension
from cryopick.io.files.text import read_text, shortest, write_text

_WORD = re.compile(r"[^ \t\v\f]+")
_CLOSING = {quote: re.compile(quote + r"(?=[ \t\v\f]|$)") for quote in "\"'"}
LOOP_END = "\n"
"""The empty line that ends a table of rows."""
_NEEDS_QUOTES = re.compile(r"""^$|\s|^[_#'";]|^(data_|loop_|save_|global_|stop_)""", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class StarTable:
    """One table of a STAR file; a block of single values is a table of one row.

    Parameters
    ----------
    name : of the block, without `data_`; may be empty
    columns : label without the leading underscore -> one text per row
    is_loop : False for a block of label-value pairs
    path : the file, for messages
    line_numbers : 1-based line of each row in that file
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    is_loop: bool = True
    path: Path | None = None
    line_numbers: Sequence[int] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def text(self, column: str) -> Sequence[str]:
        """The column as text; a missing one raises `FormatError` that lists those present."""
        if column not in self.columns:
            present = ", ".join(self.columns) or "none"
            raise FormatError(f"{self.path}: table data_{self.name} has no column {column}; its columns: {present}")
        return self.columns[column]

    def floats(self, column: str) -> NDArray[np.float64]:
        """(n,) The column as finite numbers; the first text that is none raises `FormatError` naming the row."""
        values = self.text(column)
        try:
            numbers = np.array(values, dtype=np.float64) if len(values) else np.empty(0)
        except (ValueError, UnicodeError):
            numbers = np.array([_float_or_nan(value) for value in values])
        is_bad = ~np.isfinite(numbers)
        if is_bad.any():
            self._raise_bad_value(column, int(np.argmax(is_bad)), "a number")
        return numbers

    def ints(self, column: str) -> NDArray[np.int64]:
        """(n,) The column as whole numbers (`1.000000` is one)."""
        numbers = self.floats(column)
        is_bad = (numbers != np.rint(numbers)) | (np.abs(numbers) > 2**53)
        if is_bad.any():
            self._raise_bad_value(column, int(np.argmax(is_bad)), "a whole number")
        return numbers.astype(np.int64)

    def _raise_bad_value(self, column: str, row: int, expected: str) -> None:
        value = _shown(self.columns[column][row])
        raise FormatError(
            f"{self.path} line {self._line(row)} (row {row + 1} of data_{self.name}): {column} is {value}, "
            f"expected {expected}; fix or delete the row"
        )

    def _line(self, row: int) -> int:
        return self.line_numbers[row] if row < len(self.line_numbers) else row + 1


def read_star(path: Path) -> dict[str, StarTable]:  # noqa: PLR0912  # one branch for each kind of line
    """All tables of a STAR file by block name (`data_` gives the name "").

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If it is binary, holds no table, has a row of the wrong length, a row after the blank line that ends a loop
        (RELION would drop it silently), or two blocks of one name. The message names the line.

    A loop ends at a blank line, as for RELION, so a row of it may begin with `data_`. Files that lack the blank line
    between two blocks are read all the same: a lone word `data_...` begins a block where a row has more words, or
    where `loop_` or a label follows it.
    """
    lines = read_text(path, what="a STAR file").split("\n")
    tables: dict[str, StarTable] = {}
    name: str | None = None
    pairs: dict[str, list[str]] = {}
    pairs_line = 0
    i = 0
    while i < len(lines):
        words = lines[i].split(None, 1)
        first = words[0] if words else ""
        if not first or first.startswith("#"):
            i += 1
        elif first.lower().startswith("data_"):
            if (len(words) > 1 and not words[1].startswith("#")) or "/" in first:
                raise _outside_any_table(path, i, first)
            _keep_pairs(tables, name, pairs, pairs_line, path)
            name, pairs = first[len("data_") :], {}
            if name in tables:
                raise FormatError(f"{path} line {i + 1}: second block data_{name}; split the file into one per block")
            i += 1
        elif name is None:
            raise FormatError(f"{path} line {i + 1}: expected data_, got {_shown(first)}; this is not a STAR file")
        elif first.lower() == "loop_":
            if name in tables:
                raise FormatError(f"{path} line {i + 1}: second loop in block data_{name}; RELION reads one per block")
            if pairs:
                raise FormatError(f"{path} line {i + 1}: loop_ after single values in block data_{name}; split it")
            tables[name], i = _read_loop(lines, i + 1, name, path)
        elif first.startswith("_") and name not in tables:
            if first[1:] in pairs:
                raise FormatError(f"{path} line {i + 1}: block data_{name} has {_shown(first)} twice; remove one")
            pairs_line = i + 1
            pairs[first[1:]] = [_pair_value(lines[i], i + 1, path)]
            i += 1
        else:
            raise _outside_any_table(path, i, first)
    _keep_pairs(tables, name, pairs, pairs_line, path)
    if name is None:
        raise FormatError(f"{path}: no data_ block found, expected a STAR file; is the file empty or truncated?")
    return tables


def _outside_any_table(path: Path, i: int, first: str) -> FormatError:
    return FormatError(
        f"{path} line {i + 1}: {_shown(first)} stands outside any table (a blank line ends a table); "
        "remove the blank line before it, or the line itself"
    )


def star_text(tables: Sequence[StarTable], *, version: int | None = None) -> str:
    """The tables as text; `version` (30001, 50001) writes RELION's version comment, which 3.0 files lack."""
    parts = []
    for table in tables:
        if table.is_loop:
            rows = loop_rows(table.columns)
            parts.append(loop_head(table.name, list(table.columns), version=version) + "".join(rows))
        else:
            values = "".join(f"_{label} {values[0]}\n" for label, values in table.columns.items())
            parts.append(_block_head(table.name, version) + values)
    return "\n".join(parts) + LOOP_END


def loop_head(name: str, labels: Sequence[str], *, version: int | None = None) -> str:
    """What comes before the first row of a table of rows; see `star_text`.

    A table that is too long to be held at once is written as this, `loop_rows` of a part after the other, `LOOP_END`.
    """
    lines = ["loop_", *(f"_{label} #{number}" for number, label in enumerate(labels, start=1))]
    return _block_head(name, version) + "\n".join(lines) + "\n"


def loop_rows(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The rows of a table, or of a part of it, each a line with its end; texts as `make_table` gives them."""
    return [" ".join(row) + "\n" for row in zip(*columns.values(), strict=True)]


def _block_head(name: str, version: int | None) -> str:
    return ("\n" if version is None else f"\n# version {version}\n\n") + f"data_{name}\n\n"


def write_star(path: Path, tables: Sequence[StarTable], *, version: int | None = None) -> None:
    """Write the tables atomically, with LF line ends."""
    write_text(path, star_text(tables, version=version))


def make_table(name: str, columns: Mapping[str, Sequence[Any] | NDArray[Any]], *, is_loop: bool = True) -> StarTable:
    """A table from arrays of numbers or texts, formatted and quoted for RELION.

    Raises
    ------
    FormatError
        If a number is not finite (STAR has no missing value that RELION understands) or a text cannot be quoted.
    """
    return StarTable(name, {label: _formatted(label, values) for label, values in columns.items()}, is_loop)


def _formatted(label: str, values: Sequence[Any] | NDArray[Any]) -> list[str]:
    column = np.asarray(values)
    if column.dtype.kind == "f":
        if not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column)))
            raise FormatError(f"{label} row {row + 1} is {column[row]}, which STAR cannot hold; expected a number")
        return shortest(column)
    if column.dtype.kind in "iu":
        return [str(value) for value in column.tolist()]
    return [quoted(str(value)) for value in values]


def quoted(text: str) -> str:
    """The text as one STAR word: in quotes when it is empty, has blanks, or would be taken for syntax."""
    if "\n" in text or "\r" in text or "\0" in text:
        raise FormatError(f"{text!r} has a line break, which STAR cannot hold; rename the file")
    if not _NEEDS_QUOTES.search(text):
        return text
    for quote in ('"', "'"):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise FormatError(f"{text!r} has blanks and both kinds of quotes, which STAR cannot hold; rename the file")


def _read_loop(lines: list[str], i: int, name: str, path: Path) -> tuple[StarTable, int]:
    """The loop whose first label is expected at or after line index `i`, and the index of the line after it."""
    labels: list[str] = []
    while i < len(lines) and (not lines[i].strip() or lines[i].lstrip()[0] in "_#"):
        words = lines[i].split()
        if words and words[0].startswith("_"):
            is_row = (len(words) > 1 and not words[1].startswith("#")) or without_extension(words[0]) != words[0]
            if is_row or "/" in words[0]:
                raise FormatError(
                    f"{path} line {i + 1}: {_shown(lines[i].strip())} begins with _ as only labels do; "
                    "put the name in quotes, or rename the file"
                )
            labels.append(words[0][1:])
        i += 1
    if not labels:
        raise FormatError(f"{path}: loop_ of block data_{name} has no labels; is the file truncated?")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise FormatError(f"{path}: block data_{name} has the label _{twice} twice; rename or remove one")
    start, has_comment = i, False
    while i < len(lines):
        stripped = lines[i].lstrip()
        if not stripped or (stripped[0] in "dDlL" and _begins_block(lines, i, len(labels))):
            break
        has_comment = has_comment or stripped[0] == "#"
        i += 1
    body = lines[start:i]
    numbers: Sequence[int] = range(start + 1, i + 1)
    if has_comment:
        numbers = [number for number, line in zip(numbers, body, strict=True) if not line.lstrip().startswith("#")]
        body = [lines[number - 1] for number in numbers]
    columns = _columns_of(body, numbers, labels, f"row {{}} of data_{name}", path)
    return StarTable(name, dict(zip(labels, columns, strict=True)), True, path, numbers), i


def _columns_of(
    body: list[str], numbers: Sequence[int], labels: list[str], row_name: str, path: Path
) -> list[Sequence[str]]:
    """The words of each column; all rows are cut in one go, since a list per row is slow for a million rows."""
    text = "\n".join(body)
    if "'" in text or '"' in text:
        rows = [_split_quoted(line) for line in body]
        counts = list(map(len, rows))
        words = [word for row in rows for word in row]
    else:
        rows_of_words = [_words(line) for line in body] if not text.isascii() else None
        counts = [len(line.split()) for line in body] if rows_of_words is None else list(map(len, rows_of_words))
        words = text.split() if rows_of_words is None else [word for row in rows_of_words for word in row]
    wrong = next((k for k, count in enumerate(counts) if count != len(labels)), None)
    if wrong is not None:
        raise FormatError(
            f"{path} line {numbers[wrong]} ({row_name.format(wrong + 1)}): {counts[wrong]} values, "
            f"expected {len(labels)} ({', '.join(labels)}); fix or delete the row"
        )
    return [words[k :: len(labels)] for k in range(len(labels))]


def _begins_block(lines: list[str], i: int, n_labels: int) -> bool:
    """Whether a line within a loop begins the next block, or loop, rather than being a row; see `read_star`."""
    words = lines[i].lower().split()
    if words == ["loop_"]:
        return True
    is_alone = len(words) == 1 or words[1].startswith("#")
    if not words[0].startswith("data_") or not is_alone or "/" in words[0]:
        return False
    if n_labels > 1:
        return True
    following = (lines[k].lower().split() for k in range(i + 1, len(lines)))
    word = next((words[0] for words in following if words and not words[0].startswith("#")), "")
    return word == "loop_" or word.startswith("_")


def _words(line: str) -> list[str]:
    """The words between blanks; only those of ASCII count, since names may hold others."""
    return line.split() if line.isascii() else _WORD.findall(line)


def _split_quoted(line: str) -> list[str]:
    """The words of a line, quotes removed; a quote closes before a blank only. One pass, however many are unclosed."""
    words: list[str] = []
    never_closed: set[str] = set()
    place = 0
    while (match := _WORD.search(line, place)) is not None:
        quote = line[match.start()]
        if quote in _CLOSING and quote not in never_closed:
            closing = _CLOSING[quote].search(line, match.start() + 1)
            if closing is not None:
                words.append(line[match.start() + 1 : closing.start()])
                place = closing.end()
                continue
            never_closed.add(quote)
        words.append(match.group())
        place = match.end()
    return words


def _pair_value(line: str, number: int, path: Path) -> str:
    words = _split_quoted(line)
    if len(words) >= 3 and words[2].startswith("#"):
        words = words[:2]
    if len(words) != 2:
        raise FormatError(f"{path} line {number}: expected a label and one value, got {_shown(line.strip())}")
    return words[1]


def _keep_pairs(
    tables: dict[str, StarTable], name: str | None, pairs: dict[str, list[str]], line: int, path: Path
) -> None:
    if name is not None and name not in tables:
        tables[name] = StarTable(name, pairs, False, path, [line])


def _float_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _shown(text: str) -> str:
    """A value for a message, cut to a readable length."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
