"""Which sizes are taken for populations, from the votes of several micrographs."""

import numpy as np
import pytest

from cryopick.pickers.diameter import ENOUGH_MICROGRAPHS, _Detections, _modes


def votes(*sizes_px: float, weight: float = 0.01) -> _Detections:
    return _Detections(np.array(sizes_px), np.full(len(sizes_px), weight))


def test_the_size_that_explains_most_comes_first():
    each = votes(*[50.0] * 10, *[100.0] * 6)
    assert _modes([each] * 4) == pytest.approx([50.0, 100.0], rel=0.05)


def test_round_ice_on_one_micrograph_is_no_population():
    particles, ice = votes(*[50.0] * 10), votes(*[90.0] * 200)
    assert _modes([particles, particles, ice]) == pytest.approx([50.0], rel=0.05)
    assert _modes([votes(), votes(), ice]) == []


def test_of_fewer_micrographs_every_vote_counts():
    few = [votes()] * (ENOUGH_MICROGRAPHS - 2) + [votes(*[90.0] * 5)]
    assert _modes(few) == pytest.approx([90.0], rel=0.05)


def test_without_votes_there_is_no_size():
    assert _modes([]) == _modes([votes(), votes()]) == []
