"""Scale normalisation: coordinates survive it, and flat or broken pixels do not poison it."""

import numpy as np
import pytest

from cryopick.processing.scale import ScaleMap, fill_non_finite, gaussian_blur, network_planes, resample


def dot(shape_yx, x, y, sigma_px):
    yy, xx = np.mgrid[: shape_yx[0], : shape_yx[1]]
    return np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma_px**2)).astype(np.float32)


def centre_of_mass(image):
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(image * xx).sum(), (image * yy).sum()]) / image.sum()


@pytest.mark.parametrize("factor", [0.2, 0.37, 0.5, 1.0, 1.7])
def test_a_dot_lands_where_the_scale_map_says(factor):
    image = dot((240, 310), x=100.3, y=80.6, sigma_px=9.0)
    working, scale = resample(image, factor=factor)
    found = scale.to_stored_xy(centre_of_mass(working)[None])
    assert np.allclose(found, [[100.3, 80.6]], atol=0.02)


def test_to_working_is_the_inverse_of_to_stored():
    scale = ScaleMap((0.31, 0.29))
    xy_px = np.array([[0.0, 0.0], [-0.5, 12.25], [1000.0, 3.0]])
    assert np.allclose(scale.to_working_xy(scale.to_stored_xy(xy_px)), xy_px)


def test_the_first_pixels_outer_corner_stays_the_corner():
    assert np.allclose(ScaleMap((0.25, 0.5)).to_working_xy(np.array([[-0.5, -0.5]])), [[-0.5, -0.5]])


def test_a_resampled_image_keeps_its_mean():
    image = np.random.default_rng(0).normal(5, 1, (200, 300)).astype(np.float32)
    working, _ = resample(image, factor=0.25)
    assert working.shape == (50, 75)
    assert working.mean() == pytest.approx(image.mean(), abs=1e-3)


def test_non_finite_pixels_become_the_median_and_others_stay():
    image = np.array([[1, 2, 3], [np.nan, np.inf, 2]], np.float32)
    assert fill_non_finite(image).tolist() == [[1, 2, 3], [2, 2, 2]]


def test_an_image_of_nan_becomes_zero():
    assert not fill_non_finite(np.full((4, 5), np.nan, np.float32)).any()


@pytest.mark.parametrize("sigma_px", [1.0, 7.0, 36.0, 72.0])
def test_fast_blur_equals_the_exact_one(sigma_px):
    from scipy.ndimage import gaussian_filter

    image = np.random.default_rng(1).normal(size=(300, 340)).astype(np.float32)
    image += np.linspace(0, 10, 340, dtype=np.float32)
    exact = gaussian_filter(image, sigma_px, mode="reflect")
    inner = np.s_[40:-40, 40:-40]
    assert np.abs(gaussian_blur(image, sigma_px=sigma_px) - exact)[inner].max() < 0.02 * np.ptp(exact)


def test_planes_do_not_change_with_brightness_and_contrast():
    image = np.random.default_rng(2).normal(size=(200, 180)).astype(np.float32)
    a = network_planes(image, particle_px=24, count=3)
    b = network_planes(image * 37 + 1000, particle_px=24, count=3)
    assert np.allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("level", [0.0, 3.5, -1e6])
def test_planes_of_a_flat_image_are_zero(level):
    assert not network_planes(np.full((64, 80), level, np.float32), particle_px=24, count=3).any()


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_third_plane_tells_dark_ground_far_from_its_border_whatever_it_covers(share):
    image = np.random.default_rng(4).normal(size=(800, 800)).astype(np.float32)
    edge = round(800 * share)
    image[:, :edge] -= 5
    background, shade = network_planes(image, particle_px=12, count=3)[1:]
    deep, clean = np.s_[:, : edge - 100], np.s_[:, edge + 100 :]
    assert np.median(shade[deep]) == pytest.approx(-np.arcsinh(5), abs=0.15)
    assert np.median(shade[clean]) == pytest.approx(0, abs=0.15)
    assert np.median(background[deep if share > 0.5 else clean]) == pytest.approx(0, abs=0.15)


def test_a_flat_border_stays_flat_instead_of_amplified():
    image = np.random.default_rng(3).normal(size=(256, 256)).astype(np.float32)
    image[:, 200:] = 0.001 * image[:, 200:]
    planes = network_planes(image, particle_px=24)
    assert np.abs(planes[0][:, 245:]).max() < 0.2
    assert planes[0][:, :150].std() == pytest.approx(1, abs=0.15)
