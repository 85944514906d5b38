"""The general picker without its weights: targets and their inverse, tiles, calibration, merged scales."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.heatmap.model import STRIDE_PX, HeatmapModel, centres_from_maps, heatmap_model, picks_at_scale
from cryopick.heatmap.targets import TARGET_RADIUS, centre_targets
from cryopick.inference.looks import LOOKS
from cryopick.pickers.general.picker import _merge_scales, _scales_px
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.types import Micrograph, Picks


def maps_of(xy_px, diameter_px, shape_yx):
    centre, geometry = centre_targets(xy_px, diameter_px, shape_yx=shape_yx, stride_px=STRIDE_PX)
    return np.concatenate([centre[None], geometry, np.zeros_like(centre)[None]])


def test_targets_give_back_the_centres_and_sizes_they_were_made_from():
    rng = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(5), np.arange(4))
    xy_px = np.stack([columns.ravel(), rows.ravel()], 1) * 40.0 + 25 + rng.uniform(-6, 6, (20, 2))
    diameter_px = rng.uniform(18, 32, 20)
    maps = maps_of(xy_px, diameter_px, (96, 120))
    found, index = centres_from_maps(maps, stride_px=STRIDE_PX)
    distance = np.linalg.norm(found[:, None] - xy_px[None], axis=2)
    assert set(distance.argmin(axis=1)) == set(range(20))
    assert distance.min(axis=1).max() < 1e-3
    sizes = NOMINAL_PARTICLE_PX * np.exp(maps[3, index[:, 0], index[:, 1]])
    assert np.allclose(sizes, diameter_px[distance.argmin(axis=1)], rtol=1e-5)


def test_target_disc_covers_the_area_of_its_radius():
    centre, _ = centre_targets(np.array([[100.0, 100.0]]), np.array([60.0]), shape_yx=(100, 100), stride_px=STRIDE_PX)
    radius = TARGET_RADIUS * 60 / STRIDE_PX
    assert centre.sum() == pytest.approx(np.pi * radius**2, rel=0.08)


def test_pixels_between_two_particles_belong_to_the_nearer_one():
    xy_px = np.array([[40.0, 40.0], [48.0, 40.0]])
    _, geometry = centre_targets(xy_px, np.array([30.0, 30.0]), shape_yx=(40, 60), stride_px=STRIDE_PX)
    row = 20
    columns = np.arange(18, 26)
    pointed_at = (columns + geometry[0, row, columns] + 0.5) * STRIDE_PX - 0.5
    expected = np.where(np.abs((columns + 0.5) * 2 - 0.5 - 40) <= np.abs((columns + 0.5) * 2 - 0.5 - 48), 40, 48)
    assert np.allclose(pointed_at, expected)


def test_a_centre_at_the_corner_is_found():
    found, _ = centres_from_maps(maps_of(np.array([[0.0, 0.0]]), np.array([24.0]), (32, 32)), stride_px=STRIDE_PX)
    assert np.allclose(found, [[0.0, 0.0]], atol=1e-3)


@pytest.fixture(scope="module")
def model():
    torch = pytest.importorskip("torch")
    from cryopick.heatmap.network import HeatmapUNet

    torch.manual_seed(1)
    network = HeatmapUNet(widths=(8, 8, 8)).eval()
    return heatmap_model(network, Calibration.none(), device="cpu", precision="float32")


def test_tiles_equal_the_whole(model):
    working = np.random.default_rng(1).normal(size=(700, 610)).astype(np.float32)
    whole = model(working)
    tiled = replace(model, dense=replace(model.dense, tile_px=256))(working)
    assert whole.shape == (5, 350, 305)
    assert np.allclose(whole, tiled, atol=1e-5)


def test_odd_sizes_keep_every_pixel(model):
    assert model(np.zeros((33, 47), np.float32)).shape == (5, 17, 24)


class DiscFinder:
    """In place of a network: sees the one bright disc of an image, wherever and however large it is shown."""

    multiple_px, stride_px = 16, STRIDE_PX

    def __call__(self, planes):
        rows, columns = np.nonzero(planes[0] > 0.5 * planes[0].max())
        xy_px = np.array([[columns.mean(), rows.mean()]])
        diameter_px = np.array([2 * np.sqrt(len(rows) / np.pi)])
        shape_yx = -(-planes.shape[1] // STRIDE_PX), -(-planes.shape[2] // STRIDE_PX)
        maps = maps_of(xy_px, diameter_px, shape_yx).astype(np.float32)
        maps[[0, 4]] = 60 * maps[[0, 4]] - 30
        return maps


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.factor}, {look.step_yx}")
def test_every_look_points_at_the_same_centre_and_tells_the_same_size(look):
    y, x = np.mgrid[:501, :437]
    disc = (np.hypot(x - 171.3, y - 308.6) < 30).astype(np.float32)
    finder = HeatmapModel(DiscFinder(), Calibration.none())
    alone = picks_at_scale(finder, Micrograph(disc), diameter_px=60, looks=(LOOKS[0],))
    joined = picks_at_scale(finder, Micrograph(disc), diameter_px=60, looks=(LOOKS[0], look))
    for found in (alone, joined):
        assert np.allclose(found.xy_px[0], [171.3, 308.6], atol=0.6)
    assert joined.diameter_px[0] == pytest.approx(alone.diameter_px[0], rel=0.04)


def test_calibration_reads_between_its_knots():
    calibrated = Calibration(np.array([[-2.0, 0, 2], [0.1, 0.3, 0.9]]))
    logit = np.array([-9.0, -2.0, 1.0, 9.0])
    probability = (1 / (1 + np.exp(-logit))).astype(np.float32)
    assert np.allclose(calibrated(probability), [0.1, 0.1, 0.6, 0.9], atol=1e-5)


def test_a_range_of_diameters_is_covered_in_steps_that_the_network_bridges():
    scales = _scales_px(50, 200)
    assert scales[0] == pytest.approx(50)
    assert scales[-1] == pytest.approx(200)
    assert np.all(np.array(scales[1:]) / np.array(scales[:-1]) <= 1.6)
    assert _scales_px(80, 80) == [pytest.approx(80)]


def test_of_two_scales_finding_one_particle_the_better_stays():
    small = Picks(
        np.array([[10.0, 10.0], [90.0, 90.0]]), score=np.array([0.9, 0.2]), diameter_px=np.array([20.0, 20.0])
    )
    large = Picks(
        np.array([[12.0, 10.0], [50.0, 50.0]]), score=np.array([0.5, 0.8]), diameter_px=np.array([30.0, 30.0])
    )
    merged = _merge_scales([small, large])
    assert merged.xy_px.tolist() == [[10, 10], [50, 50], [90, 90]]
    assert np.allclose(merged.score, [0.9, 0.8, 0.2])
