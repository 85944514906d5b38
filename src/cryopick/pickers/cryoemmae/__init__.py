"""`cryoemmae`: clustering in the latent space of a masked autoencoder (Zamanos et al., 2025)."""

from cryopick.pickers.cryoemmae.latent_space import LatentSample, mean_distances, sample_latent_space, scatter_png
from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker, LatentModel, load_model
from cryopick.pickers.denoisers import Denoiser, register_denoiser
from cryopick.pickers.families import register_family
from cryopick.pickers.published_weights import PublishedWeights, register_published_weights
from cryopick.training.trainable import Family

__all__ = [
    "CryoEmmaePicker",
    "LatentModel",
    "LatentSample",
    "load_model",
    "mean_distances",
    "sample_latent_space",
    "scatter_png",
]


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


@register_published_weights("cryoemmae")
def published_weights() -> PublishedWeights:
    """How the authors' files are read."""
    from cryopick.pickers.cryoemmae.published_weights import PUBLISHED_WEIGHTS

    return PUBLISHED_WEIGHTS
