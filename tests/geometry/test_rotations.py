"""Euler angles: hand-written matrices, round trips, and uniformity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryopick.geometry.rotations import euler_to_matrix, random_rotations

ANGLE = st.floats(-179.0, 179.0)
TILT = st.floats(1.0, 179.0)


def test_no_turn_is_the_identity() -> None:
    np.testing.assert_allclose(euler_to_matrix([0.0, 0.0, 0.0]), np.eye(3))


@pytest.mark.parametrize(
    ("angles", "matrix"),
    [
        ([90, 0, 0], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),  # a specimen's y axis becomes the image's x axis
        ([0, 90, 0], [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),  # a specimen's x axis becomes the line of sight
        ([0, 0, 90], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
        ([30, 0, 60], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),  # without tilt rot and psi add up
    ],
)
def test_quarter_turns_by_hand(angles: list[float], matrix: list[list[float]]) -> None:
    np.testing.assert_allclose(euler_to_matrix(angles), matrix, atol=1e-12)


@given(ANGLE, TILT, ANGLE)
def test_matrix_agrees_with_an_independent_zyz_implementation(rot: float, tilt: float, psi: float) -> None:
    active = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix()
    np.testing.assert_allclose(euler_to_matrix([rot, tilt, psi]), active.T, atol=1e-12)  # ours turn the axes: passive


def test_matrices_are_rotations() -> None:
    matrices = euler_to_matrix(random_rotations(50, np.random.default_rng(0)))
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)


def test_random_orientations_are_uniform() -> None:
    matrices = euler_to_matrix(random_rotations(20_000, np.random.default_rng(1)))
    # Every entry of a uniform rotation has mean 0 and mean square 1/3; 20 000 draws leave 0.004 and 0.002 of noise
    np.testing.assert_allclose(matrices.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose((matrices**2).mean(axis=0), 1 / 3, atol=0.01)


def test_same_seed_gives_same_orientations() -> None:
    first, second = (random_rotations(5, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(n, 3\) of rot, tilt, psi, got shape \(4,\)"):
        euler_to_matrix([1, 2, 3, 4])
