"""From projected potential to the intensity that reaches the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.ctf import CtfParameters, ctf_2d, interaction_constant
from cryopick.simulation.recipe import OpticsRanges, draw


def draw_optics(rng: np.random.Generator, ranges: OpticsRanges) -> CtfParameters:
    """One microscope setting within the ranges."""
    has_plate = rng.random() < ranges.phase_plate_probability
    defocus = draw(rng, ranges.phase_plate_defocus_um if has_plate else ranges.defocus_um)
    half_difference = draw(rng, ranges.astigmatism_um)
    return CtfParameters(
        defocus_u_um=defocus + half_difference,
        defocus_v_um=defocus - half_difference,
        astigmatism_angle_deg=float(rng.uniform(-90, 90)),
        voltage_kv=float(rng.choice(ranges.voltage_kv)),
        spherical_aberration_mm=float(rng.choice(ranges.spherical_aberration_mm)),
        amplitude_contrast=draw(rng, ranges.amplitude_contrast),
        phase_shift_deg=draw(rng, ranges.phase_shift_deg) if has_plate else 0.0,
        b_factor_angstrom2=draw(rng, ranges.b_factor_angstrom2),
    )


def contrast_transfer(
    shape_yx: tuple[int, int], pixel_size_angstrom: float, optics: CtfParameters
) -> NDArray[np.float32]:
    """Multiplies the transform of projected potential (V Å) to give that of image contrast (intensity / mean - 1).

    Weak phase object with amplitude contrast: contrast = 2 CTF (interaction constant x potential), on the grid of
    `scipy.fft.rfft2`. Negative at low frequencies under underfocus: matter is dark.
    """
    scale = np.float32(2 * interaction_constant(optics.voltage_kv))
    return scale * ctf_2d(shape_yx, pixel_size_angstrom, optics)


def drift_transfer(shape_yx: tuple[int, int], *, drift_px: float, angle_deg: float) -> NDArray[np.float32]:
    """What even motion during the exposure leaves of each frequency, on the grid of `scipy.fft.rfft2`: a sinc along it.

    Parameters
    ----------
    drift_px : from the first to the last electron; the image is centred on the middle of the way
    angle_deg : direction of the motion, from x towards y
    """
    angle = np.deg2rad(angle_deg)
    y = np.fft.fftfreq(shape_yx[0])[:, None] * np.sin(angle)
    x = np.fft.rfftfreq(shape_yx[1])[None, :] * np.cos(angle)
    return np.asarray(np.sinc(drift_px * (x + y)), dtype=np.float32)
