"""Dark discs and shells of a particle's size, and how well an image matches them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.fourier import normalized_correlation
from cryopick.processing.peaks import find_peaks

WORKING_DIAMETER_PX = 12.0
"""Images are resampled to this many pixels per diameter, enough to tell disc from shell. The window then holds about
240 pixels, so the chance correlation of white noise has a standard deviation of 0.065 at any pixel size."""
WINDOW_RADII = 1.45
"""Radius of the window that is compared with a profile, in particle radii: the particle and a rim of background."""
SCALE_STEP = 1.19
"""Ratio of neighbouring diameters within a range: a quarter octave, at which a disc loses a tenth of its score."""
EVIDENCE_FLOOR = 0.25
"""Correlations below it are no evidence: most of them are noise."""


def profile_correlations(
    image: NDArray[np.float32], profiles: Sequence[tuple[float, float]], *, diameter_px: float, edge_width: float
) -> Iterator[NDArray[np.float32]]:
    """Correlation of an image with dark discs and shells, (h, w) in [-1, 1] for each.

    Parameters
    ----------
    image : (h, w) float32, locally of zero mean and unit variance
    profiles : outer and inner radius of the dark part, in particle radii; 0 for a disc
    diameter_px : of the particle
    edge_width : softness of the dark part's edges, in particle radii
    """
    radius_px = diameter_px / 2
    reach = int(np.ceil(WINDOW_RADII * radius_px))
    offset = np.arange(-reach, reach + 1) / radius_px
    radius = np.hypot(offset[:, None], offset)  # (t, t), in particle radii
    templates = [dark_profile(radius, *profile, edge_width=edge_width) for profile in profiles]
    return normalized_correlation(image, templates, window=radius <= WINDOW_RADII)


def dark_profile(radius: NDArray[np.float64], outer: float, inner: float, *, edge_width: float) -> NDArray[np.float32]:
    """-1 between the radii `inner` and `outer`, 0 elsewhere, with soft edges."""

    def inside(edge: float) -> NDArray[np.float64]:
        return 0.5 * (1 + np.tanh((edge - radius) / edge_width))

    hollow = inside(inner) if inner > 0 else 0.0
    return np.asarray(hollow - inside(outer), np.float32)


def dark_and_bright_matches(
    image: NDArray[np.float32], profiles: Sequence[tuple[float, float]], *, diameter_px: float, edge_width: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Correlations of the strong dark and of the strong bright places, for each profile.

    Noise matches dark and bright profiles alike, so what the dark side has in excess is evidence of particles.
    """
    for correlation in profile_correlations(image, profiles, diameter_px=diameter_px, edge_width=edge_width):
        yield dark_and_bright_peaks(correlation, radius_px=0.5 * diameter_px)


def dark_and_bright_peaks(
    correlation: NDArray[np.float32], *, radius_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlations of the strong dark and of the strong bright places: the highest within this radius of themselves."""
    dark, bright = (
        find_peaks(signed, min_score=EVIDENCE_FLOOR, radius_px=radius_px)[1].astype(np.float64)
        for signed in (correlation, -correlation)
    )
    return dark, bright


def middle_piece(pixels: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """The square of this side in the middle of an image, or what there is of it."""
    top, left = (max(0, (n - side_px) // 2) for n in pixels.shape)
    return pixels[top : top + side_px, left : left + side_px]
