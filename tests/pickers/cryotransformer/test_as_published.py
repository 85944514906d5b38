"""`--as article` and `--as program` with a file as the authors save it: what comes out is what their formulas give."""

import logging
from argparse import Namespace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from discs import disc_micrograph

torch = pytest.importorskip("torch")

from detr_by_formula import SIZES, answers_by_formula, authors_tensors, spread_out  # noqa: E402
from PIL import Image  # noqa: E402

from cryopick.errors import SettingsError, WeightsError  # noqa: E402
from cryopick.io import torch_files  # noqa: E402
from cryopick.io.images.micrographs import write_micrograph  # noqa: E402
from cryopick.io.weights import read_card  # noqa: E402
from cryopick.pickers.configurations import configurations_of  # noqa: E402
from cryopick.pickers.cryotransformer.detr_model import build_detr  # noqa: E402
from cryopick.pickers.cryotransformer.detr_trainable import DetrTask, DetrTrainable  # noqa: E402
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker  # noqa: E402
from cryopick.pickers.cryotransformer.published_weights import start_backbone, start_from_coco  # noqa: E402
from cryopick.pickers.published_weights import read_published  # noqa: E402
from cryopick.processing.denoise.published import denoise_published  # noqa: E402
from cryopick.runs.in_memory import pick_all  # noqa: E402
from cryopick.runs.settings import make_settings  # noqa: E402
from cryopick.settings import as_text  # noqa: E402
from cryopick.types import Micrograph  # noqa: E402
from cryopick.workflows.import_weights import import_weights  # noqa: E402
from cryopick.workflows.pick import pick_to_folder  # noqa: E402

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def save_as_authors(path, tensors=None, **arguments):
    """A checkpoint as DETR's program saves it, with the arguments of the run inside."""
    tensors = authors_tensors() if tensors is None else tensors
    arguments = {"nheads": SIZES["heads"], "dropout": 0.1, "dilation": False, "pre_norm": False, **arguments}
    content = {"model": tensors, "optimizer": {}, "epoch": 299, "args": Namespace(**arguments)}
    torch.save(content, path)
    return path


@cache
def tensors_of_test():
    """Random weights whose answers differ."""
    image = network_input(denoise_published(upside_down(disc_micrograph("", shape_yx=(96, 128)))).image)
    with torch.inference_mode():
        return spread_out(authors_tensors(), image)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_as_authors(tmp_path_factory.mktemp("authors") / "CryoTransformer.pth", tensors_of_test())


def network_input(picture):
    """(1, 3, h, w) float64 of an 8-bit picture: the shorter side 800 px, grey three times, normalised as ImageNet's."""
    height, width = picture.shape
    short = min(height, width)
    size = (int(width * 800 / short), int(height * 800 / short))
    resized = np.asarray(Image.fromarray(picture).convert("RGB").resize(size, Image.Resampling.BILINEAR))
    channels = torch.from_numpy(resized.astype(np.float64) / 255)
    return ((channels - MEAN) / DEVIATION).permute(2, 0, 1)[None]


def answers_for(picture):
    with torch.inference_mode():
        logits, boxes = answers_by_formula(tensors_of_test(), network_input(picture))
    return logits[0].numpy(), boxes[0].numpy()


def upside_down(micrograph):
    return np.ascontiguousarray(micrograph.pixels[::-1])


def by_article(micrograph):
    """Centres and scores of what lies above the 25th percentile of the softmax of the class that particles had."""
    logits, boxes = answers_for(denoise_published(upside_down(micrograph)).image)
    score = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    kept = score > np.percentile(score, 25)
    height, width = micrograph.shape_yx
    xy = boxes[kept, :2] * [width, height] - 0.5
    return np.column_stack([xy[:, 0], height - 1 - xy[:, 1], score[kept]])


def by_program(micrograph):
    """The program, step by step: ranks without owners, suppression, corners cut to whole pixels."""
    logits, boxes = answers_for(denoise_published(upside_down(micrograph)).image)
    queries = len(boxes)
    ranked = sorted((1 / (1 + np.exp(-one)) for one in logits.ravel()), reverse=True)[:queries]
    threshold = np.quantile(ranked, 0.25)
    height, width = micrograph.shape_yx
    rows = []
    for box, score in zip(boxes, ranked, strict=True):
        if score > threshold:
            x, y, w, h = box * [width, height, width, height]
            rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score])
    kept = []
    for row in rows:  # already from the best score down
        if all(overlap(row, other) < 0.7 for other in kept):
            kept.append(row)
    found = []
    for *corners, score in kept:
        left, top, right, bottom = (int(value) for value in corners)
        found.append([(left + right) / 2, height - (top + bottom) / 2, score])
    return np.array(found)


def overlap(first, second):
    """Intersection over union with sides of one pixel more."""
    sides = [min(first[2 + axis], second[2 + axis]) - max(first[axis], second[axis]) + 1 for axis in (0, 1)]
    both = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return both / (sum(areas) - both)


@pytest.mark.parametrize(("name", "formula"), [("article", by_article), ("program", by_program)])
def test_two_micrographs_give_what_the_authors_formulas_give(checkpoint, name, formula):
    micrographs = [disc_micrograph(f"disc{seed}.mrc", seed=seed, shape_yx=(96, 128)) for seed in range(2)]
    settings = make_settings("cryotransformer", as_=name, weights=checkpoint, precision="float32")
    run = pick_all(micrographs, settings, masks=[None, None])
    for micrograph, picks in zip(micrographs, run.picks, strict=True):
        expected = formula(micrograph)
        inside = (expected[:, 0] < 127.5) & (expected[:, 1] < 95.5) & (expected[:, :2] >= -0.5).all(axis=1)
        expected = expected[inside]
        expected = expected[np.argsort(-expected[:, 2], kind="stable")]
        assert picks.is_kept.all()
        assert len(expected) >= 5
        assert len(picks) == len(expected)
        # half pixels of the program, and whatever rounding moves a corner over a whole one, at most one pixel
        np.testing.assert_allclose(picks.score, expected[:, 2], atol=1e-4)
        np.testing.assert_allclose(picks.xy_px, expected[:, :2], atol=0.02 if name == "article" else 1.0)
        assert (np.abs(picks.xy_px - expected[:, :2]) < 0.02).mean() > 0.9
    assert run.picks[0].score[0] != run.picks[1].score[0]


def test_no_diameter_is_asked_for_and_no_rule_of_ours_applies(checkpoint):
    for name in ("article", "program"):
        settings = make_settings("cryotransformer", as_=name, weights=checkpoint)
        assert settings.picker.diameter is None
        assert settings.selection.as_found
        assert not settings.picker.has_calibrated_scores
        assert "not calibrated" in settings.picker.score_meaning
    assert "calibrated on simulation" in CryoTransformerPicker.score_meaning
    assert CryoTransformerPicker().score_meaning == CryoTransformerPicker.score_meaning


def test_denoised_pictures_are_taken_as_they_are_and_raw_ones_refused(checkpoint):
    picker = CryoTransformerPicker(weights=checkpoint, behaviour="article", denoising="as_is", precision="float32")
    micrograph = disc_micrograph("disc0.mrc", shape_yx=(96, 128))
    with pytest.raises(SettingsError, match=r"disc0\.mrc: denoising as_is takes 8-bit pictures"):
        picker.pick(micrograph)
    picture = denoise_published(micrograph.pixels).image
    picks = picker.pick(Micrograph(picture.astype(np.float32), name="disc0.jpg"))
    logits, boxes = answers_for(picture)
    score = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    best = boxes[score.argmax(), :2] * [128, 96] - 0.5
    np.testing.assert_allclose(picks.xy_px[0], best, atol=0.02)


def test_without_weights_of_the_published_network_it_stops_and_says_where_they_come_from():
    with pytest.raises(SettingsError, match="not of the published network; give the authors' file"):
        make_settings("cryotransformer", as_="article").picker.survey([])


def test_weights_without_a_calibration_keep_the_articles_percentile_and_cannot_be_cut_by_probability(checkpoint):
    picker = CryoTransformerPicker(weights=checkpoint)
    assert not picker.has_calibrated_scores
    assert picker.choose_threshold(np.ones(3, np.float32), None) == 0.0
    with pytest.raises(SettingsError, match="not calibrated"):
        CryoTransformerPicker(weights=checkpoint, keep="calibrated").choose_threshold(np.ones(3, np.float32), None)
    with pytest.raises(SettingsError, match="leave one of them out"):
        CryoTransformerPicker(weights=checkpoint, keep="calibrated", behaviour="article")


# ------------------------------------------------------------------------------------------------------------- files


def test_a_run_goes_over_the_authors_file_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    seen = []

    def noted(path):
        seen.append(path)
        return read_archive(path)

    read_archive = torch_files._read_archive  # which goes over every byte
    monkeypatch.setattr(torch_files, "_read_archive", noted)
    weights, micrograph = save_as_authors(tmp_path / "x.pth", tensors_of_test()), tmp_path / "m.mrc"
    write_micrograph(micrograph, disc_micrograph("m.mrc", shape_yx=(96, 128)))
    found = []
    for name in ("first", "again", "other"):
        if name == "other":
            save_as_authors(weights, {key: 1.5 * one for key, one in tensors_of_test().items()})
        pick_to_folder([micrograph], tmp_path / name, make_settings("cryotransformer", as_="article", weights=weights),
                       workers=1)  # fmt: skip
        found.append((tmp_path / name / "candidates" / "m.csv").read_text())
        assert seen == [weights] * (2 if name == "other" else 1)
    assert found[0] == found[1] != found[2]


def test_imported_weights_pick_as_the_file_does_and_their_card_says_what_they_are(checkpoint, tmp_path):
    imported = import_weights(checkpoint, tmp_path / "imported")
    card = read_card(imported.weights)
    assert card.architecture["backbone"] == "resnet18"
    assert {name: card.architecture[name] for name in ("queries", "width", "heads", "layers", "feed_width")} == {
        "queries": 12,
        "width": 32,
        "heads": 4,
        "layers": 2,
        "feed_width": 48,
    }
    assert card.data["epoch"] == 299
    assert any("not calibrated" in note for note in card.notes)
    assert "calibration" not in card.postprocessing
    micrograph = disc_micrograph("disc0.mrc", shape_yx=(96, 128))
    first, second = (
        CryoTransformerPicker(weights=path, behaviour="published", precision="float32").pick(micrograph)
        for path in (checkpoint, imported.weights)
    )
    np.testing.assert_array_equal(first.xy_px, second.xy_px)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: t.update({"backbone.1.row_embed.weight": torch.zeros(50, 16)}),
            "unknown backbone.1.row_embed.weight",
        ),
        (lambda t: t.pop("transformer.decoder.norm.bias"), "lacks transformer.decoder.norm.bias"),
        (lambda t: t.update({"input_proj.bias": torch.zeros(5)}), r"input_proj.bias is \(5,\), expected \(32,\)"),
    ],
)
def test_a_file_that_is_not_the_network_is_refused_with_the_name_of_what_is_wrong(tmp_path, change, told):
    tensors = authors_tensors()
    change(tensors)
    with pytest.raises(WeightsError, match=told):
        read_published(save_as_authors(tmp_path / "x.pth", tensors), picker="cryotransformer")


@pytest.mark.parametrize("argument", ["dilation", "pre_norm", "masks"])
def test_networks_that_compute_something_else_from_equal_tensors_are_refused(tmp_path, argument):
    with pytest.raises(WeightsError, match="which CryoTransformer has not"):
        read_published(save_as_authors(tmp_path / "x.pth", **{argument: True}), picker="cryotransformer")


def test_a_detr_of_coco_is_no_picker_but_a_start(tmp_path):
    path = save_as_authors(tmp_path / "coco.pth", authors_tensors(classes=92))
    with pytest.raises(WeightsError, match=r"92 classes.*coco_weights"):
        read_published(path, picker="cryotransformer")


def test_backbones_are_told_apart_by_their_blocks(tmp_path):
    deep = authors_tensors(depths=(3, 4, 6, 3), stem=4, is_deep=True)
    path = save_as_authors(tmp_path / "deep.pth", deep)
    assert read_published(path, picker="cryotransformer").card.architecture["backbone"] == "resnet50"
    shallow = authors_tensors(depths=(3, 4, 6, 3), stem=4)
    path = save_as_authors(tmp_path / "shallow.pth", shallow)
    assert read_published(path, picker="cryotransformer").card.architecture["backbone"] == "resnet34"


# ------------------------------------------------------------------------------------------------ starts of training

TASK = {"backbone": "resnet18", "backbone_width": 8, "queries": 12, "width": 32, "heads": 4, "layers": 2}
SHORT = {"feed_width": 48, "short_px": 64, "longest_px": 128, "batch_size": 2, "validation_images": 2}


def new_network():
    return build_detr(DetrTrainable(DetrTask(**TASK, **SHORT)).architecture())


def test_training_starts_from_a_resnet_of_imagenet_whose_classifier_is_left_out(tmp_path):
    prefix = "backbone.0.body."
    tensors = {n.removeprefix(prefix): t for n, t in authors_tensors(seed=5).items() if n.startswith(prefix)}
    imagenet = {**tensors, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    imagenet["bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(imagenet, tmp_path / "resnet18.pth")
    network = new_network()
    start_backbone(network, tmp_path / "resnet18.pth")
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    torch.save({**imagenet, "layer5.0.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"unknown layer5\.0\.conv1\.weight"):
        start_backbone(network, tmp_path / "other.pth")


def test_training_starts_from_a_deeper_detr_of_coco_without_its_class_head_and_queries(tmp_path):
    tensors = authors_tensors(depths=(2, 2, 3, 2), classes=92, queries=100, seed=6)
    path = save_as_authors(tmp_path / "coco.pth", tensors)
    network, untouched = new_network(), None
    untouched = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    norms = start_from_coco(network, path)
    assert "layer4.1.bn2" in norms
    for name, tensor in network.state_dict().items():
        if name.startswith(("class_embed", "query_embed")):
            assert torch.equal(tensor, untouched[name]), name
        else:
            authors = name.replace("backbone.", "backbone.0.body.", 1) if name.startswith("backbone.") else name
            assert torch.equal(tensor, tensors[authors]), name


def test_a_training_uses_the_weights_that_it_is_given_to_start_from(tmp_path, caplog):
    path = save_as_authors(tmp_path / "coco.pth", authors_tensors(classes=92, seed=6))
    with caplog.at_level(logging.WARNING):
        task = DetrTask(**TASK, **SHORT, coco_weights=path, denoising="none")
        network = DetrTrainable(task).build_network()
    tensors = authors_tensors(classes=92, seed=6)
    assert torch.equal(network.input_proj.weight, tensors["input_proj.weight"])
    assert torch.equal(network.backbone.bn1.running_mean, tensors["backbone.0.body.bn1.running_mean"])


def test_the_docs_list_what_each_configuration_sets():
    lines = (Path(__file__).parents[3] / "docs" / "cryotransformer.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| setting | `--as article` | `--as program` |")
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, article, program = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        table[name] = {"article": article, "program": program}
    for word, configuration in configurations_of(CryoTransformerPicker).items():
        told = {name: row[word] for name, row in table.items() if row[word]}
        assert told == {name: as_text(value) for name, value in configuration.settings.items()}
