"""What is said of each micrograph, and what --drop-bad does with it."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.selection import NOT_BELIEVED
from cryopick.runs.threshold import Cut, at_threshold
from cryopick.runs.verdicts import CONTRAST_INVERTED, EMPTY, GOOD, MOSTLY_JUNK, UNLIKE_THE_RUN, verdict_of
from cryopick.types import Picks


def candidates(scores, *, diameter_px=40.0):
    xy_px = np.stack([np.linspace(50, 950, len(scores)), np.full(len(scores), 500.0)], axis=1)
    return Picks(
        xy_px=xy_px,
        score=np.asarray(scores, np.float32),
        diameter_px=np.full(len(scores), diameter_px, np.float32),
        micrograph_name="m",
        shape_yx=(1000, 1000),
    )


def judged(scores, *, belief=1.0, junk_share=0.1, has_probabilities=True, contrast_doubt=None):
    cut = Cut(threshold=0.5, belief={"m": belief})
    chosen = at_threshold(candidates(scores), 0.5, belief=belief)
    return verdict_of(
        chosen,
        cut,
        name="m",
        junk_share=junk_share,
        has_probabilities=has_probabilities,
        contrast_doubt=contrast_doubt,
    )


def test_a_good_micrograph_tells_how_many_picks_should_be_right_and_what_they_cover():
    found = judged([0.8, 0.6, 0.2])
    assert (found.verdict, found.reason) == (GOOD, "")
    assert found.expected_right == pytest.approx(0.7)
    assert found.filled_share == pytest.approx((0.8 + 0.6) * np.pi / 4 * 40**2 / 1000**2, abs=1e-4)


def test_noise_is_an_empty_micrograph_and_many_unlike_objects_are_not():
    assert judged([0.2, 0.1]).verdict == EMPTY
    assert judged([0.9] * 5, belief=0.0).verdict == EMPTY
    many = judged([0.9] * 60, belief=0.0)
    assert many.verdict == UNLIKE_THE_RUN
    assert "60 candidates look likely" in many.reason
    assert many.expected_right is None


def test_junk_and_contrast_come_before_what_the_picks_say():
    junk = judged([0.9] * 9, junk_share=0.8)
    assert (junk.verdict, junk.reason) == (MOSTLY_JUNK, "carbon, ice or contamination covers 80 % of it")
    assert judged([0.9] * 9, contrast_doubt="bright?").verdict == CONTRAST_INVERTED


def test_pickers_without_probabilities_say_only_what_they_can():
    found = judged([12.0, 9.0], has_probabilities=False, junk_share=None)
    assert (found.verdict, found.filled_share, found.expected_right) == (GOOD, None, None)
    assert judged([], has_probabilities=False).verdict == EMPTY


def test_what_is_not_believed_has_a_reason_of_its_own_and_what_is_low_keeps_its():
    chosen = at_threshold(candidates([0.9, 0.4]), 0.5, belief=0.1)
    assert chosen.reason.tolist() == [NOT_BELIEVED, "below threshold"]
    assert at_threshold(candidates([0.9, 0.4]), 0.5).reason.tolist() == ["", "below threshold"]


def test_the_belief_is_told_in_full_so_that_evaluating_a_run_keeps_what_it_kept():
    assert judged([0.9], belief=0.55555555).belief == 0.55555555
