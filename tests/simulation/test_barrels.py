"""Barrels: what is drawn against areas and symmetries that a cylinder must have."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.simulation.specimens.barrels import HEIGHT, HOLE, SIDE_VIEW, SPACING, TOP_VIEW, draw_barrels


def test_both_views_of_a_barrel_hold_the_same_mass():
    # the projection of a body has the same sum whatever the direction; here over the height, so that walls are 1
    drawn = draw_barrels(seed=3, side_px=700, diameter_px=60.0, count=12, noise=0.0)
    volume = np.pi * 30**2 * (1 - HOLE**2)
    assert set(drawn.view.tolist()) == {TOP_VIEW, SIDE_VIEW}
    for (x, y), _view in zip(np.rint(drawn.xy_px).astype(int), drawn.view, strict=True):
        mass = -drawn.micrograph.pixels[y - 43 : y + 44, x - 43 : x + 44].sum()
        assert mass == pytest.approx(volume, rel=0.03)
    assert -drawn.micrograph.pixels.sum() == pytest.approx(12 * volume, rel=0.02)


def test_rings_are_hollow_and_rectangles_are_as_tall_as_asked():
    drawn = draw_barrels(seed=3, side_px=700, diameter_px=60.0, count=12, noise=0.0)
    for (x, y), view in zip(np.rint(drawn.xy_px).astype(int), drawn.view, strict=True):
        window = -drawn.micrograph.pixels[y - 43 : y + 44, x - 43 : x + 44]
        if view == TOP_VIEW:
            assert window[40:47, 40:47].max() == 0
        else:
            assert window[40:47, 40:47].min() > 0
            assert np.count_nonzero(window) == pytest.approx(60 * 60 * HEIGHT, rel=0.05)


def test_barrels_keep_their_distance_and_too_many_are_refused():
    drawn = draw_barrels(seed=1)
    gaps = np.hypot(*(drawn.xy_px[None] - drawn.xy_px[:, None]).T) + 1e9 * np.eye(50)
    assert gaps.min() >= SPACING * drawn.diameter_px
    with pytest.raises(ValueError, match="ask for fewer"):
        draw_barrels(seed=1, side_px=300, count=30)
