"""Matching and losses of set prediction, against brute force and the article's equations."""

from itertools import permutations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.pickers.cryotransformer.matching import (  # noqa: E402
    FORBIDDEN,
    NOTHING,
    PARTICLE,
    assign,
    box_losses,
    detr_losses,
    generalized_iou,
    matching_cost,
)


def boxes_of(rng, count):
    return torch.tensor(np.column_stack([rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))]))


def areas_on_a_grid(first, second, step=0.001):
    """Intersection, union and hull of two boxes, counted."""
    ends = [(b[0] - b[2] / 2, b[0] + b[2] / 2, b[1] - b[3] / 2, b[1] + b[3] / 2) for b in (first, second)]
    x, y = np.meshgrid(np.arange(-0.5, 1.5, step) + step / 2, np.arange(-0.5, 1.5, step) + step / 2)
    inside = [(x > left) & (x < right) & (y > top) & (y < bottom) for left, right, top, bottom in ends]
    left, top = (min(e[i] for e in ends) for i in (0, 2))
    right, bottom = (max(e[i] for e in ends) for i in (1, 3))
    hull = (x > left) & (x < right) & (y > top) & (y < bottom)
    return [float(mask.sum()) * step**2 for mask in (inside[0] & inside[1], inside[0] | inside[1], hull)]


def test_generalized_iou_is_equation_5_with_areas_counted_on_a_grid():
    rng = np.random.default_rng(0)
    first, second = boxes_of(rng, 4), boxes_of(rng, 4)
    for a, b in zip(first, second, strict=True):
        both, union, hull = areas_on_a_grid(a.numpy(), b.numpy())
        assert float(generalized_iou(a, b)) == pytest.approx(both / union - (hull - union) / hull, abs=0.01)


def test_two_unit_boxes_with_a_unit_gap_have_a_generalized_iou_of_minus_a_third():
    first, second = torch.tensor([0.5, 0.5, 1.0, 1.0]), torch.tensor([2.5, 0.5, 1.0, 1.0])
    assert float(generalized_iou(first, second)) == pytest.approx(-1 / 3)
    assert float(box_losses(first[None], second[None])[1]) == pytest.approx(4 / 3)


def test_a_box_has_a_generalized_iou_of_one_with_itself():
    boxes = boxes_of(np.random.default_rng(1), 6)
    np.testing.assert_allclose(generalized_iou(boxes, boxes), 1.0)


def test_the_matching_cost_is_equations_2_and_4_with_weights_1_5_2():
    rng = np.random.default_rng(2)
    predicted, target, probability = boxes_of(rng, 3), boxes_of(rng, 2), torch.tensor(rng.uniform(0, 1, 3))
    cost = matching_cost(probability, predicted, target)
    for i in range(3):
        for j in range(2):
            l1 = sum(abs(float(predicted[i, k]) - float(target[j, k])) for k in range(4))
            giou = float(generalized_iou(predicted[i], target[j]))
            assert float(cost[i, j]) == pytest.approx(-float(probability[i]) + 5 * l1 - 2 * giou)


@pytest.mark.parametrize(("predictions", "targets"), [(5, 3), (4, 4), (3, 5), (6, 1), (4, 0)])
def test_the_assignment_costs_as_little_as_the_best_of_all_permutations(predictions, targets):
    rng = np.random.default_rng(predictions * 10 + targets)
    for _ in range(5):
        cost = rng.normal(size=(predictions, targets))
        rows, columns = assign(cost)
        assert len(set(rows)) == len(set(columns)) == min(predictions, targets)
        few, many = sorted((predictions, targets))
        table = cost if predictions <= targets else cost.T
        best = min(sum(table[i, chosen[i]] for i in range(few)) for chosen in permutations(range(many), few))
        assert cost[rows, columns].sum() == pytest.approx(best)


def test_forbidden_pairs_are_not_formed_and_others_are():
    cost = np.array([[FORBIDDEN, -1.0], [FORBIDDEN, FORBIDDEN]])
    rows, columns = assign(cost)
    assert list(zip(rows, columns, strict=True)) == [(0, 1)]


def random_answers(rng, *, layers=2, images=2, queries=5):
    return [
        (
            torch.tensor(rng.normal(size=(images, queries, 2))),
            torch.stack([boxes_of(rng, queries) for _ in range(images)]),
        )
        for _ in range(layers)
    ]


def best_pairs(logits, boxes, target, particle):
    """All permutations: the queries of the targets in order, by equation 1."""
    probability = logits.softmax(-1)[:, particle]
    cost = matching_cost(probability, boxes, target).detach().numpy()
    chosen = min(
        permutations(range(len(boxes)), len(target)), key=lambda rows: sum(cost[row, j] for j, row in enumerate(rows))
    )
    return list(chosen)


def test_the_loss_is_equation_3_summed_over_layers_with_nothing_weighted_a_tenth():
    rng = np.random.default_rng(3)
    answers, targets = random_answers(rng), [boxes_of(rng, 3), boxes_of(rng, 1)]
    expected = 0.0
    for logits, boxes in answers:
        numerator = denominator = l1 = giou = 0.0
        for image, target in enumerate(targets):
            rows = best_pairs(logits[image], boxes[image], target, PARTICLE)
            log_p = logits[image].log_softmax(-1)
            for query in range(5):
                weight = 1.0 if query in rows else 0.1
                numerator -= weight * float(log_p[query, PARTICLE if query in rows else NOTHING])
                denominator += weight
            for j, row in enumerate(rows):
                l1 += float((boxes[image, row] - target[j]).abs().sum())
                giou += 1 - float(generalized_iou(boxes[image, row], target[j]))
        expected += numerator / denominator + 5 * l1 / 4 + 2 * giou / 4
    assert float(detr_losses(answers, targets)["loss"]) == pytest.approx(expected)


def test_images_without_particles_teach_that_there_is_nothing():
    rng = np.random.default_rng(4)
    answers = random_answers(rng, layers=1)
    losses = detr_losses(answers, [torch.zeros(0, 4, dtype=torch.float64)] * 2)
    assert float(losses["l1"]) == float(losses["giou"]) == 0
    log_p = answers[0][0].log_softmax(-1)[..., NOTHING]
    assert float(losses["loss"]) == pytest.approx(-float(log_p.mean()))


def test_more_particles_than_queries_match_as_many_as_there_are_queries():
    rng = np.random.default_rng(5)
    answers = random_answers(rng, layers=1, images=1, queries=2)
    assert np.isfinite(float(detr_losses(answers, [boxes_of(rng, 5)])["loss"]))


def class_gradient(particle_class, matched):
    """Of the class loss towards 'particle', for a query that is matched and one that is not."""
    logits = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.2, 0.2, 0.1, 0.1]], dtype=torch.float64)
    far = torch.tensor([[0.8, 0.8, 0.1, 0.1]], dtype=torch.float64)
    boxes = torch.cat([target, far])[None]
    detr_losses([(logits, boxes)], [target if matched else far], particle_class=particle_class)["class"].backward()
    return logits.grad[0].clone()


def test_what_is_matched_decides_the_class_loss():
    """The published program numbers particles like nothing; there this fails, and no objectness can be learnt."""
    assert not torch.allclose(class_gradient(PARTICLE, True), class_gradient(PARTICLE, False))
    gradient = class_gradient(PARTICLE, True)
    assert gradient[0, PARTICLE] < 0 < gradient[1, PARTICLE]


def test_as_published_the_class_loss_does_not_depend_on_the_matching():
    assert torch.allclose(class_gradient(NOTHING, True), class_gradient(NOTHING, False))
