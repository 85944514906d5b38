"""Training DeepCryoPicker models to keep: from clusters, from given labels, and with the published network."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cryopick.data.datasets import open_dataset
from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import read_card
from cryopick.pickers.deepcryopicker.classifier import load_classifier
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker
from cryopick.pickers.deepcryopicker.training import PRESETS, DeepCryoPickerTask, make_trainable
from cryopick.simulation.specimens.barrels import draw_barrels
from cryopick.training.loop import train
from cryopick.types import Micrograph


def write_set(folder, drawn, *, diameter_px, uncertain=()):
    """Micrographs with one CSV each; labels whose index is in `uncertain` are marked so."""
    folder.mkdir()
    for number, (micrograph, xy) in enumerate(drawn):
        write_micrograph(folder / f"m{number}.mrc", micrograph)
        rows = [
            f"{x:.2f},{y:.2f},{'uncertain' if index in uncertain else 'particle'}" for index, (x, y) in enumerate(xy)
        ]
        (folder / f"m{number}.csv").write_text("\n".join(["x,y,kind", *rows]) + "\n")
    (folder / "set.json").write_text(json.dumps({"diameter_px": diameter_px}))
    return open_dataset(folder)


@pytest.fixture(scope="module")
def barrel_set(tmp_path_factory):
    """Two micrographs of 45 barrels, 36 px wide."""
    drawn = [draw_barrels(seed=seed, side_px=620, diameter_px=36.0, count=45, noise=0.5) for seed in (1, 2)]
    folder = tmp_path_factory.mktemp("barrels") / "set"
    return write_set(folder, [(one.micrograph, one.xy_px) for one in drawn], diameter_px=36)


@pytest.fixture(scope="module")
def large_discs(tmp_path_factory):
    """Two micrographs of 400 px with two discs of 180 px each, which the published window holds nearly as they are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400]
    drawn = []
    for _ in range(2):
        xy = np.array([[110.0, 120.0], [290.0, 270.0]]) + rng.uniform(-5, 5, (2, 2))
        pixels = rng.normal(0, 0.5, (400, 400))
        for centre in xy:
            pixels -= np.hypot(x - centre[0], y - centre[1]) < 90
        drawn.append((Micrograph(pixels), xy))
    return write_set(tmp_path_factory.mktemp("discs") / "set", drawn, diameter_px=180)


def short(settings, steps):
    return replace(settings, steps=steps, warmup_steps=1, validate_every=steps, checkpoint_every=steps)


def test_it_cannot_learn_from_simulation_and_says_what_to_give():
    with pytest.raises(SettingsError, match="give --data"):
        make_trainable(DeepCryoPickerTask(), train=None, validation=None)


def test_given_labels_are_taken_to_working_size_and_uncertain_ones_teach_nothing(tmp_path):
    drawn = draw_barrels(seed=1, side_px=300, diameter_px=40.0, count=6)
    dataset = write_set(tmp_path / "set", [(drawn.micrograph, drawn.xy_px)], diameter_px=40, uncertain=(1, 4))
    trainable = make_trainable(DeepCryoPickerTask(labels="given"), train=dataset, validation=None)
    (image,) = trainable._images(dataset)
    assert image.pixels.shape == (150, 150)  # 20 px for 40
    np.testing.assert_allclose(image.xy_px, (drawn.xy_px + 0.5) / 2 - 0.5, atol=0.01)
    assert image.class_id.tolist() == [3, -1, 3, 3, -1, 3]


def test_noise_gives_no_examples_and_the_error_names_the_set(tmp_path):
    noise = [(Micrograph(np.random.default_rng(seed).normal(size=(400, 400))), np.zeros((0, 2))) for seed in (0, 1)]
    dataset = write_set(tmp_path / "set", noise, diameter_px=20)
    trainable = make_trainable(DeepCryoPickerTask(), train=dataset, validation=None)
    with pytest.raises(TrainingError, match=r"set set .*: deepcryopicker saw no consistent particles"):
        trainable.examples  # noqa: B018  # the property does the work


def test_a_model_trained_from_clusters_is_kept_with_its_diameter_and_picks(barrel_set, tmp_path):
    preset = PRESETS["small"]
    task = replace(preset.task, batch_size=32, validation_windows=80)
    trainable = make_trainable(task, train=barrel_set, validation=None)
    trained, validation = trainable.examples
    assert len(trained._images) == len(validation._images) == 1  # micrographs are split, not windows
    assert sum(trained.counts.values()) >= 15
    result = train(trainable, short(preset.training, 40), tmp_path / "model")
    card = read_card(result.weights)
    assert card.data["kind"] == "labels from clusters"
    assert card.data["classes"] == ["background", "top view", "side view", "irregular"]
    assert 0.5 < result.scores["particle_or_not"] <= 1  # half of the windows are background
    assert "any particle" in card.data["precision_recall"] or len(trained.views) == 1

    picker = DeepCryoPicker(model=result.weights)
    assert picker.survey([]).particle_size.middle_px(None) == pytest.approx(36)
    picks = picker.pick(barrel_set.items[0].read())
    assert len(picks) > 20
    assert set(picks.class_id.tolist()) <= {1, 2, 3}


def test_five_classes_have_an_output_for_bad_objects(barrel_set):
    trainable = make_trainable(DeepCryoPickerTask(classes=5), train=barrel_set, validation=None)
    assert trainable.build_network().classify.out_channels == 5
    assert trainable.examples[0].has_bad_class
    with pytest.raises(SettingsError, match="classes is 6"):
        DeepCryoPickerTask(classes=6)


@pytest.mark.slow
def test_the_published_network_takes_its_published_steps_and_picks(large_discs, tmp_path):
    preset = PRESETS["program"]
    task = replace(
        preset.task,
        labels="given",
        training_set="drawn",
        preprocessing="corrected",
        batch_size=4,
        validation_windows=8,
    )
    trainable = make_trainable(task, train=large_discs, validation=None)
    batch = trainable.make_batch(0, np.random.default_rng(0))
    assert batch["windows"].shape == (4, 1, 227, 227)
    assert preset.training.optimizer == "sgd"
    assert preset.training.learning_rate == pytest.approx(1e-4)
    result = train(trainable, short(preset.training, 2), tmp_path / "model")
    assert result.steps == 2
    assert np.isfinite(result.scores["score"])

    classifier = load_classifier(result.weights)
    assert classifier.is_paper
    assert sum(parameter.numel() for parameter in classifier.network.parameters()) == 58_274_500
    picker = DeepCryoPicker(model=result.weights, diameter=Length(180, 180, "px"))
    picks = picker.pick(large_discs.items[0].read())
    assert np.isfinite(picks.score).all()
    # 400 px at 0.875 are 350, and a step is a tenth of the box of 234 px at that scale
    assert picks.maps["particle score"].shape == (18, 18)


def test_several_sets_are_each_learnt_from_at_their_own_size(tmp_path):
    small, large = (
        write_set(
            tmp_path / name,
            [(one.micrograph, one.xy_px)],
            diameter_px=diameter,
        )
        for name, diameter, one in (
            ("small", 30, draw_barrels(seed=1, side_px=300, diameter_px=30.0, count=9)),
            ("large", 60, draw_barrels(seed=2, side_px=600, diameter_px=60.0, count=9)),
        )
    )
    both = replace(small, items=(*small.items, *large.items))
    trainable = make_trainable(DeepCryoPickerTask(labels="given"), train=both, validation=None)
    first, second = trainable._images(both)
    assert first.pixels.shape == second.pixels.shape == (200, 200)  # 20 px per diameter in both
    assert {size.diameter.middle_px(None) for size in trainable.sizes.values()} == {30, 60}
    assert trainable._size_entry() == {}  # a model of several sizes has none of its own
