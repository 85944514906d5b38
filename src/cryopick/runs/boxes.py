"""Box sizes to extract with, suggested from the particle diameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cryopick.errors import SettingsError

BOX_PER_DIAMETER = 1.5
"""Box over particle diameter; leaves room for the ring that the CTF spreads around a particle, and for the mask."""
BINNED_PIXEL_ANGSTROM = 4.0
"""Pixel size aimed at for a first 2D classification; resolves secondary structure's 10 Å comfortably."""
MIN_BINNED_BOX = 32
_WIDEST_BOX_PX = 2.0**31


@dataclass(frozen=True)
class SuggestedBoxes:
    """Box sizes in pixels; the binned ones are None where the pixel size is unknown or already coarse."""

    box_px: int
    binned_box_px: int | None
    binned_pixel_size_angstrom: float | None


def suggest_boxes(diameter_px: float, pixel_size_angstrom: float | None) -> SuggestedBoxes:
    """Box 1.5 particle diameters wide, and binned to about 4 Å per pixel, both rounded up to a size fast to FFT."""
    box_px = next_fast_even_size(BOX_PER_DIAMETER * diameter_px)
    if pixel_size_angstrom is None or pixel_size_angstrom > BINNED_PIXEL_ANGSTROM / 1.2:
        return SuggestedBoxes(box_px, None, None)
    wanted = max(MIN_BINNED_BOX, box_px * pixel_size_angstrom / BINNED_PIXEL_ANGSTROM)
    binned_px = next_fast_even_size(wanted)
    if binned_px >= box_px:
        return SuggestedBoxes(box_px, None, None)
    return SuggestedBoxes(box_px, binned_px, round(pixel_size_angstrom * box_px / binned_px, 4))


def next_fast_even_size(size_px: float) -> int:
    """The smallest even whole number of at least `size_px` whose only prime factors are 2, 3 and 5."""
    if size_px > _WIDEST_BOX_PX:
        raise SettingsError(f"a box of {size_px:.4g} px is wider than any micrograph; check the particle diameter")
    from scipy.fft import next_fast_len

    return 2 * int(next_fast_len(max(1, math.ceil(size_px / 2)), real=True))
