"""What is measured and chosen with calibrated probabilities, for every picker that gives them."""

import numpy as np
import pytest

from cryopick.heatmap.emptiness import measured_decoy_share
from cryopick.types import Micrograph


def scores_of(micrograph):
    """A picker that believes each dark pixel, the darker the more."""
    return np.clip(-micrograph.pixels[micrograph.pixels < 0], 0, 1)


def micrograph_of(*values):
    return Micrograph(np.array([values], np.float32))


def test_decoys_are_what_is_found_on_the_negative_relative_to_what_is_found():
    micrograph = micrograph_of(-0.9, -0.8, -0.3, 0.2, 0.3)  # 2.0 found, 0.5 on the negative
    assert measured_decoy_share(scores_of, [micrograph]) == pytest.approx(0.25)


def test_counted_decoys_are_those_that_reach_the_least():
    """Ten improbable ones on both sides weigh more than three likely ones when summed, and nothing when counted."""
    noise = [0.1, -0.1] * 10
    micrograph = micrograph_of(-0.9, -0.8, -0.7, *noise)
    assert measured_decoy_share(scores_of, [micrograph]) == pytest.approx(1.0 / 3.4)
    assert measured_decoy_share(scores_of, [micrograph], least=0.25) == pytest.approx(0.5 / 3.5)


@pytest.mark.parametrize("least", [None, 0.25])
def test_one_odd_micrograph_does_not_speak_for_the_run(least):
    plain, odd = micrograph_of(-0.5, 0.5), micrograph_of(*([-0.9] * 50))
    assert measured_decoy_share(scores_of, [plain, odd, plain], least=least) == pytest.approx(1.0)
