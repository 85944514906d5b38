"""A few windows at full resolution, into which the report lets one zoom: what the small pictures cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError
from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.processing.spread import evenly_taken
from cryopick.runs.one import NO_FILE, Task, file_stamp, read_task
from cryopick.runs.record import Record
from cryopick.runs.report.pictures import full_jpeg
from cryopick.runs.results import MicrographResult
from cryopick.runs.settings import RunSettings
from cryopick.types import Picks

FULL_VIEWS = 3
"""Micrographs with the fewest picks, the middle, and the most."""
WINDOW_PX = 1024
"""Longest side of a window: about 0.3 MB as JPEG."""


@dataclass(frozen=True, kw_only=True)
class FullView:
    """A window into one micrograph, pixel for pixel, and the candidates in it."""

    micrograph: int
    """Its place among the micrographs shown."""
    name: str
    caption: str
    left: int
    top: int
    width: int
    height: int
    jpeg: bytes
    kept: Picks
    ruled_out: Picks
    low: Picks


@dataclass(frozen=True, kw_only=True)
class FullViews:
    """Windows, and why some micrographs have none."""

    views: tuple[FullView, ...] = ()
    missing: tuple[str, ...] = ()


def full_views(shown: Sequence[MicrographResult], run: RunSettings) -> FullViews:
    """Windows into a few of the micrographs that a report shows, each where most kept picks are.

    The micrographs are read again, as they were for picking; one that is gone or was changed since has no window, and
    the reason is told.
    """
    by_count = sorted(range(len(shown)), key=lambda place: (shown[place].count, shown[place].record.name))
    views, missing = [], []
    for place in dict.fromkeys(evenly_taken(by_count, min(FULL_VIEWS, len(by_count)))):
        result = shown[place]
        why = _why_not(result.record)
        if not why:
            try:
                views.append(_view(place, result, run))
                continue
            except (CryopickError, OSError, MemoryError) as error:
                why = " ".join(str(error).split())
        missing.append(f"{result.record.name}: {why}")
    return FullViews(views=tuple(views), missing=tuple(missing))


def _why_not(record: Record) -> str:
    stamp = file_stamp(Path(record.source))
    if stamp == NO_FILE:
        return f"{record.source} is not there any more"
    return "" if stamp == (record.size_bytes, record.modified_ns) else f"{record.source} was changed since"


def _view(place: int, result: MicrographResult, run: RunSettings) -> FullView:
    record, candidates = result.record, result.candidates
    pixels = read_task(Task(name=record.name, path=Path(record.source)), run).pixels
    (top, left), (height, width) = window_with_most(candidates.kept().xy_px, pixels.shape)
    size = "" if record.pixel_size_angstrom is None else f" at {record.pixel_size_angstrom:g} Å/px"
    margin = 0.5 * np.nan_to_num(candidates.diameter_px)[:, None]  # rings that only reach in are drawn, too
    first, behind = np.array([left, top]) - margin, np.array([left + width, top + height]) + margin
    near = candidates.take(((candidates.xy_px > first) & (candidates.xy_px < behind)).all(axis=1))
    is_inside = ((near.xy_px >= [left, top]) & (near.xy_px < [left + width, top + height])).all(axis=1)
    is_low = near.reason == BELOW_THRESHOLD
    return FullView(
        micrograph=place,
        name=record.name,
        caption=(
            f"{width} × {height} of {pixels.shape[1]} × {pixels.shape[0]} px{size}, from ({left}, {top}); "
            f"{int((near.is_kept & is_inside).sum())} of {result.count} particles"
        ),
        left=left,
        top=top,
        width=width,
        height=height,
        jpeg=full_jpeg(pixels[top : top + height, left : left + width]),
        kept=near.kept(),
        ruled_out=near.take(~near.is_kept & ~is_low),
        low=near.take(is_low),
    )


def window_with_most(xy_px: NDArray[np.floating], shape_yx: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top left corner (y, x) and size (y, x) of the window that holds most places, of those a quarter of a side apart.

    Without places it is in the middle.
    """
    size = [min(WINDOW_PX, side) for side in shape_yx[:2]]
    starts = [_starts(side, part) for side, part in zip(shape_yx[:2], size, strict=True)]
    middle = [int(one[len(one) // 2]) for one in starts]
    if not len(xy_px):
        return (middle[0], middle[1]), (size[0], size[1])
    in_rows, in_columns = (
        (xy_px[:, axis] >= starts[1 - axis][:, None]) & (xy_px[:, axis] < starts[1 - axis][:, None] + size[1 - axis])
        for axis in (1, 0)
    )  # (rows of windows, n), (columns of windows, n)
    counts = in_rows.astype(np.int64) @ in_columns.T.astype(np.int64)
    row, column = np.unravel_index(int(counts.argmax()), counts.shape)
    return (int(starts[0][row]), int(starts[1][column])), (size[0], size[1])


def _starts(side: int, part: int) -> NDArray[np.int64]:
    count = 1 + -(-(side - part) * 4 // part)
    return np.unique(np.linspace(0, side - part, count).astype(np.int64))
