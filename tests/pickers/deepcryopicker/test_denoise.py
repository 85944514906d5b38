"""AutoCryoPicker's MATLAB chain: each operator against another program or its definition, and the chain's claims."""

from __future__ import annotations

import numpy as np
import pytest
from blobs import draw_blobs, lattice_of_centres, mean_shift
from PIL import Image
from scipy import ndimage, signal

from cryopick.errors import SettingsError
from cryopick.pickers.deepcryopicker.denoise import (
    AutoCryoPickerSettings,
    halve,
    prepare_autocryopicker,
    wiener_adaptively,
)
from cryopick.processing.denoise.filters import guided_filter


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_halving_is_pillows_antialiased_bicubic_away_from_the_border():
    image = noise((60, 80))
    pillow = np.asarray(Image.fromarray(image).resize((40, 30), Image.Resampling.BICUBIC))
    assert halve(image)[3:-3, 3:-3] == pytest.approx(pillow[3:-3, 3:-3], abs=1e-5)


def test_halving_lies_between_the_pixels():
    y, x = np.mgrid[:40, :60].astype(float)
    assert halve(100 * y + x)[4:-4, 4:-4] == pytest.approx((100 * (2 * y + 0.5) + 2 * x + 0.5)[4:16, 4:26])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (6, 9)])
def test_halving_rounds_odd_sizes_up_and_keeps_a_constant(shape):
    half = halve(np.full(shape, 3.0))
    assert half.shape == (-(-shape[0] // 2), -(-shape[1] // 2))
    assert half == pytest.approx(np.full(half.shape, 3.0))


@pytest.mark.parametrize("window_px", [3, 5])
def test_the_adaptive_wiener_filter_is_scipys(window_px):
    image = noise((40, 55)).astype(np.float64)
    assert wiener_adaptively(image, window_px=window_px) == pytest.approx(signal.wiener(image, window_px), abs=1e-12)


def test_the_adaptive_wiener_filter_keeps_a_constant_of_zero():
    assert not wiener_adaptively(np.zeros((9, 9)), window_px=5).any()


def test_the_guided_filter_is_its_definition():
    """He et al. 2013, eq. 5, 6 and 8, window by window."""
    image, guide = noise((14, 15)).astype(np.float64), noise((14, 15), 1).astype(np.float64)
    padded_image, padded_guide = np.pad(image, 2, mode="edge"), np.pad(guide, 2, mode="edge")
    slope, offset = np.empty(image.shape), np.empty(image.shape)
    for row in range(14):
        for column in range(15):
            p = padded_image[row : row + 5, column : column + 5]
            i = padded_guide[row : row + 5, column : column + 5]
            slope[row, column] = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + 0.3)
            offset[row, column] = p.mean() - slope[row, column] * i.mean()
    mean_slope, mean_offset = (ndimage.uniform_filter(a, 5, mode="nearest") for a in (slope, offset))
    filtered = guided_filter(image, guide, window_px=5, epsilon=0.3, repeats_border=True)
    assert filtered == pytest.approx(mean_slope * guide + mean_offset, abs=1e-12)


def test_the_chain_halves_and_fills_0_to_1():
    prepared, scale = prepare_autocryopicker(noise((201, 300)))
    assert prepared.shape == (101, 150)
    assert prepared.min() == 0
    assert prepared.max() == pytest.approx(1)
    assert scale.to_stored_xy(np.array([[0.0, 10.0]]))[0] == pytest.approx((0.5, 20.5))


def test_particles_stay_where_they_are():
    centres = lattice_of_centres()
    pixels = 0.3 * noise((330, 340)) - 3 * draw_blobs((330, 340), centres, sigma_px=8)
    prepared, scale = prepare_autocryopicker(pixels)
    shift = mean_shift(1 - prepared, scale.to_working_xy(centres), radius_px=13)
    assert shift == pytest.approx((0, 0), abs=0.2)


def test_dark_particles_stay_dark():
    centres = lattice_of_centres()
    prepared, scale = prepare_autocryopicker(noise((330, 340)) - 3 * draw_blobs((330, 340), centres, sigma_px=8))
    column, row = np.rint(scale.to_working_xy(centres)).astype(int).T
    assert prepared[row, column].mean() < np.quantile(prepared, 0.1)


def test_the_opening_leaves_no_bright_place_smaller_than_the_cross():
    prepared, _ = prepare_autocryopicker(noise((120, 130)))
    cross = ndimage.generate_binary_structure(2, 1)
    # every value survives another opening: five are the same as one
    opened = ndimage.grey_opening(prepared, footprint=cross)
    assert prepared[2:-2, 2:-2] == pytest.approx(opened[2:-2, 2:-2])


def test_the_variants_of_other_scripts_differ():
    pixels = noise((120, 130))
    usual = prepare_autocryopicker(pixels)[0]
    for variant in ({"wiener_window_px": 3}, {"guided_passes": 0}, {"opening_px": (5,)}):
        other = prepare_autocryopicker(pixels, settings=AutoCryoPickerSettings(**variant))[0]
        assert np.abs(other - usual).mean() > 1e-3


@pytest.mark.parametrize("value", [0.0, -7.0, np.nan])
def test_a_constant_image_becomes_zeros(value):
    assert not prepare_autocryopicker(np.full((30, 40), value, np.float32))[0].any()


@pytest.mark.parametrize("kind", [np.float16, np.uint8, np.int16])
def test_every_pixel_type_gives_what_float32_gives(kind):
    pixels = np.round(100 + 20 * noise((60, 70)))
    expected = prepare_autocryopicker(pixels)[0]
    assert prepare_autocryopicker(pixels.astype(kind))[0] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 60), (9, 5)])
def test_small_images_give_finite_values(shape):
    prepared, _ = prepare_autocryopicker(noise(shape))
    assert np.isfinite(prepared).all()


@pytest.mark.parametrize("wrong", [{"wiener_window_px": 4}, {"guided_passes": -1}, {"opening_px": (0,)}])
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        AutoCryoPickerSettings(**wrong)
