"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker

__all__ = ["CryoEmmaePicker"]
