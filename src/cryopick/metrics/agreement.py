"""How the picks of two programs lie to each other: how many agree, and whether one set is shifted or mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.pairing import pair_points
from cryopick.geometry.transforms import TRANSFORMS, transformed_shape

REACH_DIAMETERS = 1.5
"""Shifts are looked for up to here."""
NAMED_SHIFT_DIAMETERS = 0.05
"""A common shift below it is how pickers differ in what they call the centre of a particle."""
CERTAIN_SHARE = 0.2
"""Of the smaller set's picks that must coincide beyond chance, and more than unmirrored, before a change of frame is
named."""
FEWEST_PAIRS = 10
_BINS_PER_TOLERANCE = 2


@dataclass(frozen=True, eq=False)
class PickedPair:
    """The picks of two programs on one micrograph.

    Parameters
    ----------
    first_xy_px, second_xy_px : (n, 2), (m, 2) centres
    diameter_px : of the particles
    shape_yx : (h, w) of the micrograph; None where it is not known, and mirrored picks cannot be looked for
    """

    first_xy_px: NDArray[np.float64]
    second_xy_px: NDArray[np.float64]
    diameter_px: float
    shape_yx: tuple[int, int] | None = None


@dataclass(frozen=True)
class Placement:
    """How the second of two sets must be changed to lie on the first.

    Parameters
    ----------
    transform : a name of `cryopick.geometry.transforms.TRANSFORMS`, `identity` where the frames agree
    shift_diameters : (x, y) of the second set's picks from the first's, after `transform`, in particle diameters
    share : of the smaller set's picks that coincide then, less what coincides by chance
    plain_share : the same without transform and without shift
    """

    transform: str
    shift_diameters: tuple[float, float]
    share: float
    plain_share: float

    @property
    def is_mirrored(self) -> bool:
        """Whether the sets count x or y from different ends, or exchange them."""
        return self.transform != "identity"

    @property
    def is_shifted(self) -> bool:
        """Whether one set lies beside the other by more than pickers differ in their centres."""
        return float(np.hypot(*self.shift_diameters)) > NAMED_SHIFT_DIAMETERS


def offsets(pairs: Sequence[PickedPair], *, tolerance: float) -> NDArray[np.float64]:
    """(k, 2) from each of the first set's picks to its pick of the second set, in diameters, paired one-to-one.

    Parameters
    ----------
    tolerance : largest distance of two picks of one particle, in diameters
    """
    found = [np.empty((0, 2))]
    for one in pairs:
        matched = pair_points(one.first_xy_px, one.second_xy_px, max_distance=tolerance * one.diameter_px)
        found.append((one.second_xy_px[matched.second] - one.first_xy_px[matched.first]) / one.diameter_px)
    return np.concatenate(found)


def placement(pairs: Sequence[PickedPair], *, tolerance: float) -> Placement | None:
    """The change of frame under which most picks of two sets coincide; None where too few do to tell.

    For each mirroring, the vectors from each pick to all of the other set nearby are counted on a grid: picks of the
    same particles pile up at one place of it, all others spread evenly.
    """
    found = {name: _peak(pairs, name, tolerance) for name in TRANSFORMS}
    smaller = min(sum(len(one.first_xy_px) for one in pairs), sum(len(one.second_xy_px) for one in pairs))
    if not smaller:
        return None
    share = {name: peak[1] / smaller for name, peak in found.items() if peak is not None}
    if "identity" not in share:
        return None
    best = max(share, key=lambda name: share[name])
    if share[best] < share["identity"] + CERTAIN_SHARE:
        best = "identity"
    if share[best] < CERTAIN_SHARE or share[best] * smaller < FEWEST_PAIRS:
        return None
    peak = found[best]
    assert peak is not None
    plain = len(offsets(pairs, tolerance=tolerance)) / smaller
    return Placement(best, peak[0], float(share[best]), float(plain))


def _peak(pairs: Sequence[PickedPair], transform: str, tolerance: float) -> tuple[tuple[float, float], float] | None:
    """Where vectors between two sets pile up, in diameters, and how many more there are than elsewhere."""
    from scipy.ndimage import uniform_filter

    vectors = np.concatenate([np.empty((0, 2)), *(_vectors(one, transform) for one in pairs)])
    if not len(vectors):
        return ((0.0, 0.0), 0.0) if transform == "identity" else None
    cells = round(2 * REACH_DIAMETERS * _BINS_PER_TOLERANCE / tolerance)
    edges = np.linspace(-REACH_DIAMETERS, REACH_DIAMETERS, cells + 1)
    counts, _, _ = np.histogram2d(vectors[:, 0], vectors[:, 1], bins=(edges, edges))
    window = 2 * _BINS_PER_TOLERANCE
    piled = uniform_filter(counts, size=window, mode="constant") * window**2
    at = np.unravel_index(int(piled.argmax()), piled.shape)
    # of a window of even size the middle lies at the cell's lower edge
    middle = np.array([edges[at[0]], edges[at[1]]])
    is_near = (np.abs(vectors - middle) <= tolerance).all(axis=1)
    for _ in range(3):
        middle = np.median(vectors[is_near], axis=0)
        is_near = (np.abs(vectors - middle) <= tolerance).all(axis=1)
    by_chance = (~is_near).sum() * (2 * tolerance) ** 2 / ((2 * REACH_DIAMETERS) ** 2 - (2 * tolerance) ** 2)
    return (float(middle[0]), float(middle[1])), max(0.0, float(is_near.sum() - by_chance))


def _vectors(pair: PickedPair, transform: str) -> NDArray[np.float64]:
    """(k, 2) from every pick of the first set to all of the second, transformed, in a square about it; in diameters."""
    from scipy.spatial import cKDTree

    second = pair.second_xy_px
    if transform != "identity":
        if transform == "transpose":  # columns of a table, perhaps of an oblong image
            second = second[:, ::-1]
        elif pair.shape_yx is None or transformed_shape(transform, pair.shape_yx) != pair.shape_yx:
            return np.empty((0, 2))
        else:
            second = TRANSFORMS[transform](second, pair.shape_yx)
    if not len(second) or not len(pair.first_xy_px):
        return np.empty((0, 2))
    reach = REACH_DIAMETERS * pair.diameter_px
    near = cKDTree(pair.first_xy_px).query_ball_tree(cKDTree(second), reach, p=np.inf)
    first = np.repeat(np.arange(len(near)), [len(one) for one in near])
    of_second = np.concatenate([np.asarray(one, np.intp) for one in near])
    return np.asarray((second[of_second] - pair.first_xy_px[first]) / pair.diameter_px, np.float64)
