"""Two programs' picks: who agrees, and frames that differ are found and measured."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.transforms import TRANSFORMS
from cryopick.metrics.agreement import PickedPair, offsets, placement

SHAPE = (900, 900)


def picked_pairs(
    transform: str, shift_px: tuple[float, float], *, seed: int = 0, shared: float = 0.7
) -> list[PickedPair]:
    """Three micrographs on which both sets mark the same 80 particles of 40 px, less some, with 2 px of noise."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(3):
        grid = np.stack(np.meshgrid(np.arange(9), np.arange(9)), axis=-1).reshape(-1, 2) * 95.0 + 60
        particles = grid + rng.uniform(-20, 20, grid.shape)
        first = particles[rng.random(len(grid)) < shared]
        first = first + rng.normal(0, 1.4, first.shape)
        second = particles[rng.random(len(grid)) < shared]
        second = second + rng.normal(0, 1.4, second.shape) + shift_px
        junk = rng.uniform(0, 900, (30, 2))
        changed = TRANSFORMS[transform](np.concatenate([second, junk]), SHAPE)
        pairs.append(PickedPair(np.concatenate([first, rng.uniform(0, 900, (25, 2))]), changed, 40.0, SHAPE))
    return pairs


@pytest.mark.parametrize("transform", list(TRANSFORMS))
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (8.0, -3.0), (-30.0, 26.0)])
def test_a_change_of_frame_is_found_and_measured(transform: str, shift_px: tuple[float, float]) -> None:
    found = placement(picked_pairs(transform, shift_px), tolerance=0.25)
    assert found is not None
    assert found.transform == transform
    np.testing.assert_allclose(np.array(found.shift_diameters) * 40, shift_px, atol=0.8)
    assert found.is_shifted == (shift_px != (0.0, 0.0))
    assert 0.4 < found.share < 0.75  # half of all picks, or 70 % of 70 % over 100 %


def test_sets_that_share_nothing_are_not_placed() -> None:
    rng = np.random.default_rng(3)
    pairs = [PickedPair(rng.uniform(0, 900, (80, 2)), rng.uniform(0, 900, (80, 2)), 40.0, SHAPE) for _ in range(4)]
    assert placement(pairs, tolerance=0.25) is None
    assert placement([PickedPair(np.empty((0, 2)), np.empty((0, 2)), 40.0, SHAPE)], tolerance=0.25) is None


def test_without_the_size_of_the_micrograph_no_mirror_is_claimed() -> None:
    mirrored = picked_pairs("flip_y", (0.0, 0.0))
    blind = [PickedPair(one.first_xy_px, one.second_xy_px, 40.0) for one in mirrored]
    assert placement(blind, tolerance=0.25) is None


def test_offsets_are_those_of_the_pairs() -> None:
    pair = PickedPair(np.array([[10.0, 10.0], [50.0, 50.0]]), np.array([[53.0, 46.0], [90.0, 90.0]]), 20.0)
    np.testing.assert_allclose(offsets([pair], tolerance=0.25), [[0.15, -0.2]])
    assert len(offsets([pair], tolerance=0.24)) == 0
