"""Losses of segmentation; logits in, scalars out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryopick.pickers.segmentation_crf.model import BACKGROUND, CORE, HOLLOW, RIM

if TYPE_CHECKING:
    from torch import Tensor

DICE_SHARE = 0.5
OWN_BELIEF = 0.5
"""Where only some particles are labelled, unlabelled places that the network itself takes for a particle with more than
this probability teach nothing."""


def segmentation_loss(logits: Tensor, target: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Cross-entropy, so that the classes are probabilities, and Dice of particles and of cores, which few pixels are.

    Parameters
    ----------
    logits : (b, 5, h, w)
    target : (b, 5, h, w) share of each class in each cell
    weight : (b, h, w), 0 leaves a cell out
    """
    from torch.nn.functional import log_softmax

    log_probability = log_softmax(logits, dim=1)
    entropy = -(target * log_probability).sum(1)
    entropy_loss = (entropy * weight).sum() / weight.sum().clamp(min=1)
    probability = log_probability.exp()
    particle = _dice(probability[:, RIM] + probability[:, CORE], target[:, RIM] + target[:, CORE], weight)
    core = _dice(probability[:, CORE] + probability[:, HOLLOW], target[:, CORE] + target[:, HOLLOW], weight)
    loss = entropy_loss + DICE_SHARE * (particle + core)
    return {"loss": loss, "entropy": entropy_loss, "particle": particle, "core": core}


def _dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    both = (probability * target * weight).sum()
    sizes = ((probability + target) * weight).sum()
    return 1 - (2 * both + 1) / (sizes + 1)


def weight_of_sparse(logits: Tensor, target: Tensor, weight: Tensor, is_complete: Tensor) -> Tensor:
    """The weights where labels may miss particles: unlabelled cells that the network takes for one are left out.

    Parameters
    ----------
    is_complete : (b,) bool

    References
    ----------
    S. Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015 workshop: what the
    network already believes is held against the label; here it only silences the label.
    """
    believed = logits.detach().softmax(dim=1)
    is_doubtful = (believed[:, RIM] + believed[:, CORE] + believed[:, HOLLOW] > OWN_BELIEF) & (
        target[:, BACKGROUND] > 0.5
    )
    silenced = is_doubtful & ~is_complete[:, None, None]
    return weight * (~silenced).to(weight.dtype)


def published_loss(logits: Tensor, is_particle: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """The published loss, for comparison: label-smoothed cross-entropy of what already is a softmax.

    It cannot fall below 0.363 and is 0.693 at chance, so that its gradients are weak.

    Parameters
    ----------
    logits : (b, 2, h, w), background and particle
    is_particle : (b, h, w) in [0, 1]
    """
    from torch import stack
    from torch.nn.functional import cross_entropy

    target = stack([1 - is_particle, is_particle], dim=1)
    return cross_entropy(logits.softmax(dim=1), target, label_smoothing=smoothing)
