"""The denoiser of CryoTransformer and CryoSegNet: the numbers their programs give, and the faults they have."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from blobs import draw_blobs, lattice_of_centres, mean_shift

from cryopick.processing.denoise.filters import GUIDED_WINDOW_PX, corner_wiener, equalize_8bit, to_8bit
from cryopick.processing.denoise.published import SHIFT_XY_PX, blur_and_standardize, denoise_published

ROWS, COLUMNS = np.array([(10, 20), (128, 128), (200, 100)]).T


def reference_image():
    """A picture anyone can make again: two waves and a hash of the pixel's place as noise."""
    y, x = np.mgrid[:256, :256].astype(np.int64)
    noise = ((73856093 * x ^ 19349663 * y) % 1000) / 1000
    return (np.sin(0.07 * x) + np.cos(0.05 * y) + noise).astype(np.float32)


def noise(shape=(1024, 1024), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def noisy_blobs(centres_xy):
    return 3 * draw_blobs((330, 340), centres_xy, sigma_px=8) + 0.05 * noise((330, 340))


@pytest.fixture(scope="module")
def stages():
    return denoise_published(reference_image())


def test_the_reference_image_is_the_one_the_numbers_belong_to():
    image = reference_image().astype(np.float64)
    assert image.mean() == pytest.approx(0.54222, abs=5e-6)
    assert image.std() == pytest.approx(1.04977, abs=5e-6)


@pytest.mark.parametrize(
    ("stage", "mean", "std", "values"),
    [
        ("standardized", 130.4264, 61.2443, (243, 215, 121)),
        ("non_local_means", 130.4442, 60.9901, (241, 214, 121)),
        ("wiener", 4.2079, 1.9454, (7.4934, 6.3685, 4.3283)),
        ("equalized", 148.7656, 57.4138, (232, 195, 187)),
        ("guided", 0.5835, 0.1897, (0.8678, 0.7491, 0.6531)),
        ("image", 142.0472, 56.9855, (227, 192, 163)),
    ],
)
def test_every_step_gives_the_programs_numbers(stages, stage, mean, std, values):
    """OpenCV 4.7, which the programs pin, and 5.0 agree on them."""
    image = getattr(stages, stage)
    precision = 5.1e-5  # the numbers have four decimals
    assert image.mean(dtype=np.float64) == pytest.approx(mean, abs=precision)
    assert image.std(dtype=np.float64) == pytest.approx(std, abs=precision)
    assert image[ROWS, COLUMNS] == pytest.approx(values, abs=precision)


def test_the_guided_filter_is_two_box_blurs_in_disguise(stages):
    window = (GUIDED_WINDOW_PX, GUIDED_WINDOW_PX)
    twice = cv2.blur(cv2.blur((stages.equalized / 255).astype(np.float32), window), window)
    assert np.corrcoef(twice.ravel(), stages.guided.ravel())[0, 1] > 0.999999
    assert np.abs(to_8bit(twice).astype(int) - stages.image).max() <= 1


def test_as_the_articles_say_the_equalised_image_guides_the_filter_of_the_other():
    from scipy.ndimage import uniform_filter

    def mean(values):
        return uniform_filter(values, 20, mode="mirror")  # from 10 pixels before to 9 after, as OpenCV's

    stages = denoise_published(reference_image(), guide="equalized")
    image, guide = stages.wiener / 255, stages.equalized / 255
    slope = (mean(image * guide) - mean(image) * mean(guide)) / (mean(guide**2) - mean(guide) ** 2 + 0.1)
    offset = mean(image) - slope * mean(guide)
    np.testing.assert_allclose(stages.guided, mean(slope) * guide + mean(offset), atol=2e-6)
    assert np.abs(stages.image.astype(int) - denoise_published(reference_image()).image).max() > 20


def test_the_wiener_filter_divides_by_31():
    assert corner_wiener(np.full((40, 50), 62.0)) == pytest.approx(np.full((40, 50), 2.0))


def test_the_wiener_filter_moves_content_up_and_left_by_four_and_around_the_border():
    impulse = np.zeros((64, 64))
    impulse[32, 32] = 1
    assert np.unravel_index(corner_wiener(impulse).argmax(), (64, 64)) == (28, 28)
    corner = np.zeros((64, 64))
    corner[1, 2] = 1
    assert np.unravel_index(corner_wiener(corner).argmax(), (64, 64)) == (61, 62)


def test_the_wiener_filter_is_a_blur_and_no_deconvolution():
    image = noise((200, 200)).astype(np.float64)
    kernel = cv2.getGaussianKernel(9, 3)
    blurred = cv2.sepFilter2D(np.pad(image, 8, mode="wrap"), -1, kernel, kernel)[8:-8, 8:-8]
    moved = np.roll(blurred, (-4, -4), axis=(0, 1))
    # the modulus turns negative values over, so the image is lifted above 0
    filtered = corner_wiener(image + 10)
    assert np.corrcoef(moved.ravel(), filtered.ravel())[0, 1] > 0.9999


def test_blobs_are_found_three_pixels_up_and_left_of_where_they_are():
    centres = lattice_of_centres()
    image = denoise_published(noisy_blobs(centres)).image.astype(float)
    assert mean_shift(image, centres, radius_px=24) == pytest.approx(SHIFT_XY_PX, abs=0.3)


def test_the_shift_follows_the_order_of_the_rows():
    """The programs reverse the rows of a file first, so in the file's order everything moves left and down."""
    centres = lattice_of_centres()
    image = denoise_published(noisy_blobs(centres)[::-1]).image[::-1].astype(float)
    assert mean_shift(image, centres, radius_px=24) == pytest.approx((-3, 3), abs=0.3)


def test_one_hot_pixel_takes_the_contrast_from_all_others():
    """Published: 27.8 grey levels for noise; 12.2 with a pixel of 50 sigma; 1.1 and 35 levels with one of 1000."""
    pixels = noise()
    assert blur_and_standardize(pixels).std() == pytest.approx(27.8, abs=2.5)  # by the extremes of the noise
    pixels[500, 500] = 50
    assert blur_and_standardize(pixels).std() == pytest.approx(12.2, abs=0.8)
    pixels[500, 500] = 1000
    dimmed = blur_and_standardize(pixels)
    assert dimmed.std() == pytest.approx(1.1, abs=0.1)
    assert len(np.unique(dimmed)) < 60


def test_non_local_means_change_pure_noise_by_about_four_grey_levels():
    stages = denoise_published(noise((512, 512)))
    change = stages.non_local_means.astype(float) - stages.standardized
    assert np.sqrt(np.mean(change**2)) == pytest.approx(4.3, abs=0.5)


def test_integers_are_blurred_as_integers():
    """CryoTransformer does not convert: rounding after the blur leaves an int16 image of 0 and 1 with these two."""
    pixels = (noise((100, 100)) > 0).astype(np.int16)
    assert set(np.unique(blur_and_standardize(pixels))) == {0, 255}
    assert len(np.unique(blur_and_standardize(pixels.astype(np.float32)))) > 100


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.int32, np.float64, ">i2", ">f4"])
def test_types_at_which_the_programs_stop_give_what_float32_gives(kind):
    pixels = np.round(20 * noise((60, 70)))
    expected = blur_and_standardize(pixels).astype(int)
    assert np.abs(blur_and_standardize(pixels.astype(kind)).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("value", [0.0, -3.5, 6e4])
def test_a_constant_image_becomes_zeros(value):
    stages = denoise_published(np.full((40, 50), value, np.float32))
    assert not stages.image.any()


def test_pixels_that_are_no_numbers_spoil_nothing_elsewhere():
    pixels = noise((80, 90))
    spoilt = pixels.copy()
    spoilt[3, 4], spoilt[70, 80] = np.nan, np.inf
    difference = denoise_published(spoilt).standardized[10:60, 10:70].astype(int)
    assert np.abs(difference - denoise_published(pixels).standardized[10:60, 10:70]).max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3), (16, 16), (33, 70)])
def test_small_and_odd_shapes_keep_their_shape(shape):
    stages = denoise_published(noise(shape))
    assert stages.image.shape == shape
    assert np.isfinite(stages.guided).all()


def test_equalisation_takes_8_bit_images_of_any_shape():
    assert equalize_8bit(to_8bit(noise((37, 53)))).shape == (37, 53)
