"""Close-ups for the report: the best picks, those around the threshold, and the best of what a rule rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.runs.results import MicrographResult

CELLS = 12
"""Close-ups in a row."""
VIEW_DIAMETERS = 1.6
"""Side of a close-up in particle diameters."""


@dataclass(frozen=True, kw_only=True)
class CloseUp:
    """A square window into the picture of a micrograph, given by its place among those shown."""

    micrograph: int
    x: float
    y: float
    side_px: float
    score: float
    reason: str
    is_dimmed: bool = False


@dataclass(frozen=True, kw_only=True)
class CloseUpRow:
    """Close-ups of one kind, best first."""

    title: str
    cells: tuple[CloseUp, ...]


def close_up_rows(shown: Sequence[MicrographResult], *, threshold: float) -> tuple[CloseUpRow, ...]:
    """Three rows of close-ups from the micrographs whose pictures the report holds; empty rows are left out."""
    everything = _candidates(shown)
    kept = [one for one in everything if one.reason == ""]
    low = [replace(one, reason="", is_dimmed=True) for one in everything if one.reason == BELOW_THRESHOLD]
    ruled_out = [one for one in everything if one.reason not in ("", BELOW_THRESHOLD)]
    border = sorted([*kept[::-1][: CELLS // 2], *low[: CELLS // 2]], key=lambda one: -one.score)
    rows = {
        "Best picks": kept[:CELLS],
        f"Around the threshold {threshold:.3g} (dimmed: below it)": border,
        "Best candidates that a rule rejected": ruled_out[:CELLS],
    }
    return tuple(CloseUpRow(title=title, cells=tuple(cells)) for title, cells in rows.items() if cells)


def _candidates(shown: Sequence[MicrographResult]) -> list[CloseUp]:
    found = [
        CloseUp(micrograph=number, x=x, y=y, side_px=VIEW_DIAMETERS * diameter, score=score, reason=reason)
        for number, picks in enumerate(result.candidates for result in shown)
        for (x, y), diameter, score, reason in zip(
            picks.xy_px.tolist(), picks.diameter_px.tolist(), picks.score.tolist(), picks.reason.tolist(), strict=True
        )
        if np.isfinite(score) and np.isfinite(diameter)
    ]
    return sorted(found, key=lambda one: (-one.score, one.micrograph, one.y, one.x))
