"""What pages are made of, as plain values: cards, pictures, tables, curves and histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_PART = 1 << 18
_BARS = 40
_TOWERING = 12
"""A bar so many times as high as the middle one makes heights logarithmic: the middle one is 13 px high in the plot."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number in large letters and what it is."""

    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG at the size it is to be seen at."""

    kind: ClassVar[str] = "picture"
    title: str
    caption: str = ""
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; the first column names the row."""

    kind: ClassVar[str] = "table"
    title: str
    caption: str = ""
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Lines in one plot, y from 0 to 1; points are (x, y).

    `x_ticks` are places along x and their texts, where round numbers do not fit; `levels` are horizontal lines and
    their texts.
    """

    kind: ClassVar[str] = "curves"
    title: str
    caption: str = ""
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[tuple[float, float], ...]]
    x_range: tuple[float, float] = (0.0, 1.0)
    x_ticks: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    mark: float | None = None
    """A value of x marked by a line."""
    mark_text: str = ""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between edges, which are one more; no counts where there was nothing to count."""

    kind: ClassVar[str] = "histogram"
    title: str
    caption: str = ""
    x_label: str = ""
    y_label: str = ""
    counts: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    mark: float | None = None
    """A value marked by a line; bars below it are grey. Inside the range it is one of the edges."""
    mark_text: str = ""
    bars_text: str = ""
    """What the bars are, those from the mark up where there is one."""
    below_text: str = ""
    outline: tuple[int, ...] = ()
    """Counts of something else between the same edges, drawn as a line over the bars."""
    outline_text: str = ""
    is_log: bool = False
    """Whether heights are logarithms, of a count and one: 0 stands on the axis."""

    @property
    def bars(self) -> list[tuple[int, float, float]]:
        """Count, lower and upper edge of each bar."""
        return list(zip(self.counts, self.edges[:-1], self.edges[1:], strict=True)) if self.counts else []

    @property
    def steps(self) -> list[tuple[int, float, float]]:
        """As `bars`, of the outline."""
        return list(zip(self.outline, self.edges[:-1], self.edges[1:], strict=True)) if self.outline else []

    @property
    def largest(self) -> int:
        """The highest count that is drawn, at least 1."""
        return max(1, *self.counts, *self.outline) if self.counts else 1

    def height(self, count: float) -> float:
        """How high a count stands, in units of no meaning."""
        return math.log10(1 + count) if self.is_log else float(count)

    def is_below(self, upper_edge: float) -> bool:
        """Whether a bar lies below the mark."""
        return self.mark is not None and upper_edge <= self.mark

    @property
    def legend(self) -> list[tuple[str, str]]:
        """The look of a kind (kept, below, outline), and what it is; empty where all are of one kind."""
        kinds = [
            ("kept", self.bars_text, any(count and not self.is_below(high) for count, _, high in self.bars)),
            ("below", self.below_text, any(count and self.is_below(high) for count, _, high in self.bars)),
            ("outline", self.outline_text, any(self.outline)),
        ]
        return [(look, text) for look, text, is_there in kinds if is_there and text]


def histogram_of(
    title: str,
    values: NDArray[np.floating],
    *,
    low: float | None = None,
    mark: float | None = None,
    outline: NDArray[np.floating] | None = None,
    caption: str = "",
    x_label: str = "",
    y_label: str = "",
    mark_text: str = "",
    bars_text: str = "",
    below_text: str = "",
    outline_text: str = "",
) -> Histogram:
    """A histogram of 40 bars from `low`, or the smallest value, to the largest, of the values that are finite.

    They may be those of a whole run, so they are looked at in parts. A mark among them is an edge, so that every bar
    lies on one side of it. Where one bar towers above the rest, heights are logarithms.

    Parameters
    ----------
    outline : values that are counted apart, between the same edges
    caption, x_label, y_label, mark_text, bars_text, below_text, outline_text : of the histogram
    """

    given = [values] if outline is None else [values, outline]
    ends = [(part.min(), part.max()) for every in given for part in _finite_parts(every)]
    if not ends:
        return Histogram(title=title, caption=caption, mark=mark, mark_text=mark_text)
    is_from = low is not None
    low = float(min(end[0] for end in ends)) if low is None else low
    high = float(max(end[1] for end in ends))
    if low == high:
        low, high = (low, low + 1.0) if is_from else (low - 0.5, high + 0.5)
    edges = _edges(low, high, mark)
    counts, beside = (_counts(every, edges) for every in (values, outline))
    return Histogram(
        title=title,
        caption=caption,
        x_label=x_label,
        y_label=y_label,
        counts=counts,
        edges=tuple(edges.tolist()),
        mark=mark,
        mark_text=mark_text,
        bars_text=bars_text,
        below_text=below_text,
        outline=beside,
        outline_text=outline_text,
        is_log=_towers(counts),
    )


def _finite_parts(values: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    import numpy as np

    parts = (values[start : start + _PART] for start in range(0, len(values), _PART))
    return [one for part in parts if len(one := part[np.isfinite(part)])]


def _edges(low: float, high: float, mark: float | None) -> NDArray[np.float64]:
    import numpy as np

    if mark is None or not low < mark < high:
        return np.histogram_bin_edges(np.empty(0), bins=_BARS, range=(low, high))
    width = (high - low) / _BARS
    below = max(1, math.ceil((mark - low) / width - 1e-9))
    above = max(1, math.ceil((high - mark) / width - 1e-9))
    return np.concatenate([mark - width * np.arange(below, 0, -1), mark + width * np.arange(above + 1)])


def _counts(values: NDArray[np.floating] | None, edges: NDArray[np.float64]) -> tuple[int, ...]:
    import numpy as np

    if values is None:
        return ()
    counts = np.zeros(len(edges) - 1, np.int64)
    inside = edges.copy()
    inside[0], inside[-1] = -np.inf, np.inf  # rounding must not leave out the outermost values
    for part in _finite_parts(values):
        place = np.searchsorted(inside, part.astype(np.float64), side="right") - 1
        counts += np.bincount(np.clip(place, 0, len(counts) - 1), minlength=len(counts))
    return tuple(counts.tolist())


def _towers(counts: Sequence[int]) -> bool:
    """Whether one bar is so much higher than most that these could not be told from nothing."""
    filled = sorted(count for count in counts if count)
    return bool(filled) and filled[-1] > _TOWERING * filled[len(filled) // 2]
