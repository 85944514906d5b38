"""What pages are made of, as plain values: cards, pictures, tables, curves and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_PART = 1 << 18


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
    """Lines in one plot, both axes 0 to 1; points are (x, y).

    `x_ticks` are places along x and their texts, where the axis shows something that is not from 0 to 1; `levels` are
    horizontal lines and their texts.
    """

    kind: ClassVar[str] = "curves"
    title: str
    caption: str = ""
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[tuple[float, float], ...]]
    x_ticks: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between edges, which are one more; no counts where there was nothing to count."""

    kind: ClassVar[str] = "histogram"
    title: str
    caption: str = ""
    counts: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    mark: float | None = None
    """A value marked by a line; bars wholly below it are grey."""
    mark_text: str = ""

    @property
    def bars(self) -> list[tuple[int, float, float]]:
        """Count, lower and upper edge of each bar."""
        return list(zip(self.counts, self.edges[:-1], self.edges[1:], strict=True)) if self.counts else []


def histogram_of(
    title: str,
    values: NDArray[np.floating],
    *,
    low: float | None = None,
    mark: float | None = None,
    mark_text: str = "",
) -> Histogram:
    """A histogram of 40 bars from `low`, or the smallest value, to the largest, of the values that are finite.

    They may be those of a whole run, so they are looked at in parts.
    """
    import numpy as np

    parts = [values[start : start + _PART] for start in range(0, len(values), _PART)]
    ends = [(part.min(), part.max()) for one in parts if len(part := one[np.isfinite(one)])]
    if not ends:
        return Histogram(title=title)
    low = float(min(end[0] for end in ends)) if low is None else low
    high = float(max(end[1] for end in ends))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.histogram_bin_edges(np.empty(0), bins=40, range=(low, high))
    counts = np.zeros(40, np.int64)
    for part in parts:
        counts += np.histogram(part[np.isfinite(part)].astype(np.float64), bins=40, range=(low, high))[0]
    return Histogram(
        title=title, counts=tuple(counts.tolist()), edges=tuple(edges.tolist()), mark=mark, mark_text=mark_text
    )
