"""Pixel scores against a matrix worked out by hand, and the mix-ups that names invite."""

import numpy as np
import pytest

from cryopick.metrics.segmentation import ConfusionMatrix


def test_scores_of_a_small_matrix_are_those_worked_out_by_hand():
    matrix = ConfusionMatrix(np.array([[90, 10], [20, 80]]))  # rows: truth
    assert matrix.accuracy == pytest.approx(170 / 200)
    assert matrix.recall[1] == pytest.approx(0.800)
    assert matrix.precision[1] == pytest.approx(0.889, abs=5e-4)
    assert matrix.iou[1] == pytest.approx(0.727, abs=5e-4)
    assert matrix.f1[1] == pytest.approx(0.842, abs=5e-4)
    assert matrix.mean_iou == pytest.approx((90 / 120 + 80 / 110) / 2)


def test_missing_pixels_lower_recall_and_extra_pixels_lower_precision():
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    missed = ConfusionMatrix.of(truth, [1, 1, 0, 0, 0, 0, 0, 0], classes=2)
    assert (missed.recall[1], missed.precision[1]) == (0.5, 1.0)
    extra = ConfusionMatrix.of(truth, [1, 1, 1, 1, 1, 1, 1, 1], classes=2)
    assert (extra.recall[1], extra.precision[1]) == (1.0, 0.5)


def test_rows_are_the_truth_and_sums_pool_images():
    one = ConfusionMatrix.of([[0, 2]], [[1, 2]], classes=3)
    assert one.counts.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert (ConfusionMatrix.empty(3) + one + one).counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 2]]


def test_a_class_that_neither_occurs_nor_is_found_has_no_score_and_no_part_in_the_mean():
    matrix = ConfusionMatrix.of([0, 0, 1], [0, 1, 1], classes=3)
    assert np.isnan(matrix.iou[2])
    assert matrix.mean_iou == pytest.approx(0.5)


def test_iou_follows_from_precision_and_recall():
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix.of(rng.integers(0, 3, 500), rng.integers(0, 3, 500), classes=3)
    np.testing.assert_allclose(matrix.iou, 1 / (1 / matrix.precision + 1 / matrix.recall - 1))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="shape"):
        ConfusionMatrix.of([0, 1], [0], classes=2)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        ConfusionMatrix.of([0, 2], [0, 1], classes=2)
