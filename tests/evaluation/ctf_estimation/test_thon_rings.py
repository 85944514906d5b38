"""Defocus and astigmatism come back from spectra that were made by the formula; noise is told by its correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.evaluation.ctf_estimation import CtfFit, Microscope, search_for
from cryopick.evaluation.ctf_estimation.thon_rings import fit_rings
from cryopick.evaluation.ctf_estimation.torch_estimation import LEAST_CORRELATION

KRIOS = Microscope(voltage_kv=300)
PIXEL_ANGSTROM = 2.5
SEARCH = search_for(PIXEL_ANGSTROM)


def spectrum(u_um: float, v_um: float, angle_deg: float, *, rings: float, seed: int = 0) -> NDArray[np.float64]:
    """(256, 129) the mean power of 50 patches: a background that falls, rings on it, and noise.

    The phase is written out anew (Rohou and Grigorieff, eq. 2 to 4), with the wavelength of 300 kV.
    """
    k_y, k_x = np.meshgrid(np.fft.fftfreq(256, PIXEL_ANGSTROM), np.fft.rfftfreq(256, PIXEL_ANGSTROM), indexing="ij")
    squared, azimuth = k_x**2 + k_y**2, np.arctan2(k_y, k_x)
    defocus = 1e4 * (u_um + v_um + (u_um - v_um) * np.cos(2 * (azimuth - math.radians(angle_deg)))) / 2
    wavelength = 0.019687
    phase = math.pi * wavelength * squared * defocus - math.pi / 2 * 2.7e7 * wavelength**3 * squared**2 + math.asin(0.1)
    power = np.exp(3 - 12 * np.sqrt(squared)) * (1 + rings * np.sin(phase) ** 2 * np.exp(-20 * squared))
    return power * np.random.default_rng(seed).gamma(50, 1 / 50, power.shape)


def fitted(power: NDArray[np.float64], start_um: float) -> CtfFit:
    return fit_rings(
        power,
        pixel_size_angstrom=PIXEL_ANGSTROM,
        start_um=start_um,
        decay_angstrom2=40.0,
        microscope=KRIOS,
        search=SEARCH,
    )


@pytest.mark.parametrize(("u", "v", "angle"), [(2.1, 1.95, 70.0), (1.2, 1.17, -30.0), (0.65, 0.6, 10.0), (3.0, 3.0, 0)])
def test_defocus_and_astigmatism_of_a_formula_are_found(u: float, v: float, angle: float) -> None:
    fit = fitted(spectrum(u, v, angle, rings=0.5), (u + v) / 2 + 0.02)
    assert fit.defocus_um == pytest.approx((u + v) / 2, abs=0.004)
    assert fit.defocus_u_um - fit.defocus_v_um == pytest.approx(u - v, abs=0.015)
    if u > v:
        turned = (fit.astigmatism_angle_deg - angle + 90) % 180 - 90
        assert abs(turned) < 6
    assert fit.correlation > 10 * LEAST_CORRELATION


def test_noise_correlates_less_than_what_is_believed_and_weak_rings_more() -> None:
    noise = [fitted(spectrum(2, 2, 0, rings=0.0, seed=seed), 1.5).correlation for seed in range(3)]
    assert max(noise) < LEAST_CORRELATION
    assert fitted(spectrum(2, 2, 0, rings=0.1), 2.0).correlation > LEAST_CORRELATION


def test_too_few_frequencies_are_refused() -> None:
    with pytest.raises(FormatError, match="no frequencies of the search"):
        fitted(np.ones((8, 5)), 2.0)
