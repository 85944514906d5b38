"""When a growing run looks again, and when what it sees makes it pick everything again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.runs.following.preparing import Preparing, next_look


@dataclass(frozen=True, kw_only=True)
class Measuring:
    run_level_fields: ClassVar = frozenset({"particle_size", "sentence", "filled_share"})

    def survey(self, micrographs):
        return Survey()


class Training(Measuring):
    sample_size: ClassVar = 8

    def survey_in(self, folder, micrographs):
        return Survey()


def px(size: float) -> Length:
    return Length(size, size, "px")


def seen(size: float | None = None, **more) -> Survey:
    return Survey(working_size=None if size is None else px(size), **more)


def looks(preparing: Preparing, until: int, survey: Survey, *, second=float) -> list[int]:
    found = []
    for count in range(1, until + 1):
        if preparing.is_due(count, second(count)):
            preparing.begun(count, second(count))
            preparing.taken_over(survey)
            found.append(count)
    return found


def test_it_looks_at_1_3_6_and_each_doubling_however_many_come_at_once():
    assert looks(Preparing(Measuring()), 200, seen(20)) == [1, 3, 6, 12, 24, 48, 96, 192]
    assert [next_look(count) for count in (0, 1, 2, 3, 5, 6, 11, 12, 13, 95, 96, 100)] == [
        1, 3, 3, 6, 6, 12, 12, 24, 24, 96, 192, 192,
    ]  # fmt: skip
    preparing = Preparing(Measuring())
    preparing.begun(1, 0.0)
    assert preparing.is_due(50, 1.0)
    preparing.begun(50, 1.0)
    assert not preparing.is_due(95, 2.0)
    assert preparing.is_due(96, 3.0)


def test_a_picker_that_measures_nothing_never_looks_and_never_waits():
    preparing = Preparing(object())
    assert not preparing.is_due(6, 0.0)
    assert not preparing.is_waiting
    assert Preparing(Measuring()).is_waiting


@pytest.mark.parametrize(
    ("before", "now", "is_other"),
    [
        (seen(20), seen(20 * 2 ** (1 / 16)), False),
        (seen(20), seen(20 * 2 ** (2 / 16)), True),
        (seen(20), seen(20 / 2 ** (2 / 16)), True),
        (seen(20), seen(), True),
        (seen(), seen(20), True),
        (seen(), seen(), False),
        (seen(20, is_empty=True), seen(20), True),
        (Survey(particle_size=px(20)), Survey(particle_size=px(23)), True),
        (Survey(working_size=px(20)), Survey(working_size=Length(20, 20, "A")), True),
    ],
)
def test_everything_is_picked_again_when_the_size_moves_by_two_steps_or_something_is_found(before, now, is_other):
    preparing = Preparing(Measuring())
    assert preparing.taken_over(before).is_other_look
    taken = preparing.taken_over(now)
    assert (taken.is_other_look, bool(taken.why)) == (is_other, is_other)


def test_what_changes_no_candidate_is_taken_over_and_the_rest_stays_until_the_size_moves():
    preparing = Preparing(Measuring())
    preparing.taken_over(Survey(working_size=px(20), noise_level=0.5, particle_size=px(25), sentence="one"))
    taken = preparing.taken_over(
        Survey(working_size=px(20.4), noise_level=0.7, particle_size=px(25.5), filled_share=0.3, sentence="two")
    )
    assert taken.survey == Survey(
        working_size=px(20), noise_level=0.5, particle_size=px(25.5), filled_share=0.3, sentence="two"
    )
    assert not taken.is_other_look
    assert preparing.taken_over(Survey(working_size=px(30), noise_level=0.9)).survey.noise_level == 0.9


def test_the_first_size_found_at_or_after_the_settling_count_is_the_last():
    assert looks(Preparing(Measuring(), settle=5), 100, seen(20)) == [1, 3, 5]
    preparing = Preparing(Measuring(), settle=5)
    assert looks(preparing, 30, seen()) == [1, 3, 5, 6, 12, 24]
    preparing.begun(31, 1e6)
    preparing.taken_over(seen(20))
    assert preparing.is_settled
    assert not preparing.is_due(48, 2e6)


def test_what_looks_empty_is_looked_at_again_every_ten_minutes_if_three_more_came_and_is_never_settled():
    for nothing in (seen(), seen(20, is_empty=True), seen(20, filled_share=0.0)):
        preparing = Preparing(Measuring(), settle=3)
        assert looks(preparing, 24, nothing) == [1, 3, 6, 12, 24]
        assert not preparing.is_settled
        assert not preparing.is_due(26, 24 + 601.0)
        assert not preparing.is_due(27, 24 + 599.0)
        assert preparing.is_due(27, 24 + 601.0)
    preparing = Preparing(Measuring())
    assert looks(preparing, 24, seen(20)) == [1, 3, 6, 12, 24]
    assert not preparing.is_due(27, 1e6)


def test_a_picker_that_trains_waits_for_its_sample_and_then_stays():
    preparing = Preparing(Training())
    assert looks(preparing, 100, Survey(trained_model=Path("model.pt"))) == [8]
    assert preparing.is_settled
