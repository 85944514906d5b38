"""The ideal detector: perfect where particles are plain, blind where they are not, worse as the dose falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.suite import SNR_OF_LEVEL, SUITE_PROTEINS, SuiteSet, suite_sets
from ideal import ideal_detection


@pytest.fixture(scope="module")
def small_set() -> SuiteSet:
    return SuiteSet(SUITE_PROTEINS[2], "easy", 2)


def test_ideal_detector_falls_from_perfect_to_blind_with_the_signal(small_set: SuiteSet) -> None:
    imager = small_set.imager()
    recipe = replace(small_set.recipe, shape_yx=(384, 384))
    f1 = []
    for snr in (18.0, 5.5, 2.0):
        simulated = simulate_micrograph(recipe, 11, imagers=[imager], target_snr=snr)
        assert np.median(simulated.snr) == pytest.approx(snr, rel=0.12)
        f1.append(ideal_detection(simulated, [imager]).f1)
    assert f1[0] > 0.9
    assert f1[0] > f1[1] > f1[2]
    assert f1[2] < 0.45


def test_ideal_detector_refuses_processed_micrographs(small_set: SuiteSet) -> None:
    imager = small_set.imager()
    recipe = replace(small_set.recipe, shape_yx=(256, 256))
    recipe = replace(recipe, look=replace(recipe.look, eight_bit_probability=1.0))
    simulated = simulate_micrograph(recipe, 11, imagers=[imager])
    with pytest.raises(SettingsError, match="raw micrographs"):
        ideal_detection(simulated, [imager])


def test_suite_is_eight_proteins_at_three_levels_with_distinct_names() -> None:
    sets = suite_sets()
    assert len({one.name for one in sets}) == 24
    assert {one.level for one in sets} == set(SNR_OF_LEVEL)
    with pytest.raises(SettingsError, match="known: easy, medium, hard"):
        suite_sets(levels=("trivial",))
