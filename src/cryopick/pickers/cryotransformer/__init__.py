"""`cryotransformer`: particles as a set, predicted by a detection transformer (Dhakal et al., 2024)."""

from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker
from cryopick.pickers.families import register_family
from cryopick.pickers.published_weights import PublishedWeights, register_published_weights
from cryopick.training.trainable import Family

__all__ = ["CryoTransformerPicker"]


@register_family("cryotransformer")
def family() -> Family:
    """How the picker is trained."""
    from cryopick.pickers.cryotransformer.training import FAMILY

    return FAMILY


@register_published_weights("cryotransformer")
def published_weights() -> PublishedWeights:
    """How the authors' weights are read."""
    from cryopick.pickers.cryotransformer.published_weights import PUBLISHED_WEIGHTS

    return PUBLISHED_WEIGHTS
