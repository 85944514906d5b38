"""DeepCryoPicker and its clustering stages on drawn particles: scale rule, labels, windows, maps, the whole chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from real_data import REAL

from cryopick.data.datasets import open_dataset
from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.weights import read_card
from cryopick.metrics.detection import match_picks, pooled
from cryopick.pickers.deepcryopicker.classifier import (
    Classifier,
    clean_map,
    find_in_maps,
    load_classifier,
    paper_image,
    paper_scale,
)
from cryopick.pickers.deepcryopicker.network import CompactClassifier
from cryopick.pickers.deepcryopicker.objects import (
    IRREGULAR,
    TOP,
    WorkingImage,
    to_picks,
    working_image,
)
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker
from cryopick.pickers.deepcryopicker.self_labels import label_images, why_inconsistent
from cryopick.pickers.deepcryopicker.size import ParticleSize, measure_size
from cryopick.pickers.deepcryopicker.windows import BACKGROUND, BAD, ExampleImage, ExampleWindows, split_images
from cryopick.pickers.exhibits import read_exhibits
from cryopick.pickers.registry import make_picker
from cryopick.processing.regions import find_objects
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, ScaleMap
from cryopick.simulation.specimens.barrels import draw_barrels
from cryopick.types import Micrograph

RINGS = {"shape_yx": (620, 700), "diameter_px": 40.0, "hole": 0.6, "spacing": 1.5, "contrast": 1.2}
RING_SIZE = ParticleSize(Length(40, 40, "px"), 1.0, True, 1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.mark.parametrize(
    ("boxes", "factor"), [([94], 2.375), ([187, 221], 1.0), ([320], 0.625)], ids=["apoferritin", "KLH", "ribosome"]
)
def test_scale_rule_gives_the_papers_factors(boxes, factor):
    assert paper_scale(boxes) == factor


@pytest.mark.parametrize("box", np.linspace(20, 900, 23))
def test_scaled_box_is_the_largest_that_stays_below_the_window(box):
    factor = paper_scale([box])
    assert factor * box < 227 or factor == 0.125
    assert (factor + 0.125) * box >= 227


def test_place_found_in_the_papers_scaled_image_maps_back_within_half_a_pixel():
    pixels = np.random.default_rng(0).normal(0, 0.05, (301, 277)).astype(np.float32)
    y, x = np.mgrid[:301, :277]
    pixels -= 4 * np.exp(-((x - 150.3) ** 2 + (y - 98.6) ** 2) / (2 * 12**2))
    image = paper_image(Micrograph(pixels), diameter_px=60.0, preprocessing="corrected")
    assert image.scale.factor == pytest.approx(paper_scale([78.0]), rel=0.01)
    objects = find_objects(image.pixels <= 0.5 * image.pixels.min())
    found = image.scale.to_stored_xy(objects.xy_px[[np.argmax(objects.area_px)]])[0]
    assert np.hypot(*(found - [150.3, 98.6])) < 0.5


@pytest.mark.parametrize(("hole", "is_hollow"), [(0.7, True), (0.0, False)], ids=["rings", "discs"])
def test_size_of_drawn_particles_is_measured(draw_particles, hole, is_hollow):
    micrographs = [draw_particles(**{**RINGS, "hole": hole, "seed": seed})[0] for seed in (1, 2)]
    size = measure_size(micrographs, diameter=None)
    assert size.is_hollow == is_hollow
    # a disc has no other mark of its size than its edge, which is that of the dark body
    measured = size.diameter.middle_px(2.0) * (1.0 if is_hollow else size.body)
    assert measured == pytest.approx(40.0, rel=0.2)
    assert size.diameter.unit == "A"


def test_noise_has_no_size():
    noise = [Micrograph(np.random.default_rng(seed).normal(size=(500, 500))) for seed in range(3)]
    assert measure_size(noise, diameter=None) is None


def test_labels_are_particles_and_noise_gives_none(draw_particles):
    micrograph, true_xy = draw_particles(**RINGS)
    image = working_image(micrograph, diameter_px=40.0, preprocessing="corrected")
    labelled = label_images([image], RING_SIZE)
    chosen = image.scale.to_stored_xy(labelled[0].xy_px[labelled[0].is_good])
    counts = match_picks(chosen, true_xy, np.zeros((0, 2)), max_distance_px=10).counts
    assert counts.precision > 0.95
    assert counts.recall > 0.3
    assert (labelled[0].view[labelled[0].is_good] == TOP).any()
    assert why_inconsistent(labelled) == ""

    noise = WorkingImage(np.random.default_rng(0).normal(size=(300, 340)).astype(np.float32), ScaleMap((1.0, 1.0)))
    assert "saw no consistent particles" in why_inconsistent(label_images([noise], RING_SIZE))


def test_windows_are_balanced_centred_and_free_of_other_objects():
    pixels = np.zeros((200, 240), np.float32)
    xy = np.array([[60.0, 60.0], [150.0, 60.0], [60.0, 140.0], [150.0, 140.0]])
    for x, y in xy.astype(int):
        pixels[y, x] = -5.0
    image = ExampleImage(pixels, xy, np.array([TOP, TOP, IRREGULAR, -1]))
    windows = ExampleWindows([image], diameter_px=20.0, window_px=21)
    assert windows.counts == {"top view": 2, "irregular": 1}
    drawn, kinds = windows.draw(200, np.random.default_rng(0), is_augmented=False)
    assert drawn.shape == (200, 1, 21, 21)
    np.testing.assert_array_equal(np.bincount(kinds, minlength=5), [100, 50, 0, 50, 0])
    assert (drawn[kinds != BACKGROUND, 0, 10, 10] == -5).all()
    centres = drawn[kinds == BACKGROUND, 0, 5:16, 5:16]
    assert (centres == 0).all()  # no object within a quarter of a diameter of any background window


def test_bad_objects_are_a_class_of_their_own_only_among_five():
    image = ExampleImage(np.zeros((90, 90), np.float32), np.array([[20.0, 20], [60.0, 60]]), np.array([TOP, BAD]))
    four = ExampleWindows([image], diameter_px=20.0, window_px=21)
    five = ExampleWindows([image], diameter_px=20.0, window_px=21, has_bad_class=True)
    rng = np.random.default_rng(0)
    assert BAD not in four.draw(60, rng)[1]
    assert BAD in five.draw(60, rng)[1]


def test_split_keeps_micrographs_apart_and_cuts_a_single_one():
    images = [ExampleImage(np.full((9, 9), i, np.float32), np.zeros((0, 2)), np.zeros(0, int)) for i in range(7)]
    train, validation = split_images(images)
    assert sorted(int(i.pixels[0, 0]) for i in train + validation) == list(range(7))
    only = ExampleImage(np.zeros((50, 100), np.float32), np.array([[10.0, 5.0], [90.0, 5.0]]), np.array([TOP, TOP]))
    left, right = split_images([only])
    np.testing.assert_array_equal(left[0].xy_px, [[10, 5]])
    np.testing.assert_array_equal(right[0].xy_px, [[10, 5]])


def test_large_regions_of_high_score_are_removed_and_small_ones_kept():
    log_odds = np.full((80, 80), -4.0, np.float32)
    log_odds[10:13, 10:13] = 3.0
    log_odds[40:70, 40:70] = 3.0
    cleaned = clean_map(log_odds, diameter=10.0)
    assert cleaned[11, 11] == 3.0
    assert cleaned[40:70, 40:70].max() == -4.0
    found = find_in_maps(log_odds, np.full(log_odds.shape, TOP, np.int32), diameter=10.0)
    np.testing.assert_allclose(found.xy_px, [[11, 11]], atol=0.1)
    assert found.view.tolist() == [TOP]


@pytest.mark.slow
def test_it_labels_trains_and_picks_rings_without_a_label_or_a_number(draw_particles, trained):
    micrographs = [draw_particles(**{**RINGS, "seed": seed}) for seed in (1, 2, 3)]
    picker = DeepCryoPicker(steps=120)
    seen = picker.survey_in(trained, [micrograph for micrograph, _ in micrographs[:2]])
    assert seen.particle_size.middle_px(2.0) == pytest.approx(40, rel=0.15)
    assert "trained on" in seen.sentence
    micrograph, true_xy = micrographs[2]
    picks = select(picker.pick(micrograph, seen), SelectionSettings(), threshold=picker.default_threshold).kept()
    assert match_picks(picks.xy_px, true_xy, np.zeros((0, 2)), max_distance_px=10).counts.f1 > 0.93
    assert (trained / "examples.npz").is_file()

    again = DeepCryoPicker(model=seen.trained_model).survey([micrograph])  # the model knows its diameter
    assert again.particle_size.middle_px(2.0) == pytest.approx(seen.particle_size.middle_px(2.0), rel=1e-4)
    with np.load(trained / "examples.npz") as examples:
        assert {"reason0", "view1", "mask1"} <= set(examples.files)
    classifier = load_classifier(seen.trained_model)
    assert not classifier.is_paper


def test_training_is_repeatable(draw_particles, tmp_path):
    micrograph, _ = draw_particles(**RINGS)
    picker = DeepCryoPicker(diameter=Length(40, 40, "px"), body=1.0, steps=5)
    first, second = (picker.pick(micrograph, picker.survey_in(tmp_path / name, [micrograph])) for name in "ab")
    np.testing.assert_array_equal(first.score, second.score)


def test_noise_stops_the_run_with_the_finding_and_gives_an_empty_result_outside_one():
    noise = [Micrograph(np.random.default_rng(seed).normal(size=(400, 400))) for seed in range(2)]
    with pytest.raises(TrainingError, match="saw no consistent particles"):
        DeepCryoPicker().survey(noise)
    with pytest.raises(TrainingError, match="saw no consistent particles"):
        DeepCryoPicker(diameter=Length(20, 20, "px")).survey(noise)
    picks = DeepCryoPicker().pick(noise[0])
    assert len(picks) == 0
    assert "saw no consistent particles" in picks.warnings[0]


@pytest.mark.parametrize("name", ["autocryopicker", "supercryopicker"])
def test_published_preprocessing_finds_strong_rings_at_their_place(draw_particles, count_found, name):
    micrograph, true_xy = draw_particles(**{**RINGS, "hole": 0.0, "contrast": 2.0})
    picker = make_picker(name, diameter=Length(40, 40, "px"), preprocessing="published")
    picks = select(picker.pick(micrograph), SelectionSettings(), threshold=picker.default_threshold).kept()
    assert count_found(picks.xy_px, true_xy, 10) >= 0.6 * len(true_xy)


def test_clustering_pickers_measure_the_diameter_once_for_a_run(draw_particles):
    micrograph, _ = draw_particles(**RINGS)
    seen = make_picker("autocryopicker").survey([micrograph])
    assert seen.particle_size is not None
    assert seen.dark_part == 1.0
    assert make_picker("autocryopicker", diameter=seen.particle_size, body=1.0).survey([micrograph]) == seen


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("autocryopicker", {"clusters": 4}),
        ("autocryopicker", {"clustering": "fcm"}),
        ("supercryopicker", {"preprocessing": "none"}),
        ("deepcryopicker", {"classes": 3}),
        ("deepcryopicker", {"network": "vgg"}),
        ("deepcryopicker", {"steps": 0}),
    ],
)
def test_impossible_settings_are_refused_by_name(name, wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        make_picker(name, **wrong)


def test_particle_of_fewer_pixels_than_an_outline_needs_is_refused():
    with pytest.raises(SettingsError, match="check --diameter"):
        make_picker("autocryopicker", diameter=Length(3, 3, "px")).pick(Micrograph(np.eye(64)))
    assert NOMINAL_PARTICLE_PX > 6


@pytest.mark.slow
def test_barrels_are_found_and_told_apart_by_view(tmp_path):
    drawn = draw_barrels(seed=10)
    size = Length(drawn.diameter_px, drawn.diameter_px, "px")
    teachers = [draw_barrels(seed=seed).micrograph for seed in range(3)]
    picker = DeepCryoPicker(steps=150, diameter=size)
    seen = picker.survey_in(tmp_path, teachers)
    picks = select(picker.pick(drawn.micrograph, seen), SelectionSettings(), threshold=picker.default_threshold).kept()
    match = match_picks(picks.xy_px, drawn.xy_px, np.zeros((0, 2)), max_distance_px=0.25 * drawn.diameter_px)
    assert match.counts.f1 >= 0.95
    assert np.mean(picks.class_id[match.pairs.first] == drawn.view[match.pairs.second]) >= 0.95

    exhibits = read_exhibits(tmp_path)
    titles = [item.title for item in exhibits.items]
    assert any(title.startswith("Chosen as top view") for title in titles)
    assert any(title.startswith("Chosen as side view") for title in titles)
    assert any(title.startswith("Rejected") for title in titles)
    curves = exhibits.items[-1]
    assert {"top view", "side view"} <= set(curves.lines)


def test_of_two_overlapping_candidates_the_better_one_is_kept():
    log_odds = np.full((60, 60), -4.0, np.float32)
    y, x = np.mgrid[:60, :60]
    for centre_x, height in ((20, 7.0), (25, 8.0), (45, 6.0)):  # the first two are half a diameter apart
        log_odds = np.maximum(log_odds, (height - 4.0) - 0.2 * ((x - centre_x) ** 2 + (y - 30) ** 2)).astype(np.float32)
    found = find_in_maps(log_odds, np.full((60, 60), TOP, np.int32), diameter=10.0)
    assert found.score[0] >= found.score[1] >= found.score[2]  # best first
    picks = to_picks(found, Micrograph(np.zeros((60, 60))), ScaleMap((1.0, 1.0)), 10.0, maps={})
    kept = select(picks, SelectionSettings(), threshold=0.1).kept()
    np.testing.assert_allclose(kept.xy_px, [[25, 30], [45, 30]], atol=0.3)


def test_decoys_are_inverted_windows_and_count_as_background_or_as_bad_objects():
    pixels = np.zeros((120, 120), np.float32)
    pixels[30, 30], pixels[80, 80] = -5.0, 7.0  # a dark particle and a bright chance object
    image = ExampleImage(pixels, np.array([[30.0, 30]]), np.array([TOP]), np.array([[80.0, 80]]))
    drawn, kinds = ExampleWindows([image], diameter_px=20.0, window_px=21).draw(
        200, np.random.default_rng(0), is_augmented=False
    )
    centre = drawn[:, 0, 10, 10]
    assert set(centre[kinds == TOP].tolist()) == {-5.0}
    assert -7.0 in centre[kinds == BACKGROUND]
    assert 7.0 not in centre
    five = ExampleWindows([image], diameter_px=20.0, window_px=21, has_bad_class=True)
    drawn, kinds = five.draw(200, np.random.default_rng(0), is_augmented=False)
    assert set(drawn[kinds == BAD, 0, 10, 10].tolist()) == {-7.0}
    assert five.counts == {"top view": 1, "bad object": 1}


def test_decoys_of_a_run_lie_apart_from_every_example(draw_particles):
    micrograph, _ = draw_particles(**RINGS)
    image = working_image(micrograph, diameter_px=40.0, preprocessing="corrected")
    (labelled,) = label_images([image], RING_SIZE)
    good = labelled.xy_px[labelled.is_good]
    gaps = np.hypot(*(labelled.decoy_xy_px[:, None] - good[None]).transpose(2, 0, 1))
    assert gaps.size == 0 or gaps.min() >= 0.9 * NOMINAL_PARTICLE_PX


@pytest.mark.parametrize("shape_yx", [(64, 51), (71, 70), (50, 50)])
def test_turning_and_mirroring_an_image_turns_and_mirrors_its_scores(shape_yx):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = CompactClassifier(classes=4).eval()
    classifier = Classifier(network, "cpu", is_bfloat16=False)
    image = np.random.default_rng(1).normal(size=shape_yx).astype(np.float32)
    image = image[
        : shape_yx[0] - 1 + shape_yx[0] % 2, : shape_yx[1] - 1 + shape_yx[1] % 2
    ]  # odd: places are mirrored too
    plain, _, step_px = classifier.maps(image, diameter_px=20.0)
    turned, _, _ = classifier.maps(np.ascontiguousarray(np.rot90(image)[:, ::-1]), diameter_px=20.0)
    np.testing.assert_allclose(np.rot90(plain)[:, ::-1], turned, atol=1e-4)
    assert step_px == 2
    even, _, _ = classifier.maps(np.zeros(shape_yx, np.float32), diameter_px=20.0)
    assert even.shape == (-(-shape_yx[0] // 2), -(-shape_yx[1] // 2))


def test_a_repeated_border_holds_nothing(draw_particles):
    micrograph, _ = draw_particles(**{**RINGS, "hole": 0.0, "contrast": 2.0})
    bordered = np.pad(micrograph.pixels, ((0, 0), (60, 0)), mode="edge")
    image = working_image(replace(micrograph, pixels=bordered), diameter_px=40.0, preprocessing="corrected")
    assert not image.pixels[:, :29].any()
    assert image.pixels[:, 31:].std() > 0.5
    picker = make_picker("supercryopicker", diameter=Length(40, 40, "px"))
    picks = select(
        picker.pick(replace(micrograph, pixels=bordered)), SelectionSettings(), threshold=picker.default_threshold
    ).kept()
    assert len(picks) > 20
    assert picks.xy_px[:, 0].min() > 55


def test_with_five_classes_bad_objects_are_learnt_and_are_no_particles(draw_particles, tmp_path):
    micrographs = [draw_particles(**{**RINGS, "seed": seed})[0] for seed in (1, 2)]
    picker = DeepCryoPicker(diameter=Length(40, 40, "px"), body=1.0, classes=5, steps=3)
    seen = picker.survey_in(tmp_path, micrographs)
    card = read_card(seen.trained_model)
    assert card.data["classes"] == ["background", "top view", "side view", "irregular", "bad object"]
    assert set(picker.pick(micrographs[0], seen).class_id.tolist()) <= {1, 2, 3}


# ------------------------------------------------------------------------------------------------------ real sets


def real_f1(name, picker, tmp_path):
    """F1 within a quarter of the listed diameter on the first two micrographs of a real set, nothing given."""
    if not (REAL / name).is_dir():
        pytest.skip("the real labelled micrographs are not part of the repository")
    items = list(open_dataset(REAL / name))[:2]
    micrographs = [item.read() for item in items]
    seen = picker.survey_in(tmp_path, micrographs) if hasattr(picker, "survey_in") else picker.survey(micrographs)
    counts = []
    for item, micrograph in zip(items, micrographs, strict=True):
        kept = select(picker.pick(micrograph, seen), SelectionSettings(), threshold=picker.default_threshold).kept()
        true, uncertain = (item.labels.xy_px[item.labels.is_uncertain == is_so] for is_so in (False, True))
        counts.append(match_picks(kept.xy_px, true, uncertain, max_distance_px=0.25 * item.diameter_px).counts)
    return pooled(counts).f1


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "picker", "least"),
    [
        ("apoferritin", "autocryopicker", 0.70),
        ("apoferritin", "supercryopicker", 0.70),
        ("apoferritin", "deepcryopicker", 0.92),
        ("bgal10017", "supercryopicker", 0.55),
        ("bgal10017", "deepcryopicker", 0.70),
    ],
)
def test_f1_on_real_micrographs_without_a_label_or_a_number(name, picker, least, tmp_path):
    assert real_f1(name, make_picker(picker), tmp_path) >= least


@pytest.mark.real
def test_real_micrographs_without_particles_stop_with_the_finding(tmp_path):
    with pytest.raises(TrainingError, match="saw no consistent particles"):
        real_f1("empty", DeepCryoPicker(), tmp_path)
