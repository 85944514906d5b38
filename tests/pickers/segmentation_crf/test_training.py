"""Segmentation maps and losses: small drawings, simulated truth, and the faults of the published training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryopick.data.prepared_cache import Prepared
from cryopick.geometry.rotations import euler_to_matrix
from cryopick.io.star import make_table, write_star
from cryopick.io.structures.poses import read_poses
from cryopick.metrics.detection import precision_recall_curve
from cryopick.metrics.segmentation import ConfusionMatrix
from cryopick.pickers.segmentation_crf.losses import published_loss, segmentation_loss, weight_of_sparse
from cryopick.pickers.segmentation_crf.model import BACKGROUND, CORE, HOLLOW, JUNK, RIM
from cryopick.pickers.segmentation_crf.targets import MapSampler, crop_example, map_example, painted, shares
from cryopick.pickers.segmentation_crf.training import (
    SegmentationTask,
    SegmentationTrainable,
    judged,
    pixel_matrix,
    ranked,
    told,
)
from cryopick.processing.targets import density_instances, projected_instances
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.training.crop_bank import SimulatedCrops

NOMINAL_PX = 20.0


def crop(xy_px, diameter_px, instances, *, visibility=None, junk=None):
    n = len(xy_px)
    image = np.random.default_rng(0).normal(size=instances.shape).astype(np.float32)
    return SimpleNamespace(
        image=image,
        xy_px=np.asarray(xy_px, float).reshape(-1, 2),
        diameter_px=np.asarray(diameter_px, np.float32),
        visibility=np.ones(n) if visibility is None else np.asarray(visibility),
        instances=instances,
        junk=np.zeros(instances.shape, bool) if junk is None else junk,
    )


def disc(shape, x, y, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(columns - x, rows - y) <= radius


def test_core_is_the_middle_of_the_silhouette_and_hollow_what_the_silhouette_leaves_out_of_it():
    is_particle = np.zeros((9, 12), bool)
    is_particle[4, 2:10] = True  # a thin rod
    classes = painted(is_particle, np.array([[5.0, 4.0]]), np.array([4.0]))
    assert classes[4].tolist() == [0, 0, RIM, RIM, CORE, CORE, CORE, RIM, RIM, RIM, 0, 0]
    assert classes[3, 5] == classes[5, 5] == HOLLOW
    assert (classes[[2, 6]] == BACKGROUND).all()


def test_shares_are_those_of_each_class_in_each_cell():
    classes = np.array([[0, 0, 1, 2], [0, 0, 2, 2]], np.uint8)
    found = shares(classes, stride_px=2)
    assert found[:, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert found[:, 0, 1].tolist() == [0, 0.25, 0.75, 0, 0]


def test_hidden_cut_and_half_sized_particles_are_left_out_and_far_sizes_are_background():
    shape = (96, 160)
    centres = [(20.0, 40.0), (60.0, 40.0), (100.0, 40.0), (140.0, 40.0)]
    sizes = NOMINAL_PX * np.array([1.0, 1.0, 0.52, 0.3])
    instances = np.zeros(shape, np.int32)
    for i, ((x, y), size) in enumerate(zip(centres, sizes, strict=True), start=1):
        instances[disc(shape, x, y, size / 2)] = i
    instances[disc(shape, 20, 95, 8)] = 5  # reaches in from outside
    junk = np.zeros(shape, bool)
    junk[:10] = True
    example = crop_example(crop(centres, sizes, instances, visibility=[1, 0.1, 1, 1], junk=junk), stride_px=2)
    at = [(int(y) // 2, int(x) // 2) for x, y in centres]
    assert example.target[(CORE, *at[0])] == 1
    assert [example.weight[place] for place in at] == [1, 0, 0, 1]
    assert example.target[(BACKGROUND, *at[3])] == 1
    assert example.weight[46, 10] == 0
    assert example.target[JUNK, 2, 30] == 1
    np.testing.assert_allclose(example.target.sum(0), 1, atol=1e-6)


def test_a_batch_is_two_quarters_of_each_crop_whose_planes_are_made_of_the_whole():
    trainable = SegmentationTrainable(SegmentationTask(batch_size=4, crop_px=192, distinct_crops=0))
    batch = trainable.make_batch(1, np.random.default_rng(0))
    wholes = [crop_example(trainable.source.crops.crop(i), stride_px=2, input_planes=3) for i in (2, 3)]
    for number in range(4):
        whole = wholes[number // 2]
        fits = [
            np.array_equal(batch["planes"][number], whole.planes[:, 96 * r : 96 * r + 96, 96 * c : 96 * c + 96])
            and np.array_equal(batch["guide"][number], whole.guide[:, 48 * r : 48 * r + 48, 48 * c : 48 * c + 48])
            and np.array_equal(batch["target"][number], whole.target[:, 48 * r : 48 * r + 48, 48 * c : 48 * c + 48])
            and np.array_equal(batch["weight"][number], whole.weight[48 * r : 48 * r + 48, 48 * c : 48 * c + 48])
            for r in (0, 1)
            for c in (0, 1)
        ]
        assert sum(fits) == 1


# ------------------------------------------------------------------------------------- maps of labelled micrographs


@pytest.fixture(scope="module")
def simulated():
    volume = random_protein(
        np.random.default_rng(11), diameter_angstrom=160.0, voxel_size_angstrom=4.0, family="assembly"
    )
    imager = SpecimenImager(Specimen(volume, 160.0), 4.0)
    clean = named_recipe("noise-light")
    recipe = replace(
        clean,
        shape_yx=(448, 448),
        pixel_size_angstrom=4.0,
        layout=replace(clean.layout, coverage=(0.2, 0.2), spacing_diameters=(1.2, 1.2)),
    )
    return volume, simulate_micrograph(recipe, 3, imagers=[imager])


def write_poses(path, one, *, shift_px):
    """As a refinement leaves it: whole-pixel picks off the centre, and origins that lead back."""
    coordinates = np.rint(one.xy_px) + shift_px
    origin = (coordinates - one.xy_px) * 4.0
    columns = {
        "rlnMicrographName": ["m.mrc"] * len(origin),
        "rlnCoordinateX": coordinates[:, 0],
        "rlnCoordinateY": coordinates[:, 1],
        "rlnOriginXAngst": origin[:, 0],
        "rlnOriginYAngst": origin[:, 1],
        **{f"rlnAngle{name}": one.euler_deg[:, i] for i, name in enumerate(("Rot", "Tilt", "Psi"))},
    }
    write_star(path, [make_table("particles", columns)])


def test_maps_from_poses_lie_on_the_refined_centres_and_not_on_the_picked_ones(tmp_path, simulated):
    volume, one = simulated
    shift_px = np.array([7.0, -5.0])
    write_poses(tmp_path / "particles.star", one, shift_px=shift_px)
    poses = read_poses(tmp_path / "particles.star", pixel_size_angstrom=4.0)["m.mrc"]
    np.testing.assert_allclose(poses.xy_px, one.xy_px, atol=1e-3)
    rotations = euler_to_matrix(poses.rot_tilt_psi_deg)
    made = projected_instances(volume, rotations, poses.xy_px, pixel_size_angstrom=4.0, shape_yx=(448, 448))
    truth = (one.instances > 0) & (one.instances <= len(one.xy_px))
    assert iou(made.mask, truth) > 0.8
    offsets = []
    for number in np.flatnonzero(one.visibility > 0.99) + 1:
        mine, exact = (np.argwhere(labels == number).mean(axis=0) for labels in (made.labels, one.instances))
        offsets.append(mine - exact)
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.5
    # the other sign of the origin puts silhouettes twice the shift away
    wrong_xy = poses.xy_px + 2 * (np.rint(one.xy_px) + shift_px - poses.xy_px)
    wrong = projected_instances(volume, rotations, wrong_xy, pixel_size_angstrom=4.0, shape_yx=(448, 448))
    assert iou(wrong.mask, truth) < 0.5


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_maps_from_coordinates_alone_cover_the_true_silhouettes(simulated):
    _, one = simulated
    made = density_instances(one.micrograph.pixels, one.xy_px, one.diameter_px)
    assert iou(made.mask, one.instances > 0) > 0.6
    assert made.is_fallback.mean() < 0.1


class FakeItem:
    """A labelled micrograph in memory."""

    def __init__(self, image, xy_px, *, diameter_px, completeness="complete"):
        self.name, self.image = "fake", image
        self.labels = SimpleNamespace(xy_px=xy_px, is_uncertain=np.zeros(len(xy_px), bool))
        self.diameter_px, self.instances_path, self.region_px, self.drawing = diameter_px, None, None, None
        self.is_complete = completeness == "complete"

    def read(self):
        return SimpleNamespace(pixels=self.image)


def test_examples_from_coordinates_have_cores_where_the_labels_are_and_do_not_repeat(simulated):
    _, one = simulated
    item = FakeItem(one.micrograph.pixels, one.xy_px, diameter_px=40.0, completeness="sparse")
    labelled = SimpleNamespace(items=(item,), prepared=Prepared())
    dataset = SimpleNamespace(labelled=lambda: labelled, prepared=Prepared())
    sampler = MapSampler(dataset, crop_px=96, stride_px=2)
    whole = sampler.whole(0)
    x, y = np.rint(whole.xy_px).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < 224) & (y < 224)
    assert np.isin(whole.classes[y[inside], x[inside]], (CORE, HOLLOW)).all()
    first, again, other = (map_example(sampler.crop(0, np.random.default_rng(seed)), stride_px=2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.planes, again.planes)
    assert not np.array_equal(first.planes, other.planes)
    assert not first.is_complete
    assert first.target.shape == (5, 48, 48)


# ------------------------------------------------------------------------------------------------------------ losses


def test_the_published_loss_cannot_fall_below_0_363_and_is_0_693_at_chance():
    truth = torch.tensor([[[0.0, 1.0]]])
    sure = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    assert float(published_loss(sure, truth)) == pytest.approx(0.3633, abs=1e-4)
    assert float(published_loss(torch.zeros(1, 2, 1, 2), truth)) == pytest.approx(0.6931, abs=1e-4)


def target_with_particle():
    classes = np.zeros((32, 32), np.uint8)
    classes[disc((32, 32), 16, 16, 6)] = RIM
    classes[disc((32, 32), 16, 16, 3)] = CORE
    return torch.from_numpy(shares(classes, stride_px=1))[None]


def test_our_loss_goes_to_nothing_for_a_perfect_answer():
    target = target_with_particle()
    weight = torch.ones(1, 32, 32)
    assert float(segmentation_loss(20 * target, target, weight)["loss"]) < 0.01
    assert float(segmentation_loss(torch.zeros_like(target), target, weight)["loss"]) > 1


def test_missing_a_particle_costs_much_although_it_is_a_tenth_of_the_pixels():
    target = target_with_particle()
    weight = torch.ones(1, 32, 32)
    all_background = torch.zeros_like(target)
    all_background[:, BACKGROUND] = 3.0
    missed = segmentation_loss(all_background, target, weight)
    assert float(missed["particle"]) > 0.8
    assert float(missed["core"]) > 0.8


def test_cells_without_weight_do_not_count():
    target = target_with_particle()
    weight = torch.ones(1, 32, 32)
    weight[:, :, :16] = 0
    wrong_on_the_left = 20 * target
    wrong_on_the_left[:, :, :, :16] = -20 * target[:, :, :, :16]
    assert float(segmentation_loss(wrong_on_the_left, target, weight)["loss"]) < 0.01


def test_unlabelled_places_that_the_network_believes_in_teach_nothing_where_labels_are_sparse():
    target = torch.zeros(2, 5, 1, 2)
    target[:, BACKGROUND] = 1
    logits = torch.zeros(2, 5, 1, 2)
    logits[:, BACKGROUND] = 3
    logits[:, CORE, :, 0] = 6  # believed on the left
    weight = weight_of_sparse(logits, target, torch.ones(2, 1, 2), torch.tensor([False, True]))
    assert weight.tolist() == [[[0, 1]], [[1, 1]]]


def test_a_step_reaches_trunk_heads_and_both_crfs():
    task = SegmentationTask(start="random", widths=(16, 16, 16), depths=(1, 1, 1), batch_size=2, crf_crops=2)
    trainable = SegmentationTrainable(task)
    network = trainable.build_network()
    generator = torch.Generator().manual_seed(0)
    target = target_with_particle().repeat(2, 1, 1, 1)
    batch = {
        "planes": torch.randn(2, 3, 64, 64, generator=generator),
        "guide": torch.randn(2, 1, 32, 32, generator=generator),
        "target": target,
        "weight": torch.ones(2, 32, 32),
        "is_complete": torch.tensor([True, True]),
        "crf_crops": torch.tensor(2),
    }
    losses = trainable.loss(network, batch)
    losses["loss"].backward()
    untouched = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert untouched == []
    plain = trainable.loss(network, {**batch, "crf_crops": torch.tensor(0)})
    assert "crf" in losses
    assert "crf" not in plain


# ---------------------------------------------------------------------------------------------------------- judging

TINY = SegmentationTask(
    start="random", widths=(16, 16, 16), depths=(1, 1, 1), batch_size=2, crop_px=192, crf_crops=1, crf_from_step=1
)


@pytest.fixture(scope="module")
def crops():
    source = SimulatedCrops(crop_px=128, far_scale_share=0.0, seed=5, count=0)
    return [judged(source.crop(index), stride_px=2) for index in range(1, 6)]


def test_the_truth_as_an_answer_gives_no_wrong_pick_and_finds_all_that_can_be_told_apart(crops):
    source = SimulatedCrops(crop_px=128, far_scale_share=0.0, seed=5, count=0)
    truths = [crop_example(source.crop(index), stride_px=2).target for index in range(1, 6)]
    curve = precision_recall_curve([ranked(truth, one) for truth, one in zip(truths, crops, strict=True)])
    assert curve.precision[-1] > 0.97
    assert curve.recall[-1] > 0.75  # hidden particles are not in the map, small ones can be too close for picks
    matrix = sum((pixel_matrix(truth, one) for truth, one in zip(truths, crops, strict=True)), ConfusionMatrix.empty(2))
    assert matrix.iou[1] == 1


def test_where_labels_may_miss_particles_believed_unlabelled_candidates_tell_nothing(crops):
    source = SimulatedCrops(crop_px=128, far_scale_share=0.0, seed=5, count=0)
    number = max(range(len(crops)), key=lambda i: len(crops[i].xy_px))
    answer = crop_example(source.crop(number + 1), stride_px=2).target  # the truth
    half = replace(crops[number], xy_px=crops[number].xy_px[::2])
    _, all_right = told(answer, crops[number])
    assert all_right.mean() > 0.9
    _, right = told(answer, half)
    assert right.mean() < 0.7
    scores, right = told(answer, replace(half, is_complete=False))
    assert right[scores > 0.5].all()
    assert right.sum() > 0


def test_a_network_is_calibrated_for_every_head_and_crf_on_labelled_micrographs(simulated):
    _, one = simulated
    item = FakeItem(one.micrograph.pixels, one.xy_px, diameter_px=40.0)
    labelled = SimpleNamespace(items=(item,), prepared=Prepared())
    dataset = SimpleNamespace(labelled=lambda: labelled, prepared=Prepared(), card_entry=lambda: {"path": "fake"})
    trainable = SegmentationTrainable(TINY, dataset, dataset)
    network = trainable.build_network().eval()
    scores = trainable.validate(network)
    assert 0 <= scores["score"] <= 1
    entries = trainable.card_entries(network)
    calibrations = entries["postprocessing"]["calibrations"]
    assert {head: sorted(each) for head, each in calibrations.items()} == {
        head: ["conv", "dense", "learned", "none"] for head in ("fcn", "deeplabv3")
    }
    batch = trainable.make_batch(1, np.random.default_rng(0))
    assert batch["planes"].shape == (2, 3, 96, 96)
    assert int(batch["crf_crops"]) == 1
    assert int(trainable.make_batch(0, np.random.default_rng(0))["crf_crops"]) == 0
