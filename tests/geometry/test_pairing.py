"""One-to-one assignment, checked against SciPy on full matrices, brute force and hand-made cases."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryopick.geometry.pairing import UNPAIRED, Candidates, candidates_within, pair_one_by_one, pair_points


def points(seed: int, count: int, size: float = 10.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, size, (count, 2))


def brute_force(first: np.ndarray, second: np.ndarray, max_distance: float) -> tuple[int, float]:
    """(most pairs, smallest total distance for that many) over every possible assignment."""
    if len(first) > len(second):
        first, second = second, first
    best = (0, 0.0)
    for order in permutations(range(len(second)), len(first)):
        distance = np.hypot(*(first - second[list(order)]).T)
        distance = distance[distance <= max_distance]
        best = max(best, (len(distance), -float(distance.sum())))
    return best[0], -best[1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 5), m=st.integers(0, 5), max_distance=st.floats(0, 12))
def test_pairs_are_the_most_and_then_the_nearest(seed: int, n: int, m: int, max_distance: float) -> None:
    first, second = points(seed, n), points(seed + 1, m)
    pairs = pair_points(first, second, max_distance=max_distance)
    count, total = brute_force(first, second, max_distance)
    assert len(pairs) == count
    assert pairs.cost.sum() == pytest.approx(total)
    assert len(set(pairs.first)) == len(set(pairs.second)) == len(pairs)


def test_two_pairs_win_over_one_nearer_pair() -> None:
    # Greedy would take 1-0 (distance 0.5) and leave pick 0 alone.
    picks = np.array([[0.0, 0.0], [1.5, 0.0]])
    labels = np.array([[1.0, 0.0], [2.9, 0.0]])
    pairs = pair_points(picks, labels, max_distance=1.4)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(0, 0), (1, 1)]


def test_a_pair_at_exactly_the_limit_counts_and_just_beyond_does_not() -> None:
    assert len(pair_points(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), max_distance=5.0)) == 1
    assert len(pair_points(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), max_distance=4.999)) == 0


def test_coincident_points_pair_at_distance_zero() -> None:
    same = np.array([[2.0, 2.0], [2.0, 2.0], [7.0, 7.0]])
    pairs = pair_points(same, same, max_distance=0.0)
    assert len(pairs) == 3
    assert pairs.cost.sum() == 0


def test_negative_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="max_distance"):
        candidates_within(np.zeros((1, 2)), np.zeros((1, 2)), max_distance=-1)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 12), m=st.integers(0, 10), max_distance=st.floats(0.1, 9))
def test_adding_one_by_one_equals_assigning_every_prefix_alone(seed: int, n: int, m: int, max_distance: float) -> None:
    first, second = points(seed, n), points(seed + 1, m)
    unpaired: set[int] = set()
    for i, dropped in enumerate(pair_one_by_one(candidates_within(first, second, max_distance=max_distance))):
        if dropped != UNPAIRED:
            unpaired.add(dropped)
        alone = pair_points(first[: i + 1], second, max_distance=max_distance)
        assert set(range(i + 1)) - set(alone.first) == unpaired


def test_a_nearer_newcomer_displaces_the_pick_that_held_the_label() -> None:
    picks = np.array([[2.0, 0.0], [0.5, 0.0]])
    dropped = list(pair_one_by_one(candidates_within(picks, np.array([[0.0, 0.0]]), max_distance=3)))
    assert dropped == [UNPAIRED, 0]


def test_two_thousand_against_two_thousand_within_seconds() -> None:
    first, second = points(0, 2000, 4096), points(1, 2000, 4096)
    candidates = candidates_within(first, second, max_distance=100)
    grown = sum(dropped == UNPAIRED for dropped in pair_one_by_one(candidates))
    assert grown == len(pair_points(first, second, max_distance=100))


def test_no_candidates_no_pairs() -> None:
    nothing = Candidates(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), 3, 0)
    assert list(pair_one_by_one(nothing)) == [0, 1, 2]
