"""Which sizes several micrographs vote for, and which of them are asked."""

import numpy as np
import pytest

from cryopick.heatmap import size_votes
from cryopick.heatmap.size_votes import (
    MEASURING,
    MOST_HOLDERS,
    MOST_VOTERS,
    Votes,
    asked,
    holders,
    modes,
    spread_order,
)
from cryopick.inference.progress import told_to
from cryopick.types import Micrograph


def votes(*sizes_px: float, weight: float = 0.01) -> Votes:
    return Votes(np.array(sizes_px), np.full(len(sizes_px), weight))


FILLED, EMPTY = votes(*[50.0] * 30), votes(20.0, 35.0, 80.0)


def test_the_size_that_explains_most_comes_first():
    each = votes(*[50.0] * 30, *[100.0] * 20)
    assert modes([each] * 4) == pytest.approx([50.0, 100.0], rel=0.05)


def test_what_several_micrographs_see_goes_before_round_ice_on_one_of_them():
    ice = votes(*[90.0] * 60)
    assert modes([FILLED, FILLED, FILLED, ice])[0] == pytest.approx(50.0, rel=0.05)
    assert holders([FILLED, FILLED, FILLED, ice]) == [0, 1, 2]


def test_the_only_filled_micrograph_goes_before_nothing():
    for count in (1, 5, 20):
        session = [EMPTY] * count + [FILLED] + [EMPTY]
        assert modes(session) == pytest.approx([50.0], rel=0.05)
        assert holders(session) == [count]


def test_one_or_two_votes_are_none_however_large():
    one, two = votes(300.0, weight=0.5), votes(300.0, 300.0, weight=0.5)
    assert holders([one, one]) == holders([two, EMPTY]) == []


def test_without_votes_there_is_no_size():
    assert modes([]) == modes([votes(), votes()]) == holders([]) == []


@pytest.mark.parametrize("count", [0, 1, 2, 6, 24, 25])
def test_every_beginning_is_spread_and_all_come_once(count):
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    if count > 6:
        assert max(np.diff(sorted(order[:6]))) <= count // 3


def session(monkeypatch, each: list[Votes]) -> tuple[list[Micrograph], list[int]]:
    """Micrographs that vote so, and which of them were looked at."""
    micrographs = [Micrograph(np.zeros((8, 8), np.float32), name=str(i)) for i in range(len(each))]
    looked_at: list[int] = []

    def look(model, micrograph):
        looked_at.append(int(micrograph.name))
        return each[int(micrograph.name)]

    monkeypatch.setattr(size_votes, "votes_of", look)
    monkeypatch.setattr(size_votes, "is_known", lambda model, micrograph: False)
    return micrographs, looked_at


def test_three_that_see_the_same_size_are_enough(monkeypatch):
    micrographs, looked_at = session(monkeypatch, [FILLED] * 30)
    assert asked(None, micrographs) == sorted(looked_at)
    assert len(looked_at) == 3
    assert max(np.diff(sorted(looked_at))) > 5  # from the whole run


def test_where_they_differ_more_are_asked(monkeypatch):
    micrographs, looked_at = session(monkeypatch, [votes(*[size] * 30) for size in np.geomspace(48, 62, 12)])
    assert len(asked(None, micrographs)) <= MOST_HOLDERS
    assert len(looked_at) > 3


def test_empty_micrographs_are_passed_over_until_too_many_were_looked_at(monkeypatch):
    each = [EMPTY] * 60
    each[20] = each[41] = FILLED
    micrographs, looked_at = session(monkeypatch, each)
    asked_of = asked(None, micrographs)
    assert len(looked_at) == MOST_VOTERS
    assert set(asked_of) == {20, 41} & set(looked_at) or len(asked_of) == MOST_HOLDERS


def test_it_tells_which_micrograph_it_is_at(monkeypatch):
    told: list[tuple[str, int, int]] = []
    micrographs, _ = session(monkeypatch, [EMPTY] * 4)
    with told_to(lambda *step: told.append(step)):
        asked(None, micrographs)
    assert told == [(MEASURING, position, 4) for position in (1, 2, 3, 4)]
    asked(None, micrographs)
    assert len(told) == 4
