"""What the report shows of a run, as plain values."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.processing.belief import OpenCandidates
from cryopick.runs.record import Record
from cryopick.runs.report.model import _every_micrograph, score_histogram
from cryopick.runs.results import MicrographTotals
from cryopick.runs.threshold import Cut


@pytest.mark.parametrize("belief", [0.0, 0.25, 1.0])
def test_candidates_that_are_not_believed_are_shown_where_the_threshold_leaves_them(belief):
    scores = {"a": np.array([0.9, 0.2], np.float32), "b": np.array([0.8, np.nan, 0.6, 0.4], np.float32)}
    cut = Cut(threshold=0.5, belief={"b": belief})
    chart = score_histogram({name: OpenCandidates(score=one, diameter_px=one) for name, one in scores.items()}, cut)
    assert sum(chart.counts) == 5
    kept = int((scores["a"] >= 0.5).sum() + (scores["b"] * np.float32(belief) >= 0.5).sum())
    assert sum(count for count, _, high in chart.bars if high > 0.5) == kept
    assert ("believed" in chart.title) == (belief < 1)


@pytest.mark.parametrize("few", [True, False])
def test_the_table_of_all_micrographs_has_a_row_for_each_whenever_it_is_asked(few):
    totals = [
        MicrographTotals(record=record(f"m{n}", ("dim",) * n), count=n, candidate_count=9, mean_score=0.5, verdict=None)
        for n in range(3)
    ]
    rows = _every_micrograph(totals).rows
    assert list(rows) == [("m0", "0", "9", "", "", ""), ("m1", "1", "9", "0.5", "", "dim"), rows[2]]
    assert rows[-1] == ("m2", "2", "9", "0.5", "", "dim; dim")
    assert len(rows[:2] if few else rows) == (2 if few else 3)


def record(name, warnings):
    return Record(name=name, key=name, source=name, relion_name=name, size_bytes=1, modified_ns=1, warnings=warnings)
