"""Cryo-EMMAE as published: the authors' files, and both configurations against their formulas written out here."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from authors_emmae import DECODER_WIDTH, DEPTH, MEAN, STD, WIDTH, authors_tensors, write_authors_files
from blobs import draw_blobs, lattice_of_centres, mean_shift
from PIL import Image
from scipy import ndimage
from sklearn.cluster import KMeans
from torch.nn import functional as F  # noqa: N812

from cryopick import pick
from cryopick.errors import SettingsError, WeightsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.configurations import configurations_of
from cryopick.pickers.cryoemmae.clusters import NO_CLUSTER, greatest_overlap, hand_over_as_released
from cryopick.pickers.cryoemmae.denoise import disc_mask, prepare_as_written, prepare_cryoemmae
from cryopick.pickers.cryoemmae.kmeans_file import read_centres
from cryopick.pickers.cryoemmae.latent import Encoder, Prepared
from cryopick.pickers.cryoemmae.network import build_masked_autoencoder
from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker, load_model
from cryopick.pickers.cryoemmae.published_chain import PublishedChain
from cryopick.pickers.protocol import gives_probabilities, surveys
from cryopick.pickers.published_weights import read_published
from cryopick.processing.scale import ScaleMap
from cryopick.runs.settings import make_settings
from cryopick.settings import as_text
from cryopick.types import Micrograph
from cryopick.workflows.import_weights import import_weights
from cryopick.workflows.train import plan_training, train_picker

DIAMETER = 50  # px, of discs


def block_of(x: torch.Tensor, tensors: dict[str, torch.Tensor], name: str, heads: int) -> torch.Tensor:
    """One block of a vision transformer, before the norm."""

    def linear(values: torch.Tensor, part: str) -> torch.Tensor:
        return values @ tensors[f"{name}.{part}.weight"].T + tensors[f"{name}.{part}.bias"]

    def norm(values: torch.Tensor, part: str) -> torch.Tensor:
        weight, bias = tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"]
        return F.layer_norm(values, values.shape[-1:], weight, bias, eps=1e-6)

    b, n, width = x.shape
    query, key, value = (
        linear(norm(x, "norm1"), "attn.qkv").reshape(b, n, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    )
    weights = (query @ key.transpose(-1, -2) * (width // heads) ** -0.5).softmax(dim=-1)
    x = x + linear((weights @ value).transpose(1, 2).reshape(b, n, width), "attn.proj")
    return x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


def latent_of(crops: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """(n, 64, 64) crops to (n, 256, c): positions of patches times 0.08, that of the class token as it is."""
    x = F.conv2d(crops[:, None], tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=4)
    x = x.flatten(2).transpose(1, 2) + 0.08 * tensors["pos_embed"][:, 1:]
    first = (tensors["cls_token"] + tensors["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([first, x], dim=1)
    for number in range(DEPTH):
        x = block_of(x, tensors, f"blocks.{number}", heads=1)
    return F.layer_norm(x, x.shape[-1:], tensors["norm.weight"], tensors["norm.bias"], eps=1e-6)[:, 1:]


def map_of(picture: np.ndarray, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    """(1024, 1024) 8-bit picture to (256, 256, c)."""
    crops = [
        picture[top : top + 64, left : left + 64] / 255 for top in range(0, 1024, 64) for left in range(0, 1024, 64)
    ]
    with torch.no_grad():
        codes = latent_of(torch.from_numpy((np.stack(crops) - MEAN) / STD).float(), tensors).numpy()
    rows = [np.concatenate([codes[16 * i + j].reshape(16, 16, -1) for j in range(16)], axis=1) for i in range(16)]
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the authors: weights, standardisation, k-means of joblib, reference picture and mask."""
    folder = tmp_path_factory.mktemp("authors")
    picture = prepare_cryoemmae(micrographs()[0][::-1], diameter_px=DIAMETER).picture
    write_authors_files(folder, picture=picture, vectors=map_of(picture, authors_tensors()).reshape(-1, WIDTH))
    return folder


def micrographs() -> list[np.ndarray]:
    """Two of dark discs, wider than high, so that squares become oblongs."""
    found = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:600, :720]
        pixels = rng.normal(size=(600, 720)).astype(np.float32)
        for centre in rng.uniform(40, 560, (40, 2)):
            pixels -= 1.2 * (np.hypot(y - centre[0], x - centre[1]) <= DIAMETER / 2)
        found.append(pixels)
    return found


# ------------------------------------------------------------------------------------------------ the authors' files


def test_the_imported_network_gives_what_the_formulas_give(authors: Path) -> None:
    checkpoint = read_published(authors / "MAE_epoch_400.pth.tar")
    assert checkpoint.card.picker == "cryoemmae"
    network = checkpoint.build(build_masked_autoencoder)
    crops = torch.randn(3, 64, 64)
    tensors = authors_tensors()
    with torch.no_grad():
        assert torch.allclose(network.eval().encode(crops), latent_of(crops, tensors), atol=1e-5)
        order = torch.rand(3, 256).argsort(dim=1)
        drawn = network(crops, order=order, visible=256)  # nothing hidden: the decoder sees the encoder's vectors
        x = F.conv2d(crops[:, None], tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=4)
        x = x.flatten(2).transpose(1, 2) + 0.08 * tensors["pos_embed"][:, 1:]
        x = torch.cat([(tensors["cls_token"] + tensors["pos_embed"][:, :1]).expand(3, -1, -1), x], dim=1)
        for number in range(DEPTH):
            x = block_of(x, tensors, f"blocks.{number}", heads=1)
        x = F.layer_norm(x, x.shape[-1:], tensors["norm.weight"], tensors["norm.bias"], eps=1e-6)
        x = x @ tensors["decoder_embed.weight"].T + tensors["decoder_embed.bias"] + tensors["decoder_pos_embed"]
        x = block_of(x, tensors, "decoder_blocks.0", heads=8)
        x = F.layer_norm(x, x.shape[-1:], tensors["decoder_norm.weight"], tensors["decoder_norm.bias"], eps=1e-6)
        expected = (x @ tensors["decoder_pred.weight"].T + tensors["decoder_pred.bias"])[:, 1:]
        assert torch.allclose(drawn, expected, atol=1e-4)


def test_what_is_imported_knows_its_standardisation_clusters_and_particle(authors: Path, tmp_path: Path) -> None:
    result = import_weights(authors / "MAE_epoch_400.pth.tar", tmp_path / "imported")
    card = json.loads((tmp_path / "imported" / "weights.json").read_text())
    assert card["preprocessing"] == {"mode": "program", "mean": MEAN, "std": STD}
    assert card["data"]["epoch"] == 400
    assert any("not calibrated" in note for note in card["notes"])
    model, direct = load_model(result.weights), load_model(authors / "MAE_epoch_400.pth.tar")
    kmeans = joblib.load(authors / "kmeans_4_82_400.pkl")
    labels = kmeans.predict(
        map_of(np.asarray(Image.open(authors / "input_example.png")), authors_tensors()).reshape(-1, WIDTH)
    )
    counts = np.bincount(labels[np.asarray(Image.open(authors / "target_example.png")).ravel() > 0])
    for one in (model, direct):
        assert one.probe is None
        assert one.particle == counts.argmax()
        assert one.centres == pytest.approx(kmeans.cluster_centers_, abs=1e-6)


def copied(authors: Path, folder: Path, *, without: str) -> Path:
    for file in authors.iterdir():
        if file.name != without:
            os.link(file, folder / file.name)
    return folder / "MAE_epoch_400.pth.tar"


@pytest.mark.parametrize("name", ["standarization_82.npy", "kmeans_4_82_400.pkl"])
def test_a_missing_companion_is_named(authors: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="--with"):
        read_published(copied(authors, tmp_path, without=name))
    companion = "clusters" if name.startswith("kmeans") else "standardization"
    read_published(tmp_path / "MAE_epoch_400.pth.tar", companions={companion: authors / name})


def test_without_a_reference_picking_asks_for_one(authors: Path, tmp_path: Path) -> None:
    for name in ("input_example.png", "target_example.png"):
        assert (authors / name).is_file()
    weights = copied(authors, tmp_path, without="target_example.png")
    with pytest.raises(WeightsError, match="belong together"):
        read_published(weights)
    (tmp_path / "input_example.png").unlink()
    with pytest.raises(SettingsError, match="--reference"):
        pick(micrographs()[0], "cryoemmae", as_="program", weights=weights, diameter=f"{DIAMETER}px", device="cpu")


def test_unknown_and_missing_tensors_are_named(authors: Path, tmp_path: Path) -> None:
    content = torch.load(authors / "MAE_epoch_400.pth.tar", weights_only=True)
    weights = copied(authors, tmp_path, without="MAE_epoch_400.pth.tar")
    for change, told in (
        (lambda model: model.update(extra=torch.zeros(1)), "unknown extra"),
        (lambda model: model.pop("blocks.1.norm1.weight"), "lacks blocks.1.norm1.weight"),
        (lambda model: model.pop("blocks.0.mlp.fc1.weight"), "lacks a part of the network"),
    ):
        model = dict(content["model"])
        change(model)
        torch.save({"model": model, "epoch": 1}, weights)
        with pytest.raises(WeightsError, match=told):
            read_published(weights, picker="cryoemmae")


class _Runs:
    """What a malicious pickle would do."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", ["joblib", 2, 3, 4, 5])
def test_centres_are_read_from_pickles_of_every_kind(tmp_path: Path, protocol: str | int) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    kmeans = KMeans(4, random_state=0, n_init="auto").fit(vectors)
    path = tmp_path / "kmeans.pkl"
    if protocol == "joblib":
        joblib.dump(kmeans, path)
    else:
        path.write_bytes(pickle.dumps(kmeans, protocol=int(protocol)))
    assert np.array_equal(read_centres(path), kmeans.cluster_centers_)
    np.save(tmp_path / "kmeans.npy", kmeans.cluster_centers_)
    assert np.array_equal(read_centres(tmp_path / "kmeans.npy"), kmeans.cluster_centers_)


@pytest.mark.parametrize("is_inside", [False, True])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, is_inside: bool) -> None:
    touched, path = tmp_path / "touched", tmp_path / "kmeans.pkl"
    kmeans = KMeans(2, random_state=0, n_init="auto").fit(np.eye(4, dtype=np.float32))
    if is_inside:  # a good k-means with something beside its centres
        kmeans.extra_ = _Runs(touched)
        joblib.dump(kmeans, path)
        assert np.array_equal(read_centres(path), kmeans.cluster_centers_)
    else:
        joblib.dump(_Runs(touched), path)
        with pytest.raises(WeightsError, match=r"numpy\.save"):
            read_centres(path)
    assert not touched.exists()
    pickle.loads(path.read_bytes()) if not is_inside else joblib.load(path)
    assert touched.exists()  # so it would have


def test_damaged_and_packed_pickles_are_refused_with_a_way_out(tmp_path: Path) -> None:
    kmeans = KMeans(2, random_state=0, n_init="auto").fit(np.eye(4, dtype=np.float32))
    path = tmp_path / "kmeans.pkl"
    joblib.dump(kmeans, path)
    data = path.read_bytes()
    for cut in range(0, len(data) - 1, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(WeightsError, match=r"numpy\.save"):
            read_centres(path)
    joblib.dump(kmeans, path, compress=3)
    with pytest.raises(WeightsError, match="packed"):
        read_centres(path)


# -------------------------------------------------------------------------------------------------- configurations


def rank_as_released(labels: np.ndarray, was: np.ndarray) -> int | None:
    """The program's rule, from its description: kinds ranked by how many cells of the middle they have."""
    kinds = np.where(was, labels + 1, 0)
    cut = int(len(labels) / 10)
    middle = kinds[cut:-cut, cut:-cut]
    if len(np.unique(middle)) == 1:
        middle = kinds
    count_of = {int(kind): int((middle == kind).sum()) for kind in np.unique(middle)}
    if len(count_of) == 1:
        return None
    ranked = sorted(count_of, key=lambda kind: count_of[kind])[::-1]
    first = ranked[1]
    if len(ranked) > 2:
        sizes = np.bincount(labels.ravel())  # looked up by a number that may be -1, the last one
        impurity = [sizes[kind - 1] / count_of[kind] for kind in ranked[1:3]]
        first = ranked[2] if impurity[0] > impurity[1] else first
    return first - 1


def centres_by_the_rules(mask: np.ndarray, diameter_512: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) row and column, and size, on 512 x 512: sections 6.1 to 6.6 of the specification, plainly."""
    grown = ndimage.convolve(mask.astype(np.float32), np.ones((3, 3), np.float32), mode="constant")
    picture = Image.fromarray((grown / max(grown.max(), 1e-9) * 255).astype(np.float32))
    smooth = np.asarray(picture.resize((512, 512), Image.Resampling.BILINEAR)).clip(0, 255).astype(np.uint8) / 255
    for threshold in np.round(np.linspace(1, 0, 30), 2):
        if (smooth > threshold).sum() > 0.04 * 512**2:
            break
    else:
        return np.zeros((0, 2)), np.zeros(0, int)
    labels, count = ndimage.label(smooth > threshold)
    places = [np.argwhere(labels == one) for one in range(1, count + 1)]
    centres = np.array([np.average(at, axis=0, weights=smooth[tuple(at.T)]) for at in places])
    size = np.array([len(at) for at in places])
    dropped = set()
    for one, centre in enumerate(centres):
        near = np.flatnonzero(np.hypot(*(centres - centre).T) < diameter_512 / 2)
        near = near[near != one]
        if len(near):
            dropped |= set(near) if (size[one] > size[near]).all() else {one}
    keep = np.array([one not in dropped for one in range(count)], bool)
    return centres[keep], size[keep]


def expected_mask(vectors: np.ndarray, kmeans: KMeans, particle: int, *, rule: str) -> np.ndarray:
    flat = vectors.reshape(-1, WIDTH)
    labels = kmeans.predict(flat)
    for count in (3, 4, 5):
        was = (labels == particle).reshape(256, 256)
        found = KMeans(count, random_state=0, n_init="auto").fit(flat).predict(flat)
        if rule == "program":
            chosen = rank_as_released(found.reshape(256, 256), was)
        else:
            overlap = np.bincount(found[was.ravel()], minlength=count)
            chosen = int(overlap.argmax()) if overlap.sum() else None
        if chosen is not None:
            labels, particle = found, chosen
    return (labels == particle).reshape(256, 256)


@pytest.mark.parametrize("name", ["program", "article"])
def test_both_configurations_give_the_picks_of_the_published_chain(authors: Path, name: str) -> None:
    tensors, kmeans = authors_tensors(), joblib.load(authors / "kmeans_4_82_400.pkl")
    particle = load_model(authors / "MAE_epoch_400.pth.tar").particle
    total = 0
    for pixels in micrographs():
        height, width = pixels.shape
        diameter_512 = max(DIAMETER / (height / 1024), DIAMETER / (width / 1024)) / 2
        if name == "program":
            vectors = map_of(prepare_cryoemmae(pixels[::-1], diameter_px=DIAMETER).picture, tensors)
            half = 2 if diameter_512 // 8 >= 4 else 1
            mean = np.zeros_like(vectors)
            windows = np.lib.stride_tricks.sliding_window_view(vectors, (2 * half, 2 * half), axis=(0, 1))
            mean[half:-half, half:-half] = windows.mean(axis=(-2, -1))[:-1, :-1]
            vectors = mean
        else:
            vectors = map_of(prepare_as_written(pixels, diameter_px=DIAMETER).picture, tensors)
        rc, size = centres_by_the_rules(expected_mask(vectors, kmeans, particle, rule=name), diameter_512)
        reach = diameter_512 / 1.5
        is_in = ((rc - reach >= 0) & (rc + reach <= 512)).all(axis=1)
        if name == "program":
            row, column = np.round(rc).T
            xy = np.stack([2 * column * width / 1024, height - 2 * row * height / 1024], axis=1)
        else:
            is_in &= np.sqrt(size / np.pi) <= 1.5 * diameter_512 / 2
            row, column = (rc + 0.5).T
            xy = np.stack([column * width / 512 - 0.5, row * height / 512 - 0.5], axis=1)
        picks = pick(
            pixels,
            "cryoemmae",
            as_=name,
            weights=authors / "MAE_epoch_400.pth.tar",
            diameter=f"{DIAMETER}px",
            device="cpu",
            precision="float32",
        )
        assert picks.is_kept.all()  # no rule of ours
        expected = sorted(map(tuple, np.column_stack([xy[is_in], size[is_in]]).tolist()))
        found = sorted(map(tuple, np.column_stack([picks.xy_px, picks.score]).tolist()))
        assert np.array(found) == pytest.approx(np.array(expected), abs=1e-6 if name == "program" else 1e-3)
        total += len(found)
    assert total > 20


def test_scores_of_configurations_are_no_probabilities_and_nothing_is_looked_at_before() -> None:
    for name in configurations_of(CryoEmmaePicker):
        settings = make_settings("cryoemmae", as_=name, diameter="50px")
        assert settings.selection.as_found
        assert not gives_probabilities(settings.picker)
        assert settings.picker.survey([Micrograph(np.zeros((9, 9)))]).sentence == ""
        assert settings.picker.holding_particles([Micrograph(np.zeros((9, 9)))] * 3) == [0, 1, 2]
        with pytest.raises(SettingsError, match="--diameter"):
            make_settings("cryoemmae", as_=name).picker.survey([Micrograph(np.zeros((9, 9)))])
        assert not surveys(settings.picker)
    assert gives_probabilities(make_settings("cryoemmae").picker)


@pytest.mark.parametrize("is_upside_down", [True, False])
def test_the_programs_coordinates_count_from_the_height_only_where_the_picture_is_upside_down(
    is_upside_down: bool,
) -> None:
    prepared = Prepared(
        np.zeros((1024, 1024), np.float32),
        ScaleMap((1024 / 300, 1024 / 400)),
        40.0,
        is_upside_down=is_upside_down,
        shape_yx=(300, 400),
    )
    chain = PublishedChain(rules="program", clusters=5, area=0.04)
    row = 100 * 300 / 512
    assert chain.stored_xy(np.array([[128.0, 100.0]]), prepared) == pytest.approx(
        np.array([[100.0, 300 - row if is_upside_down else row]])
    )


def test_the_page_lists_what_each_configuration_sets() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cryoemmae.md").read_text(encoding="utf-8")
    found = configurations_of(CryoEmmaePicker)
    ours = make_settings("cryoemmae")
    names = found["article"].settings
    assert list(names) == list(found["program"].settings)
    rows = []
    for name in names:
        owner = ours.picker if hasattr(ours.picker, name) else ours.selection
        values = [found["article"].settings[name], found["program"].settings[name], getattr(owner, name)]
        rows.append(f"| {name} | {' | '.join(as_text(value) for value in values)} |")
    assert "\n".join(["| setting | article | program | ours |", "| --- | --- | --- | --- |", *rows, ""]) in page


def test_weights_of_another_kind_are_refused(authors: Path) -> None:
    given = {"diameter": "50px", "device": "cpu"}
    with pytest.raises(SettingsError, match="20 px wide"):
        pick(micrographs()[0], "cryoemmae", as_="article", **given)
    with pytest.raises(SettingsError, match="no probe"):
        pick(micrographs()[0], "cryoemmae", weights=authors / "MAE_epoch_400.pth.tar", **given)


def test_the_older_name_of_the_program_rules_still_works() -> None:
    assert CryoEmmaePicker(postprocessing="published").postprocessing == "program"


def test_a_reference_that_is_prepared_already_is_taken_as_it_is(authors: Path, tmp_path: Path) -> None:
    """And one that is not is prepared like a micrograph, its mask turned with it."""
    pixels = micrographs()[0]
    write_micrograph(tmp_path / "reference.mrc", Micrograph(pixels))
    stored = np.asarray(Image.open(authors / "target_example.png"))[::-1]  # the program's pictures are upside down
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "mask.png")
    model = load_model(authors / "MAE_epoch_400.pth.tar", device="cpu", precision="float32")
    given = {"as_": "program", "weights": authors / "MAE_epoch_400.pth.tar", "diameter": f"{DIAMETER}px"}
    given |= {"device": "cpu", "precision": "float32"}
    prepared = {"reference": authors / "input_example.png", "reference_mask": authors / "target_example.png"}
    raw = {"reference": tmp_path / "reference.mrc", "reference_mask": tmp_path / "mask.png"}
    for files, is_prepared in ((prepared, True), (raw, False)):
        picker = make_settings("cryoemmae", **given, **files, reference_prepared=is_prepared).picker
        assert picker._start(picker.diameter).particle == model.particle
    picker = make_settings("cryoemmae", **given, **raw).picker
    with pytest.raises(SettingsError, match="--no-reference-prepared"):
        picker._start(picker.diameter)


def test_the_authors_weights_are_a_start_for_fine_tuning_with_new_clusters(authors: Path, tmp_path: Path) -> None:
    for number, pixels in enumerate(micrographs()):
        write_micrograph(tmp_path / "micrographs" / f"{number}.mrc", Micrograph(pixels))
    shape = {"width": WIDTH, "depth": DEPTH, "decoder_width": DECODER_WIDTH, "decoder_depth": 1}
    reference = {"reference": authors / "input_example.png", "reference_mask": authors / "target_example.png"}
    plan = plan_training(
        "cryoemmae",
        data=str(tmp_path / "micrographs"),
        preset="finetune-program",
        start=str(authors / "MAE_epoch_400.pth.tar"),
        data_settings={"diameter": f"{DIAMETER}px"},
        task={**shape, **reference, "clustered_micrographs": 1},
        training={"epochs": 1, "warmup_epochs": 0, "learning_rate": 1e-9, "validate_every": 1},
    )
    result = train_picker(plan, tmp_path / "out")
    assert result.steps == result.best_step == 2 * 256 // 128  # the last weights, whatever validations say
    before, after = load_model(authors / "MAE_epoch_400.pth.tar"), load_model(result.weights)
    weights = after.encoder.network.state_dict()
    assert all(torch.allclose(weights[k], v, atol=1e-6) for k, v in before.encoder.network.state_dict().items())
    assert after.encoder.mean != before.encoder.mean  # of its own training pixels, as the program does
    assert after.centres.shape == (4, WIDTH)
    given = {"weights": result.weights, "diameter": f"{DIAMETER}px", "device": "cpu"}
    assert len(pick(micrographs()[0], "cryoemmae", as_="program", **given)) > 5


# ------------------------------------------------------------------------------------------------------------ parts


def test_the_programs_ranking_goes_wrong_where_most_cells_are_the_particles() -> None:
    labels = np.zeros((40, 40), int)
    labels[:, 20:] = 1
    was = np.ones((40, 40), bool)
    was[18:22] = False  # fewer cells outside than in either cluster: "outside" comes last, so the second cluster wins
    assert hand_over_as_released(labels, was, count=2) == rank_as_released(labels, was) == 0
    labels[:] = 1
    labels[0, 0] = 0
    assert hand_over_as_released(labels, was, count=2) == rank_as_released(labels, was) == NO_CLUSTER
    assert hand_over_as_released(labels, np.zeros_like(was), count=2) is None


def test_the_article_takes_the_greatest_overlap_at_the_border_too() -> None:
    labels = np.zeros((40, 40), int)
    labels[0, :30], labels[20, 20] = 1, 2
    assert greatest_overlap(labels, labels > 0, count=3) == 1
    assert greatest_overlap(labels, np.zeros((40, 40), bool), count=3) is None


def test_the_articles_normalisation_is_by_the_disc_around_each_pixel() -> None:
    """Equations 1 and 2 against sums over explicitly gathered pixels; the borders wrap around."""
    pixels = np.random.default_rng(0).normal(size=(40, 48)).astype(np.float32)
    y, x = np.nonzero(disc_mask(11))
    assert len(y) == sum(np.hypot(i, j) <= 5.5 for i in range(-9, 10) for j in range(-9, 10))
    expected = np.empty(pixels.shape)
    for row in range(40):
        for column in range(48):
            around = pixels[(row + y - 5) % 40, (column + x - 5) % 48].astype(np.float64)
            expected[row, column] = (pixels[row, column] - around.mean()) / around.std()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    assert prepare_as_written(pixels, diameter_px=11).normalized == pytest.approx(expected, abs=1e-5)


def test_the_articles_chain_moves_nothing() -> None:
    centres = lattice_of_centres()
    noise = np.random.default_rng(0).normal(size=(330, 340)).astype(np.float32)
    pixels = 0.3 * noise - 3 * draw_blobs((330, 340), centres, sigma_px=7)
    dark = 255.0 - prepare_as_written(pixels, diameter_px=30).guided
    assert mean_shift(dark, centres, radius_px=24) == pytest.approx((0, 0), abs=0.3)


def test_an_encoder_of_the_authors_shape_has_their_number_of_parameters() -> None:
    network = build_masked_autoencoder({"network": "masked_autoencoder", "stores_positions": True})
    assert sum(p.numel() for p in network.parameters()) == 5_116_688
    assert network.state_dict()["positions"].shape == (1, 257, 192)
    encoder = Encoder.loaded(network, mean=0.5, std=0.1, device="cpu", precision="float32")
    assert encoder.network.side == 16


def test_stored_positions_begin_as_the_authors_table_with_the_column_first() -> None:
    network = build_masked_autoencoder({"network": "masked_autoencoder", "stores_positions": True, "width": 16})
    rates = 10000.0 ** -(np.arange(4) / 4)
    row, column = 3, 7
    expected = [f(place * rate) for place in (column, row) for f in (np.sin, np.cos) for rate in rates]
    table = network.state_dict()["positions"][0]
    assert table[1 + 16 * row + column].numpy() == pytest.approx(0.08 * np.array(expected), abs=1e-6)
    assert not table[0].any()
