"""What picks are worth for a map: its signal-to-noise ratio relative to that of perfect picks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_FSC = 0.3
"""Shells count up to where the yardstick's curve has fallen to this; beyond it chance decides."""
_LARGEST_FSC, _SMALLEST_FSC = 0.9999, 1e-3  # a curve at 1 has no noise to compare, one below 0 no signal


def spectral_snr(curve: NDArray[np.floating]) -> NDArray[np.float64]:
    """(shells,) signal over noise power of a map whose FSC against the true map this is: F² / (1 - F²)."""
    clipped = np.clip(np.asarray(curve, np.float64), _SMALLEST_FSC, _LARGEST_FSC)
    return np.asarray(clipped**2 / (1 - clipped**2))


def yield_against(
    curve: NDArray[np.floating],
    yardstick: NDArray[np.floating],
    *,
    box_px: int,
    pixel_size_angstrom: float,
    coarsest_angstrom: float,
) -> float:
    """Geometric mean over shells of a map's SSNR relative to the yardstick's: 0.9 reads "worth 90 % of the particles".

    The SSNR of an average grows with the number of particles in it, and falls with the square of the share of junk, so
    that the yield of misaligned junk is about precision x recall.

    Parameters
    ----------
    curve, yardstick : (shells,) FSC against the true map, of this map and of that of perfect picks
    box_px, pixel_size_angstrom : of the maps
    coarsest_angstrom : shells from here on count, coarser ones do not

    Returns
    -------
    share : NaN where the yardstick has no such shell; shells where the map has no signal count with an FSC of 0.001
    """
    edge = box_px * pixel_size_angstrom
    first = max(1, int(np.floor(edge / coarsest_angstrom)) + 1)
    last = min(len(curve), len(yardstick), box_px // 2)
    fallen = np.flatnonzero(np.asarray(yardstick[first:last]) < LEAST_FSC)
    end = first + int(fallen[0]) if len(fallen) else last
    if end <= first:
        return float("nan")
    ratio = spectral_snr(curve[first:end]) / spectral_snr(yardstick[first:end])
    return float(np.exp(np.log(ratio).mean()))
