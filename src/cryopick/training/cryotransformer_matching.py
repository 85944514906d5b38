"""Bipartite matching and the losses of set prediction: equations 1 to 5 of the CryoTransformer article.

Boxes are (x, y, w, h): centre and size, in any one unit.

References
----------
A. Dhakal et al., Bioinformatics 40(3), 2024, btae109; N. Carion et al., ECCV 2020 (DETR); H. Rezatofighi et al.,
CVPR 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from torch import Tensor

CLASS_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0
"""Weights of the parts of the matching cost, and of the losses."""
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


def matching_cost(probability: Tensor, boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """(n, m) Cost of letting prediction i answer for target j: equation 2 with the box cost of equation 4.

    Parameters
    ----------
    probability : (n,) that prediction i is a particle
    boxes, target_boxes : (n, 4) and (m, 4)
    """
    l1 = (boxes[:, None] - target_boxes).abs().sum(-1)
    giou = generalized_iou(boxes[:, None], target_boxes)
    return -CLASS_COST * probability[:, None] + L1_COST * l1 - GIOU_COST * giou


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
