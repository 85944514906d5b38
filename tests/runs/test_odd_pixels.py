"""What every picker is given, and what the user is told, where pixels are odd."""

import numpy as np
import pytest

import cryopick
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.runs.one import Task, outcomes_of, read_task
from cryopick.runs.settings import PickPlan, RunSettings, make_settings
from cryopick.types import Micrograph

DIAMETER_PX = 40


def discs(depth=6.0, seed=0, shape_yx=(480, 560)):
    """Discs in noise on a shaken grid, and their centres (x, y)."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(30, 4, shape_yx).astype(np.float32)
    yy, xx = np.mgrid[: shape_yx[0], : shape_yx[1]]
    centres = np.array([(x, y) for y in range(80, 440, 80) for x in range(80, 520, 80)]) + rng.uniform(-8, 8, (30, 2))
    for x, y in centres:
        pixels[np.hypot(xx - x, yy - y) < DIAMETER_PX / 2] -= depth
    return pixels, centres


def found_share(picks, centres):
    """Share of the centres with exactly one pick, and of the picks at a centre, whichever is lower."""
    distance = np.linalg.norm(picks.kept().xy_px[:, None] - centres, axis=2)
    return min((distance.min(axis=0) < 8).mean(), (distance.min(axis=1) < 8).mean())


@pytest.mark.parametrize("odd", ["hot pixels", "border"])
def test_odd_pixels_cost_no_picks_and_are_told(odd):
    pixels, centres = discs()
    if odd == "hot pixels":
        pixels.ravel()[np.random.default_rng(1).integers(0, pixels.size, 10)] = 65535
    else:
        pixels[:, :30] = pixels[:30] = 0
    picks = cryopick.pick(pixels, "blob", diameter=f"{DIAMETER_PX}px")
    assert found_share(picks, centres) > 0.85
    assert {"hot pixels": "hot or dead", "border": "border"}[odd] in " ".join(picks.warnings)


def test_a_fall_of_brightness_is_taken_out_aloud_before_picking():
    yy, xx = (np.linspace(-1, 1, side) for side in (480, 560))
    pixels = discs(depth=2.0)[0] * (1 - 0.3 * np.add.outer(yy**2, xx**2)).astype(np.float32)
    picks = cryopick.pick(pixels, "blob", diameter=f"{DIAMETER_PX}px")
    assert "brightness changes smoothly" in " ".join(picks.warnings)


def test_bright_particles_are_noticed_and_nothing_is_turned_round():
    pixels, centres = discs()
    dark = cryopick.pick(pixels, "blob", diameter=f"{DIAMETER_PX}px")
    assert dark.warnings == ()
    bright = cryopick.pick(-pixels, "blob", diameter=f"{DIAMETER_PX}px")
    assert "--contrast bright" in " ".join(bright.warnings)
    assert found_share(bright, centres) < 0.5 if len(bright.kept()) else True
    right = cryopick.pick(-pixels, "blob", diameter=f"{DIAMETER_PX}px", contrast="bright")
    assert right.warnings == ()
    assert found_share(right, centres) > 0.85


def test_pixels_without_defects_reach_the_picker_as_stored(tmp_path):
    pixels, _ = discs()
    write_mrc(tmp_path / "m.mrc", pixels, pixel_size_angstrom=1.5)
    micrograph = read_task(Task(name="m", path=tmp_path / "m.mrc"), RunSettings())
    assert np.array_equal(micrograph.pixels, pixels)
    assert micrograph.warnings == ()


def test_a_larger_image_than_allowed_fails_alone_and_a_resumed_run_may_allow_it(tmp_path):
    (tmp_path / "in").mkdir()
    for name, side in (("small", 128), ("large", 256)):
        pixels = np.random.default_rng(0).normal(size=(side, side)).astype("f4")
        write_mrc(tmp_path / "in" / f"{name}.mrc", pixels, pixel_size_angstrom=1.5)
    settings = {"diameter": "20px", "output": tmp_path / "run", "workers": 1}
    first = cryopick.pick(tmp_path / "in", "blob", max_pixels=128 * 128, **settings)
    assert list(first.failed) == ["large.mrc"]
    assert "--max-pixels" in first.failed["large.mrc"]
    again = cryopick.pick(tmp_path / "in", "blob", **settings)
    assert again.failed == {}


def test_an_image_that_is_junk_for_the_most_part_is_warned_of(monkeypatch):
    from cryopick.runs import one as pick_one

    pixels, _ = discs()
    monkeypatch.setattr(pick_one, "junk_mask", lambda picks: np.ones((8, 8), bool))
    picks = cryopick.pick(Micrograph(pixels), GeneralPicker(), diameter=f"{DIAMETER_PX}px")
    assert "100% of the image" in " ".join(picks.warnings)


@pytest.mark.parametrize("kind", ["mrc", "tif"])
@pytest.mark.parametrize("rows", [0, 5, 200, 480])
def test_an_end_of_the_file_that_was_not_written_yet_is_seen(tmp_path, kind, rows):
    pixels, _ = discs()
    write_micrograph(tmp_path / f"m.{kind}", Micrograph(pixels, name="m"), dtype="float32")
    data = bytearray((tmp_path / f"m.{kind}").read_bytes())
    start = 1024 if kind == "mrc" else data.find(pixels[-1].tobytes())
    assert start > 0  # TIFF holds the last row first
    end = start + pixels.nbytes
    data[end - rows * pixels[0].nbytes : end] = bytes(rows * pixels[0].nbytes)
    (tmp_path / f"m.{kind}").write_bytes(data)
    task = Task(name="m", path=tmp_path / f"m.{kind}")
    (outcome,) = outcomes_of([task], PickPlan(settings=make_settings("blob", diameter=f"{DIAMETER_PX}px")))
    assert (outcome.error, outcome.ends_empty) == ("", rows > 0)


def test_a_file_that_cannot_be_read_is_told_from_one_that_cannot_be_picked(tmp_path):
    pixels, _ = discs()
    write_mrc(tmp_path / "m.mrc", pixels, pixel_size_angstrom=None)
    plan = PickPlan(settings=make_settings("blob", diameter="180A"))
    (unsized,) = outcomes_of([Task(name="m", path=tmp_path / "m.mrc")], plan)
    (tmp_path / "half.mrc").write_bytes((tmp_path / "m.mrc").read_bytes()[:-100_000])
    (half,) = outcomes_of([Task(name="half", path=tmp_path / "half.mrc")], plan)
    assert unsized.error
    assert not unsized.is_unreadable
    assert half.error
    assert half.is_unreadable


def test_masked_pixels_of_an_array_are_missing():
    pixels, _ = discs()
    masked = np.ma.masked_where(np.add.outer(np.zeros(480), np.arange(560)) < 200, pixels)
    xy_px = cryopick.pick(masked, "blob", diameter=f"{DIAMETER_PX}px").kept().xy_px
    assert len(xy_px) > 0
    assert xy_px[:, 0].min() > 200 - DIAMETER_PX / 2
