"""What a run expects of its picks: one estimate by the scores, one by what the run shows, and a range over both."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.survey import NOTHING_SEEN
from cryopick.processing.belief import Beliefs
from cryopick.processing.probability import Calibration
from cryopick.runs.expected import expected_of
from cryopick.runs.settings import PickSettings
from cryopick.runs.threshold import Cut, open_candidates
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick import pick_to_folder


@dataclass
class Scores(ChoosesByExpectedF1):
    """A picker whose scores are probabilities."""

    calibration = Calibration.none()


@dataclass
class NoProbabilities:
    default_threshold = 0.5


def micrograph(name, scores):
    return Picks(xy_px=np.zeros((len(scores), 2)), score=np.asarray(scores, np.float32), micrograph_name=name)


def expected(scores, *, right=None, belief=None, threshold=0.5, picker=None):
    belief = {name: 1.0 for name in scores} if belief is None else belief
    cut = Cut(
        threshold=threshold,
        belief=belief,
        right={} if right is None else {name: np.asarray(one, np.float64) for name, one in right.items()},
    )
    candidates = {name: open_candidates(micrograph(name, one), picker or Scores()) for name, one in scores.items()}
    return expected_of(picker or Scores(), candidates, cut, NOTHING_SEEN)


def test_where_scores_and_run_agree_the_range_is_narrow_and_nothing_is_doubted():
    found = expected({"a": [0.9] * 200 + [0.1] * 50}, right={"a": [0.92] * 200 + [0.05] * 50})
    assert found.precision == pytest.approx(0.9)
    assert found.recall == pytest.approx(180 / 185)
    assert 0.82 < found.low < 0.9
    assert 0.92 < found.high < 0.97
    assert found.doubt == ""


def test_where_they_do_not_the_range_spans_both_and_it_is_said():
    found = expected({"a": [0.8] * 200}, right={"a": [0.99] * 200})
    assert found.precision == pytest.approx(0.8)
    assert found.low < 0.8
    assert found.high > 0.99
    assert "by the scores alone 80 % of the picks are right" in found.doubt
    assert found.doubt.endswith("in common 99 %")


def test_what_is_not_believed_counts_neither_as_pick_nor_in_the_estimates():
    found = expected(
        {"a": [0.9] * 200, "b": [0.9] * 100}, right={"b": [0.0] * 100, "a": [0.9] * 200}, belief={"a": 1.0, "b": 0.0}
    )
    assert found.precision == pytest.approx(0.9)
    assert found.low > 0.8
    assert found.doubt == ""


def test_with_a_given_threshold_the_run_is_asked_all_the_same():
    """A run of noise: ten likely candidates among 200 very unlikely ones, as noise gives them."""
    rng = np.random.default_rng(1)
    noise = np.concatenate([rng.uniform(0.001, 0.02, 200), np.full(2, 0.6)])
    found = expected({"a": noise, "b": noise}, threshold=0.5)
    assert found.precision == pytest.approx(0.6)
    assert found.low == 0
    assert found.doubt


def test_nothing_is_expected_without_picks_or_probabilities():
    assert expected({"a": [0.2]}, right={"a": [0.2]}) is None
    assert expected({}, right={}) is None
    assert expected({"a": [0.9]}, picker=NoProbabilities()) is None


@dataclass(frozen=True, kw_only=True)
class Unsure(ChoosesByExpectedF1):
    """Its scores say that four of five picks are right; what the run shows, that nearly all are."""

    name: ClassVar[str] = "unsure"
    score_meaning: ClassVar[str] = "probability"
    calibration: ClassVar[Calibration] = Calibration.none()
    diameter: Length | None = None

    def pick(self, micrograph, survey=None):
        xy_px = np.stack(np.meshgrid(np.arange(40, 360, 20), np.arange(40, 360, 20)), axis=-1).reshape(-1, 2)
        return Picks.of_candidates(micrograph, xy_px, np.full(len(xy_px), 0.8), 12.0)

    def beliefs(self, candidates):
        right = tuple(np.full(len(one), 0.999) for one in candidates)
        ones = np.ones(len(candidates))
        return Beliefs(belief=ones, confirmed=ones, filled=ones, right=right)


def test_the_range_and_what_is_unsure_stand_in_summary_report_and_on_the_terminal(tmp_path, capsys):
    from cryopick.cli.pick import print_summary

    pixels = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    write_micrograph(tmp_path / "m.mrc", Micrograph(pixels))
    settings = PickSettings(picker=Unsure(diameter=Length(12, 12, "px")))
    summary = pick_to_folder([tmp_path / "m.mrc"], tmp_path / "run", settings, workers=1)
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert stored["expected_precision"] == pytest.approx(0.8)
    assert 0.7 < stored["expected_precision_low"] < 0.76
    assert stored["expected_precision_high"] > 0.999
    print_summary(summary, tmp_path / "run")
    low = f"{100 * summary.expected_precision_low:.0f}"
    printed = capsys.readouterr().out
    assert f"expected: {low} to >99 % of the picks are right" in printed
    for text in (printed, (tmp_path / "run" / "report.html").read_text()):
        assert "by the scores alone 80 % of the picks are right" in text
    assert replace(summary, expected_precision=None).expected_right == ""
