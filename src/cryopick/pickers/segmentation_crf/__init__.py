"""`segmentation-crf`: every pixel's class, refined by a conditional random field (Chung and Chou)."""

from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker

__all__ = ["SegmentationCrfPicker"]
