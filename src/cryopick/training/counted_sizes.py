"""Which particle sizes count when a network learns and is judged at one working scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.processing.scale import NOMINAL_PARTICLE_PX

PICKED_RATIO = (0.6, 1.65)
"""Particles whose diameter over the nominal one lies in this range are to be picked ..."""
UNDECIDED_RATIO = (0.45, 2.2)
"""... those outside this one are background; what lies between counts neither way."""


def counted_sizes(
    diameter_px: ArrayLike, *, nominal_px: float = NOMINAL_PARTICLE_PX
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) Which particles are to be picked, and which count neither way; the others are background."""
    ratio: NDArray[Any] = np.asarray(diameter_px) / nominal_px
    is_picked = (ratio >= PICKED_RATIO[0]) & (ratio <= PICKED_RATIO[1])
    is_possible = (ratio >= UNDECIDED_RATIO[0]) & (ratio <= UNDECIDED_RATIO[1])
    return is_picked, is_possible & ~is_picked
