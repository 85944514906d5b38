"""Text files as bytes come: UTF-8 where it is, other bytes carried through unchanged, numbers as short texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.atomic import write_bytes_atomic


def read_text(path: Path, *, what: str) -> str:
    """The text of a file; `what` names the expected content in the error, for example "a STAR file".

    Bytes that are not UTF-8 survive as surrogates, because old micrograph names may be in any encoding.

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If it is binary.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected {what}") from error
    if b"\0" in content:
        raise FormatError(f"{path}: is binary, expected {what}; check the file's name or pass the format")
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")


def write_text(path: Path, text: str) -> None:
    """Write atomically, with line ends as they are; what `read_text` carried through goes out as it came in."""
    write_bytes_atomic(path, text.encode("utf-8", errors="surrogateescape"))


def shortest(values: NDArray[np.floating], *, missing: str = "nan") -> list[str]:
    """Numbers as texts with the digits needed to read them back: 12 of a float64, 9 of a float32."""
    pattern = "{:.9g}" if values.dtype == np.float32 else "{:.12g}"
    texts = list(map(pattern.format, values.tolist()))
    if missing != "nan":
        for row in np.flatnonzero(np.isnan(values)):
            texts[row] = missing
    return texts
