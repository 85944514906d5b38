"""Fourier shell correlation of two maps, and the resolution that is read off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

HALF_MAPS, AGAINST_TRUTH = 0.143, 0.5
"""Usual thresholds: of two half maps (Rosenthal and Henderson, J. Mol. Biol. 333, 2003), of a map and the truth."""
_SHELLS_BELOW = 2  # a curve has fallen once it stays below for so many shells; one alone may be chance
_RANDOMIZED_FROM = 0.8


def fourier_shell_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], mask: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Correlation of two maps in shells of frequency.

    Parameters
    ----------
    first, second : (n, n, n), on the same voxels
    mask : (n, n, n) that both are multiplied with first

    Returns
    -------
    curve : (n // 2 + 1,) in [-1, 1], shell k of radius k cycles per box; 0 where a map has nothing

    Raises
    ------
    ValueError
        If the shapes differ or are no cubes.

    References
    ----------
    Harauz and van Heel, Optik 73 (1986).
    """
    if first.shape != second.shape or first.ndim != 3 or len(set(first.shape)) != 1:
        raise ValueError(f"two maps of the same cube: got {first.shape} and {second.shape}")
    if mask is not None and mask.shape != first.shape:
        raise ValueError(f"maps of {first.shape} voxels but a mask of {mask.shape}")
    one, other = (fft.rfftn(one if mask is None else one * mask, workers=1) for one in (first, second))
    return _correlation(one, other, _shells(first.shape[0]))


def _shells(n: int) -> NDArray[np.int64]:
    """Radius in cycles per box, rounded, of every element of a cube's rfftn."""
    along = np.fft.fftfreq(n) * n
    square = along[:, None, None] ** 2 + along[:, None] ** 2 + np.arange(n // 2 + 1) ** 2
    return np.asarray(np.rint(np.sqrt(square)), dtype=np.int64)


def _correlation(
    one: NDArray[np.complexfloating], other: NDArray[np.complexfloating], shell: NDArray[np.int64]
) -> NDArray[np.float64]:
    n = one.shape[0]
    twice = np.full(n // 2 + 1, 2.0)  # the half that is not stored has the same
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    weight = np.broadcast_to(twice, one.shape).ravel()
    sums = [
        np.bincount(shell.ravel(), values.ravel() * weight)[: n // 2 + 1]
        for values in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    ]
    power = np.sqrt(sums[1] * sums[2])
    return np.asarray(np.divide(sums[0], power, out=np.zeros(len(power)), where=power > 0), dtype=np.float64)


def resolution_at(curve: NDArray[np.floating], threshold: float, *, box_px: int, pixel_size_angstrom: float) -> float:
    """Å at which a curve falls below a threshold and stays there for two shells, linear between shells.

    Parameters
    ----------
    curve : (shells,) from `fourier_shell_correlation`; shell 0 is not looked at
    threshold : 0.143 for half maps, 0.5 against the truth
    box_px, pixel_size_angstrom : of the maps

    Returns
    -------
    resolution_angstrom : `2 * pixel_size_angstrom` (Nyquist) where it never falls, which reads "that or better";
        infinity where already the first shell is below
    """
    edge = box_px * pixel_size_angstrom
    last = min(len(curve) - 1, box_px // 2)
    is_below = np.asarray(curve[: last + 1]) < threshold
    for k in range(1, last + 1):
        if not is_below[k : k + _SHELLS_BELOW].all():
            continue
        if k == 1:
            return float("inf")
        above, below = float(curve[k - 1]), float(curve[k])
        return float(edge / (k - 1 + (above - threshold) / (above - below)))
    return float(2 * pixel_size_angstrom)


@dataclass(frozen=True, eq=False)
class HalfMapCurves:
    """What two half maps say; every curve is (n // 2 + 1,).

    Parameters
    ----------
    unmasked, masked : FSC without and with the mask
    randomized : masked, after the phases beyond a shell were randomised: what the mask alone gives
    corrected : masked with that taken off; the curve that is shown
    """

    unmasked: NDArray[np.float64]
    masked: NDArray[np.float64]
    randomized: NDArray[np.float64]
    corrected: NDArray[np.float64]


def half_map_curves(
    half1: NDArray[np.floating], half2: NDArray[np.floating], mask: NDArray[np.floating], *, seed: int = 0
) -> HalfMapCurves:
    """FSC of half maps inside a mask, corrected for what the mask itself correlates.

    Phases are randomised beyond the first shell where the unmasked curve falls below 0.8; two shells further on the
    correction holds, as in RELION's post-processing.

    References
    ----------
    Chen et al., Ultramicroscopy 135 (2013), eq. 4.
    """
    unmasked = fourier_shell_correlation(half1, half2)
    masked = fourier_shell_correlation(half1, half2, mask)
    below = np.flatnonzero(unmasked[1:] < _RANDOMIZED_FROM)
    start = int(below[0]) + 1 if len(below) else len(unmasked)
    rng = np.random.default_rng(seed)
    shell = _shells(half1.shape[0])
    spectra = []
    for half in (half1, half2):
        # Phases of real white noise, which has the transform's own symmetry
        noise = fft.rfftn(rng.normal(size=half.shape), workers=1)
        spectrum = fft.rfftn(half, workers=1)
        spectrum = np.where(shell >= start, np.abs(spectrum) * noise / np.maximum(np.abs(noise), 1e-30), spectrum)
        spectra.append(fft.irfftn(spectrum, s=half.shape, workers=1))
    randomized = fourier_shell_correlation(spectra[0], spectra[1], mask)
    corrected = masked.copy()
    far = np.arange(len(masked)) >= start + 2
    corrected[far] = (masked[far] - randomized[far]) / np.maximum(1 - randomized[far], 1e-6)
    return HalfMapCurves(unmasked, masked, randomized, corrected)
