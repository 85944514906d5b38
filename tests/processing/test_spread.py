"""A few of many, spread over all of them."""

from itertools import pairwise

import pytest

from cryopick.processing.spread import evenly_taken


def test_the_first_the_last_and_the_middle_are_taken():
    assert evenly_taken("abcdefg", 3) == ["a", "d", "g"]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_where_there_are_no_more_than_asked_for_all_are_taken_once_and_in_order(size):
    assert evenly_taken(range(size), 8) == list(range(size))


def test_of_none_none_is_taken():
    assert evenly_taken([], 3) == []


def test_steps_differ_by_at_most_one():
    taken = evenly_taken(range(103), 10)
    assert len(taken) == 10
    assert {b - a for a, b in pairwise(taken)} <= {11, 12}
