"""What the U-Net learns at working scale: its target maps and its losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.targets import disc_mask
from cryopick.simulation.crops import Crop
from cryopick.training.augment import LabelledCrop
from cryopick.training.counted_sizes import counted_sizes
from cryopick.training.losses import dice_loss, loss_by_completeness, non_negative_pu_loss

if TYPE_CHECKING:
    from torch import Tensor

DISC_SHARE = 0.6
"""Diameter of the discs that the small network learns to mark, over the particle's; the paper marks all of it (1.0).
Neighbours in projection may be 0.6 diameters apart, and discs of this size then still do not merge."""
JUNK_WEIGHT = 0.1
PAPER_SMOOTH = 1e-4
"""Added to both sides of the fraction in the published Dice loss."""


def crop_targets(crop: Crop) -> NDArray[np.float32]:
    """(3, h, w): discs on particles of about the nominal size, junk, and the weight of a pixel's first answer."""
    return _targets(crop, *counted_sizes(crop.diameter_px), crop.junk)


def labelled_targets(crop: LabelledCrop) -> NDArray[np.float32]:
    """(3, h, w): discs, nothing known of junk, and the weight; uncertain labels weigh nothing."""
    return _targets(crop, ~crop.is_uncertain, crop.is_uncertain, np.zeros(crop.image.shape, bool))


def _targets(
    crop: Crop | LabelledCrop,
    is_marked: NDArray[np.bool_],
    is_undecided: NDArray[np.bool_],
    junk: NDArray[np.bool_],
) -> NDArray[np.float32]:
    shape_yx = crop.image.shape[0], crop.image.shape[1]
    marked, undecided = (
        disc_mask(crop.xy_px[which], DISC_SHARE * crop.diameter_px[which], shape_yx=shape_yx)
        if which.any()
        else np.zeros(shape_yx, bool)
        for which in (is_marked, is_undecided)
    )
    return np.stack([marked, junk, ~(undecided & ~marked)]).astype(np.float32)


def map_loss(logits: Tensor, targets: Tensor, *, dice_share: float) -> dict[str, Tensor]:
    """Cross-entropy and Dice of the discs, and cross-entropy of junk where the network maps it.

    Parameters
    ----------
    logits : (b, 1 or 2, h, w)
    targets : (b, 3, h, w) of `crop_targets`: discs, junk, weight
    dice_share : 0.5 weighs both parts alike, as published
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    disc, weight = targets[:, 0], targets[:, 2]
    per_pixel = binary_cross_entropy_with_logits(logits[:, 0], disc, reduction="none")
    bce = (per_pixel * weight).sum() / weight.sum().clamp(min=1)
    is_counted = weight > 0
    dice = dice_loss(logits[:, 0][is_counted], disc[is_counted], smooth=PAPER_SMOOTH)
    loss = (1 - dice_share) * bce + dice_share * dice
    parts = {"bce": bce, "dice": dice}
    if logits.shape[1] > 1:
        parts["junk"] = binary_cross_entropy_with_logits(logits[:, 1], targets[:, 1])
        loss = loss + JUNK_WEIGHT * parts["junk"]
    return {"loss": loss, **parts}


def labelled_loss(
    logits: Tensor, targets: Tensor, is_complete: Tensor, *, dice_share: float, prior: float
) -> dict[str, Tensor]:
    """Cross-entropy and Dice where labels are complete, non-negative PU risk where they are sparse; no junk."""
    disc, weight = targets[:, 0], targets[:, 2]

    def both(chosen: Tensor) -> Tensor:
        return map_loss(logits[chosen, :1], targets[chosen], dice_share=dice_share)["loss"]

    def risk(chosen: Tensor) -> Tensor:
        return non_negative_pu_loss(logits[chosen, 0], disc[chosen], weight[chosen], prior=prior)

    return {"loss": loss_by_completeness(is_complete, complete=both, sparse=risk)}
