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
from scipy.optimize import linear_sum_assignment

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
    boxes, target_boxes : (n, 4) and (m, 4)
    class_cost : weight of the probability
    """
    l1 = (boxes[:, None] - target_boxes).abs().sum(-1)
    giou = generalized_iou(boxes[:, None], target_boxes)
    return -class_cost * probability[:, None] + L1_COST * l1 - GIOU_COST * giou


def assign(cost: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Predictions and targets that are paired: the assignment of lowest total cost (equation 1).

    Parameters
    ----------
    cost : (n, m), finite; pairs of cost `FORBIDDEN` or more are not formed

    Returns
    -------
    prediction, target : (k,) each, k at most min(n, m)
    """
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
    answers : of every layer, logits (b, q, 2) and boxes (b, q, 4)
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
        wanted = torch.full(logits.shape[:2], NOTHING, dtype=torch.long, device=logits.device)
        l1, giou = logits.new_zeros(()), logits.new_zeros(())
        for image, target in enumerate(targets):
            with torch.no_grad():
                probability = logits[image].softmax(-1)[:, particle_class]
                cost = matching_cost(probability, boxes[image], target).cpu().numpy()
            row, column = (torch.from_numpy(index).to(boxes.device) for index in assign(cost))
            wanted[image, row] = particle_class
            one_l1, one_giou = box_losses(boxes[image, row], target[column])
            l1, giou = l1 + one_l1, giou + one_giou
        classes = cross_entropy(logits.flatten(0, 1), wanted.flatten(), weights)
        parts = {"class": classes, "l1": l1 / count, "giou": giou / count}
        total = total + CLASS_COST * classes + L1_COST * parts["l1"] + GIOU_COST * parts["giou"]
    return {"loss": total, **parts}
