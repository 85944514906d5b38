"""Carbon as a whole: dark regions with an edge of junk are junk, and nothing else becomes junk."""

import numpy as np
import pytest

from cryopick.heatmap.carbon import with_whole_carbon

SIDE = 300
PARTICLE_PX = 10.0


def film(*, darkness):
    """The right third of a map is dark; a band inside its border is called junk."""
    shade = np.zeros((SIDE, SIDE), np.float32)
    shade[:, 200:] = -darkness
    junk = np.full((SIDE, SIDE), 0.02, np.float32)
    junk[:, 200:230] = 0.9
    return junk, shade


def test_a_film_is_junk_as_far_as_it_reaches_and_the_ice_beside_it_is_not():
    junk, shade = film(darkness=3.0)
    whole = with_whole_carbon(junk, shade, particle_px=PARTICLE_PX)
    assert whole[:, 200:].min() > 0.8
    assert np.array_equal(whole[:, :200], junk[:, :200])


@pytest.mark.parametrize("turn", range(4))
def test_the_answer_turns_with_the_micrograph(turn):
    junk, shade = film(darkness=3.0)
    straight = with_whole_carbon(junk, shade, particle_px=PARTICLE_PX)
    turned = with_whole_carbon(np.rot90(junk, turn).copy(), np.rot90(shade, turn).copy(), particle_px=PARTICLE_PX)
    assert np.allclose(turned, np.rot90(straight, turn), atol=1e-6)


def test_thick_ice_without_an_edge_of_junk_stays_ice():
    junk, shade = film(darkness=3.0)
    junk[:] = 0.02
    assert np.array_equal(with_whole_carbon(junk, shade, particle_px=PARTICLE_PX), junk)


def test_a_gradient_across_the_micrograph_is_not_taken_along_with_dirt_on_it():
    shade = np.tile(np.linspace(0, -3, SIDE, dtype=np.float32), (SIDE, 1))
    junk = np.full((SIDE, SIDE), 0.02, np.float32)
    junk[100:140, 150:190] = 0.95
    assert np.array_equal(with_whole_carbon(junk, shade, particle_px=PARTICLE_PX), junk)


def test_a_micrograph_of_carbon_alone_has_no_rim_to_tell():
    junk = np.full((SIDE, SIDE), 0.4, np.float32)
    assert np.array_equal(with_whole_carbon(junk, np.full_like(junk, -3.0), particle_px=PARTICLE_PX), junk)
