"""Objects against what their own micrograph shows by chance, and the views of hollow ones."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.geometry.units import Length
from cryopick.pickers.deepcryopicker.evidence import contrast_of, standing_out
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, SIDE, TOP, Found
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.deepcryopicker.views import with_views

SOLID = ParticleSize(Length(20, 20, "px"), 0.7, is_hollow=False, evidence=1.0)
HOLLOW = ParticleSize(Length(20, 20, "px"), 1.0, is_hollow=True, evidence=1.0)


def at(places, *, score=1.0, view=TOP):
    places = np.array(places, np.float64).reshape(-1, 2)
    kinds = np.full(len(places), view, np.int32)
    return Found(places, np.full(len(places), score, np.float32), np.full(len(places), 7.0), kinds)


def with_discs(shape, places, depths, *, radius_px=8.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = np.zeros(shape, np.float32)
    for (cx, cy), depth in zip(places, depths, strict=True):
        pixels -= np.float32(depth) * (np.hypot(x - cx, y - cy) <= radius_px)
    return pixels


def grid(count, *, step=40, offset=30):
    return [(offset + step * (i % 6), offset + step * (i // 6)) for i in range(count)]


def test_contrast_is_that_of_the_disc_to_its_surroundings():
    assert contrast_of(with_discs((60, 60), [(30, 30)], [2.0]), np.array([[30.0, 30.0]]), SOLID) == pytest.approx(
        2.0, abs=0.05
    )


def test_objects_no_darker_than_bright_ones_are_bright_are_chance():
    places = grid(24)
    # twelve particles, six faint dark things, six bright ones as strong as those
    depths = [2.0] * 12 + [0.5] * 6 + [-0.5] * 6
    pixels = with_discs((260, 260), places, depths)
    kept = standing_out(at(places[:18]), at(places[18:]), pixels, SOLID, threshold=0.1)
    assert kept.xy_px.tolist() == [list(place) for place in places[:12]]


def test_gaps_between_particles_are_no_chance_however_bright():
    places = grid(12)
    pixels = with_discs((260, 260), places, [2.0] * 6 + [0.5] * 6)
    gaps = [(x + 15, y) for x, y in places[:6]]
    for x, y in gaps:
        pixels[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 3.0
    far = [(30, 200), (70, 200), (110, 200)]  # of no contrast at all
    assert len(standing_out(at(places), at(gaps + far), pixels, SOLID, threshold=0.1).xy_px) == 12
    # the same bright things far from particles are chance, and stronger than the faint half
    apart = [(40 * i + 30, 240) for i in range(6)]
    for x, y in apart:
        pixels[y - 3 : y + 4, x - 3 : x + 4] = 3.0
    assert len(standing_out(at(places), at(apart + far), pixels, SOLID, threshold=0.1).xy_px) == 6


def test_objects_below_the_threshold_set_no_limit_and_have_to_keep_it():
    places = grid(6)
    pixels = with_discs((260, 260), places, [2.0, 2.0, 2.0, 1.9, 0.3, 2.1])
    found = at(places)
    found.score[3:] = 0.05
    kept = standing_out(found, at([]), pixels, SOLID, threshold=0.1)
    assert kept.xy_px.tolist() == [list(places[i]) for i in (0, 1, 2, 5)]


def test_nothing_stands_out_where_as_much_is_there_by_chance():
    places = grid(20)
    pixels = with_discs((260, 260), places, [1.0] * 10 + [-1.0] * 10)
    assert len(standing_out(at(places[:10]), at(places[10:]), pixels, SOLID, threshold=0.1).xy_px) == 0
    assert len(standing_out(at([]), at(places[10:]), pixels, SOLID, threshold=0.1).xy_px) == 0


def barrels(kinds):
    """Rings and squares at working size, and the mask of what is dark."""
    y, x = np.mgrid[:260, :260]
    dark = np.zeros((260, 260), bool)
    places = grid(len(kinds))
    for (cx, cy), kind in zip(places, kinds, strict=True):
        distance = np.hypot(x - cx, y - cy)
        is_square = (np.abs(x - cx) <= 9) & (np.abs(y - cy) <= 9)
        dark |= is_square if kind == SIDE else (distance <= 10) & (distance > 5)
    return places, dark


def test_hollow_objects_whose_outline_tells_nothing_take_the_view_that_they_look_like():
    kinds = [TOP, SIDE] * 6
    places, dark = barrels(kinds)
    mask = dark.copy()
    for cx, cy in places[-4:]:  # two of each run into their surroundings
        mask[cy - 4 : cy + 4, cx - 18 : cx] = True
    view = with_views(at(places, view=IRREGULAR), mask, -dark.astype(np.float32), HOLLOW).view
    assert view.tolist() == kinds
    # those of particles that are not hollow stay as they are
    assert (with_views(at(places, view=IRREGULAR), mask, -dark.astype(np.float32), SOLID).view == IRREGULAR).all()


def test_where_all_are_rings_none_becomes_a_side_view():
    kinds = [TOP] * 12
    places, dark = barrels(kinds)
    pixels = -dark.astype(np.float32) + np.random.default_rng(0).normal(0, 0.5, dark.shape).astype(np.float32)
    assert with_views(at(places, view=IRREGULAR), dark, pixels, HOLLOW).view.tolist() == kinds
