"""Which micrographs of a run are surveyed: some that hold something, spread over it, without reading it all."""

from collections.abc import Iterator

import numpy as np
import pytest

from cryopick.cli.console import survey_text
from cryopick.errors import UnknownPixelSizeError
from cryopick.inference.progress import told_to
from cryopick.runs.run import PickEvent, event_as_dict
from cryopick.runs.sample import MOST_READ, chosen_sample, sample_order
from cryopick.types import Micrograph


class Seer:
    """Sees particles on micrographs whose first pixel is not 0; cannot look at those of 9."""

    diameter = None

    def holding_particles(self, micrographs):
        first = [int(one.pixels[0, 0]) for one in micrographs]
        if 9 in first:
            raise UnknownPixelSizeError("no pixel size")
        return [index for index, value in enumerate(first) if value]


class Reader:
    """Gives the micrographs of a run in their order of reading and counts them."""

    def __init__(self, content: list[int], *, wanted: int = 6) -> None:
        self.content, self.wanted, self.read = content, min(wanted, len(content)), list[int]()

    def __iter__(self) -> Iterator[tuple[int, Micrograph]]:
        for place in sample_order(len(self.content), self.wanted):
            self.read.append(place)
            yield place, Micrograph(np.full((2, 2), self.content[place], np.float32), name=str(place))

    def sample(self) -> list[int]:
        found = chosen_sample(self, Seer(), wanted=self.wanted, available=len(self.content))
        assert f"looked at {len(self.read)} of {len(self.content)} micrographs" in found.sentence
        return [int(one.name) for one in found.micrographs]


def test_of_a_full_run_six_spread_over_it_are_read():
    run = Reader([1] * 300)
    assert run.sample() == [0, 60, 120, 179, 239, 299]
    assert len(run.read) == 6


def test_empty_micrographs_among_them_are_left_out():
    content = [1] * 300
    content[60] = content[299] = 0
    run = Reader(content)
    assert run.sample() == [0, 120, 179, 239]
    assert len(run.read) == 6


@pytest.mark.parametrize("empty", [5, 20])
@pytest.mark.parametrize("place", [0, 1, 3, 5])
def test_the_only_filled_micrograph_of_a_run_is_found(empty, place):
    content = [0] * empty
    content.insert(place, 1)
    assert Reader(content).sample() == [place]


def test_a_mostly_empty_run_is_read_until_three_hold_something():
    run = Reader([0, 0, 0, 1] * 100)
    assert len(run.sample()) == 3
    assert len(run.read) < MOST_READ


def test_an_empty_run_is_not_read_to_its_end_and_the_first_are_gone_by():
    run = Reader([0] * 300)
    assert run.sample() == [0, 60, 120, 179, 239, 299]
    assert len(run.read) == MOST_READ


def test_a_micrograph_that_cannot_be_looked_at_is_none_that_holds_something():
    assert Reader([9, 1, 9]).sample() == [1]
    assert Reader([9, 9]).sample() == [0, 1]  # the survey says what is the matter


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (7, 6), (24, 6), (300, 6)])
def test_every_micrograph_comes_once_in_the_order_of_reading(count, wanted):
    assert sorted(sample_order(count, wanted)) == list(range(count))


def test_the_bar_says_what_is_measured_and_how_far_it_is():
    told: list[tuple[str, int, int]] = []
    with told_to(lambda *step: told.append(step)):
        Reader([1] * 6).sample()
    doing, position, total = told[2]
    event = PickEvent(name="", status="surveying", position=position, total=total, doing=doing)
    assert survey_text(event) == "measuring the particle diameter (3 of 6)"
    assert event_as_dict(event) == {
        "event": "survey", "doing": "measuring the particle diameter", "position": 3, "total": 6
    }  # fmt: skip
