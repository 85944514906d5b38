"""Directions of view."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.metrics.viewing_directions import viewing_directions
from cryopick.reconstruction.symmetry import operators

C1 = np.eye(3)[None]


def test_a_direction_lies_at_its_azimuth_and_elevation() -> None:
    # rot 95, tilt 60: azimuth 95, elevation 30; psi turns the image alone
    seen = viewing_directions(euler_to_matrix([[95.0, 62.0, 10.0], [95.0, 62.0, 170.0]]), C1)
    row, column = np.argwhere(seen.density)[0]
    assert np.count_nonzero(seen.density) == 1
    assert (-90 + 10 * row, -180 + 10 * column) == (20, 90)  # the corner of the bin that holds 28, 95
    assert seen.particles == 2
    assert seen.evenness == pytest.approx(1 / (36 * 18))


def test_even_views_have_density_one_everywhere_and_evenness_near_one() -> None:
    seen = viewing_directions(euler_to_matrix(random_rotations(200_000, np.random.default_rng(0))), C1)
    assert seen.density[3:-3] == pytest.approx(np.ones((12, 36)), abs=0.3)
    assert seen.evenness > 0.99


def test_half_of_the_sphere_is_half_as_even() -> None:
    rotations = euler_to_matrix(random_rotations(100_000, np.random.default_rng(0)))
    upper = rotations[rotations[:, 2, 2] > 0]
    assert viewing_directions(upper, C1).evenness == pytest.approx(0.5, abs=0.01)


def test_symmetry_shows_a_view_from_all_its_equal_directions() -> None:
    seen = viewing_directions(euler_to_matrix([[5.0, 62.0, 0.0]]), operators("D2"))
    places = {(-90 + 10 * row, -180 + 10 * column) for row, column in np.argwhere(seen.density)}
    # Elevation 28 at azimuths 5 and 185 (-175), elevation -28 at azimuths -5 and 175
    assert places == {(20, 0), (20, -180), (-30, -10), (-30, 170)}
