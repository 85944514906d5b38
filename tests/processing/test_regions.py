"""Holes and islands of masks, against a plain loop over labelled pixels."""

import numpy as np
import pytest
from scipy.ndimage import label

from cryopick.processing.regions import find_objects, without_small_regions

EIGHT = np.ones((3, 3))


def by_a_loop(mask, smallest_px):
    """Small holes filled first, then small islands removed but for the largest."""
    labels, count = label(~np.pad(mask, 1))
    filled = np.pad(mask, 1)
    for number in range(1, count + 1):
        region = labels == number
        if not region[0, 0] and region.sum() < smallest_px:
            filled |= region
    labels, count = label(filled, EIGHT)
    areas = [int((labels == number).sum()) for number in range(1, count + 1)]
    kept = [number for number in range(1, count + 1) if areas[number - 1] >= smallest_px]
    if areas and not kept:
        kept = [int(np.argmax(areas)) + 1]
    return np.isin(labels, kept)[1:-1, 1:-1] & filled[1:-1, 1:-1]


@pytest.mark.parametrize("smallest_px", [0.5, 1, 2.5, 4, 1000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_small_holes_and_islands_go(smallest_px, share):
    mask = np.random.default_rng(int(10 * share)).random((40, 30)) < share
    np.testing.assert_array_equal(without_small_regions(mask, smallest_px=smallest_px), by_a_loop(mask, smallest_px))


def test_objects_are_counted_with_eight_neighbours():
    objects = find_objects(np.eye(4, dtype=bool))
    assert objects.area_px.tolist() == [4]
