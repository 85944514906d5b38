"""Layout, ice, dirt, camera and looks, each against a property that can be checked by itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import fft
from scipy.spatial import cKDTree

from cryopick.errors import SettingsError
from cryopick.processing.ctf import CtfParameters, interaction_constant
from cryopick.simulation.recipe import DirtRanges, LookRanges, Recipe
from cryopick.simulation.scene import archive as looks
from cryopick.simulation.scene import detector, dirt, ice, layout
from cryopick.simulation.scene.optics import contrast_transfer


def test_scattered_centres_keep_their_distance_and_margin() -> None:
    xy = layout.scatter(np.random.default_rng(0), (300, 400), count=150, min_distance_px=18.0, margin_px=10)
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    assert len(xy) == 150
    assert nearest.min() >= 18.0
    assert xy.min() >= 9.5
    assert xy[:, 0].max() <= 389.5
    assert xy[:, 1].max() <= 289.5


def test_keep_apart_prefers_earlier_points() -> None:
    points = np.array([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0], [20.0, 0.0]])
    np.testing.assert_array_equal(layout.keep_apart(points, min_distance_px=5.0), [True, False, True, True])
    assert layout.keep_apart(points, min_distance_px=3.0).all()


def test_packed_layer_is_denser_than_random_addition_can_be() -> None:
    xy = layout.pack(np.random.default_rng(1), (400, 400), spacing_px=20.0, jitter=0.03)
    coverage = len(xy) * np.pi * 10**2 / 400**2
    assert 0.8 < coverage < 0.95  # random sequential addition jams at 0.547, the hexagonal lattice has 0.907


def test_smooth_field_has_zero_mean_and_unit_variance_at_every_pixel() -> None:
    rng = np.random.default_rng(2)
    fields = np.stack([ice.smooth_field(rng, (30, 50), cells=5) for _ in range(3000)])
    np.testing.assert_allclose(fields.mean(axis=0), 0, atol=0.09)
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.08)


def test_graininess_is_that_of_molecules_thrown_at_random() -> None:
    rng = np.random.default_rng(3)
    pixel, thickness = 5.0, 200.0
    per_pixel = ice.WATER_PER_ANGSTROM3 * thickness * pixel**2
    thrown = rng.poisson(per_pixel, 200_000) * ice.WATER_VOLT_ANGSTROM3 / pixel**2  # V Å, projected
    expected = ice.graininess_volt_angstrom(thickness, pixel_size_angstrom=pixel, structure_factor=1.0)
    assert float(expected) == pytest.approx(thrown.std(), rel=0.02)


def test_electrons_are_counted_with_poisson_noise() -> None:
    rng = np.random.default_rng(4)
    for electrons in (20.0, 900.0):
        image = detector.expose(rng, np.full((400, 400), 1.5, np.float32), electrons_per_pixel=electrons)
        assert image.mean() == pytest.approx(1.5, rel=0.01)
        assert image.var() == pytest.approx(1.5 / electrons, rel=0.03)


def test_replicated_border_repeats_the_outermost_good_pixel() -> None:
    image = np.arange(48, dtype=np.float32).reshape(6, 8)
    inner = image[2:5, 1:6].copy()
    mask = detector.replicate_border(image, widths_px=(2, 1, 1, 2))
    np.testing.assert_array_equal(image[2:5, 1:6], inner)
    np.testing.assert_array_equal(image[0, 1:6], inner[0])
    np.testing.assert_array_equal(image[2:5, 7], inner[:, -1])
    assert image[5, 7] == inner[-1, -1]
    assert mask.sum() == 48 - 15


def test_dead_lines_copy_their_neighbour_and_are_marked() -> None:
    image = np.random.default_rng(5).normal(size=(40, 40)).astype(np.float32)
    before = image.copy()
    mask = detector.add_dead_lines(np.random.default_rng(6), image, count=2)
    assert mask.any()
    np.testing.assert_array_equal(image[~mask], before[~mask])
    assert not np.array_equal(image[mask], before[mask])


def test_hot_pixels_stand_out_and_no_others_change() -> None:
    image = np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32)
    before = image.copy()
    detector.add_hot_pixels(np.random.default_rng(6), image, count=5, strength=20)
    changed = np.abs(image - before) > 0
    assert 1 <= changed.sum() <= 5
    assert np.abs(image - before)[changed].min() > 15


def test_matter_is_dark_at_the_amplitude_contrast_of_a_wide_object() -> None:
    # A very wide slab has almost only low frequencies, where the CTF is minus the amplitude contrast.
    optics = CtfParameters(defocus_u_um=0.0, defocus_v_um=0.0, spherical_aberration_mm=0.0, amplitude_contrast=0.1)
    transfer = contrast_transfer((256, 256), 4.0, optics)
    slab = np.full((256, 256), 100.0, np.float32)  # V Å
    contrast = fft.irfft2(fft.rfft2(slab) * transfer, s=slab.shape)
    np.testing.assert_allclose(contrast, -2 * 0.1 * interaction_constant(300.0) * 100.0, rtol=1e-3)


@pytest.mark.parametrize("kind", dirt.KINDS)
def test_each_kind_of_dirt_is_marked_as_junk_and_darkens_or_roughens(kind: str) -> None:
    marked = 0
    for seed in range(6):
        scene = dirt.Scene((160, 200), 8.0)
        dirt.add_dirt(
            scene,
            np.random.default_rng(seed),
            DirtRanges(),
            kinds=[kind],
            particle_angstrom=160.0,
            particle_volt_angstrom=300.0,
        )
        assert np.isfinite(scene.potential).all()
        if scene.junk.any() and not scene.junk.all():
            marked += 1
            inside = np.abs(scene.potential[scene.junk]).mean() + scene.grain[scene.junk].mean()
            outside = np.abs(scene.potential[~scene.junk]).mean() + scene.grain[~scene.junk].mean()
            assert inside > 2 * outside
    assert marked >= 4


def test_crystalline_ice_is_junk_where_it_is_mottled_and_not_between_coarse_grains() -> None:
    def patch(*, grain_px: float, strength: float) -> dirt.Scene:
        scene = dirt.Scene((240, 240), 1.0)
        dirt.add_crystalline_patch(
            scene,
            np.random.default_rng(3),
            grain_angstrom=grain_px,
            strength_volt_angstrom=strength,
            particle_angstrom=20.0,
            particle_volt_angstrom=100.0,
            share=1.0,
        )
        return scene

    assert patch(grain_px=4, strength=200).junk.mean() > 0.95  # every neighbourhood holds strong grains
    assert not patch(grain_px=4, strength=10).junk.any()
    coarse = patch(grain_px=60, strength=100)
    assert 0.1 < coarse.junk.mean() < 0.6
    inside = cv2.blur(coarse.potential, (20, 20))
    assert coarse.junk[np.abs(inside) > 101].all()  # a grain as dark as a particle
    assert not coarse.junk[cv2.dilate(np.abs(coarse.potential), np.ones((21, 21))) < 50].any()


def test_band_pass_halves_at_the_two_lengths_and_keeps_the_mean() -> None:
    x = np.arange(512)
    for longest, shortest in ((64.0, None), (None, 16.0)):
        period = longest or shortest
        wave = np.tile(np.cos(2 * np.pi * x / period), (512, 1)).astype(np.float32) + 7
        passed = looks.band_pass(wave, longest_px=longest, shortest_px=shortest)
        assert passed.mean() == pytest.approx(7, abs=0.01)
        inner = passed[150:-150, 150:-150]  # the mirrored border breaks the wave's rhythm
        assert inner.max() - 7 == pytest.approx(0.5, abs=0.02)


def test_8_bit_looks_hold_whole_numbers_and_jpeg_stays_close() -> None:
    image = np.random.default_rng(8).normal(size=(64, 80)).astype(np.float32)
    look = looks.Look(is_8_bit=True, jpeg_quality=95)
    stored = looks.apply_look(image, look)
    assert stored.min() >= 0
    assert stored.max() <= 255
    np.testing.assert_array_equal(stored, np.rint(stored))
    plain = looks.apply_look(image, looks.Look(is_8_bit=True))
    assert np.corrcoef(stored.ravel(), plain.ravel())[0, 1] > 0.98
    with pytest.raises(SettingsError, match="'sharpen' is unknown"):
        looks.denoise_8_bit(stored.astype(np.uint8), method="sharpen", strength=0.5)


@pytest.mark.parametrize("method", ["nlm", "bilateral", "median"])
def test_denoisers_bring_a_noisy_disc_closer_to_the_clean_one(method: str) -> None:
    y, x = np.mgrid[:96, :96]
    clean = np.where((x - 48) ** 2 + (y - 48) ** 2 < 400, 90.0, 160.0)
    noisy = np.clip(clean + np.random.default_rng(9).normal(0, 25, clean.shape), 0, 255).astype(np.uint8)
    denoised = looks.denoise_8_bit(noisy, method=method, strength=0.6)
    assert np.abs(denoised - clean).mean() < 0.85 * np.abs(noisy - clean).mean()


def test_drawn_looks_cover_raw_and_processed() -> None:
    rng = np.random.default_rng(10)
    drawn = [looks.draw_look(rng, LookRanges(), diameter_px=100, pixel_size_angstrom=1.5) for _ in range(300)]
    share_raw = np.mean([look.shortest_px is None and not look.is_8_bit and look.longest_px is None for look in drawn])
    assert 0.2 < share_raw < 0.6
    assert {look.denoise for look in drawn} == {"", "nlm", "bilateral", "median", "clahe"}


def test_recipe_refuses_probabilities_above_one_and_tiny_images() -> None:
    with pytest.raises(SettingsError, match="probability in"):
        Recipe(dirt=DirtRanges(carbon_probability=1.5))
    with pytest.raises(SettingsError, match="at least 32 pixels"):
        Recipe(shape_yx=(10, 100))
