"""`cryotransformer`: particles as a set, predicted by a detection transformer (Dhakal et al., 2024)."""

from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker

__all__ = ["CryoTransformerPicker"]
