"""`deepcryopicker`, and with it `autocryopicker` and `supercryopicker` (Al-Azzawi et al., 2019 and 2020)."""

from cryopick.pickers.deepcryopicker.autocryopicker import AutoCryoPicker
from cryopick.pickers.deepcryopicker.measures import ViewScores, ViewsResult, accuracy, score_views
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker
from cryopick.pickers.deepcryopicker.supercryopicker import SuperCryoPicker
from cryopick.pickers.denoisers import Denoiser, register_denoiser
from cryopick.pickers.families import register_family
from cryopick.training.trainable import Family

__all__ = [
    "AutoCryoPicker",
    "DeepCryoPicker",
    "SuperCryoPicker",
    "ViewScores",
    "ViewsResult",
    "accuracy",
    "score_views",
]


@register_family("deepcryopicker")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.deepcryopicker.training import FAMILY

    return FAMILY


@register_denoiser
def denoiser() -> Denoiser:
    """The pre-processing of AutoCryoPicker, which DeepCryoPicker reuses."""
    from cryopick.pickers.deepcryopicker.denoise import prepare_autocryopicker

    return Denoiser(
        name="deepcryopicker",
        about="as the scripts of AutoCryoPicker and DeepCryoPicker do it, at half the size",
        denoise=lambda pixels, _: prepare_autocryopicker(pixels)[0],
    )


@register_denoiser
def super_denoiser() -> Denoiser:
    """The same with SuperCryoPicker's opening."""
    from cryopick.pickers.deepcryopicker.denoise import AutoCryoPickerSettings, prepare_autocryopicker

    settings = AutoCryoPickerSettings(opening_px=(5,))
    return Denoiser(
        name="supercryopicker",
        about="as the scripts of SuperCryoPicker do it, at half the size",
        denoise=lambda pixels, _: prepare_autocryopicker(pixels, settings=settings)[0],
    )
