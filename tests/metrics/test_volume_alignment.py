"""Maps turned, moved and mirrored by a known amount are found again."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import rotation_angle_deg
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation
from cryopick.metrics.volume_alignment import align_volumes, moved
from cryopick.types import Volume

N = 40


def blobs(places: np.ndarray, heights: np.ndarray, sigma: float = 1.8) -> np.ndarray:
    """Gaussian balls at (k, 3) x, y, z from the centre voxel: a map whose turned version is written down exactly."""
    axis = np.arange(N) - N // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    square = sum((one[..., None] - places[:, i]) ** 2 for i, one in enumerate((x, y, z)))
    return (np.exp(-square / (2 * sigma**2)) @ heights).astype(np.float32)


def chiral(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(14, 3))
    places *= (rng.uniform(2, 10, size=14) / np.linalg.norm(places, axis=1))[:, None]
    return places - places.mean(axis=0), rng.uniform(0.6, 1.4, size=14)


@pytest.mark.parametrize(("seed", "is_mirrored"), [(1, False), (2, True)])
def test_rotation_shift_and_hand_are_found(seed: int, is_mirrored: bool) -> None:
    places, heights = chiral()
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    shift = rng.uniform(-2.5, 2.5, size=3)
    fixed = blobs(places, heights)
    # The moving map: the fixed one after the inverse, and mirrored in x
    back = (places - shift) @ rotation
    moving = blobs(back * ([-1, 1, 1] if is_mirrored else [1, 1, 1]), heights)
    moving += rng.normal(0, 0.02, size=moving.shape).astype(np.float32)
    found = align_volumes(Volume(moving, 3.0), Volume(fixed, 3.0), diameter_angstrom=75.0)
    assert found.is_mirrored == is_mirrored
    assert rotation_angle_deg(found.rotation @ rotation.T) < 1
    assert np.abs(found.shift_px - shift).max() < 0.2
    assert found.correlation > 0.9
    curve = fourier_shell_correlation(found.aligned.density, fixed)
    assert curve[1:9].min() > 0.95, curve.round(2)


def test_moving_puts_points_where_it_says() -> None:
    places, heights = chiral(3)
    rotation, shift = Rotation.random(rng=np.random.default_rng(4)).as_matrix(), np.array([1.3, -0.6, 2.2])
    expected = blobs(places @ rotation.T + shift, heights)
    np.testing.assert_allclose(moved(blobs(places, heights), rotation, shift), expected, atol=0.01)


def test_of_equivalent_rotations_the_smallest_is_given() -> None:
    half_turn = np.diag([1.0, -1.0, -1.0])
    operators = np.stack([np.eye(3), np.diag([-1.0, -1.0, 1.0]), half_turn, np.diag([-1.0, 1.0, -1.0])])
    places, heights = chiral(5)
    dimer = np.concatenate([places @ one for one in operators])
    fixed = blobs(dimer, np.tile(heights, 4))
    small = Rotation.from_rotvec([0.1, 0.3, -0.2]).as_matrix()
    moving = blobs(dimer @ small, np.tile(heights, 4))
    found = align_volumes(Volume(moving, 3.0), Volume(fixed, 3.0), symmetry_operators=operators)
    assert not found.is_mirrored
    assert rotation_angle_deg(found.rotation @ small.T) < 1
    assert found.correlation > 0.95


def test_maps_that_cannot_be_compared_are_refused() -> None:
    fixed = Volume(blobs(*chiral()), 3.0)
    with pytest.raises(SettingsError, match="resample one to the other's box"):
        align_volumes(Volume(fixed.density, 2.0), fixed)
    with pytest.raises(SettingsError, match="flat"):
        align_volumes(Volume(np.zeros((N, N, N)), 3.0), fixed)
