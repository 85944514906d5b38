"""Topaz text: tab-separated image_name (without extension), x_coord, y_coord and perhaps score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryopick.errors import FormatError
from cryopick.io.coordinates.grouping import as_float32, group_picks, require_name, require_writable, without_sentinels
from cryopick.io.coordinates.names import without_extension
from cryopick.io.files.text import number_or_nan, read_text, shortest, write_text
from cryopick.types import Picks

_logger = logging.getLogger(__name__)
REQUIRED = ("image_name", "x_coord", "y_coord")


def read_topaz(path: Path) -> dict[str, Picks]:
    """Picks by image name. Coordinates are centres, of the image Topaz was given: if that was downsampled, so are they.

    Raises
    ------
    FormatError
        If the header or a row is malformed, naming the line.
    """
    lines = read_text(path, what="a Topaz table").split("\n")
    start = next((k for k, line in enumerate(lines) if line.strip()), None)
    header = [] if start is None else [word.strip() for word in lines[start].split("\t")]
    missing = [name for name in REQUIRED if name not in header]
    if start is None or missing or len(set(header)) != len(header):
        raise FormatError(
            f"{path}: not a Topaz table; expected the tab-separated header {' '.join(REQUIRED)} [score], "
            f"found {' '.join(header)[:100]!r}"
        )
    if "z_coord" in header:
        raise FormatError(f"{path}: has a column z_coord, so this is a tomogram; expected particles of micrographs")
    numbered = [(n, line.split("\t")) for n, line in enumerate(lines[start + 1 :], start=start + 2) if line.strip()]
    for number, cells in numbered:
        if len(cells) != len(header):
            raise FormatError(
                f"{path} line {number}: {len(cells)} values, expected {len(header)} separated by tabs; "
                "fix or delete the row"
            )
    by_name = dict(zip(header, zip(*(cells for _, cells in numbered), strict=True), strict=True)) if numbered else {}

    def floats(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        texts = by_name.get(name, ())
        numbers = np.array([number_or_nan(text) for text in texts], dtype=np.float64)
        is_bad = ~np.isfinite(numbers)
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise FormatError(
                f"{path} line {numbered[row][0]}: {name} is {texts[row][:60]!r}, expected a number; "
                "fix or delete the row"
            )
        return numbers

    xy_px = np.stack([floats("x_coord"), floats("y_coord")], axis=1)
    columns = {}
    if "score" in header:
        columns["score"] = as_float32(without_sentinels(floats("score")), path=path, what="score")
    return group_picks(by_name.get("image_name", ()), xy_px, **columns)


def write_topaz(path: Path, picks: Sequence[Picks]) -> None:
    """One table for all micrographs; the score column only when every pick has a score.

    Raises
    ------
    InputError
        If a micrograph name holds a tab or line break, or a centre is not finite.
    """
    n_unscored = sum(int(np.count_nonzero(~np.isfinite(one.score))) for one in picks)
    has_score = n_unscored == 0
    if 0 < n_unscored < (n_picks := sum(map(len, picks))):
        _logger.warning("%s: no scores are written, since %d of %d picks have none", path, n_unscored, n_picks)
    rows = ["\t".join([*REQUIRED, "score"] if has_score else REQUIRED)]
    for one in picks:
        require_writable(one)
        name = image_name_of(one)
        columns = [[name] * len(one), shortest(one.xy_px[:, 0]), shortest(one.xy_px[:, 1])]
        if has_score:
            columns.append(shortest(one.score))
        rows.extend(map("\t".join, zip(*columns, strict=True)))
    write_text(path, "\n".join(rows) + "\n")


def image_name_of(picks: Picks) -> str:
    """The micrograph's name as Topaz has it, without extension; one that a table cannot hold raises `InputError`."""
    name = without_extension(picks.micrograph_name)
    require_name(name, forbidden="\t\n\r\0", holder="a Topaz table")
    return name
