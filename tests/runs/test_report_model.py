"""What the report shows of a run, as plain values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cryopick.runs.report.model import score_histogram
from cryopick.runs.results import MicrographResult
from cryopick.runs.threshold import at_threshold
from cryopick.runs.verdicts import GOOD, Verdict
from cryopick.types import Picks


def result(scores, *, belief):
    picks = Picks(
        xy_px=np.zeros((len(scores), 2)), score=np.asarray(scores, np.float32), micrograph_name="m", shape_yx=(99, 99)
    )
    return MicrographResult(
        record=None,
        candidates=at_threshold(picks, 0.5, belief=belief),
        verdict=Verdict(verdict=GOOD, belief=belief),
    )


@pytest.mark.parametrize("belief", [0.0, 0.25, 1.0])
def test_candidates_that_are_not_believed_are_shown_where_the_threshold_leaves_them(belief):
    results = [result([0.9, 0.2], belief=1.0), result([0.8, 0.6, 0.4], belief=belief)]
    chart = score_histogram(SimpleNamespace(threshold=0.5), results)
    assert sum(chart.counts) == 5
    kept = sum(one.count for one in results)
    assert sum(count for count, _, high in chart.bars if high > 0.5) == kept
    assert ("believed" in chart.title) == (belief < 1)
