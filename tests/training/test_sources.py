"""A trainable's batches, from simulated crops and from labelled micrographs, are the same wherever they are made."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.data import prepared_cache
from cryopick.data.datasets import LabelledMicrograph, open_dataset
from cryopick.data.prepared_cache import Prepared, PreparedCache
from cryopick.errors import SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.training.finetuning import estimate_prior
from cryopick.training.quarters import QuarterTask, quarter, some_quarters
from cryopick.training.sampling import CropSampler
from cryopick.training.sources import FromLabels, FromSimulation, LearnsFromCrops

TASK = QuarterTask(crop_px=96, batch_size=4, distinct_crops=0, validation_crops=2)


@dataclass
class Learner(LearnsFromCrops):
    """Sees pixels and answers with pixels."""

    def simulated_example(self, crop):
        return {"planes": crop.image[None], "known": np.array(True)}

    def labelled_example(self, crop):
        return {"planes": crop.image[None], "known": np.array(crop.is_complete)}


@pytest.fixture
def dataset(tmp_path):
    for seed in (0, 1):
        write_micrograph(tmp_path / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        rows = [f"{x},{y}" for x, y in disc_centres(seed)]
        (tmp_path / f"m{seed}.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    (tmp_path / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    return open_dataset(tmp_path, completeness="sparse").labelled()


def test_a_simulated_batch_is_two_quarters_of_each_of_its_crops():
    learner = Learner(TASK)
    batch = learner.make_batch(3, np.random.default_rng(7))
    rng, crops, wanted = np.random.default_rng(7), TASK.training_crops(), []
    for number in (6, 7):
        whole = {"planes": crops.crop(number).image[None]}
        wanted += [quarter(whole, part)["planes"] for part in some_quarters(rng)]
    assert np.array_equal(batch["planes"], np.stack(wanted))
    assert batch["known"].tolist() == [True] * 4
    assert isinstance(learner.source, FromSimulation)
    assert learner.card_data() == {"kind": "simulation", "seed": 1}


def test_a_labelled_batch_goes_on_where_the_last_one_ended(dataset):
    learner = Learner(TASK, dataset, dataset)
    assert isinstance(learner.source, FromLabels)
    batch = learner.make_batch(2, np.random.default_rng(7))
    rng, sampler = np.random.default_rng(7), CropSampler(dataset, crop_px=48)
    assert np.array_equal(batch["planes"], np.stack([sampler.crop(8 + i, rng).image[None] for i in range(4)]))
    assert not batch["known"].any()
    assert [crop.image.shape for crop in learner.source.held_out] == [(120, 160)] * 2


@pytest.mark.parametrize("is_labelled", [False, True])
def test_a_worker_process_makes_the_same_batch(dataset, is_labelled):
    learner = Learner(TASK, dataset, dataset) if is_labelled else Learner(TASK)
    first = learner.make_batch(1, np.random.default_rng(1))
    copy = pickle.loads(pickle.dumps(learner))  # our own
    again = copy.make_batch(1, np.random.default_rng(1))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_quarters_are_numbered_row_by_row_at_any_resolution():
    example = {"fine": np.arange(16).reshape(1, 4, 4), "coarse": np.arange(4).reshape(2, 2), "flag": np.array(True)}
    found = [quarter(example, number) for number in range(4)]
    assert [one["coarse"].item() for one in found] == [0, 1, 2, 3]
    assert [one["fine"].ravel().tolist() for one in found[:2]] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert all(one["flag"] for one in found)


@pytest.mark.parametrize(("seen", "prior"), [(0.3, 0.3), (0.01, 0.05), (0.9, 0.4)])
def test_the_prior_is_what_the_network_sees_but_no_less_than_the_labels_and_no_more_than_there_is_room_for(
    dataset, seen, prior
):
    found = estimate_prior(
        dataset,
        seen=lambda image: np.full(image.shape, seen),
        labelled=lambda crop: np.full(crop.image.shape, 0.05),
        largest=0.4,
    )
    assert found == pytest.approx(prior)


def test_batches_are_the_same_with_prepared_micrographs_on_disk_which_are_read_once(dataset, tmp_path, monkeypatch):
    plain = Learner(TASK, dataset, dataset)
    wanted = [plain.make_batch(index, np.random.default_rng(index)) for index in range(3)]
    shapes = [crop.image.shape for crop in plain.source.held_out]
    kept = replace(dataset, prepared=Prepared(PreparedCache(tmp_path / "cache", 10**8)))
    told: list[tuple[int, int]] = []
    Learner(TASK, kept, kept).prepare(3, lambda done, count: told.append((done, count)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]  # two micrographs, asked by both parts
    monkeypatch.setattr(LabelledMicrograph, "read", lambda _: pytest.fail("read again"))
    learner = Learner(TASK, kept, kept)
    found = [learner.make_batch(index, np.random.default_rng(index)) for index in range(3)]
    for one, other in zip(wanted, found, strict=True):
        assert all(bool((one[name] == other[name]).all()) for name in one)
    assert [crop.image.shape for crop in learner.source.held_out] == shapes


def test_checksums_of_prepared_micrographs_are_looked_at_once_however_many_processes_prepare_them(
    dataset, tmp_path, monkeypatch
):
    keeping = replace(dataset, prepared=Prepared(PreparedCache(tmp_path / "cache", 10**8)))
    Learner(TASK, keeping, keeping).prepare(1, lambda *_: None)
    looked: list[Path] = []

    class Elsewhere:
        """In the place of a loader with workers: copies of what is prepared do it, and only answers come back."""

        def __init__(self, items, *, sampler, **_):
            self.answers = [pickle.loads(pickle.dumps(items))[index] for index in sampler]

        def __iter__(self):
            return iter(pickle.loads(pickle.dumps(self.answers)))

    monkeypatch.setattr("torch.utils.data.DataLoader", Elsewhere)
    is_whole = prepared_cache._is_whole
    monkeypatch.setattr(prepared_cache, "_is_whole", lambda path: looked.append(path) or is_whole(path))
    later = replace(dataset, prepared=Prepared(PreparedCache(tmp_path / "cache", 10**8)))
    learner = Learner(TASK, later, later)
    learner.prepare(1, lambda *_: None)
    assert len(set(looked)) == 2  # two micrographs, each asked by two copies that know nothing of each other
    looked.clear()
    for one in (learner, pickle.loads(pickle.dumps(learner))):  # this process, and a worker that it starts now
        one.make_batch(0, np.random.default_rng(0))
        assert len(one.source.held_out) == 2
    assert looked == []


def test_an_epoch_of_labelled_micrographs_has_an_end_and_one_of_simulation_has_none(dataset):
    assert Learner(TASK, dataset, dataset).steps_per_epoch() == 1  # two micrographs, four a batch
    assert Learner(replace(TASK, batch_size=2), dataset, dataset).steps_per_epoch() == 1
    with pytest.raises(SettingsError, match="no end"):
        Learner(TASK).steps_per_epoch()


def test_micrographs_beyond_the_memory_for_them_are_made_again_with_a_warning(dataset, caplog):
    bound = replace(dataset, prepared=Prepared(memory_bytes=1000))
    sampler = Learner(TASK, bound, bound).source.sampler
    first = [sampler.whole(0), sampler.whole(1)]
    assert len(sampler._cache) == 1
    assert caplog.text.count("--cache-dir") == 1
    assert np.array_equal(sampler.whole(0).image, first[0].image)
    assert sampler.whole(0) is not first[0]
