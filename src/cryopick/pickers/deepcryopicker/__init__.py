"""`deepcryopicker`, and with it `autocryopicker` and `supercryopicker` (Al-Azzawi et al., 2019 and 2020)."""

from cryopick.pickers.deepcryopicker.autocryopicker import AutoCryoPicker
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker
from cryopick.pickers.deepcryopicker.supercryopicker import SuperCryoPicker

__all__ = ["AutoCryoPicker", "DeepCryoPicker", "SuperCryoPicker"]
