"""Tiles cover the image, and every particle has one owner, whatever the order of the tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.pickers.cryotransformer.tiles import CLOSE_PACKING, lay_tiles, owned, tile_side_px

SHAPE = (900, 1300)
DIAMETER_PX = 30.0
SAME_PX = 0.5 * DIAMETER_PX


def particles(rng, *, spacing=0.8, shape_yx=SHAPE):
    """Closely packed, none nearer to another than 0.8 diameters less a little."""
    step = spacing * DIAMETER_PX
    y, x = np.mgrid[0 : shape_yx[0] : step * np.sqrt(3) / 2, 0 : shape_yx[1] : step]
    x = x + (np.arange(len(x)) % 2)[:, None] * step / 2
    xy = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-1, 1, (x.size, 2))
    return xy[(xy >= 0).all(axis=1) & (xy[:, 0] < shape_yx[1] - 1) & (xy[:, 1] < shape_yx[0] - 1)]


def seen_by(tile, xy, rng, *, jitter_px):
    """What a perfect network would answer for a tile: everything in it, each centre a little off."""
    left, top, right, bottom = tile.region
    inside = (xy[:, 0] >= left) & (xy[:, 0] < right) & (xy[:, 1] >= top) & (xy[:, 1] < bottom)
    return xy[inside] + rng.uniform(-jitter_px, jitter_px, (inside.sum(), 2))


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(50, 700), st.floats(0.0, 0.45))
def test_cores_divide_the_image_and_lie_inside_their_tiles(height, width, side_px, overlap):
    overlap_px = overlap * side_px
    tiles = lay_tiles((height, width), side_px=side_px, overlap_px=overlap_px)
    area = sum((t.core[2] - t.core[0]) * (t.core[3] - t.core[1]) for t in tiles)
    assert area == pytest.approx(height * width)
    for tile in tiles:
        left, top, right, bottom = tile.region
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left <= np.ceil(side_px)
        core = np.array(tile.core)
        # away from the border of the image a core keeps half the overlap from the edge of its tile
        margin = overlap_px / 2 - 1
        assert left == 0 or core[0] - left >= margin
        assert right == width or right - core[2] >= margin
        assert top == 0 or core[1] - top >= margin
        assert bottom == height or bottom - core[3] >= margin


def test_a_tile_holds_no_more_closely_packed_particles_than_there_are_queries():
    side = tile_side_px(600, diameter_px=DIAMETER_PX)
    xy = particles(np.random.default_rng(0), shape_yx=(int(side), int(side)))
    assert 0.85 * 600 < len(xy) <= 600
    assert side == pytest.approx(DIAMETER_PX * np.sqrt(600 / CLOSE_PACKING))


@pytest.mark.parametrize("jitter_px", [0.0, 2.0, 0.12 * DIAMETER_PX])
def test_every_particle_is_answered_for_exactly_once(jitter_px):
    rng = np.random.default_rng(1)
    xy = particles(rng)
    tiles = lay_tiles(SHAPE, side_px=300, overlap_px=2 * DIAMETER_PX)
    assert len(tiles) > 9
    answers = [seen_by(tile, xy, rng, jitter_px=jitter_px) for tile in tiles]
    assert sum(map(len, answers)) > 1.3 * len(xy)
    stands = owned(tiles, answers, shape_yx=SHAPE, same_px=SAME_PX)
    found = np.concatenate([one[mask] for one, mask in zip(answers, stands, strict=True)])
    gaps = np.hypot(*(found[:, None] - xy[None]).transpose(2, 0, 1))
    assert len(found) == len(xy)
    assert (gaps.min(axis=0) < 2 * jitter_px + 1e-9).all()
    apart = np.hypot(*(found[:, None] - found[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(found))
    assert apart.min() > 0.3 * DIAMETER_PX


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_tiles_makes_no_difference(random):
    rng = np.random.default_rng(2)
    xy = particles(rng)
    tiles = lay_tiles(SHAPE, side_px=300, overlap_px=2 * DIAMETER_PX)
    answers = [seen_by(tile, xy, rng, jitter_px=3.0) for tile in tiles]
    order = list(range(len(tiles)))
    random.shuffle(order)
    stands = owned(tiles, answers, shape_yx=SHAPE, same_px=SAME_PX)
    again = owned([tiles[i] for i in order], [answers[i] for i in order], shape_yx=SHAPE, same_px=SAME_PX)
    for place, i in enumerate(order):
        np.testing.assert_array_equal(again[place], stands[i])


def test_a_centre_that_each_tile_puts_into_the_others_core_stands_once():
    tiles = lay_tiles((100, 360), side_px=200, overlap_px=40)
    seam = tiles[0].core[2] - 0.5
    answers = [np.array([[seam + 1.5, 50.0]]), np.array([[seam - 1.0, 50.0]])]
    stands = owned(tiles, answers, shape_yx=(100, 360), same_px=SAME_PX)
    assert [mask.sum() for mask in stands] == [0, 1]


def test_what_only_the_wrong_tile_sees_does_not_stand():
    tiles = lay_tiles((100, 360), side_px=200, overlap_px=40)
    beyond = tiles[0].core[2] + 3
    stands = owned(tiles, [np.array([[beyond, 50.0]]), np.zeros((0, 2))], shape_yx=(100, 360), same_px=SAME_PX)
    assert not stands[0].any()


def test_answers_of_one_tile_never_suppress_each_other():
    tiles = lay_tiles((100, 100), side_px=200, overlap_px=40)
    twice = np.array([[50.0, 50.0], [50.5, 50.0]])
    assert owned(tiles, [twice], shape_yx=(100, 100), same_px=SAME_PX)[0].all()
