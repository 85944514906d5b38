"""Histogram operations as MATLAB documents them: by hand, against the definition, against SciPy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cryopick.processing.denoise.histogram import (
    equalize,
    equalize_adaptively,
    histogram,
    stretch_quantiles,
)


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def test_a_value_is_counted_at_the_nearest_level():
    count = histogram(np.array([[0.0, 0.4 / 255, 0.6 / 255, 1.0]]))
    assert count[[0, 1, 255]].tolist() == [2, 1, 1]
    assert count.sum() == 4


def test_stretching_cuts_one_pixel_in_a_hundred_at_each_end():
    levels = np.arange(256) / 255
    stretched = stretch_quantiles(np.repeat(levels, 100)[None])
    # 1 % of 25600 pixels are the 2.56 darkest levels: the third one, 2/255, becomes black; 253/255 becomes white
    assert stretched[0, ::100] == pytest.approx(np.clip((levels - 2 / 255) / (251 / 255), 0, 1))


def test_stretching_leaves_an_image_of_one_value_alone():
    image = np.full((5, 5), 0.3)
    assert np.array_equal(stretch_quantiles(image), image)


def test_equalisation_makes_a_skewed_histogram_flat():
    equalized = equalize(noise((256, 256)) ** 3)
    values = np.sort(equalized.ravel())
    uniform = np.linspace(0, 1, values.size)
    # the cube puts an eighth of all pixels into the darkest level, and no map can take them apart
    assert len(np.unique(equalized)) <= 64
    assert np.abs(values - uniform)[values.size // 4 :].max() < 0.03


def test_equalisation_places_levels_by_their_share():
    """Three levels of 2, 1, 1 pixels onto 4: the first ends at half of the pixels, the last at all of them."""
    image = np.array([[0.0, 0.0, 0.5, 1.0]])
    # shares up to the middle of each level: 2, 2.5, 4 of 4 pixels; the flat histogram reaches them at 2, 3 and 4
    assert equalize(image, output_levels=4)[0] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])


def test_equalisation_never_reverses_the_order_of_two_pixels():
    image = noise((40, 50)) ** 2
    order = np.argsort(image.ravel())
    assert (np.diff(equalize(image).ravel()[order]) >= 0).all()


def test_one_tile_without_clipping_is_the_cumulative_histogram():
    image = np.round(noise((32, 32)) * 255) / 255
    equalized = equalize_adaptively(image, clip_limit=1.0, tiles_yx=(1, 1))
    rank = stats.rankdata(image, method="max") / image.size
    assert equalized == pytest.approx(rank.reshape(32, 32), abs=1e-6)


def test_full_clipping_changes_nothing_but_the_last_half_level():
    """Every level gets the same count, so the map is a straight line."""
    image = np.round(noise((64, 64)) ** 4 * 255) / 255
    assert equalize_adaptively(image, clip_limit=0.0, tiles_yx=(2, 2)) == pytest.approx(image, abs=1.01 / 256)


def test_clipping_limits_the_contrast_of_a_flat_region():
    flat = 0.5 + 0.02 * (noise((128, 128)) - 0.5)
    flat[0, :2] = 0, 1
    limited = equalize_adaptively(flat, clip_limit=0.01, tiles_yx=(2, 2)).std()
    assert flat.std() < limited < 0.5 * equalize_adaptively(flat, clip_limit=1.0, tiles_yx=(2, 2)).std()


@pytest.mark.parametrize("clip_limit", [0.0, 0.003, 0.02, 0.3])
def test_a_clipped_map_still_ends_at_1(clip_limit):
    """No count is lost when what was cut is given to other levels, however uneven they are."""
    image = noise((60, 60)) ** 6
    image[::20, ::20] = 1.0
    equalized = equalize_adaptively(image, clip_limit=clip_limit, tiles_yx=(3, 3))
    assert equalized[::20, ::20] == pytest.approx(np.ones((3, 3)))


def test_between_two_tiles_the_maps_are_blended_by_distance():
    """A dark and a bright half: at a tile's centre its own map holds, half-way the mean of both."""
    image = np.zeros((16, 32))
    image[:, 16:] = 1.0
    image[:, 8] = image[:, 15] = image[:, 16] = image[:, 24] = 0.5
    equalized = equalize_adaptively(image, clip_limit=1.0, tiles_yx=(1, 2))
    left = (image[:, :16] <= 0.5).mean()
    right = (image[:, 16:] <= 0.5).mean()
    for column in (8, 15, 16, 24):
        weight = (column - 7.5) / 16  # centres at 7.5 and 23.5; beyond the last one its own map holds
        weight = min(max(weight, 0.0), 1.0)
        assert equalized[0, column] == pytest.approx((1 - weight) * left + weight * right, abs=1e-6)


def test_a_rayleigh_target_is_the_truncated_distribution():
    """Against SciPy's: of uniform pixels, the q-th quantile becomes the q-th quantile of it cut off at 1."""
    image = (np.arange(256)[None] / 255).repeat(4, axis=0)
    equalized = equalize_adaptively(image, clip_limit=1.0, tiles_yx=(1, 1), rayleigh_alpha=0.4)
    target = stats.rayleigh(scale=0.4)
    share = np.arange(1, 257) / 256
    assert equalized[0] == pytest.approx(target.ppf(share * target.cdf(1.0)), abs=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (61, 47), (100, 33)])
@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose], ids=["rows", "columns", "transposed"])
def test_a_flipped_image_gives_the_flipped_result(turn, shape):
    image = noise(shape) ** 2
    tiles_yx = (4, 4)
    expected = turn(equalize_adaptively(image, clip_limit=0.02, tiles_yx=tiles_yx))
    missing = [-(-n // 4) * 4 + 4 * ((-(-n // 4)) % 2) - n for n in shape]
    flipped = equalize_adaptively(turn(image), clip_limit=0.02, tiles_yx=tiles_yx)
    if any(n % 2 for n in missing):  # the padding itself cannot be the same at both ends
        assert np.abs(flipped - expected).mean() < 0.01
    else:
        assert flipped == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 300), (5, 4)])
def test_images_smaller_than_their_tiles_keep_their_shape(shape):
    equalized = equalize_adaptively(noise(shape), clip_limit=0.02)
    assert equalized.shape == shape
    assert ((equalized >= 0) & (equalized <= 1)).all()
