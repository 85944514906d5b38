"""Losses that several picker families share; logits in, scalars out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dice_loss(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice coefficient, over the whole batch.

    Parameters
    ----------
    logits, target : same shape; target in [0, 1]
    smooth : added to both sides of the fraction, so that empty images give 0 for empty answers

    References
    ----------
    F. Milletari et al., V-Net, 3DV 2016 (there with squares in the denominator; ours has sums).
    """
    probability = logits.sigmoid()
    both = (probability * target).sum()
    return 1 - (2 * both + smooth) / (probability.sum() + target.sum() + smooth)


def non_negative_pu_loss(
    logits: Tensor, is_positive: Tensor, weight: Tensor, *, prior: float, is_negative: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy when only some positives are labelled and everything else may be either.

    `prior * P(+) + max(0, U(-) - prior * P(-))`: the unlabelled pixels are treated as a mixture that holds `prior`
    positives. Where the bracket falls below 0 the network has begun to memorise, and it is held at 0.

    Parameters
    ----------
    logits, is_positive, weight : same shape; `is_positive` 1 on labelled positives, else 0; `weight` 0 leaves out
    prior : share of positives among all pixels, labelled or not
    is_negative : 1 where it is known that there is no positive; where any is, half of the risk is that of the labelled
        pixels alone

    References
    ----------
    R. Kiryo et al., Positive-Unlabeled Learning with Non-Negative Risk Estimator, NeurIPS 2017, eq. 6.
    T. Sakai et al., Semi-Supervised Classification Based on Classification from Positive and Unlabeled Data, ICML 2017,
    eq. 6, with gamma = 1/2.
    """
    from torch.nn.functional import softplus

    positive, unlabelled = is_positive * weight, (1 - is_positive) * weight
    n_positive, n_unlabelled = positive.sum().clamp(min=1), unlabelled.sum().clamp(min=1)
    as_positive, as_negative = softplus(-logits), softplus(logits)
    found = (as_positive * positive).sum() / n_positive
    refused = (as_negative * positive).sum() / n_positive
    background = (as_negative * unlabelled).sum() / n_unlabelled
    loss: Tensor = prior * found + (background - prior * refused).clamp(min=0)
    if is_negative is None or not bool((known := is_negative * weight).any()):
        return loss
    seen = (as_negative * known).sum() / known.sum()
    return 0.5 * loss + 0.5 * (prior * found + (1 - prior) * seen)


def loss_by_completeness(
    is_complete: Tensor, *, complete: Callable[[Tensor], Tensor], sparse: Callable[[Tensor], Tensor]
) -> Tensor:
    """One loss of a batch in which labels of some crops are complete and those of others are not.

    Parameters
    ----------
    is_complete : (b,) bool
    complete, sparse : the loss of some crops of the batch, given as (b,) bool
    """
    import torch

    parts = [
        loss_of(chosen) * chosen.float().mean()
        for chosen, loss_of in ((is_complete, complete), (~is_complete, sparse))
        if bool(chosen.any())
    ]
    return torch.stack(parts).sum()
