"""The film that holds the particles: smooth thickness changes, and the graininess of amorphous solids."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WATER_PER_ANGSTROM3 = 0.0314
"""Molecules per Å³ of vitreous ice of 0.94 g/cm³."""
WATER_VOLT_ANGSTROM3 = 145.0
"""Integral of one water molecule's potential: 47.88 V Å² x the forward electron scattering factor 3.04 Å (Doyle and
Turner, Acta Cryst. A24, 1968: O 1.98 Å, H 0.53 Å)."""
CARBON_PER_ANGSTROM3 = 0.10
"""Atoms per Å³ of evaporated carbon of 2.0 g/cm³."""
CARBON_VOLT_ANGSTROM3 = 120.0
"""Integral of one carbon atom's potential: 47.88 V Å² x 2.51 Å."""
ICE_VOLT = 4.5
"""Mean inner potential of vitreous ice, V (measured 3.5 to 5)."""
CARBON_VOLT = 9.0
"""Mean inner potential of amorphous carbon, V."""


def smooth_field(rng: np.random.Generator, shape_yx: tuple[int, int], *, cells: int) -> NDArray[np.float32]:
    """(h, w) float32 smooth random field, about zero mean and unit variance.

    Parameters
    ----------
    cells : independent values along the longer side; 2 is close to a tilted plane, 32 is patchy
    """
    longer = max(shape_yx)
    rows, columns = (max(1, round(cells * side / longer)) for side in shape_yx)
    if cells > _MOST_SPLINE_CELLS:
        import cv2

        coarse = rng.standard_normal((rows, columns), dtype=np.float32)
        return np.asarray(cv2.resize(coarse, shape_yx[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    coarse = rng.standard_normal((rows + 3, columns + 3), dtype=np.float32)
    down, across = _spline_weights(shape_yx[0], rows), _spline_weights(shape_yx[1], columns)
    stripes = np.einsum("yi,ij->yj", down, coarse)
    # BLAS starts threads, which costs more than it saves on crops.
    is_small = shape_yx[0] * shape_yx[1] < _LARGEST_CROP_PIXELS
    field = np.einsum("yj,xj->yx", stripes, across) if is_small else stripes @ across.T
    return np.asarray(field, dtype=np.float32)


_LARGEST_CROP_PIXELS = 1 << 18
_MOST_SPLINE_CELLS = 96  # beyond, interpolation by OpenCV is cheaper than two matrix products


@lru_cache(maxsize=64)
def _spline_weights(side: int, cells: int) -> NDArray[np.float32]:
    """(side, cells + 3) cubic B-spline weights of the knots at each pixel, scaled to keep unit variance."""
    position = (np.arange(side) + 0.5) / side * cells
    knot = np.arange(cells + 3) - 1.0
    distance = np.abs(position[:, None] - knot[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), dtype=np.float32)


def relative_thickness(
    rng: np.random.Generator,
    shape_yx: tuple[int, int],
    *,
    gradient: float,
    lens: float,
    waviness: float,
) -> NDArray[np.float32]:
    """Thickness of the film relative to its mean, (h, w) float32, never below 0.05.

    Parameters
    ----------
    gradient : change across the micrograph along a random direction, as a fraction of the mean
    lens : how much thicker the film is at a corner than in the middle (the meniscus of a hole), same unit
    waviness : standard deviation of smooth random changes, same unit
    """
    height, width = shape_yx
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    centre_y, centre_x = rng.uniform(-0.5, 0.5, size=2)
    plane = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    bowl = 2 * ((x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2)
    thickness = 1 + np.float32(gradient) * plane + np.float32(lens) * (bowl - bowl.mean())
    if waviness > 0:
        thickness = thickness + np.float32(waviness) * smooth_field(rng, shape_yx, cells=int(rng.integers(3, 12)))
    return np.asarray(np.maximum(thickness, np.float32(0.05)), dtype=np.float32)


def graininess_volt_angstrom(
    thickness_angstrom: NDArray[np.float32] | float,
    *,
    pixel_size_angstrom: float,
    structure_factor: float,
    per_angstrom3: float = WATER_PER_ANGSTROM3,
    volt_angstrom3: float = WATER_VOLT_ANGSTROM3,
) -> NDArray[np.float32]:
    """Standard deviation of the projected potential of an amorphous film per pixel, V Å.

    Molecules at independent positions give a variance of (number per area) x (potential integral)² / (pixel area);
    `structure_factor` is what is left of it because real molecules keep their distance (0.05 to 0.3 for ice at the
    resolutions that picking sees, near 1 for evaporated carbon).
    """
    number_per_angstrom2 = np.asarray(thickness_angstrom, dtype=np.float32) * np.float32(per_angstrom3)
    scale = np.float32(volt_angstrom3 * np.sqrt(structure_factor) / pixel_size_angstrom)
    return np.asarray(np.sqrt(np.maximum(number_per_angstrom2, 0)) * scale, dtype=np.float32)
