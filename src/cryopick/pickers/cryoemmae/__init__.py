"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from typing import Any

from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.families import register_family

__all__ = ["CryoEmmaePicker"]


@register_family("cryoemmae")
def family() -> Any:
    """How the picker is trained."""
    from cryopick.pickers.cryoemmae import training

    return training
