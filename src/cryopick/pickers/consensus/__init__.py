"""`consensus`: several pickers look at each micrograph, and what they agree on is picked."""

from cryopick.pickers.consensus.picker import ConsensusPicker
from cryopick.pickers.consensus.stacking import known_members, load_stacking

__all__ = ["ConsensusPicker", "known_members", "load_stacking"]
