"""`cryosegnet`: attention-gated U-Net and Segment Anything (Gyawali et al., 2024)."""

from typing import Any

from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker
from cryopick.pickers.families import register_family

__all__ = ["CryoSegNetPicker"]


@register_family("cryosegnet")
def family() -> Any:
    """How the picker is trained."""
    from cryopick.pickers.cryosegnet import training

    return training
