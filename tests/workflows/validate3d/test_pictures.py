"""The pictures of a validation: what is fine is bright, what is unknown has no colour, words stand on any page."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cryopick.workflows.validate3d.pictures import CELL_PX, directions_png, local_resolution_png


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def test_finer_places_are_brighter_and_outside_the_mask_the_map_is_grey() -> None:
    resolution = np.broadcast_to(np.linspace(20, 40, 30), (30, 30, 30))  # coarser along x
    mask = np.zeros((30, 30, 30), bool)
    mask[5:25, 5:25, 5:25] = True
    picture = decoded(local_resolution_png(resolution, mask, np.random.default_rng(0).normal(size=(30, 30, 30))))
    along = picture[CELL_PX // 2, :CELL_PX].astype(int)  # the slice along z, from left to right
    left, right = along[30], along[120]
    assert left[1] > right[1] + 100  # green of viridis grows from dark violet to yellow
    outside = along[:20]
    assert (outside[:, 0] == outside[:, 1]).all()
    assert (outside[:, 1] == outside[:, 2]).all()


def test_one_resolution_everywhere_is_the_finest_colour() -> None:
    even = decoded(
        local_resolution_png(np.full((20, 20, 20), 29.2), np.ones((20, 20, 20), bool), np.zeros((20, 20, 20)))
    )
    assert even[CELL_PX // 2, CELL_PX // 2, :3].tolist() == [37, 231, 253]  # viridis' last, as blue, green, red


def test_directions_that_nobody_saw_show_the_page_and_the_top_is_the_north() -> None:
    seen = np.zeros((18, 36))
    seen[17, 0] = 5  # elevation +85, azimuth -175
    picture = decoded(directions_png(seen))
    assert picture[9, 47, 3] == 255
    assert picture[170, 300, 3] == 0
    assert picture[9, 300, 3] == 0
