"""CryoSegNet's post-processing, its maps, and the picker with its shipped weights."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from meta_checkpoint import meta_tensors  # noqa: E402

from cryopick.errors import SettingsError, WeightsError  # noqa: E402
from cryopick.geometry.units import Length  # noqa: E402
from cryopick.io.weights import ModelCard, load_checkpoint, save_checkpoint, weights_folders  # noqa: E402
from cryopick.pickers.cryosegnet.map_masks import rescaled, segment_map  # noqa: E402
from cryopick.pickers.cryosegnet.mask_generation import GeneratorSettings, Masks  # noqa: E402
from cryopick.pickers.cryosegnet.masks import (  # noqa: E402
    OVERLAPPING,
    WRONG_SIZE,
    corrected_selection,
    equivalent_diameter,
    height_at,
    particle_centres,
)
from cryopick.pickers.cryosegnet.model import View, map_peaks, squeeze_published  # noqa: E402
from cryopick.pickers.cryosegnet.network import architecture_of, build_attention_unet  # noqa: E402
from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker  # noqa: E402
from cryopick.pickers.cryosegnet.published import published_picks  # noqa: E402
from cryopick.pickers.cryosegnet.sam_network import CompactSamSize, build_compact_sam, compact_architecture  # noqa: E402
from cryopick.pickers.cryosegnet.segmenter import EMBEDDED, LoadedSam, MaskScore, as_segmenter  # noqa: E402
from cryopick.pickers.survey import NOTHING_SEEN  # noqa: E402
from cryopick.processing.probability import Calibration  # noqa: E402
from cryopick.processing.scale import ScaleMap  # noqa: E402
from cryopick.runs.in_memory import pick_in_memory  # noqa: E402
from cryopick.types import Micrograph  # noqa: E402

WEIGHTS = [weights_folders()[0] / f"{name}.safetensors" for name in ("cryosegnet", EMBEDDED)]
shipped = pytest.mark.skipif(
    not all(path.is_file() for path in WEIGHTS), reason="the package holds no weights of CryoSegNet"
)


def masks_from_boxes(boxes, predicted):
    """Masks that fill boxes (x, y, w, h), w and h last minus first pixel."""
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.int64).reshape(-1, 4)
    patches = tuple(np.ones((h + 1, w + 1), bool) for _, _, w, h in boxes)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    return Masks(
        prompt_xy_px=centres,
        predicted_iou=np.asarray(predicted, np.float32),
        stability=np.ones(len(boxes), np.float32),
        box_xyxy_px=corners,
        area_px=np.array([patch.size for patch in patches], np.int64),
        centroid_xy_px=centres,
        patches=patches,
        reason=np.full(len(boxes), "", "<U32"),
    )


# ------------------------------------------------------------------------------------------- published post-processing

VECTOR = masks_from_boxes(
    [(100, 200, 40, 40), (700, 100, 70, 70), (300, 300, 42, 40), (500, 500, 40, 41), (10, 10, 40, 40)],
    [0.99, 0.98, 0.97, 0.96, 0.93],
)


def test_published_post_processing_gives_the_reference_numbers():
    found = published_picks(VECTOR, map_shape_yx=(1024, 1024), shape_yx=(4096, 4096))
    assert found.xy_px.tolist() == [[480, 880], [1284, 1280], [2080, 2082]]
    assert found.diameter_px == 226
    assert found.reason.tolist() == ["", WRONG_SIZE, "", "", "predicted IoU of 0.94 or less"]


@pytest.mark.parametrize(
    ("shape_yx", "low", "high"),
    [((4096, 4096), 32.5, 62.6), ((3710, 3838), 33.1, 60.8), ((4092, 5760), 30.9, 67.4), ((7420, 7676), 26.1, 81.6)],
)
def test_the_published_tolerance_grows_with_the_micrograph(shape_yx, low, high):
    inside = (int(np.ceil(low + 0.05)), int(np.floor(high - 0.05)))
    outside = (inside[0] - 1, inside[1] + 1)
    for size, is_kept in [*((size, True) for size in inside), *((size, False) for size in outside)]:
        masks = masks_from_boxes([(0, 0, 40, 40), (200, 0, 40, 40), (400, 0, size, 40)], [0.99, 0.98, 0.97])
        found = published_picks(masks, map_shape_yx=(1024, 1024), shape_yx=shape_yx)
        assert (len(found.xy_px) == 3) == is_kept


def test_of_equally_common_sizes_the_surest_mask_decides():
    masks = masks_from_boxes([(0, 0, 80, 80), (300, 0, 30, 30)], [0.99, 0.98])
    found = published_picks(masks, map_shape_yx=(1024, 1024), shape_yx=(1024, 1024))
    assert found.index.tolist() == [0]


def test_duplicates_appear_only_where_they_are_asked_for_and_stay_near():
    masks = masks_from_boxes([(100, 100, 40, 40), (300, 100, 40, 40)], [0.99995, 0.99])
    sizes = {"map_shape_yx": (1024, 1024), "shape_yx": (4096, 4096)}
    assert len(published_picks(masks, **sizes).xy_px) == 2
    found = published_picks(masks, **sizes, duplicates=np.random.default_rng(0))
    assert found.index.tolist() == [0, 1, 0]
    assert np.abs(found.xy_px[2] - found.xy_px[0]).max() <= 11  # a tenth of the radius of 113


def test_no_masks_are_an_empty_result():
    found = published_picks(Masks.none(), map_shape_yx=(1024, 1024), shape_yx=(4096, 4096))
    assert found.xy_px.shape == (0, 2)


# ------------------------------------------------------------------------------------------- corrected post-processing


def test_a_disc_of_known_area_has_its_diameter():
    assert equivalent_diameter(np.array([314])) == pytest.approx(20, rel=1e-3)


def test_masks_far_from_the_particles_size_are_dropped_whatever_the_micrographs_size():
    masks = masks_from_boxes([(0, 0, 10, 10), (100, 0, 3, 3), (200, 0, 29, 29)], [0.9, 0.9, 0.9])
    reason = corrected_selection(masks, np.array([0.9, 0.8, 0.7]), particle_px=12.0)
    assert reason.tolist() == ["", WRONG_SIZE, WRONG_SIZE]


def test_of_a_whole_and_its_part_the_better_mask_stands():
    masks = masks_from_boxes([(0, 0, 11, 11), (1, 1, 7, 7), (30, 0, 11, 11)], [0.9, 0.9, 0.9])
    part_first = corrected_selection(masks, np.array([0.5, 0.9, 0.4]), particle_px=12.0)
    assert part_first.tolist() == [OVERLAPPING, "", ""]
    whole_first = corrected_selection(masks, np.array([0.9, 0.5, 0.4]), particle_px=12.0)
    assert whole_first.tolist() == ["", OVERLAPPING, ""]


def test_neighbours_that_overlap_a_little_both_stand():
    masks = masks_from_boxes([(0, 0, 11, 11), (8, 0, 11, 11)], [0.9, 0.9])
    assert corrected_selection(masks, np.array([0.9, 0.8]), particle_px=13.0).tolist() == ["", ""]


def test_a_mask_refines_the_centre_but_does_not_carry_it_away():
    masks = masks_from_boxes([(0, 0, 10, 10), (40, 0, 10, 10)], [0.9, 0.9])
    masks = replace(masks, prompt_xy_px=np.array([[6.0, 5.0], [52.0, 5.0]]))  # 1 and 7 pixels from the centroids
    assert particle_centres(masks, particle_px=20.0, is_peak=True).tolist() == [[5, 5], [52, 5]]
    assert particle_centres(masks, particle_px=20.0, is_peak=False).tolist() == [[5, 5], [45, 5]]


def test_a_map_is_read_between_its_pixels():
    ramp = np.arange(20, dtype=np.float32).reshape(4, 5)
    xy = np.array([[1.5, 0.0], [2.0, 1.25], [-3.0, 0.0]])
    assert height_at(ramp, xy).tolist() == pytest.approx([1.5, 8.25, 0.0], abs=0.02)


def test_the_score_survives_its_card():
    score = MaskScore(np.array([1.0, -0.5]), 0.25, Calibration(np.array([[-2.0, 2.0], [0.1, 0.9]])))
    again = MaskScore.from_card(score.to_card())
    features = np.array([[0.3, 0.1], [2.0, -1.0], [-4.0, 0.0]])
    np.testing.assert_allclose(score(features), again(features))
    # logit = 0.3 - 0.05 + 0.25 = 0.5, between the knots
    assert score(features)[0] == pytest.approx(0.1 + 0.8 * 2.5 / 4, abs=1e-5)


# ----------------------------------------------------------------------------------------------------- maps and views


def test_every_blob_of_27_pixels_on_a_published_map_is_proposed():
    y, x = np.mgrid[:400, :400]
    probability = np.full((400, 400), 0.02, np.float32)
    centres = [(cx + 3 * (cy // 40), cy) for cy in range(20, 390, 40) for cx in range(20, 360, 40)]
    for cx, cy in centres:
        probability[np.hypot(x - cx, y - cy) <= 13.5] = 0.9
    xy, height = map_peaks(probability, particle_px=27.0)
    gaps = np.hypot(*(xy[:, None] - np.array(centres)[None]).transpose(2, 0, 1))
    assert len(xy) == len(centres)
    assert gaps.min(axis=0).max() < 0.1 * 27
    assert height.min() > 0.8


def test_masks_of_an_enlarged_map_return_to_its_pixels():
    masks = masks_from_boxes([(20, 40, 19, 19)], [0.9])  # pixels 20..39 and 40..59 of a map twice as large
    back = rescaled(masks, ScaleMap((2.0, 2.0)))
    assert back.box_xyxy_px.tolist() == [[10, 20, 19, 29]]
    assert back.centroid_xy_px.tolist() == [[14.5, 24.5]]
    assert back.patches[0].all()
    assert back.area_px.tolist() == [100]


def test_a_squeezed_micrograph_knows_its_way_back():
    pixels = np.random.default_rng(0).normal(size=(60, 90)).astype(np.float32)
    squeezed, scale = squeeze_published(pixels, side_px=32)
    assert squeezed.shape == (32, 32)
    assert 0 <= squeezed.min() <= squeezed.max() <= 1
    corners = np.array([[-0.5, -0.5], [31.5, 31.5]])
    np.testing.assert_allclose(scale.to_stored_xy(corners), [[-0.5, -0.5], [89.5, 59.5]])


def test_a_view_survives_its_card_and_others_are_refused():
    for view in (View("planes", in_channels=3), View("denoised"), View("published", 256)):
        assert View.from_card(view.to_card(), in_channels=view.in_channels, where="x") == view
    with pytest.raises(WeightsError, match="names the input None"):
        View.from_card({}, in_channels=1, where="x")


# ------------------------------------------------------------------------------------- the picker with made-up weights


def write_unet(path, *, view=None, notes=None):
    """A U-Net that maps dark places of its input: enough to test what comes after."""
    view = view or View("denoised")
    torch.manual_seed(0)
    architecture = architecture_of(in_channels=1, out_channels=1, widths=(4, 4), patch_px=1, align_corners=False)
    network = build_attention_unet(architecture)
    card = ModelCard(
        picker="cryosegnet",
        architecture=architecture,
        preprocessing=view.to_card(),
        postprocessing={"calibration": Calibration.none().to_list(), "disc_share": 0.6},
    )
    save_checkpoint(path, network.state_dict(), card)
    return path


def write_sam(path):
    torch.manual_seed(0)
    architecture = compact_architecture(CompactSamSize(image_px=64, width=16, depth=1, heads=2, decoder_width=16))
    card = ModelCard(picker=EMBEDDED, architecture=architecture)
    save_checkpoint(path, build_compact_sam(architecture).state_dict(), card)
    return path


@pytest.fixture
def untrained(tmp_path):
    return {
        "segmenter": "sam",
        "weights": write_unet(tmp_path / "unet.safetensors"),
        "sam": str(write_sam(tmp_path / "sam.safetensors")),
        "diameter": Length(30.0, 30.0, "px"),
        "working_diameter": Length(30.0, 30.0, "px"),
    }


NOISE = Micrograph(np.random.default_rng(0).normal(size=(150, 220)).astype(np.float32), name="noise.mrc")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prompts": "grid", "points_per_side": 5},
        {"segmenter": "none"},
        {"postprocessing": "none", "predicted_iou": -10.0, "stability": 0.0},
        {"postprocessing": "published", "predicted_iou": -10.0, "stability": 0.0},
    ],
)
def test_every_way_of_picking_gives_well_formed_picks_and_maps(untrained, settings):
    chosen = {**untrained, **settings}
    if chosen["segmenter"] == "none":
        del chosen["sam"]
    picks = CryoSegNetPicker(**chosen).pick(NOISE)
    assert ((picks.xy_px >= -0.5) & (picks.xy_px <= [219.5, 149.5])).all()
    assert np.isfinite(picks.score).all()
    assert np.all(np.diff(picks.score) <= 0)
    assert {"denoised", "particle map"} <= set(picks.maps)
    if settings.get("segmenter") != "none":
        assert {"masks", "masks kept"} <= set(picks.maps)


def test_picks_have_the_particles_diameter_not_the_size_that_they_are_looked_at(untrained):
    settings = {**untrained, "segmenter": "none", "sam": None, "working_diameter": Length(24.0, 24.0, "px")}
    picks = CryoSegNetPicker(**settings).pick(NOISE)
    assert len(picks) > 0
    np.testing.assert_array_equal(picks.diameter_px, 30)


def test_metas_layout_runs_through_the_same_path(untrained, tmp_path):
    torch.save(meta_tensors(grid=4, patch=8), tmp_path / "sam_vit_t.pth")
    picker = CryoSegNetPicker(**{**untrained, "sam": str(tmp_path / "sam_vit_t.pth")}, predicted_iou=-10.0, stability=0)
    picks = picker.pick(NOISE)
    assert {"masks", "masks kept"} <= set(picks.maps)
    whole = replace(picker, postprocessing="published", prompts="grid", points_per_side=3).pick(NOISE)
    assert np.isfinite(whole.xy_px).all()


def test_the_published_view_needs_no_diameter_with_published_post_processing(untrained, tmp_path):
    weights = write_unet(tmp_path / "paper.safetensors", view=View("published", 64))
    picker = CryoSegNetPicker(**{**untrained, "weights": weights})
    picks = replace(picker, postprocessing="published").pick(NOISE)
    assert picks.maps["particle map"].shape == (64, 64)
    assert picks.shape_yx == (150, 220)


def test_scores_that_are_predicted_ious_are_not_cut_again(untrained):
    scores = np.array([0.2, 0.95], np.float32)
    assert CryoSegNetPicker(**untrained, postprocessing="published").choose_threshold(scores, NOTHING_SEEN) == 0.0
    assert CryoSegNetPicker(**untrained).choose_threshold(scores, NOTHING_SEEN) > 0.2


def test_wrong_settings_and_wrong_weights_are_told(untrained, tmp_path):
    with pytest.raises(SettingsError, match="prompts is 'everywhere', expected peaks or grid"):
        CryoSegNetPicker(segmenter="sam", prompts="everywhere")
    with pytest.raises(SettingsError, match="jittered_duplicates needs"):
        CryoSegNetPicker(segmenter="sam", jittered_duplicates=True)
    for name, value, expected in (
        ("stability", 2.0, "0 to 1"),
        ("nms_iou", -0.1, "0 to 1"),
        ("smallest_region_px", -1.0, "0 or more"),
        ("points_per_side", 0, "1 to 512"),
        ("crop_layers", 5, "0 to 4"),
    ):
        with pytest.raises(SettingsError, match=f"{name} is {value}, expected {expected}"):
            CryoSegNetPicker(segmenter="sam", **{name: value})
    with pytest.raises(SettingsError, match="give --prompts grid"):
        CryoSegNetPicker(segmenter="sam", crop_layers=1)
    with pytest.raises(SettingsError, match="there are no maxima to ask at"):
        CryoSegNetPicker(segmenter="sam", modules="sam")
    with pytest.raises(SettingsError, match="denoising and --modules sam are of the published view"):
        CryoSegNetPicker(**untrained, denoising="none").pick(NOISE)
    with pytest.raises(WeightsError, match="weights of picker 'cryosegnet_sam', expected 'cryosegnet'"):
        CryoSegNetPicker(**{**untrained, "weights": untrained["sam"]}).pick(NOISE)
    with pytest.raises(WeightsError, match="weights of picker 'cryosegnet', expected 'cryosegnet_sam'"):
        CryoSegNetPicker(**{**untrained, "sam": str(untrained["weights"])}).pick(NOISE)


def test_stretching_makes_a_faint_map_look_like_a_strong_one():
    class Recorder:
        image_px, particle_px, name = 64, 20.0, "recorder"

        def embed(self, tiles):
            self.tiles = tiles

        def decode(self, embeddings, tile, xy_px):
            return np.zeros((len(tile), 1, 64, 64), np.float32), np.zeros((len(tile), 1), np.float32)

    y, x = np.mgrid[:64, :64]
    faint = (0.1 * (np.hypot(x - 30, y - 30) < 6)).astype(np.float32)
    recorder = Recorder()
    settings = GeneratorSettings()
    segment_map(faint, LoadedSam(recorder, None), particle_px=20.0, settings=settings)
    assert recorder.tiles.max() == pytest.approx(25.5, abs=0.1)
    segment_map(faint, LoadedSam(recorder, None), particle_px=20.0, settings=settings, is_stretched=True)
    assert recorder.tiles.max() == 255


def test_the_compact_model_has_its_own_scale():
    model = build_compact_sam(compact_architecture(CompactSamSize()))
    assert as_segmenter(model, device="cpu").particle_px == 20.0


# --------------------------------------------------------------------------------------------- the shipped weights


@shipped
def test_shipped_weights_are_small_and_say_what_they_are():
    assert sum(path.stat().st_size for path in WEIGHTS) < 20 * 2**20
    for path in WEIGHTS:
        card = load_checkpoint(path).card
        assert card.data["kind"] == "simulation"
        assert card.licence == "BSD-3-Clause"
    assert load_checkpoint(WEIGHTS[1]).card.preprocessing["unet"] == load_checkpoint(WEIGHTS[0]).card.sha256


@shipped
def test_noise_holds_no_particle():
    picker = CryoSegNetPicker(diameter=Length(60.0, 60.0, "px"))
    noise = Micrograph(np.random.default_rng(1).normal(size=(600, 700)).astype(np.float32))
    assert len(pick_in_memory(picker, [noise]).picks[0].kept()) == 0


@shipped
def test_turning_the_micrograph_over_turns_the_picks_over(draw_particles):
    micrograph, _ = draw_particles()
    picker = CryoSegNetPicker(diameter=Length(30.0, 30.0, "px"), working_diameter=Length(30.0, 30.0, "px"))
    upright, over = (
        one.take(one.score > 0.5)
        for one in (picker.pick(micrograph), picker.pick(replace(micrograph, pixels=micrograph.pixels[::-1])))
    )
    back = np.stack([over.xy_px[:, 0], micrograph.shape_yx[0] - 1 - over.xy_px[:, 1]], axis=1)
    gaps = np.hypot(*(back[:, None] - upright.xy_px[None]).transpose(2, 0, 1)).min(axis=1)
    assert len(over) > 10
    assert np.mean(gaps < 3.0) > 0.9
