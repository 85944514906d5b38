"""Training Cryo-EMMAE: from micrographs without labels, in windows, with the published schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans

from cryopick import pick
from cryopick.data.datasets import open_micrographs
from cryopick.errors import InputError, SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import find_weights, load_checkpoint
from cryopick.pickers.cryoemmae.latent import Encoder, Prepared
from cryopick.pickers.cryoemmae.network import build_masked_autoencoder, hidden_error
from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.cryoemmae.probe import Probe, describe, fit_probe_weights, ordered_anew, seen_through
from cryopick.pickers.cryoemmae.reference import Reference, cells_of, inner_part, is_hollow, kinds_of
from cryopick.pickers.cryoemmae.training import PRESETS, CryoEmmaeTask, CryoEmmaeTrainable, make_trainable
from cryopick.pickers.families import find_preset
from cryopick.processing.scale import ScaleMap
from cryopick.simulation.crops import Crop
from cryopick.types import Micrograph
from cryopick.workflows.train import plan_training, train_picker

TINY = {"width": 16, "depth": 1, "heads": 1, "decoder_width": 16, "decoder_heads": 1}


@pytest.fixture
def folder(tmp_path):
    """Three micrographs of dark discs, 40 px wide, and no labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:420, :500]
    for number in range(3):
        pixels = rng.normal(size=(420, 500))
        for centre in rng.uniform(30, 390, (30, 2)):
            pixels -= 1.5 * (np.hypot(y - centre[0], x - centre[1]) <= 20)
        write_micrograph(tmp_path / f"m{number}.mrc", Micrograph(pixels, pixel_size_angstrom=2.0))
    return tmp_path


def test_a_folder_without_labels_is_a_set_to_train_on(folder):
    dataset = open_micrographs(folder, diameter=Length(80, 80, "A"))
    assert [item.name for item in dataset] == ["m0.mrc", "m1.mrc", "m2.mrc"]
    assert [item.labels for item in dataset] == [None] * 3
    assert dataset.diameter == Length(80, 80, "A")
    assert dataset.items[0].pixel_size_angstrom == pytest.approx(2.0)


def test_labels_beside_the_micrographs_are_not_read(folder):
    (folder / "m0.csv").write_text("this is no coordinate file\n")
    assert open_micrographs(folder).items[0].labels is None


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=tmp_path.name):
        open_micrographs(tmp_path)


def test_given_micrographs_become_images_with_particles_of_twenty_pixels(folder):
    trainable = make_trainable(
        CryoEmmaeTask(**TINY), train=open_micrographs(folder, diameter=Length(80, 80, "A")), validation=None
    )
    assert [image.shape for image in trainable.images] == [(210, 250)] * 3
    mean, std = trainable.standard
    pixels = np.concatenate([image.ravel() for image in trainable.images])
    assert (mean, std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-3)


def test_blank_micrographs_are_refused_with_a_hint(tmp_path):
    write_micrograph(tmp_path / "m.mrc", Micrograph(np.zeros((90, 90), np.float32)))
    dataset = open_micrographs(tmp_path, diameter=Length(30, 30, "px"))
    with pytest.raises(TrainingError, match="--diameter"):
        CryoEmmaeTrainable(CryoEmmaeTask(**TINY), dataset).images  # noqa: B018


def with_images(task, *shapes):
    trainable = CryoEmmaeTrainable(task)
    rng = np.random.default_rng(1)
    trainable.__dict__["images"] = [rng.random(shape, dtype=np.float32) for shape in shapes]
    return trainable


def test_a_batch_depends_on_its_random_numbers_alone_and_is_standardised():
    task = replace(CryoEmmaeTask(**TINY), batch_size=16, windows_per_crop=4)
    trainable = with_images(task, (100, 130), (90, 64))
    first, again, other = (trainable.make_batch(3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first["images"], again["images"])
    assert torch.equal(first["order"], again["order"])
    assert not torch.equal(first["images"], other["images"])
    assert first["images"].shape == (16, 64, 64)
    assert float(first["images"].mean()) == pytest.approx(0, abs=0.1)
    assert float(first["images"].std()) == pytest.approx(1, abs=0.1)


def test_half_of_the_windows_are_simulated_where_trained_weights_adapt():
    trainable = with_images(CryoEmmaeTask(), (90, 90))
    trainable.images[0][:] = 7
    given, mixed = (
        trainable.draw(np.random.default_rng(0), count=32, first_crop=0, is_mixed=is_mixed)
        for is_mixed in (False, True)
    )
    assert (given == 7).all()
    assert (mixed == 7).all(axis=(1, 2)).mean() == 0.5


def test_adapting_starts_from_the_shipped_network_and_small_from_random_weights(folder):
    micrographs = open_micrographs(folder, diameter=Length(80, 80, "A"))
    shipped = load_checkpoint(find_weights("cryoemmae"), picker="cryoemmae")
    adapting, anew = (
        make_trainable(PRESETS[name].task, train=micrographs, validation=None).build_network().state_dict()
        for name in ("adapt", "small")
    )
    expected = build_masked_autoencoder(shipped.card.architecture)
    shipped.load_into(expected)
    assert all(torch.equal(adapting[name], weight) for name, weight in expected.state_dict().items())
    assert not all(torch.equal(anew[name], weight) for name, weight in expected.state_dict().items())


def test_there_must_be_micrographs_to_adapt_to_and_the_network_must_be_the_shipped_one(folder):
    task = PRESETS["adapt"].task
    with pytest.raises(SettingsError, match="--data"):
        make_trainable(task, train=None, validation=None).build_network()
    with pytest.raises(SettingsError, match="first_weights = random"):
        make_trainable(replace(task, **TINY), train=open_micrographs(folder), validation=None).build_network()


def test_published_windows_lie_side_by_side_and_each_is_seen_once_an_epoch():
    task = replace(CryoEmmaeTask(**TINY), windows="grid", batch_size=4, windows_per_crop=4)
    trainable = with_images(task, (128, 128), (130, 190))  # 4 and 4 windows
    seen = [window for index in range(2) for window in trainable.grid(index)]
    expected = [
        image[top : top + 64, left : left + 64] for image in trainable.images for top in (0, 64) for left in (0, 64)
    ]
    assert len(seen) == len(expected) == 8
    assert all(any(np.array_equal(one, window) for window in seen) for one in expected)


def test_half_of_the_patches_of_each_window_are_shown_and_which_ones_differs():
    trainable = with_images(replace(CryoEmmaeTask(**TINY), batch_size=8), (100, 130))
    batch = trainable.make_batch(0, np.random.default_rng(0))
    assert torch.equal(batch["order"].sort(dim=1).values, torch.arange(256).expand(8, -1))
    assert len({tuple(sorted(row[:128].tolist())) for row in batch["order"]}) == 8
    network = trainable.build_network().eval()
    with torch.no_grad():
        drawn = network(batch["images"], order=batch["order"], visible=128)
        expected = hidden_error(drawn, batch["images"], order=batch["order"], visible=128, patch_px=4)
        assert float(trainable.loss(network, batch)["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_biases_norms_and_tokens_are_not_decayed():
    trainable = CryoEmmaeTrainable(CryoEmmaeTask(**TINY))
    network = trainable.build_network()
    decayed, free = trainable.parameter_groups(network)
    assert free["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decayed["params"])
    count = sum(p.numel() for group in (decayed, free) for p in group["params"])
    assert count == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "mode"), [("article", "article"), ("program", "program")])
def test_published_presets_are_the_published_network_and_schedule(name, mode):
    preset = PRESETS[name]
    assert preset.task.mode == mode
    trainable = CryoEmmaeTrainable(preset.task)
    assert sum(p.numel() for p in trainable.build_network().parameters()) == 5_116_688
    trainable.__dict__["images"] = 180 * [np.zeros((1024, 1024), np.uint8)]
    training = preset.training.in_steps(trainable.steps_per_epoch())
    assert training.steps == 400 * 180 * 256 // 128
    assert training.warmup_steps == training.steps * 5 / 400
    assert training.learning_rate == 1e-3 * preset.task.batch_size / 256
    assert training.learning_rate * training.final_lr_fraction == pytest.approx(1e-6)


def test_the_length_of_a_published_training_follows_the_number_of_micrographs():
    trainable = CryoEmmaeTrainable(PRESETS["article"].task)
    trainable.__dict__["images"] = 5 * [np.zeros((1024, 1024), np.uint8)]
    assert PRESETS["article"].training.in_steps(trainable.steps_per_epoch()).steps == 400 * 5 * 256 // 128
    many = CryoEmmaeTrainable(PRESETS["program-20"].task)
    many.__dict__["images"] = 1950 * [np.zeros((1024, 1024), np.uint8)]
    assert many.steps_per_epoch() == 3900
    assert find_preset("cryoemmae", "paper") is PRESETS["article"]


def test_simulated_crops_have_no_epochs():
    with pytest.raises(SettingsError, match="give steps"):
        CryoEmmaeTrainable(CryoEmmaeTask(**TINY)).steps_per_epoch()


def test_resized_windows_show_boxes_of_four_to_25_percent_shared_by_the_micrographs_of_an_epoch():
    task = replace(PRESETS["program-20"].task, **TINY, batch_size=64, windows_per_crop=64)
    y, x = np.mgrid[:1024, :1024]
    # one picture tells columns, the other rows: the slope of a window says how far the box reached
    trainable = CryoEmmaeTrainable(task)
    trainable.__dict__["images"] = [(x // 4).astype(np.uint8), (y // 4).astype(np.uint8)]
    windows = np.concatenate([trainable.resized(index) for index in range(8)])
    across, down = (np.ptp(windows, axis=axis).mean(axis=1) * 64 / 63 for axis in (2, 1))
    tells_columns = across > down
    assert tells_columns.sum() == 256  # each micrograph 256 times an epoch
    width, height = across[tells_columns], down[~tells_columns]
    assert width.min() > 0.16
    assert width.max() < 0.6
    # the shape of a box is shared, so that the two kinds of windows have the same distribution, one by one
    area = np.sort(width) * np.sort(width)
    assert 0.02 < area.min() < 0.06
    assert area.max() < 0.36
    assert height.min() > 0.16
    again = np.concatenate([trainable.resized(index) for index in range(8)])
    assert np.array_equal(again, windows)
    assert not np.array_equal(trainable.resized(8), trainable.resized(0))


def test_pictures_are_kept_as_bytes_and_seen_as_shares():
    trainable = CryoEmmaeTrainable(replace(CryoEmmaeTask(**TINY), preprocessing="program", windows="grid"))
    trainable.__dict__["images"] = [np.full((128, 128), 51, np.uint8)]
    assert trainable.grid(0) == pytest.approx(0.2)
    trainable.images[0][:64] = 0
    assert trainable.standard == pytest.approx((0.1, 0.1))


def two_sets(folder, *, writes_diameters):
    """As CryoPPP lays them out: discs of 40 px in one, of 80 px in the other."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:480, :512]
    for name, diameter in (("10017", 40), ("10028", 80)):
        pixels = rng.normal(size=(480, 512))
        centres = rng.uniform(40, 440, (12, 2))
        for centre in centres:
            pixels -= 2 * (np.hypot(y - centre[0], x - centre[1]) <= diameter / 2)
        images, labels = (folder / name / part for part in ("micrographs", "ground_truth/particle_coordinates"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        write_micrograph(images / "m.mrc", Micrograph(pixels, pixel_size_angstrom=1.5))
        header = "X-Coordinate,Y-Coordinate" + (",Diameter" if writes_diameters else "")
        tail = f",{diameter}" if writes_diameters else ""
        rows = [f"{cx:.0f},{480 - cy:.0f}{tail}" for cy, cx in centres]
        (labels / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_several_sets_are_trained_on_at_their_own_sizes(tmp_path):
    dataset = open_micrographs(two_sets(tmp_path, writes_diameters=True))
    assert [item.labels for item in dataset] == [None, None]
    trainable = CryoEmmaeTrainable(CryoEmmaeTask(**TINY), dataset)
    assert {name: str(one) for name, one in trainable.diameters_of(dataset).items()} == {
        "10017/m.mrc": "40px",
        "10028/m.mrc": "80px",
    }
    # particles of both are 20 px wide then
    assert [image.shape for image in trainable.images] == [(240, 256), (120, 128)]


def test_sets_that_do_not_tell_their_diameter_are_measured_one_by_one(tmp_path, monkeypatch):
    dataset = open_micrographs(two_sets(tmp_path, writes_diameters=False))
    trainable = CryoEmmaeTrainable(CryoEmmaeTask(**TINY), dataset)
    seen = []

    def measured(_, where, items):
        seen.append([item.name for item in items])
        return Length(40, 40, "px")

    monkeypatch.setattr(CryoEmmaeTrainable, "_measured_diameter", measured)
    trainable.diameters_of(dataset)
    assert seen == [["10017/m.mrc"], ["10028/m.mrc"]]


def test_a_diameter_that_is_given_counts_for_all_sets(tmp_path):
    dataset = open_micrographs(two_sets(tmp_path, writes_diameters=True), diameter=Length(60, 60, "px"))
    trainable = CryoEmmaeTrainable(CryoEmmaeTask(**TINY), dataset)
    assert {str(one) for one in trainable.diameters_of(dataset).values()} == {"60px"}


def test_labels_that_cannot_be_read_leave_the_diameter_to_be_measured_and_are_named(tmp_path):
    two_sets(tmp_path, writes_diameters=True)
    (tmp_path / "10017/ground_truth/particle_coordinates/m.csv").write_text("this is no coordinate file\n")
    dataset = open_micrographs(tmp_path)
    assert [item.diameter_px for item in dataset] == [None, 80.0]
    assert "10017" in dataset.warnings[0]


# ---------------------------------------------------------------------------------------- weights of the published kind


def published_trainable(tmp_path, **task):
    """Two pictures of dark spots, which a reference and its mask call the particles."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :1024]
    picture = rng.integers(120, 140, (1024, 1024))
    mask = np.zeros((1024, 1024), bool)
    for centre in rng.uniform(50, 970, (60, 2)):
        mask |= np.hypot(y - centre[0], x - centre[1]) <= 25
    picture = np.where(mask, picture - 90, picture).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "reference.png")
    Image.fromarray(255 * mask.astype(np.uint8)).save(tmp_path / "mask.png")
    settings = replace(
        PRESETS["program"].task,
        **TINY,
        reference=tmp_path / "reference.png",
        reference_mask=tmp_path / "mask.png",
        **task,
    )
    trainable = CryoEmmaeTrainable(settings)
    trainable.__dict__["images"] = [picture, picture[::-1]]
    return trainable, picture, mask


def test_clusters_of_the_published_kind_are_those_of_all_vectors_and_the_reference_tells_the_particles(tmp_path):
    trainable, _, mask = published_trainable(tmp_path)
    torch.manual_seed(0)
    network = trainable.build_network().eval()
    entries = trainable.card_entries(network)
    assert entries["postprocessing"]["probe"] is None
    assert entries["data"]["particle_cluster"] == "reference"
    mean, std = trainable.standard
    encoder = Encoder.loaded(network, mean=mean, std=std, device="cpu", precision="float32")
    maps = [encoder.tokens((one / 255).astype(np.float32)).flat for one in trainable.images]
    kmeans = KMeans(4, random_state=0, n_init="auto").fit(np.concatenate(maps))
    assert np.array(entries["postprocessing"]["centres"]) == pytest.approx(kmeans.cluster_centers_, abs=1e-4)
    inside = mask[2::4, 2::4].ravel()
    assert entries["postprocessing"]["particle"] == np.bincount(kmeans.predict(maps[0])[inside]).argmax()


def test_only_so_many_micrographs_are_clustered_as_are_asked_for(tmp_path):
    trainable, _, _ = published_trainable(tmp_path, clustered_micrographs=1)
    assert trainable.card_entries(trainable.build_network().eval())["data"]["clustered_micrographs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"probe_crops": 0}, {"probe_crops": 16, "calibration_crops": 16}])
def test_a_published_training_from_simulation_ends_with_weights_that_pick(tmp_path, settings):
    plan = plan_training(
        "cryoemmae",
        preset="program",
        task={**TINY, **settings, "simulated_micrographs": 2, "batch_size": 32, "windows_per_crop": 32},
        training={"epochs": 1, "warmup_epochs": 0},
    )
    result = train_picker(plan, tmp_path / "out")
    pixels = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    picks = pick(pixels, "cryoemmae", as_="program", weights=result.weights, diameter="30px")
    assert picks.is_kept.all()


def test_what_published_tasks_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="probe_crops is 0"):
        CryoEmmaeTask(probe_crops=0)
    with pytest.raises(SettingsError, match="resized"):
        CryoEmmaeTask(windows="resized")
    with pytest.raises(SettingsError, match="belong together"):
        replace(PRESETS["article"].task, reference=Path("reference.png"))
    assert CryoEmmaeTask(preprocessing="published").preprocessing == "program"


def test_impossible_tasks_are_refused():
    with pytest.raises(SettingsError, match="mask_ratio"):
        CryoEmmaeTask(mask_ratio=1.0)
    with pytest.raises(SettingsError, match="windows_per_crop"):
        CryoEmmaeTask(batch_size=10, windows_per_crop=4)


# -------------------------------------------------------------------------------------------------------- references


def test_the_middle_of_a_crop_keeps_the_particles_inside_it():
    crop = Crop(
        image=np.arange(100, dtype=np.float32).reshape(10, 10),
        xy_px=np.array([[5.0, 6.0], [0.0, 5.0]]),
        diameter_px=np.array([3, 4], np.float32),
        snr=np.ones(2, np.float32),
        visibility=np.ones(2, np.float32),
        instances=np.zeros((10, 10), np.int32),
        junk=np.zeros((10, 10), bool),
        pixel_size_angstrom=1.0,
        optics=None,
    )
    inner = inner_part(crop, 6)
    assert inner.image[0, 0] == crop.image[2, 2]
    assert inner.xy_px.tolist() == [[3.0, 4.0]]
    assert inner.diameter_px.tolist() == [3.0]


@pytest.mark.parametrize(("hole", "expected"), [(0.0, False), (6.0, True)])
def test_hollow_particles_are_those_with_a_darker_rim(hole, expected):
    y, x = np.mgrid[:120, :120]
    xy_px = np.array([[25.0, 30], [70, 40], [60, 90]])
    image = np.full((120, 120), 0.5, np.float32)
    for cx, cy in xy_px:
        radius = np.hypot(x - cx, y - cy)
        image[(radius <= 10) & (radius >= hole)] = 0.3
        image[radius < 10 - hole] -= 0.05 * (hole == 0)  # solid ones are thickest in the middle
    one = Reference(Prepared(image, ScaleMap((1.0, 1.0)), 20.0), xy_px, np.zeros((9, 9), bool), 5.0)
    assert is_hollow(one) is expected
    assert not is_hollow(replace(one, xy_px=xy_px[:2]))


def test_cells_are_particles_where_the_silhouette_is():
    from cryopick.pickers.cryoemmae.latent import LatentMap

    silhouettes = np.zeros((40, 40), bool)
    silhouettes[10:20, 24:30] = True
    image = np.zeros((20, 20), np.float32)  # prepared at half the size
    one = Reference(Prepared(image, ScaleMap((0.5, 0.5)), 10.0), np.zeros((0, 2)), silhouettes, 5.0)
    cells = cells_of(one, LatentMap(np.zeros((9, 9, 1), np.float32), 2.0, 1.5))
    place = (np.arange(9) * 2 + 1.5 + 0.5) * 2 - 0.5  # stored pixel of each cell
    expected = np.outer((place >= 9.5) & (place < 19.5), (place >= 23.5) & (place < 29.5))
    assert np.array_equal(cells, expected)


def test_the_probe_tells_two_kinds_of_particles_from_what_lies_between_them():
    """Solid and hollow ones lie on two sides of the others: no single direction does."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 6)).astype(np.float32) * np.array([1, 1, 1, 1, 1, 100], np.float32) + 7
    is_right = rng.random(3000) < 0.4
    features[:, 2] = 7 + 0.5 * rng.normal(size=3000) + is_right * rng.choice([-3, 3], 3000)
    probe = fit_probe_weights(features[:2000], is_right[:2000], width=1)
    found = probe.raw(features[2000:])
    assert np.mean((found > 0.5) == is_right[2000:]) > 0.95
    entry = probe.to_json()
    assert Probe.from_json(entry, width=1, responses=0).raw(features[2000:]) == pytest.approx(found, abs=0.01)
    entry["hidden"].pop()  # a damaged card
    with pytest.raises(ValueError, match="do not fit vectors of 1 and 0 responses"):
        Probe.from_json(entry, width=1, responses=0)
    with pytest.raises(ValueError, match="too few"):
        fit_probe_weights(features, np.ones(3000, bool), width=1)


def test_the_probe_sees_each_rings_vector_through_the_same_components():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 6 * 4 + 3)).astype(np.float32)
    components = rng.normal(size=(4, 2)).astype(np.float32)
    expected = [*(features[1, 4 * ring : 4 * ring + 4] @ components for ring in range(6)), features[1, -3:]]
    assert seen_through(components, features)[1] == pytest.approx(np.concatenate(expected), abs=1e-5)


def micrograph_of_likenesses(rng, *, particles, others):
    """Probabilities that hardly tell particles from others, and features of which the last but one does."""
    is_particle = np.arange(particles + others) < particles
    probability = rng.uniform(0.05, 0.7, len(is_particle)) + 0.25 * is_particle
    features = rng.normal(size=(len(is_particle), 12)) * np.geomspace(0.1, 50, 12)
    features[:, -2] += 100 * is_particle
    return probability.astype(np.float32), features.astype(np.float32), is_particle


def test_candidates_like_a_micrographs_particles_rise_and_its_probabilities_stay_the_same_numbers():
    probability, features, is_particle = micrograph_of_likenesses(np.random.default_rng(0), particles=100, others=300)
    found = ordered_anew(probability, features)
    assert np.sort(found) == pytest.approx(np.sort(probability), abs=1e-6)

    def right_share(score):
        return is_particle[np.argsort(-score)[:100]].mean()

    assert right_share(probability) < 0.7
    assert right_share(found) > 0.8


def test_a_micrograph_without_particles_keeps_its_order():
    probability, features, _ = micrograph_of_likenesses(np.random.default_rng(0), particles=0, others=60)
    assert np.array_equal(ordered_anew(probability / 10, features), probability / 10)


def test_a_micrographs_contrast_and_brightness_do_not_change_what_describes_a_place():
    from cryopick.pickers.cryoemmae.latent import LatentMap

    rng = np.random.default_rng(0)
    vectors, responses = rng.normal(size=(40, 50, 3)).astype(np.float32), rng.random((3, 40, 50), dtype=np.float32)
    xy = np.array([[10.2, 20.1], [49.0, 0.0]])
    first, second = (
        describe(LatentMap(one.astype(np.float32), 2.0, 1.5), responses, xy, diameter=10)
        for one in (vectors, 5 * vectors - 3)
    )
    assert first.shape == (2, 6 * 3 + 3)
    assert second == pytest.approx(first, abs=0.01)
    assert first[0, :3] == pytest.approx((vectors[20, 10] - vectors.mean((0, 1))) / vectors.std((0, 1)), abs=0.02)


def test_candidates_between_right_and_wrong_teach_nothing():
    from types import SimpleNamespace

    one = Reference(None, np.array([[50.0, 50.0]]), np.zeros((9, 9), bool), 5.0)  # particles of 20 px
    xy_px = np.array([[50.0, 53.0], [50, 55], [50, 57], [90, 90]])
    found = SimpleNamespace(xy=xy_px, stored_xy=lambda: xy_px)
    assert kinds_of(one, found).tolist() == [1, -1, 0, 0]


@pytest.mark.slow
def test_weights_trained_on_a_folder_without_labels_pick(folder, tmp_path):
    plan = plan_training(
        "cryoemmae",
        data=str(folder),
        data_settings={"diameter": "80A"},
        task={**TINY, "probe_crops": 24, "calibration_crops": 24},
        training={"steps": 8, "validate_every": 8, "warmup_steps": 2},
    )
    result = train_picker(plan, tmp_path / "out")
    picker = CryoEmmaePicker(weights=result.weights, diameter=Length(80, 80, "A"))
    picks = picker.pick(Micrograph(np.random.default_rng(0).normal(size=(300, 300)), pixel_size_angstrom=2.0))
    assert {"particle evidence", "latent clusters", "latent component 1"} <= set(picks.maps)
    assert ((picks.score >= 0) & (picks.score <= 1)).all()
