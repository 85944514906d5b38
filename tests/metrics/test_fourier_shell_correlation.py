"""FSC against sums over shells by hand, resolution of curves made by hand, the mask's own correlation taken off."""

import numpy as np
import pytest

from cryopick.metrics.fourier_shell_correlation import (
    fourier_shell_correlation,
    half_map_curves,
    resolution_at,
)


@pytest.mark.parametrize("n", [12, 13])
def test_every_shell_is_the_correlation_over_all_its_frequencies(n: int) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, n, n, n))
    second += first
    a, b = np.fft.fftn(first), np.fft.fftn(second)
    frequency = np.fft.fftfreq(n) * n
    curve = fourier_shell_correlation(first, second)
    assert curve.shape == (n // 2 + 1,)
    for shell in range(n // 2 + 1):
        inside = [
            (a[i, j, k], b[i, j, k])
            for i in range(n)
            for j in range(n)
            for k in range(n)
            if round(np.sqrt(frequency[i] ** 2 + frequency[j] ** 2 + frequency[k] ** 2)) == shell
        ]
        x, y = np.array(inside).T
        expected = (x * y.conj()).sum().real / np.sqrt((abs(x) ** 2).sum() * (abs(y) ** 2).sum())
        assert curve[shell] == pytest.approx(expected)


def test_scale_does_not_matter_sign_does_and_nothing_gives_zero() -> None:
    one = np.random.default_rng(1).normal(size=(10, 10, 10))
    np.testing.assert_allclose(fourier_shell_correlation(one, 3 * one), 1)
    np.testing.assert_allclose(fourier_shell_correlation(one, -one), -1)
    np.testing.assert_array_equal(fourier_shell_correlation(one, np.zeros_like(one)), 0)


def test_mask_is_multiplied_into_both() -> None:
    first, second, mask = np.random.default_rng(2).uniform(size=(3, 10, 10, 10))
    expected = fourier_shell_correlation(first * mask, second * mask)
    np.testing.assert_array_equal(fourier_shell_correlation(first, second, mask), expected)
    with pytest.raises(ValueError, match="mask of"):
        fourier_shell_correlation(first, second, mask[:5])


def test_resolution_is_read_between_shells_where_the_curve_falls_for_good() -> None:
    edge = {"box_px": 20, "pixel_size_angstrom": 5.0}  # 100 Å
    curve = np.array([1, 1, 0.9, 0.6, 0.4, 0.2, 0.1, 0, 0, 0, 0])
    assert resolution_at(curve, 0.5, **edge) == pytest.approx(100 / 3.5)
    dip = np.array([1, 1, 0.9, 0.4, 0.8, 0.6, 0.4, 0.1, 0, 0, 0])  # one shell below alone is chance
    assert resolution_at(dip, 0.5, **edge) == pytest.approx(100 / 5.5)
    assert resolution_at(np.ones(11), 0.143, **edge) == 10  # Nyquist or better
    assert resolution_at(np.zeros(11), 0.143, **edge) == np.inf
    last = np.array([1, *[0.9] * 9, 0.1])
    assert resolution_at(last, 0.5, **edge) == pytest.approx(100 / 9.5)


def test_what_the_mask_alone_correlates_is_taken_off() -> None:
    rng = np.random.default_rng(3)
    n = 32
    axis = np.arange(n) - n // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    signal = 300 * np.exp(-(radius**2) / 18)
    halves = [signal + rng.normal(size=signal.shape) for _ in range(2)]
    mask = (radius < 4).astype(float)  # sharp and small
    curves = half_map_curves(*halves, mask)
    assert np.abs(curves.unmasked[12:]).max() < 0.35
    assert curves.masked[9:14].mean() > 0.3  # as if there were something
    assert abs(curves.corrected[9:14].mean()) < 0.2
    np.testing.assert_allclose(curves.corrected[1:3], curves.masked[1:3])
