"""Projections against sums along an axis and places worked out by hand."""

import numpy as np
import pytest

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.processing.projection import Projector, project
from cryopick.types import Volume


def ball(n: int, xyz_px: tuple[float, float, float], *, sigma_px: float = 1.6, voxel: float = 2.0) -> Volume:
    """A Gaussian ball of height 1 at `(x, y, z)` from the rotation centre."""
    axis = np.arange(n) - n // 2
    x, y, z = xyz_px
    square = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
    return Volume(np.exp(-square / (2 * sigma_px**2)).astype(np.float32), voxel)


def peak_xy(image: np.ndarray) -> tuple[float, float]:
    """Top of a Gaussian spot: the parabola through the logarithms of three pixels is exact."""
    row, column = np.unravel_index(image.argmax(), image.shape)

    def offset(three: np.ndarray) -> float:
        low, middle, high = np.log(three)
        return (low - high) / (2 * (low + high - 2 * middle))

    return (
        column + offset(image[row, column - 1 : column + 2]),
        row + offset(image[row - 1 : row + 2, column]),
    )


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("seed", range(5))
def test_off_centre_ball_lands_at_the_predicted_pixel(n: int, seed: int) -> None:
    place = (6.0, -4.0, 3.0)
    matrices = euler_to_matrix(random_rotations(1, np.random.default_rng(seed)))
    x, y, _ = matrices[0] @ place
    found = peak_xy(project(ball(n, place), matrices)[0])
    assert found == pytest.approx((n // 2 + x, n // 2 + y), abs=0.05)


def test_untilted_projection_is_the_sum_along_z_times_the_voxel_size() -> None:
    volume = ball(32, (3.0, 1.0, -2.0), voxel=2.5)
    image = project(volume, np.eye(3)[None])[0]
    expected = volume.density.sum(axis=0) * 2.5
    np.testing.assert_allclose(image, expected, atol=0.02 * expected.max())


def test_view_along_x_by_hand() -> None:
    # rot 0, tilt 90, psi 0: image x runs along -z of the specimen, image y along y
    image = project(ball(32, (0.0, 5.0, 8.0)), euler_to_matrix([[0.0, 90.0, 0.0]]))[0]
    assert peak_xy(image) == pytest.approx((16 - 8, 16 + 5), abs=0.05)


def test_projection_of_a_centred_ball_is_the_same_from_everywhere() -> None:
    images = project(ball(32, (0, 0, 0), sigma_px=3.0), euler_to_matrix(random_rotations(4, np.random.default_rng(0))))
    np.testing.assert_allclose(images, np.broadcast_to(images[0], images.shape), atol=0.01 * images.max())


def test_view_from_behind_is_the_mirror_image() -> None:
    # Friedel symmetry: turning the view by 180 degrees about the image's y axis flips the image along x
    volume = Volume(ball(32, (5, 2, -4)).density + ball(32, (-6, 3, 1)).density, 2.0)
    front = euler_to_matrix(random_rotations(1, np.random.default_rng(3)))
    behind = np.diag([-1.0, 1.0, -1.0]) @ front
    seen_from_front, seen_from_behind = project(volume, np.concatenate([front, behind]))
    np.testing.assert_allclose(seen_from_behind[:, 1:], seen_from_front[:, :0:-1], atol=0.01 * seen_from_front.max())


def test_shift_moves_the_particle_that_many_pixels() -> None:
    volume = ball(32, (0, 0, 0))
    image = project(volume, np.eye(3)[None], shifts_px=[[3.25, -2.5]])[0]
    assert peak_xy(image) == pytest.approx((16 + 3.25, 16 - 2.5), abs=0.05)


def test_whole_batch_equals_one_at_a_time() -> None:
    volume = ball(24, (3, 2, -1))
    matrices = euler_to_matrix(random_rotations(7, np.random.default_rng(5)))
    shifts = np.random.default_rng(6).uniform(-2, 2, size=(7, 2))
    projector = Projector(volume)
    single = [projector.project(m[None], shifts_px=s[None])[0] for m, s in zip(matrices, shifts, strict=True)]
    np.testing.assert_allclose(projector.project(matrices, shifts_px=shifts), single, atol=1e-6)


def test_no_rotations_give_no_images() -> None:
    assert project(ball(16, (0, 0, 0)), np.zeros((0, 3, 3))).shape == (0, 16, 16)


def test_wrong_shapes_are_named() -> None:
    volume = ball(16, (0, 0, 0))
    with pytest.raises(ValueError, match=r"rotations: expected an array \(n, 3, 3\)"):
        project(volume, np.eye(3))
    with pytest.raises(ValueError, match=r"one \(x, y\) per rotation, \(2, 2\), got \(1, 2\)"):
        project(volume, np.tile(np.eye(3), (2, 1, 1)), shifts_px=[[0, 0]])
