"""`general`: the pretrained default picker, its training and its fine-tuning."""

from cryopick.pickers.families import register_family
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.training.trainable import Family

__all__ = ["GeneralPicker"]


@register_family("general")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.general.training import FAMILY

    return FAMILY
