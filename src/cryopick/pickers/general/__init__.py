"""`general`: the pretrained default picker, its training and its fine-tuning."""

from typing import Any

from cryopick.pickers.families import register_family
from cryopick.pickers.general.picker import GeneralPicker

__all__ = ["GeneralPicker"]


@register_family("general")
def family() -> Any:
    """How the picker is trained."""
    from cryopick.pickers.general import training

    return training
