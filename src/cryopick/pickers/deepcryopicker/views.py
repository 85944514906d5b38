"""Top or side: the view of clustered objects, by their outlines and by what they look like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.evidence import radial_profiles
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, SIDE, TOP, Found, body_radius_px
from cryopick.pickers.deepcryopicker.shapes import ROUND_LIMIT, circularity, is_square_view, own_shape, perimeter
from cryopick.pickers.deepcryopicker.size import ParticleSize

ROUNDS = 10
SMALLEST_SHARE = 0.1
"""Of the objects with a clear outline, so many have to be squares; else they are ill-drawn circles, and no view."""


def with_views(found: Found, mask: NDArray[np.bool_], pixels: NDArray[np.float32], size: ParticleSize) -> Found:
    """The same objects, each as a top or side view where it is one.

    Circles whose outline is a square are side views. Hollow particles are seen along their axis or across it, so all of
    them are one or the other: round outlines are top views. Many outlines are neither, where the mask has gaps or runs
    into its surroundings, so each object then takes the view whose radial profiles, the median of all that have it, are
    most like its own; this is repeated while it changes any. Where only one view is seen, outlines decide.

    References
    ----------
    S. P. Lloyd, IEEE Trans. Inf. Theory 28 (1982) 129-137: the repetition is k-means with two clusters.
    """
    view = found.view.copy()
    candidates = np.arange(len(view)) if size.is_hollow else np.flatnonzero(view == TOP)
    for index in candidates.tolist():
        shape = own_shape(mask, found.xy_px[index], reach_px=1.3 * body_radius_px(size))
        area = int(np.count_nonzero(shape))
        if area > 1 and is_square_view(shape):
            view[index] = SIDE
        elif area > 1 and view[index] == IRREGULAR and circularity(area, perimeter(shape)) < ROUND_LIMIT:
            view[index] = TOP
    tops, sides = np.count_nonzero(view == TOP), np.count_nonzero(view == SIDE)
    if size.is_hollow and tops and sides > 1 and sides >= SMALLEST_SHARE * (tops + sides):
        view = _nearest_views(view, radial_profiles(pixels, found.xy_px))
    return Found(found.xy_px, found.score, found.radius_px, view)


def _nearest_views(view: NDArray[np.int32], profiles: NDArray[np.float64]) -> NDArray[np.int32]:
    """(n,) `TOP` or `SIDE`, whichever profiles are more like each object's; see `with_views`."""
    centred = profiles - profiles.mean(axis=1, keepdims=True)
    shapes = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    for _ in range(ROUNDS):
        likeness = []
        for kind in (TOP, SIDE):
            if not (view == kind).any():
                return view
            typical = np.median(shapes[view == kind], axis=0)
            likeness.append(shapes @ typical / max(float(np.linalg.norm(typical)), 1e-12))
        nearest = np.where(likeness[0] > likeness[1], TOP, SIDE).astype(np.int32)
        if np.array_equal(nearest, view):
            break
        view = nearest
    return view
