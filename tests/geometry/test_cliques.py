"""Consensus groups: what is chosen is the heaviest choice there is, none holds a point twice."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.geometry.cliques import ABSENT, Groups, box_overlap, group_points

Sets = list[NDArray[np.float64]]


def random_sets(rng: np.random.Generator, *, sets: int, most: int, width: float) -> tuple[Sets, Sets, Sets]:
    counts = rng.integers(0, most + 1, sets)
    xy = [rng.uniform(0, width, (count, 2)) for count in counts]
    confidence = [rng.uniform(0.05, 1.0, count) for count in counts]
    side = [rng.uniform(8, 12, count) for count in counts]
    return xy, confidence, side


def overlap_by_area(a: NDArray[np.float64], side_a: float, b: NDArray[np.float64], side_b: float) -> float:
    """From the corners of both squares."""
    low = np.maximum(a - side_a / 2, b - side_b / 2)
    high = np.minimum(a + side_a / 2, b + side_b / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (side_a**2 + side_b**2 - shared)


def heaviest_by_brute_force(xy: Sets, confidence: Sets, side: Sets, *, smallest: int, minimum: float) -> float:
    """Total weight of the best of all choices of cliques, all of them tried."""
    cliques: list[tuple[frozenset[tuple[int, int]], float]] = []
    for members in product(*[[ABSENT, *range(len(one))] for one in xy]):
        points = [(which, index) for which, index in enumerate(members) if index != ABSENT]
        if len(points) < max(2, smallest):
            continue
        overlaps = [
            overlap_by_area(xy[a][i], side[a][i], xy[b][j], side[b][j]) for (a, i), (b, j) in combinations(points, 2)
        ]
        if min(overlaps) > minimum:
            mean_confidence = float(np.mean([confidence[which][index] for which, index in points]))
            cliques.append((frozenset(points), sum(overlaps) * mean_confidence))

    def best(rest: list[tuple[frozenset[tuple[int, int]], float]]) -> float:
        if not rest:
            return 0.0
        points, weight = rest[0]
        without = best(rest[1:])
        return max(without, weight + best([one for one in rest[1:] if not (one[0] & points)]))

    return best(cliques)


def weight_of(groups: Groups, xy: Sets, confidence: Sets, side: Sets) -> float:
    """Of the chosen groups, reckoned anew from their members."""
    total = 0.0
    for members in groups.members:
        points = [(which, index) for which, index in enumerate(members) if index != ABSENT]
        overlaps = [
            overlap_by_area(xy[a][i], side[a][i], xy[b][j], side[b][j]) for (a, i), (b, j) in combinations(points, 2)
        ]
        total += sum(overlaps) * float(np.mean([confidence[which][index] for which, index in points]))
    return total


@pytest.mark.parametrize("smallest", [1, 2, 3])
def test_the_choice_is_the_heaviest_of_all(smallest: int) -> None:
    rng = np.random.default_rng(smallest)
    chosen = 0
    for _ in range(334):
        xy, confidence, side = random_sets(rng, sets=3, most=3, width=12)
        groups = group_points(xy, confidence, side, smallest=smallest, minimum_overlap=0.2)
        best = heaviest_by_brute_force(xy, confidence, side, smallest=smallest, minimum=0.2)
        assert groups.is_optimal
        assert weight_of(groups, xy, confidence, side) == pytest.approx(best, abs=1e-9)
        assert groups.weight.sum() == pytest.approx(best, abs=1e-9)
        assert groups.bound == pytest.approx(best, abs=1e-9)
        chosen += int((groups.size > 1).any())
    assert chosen > 60


def test_no_point_is_in_two_groups_and_none_is_lost() -> None:
    xy, confidence, side = random_sets(np.random.default_rng(5), sets=4, most=400, width=300)
    groups = group_points(xy, confidence, side)
    for which, points in enumerate(xy):
        held = groups.members[:, which]
        assert sorted(held[held != ABSENT].tolist()) == list(range(len(points)))


def test_all_of_a_group_overlap_pairwise() -> None:
    xy, confidence, side = random_sets(np.random.default_rng(6), sets=4, most=60, width=40)
    groups = group_points(xy, confidence, side, smallest=3)
    assert len(groups) > 5
    for members in groups.members:
        points = [(which, index) for which, index in enumerate(members) if index != ABSENT]
        assert len(points) >= 3
        for (a, i), (b, j) in combinations(points, 2):
            assert overlap_by_area(xy[a][i], side[a][i], xy[b][j], side[b][j]) > 0.3


def test_three_that_agree_outweigh_a_better_pair() -> None:
    xy = [np.array([[0.0, 0.0]]), np.array([[2.0, 0.0]]), np.array([[2.0, 0.0]])]
    groups = group_points(xy, [np.full(1, 0.5)] * 3, [np.full(1, 10.0)] * 3)
    assert groups.members.tolist() == [[0, 0, 0]]
    # 8 of 12 columns are shared by two pairs, all by the third
    assert groups.overlap[0] == pytest.approx((8 / 12 + 8 / 12 + 1) / 3)
    assert groups.weight[0] == pytest.approx(3 * groups.overlap[0] * 0.5)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (3.0, -2.0), (9.5, 0.0), (12.0, 1.0), (-4.0, 4.5)])
def test_overlap_is_that_of_the_areas(offset: tuple[float, float]) -> None:
    found = box_overlap(np.array([offset]), np.array([10.0]), np.array([7.0]))[0]
    assert found == pytest.approx(overlap_by_area(np.array(offset), 10.0, np.zeros(2), 7.0))


def test_sets_that_do_not_fit_together_are_named() -> None:
    with pytest.raises(ValueError, match="as many sets"):
        group_points([np.zeros((1, 2))], [], [])
    with pytest.raises(ValueError, match="a confidence and a side"):
        group_points([np.zeros((2, 2))], [np.ones(1)], [np.ones(2)])


def test_a_time_limit_gives_a_choice_and_says_that_it_is_not_proven() -> None:
    rng = np.random.default_rng(8)
    xy = [rng.uniform(0, 60, (60, 2)) for _ in range(4)]
    ones = [np.ones(60)] * 4
    groups = group_points(xy, ones, [np.full(60, 10.0)] * 4, time_limit_seconds=0.0)
    assert groups.bound >= groups.weight.sum() - 1e-9
    assert groups.is_optimal or groups.weight.sum() > 0
