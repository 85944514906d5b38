"""`deepcryopicker`, and with it `autocryopicker` and `supercryopicker` (Al-Azzawi et al., 2019 and 2020)."""

from cryopick.pickers.deepcryopicker.autocryopicker import AutoCryoPicker
from cryopick.pickers.deepcryopicker.measures import ViewScores, ViewsResult, accuracy, score_views
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker
from cryopick.pickers.deepcryopicker.supercryopicker import SuperCryoPicker
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
