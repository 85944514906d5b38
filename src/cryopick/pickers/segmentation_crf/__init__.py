"""`segmentation-crf`: every pixel's class, refined by a conditional random field (Chung and Chou)."""

from cryopick.pickers.families import register_family
from cryopick.pickers.published_weights import PublishedWeights, register_published_weights
from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker
from cryopick.training.trainable import Family

__all__ = ["SegmentationCrfPicker"]


@register_family("segmentation-crf")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.segmentation_crf.training import FAMILY

    return FAMILY


@register_published_weights("segmentation-crf")
def published_weights() -> PublishedWeights:
    """State dicts of torchvision's networks."""
    from cryopick.pickers.segmentation_crf.published_weights import PUBLISHED_WEIGHTS

    return PUBLISHED_WEIGHTS
