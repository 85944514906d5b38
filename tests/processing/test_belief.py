"""Micrographs are judged against the others of their run; scores and sizes are drawn from distributions known here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from cryopick.processing.belief import beliefs
from cryopick.processing.probability import Calibration

SHARE = 0.5
"""Of right candidates where the scores are calibrated; the logits of right and wrong ones are Gaussians."""
SPREAD, MEANS = 2.0, (-2.0, 2.0)


def probability_of(height):
    """Of a candidate of this height being right, by Bayes' rule from the two Gaussians."""
    return expit(logit(SHARE) + (MEANS[1] - MEANS[0]) * height / SPREAD**2)


def calibration():
    heights = np.quantile(np.concatenate([np.random.default_rng(0).normal(mean, SPREAD, 20000) for mean in MEANS]),
                          np.linspace(0.002, 0.998, 65))  # fmt: skip
    return Calibration(np.stack([heights, probability_of(heights)]))


def micrograph(rng, *, particles=0, noise=150, size=100.0, spread=0.06, mean=MEANS[1], specks=0):
    """Probabilities and diameters; noise is read as any size, particles as one, specks score high but are of any."""
    heights = np.concatenate(
        [rng.normal(mean, 1.2, particles), rng.normal(MEANS[0], 1.2, noise), rng.normal(MEANS[1], SPREAD, specks)]
    )
    spreads = np.repeat([spread, 0.15, 0.15], [particles, noise, specks])
    middles = np.repeat([size, 105.0, 105.0], [particles, noise, specks])
    return probability_of(heights), middles * np.exp(rng.normal(0, 1, len(heights)) * spreads)


def belief_of(micrographs, *, with_sizes=True):
    scores, sizes = zip(*micrographs, strict=True)
    if not with_sizes:
        sizes = [np.full(len(each), 100.0) for each in sizes]
    return beliefs(scores, sizes, calibration=calibration()).belief


@pytest.mark.parametrize("with_sizes", [True, False])
def test_full_micrographs_are_believed_and_empty_ones_of_the_same_run_are_not(with_sizes):
    rng = np.random.default_rng(1)
    run = [micrograph(rng, particles=80) for _ in range(3)] + [micrograph(rng) for _ in range(6)]
    belief = belief_of(run, with_sizes=with_sizes)
    assert (belief[:3] > 0.8).all()
    assert belief[3:] == pytest.approx(0)


def test_one_full_micrograph_among_twenty_empty_ones_is_believed():
    rng = np.random.default_rng(2)
    belief = belief_of([micrograph(rng) for _ in range(10)] + [micrograph(rng, particles=80)] + [micrograph(rng)] * 10)
    assert belief[10] == pytest.approx(1)
    assert np.delete(belief, 10) == pytest.approx(0)


def test_one_empty_micrograph_among_full_ones_is_not_believed():
    rng = np.random.default_rng(3)
    belief = belief_of([micrograph(rng, particles=80) for _ in range(8)] + [micrograph(rng)])
    assert belief[:8] == pytest.approx(1)
    assert belief[8] == pytest.approx(0)


def test_specks_that_score_as_particles_but_are_of_other_sizes_are_not_believed_beside_particles():
    rng = np.random.default_rng(4)
    run = [micrograph(rng, particles=100, size=90, mean=5.0) for _ in range(3)]
    belief = belief_of([*run, micrograph(rng, specks=90)])
    assert belief[:3] == pytest.approx(1)
    assert belief[3] < 0.1


def test_a_run_of_faint_particles_is_believed():
    rng = np.random.default_rng(5)
    assert belief_of([micrograph(rng, particles=100, mean=0.8) for _ in range(3)]) == pytest.approx(1)


def test_a_sparse_micrograph_whose_particles_are_like_those_of_the_run_is_believed():
    rng = np.random.default_rng(6)
    belief = belief_of(
        [micrograph(rng, particles=80, mean=3.0) for _ in range(3)] + [micrograph(rng, particles=20, mean=3.0)]
    )
    assert belief == pytest.approx(1)


def test_the_order_of_the_micrographs_does_not_matter_nor_does_the_unit_of_the_sizes():
    rng = np.random.default_rng(7)
    run = [micrograph(rng, particles=60), micrograph(rng), micrograph(rng, particles=10), micrograph(rng)]
    forth = belief_of(run)
    assert belief_of(run[::-1])[::-1] == pytest.approx(forth, abs=1e-6)
    assert belief_of([(scores, sizes / 10) for scores, sizes in run]) == pytest.approx(forth, abs=1e-6)


def test_a_run_without_candidates_and_one_of_nothing_likely_are_not_believed():
    nothing = (np.zeros(0), np.zeros(0))
    assert belief_of([nothing, nothing]) == pytest.approx(0)
    assert belief_of([(np.array([0.1, 0.2]), np.array([90.0, 110.0])), nothing]) == pytest.approx(0)


def test_what_the_run_shows_is_nearer_the_truth_where_candidates_are_rarely_wrong():
    """Scores of 0.8 where half of the candidates are particles are worth more where nearly all of them are."""
    rng = np.random.default_rng(8)
    run = [micrograph(rng, particles=count, noise=noise, mean=1.0) for count, noise in ((150, 8), (150, 8), (0, 100))]
    scores, sizes = zip(*run, strict=True)
    found = beliefs(scores, sizes, calibration=calibration())
    assert [len(one) for one in found.right] == [158, 158, 100]
    for score, right in zip(scores[:2], found.right[:2], strict=True):
        is_likely = score > 0.5
        truth = (np.arange(158) < 150)[is_likely].mean()
        assert score[is_likely].mean() < truth - 0.08
        assert right[is_likely].mean() == pytest.approx(truth, abs=0.05)
    assert found.right[2].max() < 0.2


def test_faint_particles_of_a_wide_spread_of_sizes_are_learnt_until_nothing_moves():
    """What is found does not depend on how many rounds beyond the last are allowed."""
    rng = np.random.default_rng(9)
    run = [micrograph(rng, particles=40, noise=60, mean=0.4, spread=0.1) for _ in range(3)]
    settled = belief_of(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryopick.processing.belief.MOST_ROUNDS", 60)
        assert belief_of(run) == pytest.approx(settled, abs=0.05)


def test_sure_scores_and_sizes_a_hundredfold_apart_give_finite_beliefs_whatever_their_order():
    rng = np.random.default_rng(12)
    scores = [rng.choice([0.0, 0.3, 1.0], size=count) for count in (1, 7, 93, 250)]
    sizes = [np.exp(rng.normal(5, 1.5, len(each))) for each in scores]
    orders = [rng.permutation(len(each)) for each in scores]
    found = beliefs(scores, sizes, calibration=calibration())
    shuffled = beliefs(
        [each[order] for each, order in zip(scores, orders, strict=True)],
        [each[order] for each, order in zip(sizes, orders, strict=True)],
        calibration=calibration(),
    )
    assert np.isfinite(found.filled).all()
    assert shuffled.filled == pytest.approx(found.filled, abs=1e-9)
    for right, mixed, order in zip(found.right, shuffled.right, orders, strict=True):
        assert ((right >= 0) & (right <= 1 + 1e-12)).all()
        assert mixed == pytest.approx(right[order], abs=1e-9)
