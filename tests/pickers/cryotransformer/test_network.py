"""The small detection transformer: local, the same everywhere, and without a largest image or number of particles."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.pickers.cryotransformer.network import (  # noqa: E402
    REACH_PX,
    Competition,
    LocalDetectionTransformer,
    Queries,
    TokenGrid,
    nearest_queries,
    places_apart,
    relations,
    select_queries,
)

SMALL = {"trunk_widths": (8, 8, 8), "trunk_depths": (1, 1, 1), "width": 16, "heads": 2, "layers": 2, "neighbours": 6}


@pytest.fixture(scope="module")
def network():
    """With random weights everywhere, also where training starts from zero."""
    torch.manual_seed(0)
    made = LocalDetectionTransformer(**SMALL).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def scattered(count, *, images=1, side=200.0, seed=0):
    rng = np.random.default_rng(seed)
    return Queries(
        image=torch.from_numpy(np.sort(rng.integers(0, images, count))),
        xy_px=torch.from_numpy(rng.uniform(0, side, (count, 2)).astype(np.float32)),
        log_size=torch.from_numpy(rng.normal(0, 0.1, count).astype(np.float32)),
        logit=torch.from_numpy(rng.normal(0, 2, count).astype(np.float32)),
    )


def answers_of(network, planes, floor=0.01):
    found = network(planes, floor=floor, most=10_000)
    return found["stages"][-1]


def test_nearest_queries_are_those_of_a_brute_force_search():
    queries = scattered(60, images=3, side=120)
    index, is_absent = nearest_queries(queries, count=5)
    xy, image = queries.xy_px.numpy(), queries.image.numpy()
    for i in range(60):
        gaps = np.hypot(*(xy - xy[i]).T)
        near = [j for j in np.argsort(gaps, kind="stable") if image[j] == image[i] and gaps[j] < REACH_PX][:5]
        assert index[i][~is_absent[i]].tolist() == near
        assert near[0] == i


def test_places_of_different_images_are_far_apart_and_no_coordinate_is_zero():
    queries = Queries(torch.tensor([0, 0, 1]), torch.zeros(3, 2), torch.zeros(3), torch.zeros(3))
    places = places_apart(queries.xy_px, queries.image)
    assert (places != 0).all()
    assert np.linalg.norm(places[2] - places[0]) > 1e6
    np.testing.assert_array_equal(places[0], places[1])


def test_trees_of_places_are_built_while_denormal_numbers_are_flushed():
    """A tree over plain zeros recurses without end then; training runs this way."""
    queries = Queries(torch.zeros(400, dtype=torch.int64), torch.zeros(400, 2), torch.zeros(400), torch.zeros(400))
    torch.set_flush_denormal(True)
    try:
        index, is_absent = nearest_queries(queries, count=3)
    finally:
        torch.set_flush_denormal(False)
    assert index.shape == (400, 3)
    assert not is_absent.any()


def test_the_window_holds_the_tokens_around_the_reference_point():
    tokens = torch.arange(6 * 8).reshape(1, 1, 6, 8).float()
    grid = TokenGrid.of(tokens)
    # token (row 2, column 3) has its centre at ((3 + 0.5) * 4 - 0.5, (2 + 0.5) * 4 - 0.5)
    queries = Queries(torch.tensor([0]), torch.tensor([[13.5, 9.5]]), torch.zeros(1), torch.zeros(1))
    index, offset, is_outside = grid.window_around(queries, 3)
    assert grid.flat[index[0], 0].tolist() == [10, 11, 12, 18, 19, 20, 26, 27, 28]
    assert offset[0, 4].tolist() == [0, 0]
    assert offset[0, 0].tolist() == pytest.approx([-4 / 20, -4 / 20])
    assert not is_outside.any()


def test_the_window_says_what_lies_outside_the_image():
    grid = TokenGrid.of(torch.zeros(1, 2, 4, 4))
    queries = Queries(torch.tensor([0]), torch.tensor([[0.0, 0.0]]), torch.zeros(1), torch.zeros(1))
    _, _, is_outside = grid.window_around(queries, 3)
    assert is_outside[0].tolist() == [True, True, True, True, False, False, True, False, False]


def test_proposals_become_queries_from_the_floor_on_and_at_most_so_many():
    proposals = torch.zeros(1, 4, 3, 3)
    proposals[0, 0] = torch.tensor([[-9.0, 0, 1], [2, 3, -9], [-9, -9, 4]])
    proposals[0, 1] = 1.5
    queries, index = select_queries(proposals, floor=0.4)
    assert index.tolist() == [1, 2, 3, 4, 8]
    assert queries.xy_px[0].tolist() == [1 * 4 + 1.5 + 1.5, 1.5]
    fewer, _ = select_queries(proposals, floor=0.4, most=2)
    assert sorted(fewer.logit.tolist()) == [3, 4]


def test_what_a_query_knows_of_another_is_the_opposite_of_what_that_one_knows():
    queries = scattered(2)
    both = relations(queries, torch.tensor([[1], [0]]))
    torch.testing.assert_close(both[0, 0, :2], -both[1, 0, :2])
    torch.testing.assert_close(both[0, 0, 2:4], both[1, 0, 2:4])
    torch.testing.assert_close(both[0, 0, 6:], -both[1, 0, 6:])


def competed(places, logits, log_size=0.0, *, is_training=True):
    """The change of logits by competition, as it is before training."""
    queries = Queries(
        torch.zeros(len(places), dtype=torch.int64),
        torch.tensor(places, dtype=torch.float32),
        torch.full((len(places),), log_size),
        torch.tensor(logits, dtype=torch.float32),
    )
    with torch.no_grad():
        after = Competition().train(is_training)(queries, *nearest_queries(queries, count=4))
    return (after.logit - queries.logit).tolist()


def test_of_two_queries_on_one_particle_the_surer_one_keeps_it():
    winner, loser = competed([[50.0, 50], [52, 50]], [3.0, 1.0])
    assert -0.05 < winner <= 0
    assert loser < -5


def test_neighbouring_particles_do_not_compete():
    changes = competed([[50.0, 50], [62, 50]], [5.0, 0.0])  # 0.6 diameters apart
    assert max(map(abs, changes)) < 0.01


def test_large_particles_compete_over_larger_distances():
    assert competed([[50.0, 50], [59, 50]], [3.0, 1.0], log_size=float(np.log(1.6)))[1] < -3
    assert competed([[50.0, 50], [59, 50]], [3.0, 1.0], log_size=0.0)[1] > -1


def test_what_a_query_loses_is_the_formula():
    logits = [0.5, 0.2, -0.4]
    places = np.array([[50.0, 50], [53, 51], [48, 46]])
    expected = []
    for i in range(3):
        rivals = 1.0
        for j in range(3):
            if i != j:
                squared = ((places[i] - places[j]) ** 2).sum() / 20**2
                rivals += np.exp(6 * np.tanh(4 * (logits[j] - logits[i])) + 2 - 40 * squared)
        expected.append(-np.log(rivals))
    np.testing.assert_allclose(competed(places.tolist(), logits), expected, rtol=1e-3)


def test_asked_for_an_answer_one_of_two_nearly_equal_queries_keeps_all_of_it():
    places, logits = [[50.0, 50], [51, 50]], [2.0, 1.98]
    shared = competed(places, logits)
    assert max(shared) < -1.5
    winner, loser = competed(places, logits, is_training=False)
    assert winner > -0.05
    assert loser < -5


def test_a_query_alone_loses_nothing():
    assert competed([[50.0, 50]], [1.0]) == [0.0]


def test_an_image_moved_by_whole_tokens_gives_the_answers_moved(network):
    torch.manual_seed(2)
    image = torch.randn(1, 2, 256, 256)
    shift = 48
    first = answers_of(network, image)
    second = answers_of(network, image[:, :, shift:, shift:])
    # away from the borders, further than anything reaches
    inner = ((first.xy_px > shift + 80) & (first.xy_px < 176)).all(dim=1)
    assert inner.sum() > 5
    moved = first.xy_px[inner] - shift
    gaps = torch.cdist(moved, second.xy_px, compute_mode="donot_use_mm_for_euclid_dist")
    assert gaps.min(dim=1).values.max() < 1e-2
    torch.testing.assert_close(second.logit[gaps.argmin(dim=1)], first.logit[inner], atol=1e-3, rtol=1e-3)


def test_images_of_a_batch_do_not_see_each_other(network):
    torch.manual_seed(3)
    images = torch.randn(2, 2, 96, 96)
    both = answers_of(network, images)
    alone = answers_of(network, images[1:])
    torch.testing.assert_close(both.xy_px[both.image == 1], alone.xy_px, atol=1e-4, rtol=1e-4)


def test_there_is_no_largest_number_of_queries(network):
    torch.manual_seed(4)
    found = answers_of(network, torch.randn(1, 2, 320, 320), floor=1e-9)
    assert len(found) == 80 * 80


def test_an_image_without_proposals_has_no_answers(network):
    assert len(answers_of(network, torch.randn(1, 2, 64, 64), floor=1 - 1e-9)) == 0


def test_training_leaves_the_norms_of_the_trunk_as_they_are(network):
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    network.train()
    network(torch.randn(1, 2, 64, 64), floor=0.1, most=10)
    network.eval()
    for name, value in before.items():
        torch.testing.assert_close(network.state_dict()[name], value)


def test_a_trunk_that_was_taught_shapes_gives_its_heat_maps_alone():
    from cryopick.heatmap.network import OUTPUTS, HeatmapUNet

    torch.manual_seed(1)
    taught = HeatmapUNet(
        in_channels=2, widths=SMALL["trunk_widths"], depths=SMALL["trunk_depths"], has_shape=True
    ).eval()
    encoder = LocalDetectionTransformer(**SMALL).eval().encoder
    encoder.load_trunk(taught.state_dict())
    planes = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        heat = encoder.heat_head(encoder.trunk(planes))
        assert torch.equal(heat, taught(planes)[:, : len(OUTPUTS)])


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="odd"):
        LocalDetectionTransformer(**SMALL, window=4)
