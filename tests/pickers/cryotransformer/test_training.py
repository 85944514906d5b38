"""Training of the small detection transformer: one query per particle, by matching alone."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.errors import SettingsError  # noqa: E402
from cryopick.io.weights import weights_folders  # noqa: E402
from cryopick.pickers.cryotransformer.network import Queries  # noqa: E402
from cryopick.pickers.cryotransformer.trainable import (  # noqa: E402
    LocalTask,
    LocalTrainable,
    as_model,
    count_duplicates,
    judge,
    labelled_targets,
    particles_of,
    set_losses,
)
from cryopick.training.augment import LabelledCrop  # noqa: E402
from cryopick.training.crop_bank import SimulatedCrops  # noqa: E402
from cryopick.training.judging import calibrated, outcomes_of  # noqa: E402

HAS_GENERAL = (weights_folders()[0] / "general.safetensors").is_file()
COMPLETE = torch.ones(2)


def queries_at(*places, image=0, logit=0.0):
    count = len(places)
    return Queries(
        image=torch.full((count,), image),
        xy_px=torch.tensor(places, dtype=torch.float32),
        log_size=torch.zeros(count),
        logit=torch.full((count,), logit) if np.isscalar(logit) else torch.tensor(logit),
    )


def particles_at(*rows):
    """(crop, x, y, diameter, to be picked)"""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def class_of(queries, particles, background=COMPLETE):
    """Which way the class loss pulls each query: towards a particle, towards none, or not at all."""
    queries.logit.requires_grad_(True)
    set_losses(queries, particles, background)[0].backward()
    return torch.sign(-queries.logit.grad).tolist()


def test_of_two_queries_on_a_particle_one_is_taught_to_be_it_and_the_other_not():
    queries = queries_at([50.0, 50.0], [50.5, 50.0], logit=[0.0, 2.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 1])) == [-1, 1]


def test_of_equally_sure_queries_the_nearer_one_is_taught():
    queries = queries_at([53.0, 50.0], [50.5, 50.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 1])) == [-1, 1]


def test_two_particles_take_two_queries_even_where_one_query_suits_both_best():
    queries = queries_at([52.0, 50.0], [44.0, 50.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 1], [0, 53, 50, 20, 1])) == [1, 1]


def test_a_query_out_of_reach_is_not_taught_a_particle():
    queries = queries_at([50.0, 61.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 1])) == [-1]
    assert class_of(queries_at([50.0, 59.0]), particles_at([0, 50, 50, 20, 1])) == [1]


def test_particles_of_one_crop_do_not_match_queries_of_another():
    assert class_of(queries_at([50.0, 50.0], image=1), particles_at([0, 50, 50, 20, 1])) == [-1]


def test_an_undecided_particle_teaches_nothing_around_it():
    queries = queries_at([50.0, 50.0], [51.0, 50.0], [150.0, 50.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 0])) == [0, 0, -1]


def test_sparse_labels_do_not_teach_that_there_is_nothing():
    queries = queries_at([50.0, 50.0], [150.0, 50.0])
    assert class_of(queries, particles_at([0, 50, 50, 20, 1]), torch.zeros(2)) == [1, 0]


def test_a_perfect_answer_has_no_box_loss_and_a_moved_one_that_of_its_distance():
    _, l1, giou = set_losses(queries_at([50.0, 50.0]), particles_at([0, 50, 50, 20, 1]), COMPLETE)
    assert float(l1) == pytest.approx(0, abs=1e-6)
    assert float(giou) == pytest.approx(0, abs=1e-6)
    _, l1, giou = set_losses(queries_at([53.0, 50.0]), particles_at([0, 50, 50, 20, 1]), COMPLETE)
    assert float(l1) == pytest.approx(3 / 200)
    # side by side squares of 20, 3 apart: intersection 17 x 20, union and hull 23 x 20
    assert float(giou) == pytest.approx(1 - 17 / 23, abs=1e-5)


def test_no_particles_and_no_queries_give_no_loss():
    nothing = set_losses(
        queries_at().__class__(*[torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)], torch.zeros(0), torch.zeros(0)),
        particles_at(),
        COMPLETE,
    )
    assert [float(one) for one in nothing] == [0, 0, 0]


def test_duplicates_are_pairs_nearer_than_the_distance():
    xy = np.array([[0, 0], [0, 5.9], [0, 12.1], [100, 0]])
    assert count_duplicates(xy, 6.0) == 1
    assert count_duplicates(np.zeros((0, 2)), 6.0) == 0


def test_particles_of_quite_another_size_are_none_and_those_in_between_undecided():
    crop = SimulatedCrops(crop_px=96, far_scale_share=0.0, seed=5, count=0).crop(0)
    crop = replace(
        crop,
        xy_px=np.array([[10.0, 10], [20, 20], [30, 30]]),
        diameter_px=np.array([20.0, 10.0, 60.0], np.float32),
    )
    assert particles_of(crop)[:, 2:].tolist() == [[20, 1], [10, 0]]


def test_particles_of_a_batch_lie_in_the_middle_of_what_its_heat_maps_mark():
    trainable = LocalTrainable(LocalTask(batch_size=4, crop_px=192, distinct_crops=0, start="random"))
    marked = 0
    for index in range(3):
        batch = trainable.make_batch(index, np.random.default_rng(index))
        centre = batch["targets"][:, 0].numpy()
        crop, x, y, _, is_picked = batch["particles"].numpy().T
        assert ((x >= -0.5) & (x < 95.5) & (y >= -0.5) & (y < 95.5)).all()
        column, row = (np.clip(((axis + 0.5) / 2).astype(int), 0, 47) for axis in (x, y))
        assert (centre[crop.astype(int), row, column][is_picked > 0] == 1).all()
        # and where none lies, nothing is marked
        height, width = np.mgrid[:48, :48] * 2 + 0.5
        for number in range(4):
            here = (crop == number) & (is_picked > 0)
            inside = (height > 8) & (height < 87) & (width > 8) & (width < 87)
            near = np.zeros((48, 48), bool)
            for px, py in zip(x[here], y[here], strict=True):
                near |= np.hypot(width - px, height - py) < 10
            assert not (centre[number] > 0)[inside & ~near].any()
            marked += int(here.sum())
    assert marked > 20


def test_a_window_that_has_no_middle_is_refused():
    with pytest.raises(SettingsError, match="odd window"):
        LocalTask(window=6)


def test_a_beaten_query_that_lies_nearer_does_not_take_the_particle_from_the_sure_one():
    crops = [SimulatedCrops(crop_px=96, far_scale_share=0.0, seed=5, count=0).crop(0)] * 4
    truth = np.array([[30.0, 30.0], [70.0, 60.0]])
    crops = [replace(crop, xy_px=truth, diameter_px=np.full(2, 20.0, np.float32)) for crop in crops]

    def answers(crop):
        """Of each particle a sure answer a pixel off and an unsure one in its very middle, and a third in the void."""
        xy_px = np.concatenate([truth + np.array([1.0, 0.0]), truth, [[10.0, 80.0]]])
        score = np.array([0.9, 0.8, 0.1, 0.15, 0.2])
        return xy_px, score

    calibration = calibrated(outcomes_of(answers, crops), surest_counts=True)
    assert (calibration(np.array([0.9, 0.8])) > 0.9).all()
    assert (calibration(np.array([0.1, 0.15, 0.2])) < 0.1).all()


class Two:
    """Two simulated crops, again and again."""

    def __init__(self):
        source = SimulatedCrops(crop_px=224, far_scale_share=0.0, seed=5, count=0)
        found = (source.crop(number) for number in range(40))
        self.crops = [crop for crop in found if len(crop.xy_px) >= 30 and 14 < np.median(crop.diameter_px) < 26][:2]

    def crop(self, index):
        return self.crops[index % 2]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_GENERAL, reason="the package holds no weights of the general picker")
def test_two_crops_are_learnt_without_duplicates_in_eighty_steps():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trainable = LocalTrainable(LocalTask(batch_size=4))
    two = Two()
    trainable.source.crops = two
    network = trainable.build_network()
    groups = [
        {"params": one["params"], "lr": 1e-3 * one.get("lr_factor", 1.0)} for one in trainable.parameter_groups(network)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rivals = LocalTrainable(LocalTask(competes=False)).build_network()
    before = judge(as_model(rivals), two.crops)
    batches = [trainable.make_batch(number, np.random.default_rng(number)) for number in range(8)]
    for step in range(80):
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = trainable.loss(network, batches[step % 8])["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
    after = judge(as_model(network), two.crops)
    assert before["duplicates"] > 0.2  # without competition and training, several queries answer for a particle
    assert after["duplicates"] == 0
    assert after["best_f1"] > 0.95


def test_labels_become_centres_of_their_size_and_sparse_ones_leave_the_rest_open():
    crop = LabelledCrop(
        image=np.zeros((48, 48), np.float32),
        xy_px=np.array([[12.5, 20.5], [36.5, 30.5]]),
        diameter_px=np.array([25.0, 25.0]),
        is_uncertain=np.array([False, True]),
        is_complete=True,
    )
    centre, _, _, size, junk, weight = labelled_targets(crop)
    assert (centre[10, 6], weight[10, 6], centre[15, 18], weight[15, 18]) == (1, 1, 0, 0)
    assert size[10, 6] == pytest.approx(np.log(25 / 20))
    assert not junk.any()
    assert labelled_targets(replace(crop, is_complete=False))[5].sum() == centre.sum()
