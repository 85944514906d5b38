"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.denoisers import Denoiser, register_denoiser
from cryopick.pickers.families import register_family
from cryopick.training.trainable import Family

__all__ = ["CryoEmmaePicker"]


@register_family("cryoemmae")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.cryoemmae.training import FAMILY

    return FAMILY


@register_denoiser
def denoiser() -> Denoiser:
    """The pre-processing of the program."""
    from cryopick.pickers.cryoemmae.denoise import SHIFT_XY_PX, prepare_cryoemmae

    return Denoiser(
        name="cryoemmae",
        about="as the program of Cryo-EMMAE does it: 1024 x 1024 whatever the shape; content moves 3 px up and left",
        denoise=lambda pixels, diameter_px: prepare_cryoemmae(pixels, diameter_px=round(diameter_px)).picture,
        needs_diameter=True,
        shift_xy_px=SHIFT_XY_PX,
    )
