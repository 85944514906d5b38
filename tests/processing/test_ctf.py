"""The contrast transfer function against formulas and textbook numbers."""

import math

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.processing.ctf import CtfParameters, ctf_2d, interaction_constant, wavelength_angstrom

UNDERFOCUS = CtfParameters(defocus_u_um=1.5, defocus_v_um=1.5, amplitude_contrast=0.0, spherical_aberration_mm=0.0)


@pytest.mark.parametrize(
    ("voltage_kv", "wavelength", "interaction"),
    [(100, 0.0370, 9.244e-4), (200, 0.0251, 7.288e-4), (300, 0.0197, 6.526e-4)],  # Kirkland (2010), table 5.1
)
def test_constants_of_the_electron(voltage_kv: float, wavelength: float, interaction: float) -> None:
    assert wavelength_angstrom(voltage_kv) == pytest.approx(wavelength, abs=5e-5)
    assert interaction_constant(voltage_kv) == pytest.approx(interaction, rel=1e-3)


def test_zeros_lie_where_the_formula_puts_them() -> None:
    # Without Cs and amplitude contrast the m-th zero is at k = sqrt(m / (wavelength * defocus))
    n, pixel = 4096, 1.0
    profile = ctf_2d((n, n), pixel, UNDERFOCUS)[0]
    crossings = np.flatnonzero(np.diff(np.sign(profile[1:]))) + 1.5  # in Fourier pixels, to half a pixel
    expected = np.sqrt(np.arange(1, 6) / (wavelength_angstrom(300) * 1.5e4)) * n * pixel
    np.testing.assert_allclose(crossings[:5], expected, atol=0.51)


def test_spherical_aberration_works_against_underfocus() -> None:
    # At k^2 = 2 defocus / (Cs wavelength^2) the two cancel and the phase contrast is zero again
    params = CtfParameters(defocus_u_um=0.1, defocus_v_um=0.1, amplitude_contrast=0.0, spherical_aberration_mm=2.7)
    frequency = math.sqrt(2 * 0.1e4 / (2.7e7 * wavelength_angstrom(300) ** 2))
    pixel = 1 / (4 * frequency)  # puts it half-way to Nyquist, a sampled frequency
    row = ctf_2d((64, 64), pixel, params)[0]
    assert row[16] == pytest.approx(0.0, abs=1e-4)
    assert row[15] < 0 < row[17]


def test_underfocused_protein_is_dark() -> None:
    n, pixel = 128, 2.0
    y, x = np.indices((n, n)) - n // 2
    blob = np.exp(-(x**2 + y**2) / (2 * 8.0**2))  # positive potential
    params = CtfParameters(defocus_u_um=2.0, defocus_v_um=2.0, amplitude_contrast=0.1)
    image = np.fft.irfft2(np.fft.rfft2(blob) * ctf_2d((n, n), pixel, params), s=(n, n))
    assert image[n // 2, n // 2] == image.min()
    assert image[n // 2, n // 2] < 0


def test_zero_frequency_carries_only_the_amplitude_contrast() -> None:
    params = CtfParameters(defocus_u_um=1.0, defocus_v_um=1.2, amplitude_contrast=0.07)
    assert ctf_2d((32, 32), 3.0, params)[0, 0] == pytest.approx(-0.07, abs=1e-6)


def test_quarter_wave_phase_plate_gives_full_contrast_at_zero() -> None:
    params = CtfParameters(defocus_u_um=0.5, defocus_v_um=0.5, amplitude_contrast=0.0, phase_shift_deg=90.0)
    assert ctf_2d((32, 32), 3.0, params)[0, 0] == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize(("angle", "axis"), [(0.0, "x"), (90.0, "y")])
def test_first_defocus_lies_along_the_astigmatism_angle(angle: float, axis: str) -> None:
    astigmatic = CtfParameters(defocus_u_um=1.6, defocus_v_um=1.2, astigmatism_angle_deg=angle)
    along_u = ctf_2d((64, 64), 4.0, CtfParameters(defocus_u_um=1.6, defocus_v_um=1.6))
    along_v = ctf_2d((64, 64), 4.0, CtfParameters(defocus_u_um=1.2, defocus_v_um=1.2))
    of_x, of_y = (along_u, along_v) if axis == "x" else (along_v, along_u)
    ctf = ctf_2d((64, 64), 4.0, astigmatic)
    np.testing.assert_allclose(ctf[0], of_x[0], atol=1e-4)
    np.testing.assert_allclose(ctf[:, 0], of_y[:, 0], atol=1e-4)


def test_diagonal_astigmatism_points_to_growing_rows() -> None:
    params = CtfParameters(defocus_u_um=1.6, defocus_v_um=1.2, astigmatism_angle_deg=45.0)
    ctf = ctf_2d((64, 64), 4.0, params)
    round_u = ctf_2d((64, 64), 4.0, CtfParameters(defocus_u_um=1.6, defocus_v_um=1.6))
    diagonal = np.arange(1, 31)
    np.testing.assert_allclose(ctf[diagonal, diagonal], round_u[diagonal, diagonal], atol=1e-4)
    assert np.abs(ctf[-diagonal, diagonal] - round_u[-diagonal, diagonal]).max() > 0.1


def test_envelope_follows_the_b_factor() -> None:
    sharp = CtfParameters(defocus_u_um=1.0, defocus_v_um=1.0)
    soft = CtfParameters(defocus_u_um=1.0, defocus_v_um=1.0, b_factor_angstrom2=100.0)
    ratio = ctf_2d((64, 64), 2.0, soft)[0, 20] / ctf_2d((64, 64), 2.0, sharp)[0, 20]
    assert ratio == pytest.approx(math.exp(-100 / 4 * (20 / 128) ** 2), rel=1e-4)


def test_layout_is_that_of_rfft2_on_odd_and_oblong_images() -> None:
    ctf = ctf_2d((30, 41), 3.0, CtfParameters(defocus_u_um=1.3, defocus_v_um=1.0, astigmatism_angle_deg=20.0))
    assert ctf.shape == np.fft.rfft2(np.zeros((30, 41))).shape
    assert ctf.dtype == np.float32
    # A real point-spread function: its transform is the same at k and -k
    np.testing.assert_allclose(ctf[1:15, 0], ctf[:-15:-1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voltage_kv": 0.0}, "positive voltage"),
        ({"amplitude_contrast": 1.0}, r"fraction in \[0, 1\)"),
        ({"spherical_aberration_mm": -1.0}, "0 or more"),
        ({"defocus_u_um": math.nan}, "defocus_u_um is nan"),
    ],
)
def test_impossible_optics_are_refused(change: dict[str, float], message: str) -> None:
    values = {"defocus_u_um": 1.0, "defocus_v_um": 1.0, **change}
    with pytest.raises(SettingsError, match=message):
        CtfParameters(**values)


def test_pixel_size_must_be_positive() -> None:
    with pytest.raises(SettingsError, match="pixel_size_angstrom is 0"):
        ctf_2d((8, 8), 0.0, UNDERFOCUS)
