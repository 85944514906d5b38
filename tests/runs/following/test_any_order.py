"""Whatever the order in which micrographs come, and whatever happens to them, the final folder is the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from followed import FakeClock, discs, follow, require_same_run
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring_picker import MeasuringPicker

from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import PickSettings
from cryopick.workflows.pick import pick_to_folder

MEASURING = PickSettings(picker=MeasuringPicker())
NAMES = ("a.mrc", "b.mrc", "deep/c.mrc", "d_EVN.mrc", "d.mrc", "job003/e.mrc", "f.mrc", "g.mrc")
SIZES_PX = (0, 30, 30, 18, 18, 18, 0, 18)
"""Empty, large and small: an early look sees another size than a late one."""


@pytest.fixture(scope="module")
def batch_run(tmp_path_factory) -> tuple[Path, Path]:
    """Whole files, and the batch run over them, at a place that each example gets its files at."""
    place = tmp_path_factory.mktemp("orders")
    for number, (name, size) in enumerate(zip(NAMES, SIZES_PX, strict=True)):
        for folder in ("whole", "in"):
            (place / folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(place / "whole" / name, discs(size, seed=number))
        shutil.copy2(place / "whole" / name, place / "in" / name)
    (place / "batch").mkdir()
    before = Path.cwd()
    os.chdir(place / "batch")
    try:
        pick_to_folder([place / "in"], "run", MEASURING, workers=1)
    finally:
        os.chdir(before)
    return place, place / "batch" / "run"


def put(source: Path, target: Path) -> None:
    """As an examples's file: its time is that of the whole one, so that records are the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


SESSIONS = {
    "order": st.permutations(range(len(NAMES))),
    "pauses": st.lists(st.sampled_from([0.0, 1.0, 7.0, 50.0]), min_size=len(NAMES), max_size=len(NAMES)),
    "ways": st.lists(st.sampled_from(["whole", "half first", "renamed", "other first"]), min_size=8, max_size=8),
}


@settings(max_examples=6)
@given(**SESSIONS)
def test_any_order_and_way_of_arrival_ends_in_the_same_folder(batch_run, order, pauses, ways):
    require_same_end(batch_run, order, pauses, ways)


@pytest.mark.slow
@settings(max_examples=50)
@given(**SESSIONS)
def test_fifty_orders_and_ways_of_arrival_end_in_the_same_folder(batch_run, order, pauses, ways):
    require_same_end(batch_run, order, pauses, ways)


def require_same_end(batch_run, order, pauses, ways):
    place, expected = batch_run
    clock, second = FakeClock(), 0.0
    shutil.rmtree(place / "in")
    (place / "in").mkdir()
    for number, pause in zip(order, pauses, strict=True):
        source, target = place / "whole" / NAMES[number], place / "in" / NAMES[number]
        target.parent.mkdir(parents=True, exist_ok=True)
        if ways[number] == "half first":
            clock.at(second, lambda s=source, t=target: t.write_bytes(s.read_bytes()[:9000]))
        if ways[number] == "other first":
            other = place / "whole" / NAMES[(number + 3) % len(NAMES)]
            clock.at(second, lambda s=other, t=target: put(s, t))
        if ways[number] == "renamed":
            early = target.with_name(f"early-{number}.mrc")
            clock.at(second, lambda s=source, t=early: put(s, t))
            clock.at(second + 3, lambda e=early, t=target: e.rename(t))
        else:
            clock.at(second + (3 if ways[number] != "whole" else 0), lambda s=source, t=target: put(s, t))
        second += pause
    with tempfile.TemporaryDirectory(dir=place) as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            follow(place / "in", "run", MEASURING, clock=clock)
        finally:
            os.chdir(before)
        require_same_run(Path(folder) / "run", expected)
