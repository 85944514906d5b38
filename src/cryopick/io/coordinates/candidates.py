"""The table of a run's candidates as CSV text."""

from __future__ import annotations

import csv
import io

from cryopick.types import Picks

CANDIDATE_COLUMNS = ("x_px", "y_px", "score", "diameter_px", "class_id", "reason")


def candidates_text(picks: Picks) -> str:
    """The CSV text of candidates. Rounded (0.001 px, 6 digits of score), so that no machine's last bit shows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CANDIDATE_COLUMNS)
    for (x, y), score, diameter, class_id, reason in zip(
        picks.xy_px.tolist(),
        picks.score.tolist(),
        picks.diameter_px.tolist(),
        picks.class_id.tolist(),
        picks.reason.tolist(),
        strict=True,
    ):
        writer.writerow((f"{x:.3f}", f"{y:.3f}", f"{score:.6g}", f"{diameter:.2f}", class_id, reason))
    return stream.getvalue()
