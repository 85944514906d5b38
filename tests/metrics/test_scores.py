"""Centring error, bootstrap intervals, calibration and the published measures, against numbers made by hand."""

import numpy as np
import pytest

from cryopick.metrics.bootstrap import bootstrap_average_precision, bootstrap_counts
from cryopick.metrics.calibration import calibrate
from cryopick.metrics.detection import Counts, rank_outcomes
from cryopick.metrics.localization import centring_error
from cryopick.metrics.published import (
    BoxCounts,
    PixelCounts,
    box_counts,
    box_scores,
    draw_discs,
    mean_over_sets,
    pixel_counts,
    pixel_mask_scores,
    square_iou,
)

NONE = np.zeros((0, 2))


def test_centring_error_tells_a_common_shift_from_scatter() -> None:
    particles = np.array([[0.0, 0.0], [10.0, 10.0], [30.0, 5.0]])
    shifted = centring_error(particles + np.array([0.5, -0.5]), particles)
    assert (shifted.mean_offset_x_px, shifted.mean_offset_y_px) == (0.5, -0.5)
    assert shifted.median_px == pytest.approx(np.sqrt(0.5))
    assert shifted.standard_error_px == pytest.approx(0)
    assert np.isnan(centring_error(NONE, NONE).median_px)


def test_interval_holds_the_score_and_is_the_same_for_the_same_seed() -> None:
    counts = [Counts(true_positive=t, false_positive=10, false_negative=5) for t in (40, 60, 50, 80, 20)]
    interval = bootstrap_counts(counts, generator=np.random.default_rng(1))
    assert interval == bootstrap_counts(counts, generator=np.random.default_rng(1))
    assert interval.precision.low < 250 / 300 < interval.precision.high
    assert interval.recall.low < 250 / 275 < interval.recall.high


def test_interval_has_no_width_when_all_micrographs_are_alike_and_grows_when_they_differ() -> None:
    alike = bootstrap_counts([Counts(5, 5, 5)] * 6, generator=np.random.default_rng(0))
    assert alike.f1.low == alike.f1.high == pytest.approx(0.5)
    differing = bootstrap_counts([Counts(9, 1, 1), Counts(1, 9, 9)] * 3, generator=np.random.default_rng(0))
    assert differing.f1.high - differing.f1.low > 0.3


def test_interval_has_the_width_that_theory_gives() -> None:
    # Precision of m micrographs with 100 picks each: the standard error of a mean of m numbers.
    generator = np.random.default_rng(2)
    share = generator.uniform(0.4, 0.8, 60)
    counts = [Counts(true_positive=round(100 * s), false_positive=100 - round(100 * s)) for s in share]
    interval = bootstrap_counts(counts, generator=np.random.default_rng(0)).precision
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * share.std() / np.sqrt(60), rel=0.1)


def test_one_micrograph_gives_no_interval() -> None:
    assert np.isnan(bootstrap_counts([Counts(5, 5, 5)], generator=np.random.default_rng(0)).f1.low)


def test_average_precision_interval_holds_the_value() -> None:
    generator = np.random.default_rng(4)
    outcomes = []
    for _ in range(8):
        particles = generator.uniform(0, 500, (20, 2))
        picks = np.concatenate([particles, generator.uniform(0, 500, (20, 2))])
        outcomes.append(rank_outcomes(picks, generator.normal(size=40), particles, NONE, max_distance_px=3))
    interval = bootstrap_average_precision(outcomes, generator=np.random.default_rng(0))
    assert 0.3 < interval.low < interval.high < 0.8


def test_calibration_error_is_the_gap_weighted_by_count() -> None:
    # Bin 0.2-0.3: expected 0.25, observed 0.5, four picks. Bin 0.9-1: expected 0.95, observed 1, two picks.
    calibration = calibrate([0.25] * 4 + [0.9, 1.0], [1, 1, 0, 0, 1, 1])
    assert calibration.expected_calibration_error == pytest.approx((4 * 0.25 + 2 * 0.05) / 6)
    assert calibration.expected_precision == pytest.approx((1 + 1.9) / 6)
    assert calibration.observed_precision == pytest.approx(4 / 6)
    assert list(calibration.count) == [0, 0, 4, 0, 0, 0, 0, 0, 0, 2]
    assert calibration.brier == pytest.approx((2 * 0.75**2 + 2 * 0.25**2 + 0.1**2) / 6)


def test_true_probabilities_have_a_small_calibration_error_and_squared_ones_a_large_one() -> None:
    generator = np.random.default_rng(0)
    probability = generator.uniform(size=20000)
    is_true = generator.uniform(size=20000) < probability
    assert calibrate(probability, is_true).expected_calibration_error < 0.02
    assert calibrate(probability**2, is_true).expected_calibration_error > 0.1


@pytest.mark.parametrize("score", [[1.2], [-0.1], [np.nan]])
def test_scores_that_cannot_be_probabilities_are_refused(score: list[float]) -> None:
    with pytest.raises(ValueError, match="not probabilities"):
        calibrate(score, [1])


def test_disc_has_the_pixels_of_its_radius_and_is_cut_at_the_border() -> None:
    centres = [(3, 2), (9, 0), (-2, 4), (0, -1), (7, 7), (-50, 2), (4, 90)]
    mask = draw_discs(np.array(centres, dtype=float), diameter_px=5, shape_yx=(6, 10))
    expected = np.zeros((6, 10), dtype=bool)
    for y in range(6):
        for x in range(10):
            expected[y, x] = any((x - cx) ** 2 + (y - cy) ** 2 <= 4 for cx, cy in centres)
    np.testing.assert_array_equal(mask, expected)


def test_pixel_measures_of_half_overlapping_masks() -> None:
    counts = pixel_counts(
        np.array([[20.0, 20.0], [60.0, 20.0]]), np.array([[20.0, 20.0]]), diameter_px=20, shape_yx=(40, 80)
    )
    assert counts.precision == pytest.approx(0.5, abs=1e-5)
    assert counts.recall == pytest.approx(1)
    assert counts.dice == pytest.approx(2 / 3, abs=1e-5)


def test_pixel_aggregates_count_empty_micrographs_in_the_mean_and_maximum_flatters() -> None:
    scores = pixel_mask_scores([PixelCounts(both=100), PixelCounts(only_true=100)])
    assert scores.mean.recall == pytest.approx(0.5, abs=1e-4)
    assert scores.pooled.recall == pytest.approx(0.5, abs=1e-4)
    assert scores.maximum.recall == 1
    assert scores.pooled.f1 == pytest.approx(scores.pooled.dice, abs=1e-4)


def test_a_quarter_side_along_one_axis_is_iou_six_tenths() -> None:
    first = np.zeros((3, 2))
    second = np.array([[25.0, 0.0], [100.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(square_iou(first, second, side_px=100), [0.6, 0, 1])
    assert box_counts(first[:1], np.array([[24.9, 0.0]]), side_px=100).paired == 1
    assert box_counts(first[:1], np.array([[25.1, 0.0]]), side_px=100).paired == 0


def test_one_pick_between_two_labels_serves_one_of_them_but_both_in_the_released_measure() -> None:
    counts = box_counts(np.array([[10.0, 0.0]]), np.array([[0.0, 0.0], [20.0, 0.0]]), side_px=100)
    ours, released = box_scores([counts])
    assert (ours.precision, ours.recall) == (1, 0.5)
    assert (released.precision, released.recall) == (2, 1)
    assert not released.is_one_to_one


def test_box_measures_count_micrographs_without_picks() -> None:
    ours, released = box_scores([BoxCounts(1, 1, 1, 1, 1.0), box_counts(NONE, np.zeros((1, 2)), side_px=9)])
    assert (ours.recall, released.recall, ours.mean_iou) == (0.5, 0.5, 0.5)


def test_f3_counts_recall_nine_times_and_rounds_first() -> None:
    _, released = box_scores([BoxCounts(picks=3000, labels=1000, paired=0, nearest_hits=500)])
    precision, recall = 0.167, 0.5  # 1 / 6 to three decimals
    assert released.f3 == pytest.approx(10 * precision * recall / (9 * precision + recall))
    assert box_scores([BoxCounts(picks=0, labels=4)])[1].f3 == 0.0
    assert np.isnan(box_scores([BoxCounts()])[1].f3)


def test_the_mean_over_sets_gives_each_set_the_same_weight() -> None:
    small, large = (
        box_scores([counts])[1] for counts in (BoxCounts(2, 2, 2, 2, 1.8), BoxCounts(1000, 1000, 400, 400, 500.0))
    )
    mean = mean_over_sets([small, large])
    assert (mean.precision, mean.recall, mean.f1) == pytest.approx((0.7, 0.7, 0.7))
    assert mean.mean_iou == pytest.approx(0.7)
    without_labels = box_scores([BoxCounts(picks=5)])[1]
    assert mean_over_sets([small, without_labels]).recall == 1.0
    with pytest.raises(ValueError, match="one kind"):
        mean_over_sets([small, box_scores([BoxCounts(1, 1)])[0]])
