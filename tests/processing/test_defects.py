"""Hot and dead pixels, lines, borders and unwritten ends, put into noise where we know them."""

import numpy as np
import pytest

from cryopick.processing import defects
from cryopick.processing.defects import mend_pixels

SHAPE_YX = (300, 400)


def noise(seed=0, mean=30.0, deviation=4.5):
    return np.random.default_rng(seed).normal(mean, deviation, SHAPE_YX).astype(np.float32)


def dark_discs(pixels, diameter_px, depth, step_px=60):
    """Beads, specks or particles: discs on a grid, `depth` darker."""
    yy, xx = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    centres = [(y, x) for y in range(40, 260, step_px) for x in range(40, 360, step_px)]
    for y, x in centres:
        pixels[np.hypot(yy - y, xx - x) <= diameter_px / 2] -= depth
    return pixels


@pytest.mark.parametrize(
    "pixels",
    [
        noise(),
        noise(mean=0),
        np.random.default_rng(1).poisson(0.2, SHAPE_YX).astype(np.float32),
        np.random.default_rng(2).poisson(30, SHAPE_YX).astype(np.float32),
        np.clip(noise(mean=128, deviation=30).round(), 0, 255),
        np.clip(noise(mean=10, deviation=10).round(), 0, 255),  # much of it saturated at black
        dark_discs(noise(mean=1000, deviation=10), 10, 900),  # gold beads, ninety times the noise
        dark_discs(noise(mean=1000, deviation=10), 5, 900),
        dark_discs(noise(), 30, 15),
        np.where(np.arange(400) < 150, noise() - 25, noise()).astype(np.float32),  # the edge of carbon
        (noise() + np.arange(400) * 0.1).astype(np.float32),
    ],
    ids=["noise", "around 0", "sparse", "counts", "8-bit", "saturated", "gold", "small gold", "discs", "edge", "ramp"],
)
def test_images_without_defects_are_handed_back_untouched(pixels):
    mended = mend_pixels(pixels)
    assert mended.warnings == ()
    assert mended.pixels is pixels


@pytest.mark.parametrize("value", [65535.0, 1e30, -1e6, 300.0])
def test_hot_and_dead_pixels_and_cosmic_rays_take_the_value_of_their_neighbours(value):
    pixels = noise()
    places = [(5, 7), (100, 100), (0, 0), (299, 399), (63, 64), (64, 64)]
    for row, column in places:
        pixels[row, column] = value
    pixels[200:203, 200:203] = value
    pixels[150, 20:45] = value  # a track
    mended = mend_pixels(pixels)
    assert np.abs(mended.pixels - 30).max() < 8 * 4.5
    is_touched = mended.pixels != pixels
    assert is_touched.sum() == len(places) + 9 + 25
    assert f"{len(places) + 9 + 25} hot or dead pixels" in " ".join(mended.warnings)


@pytest.mark.parametrize("turn", [np.s_[:, :], "T"])
@pytest.mark.parametrize("kind", ["dead", "hot", "half dead", "three dead"])
def test_dead_and_hot_columns_and_rows_are_replaced_and_named(turn, kind):
    pixels = noise()
    columns = slice(170, 173) if kind == "three dead" else slice(170, 171)
    rows = slice(0, 140) if kind == "half dead" else slice(None)
    pixels[rows, columns] = 0
    if kind == "hot":
        pixels[:, columns] = noise(9, 90)[:, columns]
    mended = mend_pixels(np.ascontiguousarray(pixels.T) if isinstance(turn, str) else pixels)
    assert np.abs(mended.pixels - 30).max() < 8 * 4.5
    what = "row" if isinstance(turn, str) else "column"
    assert f"hot or dead {what}" in " ".join(mended.warnings)
    assert "170" in " ".join(mended.warnings)


def test_hot_pixels_beside_missing_ones_are_mended_and_missing_ones_stay():
    pixels = noise()
    pixels[:, 50] = np.nan
    pixels[20, 20] = np.inf
    pixels[100, 52] = 65535
    mended = mend_pixels(pixels).pixels
    assert np.isnan(mended[:, 50]).all()
    assert abs(mended[100, 52] - 30) < 8 * 4.5


@pytest.mark.parametrize("value", [0.0, -1.0, 37.25])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_constant_borders_are_missing_whatever_their_value_and_width(value, whole_numbers):
    pixels = noise().round() if whole_numbers else noise()
    pixels[:, :40] = value
    pixels[:2] = value
    mended = mend_pixels(pixels)
    is_missing = np.isnan(mended.pixels)
    assert is_missing[:, :40].all()
    assert is_missing[:2].all()
    assert np.count_nonzero(is_missing[2:, 40:]) <= (60 if whole_numbers else 0)
    assert "border of one value" in " ".join(mended.warnings)
    assert "written to its end" not in " ".join(mended.warnings)


def test_a_ragged_border_is_followed_row_by_row():
    pixels, width = noise(), 10 + (np.arange(SHAPE_YX[0]) // 30) * 3
    is_border = np.arange(SHAPE_YX[1]) < width[:, None]
    pixels[is_border] = 0
    assert np.array_equal(np.isnan(mend_pixels(pixels).pixels), is_border)


@pytest.mark.parametrize("is_last_row_first", [False, True])
def test_an_end_that_was_never_written_is_missing_and_its_rows_are_named(is_last_row_first):
    pixels = noise()
    pixels[200:] = 0
    pixels[199, 150:] = 0
    shown = pixels[::-1] if is_last_row_first else pixels
    mended = mend_pixels(np.ascontiguousarray(shown), is_last_row_first=is_last_row_first)
    is_missing = np.isnan(mended.pixels[::-1] if is_last_row_first else mended.pixels)
    assert is_missing[200:].all()
    assert not is_missing[:199].any()
    assert "written to its end" in mended.warnings[0]
    assert ("rows 0 to 100" if is_last_row_first else "rows 199 to 299") in mended.warnings[0]
    assert "border" not in " ".join(mended.warnings)


def test_a_block_of_rows_without_image_in_the_middle_is_missing():
    pixels = noise()
    pixels[100:120] = 0
    mended = mend_pixels(pixels)
    assert np.array_equal(np.isnan(mended.pixels).all(axis=1), (np.arange(300) >= 100) & (np.arange(300) < 120))
    assert "100 to 119" in mended.warnings[0]


@pytest.mark.parametrize(("value", "said"), [(0.0, "all pixels are equal"), (np.nan, "no pixel is a number")])
def test_an_image_of_nothing_is_said_to_be_that(value, said):
    mended = mend_pixels(np.full(SHAPE_YX, value, np.float32))
    assert said in mended.warnings[0]


@pytest.mark.parametrize("shape_yx", [(1, 1), (1, 50), (3, 4), (17, 16), (50, 1)])
def test_tiny_images_are_looked_at_without_an_error(shape_yx):
    pixels = np.random.default_rng(0).normal(size=shape_yx).astype(np.float32)
    pixels[0, 0] = 1e9
    assert mend_pixels(pixels).pixels.shape == shape_yx


def test_a_group_of_the_grey_value_around_it_does_not_stand_alone():
    filled = np.zeros((5, 5), dtype=np.float32)
    label = np.zeros((5, 5), dtype=np.int32)
    label[2, 2:4] = 1
    filled[2, 3] = 9.0  # the other pixel of the group is as its surroundings
    assert not defects._stands_alone(filled, label, 1, np.array([2, 2, 2, 1, 2]))
