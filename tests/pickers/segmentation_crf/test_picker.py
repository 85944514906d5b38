"""The segmentation picker around its network: coordinates, filters, settings; and its shipped weights."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.errors import SettingsError, WeightsError
from cryopick.geometry.units import Length
from cryopick.io.weights import find_weights
from cryopick.pickers.segmentation_crf.model import (
    CELLS_PER_DIAMETER,
    CLASS_COUNT,
    CORE,
    CRFS,
    HOLLOW,
    JUNK,
    RIM,
    SegmentationModel,
    intensity_guide,
    load_segmentation,
)
from cryopick.pickers.segmentation_crf.network import CLASSES
from cryopick.pickers.segmentation_crf.picker import BACKBONES, SegmentationCrfPicker
from cryopick.pickers.survey import Survey
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import resample
from cryopick.simulation.published.segmentation_crf import (
    WholeImageNoise,
    segmentation_crf_recipe,
    simulate_segmentation_crf,
)
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import JUNK_MAP, Micrograph

DIAMETER_PX = 36.0
GIVEN = Length(DIAMETER_PX, DIAMETER_PX, "px")
ON_DRAWINGS = {"diameter": GIVEN, "views": 1, "added_noise": 0.0, "recentre": False}
SEEN_ON_DRAWINGS = Survey(particle_size=GIVEN)
"""For networks that do not look: what depends on the micrograph is left out."""


class PerfectNetwork:
    """Answers with the drawn particles, whatever it is shown."""

    stride_px, multiple_px, device = 2, 1, "cpu"

    def __init__(self, xy_px, shape_yx, *, junk_xy=None, radius_cells=5.0):
        self.xy_px, self.shape_yx, self.junk_xy, self.radius = xy_px, shape_yx, junk_xy, radius_cells

    def __call__(self, planes):
        height, width = (-(-side // 2) for side in planes.shape[1:])
        y, x = np.mgrid[:height, :width]
        logits = np.zeros((CLASS_COUNT + 6, height, width), np.float32)
        logits[0] = 6.0
        factor_y, factor_x = planes.shape[1] / self.shape_yx[0], planes.shape[2] / self.shape_yx[1]

        def paint(xy, radius, label):
            cx = (xy[0] + 0.5) * factor_x / 2 - 0.5
            cy = (xy[1] + 0.5) * factor_y / 2 - 0.5
            share = np.clip(radius + 0.5 - np.hypot(x - cx, y - cy), 0, 1)
            logits[label] = np.maximum(logits[label], 14 * share)

        for xy in self.xy_px:
            paint(xy, self.radius, RIM)
        for xy in self.xy_px:
            paint(xy, 2.5, CORE)
            logits[RIM][logits[CORE] > 7] = 0
        if self.junk_xy is not None:
            paint(self.junk_xy, 8.0, JUNK)
        return logits


@pytest.fixture
def answer_with(monkeypatch):
    def use(network):
        model = SegmentationModel(network, 2, {}, dict.fromkeys(CRFS, Calibration.none()))
        monkeypatch.setattr("cryopick.pickers.segmentation_crf.picker.load_segmentation", lambda *_, **__: model)

    return use


def micrograph(shape_yx=(301, 407)):
    return Micrograph(np.random.default_rng(0).normal(size=shape_yx), name="m", pixel_size_angstrom=2.0)


CENTRES = np.array([[60.4, 70.2], [97.0, 70.2], [200.7, 150.3], [330.2, 240.9]])


def gaps(found, centres):
    return np.hypot(*(found[None] - centres[:, None]).transpose(2, 0, 1)).min(axis=1)


@pytest.mark.parametrize("crf", ["none", "dense"])
@pytest.mark.parametrize("split", ["core", "distance"])
def test_picks_lie_on_the_centres_in_stored_pixels(answer_with, crf, split):
    image = micrograph()
    answer_with(PerfectNetwork(CENTRES, image.shape_yx))
    picks = SegmentationCrfPicker(**ON_DRAWINGS, crf=crf, split=split).pick(image, SEEN_ON_DRAWINGS)
    strong = picks.xy_px[picks.score > 0.35]
    assert len(strong) == len(CENTRES)
    assert gaps(strong, CENTRES).max() < (0.03 if split == "core" else 0.07) * DIAMETER_PX
    assert (picks.diameter_px == DIAMETER_PX).all()


def test_regions_of_wrong_size_are_filtered(answer_with):
    image = micrograph()
    answer_with(PerfectNetwork(CENTRES[2:], image.shape_yx))
    area = 1.0  # of a disc of the diameter
    assert (
        len(SegmentationCrfPicker(**ON_DRAWINGS, min_area=0.5 * area, max_area=1.5).pick(image, SEEN_ON_DRAWINGS)) == 2
    )
    assert (
        len(SegmentationCrfPicker(**ON_DRAWINGS, min_area=1.5 * area, max_area=3.0).pick(image, SEEN_ON_DRAWINGS)) == 0
    )


def test_junk_is_mapped_for_the_selection(answer_with):
    image = micrograph()
    answer_with(PerfectNetwork(CENTRES[:1], image.shape_yx, junk_xy=(300.0, 200.0)))
    maps = SegmentationCrfPicker(**ON_DRAWINGS).pick(image, SEEN_ON_DRAWINGS).maps
    height, width = maps[JUNK_MAP].shape
    assert maps[JUNK_MAP][int(200 / 301 * height), int(300 / 407 * width)] > 0.9
    assert maps["particle probability"][int(70 / 301 * height), int(60 / 407 * width)] > 0.9


def test_an_answer_of_background_alone_gives_no_pick(answer_with):
    image = micrograph()
    answer_with(PerfectNetwork(np.zeros((0, 2)), image.shape_yx))
    assert len(SegmentationCrfPicker(**ON_DRAWINGS).pick(image, SEEN_ON_DRAWINGS)) == 0


def test_the_guide_is_the_low_passed_image_at_the_stride_of_the_maps_in_its_own_deviations():
    rng = np.random.default_rng(1)
    detail = rng.normal(size=(61, 80)).astype(np.float32)
    detail[20:40, 30:50] -= 3
    guide = intensity_guide(detail, stride_px=2)
    assert guide.shape == (31, 40)
    outside = np.ones(guide.shape, bool)
    outside[8:22, 13:27] = False
    assert 0.7 < guide[outside].std() < 1.3
    assert guide[14:16, 19:21].mean() < -4  # noise is averaged away, the particle is not
    assert (intensity_guide(np.zeros((8, 8), np.float32), stride_px=2) == 0).all()


class ShiftedNetwork:
    """Answers with the mean of each block of its input, `shift` cells too far to the right."""

    stride_px, multiple_px, device = 2, 16, "cpu"

    def __init__(self, shift):
        self.shift = shift

    def __call__(self, planes):
        height, width = (side + side % 2 for side in planes.shape[1:])
        padded = np.zeros((height, width), np.float32)
        padded[: planes.shape[1], : planes.shape[2]] = planes[0]
        cells = padded.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        return np.roll(cells, self.shift, axis=1)[None]


def seen_by(network, planes, views):
    return SegmentationModel(network, 2, {}, {}).maps(planes, views=views)[0]


def test_maps_of_mirror_images_lie_on_each_other_for_any_size_and_their_mean_has_no_side():
    planes = np.zeros((2, 61, 83), np.float32)
    planes[0, 20:24, 40:44] = 1
    expected = np.zeros((31, 42), np.float32)
    expected[10:12, 20:22] = 1
    for views in (1, 2, 4):
        np.testing.assert_allclose(seen_by(ShiftedNetwork(0), planes, views), expected)
    columns = np.arange(42)
    assert (seen_by(ShiftedNetwork(1), planes, 1).sum(0) @ columns) / 4 == pytest.approx(21.5)
    for views in (2, 4):
        assert (seen_by(ShiftedNetwork(1), planes, views).sum(0) @ columns) / 4 == pytest.approx(20.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crf": "gaussian"}, "crf is"),
        ({"backbone": "vgg16"}, "backbone is"),
        ({"crf": "conv", "crf_parameters": "published"}, "dense CRF"),
        ({"min_area": 2.0, "max_area": 1.0}, "min_area"),
        ({"precision": "float8"}, "precision"),
        ({"views": 3}, "views"),
        ({"added_noise": -1.0}, "added_noise"),
        ({"diameter": Length(80.0, 120.0, "px")}, "one diameter"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        SegmentationCrfPicker(**settings)


def test_large_backbones_say_that_they_need_weights():
    with pytest.raises(WeightsError, match="--weights"):
        SegmentationCrfPicker(diameter=GIVEN, backbone="fcn-resnet50").pick(micrograph((64, 64)))


def test_published_settings_of_the_dense_crf_can_be_asked_for_with_their_fault():
    right = SegmentationCrfPicker(crf="dense", crf_parameters="published").dense_crf
    wrong = SegmentationCrfPicker(crf="dense", crf_parameters="published-with-axis-fault").dense_crf
    assert right.appearance_sigma == pytest.approx((10 / 108, 10 / 108))
    assert wrong.appearance_sigma == pytest.approx((10 / 108, 1 / 108))
    assert right.guide_sigma == wrong.guide_sigma == 0.5


def test_planes_of_network_and_picker_have_the_same_order():
    order = [CLASSES[number] for number in (RIM, CORE, HOLLOW, JUNK)]
    assert order == ["rim", "core", "hollow", "junk"]
    assert len(CLASSES) == CLASS_COUNT


# -------------------------------------------------------------------------------------------------- shipped weights


@pytest.fixture(scope="module")
def shipped():
    try:
        find_weights("segmentation-crf")
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backbone", BACKBONES[:2])
@pytest.mark.parametrize("crf", CRFS)
def test_every_shipped_configuration_finds_discs(shipped, backbone, crf, draw_particles, count_found):
    image, true_xy = draw_particles(diameter_px=30.0)
    picks = SegmentationCrfPicker(diameter=Length(30.0, 30.0, "px"), backbone=backbone, crf=crf).pick(image)
    kept = picks.xy_px[picks.score >= SegmentationCrfPicker.default_threshold]
    assert count_found(kept, true_xy, 0.15 * 30.0) >= 0.9 * len(true_xy)
    assert len(kept) <= 1.2 * len(true_xy)


def test_crfs_change_the_map_but_hardly_where_the_network_is_sure(shipped, draw_particles):
    image, _ = draw_particles(diameter_px=30.0)
    model = load_segmentation("segmentation-crf", backbone="small", head="fcn")
    working, _ = resample(image.pixels, factor=2 * CELLS_PER_DIAMETER / 30.0)
    plain = model.before_and_after(working)[1]
    for crf in CRFS[1:]:
        refined = model.before_and_after(working, crf=crf)[1]
        np.testing.assert_allclose(refined.sum(0), 1, atol=1e-4)
        assert np.abs(refined - plain).max() > 0.01
        sure = plain.max(axis=0) > 0.99
        assert (refined.argmax(0) == plain.argmax(0))[sure].mean() > 0.98


def recipe_micrograph(variance_snr, *, particles=12):
    """The authors' recipe, smaller, at any strength."""
    volume = random_protein(
        np.random.default_rng(3), diameter_angstrom=191.0, voxel_size_angstrom=1.77, family="assembly"
    )
    noise = WholeImageNoise(particles=particles, variance_snr=variance_snr)
    recipe = replace(segmentation_crf_recipe(), shape_yx=(1024, 1024), segmentation_crf=noise)
    return simulate_segmentation_crf(recipe, 5, imagers=[SpecimenImager(Specimen(volume, 191.0), 1.77)])


RECIPE_DIAMETER = Length(191.0, 191.0, "A")


def test_particles_of_very_high_contrast_are_taken_for_dirt_where_no_noise_is_added(shipped):
    one = recipe_micrograph(0.2)  # twice as published, of which half are found without
    untouched = SegmentationCrfPicker(diameter=RECIPE_DIAMETER, added_noise=0.0, views=1).pick(one.micrograph)
    assert (untouched.score >= 0.4).sum() < 0.3 * len(one.xy_px)


@pytest.mark.parametrize("variance_snr", [0.1, 0.2])  # as published, and stronger
def test_particles_of_very_high_contrast_are_found_with_noise_that_the_picker_adds(shipped, variance_snr):
    one = recipe_micrograph(variance_snr)
    assert np.median(one.snr) > 60
    picker = SegmentationCrfPicker(diameter=RECIPE_DIAMETER, views=1)
    seen = picker.survey([one.micrograph])
    assert seen.noise_level > 0
    picks = picker.pick(one.micrograph, seen)
    kept = picks.xy_px[picks.score >= 0.4]
    distance = gaps(kept, one.xy_px) / one.diameter_px
    assert (distance < 0.25).mean() > 0.9
    assert np.median(distance) < 0.04
    assert len(kept) <= 1.2 * len(one.xy_px)


def test_ordinary_particles_need_no_noise(shipped):
    one = recipe_micrograph(0.004)
    assert 10 < np.median(one.snr) < 30
    picker = SegmentationCrfPicker(diameter=RECIPE_DIAMETER)
    seen = picker.survey([one.micrograph])
    assert seen.noise_level == 0
    pixels = np.random.default_rng(1).normal(size=(1024, 1024)).astype(np.float32)
    empty = picker.survey([replace(one.micrograph, pixels=pixels)])
    assert empty.noise_level == 0
