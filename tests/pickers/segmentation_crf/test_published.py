"""The published pipeline against torchvision's own forward, the formulas of its random fields, and hand-made pieces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_mean_field import mean_field_exact
from scipy.special import softmax
from torch.nn.functional import interpolate
from torchvision.models import segmentation

from cryopick.errors import SettingsError, WeightsError
from cryopick.geometry.units import Length
from cryopick.io.weights import find_weights, load_checkpoint
from cryopick.pickers.protocol import gives_probabilities, surveys
from cryopick.pickers.published_weights import read_published
from cryopick.pickers.segmentation_crf.conv_crf import published_conv_crf
from cryopick.pickers.segmentation_crf.dense_crf import (
    PUBLISHED_DIAMETER_PX,
    DenseCrf,
    mean_field,
    mean_field_in_bands,
    published_crf,
)
from cryopick.pickers.segmentation_crf.mixture_normalization import mixture_of, normalized_by_mixture
from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker
from cryopick.pickers.segmentation_crf.published import tiles
from cryopick.pickers.segmentation_crf.published_weights import PUBLISHED_WEIGHTS
from cryopick.pickers.segmentation_crf.regions import connected_regions
from cryopick.processing.targets import disc_mask
from cryopick.runs.settings import make_settings
from cryopick.settings import as_text
from cryopick.types import CLASS_MAP, PARTICLE_MAP, UNREFINED, Micrograph
from cryopick.workflows.import_weights import import_weights

TILE_PX = 32


def torchvision_network(name, *, planes=1, classes=2, aux=False, seed=0):
    torch.manual_seed(seed)
    network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, aux_loss=aux)
    network.backbone.conv1 = torch.nn.Conv2d(planes, 64, 7, stride=2, padding=3, bias=False)
    with torch.no_grad():  # answers of both classes, and far from one half
        network.classifier[4].weight.mul_(3)
    return network.eval()


@pytest.fixture(scope="module")
def fcn(tmp_path_factory):
    network = torchvision_network("fcn_resnet50", aux=True)
    path = tmp_path_factory.mktemp("weights") / "fcn.pth"
    torch.save(network.state_dict(), path)
    return network, path


def micrographs():
    rng = np.random.default_rng(5)
    return [Micrograph(rng.normal(size=(40, 56)).astype(np.float32), name=f"m{i}") for i in range(2)]


def settings_as(name, **given):
    return make_settings("segmentation-crf", as_=name, tile_px=TILE_PX, device="cpu", **given).picker


def pieced(network, image, answer):
    """What `answer` makes of a network and a piece, put together of 2 x 2 pieces by hand: 40 x 56 by 20 and 28."""
    found = []
    for top in (0, 20):
        row = []
        for left in (0, 28):
            piece = np.zeros((TILE_PX, TILE_PX), np.float32)
            part = image[top : top + TILE_PX, left : left + TILE_PX]
            piece[: part.shape[0], : part.shape[1]] = part
            with torch.no_grad():
                row.append(answer(network, torch.from_numpy(piece)[None, None])[0].numpy()[:, :20, :28])
        found.append(np.concatenate(row, axis=2))
    return np.concatenate(found, axis=1)


def softmax_behind(network, x):
    return network(x)["out"].softmax(dim=1)


def softmax_first(network, x):
    small = network.classifier(network.backbone(x)["out"]).softmax(dim=1)
    return interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


ANSWER = {"article": softmax_behind, "program": softmax_first}


@pytest.mark.parametrize("name", ["article", "program"])
def test_maps_are_those_of_torchvision_in_pieces_as_the_article_and_the_program_have_them(fcn, name):
    network, path = fcn
    picker = settings_as(name, crf="none", rim_px=0, weights=path)
    for micrograph in micrographs():
        expected = pieced(network, normalized_by_mixture(micrograph.pixels), ANSWER[name])
        picks = picker.pick(micrograph)
        np.testing.assert_allclose(picks.maps[PARTICLE_MAP], expected[1], atol=1e-5)
        assert set(picks.maps) == {PARTICLE_MAP}
        regions = connected_regions(expected[1] > expected[0], expected[1])
        np.testing.assert_allclose(picks.xy_px, regions.xy_px, atol=1e-6)
        np.testing.assert_allclose(picks.score, regions.score, atol=1e-5)


@pytest.mark.parametrize("name", ["article", "program"])
def test_the_dense_field_is_that_of_the_formula_over_all_pairs(fcn, name):
    network, path = fcn
    micrograph = micrographs()[0]
    image = normalized_by_mixture(micrograph.pixels)
    picks = settings_as(name, rim_px=0, weights=path).pick(micrograph)
    before = pieced(network, image, ANSWER[name])
    crf = published_crf(with_axis_fault=name == "program", counts_itself=name == "program")
    row_sigma, column_sigma = (PUBLISHED_DIAMETER_PX * sigma for sigma in crf.appearance_sigma)
    assert (row_sigma, column_sigma) == pytest.approx((10, 1) if name == "program" else (10, 10))
    expected = mean_field_exact(np.log(np.maximum(before, 1e-5)), image, crf, diameter_px=PUBLISHED_DIAMETER_PX)
    np.testing.assert_allclose(picks.maps[PARTICLE_MAP + UNREFINED], before[1], atol=1e-5)
    assert np.abs(picks.maps[PARTICLE_MAP] - expected[1]).mean() < 0.01


@pytest.mark.parametrize("crf", ["conv-published", "conv-published-untuned"])
def test_the_convolutional_field_runs_inside_each_piece_on_logits_or_on_probabilities(fcn, crf):
    network, path = fcn
    micrograph = micrographs()[1]

    def answer(network, x):
        unary = network(x)["out"] if crf == "conv-published" else softmax_first(network, x)
        return published_conv_crf(unary, x).softmax(dim=1)

    expected = pieced(network, normalized_by_mixture(micrograph.pixels), answer)
    picks = settings_as("program", crf=crf, rim_px=0, weights=path).pick(micrograph)
    np.testing.assert_allclose(picks.maps[PARTICLE_MAP], expected[1], atol=1e-4)


def test_the_program_leaves_out_a_rim_where_nothing_is_found(fcn):
    network, path = fcn
    pixels = np.random.default_rng(8).normal(size=(60, 76)).astype(np.float32)
    picks = settings_as("program", crf="none", rim_px=10, weights=path).pick(Micrograph(pixels, name="m"))
    found = picks.maps[PARTICLE_MAP]
    expected = pieced(network, normalized_by_mixture(pixels)[10:-10, 10:-10], softmax_first)
    np.testing.assert_allclose(found[10:-10, 10:-10], expected[1], atol=1e-5)
    assert not found[:10].any()
    assert not found[:, -10:].any()
    assert make_settings("segmentation-crf", as_="program").picker.rim_px == 128
    with pytest.raises(SettingsError, match="leaves nothing"):
        settings_as("program", weights=path).pick(Micrograph(pixels, name="m"))


def test_deeplabv3_of_three_planes_and_three_classes_is_run_as_it_is(tmp_path):
    network = torchvision_network("deeplabv3_resnet50", planes=3, classes=3)
    torch.save({"model": {f"module.{name}": value for name, value in network.state_dict().items()}}, tmp_path / "d.pt")
    micrograph = micrographs()[0]
    with pytest.raises(SettingsError, match="the classes are 0, 1, 2"):
        settings_as("article", crf="none", weights=tmp_path / "d.pt").pick(micrograph)
    picks = settings_as("article", crf="none", particle_class=2, weights=tmp_path / "d.pt").pick(micrograph)
    image = normalized_by_mixture(micrograph.pixels)
    expected = pieced(network, image, lambda net, x: softmax_behind(net, x.expand(-1, 3, -1, -1)))
    for number in range(3):
        np.testing.assert_allclose(picks.maps[CLASS_MAP.format(number)], expected[number], atol=1e-4)
    np.testing.assert_allclose(picks.maps[PARTICLE_MAP], expected[2], atol=1e-4)
    (tmp_path / "classes.txt").write_text("ice\nparticle\ncarbon\n")
    named = settings_as("article", crf="none", weights=tmp_path / "d.pt").pick(micrograph)
    np.testing.assert_allclose(named.maps[PARTICLE_MAP], expected[1], atol=1e-4)


def test_imported_weights_give_the_same_picks_and_claim_no_calibration(fcn, tmp_path):
    _, path = fcn
    imported = import_weights(path, tmp_path / "imported")
    assert imported.card.picker == "segmentation-crf"
    assert any("not calibrated" in note for note in imported.card.notes)
    assert any("aux_classifier" in note for note in imported.card.notes)
    micrograph = micrographs()[0]
    direct, again = (settings_as("article", crf="none", weights=one) for one in (path, tmp_path / "imported"))
    np.testing.assert_array_equal(direct.pick(micrograph).xy_px, again.pick(micrograph).xy_px)
    assert not gives_probabilities(again)
    assert not surveys(again)
    assert "calibrated" not in again.score_meaning
    assert "calibrated" in SegmentationCrfPicker().score_meaning


# ------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("name", "depth", "head"),
    [("fcn_resnet101", 101, "fcn"), ("deeplabv3_resnet101", 101, "deeplabv3"), ("deeplabv3_resnet50", 50, "deeplabv3")],
)
def test_the_network_is_read_off_names_and_shapes(name, depth, head):
    with torch.device("meta"):
        network = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4, aux_loss=False)
    content = {f"backbone.{one}": value for one, value in network.state_dict().items()}
    assert PUBLISHED_WEIGHTS.recognises(content)
    architecture = PUBLISHED_WEIGHTS.read(Path("w.pth"), content, {}).card.architecture
    assert {key: architecture[key] for key in ("depth", "head", "classes", "in_channels")} == {
        "depth": depth,
        "head": head,
        "classes": 4,
        "in_channels": 3,
    }


def test_other_tensors_are_named(fcn, tmp_path):
    network, _ = fcn
    state = dict(network.state_dict())
    torch.save({**state, "gausscrf.CRF.mesh": torch.zeros(2)}, tmp_path / "crf.pth")
    assert any("gausscrf" in note for note in read_published(tmp_path / "crf.pth").card.notes)
    torch.save({**state, "centres.weight": torch.zeros(2)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"centres\.weight"):
        read_published(tmp_path / "more.pth")
    torch.save({name: value for name, value in state.items() if "layer3.5" not in name}, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match="third stage has 5 blocks"):
        read_published(tmp_path / "less.pth")


def test_weights_and_pipelines_that_do_not_belong_together_say_so(fcn):
    _, path = fcn
    with pytest.raises(WeightsError, match="--as article"):
        SegmentationCrfPicker(weights=path, diameter=Length(20, 20, "px")).model()
    with pytest.raises(WeightsError, match="publish no weights"):
        settings_as("article").published_model()
    with pytest.raises(WeightsError, match="our own network"):
        settings_as("article", weights=find_weights("segmentation-crf")).published_model()
    with pytest.raises(WeightsError, match="weights of fcn-resnet50"):
        settings_as("article", weights=path, backbone="deeplabv3-resnet50").published_model()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("article", {"recentre": True}),
        ("article", {"views": 4}),
        ("article", {"crf": "learned"}),
        ("article", {"split": "core"}),
        ("article", {"split": "distance"}),
        ("article", {"min_area": 0.1}),
        ("article", {"backbone": "small"}),
        ("article", {"crf_parameters": "default"}),
        ("article", {"tile_px": 100}),
        (None, {"crf": "conv-published"}),
        (None, {"particle_class": 1}),
        (None, {"rim_px": 4}),
        (None, {"split": "components"}),
    ],
)
def test_nothing_that_is_given_is_passed_over(name, given):
    with pytest.raises(SettingsError, match=next(iter(given))):
        make_settings("segmentation-crf", as_=name, **given)


# ---------------------------------------------------------------------------------------------------- the small pieces


@pytest.mark.parametrize(
    ("size", "crop", "count", "step"), [(3840, 512, 8, 480), (3710, 512, 8, 464), (4092, 1024, 4, 1023)]
)
def test_pieces_put_an_image_together_again(size, crop, count, step):
    seen = np.zeros((size, 8), np.int64)
    found = list(tiles((size, 8), crop))
    for rows, columns in found:
        seen[rows, columns] += 1
    assert (seen == 1).all()
    assert len(found) == count
    assert found[1][0].start == step


def test_the_brighter_of_two_kinds_of_pixels_becomes_0_and_1():
    rng = np.random.default_rng(2)
    pixels = (
        np.concatenate([rng.normal(100, 4, 90_000), rng.normal(60, 4, 10_000)]).reshape(250, 400).astype(np.float32)
    )
    mean, spread = mixture_of(pixels)
    assert (mean, spread) == pytest.approx((100, 4), abs=0.15)
    normal = normalized_by_mixture(pixels)
    assert normal.ravel()[:90_000].std() == pytest.approx(1, abs=0.03)


def test_pixels_of_one_kind_are_normalised_by_their_mean_and_deviation():
    pixels = np.random.default_rng(3).normal(7, 2, (300, 300)).astype(np.float32)
    assert mixture_of(pixels) == pytest.approx((7, 2), abs=0.08)
    flat = np.full((20, 30), 5, np.float32)
    assert not normalized_by_mixture(flat).any()


def test_the_mixture_is_the_one_of_largest_posterior():
    """Against the likelihood written down pixel by pixel: no other mean or width near the found ones is better."""
    rng = np.random.default_rng(4)
    pixels = np.concatenate([rng.normal(0, 1, 3000), rng.normal(-6, 1, 1000)]).astype(np.float32)
    mean, spread = mixture_of(pixels.reshape(40, 100))

    def log_posterior(bright, width):
        best = -np.inf
        for share in np.linspace(0.7, 0.85, 16):
            for dark in np.linspace(-6.3, -5.7, 7):
                parts = [
                    np.log(weight) - 0.5 * ((pixels - centre) / width) ** 2 - np.log(width)
                    for weight, centre in ((share, bright), (1 - share, dark))
                ]
                best = max(best, float(np.logaddexp(*parts).sum() + 899 * np.log(share)))
        return best

    found = log_posterior(mean, spread)
    assert found >= log_posterior(mean + 0.1, spread) - 0.5
    assert found >= log_posterior(mean - 0.1, spread) - 0.5
    assert found >= log_posterior(mean, spread * 1.05) - 0.5
    assert found >= log_posterior(mean, spread / 1.05) - 0.5


def test_bands_of_rows_are_the_whole_map():
    rng = np.random.default_rng(1)
    log_probability = np.log(rng.dirichlet(np.ones(2), size=(240, 40)).transpose(2, 0, 1) + 1e-3)
    guide = rng.normal(size=(240, 40))
    crf = replace(published_crf(with_axis_fault=False), appearance_sigma=(0.03, 0.03))  # 3 px of a diameter of 100
    whole = mean_field(log_probability, guide, crf, diameter_px=100.0)
    banded = mean_field_in_bands(log_probability, guide, crf, diameter_px=100.0, band_pixels=3000)
    assert np.abs(whole - banded).max() < 0.05
    assert np.abs(whole - banded).mean() < 0.003


def test_a_pixel_that_counts_itself_is_surer_of_itself():
    rng = np.random.default_rng(1)
    log_probability = np.log(rng.dirichlet(np.ones(2), size=(8, 8)).transpose(2, 0, 1) + 1e-3)
    guide = np.zeros((8, 8))
    narrow = DenseCrf(appearance_sigma=(0.01, 0.01), smoothness_weight=0.0, iterations=1)  # no neighbour is near
    alone = mean_field(log_probability, guide, narrow, diameter_px=10.0)
    counted = mean_field(log_probability, guide, replace(narrow, counts_itself=True), diameter_px=10.0)
    own = softmax(log_probability, axis=0)
    np.testing.assert_allclose(alone, own, atol=1e-5)
    np.testing.assert_allclose(counted, softmax(log_probability + own, axis=0), atol=1e-5)


def test_regions_are_the_spots_with_their_middle_size_and_mean_probability():
    xy_px = np.array([[12.0, 14.0], [40.0, 22.0]])
    spots = disc_mask(xy_px, 9.0, shape_yx=(40, 60))
    probability = np.where(spots, 0.75, 0.1).astype(np.float32)
    probability[14, 12] = 1.0
    found = connected_regions(spots, probability)
    np.testing.assert_allclose(found.xy_px, xy_px, atol=1e-9)
    assert found.area_px.tolist() == [69, 69]
    assert found.score == pytest.approx([0.75 + 0.25 / 69, 0.75])
    assert found.labels[22, 40] == 2
    nothing = connected_regions(np.zeros((4, 5), bool), np.zeros((4, 5), np.float32))
    assert len(nothing.score) == 0
    assert nothing.xy_px.shape == (0, 2)


def test_the_card_of_trained_weights_is_of_the_published_network(fcn, tmp_path):
    _, path = fcn
    import_weights(path, tmp_path / "w")
    card = load_checkpoint(tmp_path / "w" / "weights.safetensors").card
    assert card.architecture["network"] == "torchvision"
    assert "calibrations" not in card.postprocessing


def test_the_documentation_lists_what_each_configuration_sets():
    page = (Path(__file__).parents[3] / "docs" / "segmentation-crf.md").read_text(encoding="utf-8")
    article, program = (SegmentationCrfPicker.configurations[name].settings for name in ("article", "program"))
    for name in {**article, **program}:
        values = [as_text(one[name]) if name in one else "-" for one in (article, program)]
        assert f"| `{name}` | {' | '.join(values)} |" in page
