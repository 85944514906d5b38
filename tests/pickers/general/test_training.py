"""What the general network is asked to answer, what wrong answers cost, and how values become probabilities."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.heatmap.model import STRIDE_PX, HeatmapModel, centres_from_maps
from cryopick.heatmap.targets import example, heatmap_loss, shape_targets
from cryopick.pickers.general.trainable import GeneralTask, GeneralTrainable, candidates
from cryopick.pickers.general.training import make_trainable
from cryopick.processing.ctf import CtfParameters
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.simulation.crops import Crop
from cryopick.training.judging import calibrated, detection_scores, outcomes_of

SIDE_PX = 128


def crop_with(diameters_px, *, xy_px=None, image=None, junk=None):
    n = len(diameters_px)
    rng = np.random.default_rng(0)
    return Crop(
        image=rng.normal(size=(SIDE_PX, SIDE_PX)).astype(np.float32) if image is None else image,
        xy_px=np.array([[20.0 + 30 * i, 40.0] for i in range(n)]).reshape(-1, 2) if xy_px is None else xy_px,
        diameter_px=np.asarray(diameters_px, np.float32),
        snr=np.full(n, 10, np.float32),
        visibility=np.ones(n, np.float32),
        instances=np.zeros((SIDE_PX, SIDE_PX), np.int32),
        junk=np.zeros((SIDE_PX, SIDE_PX), bool) if junk is None else junk,
        pixel_size_angstrom=8.0,
        optics=CtfParameters(defocus_u_um=1.5, defocus_v_um=1.5),
    )


def at(plane, crop, index):
    x, y = crop.xy_px[index] / STRIDE_PX
    return plane[round(y), round(x)]


def test_particles_of_about_the_nominal_size_are_wanted_others_not_and_those_between_are_left_out():
    crop = crop_with(NOMINAL_PARTICLE_PX * np.array([1.0, 0.52, 0.3]))
    _, targets = example(crop)
    centre, weight = targets[0], targets[5]
    assert [at(centre, crop, i) for i in range(3)] == [1, 0, 0]
    assert [at(weight, crop, i) for i in range(3)] == [1, 0, 1]


def test_junk_target_is_the_share_of_junk_pixels():
    junk = np.zeros((SIDE_PX, SIDE_PX), bool)
    junk[:, :3] = True
    _, targets = example(crop_with([], junk=junk))
    assert targets[4][:, :3].tolist() == [[1.0, 0.5, 0.0]] * (SIDE_PX // STRIDE_PX)


def discs_at(xy_px, radii_px):
    """Instances of round particles, the first on top."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    instances = np.zeros((SIDE_PX, SIDE_PX), np.int32)
    for number in reversed(range(len(xy_px))):
        instances[np.hypot(x - xy_px[number][0], y - xy_px[number][1]) <= radii_px[number]] = number + 1
    return instances


def test_every_pixel_of_a_particle_points_to_its_centre():
    xy_px = np.array([[31.3, 40.0], [45.6, 47.1], [90.0, 90.5]])  # the first two overlap
    instances = discs_at(xy_px, (9, 11, 4))
    crop = replace(crop_with([18.0, 22.0, 8.0], xy_px=xy_px), instances=instances)
    _, *inward, is_known = shape_targets(crop)
    row, column = np.nonzero(is_known)
    which = instances[STRIDE_PX * row, STRIDE_PX * column] - 1
    assert set(which) == {0, 1, 2}
    for axis, here in enumerate((column, row)):
        reached = STRIDE_PX * here + 0.5 + inward[axis][row, column] * crop.diameter_px[which] / 4
        assert np.abs(reached - xy_px[which, axis]).max() < 1e-3


def test_particles_that_are_not_to_be_picked_cover_pixels_but_point_nowhere():
    crop = replace(crop_with([]), instances=discs_at([(60.0, 60.0)], (8,)))  # for example on junk: in the image alone
    covered, *inward, is_known = shape_targets(crop)
    assert covered.sum() == pytest.approx(np.count_nonzero(crop.instances) / STRIDE_PX**2)
    assert not is_known.any()
    assert not np.any(inward)


def perfect_maps(targets, *, has_shape=False):
    torch = pytest.importorskip("torch")
    maps = torch.from_numpy(targets[None, [0, 1, 2, 3, 4, 6, 7, 8] if has_shape else range(5)].copy())
    for logit in (0, 4, 5)[: 3 if has_shape else 2]:
        maps[:, logit] = (maps[:, logit] * 2 - 1) * 30
    return maps, torch.from_numpy(targets[None])


def test_the_right_answer_costs_nothing():
    _, targets = example(crop_with([20.0, 24.0]))
    loss = heatmap_loss(*perfect_maps(targets))
    assert float(loss["loss"]) == pytest.approx(0, abs=1e-5)


def test_of_a_network_that_says_of_shapes_those_are_asked_too():
    xy_px = np.array([[31.0, 41.0], [80.0, 60.0]])
    instances = np.kron(discs_at(xy_px // STRIDE_PX, (5, 5))[: SIDE_PX // 2, : SIDE_PX // 2], np.ones((2, 2), int))
    crop = replace(crop_with([20.0, 20.0], xy_px=xy_px), instances=instances.astype(np.int32))
    maps, wanted = perfect_maps(example(crop)[1], has_shape=True)
    assert float(heatmap_loss(maps, wanted)["loss"]) == pytest.approx(0, abs=1e-5)
    away = maps.clone()
    away[:, 6:, 50:] += 100  # no particle there
    assert float(heatmap_loss(away, wanted)["inward"]) == pytest.approx(0, abs=1e-5)
    maps[:, 7] += 0.5
    assert float(heatmap_loss(maps, wanted)["inward"]) == pytest.approx(0.5, rel=1e-3)


def test_offsets_and_sizes_are_charged_at_centres_only():
    _, targets = example(crop_with([20.0]))
    maps, wanted = perfect_maps(targets)
    away = maps.clone()
    away[:, 1:4, 50:] += 100  # no particle there
    assert float(heatmap_loss(away, wanted)["loss"]) == pytest.approx(0, abs=1e-5)
    maps[:, 3] += 0.1
    assert float(heatmap_loss(maps, wanted)["size"]) == pytest.approx(0.1, rel=0.05)


def test_without_particles_the_loss_is_finite():
    _, targets = example(crop_with([]))
    maps, wanted = perfect_maps(targets)
    assert all(np.isfinite(float(value)) for value in heatmap_loss(maps, wanted).values())


class Oracle(HeatmapModel):
    """Answers with targets of its own making in place of a network."""

    def __init__(self, answers):
        super().__init__(None, Calibration.none())
        object.__setattr__(self, "answers", iter(answers))

    def __call__(self, planes):
        return next(self.answers)


def test_the_curve_of_perfect_answers_has_average_precision_one():
    crops = [crop_with([20.0, 20.0]), crop_with([20.0])]
    model = Oracle([example(crop)[1][:5] for crop in crops])
    scores = detection_scores(outcomes_of(partial(candidates, model), crops))
    assert scores == pytest.approx({"score": 1.0, "best_f1": 1.0})


def test_calibration_learns_how_often_a_value_is_right():
    rng = np.random.default_rng(4)
    crops, answers = [], []
    for _ in range(150):
        grid = np.array([[20.0 + 30 * i, 20.0 + 30 * j] for i in range(4) for j in range(4)])
        claimed = rng.uniform(0.1, 0.9, 16)
        is_there = rng.random(16) < claimed**2  # an overconfident network
        crops.append(crop_with(np.full(is_there.sum(), 20.0), xy_px=grid[is_there]))
        maps = example(crop_with(np.full(16, 20.0), xy_px=grid))[1][:5]
        _, index = centres_from_maps(maps, stride_px=STRIDE_PX)
        nearest = np.linalg.norm((index[:, None, ::-1] * 2.0 + 0.5) - grid[None], axis=2).argmin(axis=1)
        disc = maps[0].copy()
        for cell, which in zip(index, nearest, strict=True):
            region = np.s_[max(cell[0] - 6, 0) : cell[0] + 7, max(cell[1] - 6, 0) : cell[1] + 7]
            maps[0][region] = disc[region] * claimed[which]
        answers.append(maps)
    oracle = Oracle(answers)
    knots, share = calibrated(outcomes_of(partial(candidates, oracle), crops)).knots
    assert np.all(np.diff(knots) > 0)
    assert np.all(np.diff(share) >= 0)
    for claimed in (0.3, 0.5, 0.7):
        assert np.interp(np.log(claimed / (1 - claimed)), knots, share) == pytest.approx(claimed**2, abs=0.07)


def test_a_batch_depends_on_its_number_alone():
    pytest.importorskip("torch")
    task = GeneralTask(batch_size=2, crop_px=96, distinct_crops=0)
    one, other = GeneralTrainable(task), GeneralTrainable(task)
    other.make_batch(0, np.random.default_rng(0))
    first, second = (each.make_batch(1, np.random.default_rng(1)) for each in (one, other))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_quarters_of_a_batch_are_those_of_whole_crops_seen_at_once():
    pytest.importorskip("torch")
    task = GeneralTask(batch_size=4, crop_px=128, distinct_crops=0)
    trainable = GeneralTrainable(task)
    batch = trainable.make_batch(0, np.random.default_rng(0))
    wholes = [example(trainable.source.crops.crop(i), task.input_planes) for i in range(2)]
    for number, (planes, targets) in enumerate(zip(batch["planes"].numpy(), batch["targets"].numpy(), strict=True)):
        whole_planes, whole_targets = wholes[number // 2]
        places = [(row, column) for row in (0, 1) for column in (0, 1)]
        fits = [
            np.array_equal(planes, whole_planes[:, 64 * r : 64 * r + 64, 64 * c : 64 * c + 64])
            and np.array_equal(targets, whole_targets[:, 32 * r : 32 * r + 32, 32 * c : 32 * c + 32])
            for r, c in places
        ]
        assert sum(fits) == 1


def test_real_data_are_refused_for_training_from_scratch():
    with pytest.raises(SettingsError, match="finetune"):
        make_trainable(GeneralTask(), train=object(), validation=None)


def test_crops_must_fit_the_networks_stride():
    with pytest.raises(SettingsError, match="multiple of 32"):
        GeneralTask(crop_px=100)
