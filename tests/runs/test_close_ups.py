"""Close-ups of the report: the right candidates in the right rows."""

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD, TOO_CLOSE
from cryopick.runs.report.close_ups import CELLS, close_up_rows
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


def scores_of(row):
    return [round(cell.score, 2) for cell in row.cells]


def test_rows_hold_the_best_those_around_the_threshold_and_those_ruled_out():
    scores = [0.99, 0.7, 0.52, 0.48, 0.2, 0.97]
    reasons = ["", "", "", BELOW_THRESHOLD, BELOW_THRESHOLD, TOO_CLOSE]
    best, border, rejected = close_up_rows([result_with(scores, reasons)], threshold=0.5)
    assert scores_of(best) == [0.99, 0.7, 0.52]
    assert scores_of(border) == [0.99, 0.7, 0.52, 0.48, 0.2]
    assert [cell.is_dimmed for cell in border.cells] == [False, False, False, True, True]
    assert scores_of(rejected) == [0.97]
    assert rejected.cells[0].reason == TOO_CLOSE


def test_a_close_up_is_a_window_of_1_6_diameters_around_its_candidate():
    (best, *_) = close_up_rows([result_with([0.6, 0.7], ["", ""])], threshold=0.5)
    first = best.cells[0]
    assert (first.micrograph, first.x, first.y, first.side_px) == (0, 10.0, 50.0, 32.0)


def test_a_row_is_no_longer_than_its_cells_and_shows_the_best_of_all_pictures():
    many = [result_with(np.linspace(0.5, 0.9, 30), [""] * 30), result_with([0.95], [""])]
    best = close_up_rows(many, threshold=0.4)[0]
    assert len(best.cells) == CELLS
    assert [cell.micrograph for cell in best.cells[:2]] == [1, 0]


def test_without_candidates_there_are_no_rows():
    assert close_up_rows([result_with([], [])], threshold=0.5) == ()
