"""`general`: the pretrained default picker, its training and its fine-tuning."""

from cryopick.pickers.general.picker import GeneralPicker

__all__ = ["GeneralPicker"]
