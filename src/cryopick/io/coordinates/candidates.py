"""The table of a run's candidates as CSV text, and the rounding that this text brings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cryopick.types import Picks

CANDIDATE_COLUMNS = ("x_px", "y_px", "score", "diameter_px", "class_id", "reason")


def candidates_text(picks: Picks) -> str:
    """The CSV text of candidates. Rounded (0.001 px, 6 digits of score), so that no machine's last bit shows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CANDIDATE_COLUMNS)
    for numbers, class_id, reason in zip(_numbers(picks), picks.class_id.tolist(), picks.reason.tolist(), strict=True):
        writer.writerow((*numbers, class_id, reason))
    return stream.getvalue()


def as_written(picks: Picks) -> Picks:
    """The same picks with the numbers that whoever reads `candidates_text` gets, without their maps."""
    rows = np.array(list(_numbers(picks)), dtype=np.float64).reshape(-1, 4)
    score, diameter_px = rows[:, 2:].T.astype(np.float32)
    return replace(picks, xy_px=rows[:, :2], score=score, diameter_px=diameter_px, maps={})


def _numbers(picks: Picks) -> Iterator[tuple[str, str, str, str]]:
    """x, y, score and diameter of each pick as texts."""
    columns = (picks.xy_px.tolist(), picks.score.tolist(), picks.diameter_px.tolist())
    for (x, y), score, diameter in zip(*columns, strict=True):
        yield f"{x:.3f}", f"{y:.3f}", f"{score:.6g}", f"{diameter:.2f}"
