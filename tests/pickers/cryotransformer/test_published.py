"""From answers to picks: what the published program does, and what it should do."""

import numpy as np
import pytest

from cryopick.pickers.cryotransformer.detr_model import Answers, network_size
from cryopick.pickers.cryotransformer.published import (
    above_percentile,
    corners_of,
    published_centres,
    published_picks,
    published_selection,
    suppress_overlapping,
)


def shuffled_answers(count=600, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([np.arange(count) / count, np.full(count, 0.5), np.full((count, 2), 0.01)])
    return Answers(rng.normal(size=(count, 2)) * 2, boxes)


def test_the_published_program_keeps_the_first_450_of_600_queries_whatever_they_say():
    for seed in range(3):
        answers = shuffled_answers(seed=seed)
        boxes, score = published_selection(answers)
        np.testing.assert_array_equal(boxes, answers.boxes[:450])
        assert (np.diff(score) <= 0).all()


def test_the_corrected_rule_keeps_the_answers_with_the_best_scores_of_their_own():
    answers = shuffled_answers()
    kept = above_percentile(answers.probability)
    assert kept.sum() == 450
    assert answers.probability[kept].min() > answers.probability[~kept].max()
    assert kept[450:].any()


def test_the_published_scores_belong_to_other_queries():
    answers = shuffled_answers()
    _, score = published_selection(answers)
    assert not np.allclose(score, 1 / (1 + np.exp(-answers.logits[:450, 0])))


def test_with_all_scores_equal_the_published_program_keeps_none_and_the_corrected_rule_all():
    answers = Answers(np.zeros((600, 2)), np.full((600, 4), 0.5))
    assert len(published_selection(answers)[0]) == 0
    assert above_percentile(answers.probability).all()


def test_a_micrograph_without_answers_keeps_none():
    assert above_percentile(np.zeros(0)).shape == (0,)


def test_the_probability_is_the_softmax_of_the_class_particle():
    logits = np.array([[2.0, 0.0], [0.0, 0.0], [-1.0, 3.0]])
    expected = np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(Answers(logits, np.zeros((3, 4))).probability, expected)


def test_published_centres_lose_half_a_pixel_and_count_y_from_the_height():
    boxes = np.array([[0.5, 0.25, 0.05, 0.05]])
    np.testing.assert_allclose(published_centres(boxes, shape_yx=(4096, 4096)), [[2047.5, 3072.5]])


def test_suppression_keeps_the_better_of_two_squares_18_percent_apart_and_both_further_apart():
    def squares(share):
        return np.array([[0, 0, 999, 999], [1000 * share, 0, 999 + 1000 * share, 999]], np.float64)

    assert list(suppress_overlapping(squares(0.17), np.array([0.2, 0.9]))) == [1]
    assert sorted(suppress_overlapping(squares(0.18), np.array([0.2, 0.9]))) == [0, 1]


def test_published_picks_are_as_many_as_survive_the_suppression():
    answers = Answers(np.column_stack([np.arange(8.0), np.zeros(8)]), np.tile([[0.5, 0.5, 0.1, 0.1]], (8, 1)))
    xy_px, side_px, score = published_picks(answers, shape_yx=(1000, 2000))
    assert xy_px.shape == (1, 2)
    assert side_px[0] == pytest.approx((200 + 100) / 2)
    assert score[0] == pytest.approx(1 / (1 + np.exp(-7.0)))


def test_corners_of_a_box():
    np.testing.assert_allclose(corners_of(np.array([[0.5, 0.4, 0.2, 0.1]])), [[0.4, 0.35, 0.6, 0.45]])


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (4096, 4096, (800, 800)),
        (3838, 3710, (827, 800)),
        (7676, 7420, (827, 800)),
        (3710, 3838, (800, 827)),
        (5760, 4092, (1126, 800)),
    ],
)
def test_micrographs_are_resized_as_the_specification_lists(width, height, expected):
    assert network_size((height, width))[::-1] == expected
