"""`cryosegnet`: attention-gated U-Net and Segment Anything (Gyawali et al., 2024)."""

from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker

__all__ = ["CryoSegNetPicker"]
