"""Bipartite matching and the losses of set prediction: equations 1 to 5 of the CryoTransformer article.

Boxes are (x, y, w, h): centre and size, in any one unit.

References
----------
A. Dhakal et al., Bioinformatics 40(3), 2024, btae109; N. Carion et al., ECCV 2020 (DETR); H. Rezatofighi et al.,
CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

CLASS_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0
"""Weights of the parts of the matching cost, and of the losses."""
PARTICLE, NOTHING = 0, 1
"""Indices of the classes."""
NOTHING_WEIGHT = 0.1
FORBIDDEN = 1e6
"""Cost of a pair that must not be formed."""


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union of boxes, in (-1, 1]; the bracket of equation 5.

    Parameters
    ----------
    first, second : (..., 4), centre and size; leading axes are broadcast, so (n, 1, 4) and (m, 4) give (n, m)
    """
    import torch

    low_a, high_a = first[..., :2] - first[..., 2:] / 2, first[..., :2] + first[..., 2:] / 2
    low_b, high_b = second[..., :2] - second[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2
    both = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - both
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    tiny = torch.finfo(first.dtype).tiny
    return both / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def matching_cost(
    probability: Tensor, boxes: Tensor, target_boxes: Tensor, *, class_cost: float = CLASS_COST
) -> Tensor:
    """(n, m) Cost of letting prediction i answer for target j: equation 2 with the box cost of equation 4.

    Parameters
    ----------
    probability : (n,) that prediction i is a particle
    boxes, target_boxes : (n, 4) and (m, 4); of all, an axis of images may go before
    class_cost : weight of the probability
    """
    first, second = boxes.unsqueeze(-2), target_boxes.unsqueeze(-3)
    l1 = (first - second).abs().sum(-1)
    giou = generalized_iou(first, second)
    return -class_cost * probability.unsqueeze(-1) + L1_COST * l1 - GIOU_COST * giou


def assign(cost: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Predictions and targets that are paired: the assignment of lowest total cost (equation 1).

    Parameters
    ----------
    cost : (n, m), finite; pairs of cost `FORBIDDEN` or more are not formed

    Returns
    -------
    prediction, target : (k,) each, k at most min(n, m)
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    is_allowed = cost[rows, columns] < FORBIDDEN / 2
    return rows[is_allowed], columns[is_allowed]


def box_losses(boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the L1 distances and of one minus the generalised IoU over (k, 4) matched pairs (equations 4 and 5)."""
    return (boxes - target_boxes).abs().sum(), (1 - generalized_iou(boxes, target_boxes)).sum()


def detr_losses(
    answers: Sequence[tuple[Tensor, Tensor]],
    targets: Sequence[Tensor],
    *,
    particle_class: int = PARTICLE,
    nothing_weight: float = NOTHING_WEIGHT,
) -> dict[str, Tensor]:
    """Equation 3 with its weights, for every decoder layer, matched anew for each (auxiliary losses).

    Parameters
    ----------
    answers : of every layer, logits (b, q, 2) and boxes (b, q, 4), in float32
    targets : (m, 4) boxes of each image, in the unit of the answers
    particle_class : index of the class of particles. `NOTHING` too reproduces the published program, in which it is
        that of no object: the class loss then does not depend on what is matched, and nothing can be learnt from it.
    nothing_weight : of unmatched answers, "a down-weighting factor of 10"

    Returns
    -------
    losses : `loss`, and its parts of the last layer: `class` (mean, weighted), `l1` and `giou` (per target)
    """
    import torch
    from torch.nn.functional import cross_entropy

    count = max(sum(len(one) for one in targets), 1)
    parts: dict[str, Tensor] = {}
    total = answers[-1][0].new_zeros(())
    for logits, boxes in answers:
        weights = logits.new_ones(logits.shape[-1])
        weights[NOTHING] = nothing_weight
        image, query, target_boxes = matched(logits.softmax(-1)[..., particle_class], boxes, targets)
        wanted = logits.new_full(logits.shape[:2], NOTHING, dtype=torch.long)
        wanted[image, query] = particle_class
        l1, giou = box_losses(boxes[image, query], target_boxes)
        classes = cross_entropy(logits.flatten(0, 1), wanted.flatten(), weights)
        parts = {"class": classes, "l1": l1 / count, "giou": giou / count}
        total = total + CLASS_COST * classes + L1_COST * parts["l1"] + GIOU_COST * parts["giou"]
    return {"loss": total, **parts}


def matched(probability: Tensor, boxes: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of a batch: numbers (k,) of image and query, and the (k, 4) boxes of their targets.

    Costs of all images are computed at once, every image's against all targets of the largest.

    Parameters
    ----------
    probability : (b, q) of the class that particles have
    boxes : (b, q, 4)
    targets : (m, 4) of each image
    """
    import torch

    most = max((len(one) for one in targets), default=0)
    with torch.no_grad():
        padded = boxes.new_full((len(targets), most, 4), 0.5)
        for number, one in enumerate(targets):
            padded[number, : len(one)] = one
        costs = matching_cost(probability, boxes, padded).cpu().numpy()  # (b, q, most)
    pairs = [assign(cost[:, : len(one)]) for cost, one in zip(costs, targets, strict=True)]
    lengths = [len(query) for query, _ in pairs]
    image = torch.from_numpy(np.repeat(np.arange(len(targets)), lengths)).to(boxes.device)
    query, target = (
        torch.from_numpy(np.concatenate([pair[side] for pair in pairs]).astype(np.int64)).to(boxes.device)
        for side in (0, 1)
    )
    return image, query, padded[image, target]
