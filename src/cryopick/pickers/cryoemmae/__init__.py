"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.families import register_family
from cryopick.pickers.published_weights import PublishedWeights, register_published_weights
from cryopick.training.trainable import Family

__all__ = ["CryoEmmaePicker"]


@register_family("cryoemmae")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.cryoemmae.training import FAMILY

    return FAMILY


@register_published_weights("cryoemmae")
def published_weights() -> PublishedWeights:
    """How the authors' files are read."""
    from cryopick.pickers.cryoemmae.published_weights import PUBLISHED_WEIGHTS

    return PUBLISHED_WEIGHTS
