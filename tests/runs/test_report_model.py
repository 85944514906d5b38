"""What the report shows of a run, as plain values."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from discs import disc_micrograph

import cryopick
from cryopick.errors import NotARunFolderError
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.processing.belief import OpenCandidates
from cryopick.runs.cut_curve import curve_of_run
from cryopick.runs.folder import RunFolder
from cryopick.runs.record import Record
from cryopick.runs.report.full_views import full_views, window_with_most
from cryopick.runs.report.model import _every_micrograph, expected_curves, score_histogram
from cryopick.runs.results import MicrographResult, MicrographTotals
from cryopick.runs.settings import make_settings
from cryopick.runs.threshold import Cut
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold
from finishing import make_run


@pytest.mark.parametrize("belief", [0.0, 0.25, 1.0])
def test_candidates_that_are_not_believed_are_shown_where_the_threshold_leaves_them(belief):
    scores = {"a": np.array([0.9, 0.2], np.float32), "b": np.array([0.8, np.nan, 0.6, 0.4], np.float32)}
    cut = Cut(threshold=0.5, belief={"b": belief})
    chart = score_histogram({name: OpenCandidates(score=one, diameter_px=one) for name, one in scores.items()}, cut)
    assert sum(chart.counts) == 5
    kept = int((scores["a"] >= 0.5).sum() + (scores["b"] * np.float32(belief) >= 0.5).sum())
    assert sum(count for count, _, high in chart.bars if high > 0.5) == kept
    assert ("believed" in chart.x_label) == (belief < 1)


def test_the_threshold_parts_what_is_kept_from_what_lies_below_and_rules_stand_apart():
    score = np.array([0.1, 0.49999997, 0.5, 0.7, np.nan], np.float32)
    open_ = {"a": OpenCandidates(score=score, diameter_px=score)}
    chart = score_histogram(open_, Cut(threshold=0.5), ruled_out=np.array([0.9, 0.2, 0.6], np.float32))
    assert sum(count for count, _, high in chart.bars if chart.is_below(high)) == 2
    assert sum(count for count, _, high in chart.bars if not chart.is_below(high)) == 2
    assert sum(chart.outline) == 3
    assert [look for look, _ in chart.legend] == ["kept", "below", "outline"]


def test_the_curve_over_thresholds_is_what_brute_force_counts():
    rng = np.random.default_rng(0)
    score = np.append(rng.uniform(0, 1, 500), np.nan).astype(np.float32)
    curve = curve_of_run(score, lambda s: s.astype(np.float64) ** 2)
    p = score[:-1].astype(np.float64) ** 2
    for place in (0, 137, 500, 940):
        kept = score[:-1] >= curve.threshold[place]
        assert curve.kept[place] == kept.sum()
        assert curve.precision[place] == pytest.approx(p[kept].mean(), rel=1e-6)
        assert curve.recall[place] == pytest.approx(p[kept].sum() / p.sum(), rel=1e-6)
    (chart,) = expected_curves(curve, threshold=0.3)
    precision, recall, f1 = chart.lines.values()
    assert dict(recall)[0.0] == 1.0
    both = 2 * precision[40][1] * recall[40][1] / (precision[40][1] + recall[40][1])
    assert f1[40] == (precision[40][0], pytest.approx(both, rel=1e-6))
    assert expected_curves(curve_of_run(score, None), threshold=0.3) == ()
    nothing = curve_of_run(np.zeros(0, np.float32), lambda s: s.astype(np.float64))
    assert expected_curves(nothing, threshold=0.3) == ()


def test_the_report_says_at_the_threshold_what_the_summary_says_and_writes_nothing(tmp_path):
    run = make_run(tmp_path / "run", "general", micrographs=4, candidates=60).path
    summary = rethreshold(run, 0.4)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = cryopick.report(run)
    assert found.summary == summary
    scores, curves, counts = found.charts
    assert sum(count for count, _, high in scores.bars if not scores.is_below(high)) == summary.particles
    assert sum(scores.counts) + sum(scores.outline) == summary.candidates
    assert sum(counts.counts) == 4
    near = {x: y for x, y in curves.lines["kept, of all particles (recall)"]}
    assert near[min(near, key=lambda x: abs(x - 0.4))] == pytest.approx(summary.expected_recall, abs=0.02)
    (now,) = [row for row in found.thresholds.rows if "now" in row[0]]
    assert now[1] == f"{summary.particles:,}"
    assert found.thresholds.columns == ("threshold", "particles", "expected right", "expected found")
    html = found._repr_html_()
    assert f"{summary.particles:,} particles in 4 micrographs" in html
    assert html.count("<svg") == 3
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(NotARunFolderError):
        cryopick.report(tmp_path)


@pytest.mark.parametrize(
    ("shape", "size"), [((3000, 2500), (1024, 1024)), ((700, 5000), (700, 1024)), ((1, 1), (1, 1))]
)
def test_a_window_lies_inside_and_holds_most_picks(shape, size):
    (top, left), found = window_with_most(np.zeros((0, 2)), shape)
    assert found == size
    rng = np.random.default_rng(1)
    xy = np.concatenate([rng.uniform(0, np.array(shape[::-1]), (30, 2)), rng.normal([0.8 * shape[1], 0], 20, (50, 2))])
    (top, left), _ = window_with_most(xy, shape)
    assert 0 <= top <= shape[0] - size[0]
    assert 0 <= left <= shape[1] - size[1]
    inside = ((xy >= [left, top]) & (xy < [left + size[1], top + size[0]])).all(axis=1).sum()
    brute = max(
        ((xy >= [x, y]) & (xy < [x + size[1], y + size[0]])).all(axis=1).sum()
        for y in {0, (shape[0] - size[0]) // 2, shape[0] - size[0]}
        for x in range(0, shape[1] - size[1] + 1, 256)
    )
    assert inside >= 0.8 * brute


def test_a_part_at_full_resolution_is_the_micrograph_pixel_for_pixel_and_says_when_it_cannot_be_shown(tmp_path):
    for name, count in (("a", 0), ("b", 2), ("c", 9)):
        write_micrograph(tmp_path / "in" / f"{name}.mrc", disc_micrograph(f"{name}.mrc", seed=count))
    settings = make_settings("blob", diameter="20px")
    pick_to_folder([tmp_path / "in"], tmp_path / "run", settings, workers=1)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("at full resolution") == 3 + 1 - 1
    folder = RunFolder(tmp_path / "run")
    shown = [MicrographResult(record=record, candidates=folder.read_candidates(record)) for record in folder.records()]
    views = full_views(shown, settings.run)
    assert views.missing == ()
    for view in views.views:
        picture = cv2.imdecode(np.frombuffer(view.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).astype(np.float64)
        pixels = read_micrograph(tmp_path / "in" / view.name).pixels
        assert picture.shape == pixels.shape == (view.height, view.width)
        assert np.corrcoef(picture.ravel(), cv2.GaussianBlur(pixels, (0, 0), 0.8).ravel())[0, 1] > 0.95
    (tmp_path / "in" / "b.mrc").unlink()
    os.utime(tmp_path / "in" / "c.mrc", (1, 1))
    views = full_views(shown, settings.run)
    assert [view.name for view in views.views] == ["a.mrc"]
    assert "not there any more" in views.missing[0] + views.missing[1]
    assert "changed since" in views.missing[0] + views.missing[1]
    rethreshold(tmp_path / "run", None)
    assert "b.mrc is not there any more" in (tmp_path / "run" / "report.html").read_text()


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
