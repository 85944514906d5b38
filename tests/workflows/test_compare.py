"""Comparing sets of picks: who has which particle, and frames that differ are named."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import disc_micrograph

import cryopick
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.comparison import as_json_object, as_text, only_in
from cryopick.geometry.transforms import flip_y
from cryopick.io.images.micrographs import write_micrograph
from cryopick.types import Micrograph, Picks

SHAPE_YX = (400, 600)


def spread_places(count: int = 24, apart_px: float = 50.0) -> np.ndarray:
    """(count, 2) centres without any order, so that no mirror or shift maps many of them on others."""
    rng = np.random.default_rng(0)
    chosen: list[np.ndarray] = []
    while len(chosen) < count:
        place = rng.uniform((25, 25), (SHAPE_YX[1] - 25, SHAPE_YX[0] - 25))
        if all(np.hypot(*(place - one)) > apart_px for one in chosen):
            chosen.append(place)
    return np.array(chosen)


PLACES = spread_places()


def write_set(
    folder: Path, name: str, which: slice, *, shift: tuple[float, float] = (0, 0), flip: bool = False
) -> Path:
    xy_px = PLACES[which] + shift
    if flip:
        xy_px = flip_y(xy_px, SHAPE_YX)
    score = np.linspace(0.9, 0.5, len(xy_px))
    picks = Picks(xy_px=xy_px, score=score, micrograph_name="m1.mrc", diameter_px=np.full(len(xy_px), 40.0))
    path = folder / name / "m1.csv"
    path.parent.mkdir()
    cryopick.write_picks([replace(picks, shape_yx=SHAPE_YX)], path)
    return path.parent


def test_each_particle_is_counted_once_by_who_has_it(tmp_path: Path) -> None:
    first = write_set(tmp_path, "first", slice(0, 20))
    second = write_set(tmp_path, "second", slice(4, 24), shift=(1.0, 0.0))
    third = write_set(tmp_path, "third", slice(0, 4))
    found = cryopick.compare([first, second, third], names=["a", "b", "c"], diameter="40px")
    assert found.shared == {("a", "b"): 16, ("a", "c"): 4, ("b",): 4}
    np.testing.assert_allclose(found.agreement, [[1, 0.8, 0.2], [0.8, 1, 0], [1, 0, 1]])
    ((_, alone),) = only_in(found, "b")
    np.testing.assert_allclose(alone.xy_px, PLACES[20:] + np.array([1.0, 0.0]), atol=0.01)
    assert as_json_object(found)["picks"] == {"a": 20, "b": 20, "c": 4}
    placed = found.placements["a", "b"]
    assert placed is not None
    assert placed.shift_diameters == pytest.approx((1 / 40, 0), abs=1e-3)
    assert found.doubts == []


@pytest.mark.parametrize(
    ("change", "said"),
    [({"flip": True}, "counts y from the other end"), ({"shift": (9, -6)}, "lies 9.0 px to the right and 6.0 px up")],
)
def test_frames_that_differ_are_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    ours = write_set(tmp_path, "ours", slice(0, 24))
    theirs = write_set(tmp_path, "theirs", slice(0, 22), **change)  # type: ignore[arg-type]
    micrograph = tmp_path / "m1.mrc"
    write_micrograph(micrograph, Micrograph(np.zeros(SHAPE_YX, np.float32)))
    found = cryopick.compare([ours, theirs], micrographs=[micrograph], diameter="40px")
    (doubt,) = found.doubts
    assert said in doubt
    assert doubt in as_text(found)


def test_two_runs_give_a_page_with_what_only_one_has(tmp_path: Path) -> None:
    micrograph = tmp_path / "discs.mrc"
    write_micrograph(micrograph, disc_micrograph("discs.mrc"))
    best = np.sort(cryopick.pick(micrograph, "blob", diameter="20px").kept().score)[::-1]
    assert len(best) == 3
    cryopick.pick([micrograph], "blob", output=tmp_path / "r1", diameter="20px")
    cryopick.pick([micrograph], "blob", output=tmp_path / "r2", diameter="20px", threshold=float(best[1:3].mean()))
    out = tmp_path / "compared"
    found = cryopick.compare([tmp_path / "r1", tmp_path / "r2"], output=out)
    assert found.names == ("r1", "r2")
    assert len(found.micrographs) == 1
    assert found.counts == {"r1": 3, "r2": 2}
    assert found.shared == {("r1", "r2"): 2, ("r1",): 1}
    page = (out / "comparison.html").read_text()
    assert "Only r1 has these" in page
    assert "Only r2 has these" not in page
    rows = list(csv.DictReader((out / "particles.csv").read_text().splitlines()))
    assert len(rows) == sum(found.shared.values())
    assert sum(row["score_r1"] != "" for row in rows) == found.counts["r1"]
    assert json.loads((out / "comparison.json").read_text())["names"] == ["r1", "r2"]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    first = write_set(tmp_path, "first", slice(0, 20))
    other = tmp_path / "other.star"
    cryopick.write_picks([Picks(xy_px=PLACES, micrograph_name="elsewhere.mrc", shape_yx=SHAPE_YX)], other)
    with pytest.raises(InputError, match=r"no micrograph in common .*m1.*elsewhere"):
        cryopick.compare([first, other], diameter="40px")
    with pytest.raises(InputError, match="two sets of picks or more, got 1"):
        cryopick.compare([first], diameter="40px")
    with pytest.raises(InputError, match="given twice"):
        cryopick.compare([first, first], diameter="40px")
    bare = tmp_path / "bare.star"
    cryopick.write_picks([Picks(xy_px=PLACES, micrograph_name="m1.mrc", shape_yx=SHAPE_YX)], bare)
    again = tmp_path / "again.star"
    cryopick.write_picks([Picks(xy_px=PLACES, micrograph_name="m1.mrc", shape_yx=SHAPE_YX)], again)
    with pytest.raises(SettingsError, match="give --diameter"):
        cryopick.compare([bare, again])
