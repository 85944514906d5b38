"""Groups of points from several sets that mean the same object, at most one of each set, none in two groups.

The picks of several programs on one micrograph are the vertices of a k-partite graph, an edge joins two of different
programs whose boxes overlap, and what all agree on is a clique. Which cliques hold together best is an integer program,
as in REPIC (Cameron et al., Nature Methods 20, 2023): choose cliques that share no vertex, of the largest total weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABSENT = -1
"""In place of an index where a set has no point in a group."""
MINIMUM_OVERLAP = 0.3
"""Intersection over union from which on two boxes may be of one particle; REPIC's."""
MOST_CLIQUES = 200_000
"""In one component: beyond it the points are no picks of particles."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Cliques that share no point.

    Parameters
    ----------
    members : (g, k) int, for each group the index of its point in each of the k sets, `ABSENT` where it has none
    weight : (g,) float64
    overlap : (g,) float64, mean intersection over union of the boxes of each pair of members; 1 for one point alone
    is_optimal : whether the total weight is proven to be the largest; False where time ran out
    bound : no choice of cliques weighs more than this
    """

    members: NDArray[np.intp]
    weight: NDArray[np.float64]
    overlap: NDArray[np.float64]
    is_optimal: bool
    bound: float

    def __len__(self) -> int:
        return len(self.members)

    @property
    def size(self) -> NDArray[np.intp]:
        """(g,) members of each group."""
        return np.asarray((self.members != ABSENT).sum(axis=1), np.intp)


def box_overlap(
    offset_xy: NDArray[np.float64], first_side: NDArray[np.float64], second_side: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m,) intersection over union of upright squares whose centres lie `offset_xy` (m, 2) apart, sides in its unit."""
    reach = (first_side + second_side) / 2
    smaller = np.minimum(first_side, second_side)
    shared = np.clip(np.minimum(reach[:, None] - np.abs(offset_xy), smaller[:, None]), 0.0, None).prod(axis=1)
    return np.asarray(shared / (first_side**2 + second_side**2 - shared), np.float64)


def group_points(
    xy: Sequence[NDArray[np.float64]],
    confidence: Sequence[NDArray[np.float64]],
    side: Sequence[NDArray[np.float64]],
    *,
    smallest: int = 1,
    minimum_overlap: float = MINIMUM_OVERLAP,
    time_limit_seconds: float = 30.0,
) -> Groups:
    """The cliques of largest total weight that share no point.

    The weight of a clique of two points or more is the sum of the overlaps of its pairs, times their mean confidence:
    mean overlap x confidence, as in REPIC, times the number of pairs, so that a clique outweighs any that it contains
    and three that agree outweigh two. A point alone weighs nothing and joins no other, so it is left when all else is
    chosen.

    Parameters
    ----------
    xy : one array (n, 2) a set, in one unit
    confidence : (n,) of each point, 0 to 1
    side : (n,) of each point's square box, in the unit of `xy`, such as the particle's diameter
    smallest : groups of fewer points are left out; the number of sets gives REPIC's groups, of which all have one
    minimum_overlap : intersection over union that every pair of a group exceeds
    time_limit_seconds : of the integer program; a choice that is not proven to be the best is given after it

    Raises
    ------
    ValueError
        If the arrays do not fit together, or so many points lie in one place that they are no picks of particles.
    """
    graph = _graph(xy, confidence, side, minimum_overlap)
    cliques, weight, overlap = _cliques(graph, max(2, smallest))
    chosen, is_optimal, bound = _heaviest(cliques, weight, len(graph.set_of), time_limit_seconds)
    members = np.full((len(chosen), len(xy)), ABSENT, np.intp)
    for row, clique in enumerate(chosen):
        vertices = cliques[clique]
        members[row, graph.set_of[vertices]] = graph.index_of[vertices]
    taken = np.zeros(len(graph.set_of), bool)
    for clique in chosen:
        taken[cliques[clique]] = True
    lone = np.flatnonzero(~taken) if smallest <= 1 else np.empty(0, np.intp)
    alone = np.full((len(lone), len(xy)), ABSENT, np.intp)
    alone[np.arange(len(lone)), graph.set_of[lone]] = graph.index_of[lone]
    return Groups(
        members=np.concatenate([members, alone]),
        weight=np.concatenate([weight[chosen], np.zeros(len(lone))]),
        overlap=np.concatenate([overlap[chosen], np.ones(len(lone))]),
        is_optimal=is_optimal,
        bound=bound,
    )


# ------------------------------------------------------------------------------------------------------- the graph


@dataclass(frozen=True, eq=False)
class _Graph:
    """All points one after the other, and which pairs of different sets overlap."""

    set_of: NDArray[np.intp]
    index_of: NDArray[np.intp]
    confidence: NDArray[np.float64]
    overlap_of: dict[tuple[int, int], float]
    """By vertices, the smaller one first."""
    neighbours: list[list[int]]
    """Of each vertex, those of later sets."""


def _graph(
    xy: Sequence[NDArray[np.float64]],
    confidence: Sequence[NDArray[np.float64]],
    side: Sequence[NDArray[np.float64]],
    minimum_overlap: float,
) -> _Graph:
    if not len(xy) == len(confidence) == len(side) or not xy:
        raise ValueError(f"expected as many sets everywhere, got {len(xy)}, {len(confidence)} and {len(side)}")
    points = [np.asarray(one, np.float64).reshape(-1, 2) for one in xy]
    counts = [len(one) for one in points]
    if [len(one) for one in confidence] != counts or [len(one) for one in side] != counts:
        raise ValueError(f"expected a confidence and a side for each of {counts} points")
    first_of = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    overlap_of: dict[tuple[int, int], float] = {}
    neighbours: list[list[int]] = [[] for _ in range(first_of[-1])]
    for a, b in combinations(range(len(xy)), 2):
        first, second, overlap = _overlapping(points[a], points[b], side[a], side[b], minimum_overlap)
        for i, j, value in zip((first + first_of[a]).tolist(), (second + first_of[b]).tolist(), overlap, strict=True):
            overlap_of[i, j] = float(value)
            neighbours[i].append(j)
    return _Graph(
        set_of=np.repeat(np.arange(len(xy)), counts),
        index_of=np.concatenate([np.arange(count) for count in counts]).astype(np.intp),
        confidence=np.concatenate([np.asarray(one, np.float64) for one in confidence]),
        overlap_of=overlap_of,
        neighbours=neighbours,
    )


def _overlapping(
    first_xy: NDArray[np.float64],
    second_xy: NDArray[np.float64],
    first_side: NDArray[np.float64],
    second_side: NDArray[np.float64],
    minimum_overlap: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Indices of the pairs whose boxes overlap by more than `minimum_overlap`, and by how much."""
    from scipy.spatial import cKDTree

    nothing = np.empty(0, np.intp)
    if not len(first_xy) or not len(second_xy):
        return nothing, nothing, np.empty(0)
    first_side, second_side = np.asarray(first_side, np.float64), np.asarray(second_side, np.float64)
    reach = float(first_side.max() + second_side.max()) / 2
    near = cKDTree(first_xy).query_ball_tree(cKDTree(second_xy), reach, p=np.inf)
    first = np.repeat(np.arange(len(first_xy)), [len(one) for one in near])
    second = np.concatenate([np.asarray(sorted(one), np.intp) for one in near])
    overlap = box_overlap(first_xy[first] - second_xy[second], first_side[first], second_side[second])
    is_enough = overlap > minimum_overlap
    return first[is_enough], second[is_enough], overlap[is_enough]


def _cliques(graph: _Graph, smallest: int) -> tuple[list[list[int]], NDArray[np.float64], NDArray[np.float64]]:
    """Every clique of at least `smallest` points, its weight, and the mean overlap of its pairs."""
    cliques: list[list[int]] = []
    weight: list[float] = []
    mean_overlap: list[float] = []
    for vertex in range(len(graph.set_of)):
        for count, (clique, overlap) in enumerate(_grown([vertex], 0.0, graph.neighbours[vertex], graph)):
            if count > MOST_CLIQUES:
                raise ValueError(f"more than {MOST_CLIQUES} groups hold one point; are these picks of particles?")
            if len(clique) < smallest:
                continue
            pairs = len(clique) * (len(clique) - 1) // 2
            cliques.append(clique)
            weight.append(overlap * float(graph.confidence[clique].mean()))
            mean_overlap.append(overlap / pairs)
    return cliques, np.array(weight, np.float64), np.array(mean_overlap, np.float64)


def _grown(
    clique: list[int], overlap: float, common: Sequence[int], graph: _Graph
) -> Iterator[tuple[list[int], float]]:
    """All cliques that `clique` begins, itself left out if it is one point; `common` are the later neighbours of all.

    Neighbours lie in later sets, so no clique has two points of one set, and each comes once.
    """
    if len(clique) > 1:
        yield clique, overlap
    for vertex in common:
        added = sum(graph.overlap_of[one, vertex] for one in clique)
        later = set(graph.neighbours[vertex])
        yield from _grown([*clique, vertex], overlap + added, [one for one in common if one in later], graph)


# ------------------------------------------------------------------------------------------------------ the choice


def _heaviest(
    cliques: Sequence[Sequence[int]], weight: NDArray[np.float64], vertices: int, time_limit_seconds: float
) -> tuple[list[int], bool, float]:
    """Indices of the cliques of largest total weight that share no vertex; whether that is proven; and a bound."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if not cliques:
        return [], True, 0.0
    row = np.concatenate([np.asarray(one, np.intp) for one in cliques])
    column = np.repeat(np.arange(len(cliques)), [len(one) for one in cliques])
    holds = csr_array((np.ones(len(row)), (row, column)), shape=(vertices, len(cliques)))
    # cliques that compete with each other, directly or through others, form one small problem
    _, component = connected_components((holds.T @ holds), directed=False)
    heaviest: dict[int, int] = {}
    for clique in np.argsort(-weight, kind="stable").tolist():
        heaviest.setdefault(int(component[clique]), clique)
    union_size = np.zeros(component.max() + 1, np.intp)
    np.add.at(union_size, component[column][np.unique(row, return_index=True)[1]], 1)
    # where the heaviest clique holds all points of its component, all others lie within it and weigh less
    is_whole = {part: len(cliques[clique]) == union_size[part] for part, clique in heaviest.items()}
    chosen = [clique for part, clique in heaviest.items() if is_whole[part]]
    bound = float(weight[chosen].sum())
    left = np.flatnonzero([not is_whole[int(part)] for part in component])
    if not len(left):
        return sorted(chosen), True, bound
    solved, is_optimal, more = _solved(holds[:, left], weight[left], time_limit_seconds)
    return sorted([*chosen, *left[solved].tolist()]), is_optimal, bound + more


def _solved(holds: Any, weight: NDArray[np.float64], time_limit_seconds: float) -> tuple[NDArray[np.intp], bool, float]:
    """The integer program of the components in which cliques compete, in one call: it falls apart by itself."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    is_held = np.asarray(holds.sum(axis=1)).ravel() > 1
    result = milp(
        -weight,
        integrality=np.ones(len(weight)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(holds[is_held], -np.inf, 1),
        options={"time_limit": time_limit_seconds, "mip_rel_gap": 0.0},
    )
    greedy = _greedy(holds, weight)
    if result.x is None:  # not even a first choice within the time
        bound = -result.mip_dual_bound if result.mip_dual_bound is not None else float(weight.sum())
        return greedy, False, bound
    chosen = np.flatnonzero(result.x > 0.5)
    is_optimal = result.status == 0
    bound = float(weight[chosen].sum()) if is_optimal else -float(result.mip_dual_bound)
    if not is_optimal and weight[greedy].sum() > weight[chosen].sum():
        chosen = greedy
    return chosen, is_optimal, bound


def _greedy(holds: Any, weight: NDArray[np.float64]) -> NDArray[np.intp]:
    """From the heaviest clique down, each that shares no vertex with those before."""
    by_clique = holds.tocsc()
    taken = np.zeros(holds.shape[0], bool)
    chosen = []
    for clique in np.argsort(-weight, kind="stable").tolist():
        vertices = by_clique.indices[by_clique.indptr[clique] : by_clique.indptr[clique + 1]]
        if not taken[vertices].any():
            taken[vertices] = True
            chosen.append(clique)
    return np.array(sorted(chosen), np.intp)
