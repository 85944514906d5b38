"""Maps drawn by hand, and the particles that must be read off them."""

import numpy as np
import pytest

from cryopick.pickers.segmentation_crf.regions import find_regions

DIAMETER = 10.0


def discs(centres, radius, *, shape_yx=(48, 64), level=0.95):
    """Soft discs: the share of each cell that they cover, to about a twentieth."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    out = np.zeros(shape_yx)
    for cx, cy in centres:
        out = np.maximum(out, np.clip(radius + 0.5 - np.hypot(x - cx, y - cy), 0, 1))
    return (level * out).astype(np.float32)


def regions_of(centres, *, split="core", level=0.95):
    particle = discs(centres, DIAMETER / 2, level=level)
    core = discs(centres, DIAMETER / 4, level=level) if split == "core" else None
    return find_regions(particle, core, diameter_px=DIAMETER, core_radius=0.25)


def nearest(found, centres):
    return np.hypot(*(found[None] - np.asarray(centres, float)[:, None]).transpose(2, 0, 1)).min(axis=1)


def test_centres_are_found_to_a_tenth_of_a_cell():
    centres = [(12.3, 10.8), (40.0, 30.5), (25.6, 36.1)]
    regions = regions_of(centres)
    assert len(regions.xy_px) == 3
    assert nearest(regions.xy_px, centres).max() < 0.1


@pytest.mark.parametrize("split", ["core", "distance"])
def test_particles_that_touch_are_told_apart(split):
    centres = [(20.0, 20.0), (29.0, 20.0), (24.5, 28.0)]
    regions = regions_of(centres, split=split)
    strong = regions.score > 0.4
    assert strong.sum() == 3
    assert nearest(regions.xy_px[strong], centres).max() < 0.06 * DIAMETER
    numbers = {int(regions.labels[y, x]) for x, y in ((20, 20), (29, 20), (24, 28))}
    assert len(numbers - {0}) == 3


def test_areas_are_those_of_the_silhouettes_also_where_they_touch():
    regions = regions_of([(20.0, 20.0), (30.0, 20.0)])
    np.testing.assert_allclose(regions.area_px, np.pi * 25, rtol=0.12)


def test_a_fainter_particle_has_a_lower_score_but_stays_a_candidate():
    particle = np.maximum(discs([(15, 20)], 5.0), discs([(40, 20)], 5.0, level=0.1))
    core = np.maximum(discs([(15, 20)], 2.5), discs([(40, 20)], 2.5, level=0.1))
    regions = find_regions(particle, core, diameter_px=DIAMETER, core_radius=0.25)
    assert regions.score.tolist() == sorted(regions.score.tolist(), reverse=True)
    assert regions.score[0] > 0.8
    assert 0.05 < regions.score[1] < 0.15
    assert nearest(regions.xy_px, [(15, 20), (40, 20)]).max() < 0.2


def test_a_ring_with_an_empty_middle_is_one_particle_at_its_centre():
    y, x = np.mgrid[:48, :64]
    radius = np.hypot(x - 30.4, y - 22.7)
    particle = (0.9 * ((radius < 5) & (radius > 3))).astype(np.float32)
    regions = find_regions(particle, discs([(30.4, 22.7)], 2.5), diameter_px=DIAMETER, core_radius=0.25)
    assert len(regions.xy_px) == 1
    assert nearest(regions.xy_px, [(30.4, 22.7)])[0] < 0.1


def test_an_empty_map_gives_nothing():
    empty = np.zeros((30, 40), np.float32)
    for core in (empty, None):
        regions = find_regions(empty, core, diameter_px=DIAMETER, core_radius=0.25)
        assert len(regions.xy_px) == len(regions.score) == len(regions.area_px) == 0


def test_flat_maps_of_any_size_do_no_harm():
    for shape_yx in ((1, 1), (1, 9), (3, 2)):
        flat = np.full(shape_yx, 0.6, np.float32)
        regions = find_regions(flat, flat, diameter_px=DIAMETER, core_radius=0.25)
        assert np.isfinite(regions.xy_px).all()
