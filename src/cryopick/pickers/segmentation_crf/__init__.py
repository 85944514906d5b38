"""`segmentation-crf`: every pixel's class, refined by a conditional random field (Chung and Chou)."""

from typing import Any

from cryopick.pickers.families import register_family
from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker

__all__ = ["SegmentationCrfPicker"]


@register_family("segmentation-crf")
def family() -> Any:
    """How the picker is trained."""
    from cryopick.pickers.segmentation_crf import training

    return training
