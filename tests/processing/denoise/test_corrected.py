"""The corrected denoiser: nothing moves, nothing but the micrograph's own contrast counts, particles stand out more."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pytest
from blobs import draw_blobs, lattice_of_centres, mean_shift
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import REAL

from cryopick.errors import SettingsError
from cryopick.processing.denoise.corrected import NEUTRAL, CorrectedSettings, denoise_corrected
from cryopick.processing.scale import resample

GLOBALLY = CorrectedSettings(normalizes_locally=False)
BOTH = pytest.mark.parametrize("chosen", [CorrectedSettings(), GLOBALLY], ids=["locally", "globally"])


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def micrograph(shape=(330, 350), centres=None, seed=0):
    centres = lattice_of_centres() if centres is None else centres
    return noise(shape, seed) - 2 * draw_blobs(shape, centres, sigma_px=9)


@BOTH
@pytest.mark.parametrize("diameter_px", [20.0, 24.0, 37.0, 61.0, 108.0])
def test_every_symmetric_dot_stays_where_it_is(chosen, diameter_px):
    """Each to 0.05 px of the working image, and all on average to 0.05 px of the micrograph as stored.

    The dots form a lattice, so that each is surrounded symmetrically and no clipping of outliers touches them; they lie
    at all places between the pixels of both images.
    """
    pitch_px = 1.25 * diameter_px + 0.137
    along = pitch_px * (np.arange(12) + 0.5) + 0.31
    side = round(12 * pitch_px)
    profile = np.exp(-((np.arange(side + 11)[:, None] - along) ** 2) / (2 * (diameter_px / 4) ** 2)).sum(axis=1)
    pixels = -np.outer(profile[:side], profile)
    denoised, scale = denoise_corrected(pixels, diameter_px=diameter_px, settings=chosen)
    radius_px = round(0.45 * diameter_px * scale.factor)
    inner = np.stack(np.meshgrid(along[2:-2], along[2:-2]), axis=-1).reshape(-1, 2)
    shifts = []
    for centre in scale.to_working_xy(inner):
        column, row = np.rint(centre).astype(int)
        around = denoised[row - radius_px - 2 : row + radius_px + 3, column - radius_px - 2 : column + radius_px + 3]
        halfway = (float(denoised.max()) + float(around.min())) / 2
        shifts.append(mean_shift(np.maximum(halfway - denoised, 0), [centre], radius_px=radius_px))
    assert np.abs(shifts).max() < 0.05
    assert np.mean(shifts, axis=0) / scale.factor == pytest.approx((0, 0), abs=0.05)


@BOTH
def test_a_symmetric_dot_in_noise_stays_where_it_is_on_average(chosen):
    centres = lattice_of_centres(pitch_px=100, count=8)
    pixels = 0.2 * noise((880, 880)) - 3 * draw_blobs((880, 880), centres, sigma_px=10)
    denoised, scale = denoise_corrected(pixels, diameter_px=40, settings=chosen)
    dark = np.maximum(NEUTRAL - denoised.astype(float), 0)
    shift = mean_shift(dark, scale.to_working_xy(centres), radius_px=14)
    assert shift / scale.factor == pytest.approx((0, 0), abs=0.05)


@BOTH
@pytest.mark.parametrize("shape", [(330, 350), (301, 407)])
@pytest.mark.parametrize("turn", [np.flipud, np.fliplr, np.transpose], ids=["rows", "columns", "transposed"])
def test_a_flipped_micrograph_gives_the_flipped_result(turn, shape, chosen):
    pixels = micrograph(shape)
    expected = turn(denoise_corrected(pixels, diameter_px=40, settings=chosen)[0])
    flipped = denoise_corrected(np.ascontiguousarray(turn(pixels)), diameter_px=40, settings=chosen)[0]
    assert np.abs(flipped - expected).max() < 0.01
    assert np.abs(flipped - expected).mean() < 5e-4


@BOTH
@settings(max_examples=15, deadline=None)
@given(gain=st.floats(1e-3, 1e4), offset=st.floats(-1e3, 1e3))
def test_brightness_and_contrast_do_not_matter(chosen, gain, offset):
    pixels = micrograph()
    expected = denoise_corrected(pixels, diameter_px=40, settings=chosen)[0]
    changed = denoise_corrected(gain * (pixels.astype(np.float64) + offset), diameter_px=40, settings=chosen)[0]
    # far from 0, float32 keeps fewer digits of the noise, and some pixels fall on the next of 256 levels
    assert np.abs(changed - expected).mean() < 1e-3
    assert np.abs(changed - expected).max() < 0.03


@BOTH
def test_one_hot_pixel_changes_its_own_neighbourhood_only(chosen):
    pixels = micrograph()
    expected = denoise_corrected(pixels, diameter_px=40, settings=chosen)[0]
    pixels[165, 175] = 1e6
    changed, scale = denoise_corrected(pixels, diameter_px=40, settings=chosen)
    x, y = scale.to_working_xy(np.array([[175.0, 165.0]]))[0]
    row, column = np.indices(changed.shape)
    far = np.hypot(column - x, row - y) > 48  # two particle diameters
    assert np.abs(changed - expected)[far].max() < 0.05
    assert np.abs(changed - expected)[far].mean() < 2e-3


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int16, np.uint16, ">i2", ">f4"])
def test_every_pixel_type_gives_what_float32_gives(kind):
    pixels = np.round(1000 + 100 * micrograph())
    expected = denoise_corrected(pixels, diameter_px=40)[0]
    assert denoise_corrected(pixels.astype(kind), diameter_px=40)[0] == pytest.approx(expected, abs=0.02)


def test_half_precision_near_its_limit_does_not_overflow():
    pixels = (60000 + 500 * micrograph()).astype(np.float16)
    denoised = denoise_corrected(pixels, diameter_px=40)[0]
    assert denoised.dtype == np.float32
    assert denoised.std() > 0.03


@BOTH
def test_pixels_that_are_no_numbers_spoil_nothing(chosen):
    pixels = micrograph()
    expected = denoise_corrected(pixels, diameter_px=40, settings=chosen)[0]
    pixels[10:14, 20:24] = np.nan
    pixels[300, 300] = -np.inf
    denoised = denoise_corrected(pixels, diameter_px=40, settings=chosen)[0]
    assert np.isfinite(denoised).all()
    assert np.abs(denoised - expected).mean() < 2e-3


@BOTH
@pytest.mark.parametrize("value", [0.0, 4.2e4, -1e-6, np.nan, np.inf])
def test_an_image_that_shows_nothing_is_neutral(value, chosen):
    denoised = denoise_corrected(np.full((60, 90), value, np.float32), diameter_px=30, settings=chosen)[0]
    assert denoised == pytest.approx(np.full(denoised.shape, NEUTRAL))


@BOTH
@pytest.mark.parametrize("diameter_px", [0.5, 7.0, 24.0, 300.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (2, 2), (3, 200), (17, 5), (100, 64)])
def test_any_shape_gives_finite_values_between_0_and_1(shape, diameter_px, chosen):
    denoised, scale = denoise_corrected(noise(shape), diameter_px=diameter_px, settings=chosen)
    assert np.isfinite(denoised).all()
    assert denoised.min() >= 0
    assert denoised.max() <= 1
    assert denoised.shape == tuple(max(1, round(n * min(1.0, 24 / diameter_px))) for n in shape)
    assert scale.factor_yx == (denoised.shape[0] / shape[0], denoised.shape[1] / shape[1])


def test_the_result_depends_on_the_particle_and_not_on_the_pixel_size():
    """The same specimen at a finer pixel, with the diameter in those pixels."""
    coarse = micrograph((300, 300))
    fine = np.kron(coarse, np.ones((2, 2), np.float32))
    one, two = denoise_corrected(coarse, diameter_px=40)[0], denoise_corrected(fine, diameter_px=80)[0]
    assert one == pytest.approx(two, abs=0.02)


@BOTH
def test_particles_stand_out_more_than_in_the_shrunk_micrograph(chosen):
    """Contrast of the particles' centres in standard deviations of the background, ten sigma away."""
    centres = lattice_of_centres(pitch_px=120, count=6)
    pixels = 3 * noise((760, 760)) - draw_blobs((760, 760), centres, sigma_px=14)
    denoised, scale = denoise_corrected(pixels, diameter_px=50, settings=chosen)
    shrunk, _ = resample(pixels, factor=24 / 50)

    def contrast(image):
        centre = np.rint(scale.to_working_xy(centres)).astype(int)
        between = np.rint(scale.to_working_xy(centres + 60)).astype(int).clip(0, image.shape[0] - 1)
        particle, background = image[centre[:, 1], centre[:, 0]], image[between[:, 1], between[:, 0]]
        return (background.mean() - particle.mean()) / background.std()

    assert contrast(denoised) > 1.3 * contrast(shrunk)


@pytest.mark.parametrize("diameter_px", [0.0, -3.0, np.nan, np.inf])
def test_an_impossible_diameter_is_refused(diameter_px):
    with pytest.raises(SettingsError, match="diameter_px"):
        denoise_corrected(noise((40, 40)), diameter_px=diameter_px)


@pytest.mark.parametrize(
    "wrong", [{"particle_px": 0}, {"nlm_strength": -1}, {"clip_limit": 1.5}, {"guided_epsilon": np.nan}]
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        CorrectedSettings(**wrong)


def test_a_4096_micrograph_costs_less_than_one_second_of_two_cores():
    """Processor time of all threads, which other programs on the machine hardly change; smaller particles cost more."""
    pixels = np.tile(noise((512, 512)), (8, 8))
    denoise_corrected(pixels[:256, :256], diameter_px=60)  # imports are not the micrograph's
    start = time.process_time()
    denoise_corrected(pixels, diameter_px=60)
    assert time.process_time() - start < 2.0


@pytest.mark.real
@pytest.mark.parametrize("name", ["apoferritin", "bgal10017"])
@BOTH
def test_labelled_particles_differ_more_from_the_background_than_before(name, chosen):
    """Over all particles: darkness of the inner disc, in deviations of the same at random places between particles."""
    if not (REAL / name).is_dir():
        pytest.skip("the real labelled micrographs are not part of the repository")
    import cv2

    diameter_px = json.loads((REAL / name / "set.json").read_text())["diameter_px"]
    table = sorted((REAL / name).glob("*.csv"))[0]
    image = next(path for path in table.parent.glob(f"{table.stem}.*") if path.suffix != ".csv")
    pixels = cv2.imread(str(image), cv2.IMREAD_UNCHANGED).astype(np.float32)
    with table.open() as file:
        centres = np.array([(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)])
    denoised, scale = denoise_corrected(pixels, diameter_px=diameter_px, settings=chosen)
    shrunk, _ = resample(pixels, factor=24 / diameter_px)
    at = scale.to_working_xy(centres)
    elsewhere = np.random.default_rng(0).uniform(0, 1, (4000, 2)) * (denoised.shape[1] - 1, denoised.shape[0] - 1)
    distance = np.min(np.hypot(*(elsewhere[:, None] - at).transpose(2, 0, 1)), axis=1)
    elsewhere = elsewhere[distance > 0.6 * 24]

    def contrast(image):
        darkness = -cv2.blur(image, (17, 17))
        particle, other = (
            darkness[tuple(np.rint(xy[:, ::-1]).astype(int).clip(0, np.array(image.shape) - 1).T)]
            for xy in (at, elsewhere)
        )
        return (particle.mean() - other.mean()) / other.std()

    assert contrast(denoised) > contrast(shrunk)
