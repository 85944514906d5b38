"""How far picks are from the particles that they found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CentringError:
    """Statistics of `pick - particle` over matched pairs; all NaN without pairs.

    Parameters
    ----------
    pair_count : matched pairs
    median_px, mean_px, percentile90_px : of the distance
    mean_offset_x_px, mean_offset_y_px : signed; a value that is far from 0 for its `standard_error_px` is a frame or
        rounding fault (half a pixel, a corner taken for a centre), not noise
    standard_error_px : of the mean offset, the larger of the two axes
    """

    pair_count: int
    median_px: float
    mean_px: float
    percentile90_px: float
    mean_offset_x_px: float
    mean_offset_y_px: float
    standard_error_px: float


def centring_error(picks_xy_px: NDArray[np.float64], particles_xy_px: NDArray[np.float64]) -> CentringError:
    """Statistics over (n, 2) picks and the (n, 2) particles that they are matched to, row by row."""
    offset = np.asarray(picks_xy_px, dtype=np.float64).reshape(-1, 2) - np.reshape(particles_xy_px, (-1, 2))
    n = len(offset)
    if n == 0:
        return CentringError(0, *[float("nan")] * 6)
    distance = np.hypot(offset[:, 0], offset[:, 1])
    standard_error = float(offset.std(axis=0, ddof=1).max() / np.sqrt(n)) if n > 1 else float("nan")
    return CentringError(
        pair_count=n,
        median_px=float(np.median(distance)),
        mean_px=float(distance.mean()),
        percentile90_px=float(np.percentile(distance, 90)),
        mean_offset_x_px=float(offset[:, 0].mean()),
        mean_offset_y_px=float(offset[:, 1].mean()),
        standard_error_px=standard_error,
    )
