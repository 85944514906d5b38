"""Selection: every rejection has its reason, and nothing depends on order or on when the threshold is applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryopick.errors import SettingsError
from cryopick.geometry.selection import (
    AT_EDGE,
    BELOW_THRESHOLD,
    IN_EXCLUSION_MASK,
    MIN_DISTANCE_FRACTION,
    ON_JUNK,
    OVER_COUNT_LIMIT,
    REASONS,
    TOO_CLOSE,
    SelectionSettings,
    select,
    stand_apart,
    stand_best_first,
)
from cryopick.geometry.units import Length
from cryopick.types import Picks


def picks_at(xy_px, score, **columns):
    return Picks(xy_px=np.array(xy_px, float), score=score, **{"shape_yx": (100, 200), **columns})


def px(length):
    return Length(length, length, "px")


def reasons(picks, threshold=0.0, mask=None, **chosen):
    return list(select(picks, SelectionSettings(**chosen), threshold=threshold, exclusion_mask=mask).reason)


def test_a_score_below_the_threshold_is_rejected_and_one_at_it_is_kept():
    picks = picks_at([[10, 10], [50, 50], [90, 90]], [0.4, 0.5, 0.6])
    assert reasons(picks, threshold=0.5) == [BELOW_THRESHOLD, "", ""]


def test_of_three_in_a_row_the_best_pushes_out_its_neighbours_only():
    # gaps of 8: the middle one is best and silences both ends; the far one stands alone
    picks = picks_at([[10, 10], [18, 10], [26, 10], [60, 10]], [0.5, 0.9, 0.6, 0.1])
    assert reasons(picks, min_distance=px(10)) == [TOO_CLOSE, "", TOO_CLOSE, ""]


def test_a_rejected_neighbour_pushes_nobody_out():
    # the best silences the second, so the third, near the second only, stays
    picks = picks_at([[10, 10], [18, 10], [26, 10]], [0.9, 0.8, 0.7])
    assert reasons(picks, min_distance=px(10)) == ["", TOO_CLOSE, ""]


def test_picks_exactly_at_the_minimum_distance_are_both_kept():
    assert reasons(picks_at([[10, 10], [20, 10]], [0.9, 0.8]), min_distance=px(10)) == ["", ""]


def test_the_default_distance_is_a_fraction_of_the_diameter():
    gap = MIN_DISTANCE_FRACTION * 40
    near = picks_at([[10, 10], [10 + gap - 0.1, 10]], [0.9, 0.8], diameter_px=[40, 40])
    far = picks_at([[10, 10], [10 + gap + 0.1, 10]], [0.9, 0.8], diameter_px=[40, 40])
    assert reasons(near) == ["", TOO_CLOSE]
    assert reasons(far) == ["", ""]


def test_without_a_diameter_or_a_distance_nothing_is_too_close():
    assert reasons(picks_at([[10, 10], [10, 10]], [0.9, 0.8])) == ["", ""]


def test_two_sizes_keep_the_mean_of_their_distances():
    gap = MIN_DISTANCE_FRACTION * (40 + 20) / 2
    picks = picks_at([[10, 10], [10 + gap - 0.1, 10], [10, 10 + gap + 0.1]], [0.9, 0.8, 0.7], diameter_px=[40, 20, 20])
    assert reasons(picks) == ["", TOO_CLOSE, ""]


def test_the_edge_is_that_of_the_outer_pixels_not_of_their_centres():
    # a 200 x 100 image covers x from -0.5 to 199.5 and y from -0.5 to 99.5
    picks = picks_at([[9.4, 50], [9.6, 50], [189.4, 50], [189.6, 50], [50, 89.6]], [1, 1, 1, 1, 1])
    assert reasons(picks, edge_margin=px(10)) == [AT_EDGE, "", "", AT_EDGE, AT_EDGE]


def test_centres_outside_the_image_are_rejected_even_without_a_margin():
    assert reasons(picks_at([[-0.6, 5], [199.4, 5], [50, 99.6]], [1, 1, 1])) == [AT_EDGE, "", AT_EDGE]


def test_an_angstrom_margin_uses_the_pixel_size():
    picks = picks_at([[9, 50], [12, 50]], [1, 1], pixel_size_angstrom=2.0)
    assert reasons(picks, edge_margin=Length(20, 20, "A")) == [
        AT_EDGE,
        "",
    ]
    with pytest.raises(SettingsError, match="pixel size"):
        reasons(replace(picks, pixel_size_angstrom=None), edge_margin=Length(20, 20, "A"))


def test_a_coarse_mask_covers_the_whole_micrograph():
    # 200 x 100 pixels under a mask of 4 x 2 cells of 50 pixels; the second cell of the first row is excluded
    mask = np.array([[False, True, False, False], [False, False, False, False]])
    picks = picks_at([[48, 25], [50, 25], [98, 48], [98, 51], [101, 25]], [1, 1, 1, 1, 1])
    assert reasons(picks, mask=mask) == ["", IN_EXCLUSION_MASK, IN_EXCLUSION_MASK, "", ""]


@pytest.mark.parametrize("mask_shape", [(100, 200), (100, 100)])
def test_the_distance_to_the_mask_is_in_micrograph_pixels(mask_shape):
    mask = np.zeros(mask_shape, bool)
    mask[:, : mask_shape[1] // 2] = True  # the left half: x below 100
    picks = picks_at([[50, 50], [105, 50], [112, 50]], [1, 1, 1])
    expected = [IN_EXCLUSION_MASK, IN_EXCLUSION_MASK, ""]
    assert reasons(picks, mask=mask, exclusion_distance=px(10)) == expected


def test_masked_and_edge_candidates_push_nobody_out():
    mask = np.zeros((100, 200), bool)
    mask[:, :50] = True
    picks = picks_at([[49, 50], [52, 50], [120, 2], [120, 8]], [0.9, 0.5, 0.9, 0.5])
    found = reasons(picks, mask=mask, min_distance=px(20), edge_margin=px(5))
    assert found == [IN_EXCLUSION_MASK, "", AT_EDGE, ""]


def test_the_count_limit_keeps_the_best():
    picks = picks_at([[10, 10], [50, 50], [90, 90]], [0.4, 0.6, 0.5])
    assert reasons(picks, max_count=2) == [OVER_COUNT_LIMIT, "", ""]


def test_candidates_without_a_score_pass_only_an_open_threshold():
    picks = picks_at([[10, 10], [50, 50]], [np.nan, 0.2])
    assert reasons(picks, threshold=-np.inf) == ["", ""]
    assert reasons(picks, threshold=-100.0) == [BELOW_THRESHOLD, ""]


def test_earlier_reasons_are_forgotten():
    assert reasons(picks_at([[10, 10]], [0.5], reason=["edge"]), threshold=0.1) == [""]


def test_no_candidates_give_no_reasons():
    assert reasons(picks_at(np.zeros((0, 2)), [])) == []


def test_a_mask_without_the_size_of_the_micrograph_is_refused():
    with pytest.raises(SettingsError, match="size of the micrograph"):
        reasons(picks_at([[1, 1]], [1], shape_yx=None), mask=np.ones((4, 4), bool))


@pytest.mark.parametrize(
    "wrong",
    [{"max_count": 0}, {"threshold": float("nan")}, {"min_distance": Length(1, 2, "A")}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        SelectionSettings(**wrong)


coordinate = st.floats(-5, 105)
candidates = st.lists(st.tuples(coordinate, coordinate, st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.integers(5, 30)))


def from_rows(rows):
    table = np.array(rows, float).reshape(-1, 4)
    return Picks(xy_px=table[:, :2], score=table[:, 2], diameter_px=table[:, 3], shape_yx=(100, 100))


def brute_force_kept(rows, threshold, margin, max_count):
    """The rule in words, one candidate at a time."""
    kept = []
    for x, y, score, diameter in sorted(rows, key=lambda r: (-np.float32(r[2]), r[1], r[0])):
        if not (margin <= x + 0.5 <= 100 - margin and margin <= y + 0.5 <= 100 - margin):
            continue
        if np.float32(score) < threshold:
            continue
        if all(np.hypot(x - kx, y - ky) >= MIN_DISTANCE_FRACTION * (diameter + kd) / 2 for kx, ky, kd in kept):
            kept.append((x, y, diameter))
    return sorted(kept[:max_count])


@settings(max_examples=150, deadline=None)
@given(rows=candidates, threshold=st.sampled_from([0.0, 0.2, 0.4, 0.6]), max_count=st.integers(1, 12))
def test_kept_picks_equal_those_of_a_brute_force_greedy_search(rows, threshold, max_count):
    rows = list({(x, y): (x, y, score, diameter) for x, y, score, diameter in rows}.values())
    chosen = SelectionSettings(edge_margin=px(3), max_count=max_count)
    kept = select(from_rows(rows), chosen, threshold=threshold).kept()
    expected = brute_force_kept(rows, threshold, 3, max_count)
    found = sorted(zip(*kept.xy_px.T, kept.diameter_px, strict=True))
    np.testing.assert_allclose(np.reshape(found, (-1, 3)), np.reshape(expected, (-1, 3)))


@settings(max_examples=100, deadline=None)
@given(rows=candidates, order=st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(rows, order):
    rows = list({(x, y): (x, y, score, diameter) for x, y, score, diameter in rows}.values())
    shuffled = list(rows)
    order.shuffle(shuffled)
    chosen = SelectionSettings(max_count=5)
    one = select(from_rows(rows), chosen, threshold=0.2)
    other = select(from_rows(shuffled), chosen, threshold=0.2)
    pairs = [sorted(zip(*p.xy_px.T, p.reason, strict=True)) for p in (one, other)]
    assert pairs[0] == pairs[1]


@settings(max_examples=100, deadline=None)
@given(rows=candidates, low=st.sampled_from([-np.inf, 0.0, 0.2]), high=st.sampled_from([0.2, 0.4, 0.6]))
def test_a_second_threshold_on_stored_candidates_equals_a_fresh_run(rows, low, high):
    chosen = SelectionSettings(max_count=6)
    candidates_ = from_rows(rows)
    fresh = select(candidates_, chosen, threshold=high)
    again = select(select(candidates_, chosen, threshold=low), chosen, threshold=high)
    np.testing.assert_array_equal(fresh.reason, again.reason)
    # and, because the threshold is tested last, it only ever swaps "kept" for "below threshold"
    stored = select(candidates_, chosen, threshold=low)
    changed = stored.reason != fresh.reason
    assert set(stored.reason[changed]) <= {""}
    assert set(fresh.reason[changed]) <= {BELOW_THRESHOLD}
    assert set(fresh.reason) <= {"", *REASONS}


def test_junk_has_a_reason_of_its_own_and_lets_worse_neighbours_stand():
    picks = Picks(
        xy_px=np.array([[5.0, 5.0], [14.0, 12.0], [80.0, 80.0]]),
        score=np.array([0.9, 0.8, 0.7]),
        diameter_px=np.full(3, 20.0),
        shape_yx=(100, 100),
    )
    junk = np.zeros((10, 10), bool)
    junk[0, 0] = True  # pixels 0 to 9 in x and y
    assert select(picks, SelectionSettings(), threshold=0.0, junk_mask=junk).reason.tolist() == [ON_JUNK, "", ""]
    assert select(picks, SelectionSettings(), threshold=0.0).reason.tolist() == ["", TOO_CLOSE, ""]


def test_whatever_stands_fells_its_worse_neighbours_and_the_fallen_fell_nobody() -> None:
    rng = np.random.default_rng(4)
    xy_px, reach_px = rng.uniform(0, 100, (200, 2)), rng.uniform(2, 12, 200)
    stands = np.ones(200, bool)
    for better in range(200):
        for worse in range(better + 1, 200):
            if stands[better] and np.hypot(*(xy_px[better] - xy_px[worse])) < reach_px[better]:
                stands[worse] = False
    found = stand_apart(xy_px, lambda better, _: reach_px[better], reach_px=12.0)
    np.testing.assert_array_equal(found, stands)
    np.testing.assert_array_equal(stand_best_first(3, np.array([[1, 2], [0, 1]])), [True, False, True])
