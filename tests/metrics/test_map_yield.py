"""What picks are worth for a map."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.metrics.map_yield import spectral_snr, yield_against

GRID = {"box_px": 48, "pixel_size_angstrom": 8.0, "coarsest_angstrom": 70.0}


def curve_of(snr: np.ndarray) -> np.ndarray:
    """FSC against the truth of a map with this SNR: sqrt(S / (1 + S))."""
    return np.sqrt(snr / (1 + snr))


def falling() -> np.ndarray:
    return curve_of(100 * np.exp(-np.arange(25) / 3.0))


def test_snr_is_that_of_the_curve() -> None:
    assert spectral_snr(curve_of(np.array([0.25, 3.0]))) == pytest.approx([0.25, 3.0])


@pytest.mark.parametrize("share", [1.0, 0.9, 0.25, 1.2])
def test_so_many_of_the_particles_are_worth_their_share(share: float) -> None:
    perfect = spectral_snr(falling())
    assert yield_against(curve_of(share * perfect), falling(), **GRID) == pytest.approx(share, rel=1e-6)


def test_coarse_shells_and_those_where_the_yardstick_has_fallen_do_not_count() -> None:
    worse = falling()
    first = int(48 * 8 / 70) + 1
    end = int(np.flatnonzero(falling() < 0.3)[0])
    worse[:first], worse[end:] = 0.01, 0.01
    assert yield_against(worse, falling(), **GRID) == pytest.approx(1)
    worse[first] = 0.01
    assert yield_against(worse, falling(), **GRID) < 0.6


def test_without_a_shell_that_counts_there_is_no_yield() -> None:
    assert np.isnan(yield_against(falling(), np.full(25, 0.1), **GRID))
