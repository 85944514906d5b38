"""Whole micrographs: same seed same bytes, exact centres, silhouettes from each particle's own density."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cryopick.errors import SettingsError
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.recipe import Recipe, named_recipe
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.types import Volume


def ball(diameter_angstrom: float, voxel_size_angstrom: float, *, hole: float = 0.0) -> Volume:
    size = 2 * round(0.75 * diameter_angstrom / voxel_size_angstrom)
    axis = (np.arange(size) - size // 2) * voxel_size_angstrom
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    density = np.where((radius < diameter_angstrom / 2) & (radius >= hole * diameter_angstrom / 2), 2.5, 0.0)
    return Volume(gaussian_filter(density, 0.7).astype(np.float32), voxel_size_angstrom, name="ball")


def quiet_recipe(**layout: object) -> Recipe:
    recipe = named_recipe("noise-light")
    return replace(
        recipe,
        shape_yx=(400, 500),
        pixel_size_angstrom=4.0,
        layout=replace(recipe.layout, **layout),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def ball_imager() -> SpecimenImager:
    return SpecimenImager(Specimen(ball(120.0, 4.0), 120.0), 4.0)


def test_same_seed_gives_the_same_bytes_for_any_number_of_threads(ball_imager: SpecimenImager) -> None:
    recipe = replace(Recipe(), shape_yx=(400, 500), pixel_size_angstrom=4.0)
    one = simulate_micrograph(recipe, 5, imagers=[ball_imager], index=3, workers=1)
    two = simulate_micrograph(recipe, 5, imagers=[ball_imager], index=3, workers=2)
    assert one.micrograph.pixels.tobytes() == two.micrograph.pixels.tobytes()
    assert one.instances.tobytes() == two.instances.tobytes()
    other = simulate_micrograph(recipe, 6, imagers=[ball_imager], index=3)
    assert other.micrograph.pixels.tobytes() != one.micrograph.pixels.tobytes()


def test_silhouette_of_a_ball_is_a_disc_at_the_exact_centre(ball_imager: SpecimenImager) -> None:
    simulated = simulate_micrograph(quiet_recipe(spacing_diameters=(1.3, 1.3)), 1, imagers=[ball_imager])
    whole = np.flatnonzero(simulated.visibility > 0.999)
    assert len(whole) > 20
    radius_px = 15.0
    # A ball's chord is 0.15 of its longest where the distance from the centre is sqrt(1 - 0.15^2) radii.
    area = np.pi * radius_px**2 * (1 - 0.15**2)
    for i in whole:
        rows, columns = np.nonzero(simulated.instances == i + 1)
        assert len(rows) == pytest.approx(area, rel=0.06)
        np.testing.assert_allclose([columns.mean(), rows.mean()], simulated.xy_px[i], atol=0.35)


def test_hollow_particles_have_silhouettes_of_their_own_density_not_discs() -> None:
    # A thin ring seen along its axis: build it as a short tube, whose top view has a hole.
    size, voxel = 60, 4.0
    axis = (np.arange(size) - size // 2) * voxel
    radius = np.hypot(axis[:, None], axis[None, :])
    tube = ((radius > 40) & (radius < 60))[None] & (np.abs(axis) < 30)[:, None, None]
    imager = SpecimenImager(Specimen(Volume((2.5 * tube).astype(np.float32), voxel, name="tube"), 130.0), voxel)
    view = imager.images(np.zeros((1, 3)), np.zeros((1, 2)))[0]
    silhouette = view > 0.15 * view.max()
    middle = imager.size_px // 2
    assert not silhouette[middle, middle]
    assert silhouette[middle, middle + 12]


def test_particles_are_dark_and_centred_where_the_truth_says(ball_imager: SpecimenImager) -> None:
    simulated = simulate_micrograph(quiet_recipe(spacing_diameters=(1.5, 1.5)), 2, imagers=[ball_imager])
    pixels = simulated.micrograph.pixels
    height, width = pixels.shape
    inner = [(x, y) for x, y in simulated.xy_px if 25 < x < width - 25 and 25 < y < height - 25]
    average = np.mean([pixels[round(y) - 20 : round(y) + 21, round(x) - 20 : round(x) + 21] for x, y in inner], axis=0)
    assert average[18:23, 18:23].mean() < np.median(average) - 2 * np.std(average[:5])
    darkness = np.clip(np.median(average) - average, 0, None) ** 2
    y, x = np.indices(average.shape)
    assert abs((x * darkness).sum() / darkness.sum() - 20) < 0.7
    assert abs((y * darkness).sum() / darkness.sum() - 20) < 0.7


def test_coordinates_and_origins_together_give_the_exact_centre(ball_imager: SpecimenImager) -> None:
    simulated = simulate_micrograph(quiet_recipe(), 3, imagers=[ball_imager])
    exact = simulated.coordinates_px - simulated.origins_angstrom / 4.0
    np.testing.assert_allclose(exact, simulated.xy_px, atol=1e-9)
    assert np.all(np.abs(simulated.origins_angstrom) <= 0.5 * 4.0 + 1e-9)


def test_particles_cut_by_the_border_keep_their_place_and_lose_visibility(ball_imager: SpecimenImager) -> None:
    simulated = simulate_micrograph(quiet_recipe(coverage=(0.5, 0.5)), 4, imagers=[ball_imager])
    x, y = simulated.xy_px.T
    height, width = simulated.micrograph.shape_yx
    edge = np.min([x, y, width - 1 - x, height - 1 - y], axis=0)
    assert edge.min() < 8
    assert np.all(edge >= -0.5)
    assert np.all(simulated.visibility[edge < 3] < 0.75)


def test_imager_keeps_scale_and_centre_whatever_the_voxel_size_of_the_map() -> None:
    fine = SpecimenImager(Specimen(ball(120.0, 1.7, hole=0.4), 120.0), 3.3)
    coarse = SpecimenImager(Specimen(ball(120.0, 5.1, hole=0.4), 120.0), 3.3)
    spreads = []
    for imager in (fine, coarse):
        image = imager.images(np.zeros((1, 3)), np.array([[0.25, -0.4]]))[0]
        y, x = np.indices(image.shape) - imager.size_px // 2
        total = image.sum()
        assert (x * image).sum() / total == pytest.approx(0.25, abs=0.02)
        assert (y * image).sum() / total == pytest.approx(-0.4, abs=0.02)
        volume = imager.specimen.volume
        integral = volume.density.sum() * volume.voxel_size_angstrom**3  # V Å^3
        # Zero frequency is the one point that interpolation leaves untouched but the correction for it raises.
        assert integral < total * 3.3**2 < 1.05 * integral
        spreads.append(np.sqrt((((x - 0.25) ** 2 + (y + 0.4) ** 2) * image).sum() / total))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02)


def test_wrong_pixel_size_is_refused(ball_imager: SpecimenImager) -> None:
    with pytest.raises(SettingsError, match=r"imaged at 4 Å per pixel, the recipe asks for 1\.5"):
        simulate_micrograph(Recipe(), 0, imagers=[ball_imager])
