"""`segmentation-crf`: every pixel's class, refined by a conditional random field (Chung and Chou)."""

from cryopick.pickers.families import register_family
from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker
from cryopick.training.trainable import Family

__all__ = ["SegmentationCrfPicker"]


@register_family("segmentation-crf")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.segmentation_crf.training import FAMILY

    return FAMILY
