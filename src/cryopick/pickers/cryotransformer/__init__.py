"""`cryotransformer`: particles as a set, predicted by a detection transformer (Dhakal et al., 2024)."""

from typing import Any

from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker
from cryopick.pickers.families import register_family

__all__ = ["CryoTransformerPicker"]


@register_family("cryotransformer")
def family() -> Any:
    """How the picker is trained."""
    from cryopick.pickers.cryotransformer import training

    return training
