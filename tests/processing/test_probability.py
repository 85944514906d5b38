"""Cuts chosen from probabilities, against brute force and against simulated outcomes."""

import numpy as np
import pytest

from cryopick.processing.probability import (
    adapted_to_emptier_run,
    chance_to_be_marked,
    expected_scores,
    precision_range,
    threshold_for_f1,
    threshold_for_precision,
)


def test_expected_scores_of_three_candidates_by_hand():
    precision, recall, f1 = expected_scores(np.array([0.9, 0.6, 0.1], np.float32), 0.5)
    assert precision == pytest.approx(0.75)
    assert recall == pytest.approx(1.5 / 1.6)
    assert f1 == pytest.approx(2 * 1.5 / (2 + 1.6))


def test_f1_cut_is_the_best_of_all_cuts():
    p = np.random.default_rng(0).beta(0.6, 0.8, 400).astype(np.float32)
    best = max(p, key=lambda t: expected_scores(p, float(t))[2])
    assert threshold_for_f1(p) == pytest.approx(float(best))


def test_f1_cut_is_half_the_best_f1():
    p = np.random.default_rng(1).beta(0.6, 0.8, 20_000).astype(np.float32)
    cut = threshold_for_f1(p)
    assert cut == pytest.approx(expected_scores(p, cut)[2] / 2, abs=0.01)


def test_expected_scores_are_what_outcomes_drawn_from_the_probabilities_give():
    rng = np.random.default_rng(2)
    p = rng.beta(0.7, 0.7, 50_000).astype(np.float32)
    is_right = rng.random(len(p)) < p
    precision, recall, _ = expected_scores(p, 0.4)
    assert is_right[p >= 0.4].mean() == pytest.approx(precision, abs=0.01)
    assert is_right[p >= 0.4].sum() / is_right.sum() == pytest.approx(recall, abs=0.01)


def test_precision_cut_keeps_as_many_as_the_target_allows():
    p = np.array([0.99, 0.95, 0.9, 0.8, 0.2], np.float32)
    cut = threshold_for_precision(p, 0.9)  # means 0.99, 0.97, 0.947, 0.91, 0.768
    assert cut == pytest.approx(0.8)


def test_unreachable_precision_keeps_nothing():
    assert threshold_for_precision(np.array([0.5, 0.4], np.float32), 0.9) == 1.0


def test_no_candidates_keep_nothing():
    none = np.zeros(0, np.float32)
    assert threshold_for_f1(none) == 1.0
    assert threshold_for_precision(none, 0.9) == 1.0
    assert expected_scores(none, 0.5) == (1.0, 1.0, 0.0)


def two_gaussians(share, *, n, seed):
    """Values of right (mean 2) and wrong (mean 0) candidates, and the exact probability at an assumed share."""
    rng = np.random.default_rng(seed)
    is_right = rng.random(n) < share
    value = rng.normal(np.where(is_right, 2.0, 0.0))

    def probability(assumed):
        odds = assumed / (1 - assumed) * np.exp(2 * value - 2)
        return odds / (1 + odds)

    return is_right, probability


def test_an_emptier_run_gets_the_probabilities_of_its_own_share():
    _, probability = two_gaussians(0.05, n=100_000, seed=3)
    adapted = adapted_to_emptier_run(probability(0.35), share=0.35)
    assert np.abs(adapted - probability(0.05)).max() < 0.05
    assert adapted.mean() == pytest.approx(0.05, abs=0.01)


def test_a_fuller_run_keeps_its_probabilities():
    _, probability = two_gaussians(0.6, n=20_000, seed=4)
    assert np.array_equal(adapted_to_emptier_run(probability(0.35), share=0.35), probability(0.35))


def test_adapting_keeps_the_order():
    _, probability = two_gaussians(0.02, n=5_000, seed=5)
    given = np.sort(probability(0.35))
    assert np.all(np.diff(adapted_to_emptier_run(given, share=0.35)) >= 0)


def test_people_leave_out_what_is_fainter_than_the_typical_particle():
    p = np.repeat([0.9, 0.3], [9, 1])
    typical = (9 * 0.81 + 0.09) / (9 * 0.9 + 0.3)
    assert chance_to_be_marked(p, power=3.0) == pytest.approx([1] * 9 + [(0.3 / typical) ** 3])


@pytest.mark.parametrize("p", [np.full(20, 0.4), np.repeat([0.75, 0.5, 0.2], 10)])
def test_where_even_typical_particles_are_faint_people_mark_them_all_the_same(p):
    assert chance_to_be_marked(p, power=3.0) == pytest.approx([1] * len(p))


def test_the_less_clear_the_typical_particle_the_less_people_choose():
    """Half way between faint and clear, 0.8, the power is 1.5 instead of 3."""
    p = np.repeat([0.9, 0.3], [10, 6])
    typical = (10 * 0.81 + 6 * 0.09) / (10 * 0.9 + 6 * 0.3)
    assert typical == pytest.approx(0.8)
    assert chance_to_be_marked(p, power=3.0)[-1] == pytest.approx((0.3 / 0.8) ** 1.5)


def test_the_range_of_one_estimate_is_that_of_counting_and_of_the_calibration():
    """A binomial of 100 at 0.8 has a deviation of 0.04, and the calibration adds 0.2 x 0.8 x 0.2 in squares."""
    low, high = precision_range(np.full(100, 0.8))
    half = 1.64 * np.hypot(0.04, 0.032)
    assert (low, high) == (pytest.approx(0.8 - half), pytest.approx(0.8 + half))


def test_estimates_that_contradict_each_other_widen_the_range_over_both():
    low, high = precision_range(np.full(100, 0.8), np.full(100, 0.1))
    assert low < 0.1
    assert high > 0.8
    assert low >= 0


def test_few_picks_are_less_sure_than_many_and_sure_ones_surer():
    widths = [np.diff(precision_range(np.full(count, p)))[0] for count, p in ((5, 0.9), (500, 0.9), (500, 0.99))]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
