"""The numbers that benchmarks write down."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cryopick.data.labels import Labels
from cryopick.geometry.units import Length
from cryopick.types import Picks
from score_summary import listed_diameter, score_summary, simulated_labels


def labels(xy_px, *, diameter_px=20.0, name="m"):
    return Labels(np.array(xy_px, float), np.zeros(len(xy_px), bool), diameter_px, name)


def test_two_of_three_picks_on_two_of_four_particles():
    truth = labels([[10, 10], [50, 10], [10, 50], [50, 50]])
    picks = Picks(
        xy_px=np.array([[11.0, 10], [51, 10], [90, 90], [10, 52]]),
        score=np.array([0.9, 0.8, 0.7, 0.1], np.float32),
        reason=np.array(["", "", "", "below threshold"]),
        micrograph_name="m",
    )
    found = score_summary([picks], {"m": truth}, diameter=Length(20, 20, "px"))
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 4)
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["picks_per_micrograph"] == 3


def test_hidden_simulated_particles_are_uncertain():
    simulated = SimpleNamespace(
        xy_px=np.array([[1.0, 2], [3, 4]]),
        is_pickable=np.array([True, False]),
        diameter_px=np.array([10.0, 14.0]),
        micrograph=SimpleNamespace(name="s"),
    )
    found = simulated_labels(simulated)
    assert found.is_uncertain.tolist() == [False, True]
    assert (found.diameter_px, found.micrograph_name) == (12.0, "s")


def test_the_listed_diameter_is_the_median_of_those_that_are_listed():
    sets = {str(i): labels([[0, 0]], diameter_px=px) for i, px in enumerate((None, 70.0, 72.0, 90.0))}
    assert listed_diameter(sets) == Length(72, 72, "px")
