"""Clusters of latent vectors: those of the training set, those of one micrograph, and which of them is the particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FITTED_VECTORS = 4096
"""A micrograph's clusters are fitted on so many of its vectors, evenly taken; they do not move with more."""
CENTRAL_SHARE = 0.1
"""Overlap is counted on the middle of the map, without this share of its side at each border."""


class HandOver(Protocol):
    """A rule for which new cluster the particle's old one became; see `hand_over`."""

    def __call__(self, labels: NDArray[np.intp], was_particle: NDArray[np.bool_], *, count: int) -> int | None:
        """The new cluster, None where no cell was a particle."""
        ...


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centres in latent space.

    Parameters
    ----------
    centres : (k, c) float32
    particle : which of them is the particle
    """

    centres: NDArray[np.float32]
    particle: int

    def squared_distances(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, k) squared distance of each of (n, c) vectors to each centre."""
        cross = vectors @ self.centres.T
        lengths = np.einsum("nc,nc->n", vectors, vectors)
        squared = lengths[:, None] - 2 * cross + np.einsum("kc,kc->k", self.centres, self.centres)
        return np.asarray(np.maximum(squared, 0), np.float32)

    def labels(self, vectors: NDArray[np.float32]) -> NDArray[np.intp]:
        """(n,) the nearest centre."""
        return np.asarray(np.argmin(self.squared_distances(vectors), axis=1), np.intp)

    def likest(self, centres: NDArray[np.float32]) -> int:
        """Which of (k, c) other centres is nearest to the particle's, against its distance to the nearest other one."""
        squared = self.squared_distances(centres)
        others = np.delete(squared, self.particle, axis=1)
        nearest_other = others.min(axis=1) if others.shape[1] else np.float32(0)
        return int(np.argmin(squared[:, self.particle] - nearest_other))

    def membership(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) in [0, 1]: how much nearer the particle's centre is than the others.

        The posterior of the particle's cluster if all were equal spheres with the spread that the vectors have.
        """
        squared = self.squared_distances(vectors)
        spread = max(float(np.mean(squared.min(axis=1))), 1e-12)
        # with the variance of one dimension the posterior of a hundred would be a step
        weight = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / (0.25 * spread))
        return np.asarray(weight[:, self.particle] / weight.sum(axis=1), np.float32)


def fit_centres(vectors: NDArray[np.float32], *, count: int, seed: int = 0) -> NDArray[np.float32]:
    """(k, c) centres of k-means: one k-means++ start, Lloyd, at most 300 iterations, as published.

    No more centres than there are distinct vectors.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(vectors) == 0:
        raise ValueError("no vectors to cluster")
    if len(vectors) <= count:
        return np.unique(vectors, axis=0).astype(np.float32)
    distinct = np.unique(vectors[:: max(1, len(vectors) // 256)], axis=0)
    if len(distinct) < count:
        distinct = np.unique(vectors, axis=0)
    count = min(count, len(distinct))
    with threadpool_limits(1, user_api="openmp"):  # its sums are per thread, and their order decides the last digits
        fitted = KMeans(count, n_init=1, random_state=seed, max_iter=300, tol=1e-4).fit(vectors)
    return np.asarray(fitted.cluster_centers_, np.float32)


def evenly(vectors: NDArray[np.float32], count: int = FITTED_VECTORS) -> NDArray[np.float32]:
    """About `count` of the vectors, at equal steps that visit all columns of a map."""
    if len(vectors) <= count:
        return vectors
    index = (np.arange(count) * (len(vectors) / count)).astype(np.intp)
    return vectors[index]


def hand_over(labels: NDArray[np.intp], was_particle: NDArray[np.bool_], *, count: int) -> int | None:
    """The new cluster that the particle's old one became.

    Of the two new clusters that share most cells with the old one the first is it, unless the second consists of it to
    a larger part. Shared cells are counted in the middle of the map; where there are none, on all of it.

    Parameters
    ----------
    labels : (h, w) new clusters
    was_particle : (h, w) cells of the particle's cluster before
    count : new clusters; some may be empty

    Returns
    -------
    cluster : None where no cell was a particle
    """
    margins = [int(CENTRAL_SHARE * side) for side in labels.shape]
    middle = tuple(slice(margin, side - margin) for margin, side in zip(margins, labels.shape, strict=True))
    size = np.bincount(labels.ravel(), minlength=count)
    overlap = np.bincount(labels[middle][was_particle[middle]], minlength=count)
    if not overlap.any():
        overlap = np.bincount(labels[was_particle], minlength=count)
    if not overlap.any():
        return None
    first, *rest = (int(c) for c in np.argsort(-overlap, kind="stable"))
    if rest and overlap[rest[0]] > 0 and size[first] / overlap[first] > size[rest[0]] / overlap[rest[0]]:
        return rest[0]
    return first


def greatest_overlap(labels: NDArray[np.intp], was_particle: NDArray[np.bool_], *, count: int) -> int | None:
    """The new cluster that shares most cells with the particle's old one, as Algorithm 2 of the article has it.

    Parameters and result as of `hand_over`.
    """
    overlap = np.bincount(labels[was_particle], minlength=count)
    return int(np.argmax(overlap)) if overlap.any() else None


NO_CLUSTER = -1
"""What `hand_over_as_released` may answer: a cluster without any cell."""


def hand_over_as_released(labels: NDArray[np.intp], was_particle: NDArray[np.bool_], *, count: int) -> int | None:
    """As `hand_over`, but as the program ranks the new clusters, faults included.

    It ranks cells of the old cluster by their new one, all other cells counted as one more kind, and takes that kind
    for the commonest. Where it is not, a wrong cluster follows, or `NO_CLUSTER` if it comes second. Parameters and
    result as of `hand_over`; None also where all cells are of one new cluster and of the old one.
    """
    margins = [int(CENTRAL_SHARE * side) for side in labels.shape]
    middle = tuple(slice(margin, side - margin) for margin, side in zip(margins, labels.shape, strict=True))
    kind = np.where(was_particle, labels, NO_CLUSTER)
    found, cells = np.unique(kind[middle], return_counts=True)
    if len(found) == 1:
        found, cells = np.unique(kind, return_counts=True)
    if len(found) == 1:
        return None
    size = np.bincount(labels.ravel(), minlength=count)  # its last entry is that of NO_CLUSTER too, as in the program
    _, *ranked = np.argsort(cells, kind="stable")[::-1]
    first = ranked[0]
    if len(ranked) > 1 and size[found[first]] / cells[first] > size[found[ranked[1]]] / cells[ranked[1]]:
        first = ranked[1]
    return int(found[first])


def refine_as_published(
    vectors: NDArray[np.float32], start: Clusters, *, counts: Sequence[int], rule: HandOver, seed: int = 0
) -> list[Clusters]:
    """As `refine`, but fitted on all vectors, and where no cell is the particle's the clusters stay as they were.

    Parameters
    ----------
    rule : `greatest_overlap` or `hand_over_as_released`
    """
    shape, flat = vectors.shape[:2], vectors.reshape(-1, vectors.shape[2])
    stages = [start]
    for count in counts:
        before = stages[-1]
        was_particle = (before.labels(flat) == before.particle).reshape(shape)
        centres = fit_centres(flat, count=count, seed=seed)
        particle = rule(Clusters(centres, 0).labels(flat).reshape(shape), was_particle, count=len(centres))
        stages.append(before if particle is None else Clusters(centres, particle))
    return stages


def refine(vectors: NDArray[np.float32], start: Clusters, *, counts: Sequence[int], seed: int = 0) -> list[Clusters]:
    """Clusters of one micrograph, more and more of them, the particle's handed on by overlap (Algorithm 2).

    Parameters
    ----------
    vectors : (h, w, c) of the micrograph
    start : of the training set
    counts : numbers of clusters, in order; published 3, 4, 5

    Returns
    -------
    stages : `start`, then one per count; where a stage's predecessor finds no particle cell, the likest of its clusters
        becomes the particle's
    """
    shape, flat = vectors.shape[:2], vectors.reshape(-1, vectors.shape[2])
    sample = evenly(flat)
    stages = [start]
    for count in counts:
        before = stages[-1]
        centres = fit_centres(sample, count=count, seed=seed)
        labels = Clusters(centres, 0).labels(flat).reshape(shape)
        was_particle = (before.labels(flat) == before.particle).reshape(shape)
        particle = hand_over(labels, was_particle, count=len(centres))
        if particle is None:
            particle = before.likest(centres)
        stages.append(Clusters(centres, particle))
    return stages


def evidence_of(vectors: NDArray[np.float32], stages: Sequence[Clusters]) -> NDArray[np.float32]:
    """(h, w) in [0, 1]: mean membership in the particle's cluster over the stages of a refinement."""
    flat = vectors.reshape(-1, vectors.shape[2])
    total = sum((stage.membership(flat) for stage in stages), np.zeros(len(flat), np.float32))
    return np.asarray(total / len(stages), np.float32).reshape(vectors.shape[:2])


def particle_cluster(labels: NDArray[np.intp], is_particle: NDArray[np.bool_], *, count: int) -> tuple[int, float]:
    """Which cluster is the particle, and by what margin, from cells of known truth (simulated, or a reference mask).

    The one whose share among particle cells exceeds its share among the others most; that is the margin.

    Raises
    ------
    ValueError
        If all cells are of one kind.
    """
    if is_particle.all() or not is_particle.any():
        raise ValueError("cells of particles and others are needed to tell their clusters apart")
    inside = np.bincount(labels[is_particle], minlength=count) / is_particle.sum()
    outside = np.bincount(labels[~is_particle], minlength=count) / (~is_particle).sum()
    best = int(np.argmax(inside - outside))
    return best, float(inside[best] - outside[best])


# -------------------------------------------------------------------------------------------------- smoothing the map


def smooth_map(vectors: NDArray[np.float32], *, width: int = 3) -> NDArray[np.float32]:
    """Mean of the `width` x `width` vectors around each, fewer at the borders: nothing shifted, nothing zeroed.

    Parameters
    ----------
    vectors : (h, w, c)
    width : odd
    """
    if width % 2 == 0:
        raise ValueError(f"width is {width}, expected an odd number: an even window has no middle")
    if width == 1:
        return vectors
    half = width // 2
    for axis in (0, 1):
        size = vectors.shape[axis]
        total, count = vectors.copy(), np.ones(size, np.float32)
        for offset in range(1, min(half, size - 1) + 1):
            here, there = [slice(None)] * 3, [slice(None)] * 3
            here[axis], there[axis] = slice(0, size - offset), slice(offset, size)
            total[tuple(here)] += vectors[tuple(there)]
            total[tuple(there)] += vectors[tuple(here)]
            count[: size - offset] += 1
            count[offset:] += 1
        vectors = total / count.reshape([-1 if i == axis else 1 for i in range(3)])
    return vectors


def smooth_as_published(vectors: NDArray[np.float32], *, diameter_512: float) -> NDArray[np.float32]:
    """The program's mean over an even window, which moves everything by half a cell; its border cells stay zero.

    Parameters
    ----------
    vectors : (h, w, c)
    diameter_512 : particle diameter, pixels of a map of 512 x 512
    """
    width = 4 if int(diameter_512 / 8) >= 4 else 2
    half = width // 2
    out = np.zeros_like(vectors)
    height, across = vectors.shape[:2]
    if min(height, across) <= width:
        return out
    total = np.zeros((height - width, across - width, vectors.shape[2]), np.float32)
    for row in range(width):
        for column in range(width):
            total += vectors[row : row + height - width, column : column + across - width]
    out[half : height - half, half : across - half] = total / width**2
    return out
