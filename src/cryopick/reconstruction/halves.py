"""Two half sets that share nothing, so that their agreement means something."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cryopick.errors import InputError

FEWEST_MICROGRAPHS = 8
"""From so many micrographs on whole ones go to either half; with fewer, groups of particles whose boxes overlap."""
_LARGEST_GROUP = 0.25  # of all particles; a larger group cannot be balanced and is cut


def split_half_sets(
    micrograph: ArrayLike, centres_px: ArrayLike, box_px: float, n_micrographs: int, seed: int
) -> NDArray[np.int64]:
    """Give every particle half set 1 or 2, so that no pixel of a micrograph serves both.

    With 8 or more micrographs whole micrographs are dealt out by the seed alone, so that all runs over the same
    micrographs share the split. With fewer, groups of particles whose boxes overlap stay together. Where such a group
    holds more than a quarter of all particles (crowded micrographs), it is cut across its longer side; the boxes along
    that cut are the only ones that share pixels.

    Parameters
    ----------
    micrograph : (n,) int, 0 to `n_micrographs` - 1
    centres_px : (n, 2)
    box_px : edge of what counts as a particle's own pixels
    n_micrographs : of the whole validation, picked or not
    seed : of the split

    Returns
    -------
    half : (n,) 1 or 2

    Raises
    ------
    InputError
        If a half set stays empty.
    """
    which = np.asarray(micrograph, dtype=np.int64).reshape(-1)
    centres = np.asarray(centres_px, dtype=np.float64).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    if len(which) and not (which.min() >= 0 and which.max() < n_micrographs):
        raise InputError(f"particles of micrographs {which.min()} to {which.max()}, but there are {n_micrographs}")
    if n_micrographs >= FEWEST_MICROGRAPHS:
        half_of = np.empty(n_micrographs, dtype=np.int64)
        half_of[rng.permutation(n_micrographs)] = 1 + np.arange(n_micrographs) % 2
        half = half_of[which]
    else:
        half = _by_groups(overlapping_groups(which, centres, box_px), rng)
    for number in (1, 2):
        if not (half == number).any():
            raise InputError(
                f"{len(half)} particles give no two half sets: half {number} stays empty; more particles or more "
                "micrographs are needed"
            )
    return half


def overlapping_groups(
    micrograph: NDArray[np.int64], centres_px: NDArray[np.float64], box_px: float
) -> list[NDArray[np.int64]]:
    """Rows of particles that belong together, because boxes overlap; none holds more than a quarter of all."""
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for number in np.unique(micrograph):
        rows = np.flatnonzero(micrograph == number)
        found = cKDTree(centres_px[rows]).query_pairs(box_px * (1 - 1e-9), p=np.inf, output_type="ndarray")
        pairs.append(rows[found.reshape(-1, 2)])
    first, second = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(micrograph), len(micrograph)))
    label = connected_components(graph, directed=False)[1]
    waiting = [np.flatnonzero(label == one) for one in np.unique(label)]
    groups = []
    while waiting:
        rows = waiting.pop()
        if len(rows) < 2 or len(rows) <= _LARGEST_GROUP * len(micrograph):
            groups.append(rows)
            continue
        along = int(np.argmax(np.ptp(centres_px[rows], axis=0)))
        order = rows[np.argsort(centres_px[rows, along], kind="stable")]
        waiting += [order[: len(order) // 2], order[len(order) // 2 :]]
    return groups


def _by_groups(groups: list[NDArray[np.int64]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Large groups first, each to the half that has less; equal ones in random order."""
    half = np.zeros(sum(len(rows) for rows in groups), dtype=np.int64)
    count = [0, 0]
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    for rows in sorted(shuffled, key=len, reverse=True):
        smaller = int(count[1] < count[0])
        half[rows] = 1 + smaller
        count[smaller] += len(rows)
    return half
