"""Counts by hand, and the curve against matching afresh at every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cryopick.metrics.detection import Counts, match_picks, pooled, precision_recall_curve, rank_outcomes

NONE = np.zeros((0, 2))


def test_each_kind_of_outcome_is_counted_once() -> None:
    particles = np.array([[10.0, 10.0], [50.0, 10.0], [90.0, 10.0]])
    uncertain = np.array([[10.0, 60.0]])
    picks = np.array(
        [
            [11.0, 10.0],  # on the first particle
            [14.0, 10.0],  # on it again: a duplicate, false
            [50.0, 14.9],  # on the second
            [12.0, 60.0],  # on the uncertain one: ignored
            [90.0, 16.0],  # too far from the third: false
        ]
    )
    match = match_picks(picks, particles, uncertain, max_distance_px=5)
    assert match.counts == Counts(true_positive=2, false_positive=2, false_negative=1, ignored=1, duplicate=1)
    assert list(match.is_ignored) == [False, False, False, True, False]
    assert list(match.is_duplicate) == [False, True, False, False, False]
    assert match.counts.precision == pytest.approx(2 / 4)
    assert match.counts.recall == pytest.approx(2 / 3)
    assert match.counts.f1 == pytest.approx(4 / 7)


def test_a_pick_on_a_particle_is_true_even_next_to_an_uncertain_label() -> None:
    match = match_picks(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]), max_distance_px=5)
    assert (match.counts.true_positive, match.counts.ignored) == (1, 0)


def test_two_picks_on_one_uncertain_label_are_both_ignored() -> None:
    match = match_picks(np.array([[0.0, 0.0], [2.0, 0.0]]), NONE, np.array([[1.0, 0.0]]), max_distance_px=5)
    assert match.counts == Counts(ignored=2)


def test_scores_without_anything_to_count_are_undefined_and_not_zero_or_one() -> None:
    assert np.isnan([Counts().precision, Counts().recall, Counts().f1]).all()
    assert match_picks(NONE, np.array([[1.0, 1.0]]), NONE, max_distance_px=5).counts.recall == 0
    every_pick_false = match_picks(np.array([[1.0, 1.0]]), NONE, NONE, max_distance_px=5).counts
    assert every_pick_false.precision == 0
    assert np.isnan(every_pick_false.recall)


def test_pooling_adds_counts_and_does_not_average_ratios() -> None:
    total = pooled([Counts(true_positive=1), Counts(true_positive=0, false_positive=8, false_negative=1)])
    assert total.precision == pytest.approx(1 / 9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 25), m=st.integers(0, 12), k=st.integers(0, 6), ties=st.booleans())
def test_curve_equals_matching_afresh_at_every_threshold(seed: int, n: int, m: int, k: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    picks, particles, uncertain = (generator.uniform(0, 30, (count, 2)) for count in (n, m, k))
    score = generator.integers(0, 5, n) / 4 if ties else generator.normal(size=n)
    outcomes = rank_outcomes(picks, score, particles, uncertain, max_distance_px=6)
    curve = precision_recall_curve([outcomes])
    assert list(curve.threshold) == sorted(set(score.tolist()), reverse=True)
    for i, threshold in enumerate(curve.threshold):
        counts = match_picks(picks[score >= threshold], particles, uncertain, max_distance_px=6).counts
        assert curve.true_positive[i] == counts.true_positive
        assert curve.false_positive[i] == counts.false_positive
        np.testing.assert_allclose(curve.precision[i], counts.precision)
        np.testing.assert_allclose(curve.recall[i], counts.recall)
        np.testing.assert_allclose(curve.f1[i], counts.f1)
    everything = match_picks(picks, particles, uncertain, max_distance_px=6)
    assert outcomes.is_paired.sum() == everything.counts.true_positive
    assert set(np.argsort(-score, kind="stable")[outcomes.is_paired]) == set(everything.pairs.first)


def test_average_precision_is_that_of_scikit_learn_when_every_particle_has_a_candidate() -> None:
    generator = np.random.default_rng(3)
    particles = np.stack(np.meshgrid(np.arange(10) * 50.0, np.arange(6) * 50.0), axis=-1).reshape(-1, 2)
    elsewhere = generator.uniform(0, 450, (80, 2)) + np.array([0, 1000])
    picks = np.concatenate([particles + generator.normal(0, 1, particles.shape), elsewhere])
    is_particle = np.arange(len(picks)) < len(particles)
    score = generator.normal(size=len(picks)) + is_particle
    outcomes = rank_outcomes(picks, score, particles, NONE, max_distance_px=10)
    expected = average_precision_score(is_particle, score)
    assert precision_recall_curve([outcomes]).average_precision == pytest.approx(expected)
    # Half of the particles out of reach halves what can be gained.
    unreachable = particles + np.array([0, 5000])
    halved = rank_outcomes(picks, score, np.concatenate([particles, unreachable]), NONE, max_distance_px=10)
    assert precision_recall_curve([halved]).average_precision == pytest.approx(expected / 2)


def test_micrographs_are_pooled_at_one_threshold() -> None:
    first = rank_outcomes(np.array([[0.0, 0.0]]), np.array([0.9]), np.array([[0.0, 0.0]]), NONE, max_distance_px=1)
    second = rank_outcomes(np.array([[0.0, 0.0]]), np.array([0.5]), NONE, NONE, max_distance_px=1)
    curve = precision_recall_curve([second, first])
    assert list(curve.threshold) == [0.9, 0.5]
    assert list(curve.precision) == [1.0, 0.5]
    assert curve.best_f1() == (1.0, 0.9)


def test_weights_repeat_micrographs() -> None:
    generator = np.random.default_rng(5)
    outcomes = [
        rank_outcomes(
            *(generator.uniform(0, 30, (12, 2)), generator.normal(size=12)),
            generator.uniform(0, 30, (9, 2)),
            NONE,
            max_distance_px=5,
        )
        for _ in range(3)
    ]
    weighted = precision_recall_curve(outcomes, weights=np.array([2.0, 0.0, 1.0]))
    repeated = precision_recall_curve([outcomes[0], outcomes[0], outcomes[2]])
    assert weighted.average_precision == pytest.approx(repeated.average_precision)


def test_picks_without_scores_have_no_curve() -> None:
    with pytest.raises(ValueError, match="1 of 2 picks have no score"):
        rank_outcomes(np.zeros((2, 2)), np.array([0.1, np.nan]), NONE, NONE, max_distance_px=1)


def test_a_set_without_particles_has_no_average_precision() -> None:
    outcomes = rank_outcomes(np.zeros((1, 2)), np.array([0.5]), NONE, NONE, max_distance_px=1)
    curve = precision_recall_curve([outcomes])
    assert np.isnan(curve.average_precision)
    assert list(curve.false_positive) == [1]
    assert np.isnan(precision_recall_curve([]).average_precision)
