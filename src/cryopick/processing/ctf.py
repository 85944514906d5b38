"""The microscope's contrast transfer function, and the two constants of the electron that it needs.

Sign. `ctf_2d` is the physical transfer from projected potential to image intensity: negative at low spatial
frequencies of an underfocused micrograph, so that `ctf * FT(protein)` is DARK, as protein is in a stored micrograph.
RELION's own CTF is the negative of it, because RELION's particle stacks are stored inverted (protein bright). In the
weak-phase approximation the image is `1 + 2 * IFT(ctf * FT(interaction_constant * projected potential))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError

_REST_ENERGY_KEV = 510.99895  # electron rest energy m c^2 (CODATA 2018)
_PLANCK_TIMES_C_KEV_ANGSTROM = 12.398420  # h c (CODATA 2018)


@dataclass(frozen=True, kw_only=True)
class CtfParameters:
    """Optics of one micrograph or particle, in the units of their names.

    Parameters
    ----------
    defocus_u_um, defocus_v_um : underfocus positive, along and across `astigmatism_angle_deg`
    astigmatism_angle_deg : `rlnDefocusAngle`, from the x axis towards growing rows
    voltage_kv : accelerating voltage
    spherical_aberration_mm : 0 or more
    amplitude_contrast : fraction in [0, 1)
    phase_shift_deg : of a phase plate, 0 without one
    b_factor_angstrom2 : envelope `exp(-B k^2 / 4)`, 0 for none
    """

    defocus_u_um: float
    defocus_v_um: float
    astigmatism_angle_deg: float = 0.0
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: float = 0.0
    b_factor_angstrom2: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise SettingsError(f"{name} is {value}, expected a finite number")
        if self.voltage_kv <= 0:
            raise SettingsError(f"voltage_kv is {self.voltage_kv:g}, expected a positive voltage such as 300")
        if not 0 <= self.amplitude_contrast < 1:
            raise SettingsError(f"amplitude_contrast is {self.amplitude_contrast:g}, expected a fraction in [0, 1)")
        if self.spherical_aberration_mm < 0:
            raise SettingsError(f"spherical_aberration_mm is {self.spherical_aberration_mm:g}, expected 0 or more")

    @property
    def defocus_um(self) -> float:
        """Mean of the two defoci."""
        return (self.defocus_u_um + self.defocus_v_um) / 2


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic de Broglie wavelength of the electron; 0.0197 Å at 300 kV."""
    return _PLANCK_TIMES_C_KEV_ANGSTROM / math.sqrt(voltage_kv * (voltage_kv + 2 * _REST_ENERGY_KEV))


def interaction_constant(voltage_kv: float) -> float:
    """Phase in rad per V Å of projected potential; 6.53e-4 at 300 kV.

    References
    ----------
    Kirkland, Advanced Computing in Electron Microscopy (2nd ed.), eq. 5.6.
    """
    relativistic = (_REST_ENERGY_KEV + voltage_kv) / (2 * _REST_ENERGY_KEV + voltage_kv)
    return 2 * math.pi * relativistic / (wavelength_angstrom(voltage_kv) * voltage_kv * 1e3)


def phase_aberration(
    frequency_x: NDArray[np.floating], frequency_y: NDArray[np.floating], params: CtfParameters
) -> NDArray[np.floating]:
    """Phase of the lens at spatial frequencies in 1/Å, in rad: positive for underfocus, phase plate included.

    References
    ----------
    Rohou and Grigorieff, J. Struct. Biol. 192 (2015), eq. 2 to 4.
    """
    wavelength = wavelength_angstrom(params.voltage_kv)
    half_difference = (params.defocus_u_um - params.defocus_v_um) / 2 * 1e4  # Å
    twice_angle = 2 * math.radians(params.astigmatism_angle_deg)
    square_x, square_y = frequency_x**2, frequency_y**2
    square = square_x + square_y
    # cos(2 (azimuth - angle)) * square, without an arctangent
    astigmatic = math.cos(twice_angle) * (square_x - square_y) + 2 * math.sin(twice_angle) * frequency_x * frequency_y
    spherical = params.spherical_aberration_mm * 1e7 * wavelength**3 / 2 * square**2  # Cs in Å
    defocused = wavelength * (params.defocus_um * 1e4 * square + half_difference * astigmatic)
    return np.asarray(math.pi * (defocused - spherical) + math.radians(params.phase_shift_deg))


def ctf_2d(shape_yx: tuple[int, int], pixel_size_angstrom: float, params: CtfParameters) -> NDArray[np.float32]:
    """Transfer function over the frequencies of `numpy.fft.rfft2`; negative near zero, so protein becomes dark.

    Parameters
    ----------
    shape_yx : rows, columns of the image in real space
    pixel_size_angstrom : of that image
    params : the optics

    Returns
    -------
    ctf : (rows, columns // 2 + 1) float32 in [-1, 1] (without growth from a negative B factor)
    """
    if pixel_size_angstrom <= 0:
        raise SettingsError(f"pixel_size_angstrom is {pixel_size_angstrom:g}, expected a positive number")
    rows, columns = shape_yx
    frequency_y = np.fft.fftfreq(rows, pixel_size_angstrom)[:, None].astype(np.float32)
    frequency_x = np.fft.rfftfreq(columns, pixel_size_angstrom)[None, :].astype(np.float32)
    return ctf_at(frequency_x, frequency_y, params)


def ctf_at(
    frequency_x: NDArray[np.floating], frequency_y: NDArray[np.floating], params: CtfParameters
) -> NDArray[np.float32]:
    """Transfer function at given spatial frequencies in 1/Å; the sign is that of `ctf_2d`.

    Parameters
    ----------
    frequency_x, frequency_y : of shapes that broadcast together
    params : the optics

    Returns
    -------
    ctf : float32, of their common shape
    """
    amplitude_phase = math.asin(params.amplitude_contrast)
    ctf = -np.sin(phase_aberration(frequency_x, frequency_y, params) + amplitude_phase)
    if params.b_factor_angstrom2 != 0:
        ctf *= np.exp(-params.b_factor_angstrom2 / 4 * (frequency_x**2 + frequency_y**2))
    return np.asarray(ctf, dtype=np.float32)
