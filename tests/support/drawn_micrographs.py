"""Small micrographs made here, independently of the simulator: dark discs and rings of known places in white noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.types import Micrograph

DrawParticles = Callable[..., tuple[Micrograph, NDArray[np.float64]]]


@pytest.fixture
def draw_particles() -> DrawParticles:
    """Draws `contrast` dark discs (or rings, `hole` > 0) on a jittered grid; returns micrograph and centres (x, y)."""

    def draw(
        *,
        shape_yx: tuple[int, int] = (300, 420),
        diameter_px: float = 30.0,
        contrast: float = 1.0,
        hole: float = 0.0,
        spacing: float = 2.0,
        seed: int = 1,
        pixel_size_angstrom: float | None = 2.0,
    ) -> tuple[Micrograph, NDArray[np.float64]]:
        rng = np.random.default_rng(seed)
        height, width = shape_yx
        step_px = spacing * diameter_px
        grid = np.meshgrid(np.arange(step_px / 2, width, step_px), np.arange(step_px / 2, height, step_px))
        xy_px = np.stack([axis.ravel() for axis in grid], axis=1)
        xy_px += rng.uniform(-0.2, 0.2, xy_px.shape) * diameter_px
        is_inside = ((xy_px > 0.6 * diameter_px) & (xy_px < np.array([width, height]) - 0.6 * diameter_px)).all(axis=1)
        xy_px = xy_px[is_inside]
        y, x = np.mgrid[:height, :width]
        pixels = rng.normal(100.0, 1.0, shape_yx)
        for centre_x, centre_y in xy_px:
            radius = 2 * np.hypot(x - centre_x, y - centre_y) / diameter_px
            pixels -= contrast * ((radius <= 1) & (radius >= hole))
        return Micrograph(pixels, name="drawn.mrc", pixel_size_angstrom=pixel_size_angstrom), xy_px

    return draw


@pytest.fixture
def count_found() -> Callable[[NDArray[np.float64], NDArray[np.float64], float], int]:
    """Number of true centres that have a pick of their own within a distance (greedy; the truth is far apart)."""

    def count(picked_xy: NDArray[np.float64], true_xy: NDArray[np.float64], distance_px: float) -> int:
        if len(picked_xy) == 0:
            return 0
        gaps = np.hypot(*(picked_xy[None] - true_xy[:, None]).transpose(2, 0, 1))  # (true, picked)
        return int(np.sum(gaps.min(axis=1) <= distance_px))

    return count
