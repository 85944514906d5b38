"""Shapes of objects against drawn discs, squares and rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.pickers.deepcryopicker.shapes import (
    circularity,
    find_circles,
    is_square_view,
    perimeter,
    smallest_rectangle,
)
from cryopick.processing.regions import fill_holes, find_objects, remove_small


def disc(radius, size=None, centre=None, hole=0.0):
    size = size or int(2 * radius + 9)
    cy, cx = centre or (size / 2, size / 2)
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - cy, x - cx)
    return (distance <= radius) & (distance >= hole)


def rectangle(long_px, short_px, angle_deg=0.0, size=160):
    y, x = np.mgrid[:size, :size] - size / 2
    angle = np.radians(angle_deg)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    return (np.abs(along) <= long_px / 2) & (np.abs(across) <= short_px / 2)


def roundness(mask):
    return circularity(np.count_nonzero(mask), perimeter(mask))


def test_circularity_is_exact_for_ideal_shapes():
    assert circularity(np.pi * 25, 2 * np.pi * 5) == pytest.approx(1)
    assert circularity(9, 12) == pytest.approx(4 / np.pi)
    assert circularity(3, 8) == pytest.approx(1.698, abs=1e-3)


@pytest.mark.parametrize("radius", [8, 15, 40])
def test_drawn_disc_has_circularity_near_one(radius):
    assert roundness(disc(radius)) == pytest.approx(1, abs=0.06)


def test_drawn_square_and_long_rectangle_have_more_circularity_than_a_disc():
    # turned by 22.5 degrees, halfway between the four directions that are counted
    assert roundness(rectangle(60, 60, 22.5)) == pytest.approx(4 / np.pi, rel=0.07)
    assert roundness(rectangle(120, 40, 22.5)) == pytest.approx(1.698, rel=0.07)


def test_hole_of_a_ring_does_not_count_in_its_perimeter():
    assert perimeter(disc(20, hole=12)) == pytest.approx(perimeter(disc(20)))


@pytest.mark.parametrize("angle", [0, 30, 75])
def test_smallest_rectangle_finds_sides_centre_and_angle(angle):
    found = smallest_rectangle(rectangle(80, 30, angle))
    assert (found.long_px, found.short_px) == (pytest.approx(81, abs=2), pytest.approx(31, abs=2))
    assert (found.x, found.y) == (pytest.approx(80, abs=0.6), pytest.approx(80, abs=0.6))
    assert min(abs(found.angle_deg - angle), 180 - abs(found.angle_deg - angle)) < 2


def test_squares_are_side_views_and_discs_and_bars_are_not():
    assert is_square_view(rectangle(50, 45, 20))
    assert not is_square_view(disc(25))
    assert not is_square_view(rectangle(90, 30, 20))


def test_cleaning_keeps_discs_of_the_right_area_and_fills_them():
    mask = disc(10, 100, (30, 30), hole=4) | disc(12, 100, (70, 70))
    mask[5, 80:83] = True  # grain
    cleaned = fill_holes(remove_small(mask, min_area_px=20))
    objects = find_objects(cleaned)
    assert len(objects) == 2
    np.testing.assert_allclose(objects.area_px, [np.pi * 100, np.pi * 144], rtol=0.03)
    np.testing.assert_allclose(objects.xy_px, [[30, 30], [70, 70]], atol=0.1)


def test_holes_larger_than_the_limit_stay():
    ring = disc(20, hole=12)
    assert fill_holes(ring, max_area_px=50).sum() == ring.sum()
    assert fill_holes(ring).sum() == disc(20).sum()


def test_background_enclosed_by_the_border_of_the_image_is_no_hole():
    mask = np.zeros((20, 20), bool)
    mask[:, 10] = True
    assert fill_holes(mask).sum() == 20


@pytest.mark.parametrize("radius", [13, 30, 55, 85])
def test_circles_are_found_with_their_radius_in_a_noisy_mask(radius):
    rng = np.random.default_rng(radius)
    mask = disc(radius, 220, (107.0, 113.0))
    mask ^= rng.random(mask.shape) < 0.02
    xy, radii, support = find_circles(mask, radius_px=(10.0, 90.0))
    assert np.hypot(*(xy[0] - [113, 107])) <= 1.5
    assert radii[0] == pytest.approx(radius, abs=1.0)
    assert support[0] > 0.3


def test_a_ring_is_marked_at_its_centre_and_touching_discs_apart():
    ring = disc(20, 120, (60, 60), hole=12)
    xy, _, _ = find_circles(ring, radius_px=(15, 25))
    assert np.hypot(*(xy[0] - 60)) < 1
    pair = disc(15, 120, (60, 45)) | disc(15, 120, (60, 73))
    xy, _, _ = find_circles(pair, radius_px=(11, 19))
    np.testing.assert_allclose(np.sort(xy[:2, 0]), [45, 73], atol=1.5)


def test_an_empty_mask_has_no_circles():
    xy, radii, support = find_circles(np.zeros((50, 60), bool), radius_px=(5, 10))
    assert len(xy) == len(radii) == len(support) == 0
