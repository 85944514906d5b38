"""Close-ups of the report: the right candidates in the right rows."""

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD, TOO_CLOSE
from cryopick.runs.report.gallery import CELLS, gallery_html, picture_id
from cryopick.runs.results import MicrographResult
from cryopick.types import Picks


def result_with(scores, reasons):
    n = len(scores)
    picks = Picks(
        xy_px=np.stack([np.arange(n) * 10.0, np.full(n, 50.0)], axis=1),
        score=np.asarray(scores, np.float32),
        diameter_px=np.full(n, 20.0),
        reason=np.asarray(reasons, dtype="<U40"),
    )
    return MicrographResult(record=None, candidates=picks)


def test_rows_hold_the_best_those_around_the_threshold_and_those_ruled_out():
    scores = [0.99, 0.7, 0.52, 0.48, 0.2, 0.97]
    reasons = ["", "", "", BELOW_THRESHOLD, BELOW_THRESHOLD, TOO_CLOSE]
    best, border, rejected = gallery_html([result_with(scores, reasons)], threshold=0.5).split("class=closeups>")[1:]
    assert [score in best for score in ("0.99", "0.70", "0.52", "0.48", "0.97")] == [True, True, True, False, False]
    assert border.index("0.52") < border.index("0.48") < border.index("0.20")
    assert border.count("opacity") == 2
    assert "0.97" in rejected
    assert TOO_CLOSE in rejected


def test_a_row_is_no_longer_than_its_cells_and_shows_the_best_of_all_pictures():
    many = [result_with(np.linspace(0.5, 0.9, 30), [""] * 30), result_with([0.95], [""])]
    best = gallery_html(many, threshold=0.4).split("class=closeups>")[1]
    assert best.count("<svg") == CELLS
    assert best.index(picture_id(1)) < best.index(picture_id(0))


def test_without_candidates_there_is_no_section():
    assert gallery_html([result_with([], [])], threshold=0.5) == ""
