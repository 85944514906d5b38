"""`consensus`: several pickers look at each micrograph, and what they agree on is picked."""

from cryopick.pickers.consensus.picker import ConsensusPicker

__all__ = ["ConsensusPicker"]
