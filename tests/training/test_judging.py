"""Candidates are judged against particles as a hand count judges them, on simulated and on labelled images."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryopick.training.augment import LabelledCrop
from cryopick.training.judging import (
    calibrated,
    detection_scores,
    labelled_score,
    outcomes_of,
    outcomes_on,
    tolerance_px,
)

TRUTH = np.array([[20.0, 20.0], [60.0, 20.0]])


def simulated(xy_px=TRUTH, diameter_px=20.0):
    return SimpleNamespace(xy_px=xy_px, diameter_px=np.full(len(xy_px), diameter_px))


def labelled(is_uncertain):
    return LabelledCrop(np.zeros((80, 80), np.float32), TRUTH, np.full(2, 20.0), np.array(is_uncertain), True)


def test_a_candidate_may_be_off_by_a_quarter_of_the_typical_diameter():
    found = np.array([[25.0, 20.0], [65.1, 20.0]]), np.array([0.9, 0.8])
    assert outcomes_on(simulated(), found).is_paired.tolist() == [True, False]
    assert outcomes_on(simulated(diameter_px=20.5), found).is_paired.tolist() == [True, True]
    assert tolerance_px(np.array([10.0, 30.0, 20.0])) == 5
    assert tolerance_px(np.zeros(0)) == 5  # of the nominal 20
    assert tolerance_px(np.zeros(0), nominal_px=80.0) == 20


def test_candidates_at_uncertain_labels_count_neither_way():
    outcome = outcomes_on(labelled([False, True]), (TRUTH, np.array([0.9, 0.8])))
    assert outcome.particle_count == 1
    assert outcome.is_true.tolist() == [True, False]
    assert outcome.is_false.tolist() == [False, False]


def test_scores_of_two_right_candidates_and_a_wrong_one_between():
    found = np.array([[20.0, 20.0], [40.0, 40.0], [60.0, 20.0]]), np.array([0.9, 0.8, 0.7])
    outcomes = outcomes_of(lambda _: found, [simulated()])
    assert detection_scores(outcomes) == pytest.approx({"score": (1 + 2 / 3) / 2, "best_f1": 0.8})
    assert labelled_score(outcomes, is_complete=True) == pytest.approx((1 + 2 / 3) / 2)
    # all three picks find both labels: a recall of 1 for 2 labels in 3 picks
    assert labelled_score(outcomes, is_complete=False) == pytest.approx(2 / 3)


def test_of_two_answers_the_surer_one_is_right_where_that_counts():
    found = np.array([[21.0, 20.0], [20.0, 20.0]]), np.array([0.9, 0.1])
    outcomes = outcomes_of(lambda _: found, 8 * [simulated(TRUTH[:1])])
    surest, nearest = (calibrated(outcomes, surest_counts=which)(found[1]) for which in (True, False))
    assert (surest > 0.5).tolist() == [True, False]
    assert (nearest > 0.5).tolist() == [False, True]


def test_where_there_is_no_candidate_at_all_scores_stay_as_they_are():
    nothing = outcomes_of(lambda _: (np.zeros((0, 2)), np.zeros(0)), [simulated()])
    assert calibrated(nothing)(np.array([0.3])) == pytest.approx(0.3)
