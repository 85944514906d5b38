"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.families import register_family
from cryopick.training.trainable import Family

__all__ = ["CryoEmmaePicker"]


@register_family("cryoemmae")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.cryoemmae.training import FAMILY

    return FAMILY
