"""Close-ups for the report: the best picks, those around the threshold, and the best of what a rule rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.runs.results import MicrographResult

CELLS = 12
"""Close-ups in a row."""
CELL_PX = 84
VIEW_DIAMETERS = 1.6
"""Side of a close-up in particle diameters."""


@dataclass(frozen=True)
class _Candidate:
    picture: int
    x: float
    y: float
    diameter_px: float
    score: float
    reason: str


def picture_id(number: int) -> str:
    """The element that holds the picture of micrograph `number` of the report; close-ups are windows into it."""
    return f"picture{number}"


def gallery_html(shown: Sequence[MicrographResult], *, threshold: float) -> str:
    """Three rows of close-ups from the micrographs whose pictures the report holds."""
    everything = _candidates(shown)
    kept = [one for one in everything if one.reason == ""]
    low = [one for one in everything if one.reason == BELOW_THRESHOLD]
    ruled_out = [one for one in everything if one.reason not in ("", BELOW_THRESHOLD)]
    border = [*reversed(kept[-CELLS // 2 :]), *low[: CELLS // 2]]
    border.sort(key=lambda one: -one.score)
    rows = [
        _row("Best picks", kept[:CELLS]),
        _row(f"Around the threshold {threshold:.3g} (dimmed: below it)", border, threshold=threshold),
        _row("Best candidates that a rule rejected", ruled_out[:CELLS]),
    ]
    body = "".join(row for row in rows if row)
    return f"<h2>Close-ups</h2>{body}" if body else ""


def _candidates(shown: Sequence[MicrographResult]) -> list[_Candidate]:
    found = [
        _Candidate(number, float(x), float(y), float(diameter), float(score), str(reason))
        for number, result in enumerate(shown)
        for (x, y), diameter, score, reason in zip(
            result.candidates.xy_px,
            result.candidates.diameter_px,
            result.candidates.score,
            result.candidates.reason,
            strict=True,
        )
        if np.isfinite(score) and np.isfinite(diameter)
    ]
    return sorted(found, key=lambda one: (-one.score, one.picture, one.y, one.x))


def _row(title: str, candidates: Sequence[_Candidate], *, threshold: float | None = None) -> str:
    if not candidates:
        return ""
    cells = "".join(_cell(one, is_dimmed=threshold is not None and one.score < threshold) for one in candidates)
    return f"<div class=panel style='margin-bottom:12px'><b>{escape(title)}</b><div class=closeups>{cells}</div></div>"


def _cell(one: _Candidate, *, is_dimmed: bool) -> str:
    side = VIEW_DIAMETERS * one.diameter_px
    view = f"{one.x - side / 2:.1f} {one.y - side / 2:.1f} {side:.1f} {side:.1f}"
    style = " style='opacity:.55'" if is_dimmed else ""
    caption = f"{one.score:.2f}" + (f"<br>{escape(one.reason)}" if one.reason not in ("", BELOW_THRESHOLD) else "")
    return (
        f"<div{style}><svg viewBox='{view}' width={CELL_PX} height={CELL_PX}><use href='#{picture_id(one.picture)}'/>"
        f"</svg>{caption}</div>"
    )
