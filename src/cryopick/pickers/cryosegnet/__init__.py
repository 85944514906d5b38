"""`cryosegnet`: attention-gated U-Net and Segment Anything (Gyawali et al., 2024)."""

from cryopick.pickers.cryosegnet.ablations import MODULES
from cryopick.pickers.cryosegnet.ablations import ablations as u_net_ablations
from cryopick.pickers.cryosegnet.configurations import PAPER_WIDTHS
from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker
from cryopick.pickers.families import register_family
from cryopick.pickers.published_weights import PublishedWeights, register_published_weights
from cryopick.training.trainable import Family

__all__ = ["MODULES", "PAPER_WIDTHS", "CryoSegNetPicker", "u_net_ablations"]


@register_family("cryosegnet")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.cryosegnet.training import FAMILY

    return FAMILY


@register_published_weights("cryosegnet")
def published_weights() -> PublishedWeights:
    """How the authors' U-Net is read."""
    from cryopick.pickers.cryosegnet.published_weights import PUBLISHED_WEIGHTS

    return PUBLISHED_WEIGHTS
