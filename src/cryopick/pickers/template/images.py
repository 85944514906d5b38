"""2-D references: their contrast, their diameter, and rotated copies at the pixel size of a working image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RIM_FRACTION = 0.9
"""The rim, which shows background, begins at this part of the largest circle that fits the image."""
DIAMETER_ENERGY = 0.95
"""Part of a reference's contrast energy that lies within its estimated diameter."""


def subtract_rim(references: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, s, s) with the median of each reference's rim subtracted, so that background is 0."""
    is_rim = _radius_px(references.shape[-1]) >= RIM_FRACTION * (references.shape[-1] // 2)
    rim = np.median(references[:, is_rim], axis=1)
    return np.asarray(references - rim[:, None, None], np.float32)


def is_bright(references: NDArray[np.float32]) -> bool:
    """Whether the particle is brighter than its surroundings, judged by all references together.

    Parameters
    ----------
    references : (n, s, s) background near 0
    """
    size_px = references.shape[-1]
    is_middle = _radius_px(size_px) < RIM_FRACTION * (size_px // 2)
    inside = references[:, is_middle]
    # cubes let the particle's strong density decide over wide weak halos, which have the opposite sign
    return bool(np.sum(inside.astype(np.float64) ** 3) > 0)


def estimate_diameter_px(references: NDArray[np.float32]) -> float:
    """Diameter of the circle that holds `DIAMETER_ENERGY` of the contrast above the noise of the rim.

    Parameters
    ----------
    references : (n, s, s) background near 0, particles centred at pixel s // 2

    Returns
    -------
    diameter_px : at most s; 0 where no reference has contrast
    """
    size_px = references.shape[-1]
    radius = _radius_px(size_px)
    power = np.mean(references.astype(np.float64) ** 2, axis=0)  # (s, s)
    is_rim = radius >= RIM_FRACTION * (size_px // 2)
    excess = power - power[is_rim].mean()
    inside = radius <= size_px // 2
    per_ring = np.bincount(np.rint(radius[inside]).astype(int), weights=excess[inside])
    energy = np.cumsum(np.maximum(per_ring, 0.0))
    if not energy[-1] > 0:
        return 0.0
    return float(2 * np.searchsorted(energy, DIAMETER_ENERGY * energy[-1]) + 1)


def rotated_templates(
    references: NDArray[np.float32], *, factor: float, reach_px: int, step_deg: float
) -> Iterator[NDArray[np.float32]]:
    """Every reference at every in-plane angle, resampled, with the particle's centre in the middle.

    Parameters
    ----------
    references : (n, s, s) background 0, particles centred at pixel s // 2
    factor : template pixels per reference pixel
    reach_px : templates have 2 reach_px + 1 pixels a side
    step_deg : largest angle between neighbouring copies

    Yields
    ------
    template : (t, t) float32; all angles of the first reference, then of the second
    """
    import cv2

    size_px = references.shape[-1]
    n_angles = angle_count(step_deg)
    # shrinking folds high frequencies onto low ones unless they are blurred away first: half a template pixel
    sigma_px = 0.5 / factor if factor < 1 else 0.0
    for reference in references:
        smooth = cv2.GaussianBlur(reference, (0, 0), sigma_px) if sigma_px else reference
        for angle in 2 * np.pi * np.arange(n_angles) / n_angles:
            cosine, sine = np.cos(angle) / factor, np.sin(angle) / factor
            matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])  # template pixel to reference pixel
            matrix[:, 2] = size_px // 2 - matrix[:, :2].sum(axis=1) * reach_px
            template = cv2.warpAffine(
                smooth,
                matrix,
                (2 * reach_px + 1, 2 * reach_px + 1),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=0,
            )
            yield np.asarray(template, np.float32)


def angle_count(step_deg: float) -> int:
    """In-plane angles around the circle, at most `step_deg` apart."""
    return int(np.ceil(360.0 / step_deg - 1e-9))


def view_directions(step_deg: float) -> NDArray[np.float64]:
    """Viewing directions spread evenly over the sphere, about `step_deg` apart.

    Returns
    -------
    rot_tilt_psi_deg : (n, 3), psi 0

    References
    ----------
    A. Gonzalez, Mathematical Geosciences 42 (2010) 49-64: points on a golden-angle spiral.
    """
    n = max(2, round(4 * np.pi / np.radians(step_deg) ** 2))
    index = np.arange(n)
    tilt = np.degrees(np.arccos(1 - (2 * index + 1) / n))
    rot = np.degrees(index * np.pi * (3 - np.sqrt(5))) % 360.0
    return np.stack([rot, tilt, np.zeros(n)], axis=1)


def _radius_px(size_px: int) -> NDArray[np.float64]:
    offset = np.arange(size_px) - size_px // 2
    return np.asarray(np.hypot(offset[:, None], offset))
