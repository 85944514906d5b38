"""The pre-processing of Cryo-EMMAE: what its program computes, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from blobs import draw_blobs, lattice_of_centres, mean_shift

from cryopick.errors import SettingsError
from cryopick.pickers.cryoemmae.denoise import SHIFT_XY_PX, corner_mask, prepare_cryoemmae
from cryopick.processing.denoise.filters import corner_wiener, to_8bit


def noise(shape=(256, 300), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_mask_of_64_pixels_has_764():
    mask = corner_mask(64)
    assert mask.shape == (64, 64)
    assert np.count_nonzero(mask) == 764


def test_the_mask_is_the_square_without_the_disc():
    mask = corner_mask(20)
    assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert not mask[10].any()
    assert np.array_equal(mask, mask[::-1])
    assert np.array_equal(mask, mask.T)


def test_odd_diameters_are_made_even():
    assert np.array_equal(corner_mask(31), corner_mask(32))


def test_normalisation_is_by_mean_and_deviation_under_the_mask():
    """Against sums over explicitly gathered pixels; the borders wrap around."""
    pixels = noise((40, 48))
    mask = corner_mask(12)
    y, x = np.nonzero(mask)
    expected = np.empty(pixels.shape)
    for row in range(40):
        for column in range(48):
            around = pixels[(row + y - 6) % 40, (column + x - 6) % 48].astype(np.float64)
            expected[row, column] = (pixels[row, column] - around.mean()) / around.std()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert prepare_cryoemmae(pixels, diameter_px=12).normalized == pytest.approx(expected, abs=1e-5)


def test_the_low_pass_divides_by_31_and_gives_the_published_range():
    stages = prepare_cryoemmae(noise((512, 512)), diameter_px=64)
    assert stages.wiener.mean() == pytest.approx(stages.normalized.mean() / 31, rel=1e-6)
    assert stages.wiener.min() > 0.011
    assert stages.wiener.max() < 0.019


def test_the_low_pass_is_a_gaussian_blur_four_pixels_off():
    stages = prepare_cryoemmae(noise(), diameter_px=40)
    kernel = cv2.getGaussianKernel(9, 3)
    blurred = cv2.sepFilter2D(stages.normalized, -1, kernel, kernel)
    moved, inside = np.roll(blurred, (-4, -4), axis=(0, 1)), np.s_[10:-10, 10:-10]
    assert np.corrcoef(moved[inside].ravel(), stages.wiener[inside].ravel())[0, 1] > 0.9999
    assert np.array_equal(stages.wiener, corner_wiener(stages.normalized))


def test_the_guided_filter_is_two_box_blurs_without_a_grey_level_of_difference():
    stages = prepare_cryoemmae(noise(), diameter_px=40)
    twice = cv2.blur(cv2.blur((stages.equalized / 255).astype(np.float32), (20, 20)), (20, 20))
    assert np.abs(to_8bit(twice).astype(int) - stages.guided).max() <= 1
    assert np.mean(to_8bit(twice) != stages.guided) < 0.01


def test_particles_are_found_three_pixels_up_and_left_of_where_they_are():
    centres = lattice_of_centres()
    pixels = 0.3 * noise((330, 340)) - 3 * draw_blobs((330, 340), centres, sigma_px=7)
    dark = 255.0 - prepare_cryoemmae(pixels, diameter_px=30).guided
    assert mean_shift(dark, centres, radius_px=24) == pytest.approx(SHIFT_XY_PX, abs=0.3)


def test_the_picture_has_1024_pixels_a_side_whatever_the_shape():
    stages = prepare_cryoemmae(noise((300, 500)), diameter_px=60)
    assert stages.picture.shape == (1024, 1024)
    assert stages.picture.dtype == np.uint8
    # where nothing is merged, another program's bicubic is the same to a few grey levels
    enlarged = cv2.resize(stages.guided, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert np.abs(enlarged.astype(int) - stages.picture).max() <= 2


@pytest.mark.parametrize("shape", [(101, 120), (120, 101), (111, 121)])
def test_odd_sizes_at_which_the_program_stops_are_prepared(shape):
    stages = prepare_cryoemmae(noise(shape), diameter_px=20)
    assert stages.guided.shape == shape
    assert stages.guided.std() > 10


def test_a_constant_patch_gives_numbers():
    pixels = noise((120, 140))
    pixels[:60, :70] = 2.0
    stages = prepare_cryoemmae(pixels, diameter_px=16)
    assert np.isfinite(stages.normalized).all()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_constant_image_becomes_an_even_picture(value):
    assert np.ptp(prepare_cryoemmae(np.full((64, 80), value, np.float32), diameter_px=16).picture) == 0


@pytest.mark.parametrize("diameter_px", [-2, 0, 3])
def test_a_diameter_without_corners_is_refused(diameter_px):
    with pytest.raises(SettingsError, match="at least 4"):
        prepare_cryoemmae(noise(), diameter_px=diameter_px)


def test_a_particle_wider_than_the_micrograph_is_refused():
    with pytest.raises(SettingsError, match="300 x 256"):
        prepare_cryoemmae(noise(), diameter_px=400)
