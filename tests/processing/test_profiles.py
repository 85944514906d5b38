"""Dark discs and shells: one profile and one search for evidence, at any softness of the edges."""

import numpy as np
import pytest

from cryopick.processing.fourier import normalized_correlation
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import find_peaks, vertex_offset
from cryopick.processing.profiles import (
    EVIDENCE_FLOOR,
    WINDOW_RADII,
    dark_and_bright_matches,
    dark_profile,
    profile_correlations,
)

PROFILES = [(0.4, 0.0), (1.0, 0.0), (1.0, 0.6)]


@pytest.fixture
def image() -> np.ndarray:
    return normalize_locally(np.random.default_rng(0).normal(size=(90, 70)).astype(np.float32), diameter_px=12.0)


def test_a_profile_is_dark_between_its_radii():
    radius = np.array([0.0, 0.8, 2.0])
    np.testing.assert_allclose(dark_profile(radius, 1.0, 0.6, edge_width=0.01), [0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(dark_profile(radius, 1.0, 0.0, edge_width=0.01), [-1, -1, 0], atol=1e-6)


@pytest.mark.parametrize("diameter_px", [5.3, 11.9, 12.0])
def test_a_profile_is_as_deepcryopicker_wrote_it_with_edges_one_working_pixel_soft(diameter_px):
    reach = int(np.ceil(WINDOW_RADII * diameter_px / 2))
    offset = np.arange(-reach, reach + 1) / (diameter_px / 2)
    radius = np.hypot(offset[:, None], offset)

    def inside(edge):
        return 0.5 * (1 + np.tanh((edge - radius) * 12.0 / 2))

    for outer, inner in PROFILES:
        before = np.asarray((inside(inner) if inner > 0 else 0.0) - inside(outer), np.float32)
        np.testing.assert_array_equal(dark_profile(radius, outer, inner, edge_width=2 / 12.0), before)


def test_matches_are_the_peaks_of_the_correlation_and_of_its_negative(image):
    diameter_px = 11.9
    reach = int(np.ceil(WINDOW_RADII * diameter_px / 2))
    offset = np.arange(-reach, reach + 1) / (diameter_px / 2)
    radius = np.hypot(offset[:, None], offset)
    templates = [dark_profile(radius, *profile, edge_width=0.12) for profile in PROFILES]
    expected = list(normalized_correlation(image, templates, window=radius <= WINDOW_RADII))
    found = list(profile_correlations(image, PROFILES, diameter_px=diameter_px, edge_width=0.12))
    matches = list(dark_and_bright_matches(image, PROFILES, diameter_px=diameter_px, edge_width=0.12))
    for before, now, both in zip(expected, found, matches, strict=True):
        np.testing.assert_array_equal(now, before)
        for sign, score in zip((1.0, -1.0), both, strict=True):
            _, peaks = find_peaks(sign * before, min_score=EVIDENCE_FLOOR, radius_px=0.5 * diameter_px)
            np.testing.assert_array_equal(score, peaks)


def test_a_parabola_peaks_where_its_derivative_is_zero():
    x = np.array([-0.4, 0.0, 0.3])
    values = [1 - (step - x) ** 2 for step in (-1, 0, 1)]
    np.testing.assert_allclose(vertex_offset(*values), x, atol=1e-12)
    assert vertex_offset(0.0, 1.0, 1.0) == 0.5
    assert vertex_offset(1.0, 1.0, 1.0) == 0
