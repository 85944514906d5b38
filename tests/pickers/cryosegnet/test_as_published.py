"""`--as program` and `--as article` on the authors' kinds of files: the outputs of their formulas, end to end."""

import re
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from authors_unet import WIDTHS, authors_unet  # noqa: E402
from meta_checkpoint import meta_tensors  # noqa: E402
from PIL import Image  # noqa: E402
from scipy import ndimage  # noqa: E402
from torch.nn import functional  # noqa: E402
from torchvision.ops import nms  # noqa: E402

import cryopick  # noqa: E402
from cryopick.errors import InputError, SettingsError, WeightsError  # noqa: E402
from cryopick.io.images.micrographs import read_micrograph, write_micrograph  # noqa: E402
from cryopick.io.weights import read_card  # noqa: E402
from cryopick.pickers.cryosegnet import picker  # noqa: E402
from cryopick.pickers.cryosegnet.configurations import CONFIGURATIONS  # noqa: E402
from cryopick.pickers.cryosegnet.model import View, load_mapper  # noqa: E402
from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker  # noqa: E402
from cryopick.pickers.cryosegnet.segmenter import LoadedSam  # noqa: E402
from cryopick.pickers.cryosegnet.zoomed_crops import crops_of  # noqa: E402
from cryopick.pickers.protocol import gives_probabilities  # noqa: E402
from cryopick.pickers.published_weights import read_published  # noqa: E402
from cryopick.pickers.survey import NOTHING_SEEN  # noqa: E402
from cryopick.processing.denoise.published import denoise_published  # noqa: E402
from cryopick.runs.settings import make_settings  # noqa: E402
from cryopick.settings import as_text  # noqa: E402
from cryopick.types import Micrograph  # noqa: E402
from cryopick.workflows.import_weights import import_weights  # noqa: E402
from cryopick.workflows.pick import pick_to_folder  # noqa: E402

SIDE_PX = 1024
POINTS = 5
"""Per side of the grid, in place of 32, so that a test takes seconds."""

# ------------------------------------------------------------------------------------------- files as the authors' are


class StandIn:
    """Segments pictures of 256 px by a rule: ragged discs around the nearest of a lattice's points, as bright as it is.

    A random Segment Anything marks everything or nothing; its network is checked in test_sam_network.py.
    """

    image_px, patch_px, particle_px, name = 256, 16, 40.0, "stand-in"
    lattice_px = 23

    def embed(self, tiles):
        return tiles

    def decode(self, embeddings, tile, xy_px):
        y, x = np.mgrid[: self.image_px, : self.image_px]
        logits = np.zeros((len(tile), 3, self.image_px, self.image_px), np.float32)
        predicted = np.zeros((len(tile), 3), np.float32)
        for i, (number, place) in enumerate(zip(tile, xy_px, strict=True)):
            column, row = np.clip(np.rint(np.asarray(place) / self.lattice_px), 1, 10).astype(int)
            centre = column * self.lattice_px, row * self.lattice_px
            picture = embeddings[number]
            brightness = picture[centre[1] - 3 : centre[1] + 4, centre[0] - 3 : centre[0] + 4].mean()
            for k in range(3):
                radius = (5, 9, 9)[k] + round(float(brightness)) % 2
                gap = np.hypot(x - centre[0], y - centre[1])
                hole = 6.0 * (gap < 2.0) * (row % 2)
                speckle = (np.abs(x - centre[0] - 18) + np.abs(y - centre[1]) < 2) * 25.0 * (column % 2)
                logits[i, k] = 12 * (radius - gap) - hole * 25 + speckle * 12 + (picture - 128) / 120
                share = ((3 * column + row + k) % 5) / 4
                # no two alike, as of equally common sizes the surest mask's counts
                own = (brightness / 35 + 0.37 * column + 0.61 * row + 0.11 * k) % 1
                predicted[i, k] = 0.86 + 0.14 * share - 8e-5 * own
        return logits, predicted


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authors")
    torch.save(authors_unet(), folder / "cryosegnet.pth")
    torch.save(meta_tensors(), folder / "sam_vit_h_4b8939.pth")
    for number, shape in enumerate([(700, 820), (640, 640)]):
        rng = np.random.default_rng(number)
        y, x = np.mgrid[: shape[0], : shape[1]]
        pixels = ndimage.gaussian_filter(rng.normal(size=shape), 2).astype(np.float32)
        for cx, cy in rng.uniform(60, 580, (12, 2)):
            pixels -= 0.3 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 500)
        write_micrograph(folder / f"m{number}.mrc", Micrograph(pixels.astype(np.float32), pixel_size_angstrom=1.5))
    return folder


# ------------------------------------------------------------------------------------------------ the authors' formulas


def unet_by_formula(tensors, picture):
    """(1024, 1024) sigmoid map of a picture in [0, 1]."""

    def convolved(name, x):
        weight = tensors[f"{name}.weight"]
        return functional.conv2d(x, weight, tensors[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def normed(name, x):
        parts = [tensors[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, weight, bias = parts
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def block(name, x):
        x = torch.relu(normed(f"{name}.conv.1", convolved(f"{name}.conv.0", x)))
        return torch.relu(normed(f"{name}.conv.4", convolved(f"{name}.conv.3", x)))

    levels = sum(name.endswith(".conv.conv.0.weight") for name in tensors)
    x, skips = torch.from_numpy(np.array(picture, np.float32))[None, None], []
    for number in range(1, levels + 1):
        x = block(f"e{number}.conv", x)
        skips.append(x)
        x = functional.max_pool2d(x, 2)
    x = block("b1", x)
    for number, skip in enumerate(reversed(skips), 1):
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        gate = f"d{number}.ag"
        if f"{gate}.Wg.0.weight" in tensors:
            asked = normed(f"{gate}.Wg.1", convolved(f"{gate}.Wg.0", x))
            asked = torch.relu(asked + normed(f"{gate}.Ws.1", convolved(f"{gate}.Ws.0", skip)))
            skip = skip * torch.sigmoid(convolved(f"{gate}.output.0", asked))  # noqa: PLW2901
        x = block(f"d{number}.c1", torch.cat([x, skip], 1))
    return torch.sigmoid(convolved("output", x))[0, 0].numpy()


def program_map(tensors, pixels, *, guide="wiener"):
    """The picture upside down, denoised, squeezed and mapped, and the map turned back."""
    denoised = denoise_published(pixels[::-1], guide=guide).image
    squeezed = cv2.resize(denoised, (SIDE_PX, SIDE_PX))
    return unet_by_formula(tensors, squeezed / 255)[::-1]


def as_8bit(probability):
    low, high = probability.min(), probability.max()
    return np.floor(255 * (probability - low) / (high - low)).astype(np.uint8)


def masks_by_formula(picture, *, layers, points, smallest_px):
    """Segment Anything's generator on (h, w) uint8 with its defaults: a list of (mask, box, predicted IoU)."""
    side, network = StandIn.image_px, StandIn()
    height, width = picture.shape
    windows = [(0, 0, width, height, points)]
    for layer in range(1, layers + 1):
        n = 2**layer
        overlap = int(512 / 1500 * min(height, width) * 2 / n)
        w, h = (int(np.ceil((overlap * (n - 1) + size) / n)) for size in (width, height))
        for i, j in product(range(n), range(n)):
            left, top = (w - overlap) * i, (h - overlap) * j
            windows.append((left, top, min(left + w, width), min(top + h, height), points // 2**layer))
    found = []
    for left, top, right, bottom, per_side in windows:
        if not per_side:
            continue
        w, h = right - left, bottom - top
        factor = side / max(w, h)
        shown = (int(w * factor + 0.5), int(h * factor + 0.5))
        padded = np.zeros((side, side), np.float32)
        padded[: shown[1], : shown[0]] = Image.fromarray(picture[top:bottom, left:right]).resize(shown, Image.BILINEAR)
        offsets = np.linspace(1 / (2 * per_side), 1 - 1 / (2 * per_side), per_side)
        grid = np.array([(x * shown[0], y * shown[1]) for y in offsets for x in offsets])
        logits, predicted = network.decode(padded[None], np.zeros(len(grid), int), grid)
        logits = torch.from_numpy(logits[..., : shown[1], : shown[0]])
        logits = functional.interpolate(logits, (h, w), mode="bilinear", align_corners=False).flatten(0, 1).numpy()
        mine = []
        for one, iou in zip(logits, predicted.ravel(), strict=True):
            stability = (one > 1).sum() / max((one > -1).sum(), 1)
            if not (iou > 0.88 and stability >= 0.95):
                continue
            mask = np.zeros((height, width), bool)
            mask[top:bottom, left:right] = one > 0
            y, x = np.nonzero(mask)
            box = np.array([x.min(), y.min(), x.max(), y.max()])
            near_crop = np.isclose(box, [left, top, right, bottom], atol=20, rtol=0)
            near_picture = np.isclose(box, [0, 0, width, height], atol=20, rtol=0)
            if not (near_crop & ~near_picture).any():
                mine.append((mask, box, iou, w * h))
        found += unalike(mine, [iou for _, _, iou, _ in mine])
    if len(windows) > 1:
        found = unalike(found, [1 / area for *_, area in found])
    if smallest_px:
        found = [cleaned(*one[:3], smallest_px=smallest_px) for one in found]
        found = unalike(found, [0.0 if changed else 1.0 for *_, changed in found])
    return sorted((one[:3] for one in found), key=lambda one: -one[2])


def unalike(found, scores):
    boxes = torch.tensor(np.array([one[1] for one in found]).reshape(-1, 4), dtype=torch.float32)
    return [found[i] for i in nms(boxes, torch.tensor(scores, dtype=torch.float32), 0.7).tolist()]


def cleaned(mask, box, iou, *, smallest_px):
    """Without holes, then without islands, of fewer pixels; the largest island stays."""
    labels, count = ndimage.label(~np.pad(mask, 1, constant_values=False))
    sizes = ndimage.sum_labels(np.ones(labels.shape), labels, range(count + 1))
    sizes[[0, labels[0, 0]]] = np.inf
    whole = mask | (sizes[labels] < smallest_px)[1:-1, 1:-1]
    labels, count = ndimage.label(whole, np.ones((3, 3)))
    sizes = ndimage.sum_labels(whole, labels, range(count + 1))
    sizes[0] = 0
    kept = [number for number in range(1, count + 1) if sizes[number] >= smallest_px] or [int(sizes.argmax())]
    whole = np.isin(labels, kept)
    y, x = np.nonzero(whole)
    return whole, np.array([x.min(), y.min(), x.max(), y.max()]), iou, not np.array_equal(whole, mask)


def rows_by_formula(masks, shape_yx):
    """(n, 4) of the program's table: x, y, diameter, predicted IoU."""
    boxes = [(box[0], box[1], box[2] - box[0], box[3] - box[1], iou) for _, box, iou in masks if iou > 0.94]
    if not boxes:
        return np.zeros((0, 4))
    widths, heights = [one[2] for one in boxes], [one[3] for one in boxes]
    mode_w, mode_h = max(widths, key=widths.count), max(heights, key=heights.count)
    factor_x, factor_y = shape_yx[1] / SIDE_PX, shape_yx[0] / SIDE_PX
    radius = int(np.sqrt((mode_w * factor_x) ** 2 + (mode_h * factor_y) ** 2) // 2)
    margin = 0.2 * radius
    return np.array(
        [
            (int((x + w / 2) * factor_x), int((y + h / 2) * factor_y), 2 * radius, iou)
            for x, y, w, h, iou in boxes
            if mode_w - margin / 3 < w < mode_w + margin and mode_h - margin / 3 < h < mode_h + margin
        ]
    )


def as_rows(picks):
    kept = picks.kept()
    return np.column_stack([kept.xy_px, kept.diameter_px, kept.score])


# ----------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture
def as_published(files, monkeypatch):
    """Picks of a micrograph with the authors' U-Net, and the stand-in for Meta's Segment Anything."""
    monkeypatch.setattr(picker, "load_segmenter", lambda *_, **__: LoadedSam(StandIn(), None))

    def pick(path, name, **given):
        weights, sam = files / "cryosegnet.pth", str(files / "sam_vit_h_4b8939.pth")
        return cryopick.pick(path, "cryosegnet", as_=name, weights=weights, sam=sam, points_per_side=POINTS, **given)

    return pick


def check_map(picks, path):
    """The map is the formula's; what follows is checked from it on, as a grey level more moves a mask's rim."""
    found, expected = picks.maps["particle map"], program_map(authors_unet(), read_micrograph(path).pixels)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.ptp(expected) > 0.05
    return as_8bit(found)


@pytest.mark.parametrize("number", [0, 1])
def test_as_program_gives_the_rows_of_the_programs_formulas(files, as_published, number):
    path = files / f"m{number}.mrc"
    picks = as_published(path, "program")
    shape_yx = read_micrograph(path).shape_yx
    masks = masks_by_formula(check_map(picks, path), layers=0, points=POINTS, smallest_px=0)
    expected = rows_by_formula(masks, shape_yx)
    found = as_rows(picks)
    again = expected[expected[:, 3] > 0.9999]
    assert len(expected) > len(again) > 0
    assert len(found) == len(expected) + len(again)
    originals = [row for row in expected if (np.abs(found - row).max(axis=1) < 1e-5).any()]
    assert len(originals) == len(expected)
    for row in again:  # written twice, the second time up to a tenth of the radius away
        assert (np.abs(found[:, :2] - row[:2]).max(axis=1) <= row[2] // 20).sum() >= 2
    np.testing.assert_array_equal(as_rows(as_published(path, "program")), found)


def test_as_article_looks_at_zoomed_crops_cleans_masks_and_repeats_nothing(files, as_published):
    path = files / "m0.mrc"
    picks = as_published(path, "article", crop_layers=1)  # 4 crops, which is enough here; the article's 2 have 20
    assert make_settings("cryosegnet", as_="article").picker.crop_layers == 2
    assert len(crops_of((SIDE_PX, SIDE_PX), layers=2)) == 1 + 4 + 16
    shape_yx = read_micrograph(path).shape_yx
    masks = masks_by_formula(check_map(picks, path), layers=1, points=POINTS, smallest_px=100)
    expected = rows_by_formula(masks, shape_yx)
    found = as_rows(picks)
    assert len(found) == len(expected) > 3
    columns = [0, 1, 3]  # the diameter is that of a disc, not of the box
    order = [np.lexsort(rows[:, columns].T) for rows in (found, expected)]
    np.testing.assert_allclose(found[order[0]][:, columns], expected[order[1]][:, columns], atol=1e-5)
    assert np.unique(found[:, 2]).size == 1
    assert found[0, 2] < expected[0, 2]


def test_each_module_of_the_published_system_can_be_had_alone(files, as_published):
    path = files / "m1.mrc"
    regions = as_published(path, "program", modules="unet")
    probability = regions.maps["particle map"]
    labels, count = ndimage.label(probability > 0.5, np.ones((3, 3)))
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, count + 1)))[:, ::-1]
    expected = (centres + 0.5) * 640 / SIDE_PX - 0.5
    assert len(regions) == count > 0
    assert "masks" not in regions.maps
    np.testing.assert_allclose(np.sort(regions.xy_px, axis=0), np.sort(expected, axis=0), atol=1e-6)
    masks = masks_by_formula(as_8bit(probability), layers=0, points=POINTS, smallest_px=0)
    unfiltered = as_published(path, "program", modules="unet+sam")
    boxes = np.array([box for _, box, _ in masks])
    expected = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 * 640 / SIDE_PX)
    assert len(masks) > len(rows_by_formula(masks, (640, 640)))
    np.testing.assert_array_equal(np.sort(unfiltered.xy_px, axis=0), np.sort(expected, axis=0))
    alone = CryoSegNetPicker(
        segmenter="sam",
        modules="sam",
        weights=files / "cryosegnet.pth",  # for their view of micrographs
        prompts="grid",
        points_per_side=POINTS,
        postprocessing="none",
    ).pick(read_micrograph(path))
    assert "particle map" not in alone.maps
    denoised = cv2.resize(denoise_published(read_micrograph(path).pixels[::-1]).image, (SIDE_PX, SIDE_PX))[::-1]
    boxes = np.array([box for _, box, _ in masks_by_formula(denoised, layers=0, points=POINTS, smallest_px=0)])
    expected = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 * 640 / SIDE_PX)
    assert len(expected) > 3
    np.testing.assert_array_equal(np.sort(alone.xy_px, axis=0), np.sort(expected, axis=0))


# -------------------------------------------------------------------------------------------------- the authors' files


def test_the_authors_unet_is_taken_over_with_what_its_tensors_say(files, tmp_path):
    imported = import_weights(files / "cryosegnet.pth", tmp_path / "unet")
    card = read_card(imported.weights)
    assert card.architecture["widths"] == list(WIDTHS)
    assert card.architecture.get("gates", True)
    assert "calibration" not in card.postprocessing
    assert any("not calibrated" in note for note in card.notes)
    assert imported.tensors == len(authors_unet())
    picture = np.random.default_rng(0).random((64, 64))
    for weights in (files / "cryosegnet.pth", imported.weights):
        mapper = load_mapper(weights, device="cpu", precision="float32")
        assert mapper.view == View("published", SIDE_PX, 1, denoising="program", is_upside_down=True)
        found = mapper.maps(np.array(picture, np.float32)[None])[0]
        np.testing.assert_allclose(found, unet_by_formula(authors_unet(), picture), atol=2e-6)


@pytest.mark.parametrize(("levels", "gates"), [(4, True), (6, True), (3, False)])
def test_levels_and_gates_are_read_off_the_tensors(tmp_path, levels, gates):
    tensors = authors_unet((3,) * (levels + 1), gates=gates)
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "parallel.pth")
    card = read_published(tmp_path / "parallel.pth", picker="cryosegnet").card
    assert (len(card.architecture["widths"]), card.architecture.get("gates", True)) == (levels + 1, gates)
    picture = np.random.default_rng(0).random((128, 128))
    mapper = load_mapper(tmp_path / "parallel.pth", device="cpu", precision="float32")
    found = mapper.maps(np.array(picture, np.float32)[None])[0]
    np.testing.assert_allclose(found, unet_by_formula(tensors, picture), atol=2e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"e9.conv.conv.0.weight": torch.zeros(1)}, "lacks e6.conv.conv.0.weight"),
        ({"extra.head.weight": torch.zeros(1)}, "unknown extra.head.weight"),
        ({"d2.c1.conv.1.weight": torch.zeros(3)}, r"d2.c1.conv.1.weight is \(3,\), expected \(7,\)"),
        ({"d2.c1.conv.1.weight": 3}, "is a int, expected a tensor"),
        ({"e1.conv.conv.0.weight": torch.zeros(4, 3, 3, 3)}, "one channel in"),
    ],
)
def test_files_that_are_no_such_unet_are_refused_by_the_authors_names(tmp_path, change, told):
    torch.save({**authors_unet(), **change}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=told):
        read_published(tmp_path / "other.pth", picker="cryosegnet")


# -------------------------------------------------------------------------------- nothing is ignored, nothing is silent


@pytest.mark.parametrize(
    "given",
    [
        {"postprocessing": "published"},
        {"prompts": "grid"},
        {"sam": "/nowhere/sam_vit_h_4b8939.pth"},
        {"points_per_side": 16},
        {"stability": 0.9},
        {"predicted_iou": 0.5},
        {"modules": "unet"},
        {"crop_layers": 1, "prompts": "grid"},
        {"smallest_region_px": 5.0},
    ],
)
def test_settings_of_segment_anything_without_it_are_an_error_that_says_what_to_do(given):
    with pytest.raises(SettingsError, match=f"{next(iter(given))}.*give --segmenter sam, or leave them out"):
        CryoSegNetPicker(**given)


def test_a_missing_file_is_told_before_the_run_folder_begins(files, tmp_path):
    inputs, unet = [files / "m0.mrc"], files / "cryosegnet.pth"
    for given, told in (
        ({}, "wants a U-Net of the published kind"),
        ({"weights": unet}, "wants Meta's Segment Anything"),
        ({"weights": unet, "sam": "/nowhere/sam_vit_h_4b8939.pth"}, "no such file"),
        ({"weights": "/nowhere/unet.pth", "sam": "/nowhere/sam_vit_h_4b8939.pth"}, "no such weights file"),
    ):
        with pytest.raises((SettingsError, WeightsError), match=told):
            pick_to_folder(inputs, tmp_path / "run", make_settings("cryosegnet", as_="article", **given))
        assert not (tmp_path / "run").exists()


def test_a_run_without_a_diameter_goes_through_and_says_why_nothing_passes(files, tmp_path):
    chosen = make_settings(
        "cryosegnet", as_="program", weights=files / "cryosegnet.pth", points_per_side=2,
        sam=str(files / "sam_vit_h_4b8939.pth"),
    )  # fmt: skip
    summary = pick_to_folder([files / "m0.mrc"], tmp_path / "run", chosen, workers=1)
    assert not gives_probabilities(chosen.picker)
    assert not summary.failed
    log = (tmp_path / "run" / "run.log").read_text()
    assert "masks passes" in log
    assert "highest predicted IoU" in log


def test_published_filters_with_the_compact_model_say_why_they_keep_nothing(files):
    chosen = {"segmenter": "sam", "postprocessing": "published", "weights": files / "cryosegnet.pth"}
    picks = cryopick.pick(files / "m0.mrc", "cryosegnet", **chosen)
    assert len(picks) == 0
    assert any("the published filters are for Meta's models" in text for text in picks.warnings)


def test_no_threshold_is_claimed_to_reach_a_precision_with_weights_that_are_not_calibrated(files):
    plain = CryoSegNetPicker(weights=files / "cryosegnet.pth")
    assert not gives_probabilities(plain)
    assert plain.choose_threshold(np.array([0.2, 0.6], np.float32), NOTHING_SEEN) == 0.5
    with pytest.raises(SettingsError, match="not calibrated"):
        plain.choose_threshold(np.array([0.2], np.float32), NOTHING_SEEN, target_precision=0.9)


def test_pictures_are_shown_as_they_are_and_micrographs_upside_down():
    view = View("published", 64, is_upside_down=True)
    assert view.of_file(Path("a.mrc")).is_upside_down
    assert view.of_file(None).is_upside_down
    assert not view.of_file(Path("a.jpg")).is_upside_down


@pytest.mark.parametrize("denoising", ["program", "article", "none", "done"])
def test_every_denoising_is_what_it_says(denoising):
    pixels = np.random.default_rng(0).uniform(0, 255, (90, 70)).astype(np.float32)
    expected = {
        "program": lambda: denoise_published(pixels[::-1]).image,
        "article": lambda: denoise_published(pixels[::-1], guide="equalized").image,
        "none": lambda: np.floor(255 * (pixels[::-1] - pixels.min()) / np.ptp(pixels)).astype(np.uint8),
        "done": lambda: np.rint(pixels[::-1]).astype(np.uint8),
    }[denoising]()
    found, _ = View("published", 64, denoising=denoising, is_upside_down=True).show(pixels, diameter_px=None)
    np.testing.assert_allclose(255 * found[::-1], cv2.resize(expected, (64, 64)), atol=1.01)
    if denoising == "done":
        with pytest.raises(InputError, match="expected a denoised picture"):
            View("published", 64, denoising="done").show(pixels - 1, diameter_px=None)


def test_the_page_lists_what_each_configuration_sets():
    page = (Path(__file__).parents[3] / "docs" / "cryosegnet.md").read_text(encoding="utf-8")
    article, program = (CONFIGURATIONS[name].settings for name in ("article", "program"))
    told = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", page, flags=re.MULTILINE)
    words = [
        (name, *(as_text(one[name]) if name in one else "" for one in (article, program)))
        for name in {**article, **program}
    ]
    assert sorted((name, first.strip(), second.strip()) for name, first, second in told) == sorted(words)
