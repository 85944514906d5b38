"""Defocus and astigmatism from a micrograph's power spectrum, once the defocus is about known.

torch-ctf-estimation finds the defocus of the rotational average well, but leaves the astigmatism at none, and its own
correlation, of single patches, hardly tells right fits from wrong ones. Here the mean of all patches is fitted.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cryopick.errors import FormatError
from cryopick.evaluation.ctf_estimation.fits import CtfFit, CtfSearch, Microscope
from cryopick.processing.ctf import ctf_at

BACKGROUND_DEGREE = 3
"""Of the polynomial in the frequency that the logarithm of the background is; rings are finer than it can follow."""
OUTLIERS_PERCENT = 0.5
"""At either end, cut to the rest: lattices and dead lines are single pixels of a spectrum."""
RESTRAINED_UM, RESTRAINT = 0.1, 0.001
"""An astigmatism of the first costs the second in correlation, and more its square: as CTFFIND does, so that what the
rings do not tell stays small. Chosen on the series of `benchmarks/ctf_estimation.py`."""
_STARTS_UM = (0.02, -0.02)
_STEP_UM = 0.04


def fit_rings(
    power: NDArray[np.floating],
    *,
    pixel_size_angstrom: float,
    start_um: float,
    decay_angstrom2: float,
    microscope: Microscope,
    search: CtfSearch,
) -> CtfFit:
    """Fit the CTF to the rings of a mean power spectrum.

    Parameters
    ----------
    power : (n, n // 2 + 1) over the frequencies of `numpy.fft.rfft2`, positive
    pixel_size_angstrom : of the image that it is of
    start_um : a defocus near which the fit is looked for, besides that which correlates best
    decay_angstrom2 : B factor by which rings fade

    Returns
    -------
    fit : its correlation is that of spectrum over background with the squared CTF, over the searched frequencies

    Raises
    ------
    FormatError
        If no frequency of the search is left.
    """
    side = power.shape[0]
    frequency_y = np.fft.fftfreq(side, pixel_size_angstrom)[:, None]
    frequency_x = np.fft.rfftfreq(side, pixel_size_angstrom)[None, :]
    squared = frequency_x**2 + frequency_y**2
    is_fitted = (squared > search.coarsest_angstrom**-2) & (squared < search.finest_angstrom**-2)
    is_fitted[0], is_fitted[:, 0] = False, False  # lines and columns of the detector
    if is_fitted.sum() < 10 * (BACKGROUND_DEGREE + 1):
        raise FormatError("the spectrum holds no frequencies of the search; the image is too small or too coarse")
    x, y = (np.broadcast_to(one, squared.shape)[is_fitted] for one in (frequency_x, frequency_y))
    fading = np.exp(-decay_angstrom2 / 2 * squared[is_fitted])
    rings = _unit(_over_background(np.asarray(power, np.float64)[is_fitted], np.sqrt(squared[is_fitted])))

    def fit_at(point: NDArray[np.float64], correlation: float = 0.0) -> CtfFit:
        mean_um, along_um, diagonal_um = point
        half_um = math.hypot(along_um, diagonal_um)
        return CtfFit(
            defocus_u_um=float(mean_um + half_um),
            defocus_v_um=float(mean_um - half_um),
            astigmatism_angle_deg=math.degrees(math.atan2(diagonal_um, along_um)) / 2,
            correlation=correlation,
        )

    def correlation_at(point: NDArray[np.float64]) -> float:
        ctf = ctf_at(x, y, microscope.ctf(fit_at(point))).astype(np.float64)
        return float(rings @ _unit(ctf**2 * fading))

    def cost(point: NDArray[np.float64]) -> float:
        return RESTRAINT * (2 * math.hypot(point[1], point[2]) / RESTRAINED_UM) ** 2 - correlation_at(point)

    searched_um = np.arange(search.least_defocus_um, search.most_defocus_um, search.step_um)
    rough = [correlation_at(np.array([one, 0.0, 0.0])) for one in searched_um]
    found = []
    for mean_um, along_um in product({start_um, float(searched_um[np.argmax(rough)])}, _STARTS_UM):
        start = np.array([mean_um, along_um, 0.0])
        simplex = np.vstack([start, start + np.diag([_STEP_UM] * 3)])
        found.append(minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 5e-4}))
    best = min(found, key=lambda one: float(one.fun)).x
    return fit_at(best, correlation_at(best))


def _over_background(power: NDArray[np.float64], frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spectrum relative to what it would be without rings, without outliers."""
    shell = np.rint(frequency / frequency.max() * 100).astype(int)
    counts = np.bincount(shell)
    is_there = counts > 0
    mean = np.bincount(shell, power)[is_there] / counts[is_there]
    tiny = np.finfo(np.float64).tiny
    background = np.polynomial.Polynomial.fit(
        np.flatnonzero(is_there), np.log(np.maximum(mean, tiny)), BACKGROUND_DEGREE
    )
    relative = power / np.exp(background(frequency / frequency.max() * 100))
    low, high = np.percentile(relative, [OUTLIERS_PERCENT, 100 - OUTLIERS_PERCENT])
    return np.asarray(np.clip(relative, low, high))


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without mean, of norm 1."""
    centred = values - values.mean()
    norm = np.linalg.norm(centred)
    return np.asarray(centred / norm if norm > 0 else centred)
