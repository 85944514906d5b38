"""The synthetic micrographs of the segmentation + CRF picker against what its description says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.processing.ctf import ctf_2d
from cryopick.simulation.published.segmentation_crf import (
    WholeImageNoise,
    any_recipe_from_toml,
    segmentation_crf_recipe,
    simulate_segmentation_crf,
)
from cryopick.simulation.recipe import recipe_to_toml
from cryopick.simulation.recipe_words import recipe_with
from cryopick.simulation.scene.optics import contrast_transfer
from cryopick.simulation.series import SimulationSettings, read_settings
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.workflows.simulate import simulate

PIXEL_SIZE = 7.0


@pytest.fixture(scope="module")
def imager():
    volume = random_protein(np.random.default_rng(3), diameter_angstrom=140.0, voxel_size_angstrom=PIXEL_SIZE)
    return SpecimenImager(Specimen(volume, 140.0), PIXEL_SIZE)


@pytest.fixture(scope="module")
def recipe():
    whole = recipe_with("segmentation-crf", size="640x512", pixel_size_angstrom=PIXEL_SIZE)
    return replace(whole, segmentation_crf=WholeImageNoise(particles=60))


@pytest.fixture(scope="module")
def simulated(recipe, imager):
    return simulate_segmentation_crf(recipe, 5, imagers=[imager])


def test_the_recipe_holds_the_published_numbers():
    recipe = segmentation_crf_recipe()
    assert recipe.shape_yx == (4096, 4096)
    assert recipe.pixel_size_angstrom == 1.77
    assert (recipe.segmentation_crf.particles, recipe.segmentation_crf.variance_snr) == (150, 0.1)
    optics = recipe.optics
    assert (optics.voltage_kv, optics.spherical_aberration_mm) == ((300.0,), (2.7,))
    assert optics.amplitude_contrast == (0.1, 0.1)
    assert optics.b_factor_angstrom2 == (0.0, 0.0)
    assert min(optics.defocus_um) > 0  # the overfocused outlier of the published list is left out


def test_centres_are_more_than_a_box_apart_and_boxes_lie_inside(simulated, imager):
    xy, box = simulated.xy_px, imager.size_px
    assert len(xy) == 60
    gaps = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))[~np.eye(60, dtype=bool)]
    assert gaps.min() > box
    assert xy.min() >= box // 2
    assert xy[:, 0].max() <= 512 - box + box // 2
    assert xy[:, 1].max() <= 640 - box + box // 2
    assert (xy == np.rint(xy)).all()


def test_noise_has_ten_times_the_variance_of_the_whole_clean_micrograph(simulated, recipe, imager):
    clean = simulate_segmentation_crf(
        replace(recipe, segmentation_crf=WholeImageNoise(particles=60, variance_snr=1e12)), 5, imagers=[imager]
    ).micrograph.pixels
    noise = simulated.micrograph.pixels - clean
    assert clean.var() / noise.var() == pytest.approx(0.1, rel=0.01)
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01  # white


def test_the_transfer_is_minus_the_amplitude_contrast_at_frequency_zero_and_particles_are_dark(simulated, imager):
    transfer = ctf_2d((64, 64), PIXEL_SIZE, simulated.ctf)
    assert transfer[0, 0] == pytest.approx(-0.1, abs=1e-6)
    inside = simulated.instances > 0
    pixels = simulated.micrograph.pixels
    assert pixels[inside].mean() < pixels[~inside].mean()


def test_a_box_holds_the_projection_seen_through_the_ctf_and_nothing_else(recipe, imager):
    clean = simulate_segmentation_crf(
        replace(recipe, segmentation_crf=WholeImageNoise(particles=3, variance_snr=1e12)), 9, imagers=[imager]
    )
    half, side = imager.size_px // 2, imager.size_px
    image = imager.images(clean.euler_deg[:1], np.zeros((1, 2)))[0]
    expected = fft.irfft2(fft.rfft2(image) * contrast_transfer(image.shape, PIXEL_SIZE, clean.ctf), s=image.shape)
    x, y = clean.xy_px[0].astype(int)
    window = clean.micrograph.pixels[y - half : y - half + side, x - half : x - half + side]
    np.testing.assert_allclose(window, expected, atol=1e-4 * np.abs(expected).max())


def test_silhouettes_are_centred_on_their_particles(simulated):
    for number in (1, 7, 60):
        rows, columns = np.nonzero(simulated.instances == number)
        offset = np.hypot(columns.mean() - simulated.xy_px[number - 1, 0], rows.mean() - simulated.xy_px[number - 1, 1])
        assert offset < 3.0  # of 20 px: density is not quite even


def test_same_seed_same_micrograph_and_another_index_another_one(recipe, imager, simulated):
    again = simulate_segmentation_crf(recipe, 5, imagers=[imager])
    np.testing.assert_array_equal(again.micrograph.pixels, simulated.micrograph.pixels)
    other = simulate_segmentation_crf(recipe, 5, imagers=[imager], index=1)
    assert not np.array_equal(other.xy_px, simulated.xy_px)


def test_too_many_particles_are_refused(recipe, imager):
    crowded = replace(recipe, segmentation_crf=WholeImageNoise(particles=5000))
    with pytest.raises(SettingsError, match="do not fit"):
        simulate_segmentation_crf(crowded, 0, imagers=[imager])


def test_the_recipe_survives_its_file_and_a_simulated_folder(tmp_path, recipe):
    small = replace(recipe, shape_yx=(256, 256), segmentation_crf=WholeImageNoise(particles=4, variance_snr=0.5))
    assert any_recipe_from_toml(recipe_to_toml(small)) == small
    settings = SimulationSettings(diameter_angstrom=(140.0, 140.0), recipe=small, seed=2)
    summary = simulate(tmp_path / "sim", settings, count=1)
    assert summary.particles == 4
    assert read_settings(tmp_path / "sim") == settings
