"""The published parts: configurations, balanced training set, score map, suppression, measures of the tables."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cryopick.data.labels import Labels
from cryopick.errors import SettingsError, TrainingError
from cryopick.metrics.detection import Counts
from cryopick.pickers.configurations import configurations_of
from cryopick.pickers.deepcryopicker.measures import accuracy, score_views
from cryopick.pickers.deepcryopicker.network import AlexNetClassifier
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, SIDE, TOP, find_components
from cryopick.pickers.deepcryopicker.published import (
    BalancedSet,
    PartOfSet,
    as_preprocessed,
    find_published,
    without_large_regions,
)
from cryopick.pickers.deepcryopicker.shapes import feret_diameters, without_overlap
from cryopick.pickers.deepcryopicker.training import PRESETS, DeepCryoPickerTask, views_of
from cryopick.pickers.deepcryopicker.windows import BACKGROUND, BAD, ExampleImage, ExampleWindows
from cryopick.pickers.registry import make_picker, picker_class
from cryopick.runs.settings import make_settings
from cryopick.types import Picks


def examples(*, tops=10, sides=10, bad=10):
    """Dots of another depth for each class on a flat image, 30 px apart."""
    pixels = np.zeros((330, 330), np.float32)
    kinds = np.array([TOP] * tops + [SIDE] * sides + [BAD] * bad)
    places = np.array([(20 + 30 * (i % 10), 20 + 30 * (i // 10)) for i in range(len(kinds))], np.float64)
    for (x, y), kind in zip(places.astype(int), kinds, strict=True):
        pixels[y, x] = -float(kind)
    image = ExampleImage(pixels, places, kinds)
    return ExampleWindows([image], diameter_px=10.0, window_px=11, has_bad_class=True)


@pytest.mark.parametrize("name", ["autocryopicker", "supercryopicker", "deepcryopicker"])
@pytest.mark.parametrize("configuration", ["article", "program"])
def test_one_word_sets_what_is_published_and_claims_no_precision(name, configuration):
    settings = make_settings(name, as_=configuration)
    assert settings.selection.as_found
    assert settings.picker.preprocessing == "published"
    assert not settings.picker.has_calibrated_scores
    assert configurations_of(picker_class(name))[configuration].departs


def test_article_of_the_network_is_what_the_paper_says_in_pick_and_in_train():
    picker = make_settings("deepcryopicker", as_="article").picker
    task, training = PRESETS["article"].task, PRESETS["article"].training
    for given in (picker, task):
        assert (given.network, given.activation, given.initial, given.label_smoothing, given.per_class) == (
            "paper", "sigmoid", "uniform", 0.0, 1500
        )  # fmt: skip
    assert (picker.optimizer, picker.learning_rate) == (training.optimizer, training.learning_rate) == ("sgd", 1e-4)
    with pytest.raises(SettingsError, match="activation"):
        make_picker("deepcryopicker", activation="sigmoid")  # the compact network has none to choose


def test_uniform_start_is_from_0_to_1():
    network = AlexNetClassifier(classes=4, activation="sigmoid", initial="uniform")
    first = network.features.conv1.weight.detach()
    assert 0 <= float(first.min()) < 0.01
    assert 0.99 < float(first.max()) <= 1


def test_balanced_set_has_as_many_of_every_class_enlarged_by_rotations_and_split_as_published(caplog):
    balanced = BalancedSet(examples(), per_class=25)
    assert [balanced.size(part) for part in ("train", "validation", "test")] == [4 * 16, 4 * 4, 4 * 5]
    rng = np.random.default_rng(0)
    windows, kinds = balanced.draw(400, rng, is_augmented=False)
    assert set(kinds.tolist()) == {BACKGROUND, TOP, SIDE, BAD}
    np.testing.assert_array_equal(windows[:, 0, 5, 5], -kinds.astype(np.float32))
    with caplog.at_level(logging.WARNING):
        fewer = BalancedSet(examples(sides=3), per_class=25)
    assert fewer.per_class == 12
    assert "'side view' has 3 examples" in caplog.text
    with pytest.raises(TrainingError, match="no example of a particle"):
        BalancedSet(examples(tops=0, sides=0), per_class=5)


@pytest.mark.parametrize(
    ("has_bad", "has_background", "classes"),
    [(True, True, {0, 1, 2, 4}), (True, False, {1, 2, 4}), (False, True, {0, 1, 2}), (False, False, {1, 2})],
)
def test_training_sets_of_the_papers_experiments(has_bad, has_background, classes):
    windows = examples()
    windows.has_bad_class = has_bad
    part = PartOfSet(BalancedSet(windows, per_class=20, has_background=has_background), "validation")
    assert set(part.draw(300, np.random.default_rng(0))[1].tolist()) == classes


def test_classes_without_background_need_the_balanced_set():
    DeepCryoPickerTask(classes=3, training_set="balanced")
    assert DeepCryoPickerTask(has_background=False, training_set="balanced").has_bad_class
    with pytest.raises(SettingsError, match="balanced"):
        DeepCryoPickerTask(classes=3)
    with pytest.raises(SettingsError, match="has_background"):
        DeepCryoPickerTask(classes=5, has_background=False)


def test_preprocessed_versions_keep_mean_and_spread_and_differ():
    rng = np.random.default_rng(0)
    window = rng.normal(2.0, 3.0, (37, 37)).astype(np.float32)
    for _ in range(12):
        changed = as_preprocessed(window, rng)
        assert changed.mean() == pytest.approx(window.mean(), abs=1e-3)
        assert changed.std() == pytest.approx(window.std(), rel=1e-3)
        assert np.isfinite(changed).all()


def test_of_boxes_of_one_class_the_best_is_kept_and_other_classes_stand_beside_it():
    probability = np.zeros((3, 40, 40))
    probability[TOP - 1, 10, 10], probability[TOP - 1, 10, 13] = 0.9, 0.8  # IoU 0.54
    probability[TOP - 1, 30, 30] = 0.7
    probability[SIDE - 1, 11, 10] = 0.95
    found = find_published(probability, diameter=8.0, box=10.0)
    assert [(x, y, view) for (x, y), view in zip(found.xy_px.tolist(), found.view.tolist(), strict=True)] == [
        (10, 11, SIDE), (10, 10, TOP), (30, 30, TOP)
    ]  # fmt: skip


def test_linked_places_of_close_scores_are_removed_where_they_are_large():
    plane = np.zeros((40, 40))
    plane[5:35, 5:35] = 0.9
    assert without_large_regions(plane, diameter=8.0).max() == 0
    plane[5:35:2] = 0.6  # neighbouring rows are no longer close, so rows are regions of 30 places
    assert without_large_regions(plane, diameter=8.0).max() == 0.9


def test_feret_diameters_of_a_square_are_its_diagonal_and_its_side():
    assert feret_diameters(np.ones((20, 20), bool)) == pytest.approx((20 * 2**0.5, 20))


def test_rectangles_that_overlap_are_both_left_out():
    extent = np.array([[10.0, 10, 0], [10, 10, 45], [10, 10, 0]])
    np.testing.assert_array_equal(
        without_overlap(np.array([[10.0, 10], [21.0, 10], [40.0, 40]]), extent), [False, False, True]
    )
    np.testing.assert_array_equal(without_overlap(np.array([[10.0, 10], [21.0, 10]]), extent[[0, 0]]), [True, True])


def test_components_drop_the_smallest_share_and_are_centred_on_their_boxes():
    mask = np.zeros((60, 60), bool)
    mask[5:15, 5:15] = mask[5:15, 30:40] = mask[30:45, 10:25] = True
    mask[50:54, 50:54] = True
    found = find_components(mask)
    assert len(found.xy_px) == 3
    assert [9.5, 9.5] in found.xy_px.tolist()


def test_given_views_are_kept_and_classes_that_are_no_views_are_refused():
    labels = Labels(np.zeros((3, 2)), np.array([False, False, True]), 20.0, "m", class_id=np.array([0, 2, 1], np.int32))
    np.testing.assert_array_equal(views_of(labels), [IRREGULAR, SIDE, TOP])
    wrong = Labels(np.zeros((1, 2)), np.zeros(1, bool), 20.0, "m", class_id=np.array([9], np.int32))
    with pytest.raises(TrainingError, match="labels of class 9"):
        views_of(wrong)


def test_accuracy_is_equation_3_and_views_are_scored_each_for_itself():
    assert accuracy(Counts(true_positive=6, false_positive=2, false_negative=2)) == 0.6
    assert np.isnan(accuracy(Counts()))
    picks = Picks(
        xy_px=np.array([[10.0, 10], [50.0, 10], [90.0, 90]]),
        score=np.array([0.9, 0.8, 0.7], np.float32),
        class_id=np.array([TOP, TOP, SIDE], np.int32),
        micrograph_name="m",
    )
    true, view = np.array([[10.0, 11], [50.0, 11]]), np.array([TOP, SIDE])
    result = score_views([picks], [picks], [true], [view], max_distance_px=5)
    assert (result.view_right, result.pairs) == (1, 2)
    assert result.all_views.counts.precision == pytest.approx(2 / 3)
    assert set(result.by_view) == {"top view", "side view"}
    assert result.by_view["side view"].counts.true_positive == 0
    assert result.by_view["top view"].accuracy == 0.5
