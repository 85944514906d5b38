"""One-to-one assignment between two sets of points: as many pairs as possible, then the smallest total cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

UNPAIRED = -1


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs that may be formed, as a sparse bipartite graph.

    Parameters
    ----------
    first, second : (m,) int, indices into the two sets
    cost : (m,) float64, >= 0
    count_first, count_second : sizes of the two sets
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    cost: NDArray[np.float64]
    count_first: int
    count_second: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """A one-to-one assignment.

    Parameters
    ----------
    first, second : (k,) int, indices of the paired elements, ascending in `first`
    cost : (k,) float64, the cost of each pair (the distance, for points)
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    cost: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


def candidates_within(
    first_xy: NDArray[np.float64], second_xy: NDArray[np.float64], *, max_distance: float
) -> Candidates:
    """Every pair from (n, 2) and (m, 2) points no further apart than `max_distance`; the cost is the distance."""
    from scipy.spatial import cKDTree

    if not max_distance >= 0:
        raise ValueError(f"max_distance is {max_distance}, expected a number >= 0")
    first_xy = np.asarray(first_xy, dtype=np.float64).reshape(-1, 2)
    second_xy = np.asarray(second_xy, dtype=np.float64).reshape(-1, 2)
    if len(first_xy) == 0 or len(second_xy) == 0:
        nothing = np.zeros(0, np.intp)
        return Candidates(nothing, nothing, np.zeros(0), len(first_xy), len(second_xy))
    # The tree's own distances may differ from ours in the last bit, so it only pre-selects.
    neighbours = cKDTree(second_xy).query_ball_point(first_xy, max_distance * (1 + 1e-9) + 1e-12, return_sorted=True)
    first = np.repeat(np.arange(len(first_xy)), [len(n) for n in neighbours])
    second = np.concatenate([np.asarray(n, dtype=np.intp) for n in neighbours])
    distance = np.hypot(*(first_xy[first] - second_xy[second]).T)
    is_near = distance <= max_distance
    return Candidates(first[is_near], second[is_near], distance[is_near], len(first_xy), len(second_xy))


def pair_points(first_xy: NDArray[np.float64], second_xy: NDArray[np.float64], *, max_distance: float) -> Pairs:
    """One-to-one assignment of points no further apart than `max_distance` (Hungarian).

    Parameters
    ----------
    first_xy, second_xy : (n, 2), (m, 2), in one unit
    max_distance : in the same unit; a pair at exactly this distance is allowed
    """
    return pair_candidates(candidates_within(first_xy, second_xy, max_distance=max_distance))


def pair_candidates(candidates: Candidates) -> Pairs:
    """The one-to-one subset with the most pairs and, among those, the smallest total cost.

    The graph falls apart into small groups of elements that compete with each other; each is solved by itself
    (Kuhn, Naval Research Logistics 2, 1955, as implemented by SciPy), so thousands of points cost milliseconds.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n, m = candidates.count_first, candidates.count_second
    if len(candidates.first) == 0:
        nothing = np.zeros(0, np.intp)
        return Pairs(nothing, nothing, np.zeros(0))
    edges = np.ones(len(candidates.first), dtype=np.int8)
    graph = csr_array((edges, (candidates.first, candidates.second + n)), shape=(n + m, n + m))
    _, group = connected_components(graph, directed=False)
    group_of_edge = group[candidates.first]
    order = np.argsort(group_of_edge, kind="stable")
    bounds = np.flatnonzero(np.diff(group_of_edge[order])) + 1
    chosen = [_solve_group(candidates, edge_index) for edge_index in np.split(order, bounds)]
    edge = np.concatenate(chosen)
    edge = edge[np.argsort(candidates.first[edge], kind="stable")]
    return Pairs(candidates.first[edge], candidates.second[edge], candidates.cost[edge])


def _solve_group(candidates: Candidates, edge: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of the chosen edges among those of one connected group."""
    from scipy.optimize import linear_sum_assignment

    if len(edge) == 1:
        return edge
    rows, row = np.unique(candidates.first[edge], return_inverse=True)
    columns, column = np.unique(candidates.second[edge], return_inverse=True)
    cost = candidates.cost[edge]
    # One forbidden pair costs more than any set of allowed ones, so the number of allowed pairs comes first.
    forbidden = 1.0 + 2.0 * min(len(rows), len(columns)) * float(cost.max())
    matrix = np.full((len(rows), len(columns)), forbidden)
    which_edge = np.full(matrix.shape, UNPAIRED, dtype=np.intp)
    matrix[row, column] = cost
    which_edge[row, column] = edge
    chosen = which_edge[linear_sum_assignment(matrix)]
    return np.asarray(chosen[chosen != UNPAIRED], dtype=np.intp)


def pair_one_by_one(candidates: Candidates) -> Iterator[int]:
    """Assign the first set's elements in index order, keeping every intermediate assignment optimal.

    After element `i` has been added, the elements `0..i` are assigned as `pair_candidates` would assign them alone, so
    one sweep gives the assignment at every score threshold. Adding an element leaves exactly one element newly
    unpaired (itself, or one that it displaced) or raises the number of pairs by one; an unpaired element stays so.

    Yields
    ------
    For each element in order, the element that became unpaired, or `UNPAIRED` when the number of pairs grew.

    Notes
    -----
    Successive shortest augmenting paths with potentials (Jonker & Volgenant, Computing 38, 1987); every element of the
    first set also has a private stand-in partner that costs more than any real one.
    """
    assignment = _GrowingAssignment(candidates)
    for element in range(candidates.count_first):
        yield assignment.add(element)


@dataclass(frozen=True)
class _Path:
    """The cheapest way to seat a new element: to a free partner `end`, or by leaving `displaced` without one."""

    end: int
    displaced: int
    reached_from: dict[int, int]


class _GrowingAssignment:
    """The optimal assignment of the elements added so far, with the dual potentials that prove it optimal."""

    def __init__(self, candidates: Candidates) -> None:
        n, m = candidates.count_first, candidates.count_second
        self.stand_in_cost = 1.0 + 2.0 * (n + m) * float(candidates.cost.max(initial=0.0))
        self.partners: list[list[tuple[int, float]]] = [[] for _ in range(n)]
        edges = (candidates.first.tolist(), candidates.second.tolist(), candidates.cost.tolist())
        for first, second, cost in zip(*edges, strict=True):
            self.partners[first].append((second, cost))
        self.owner: dict[int, int] = {}  # second -> first
        self.partner: dict[int, int] = {}  # first -> second, for the paired ones
        self.first_potential = [0.0] * n
        self.second_potential = [0.0] * m

    def add(self, new: int) -> int:
        """Seat `new`; the element that is left unpaired by it, or `UNPAIRED`."""
        path = self._cheapest_path(new)
        end, unpaired = path.end, UNPAIRED
        if end == UNPAIRED:
            unpaired = path.displaced
            if unpaired == new:
                return new
            end = self.partner.pop(unpaired)
        while True:  # hand partners along the path, from its end back to the new element
            first = path.reached_from[end]
            released = self.partner.get(first, UNPAIRED)
            self.owner[end], self.partner[first] = first, end
            if first == new:
                return unpaired
            end = released

    def _cheapest_path(self, new: int) -> _Path:
        """Dijkstra over reduced costs from `new`, until a free partner or the cheapest stand-in is reached."""
        distance: dict[int, float] = {}
        reached_from: dict[int, int] = {}
        settled: dict[int, float] = {}
        visited = {new: 0.0}
        heap: list[tuple[float, int]] = []
        current, at = new, 0.0
        displaced, length = new, self.stand_in_cost - self.first_potential[new]
        end = UNPAIRED
        while True:
            for second, cost in self.partners[current]:
                through = at + cost - self.first_potential[current] - self.second_potential[second]
                if second not in settled and through < distance.get(second, np.inf):
                    distance[second], reached_from[second] = through, current
                    heappush(heap, (through, second))
            while heap and heap[0][1] in settled:
                heappop(heap)
            if not heap or heap[0][0] >= length:
                break
            at, nearest = heappop(heap)
            settled[nearest] = at
            if nearest not in self.owner:
                end, length = nearest, at
                break
            current = self.owner[nearest]
            visited[current] = at
            if at + self.stand_in_cost - self.first_potential[current] < length:
                displaced, length = current, at + self.stand_in_cost - self.first_potential[current]
        for first, when in visited.items():
            self.first_potential[first] += length - when
        for second, when in settled.items():
            self.second_potential[second] -= length - when
        return _Path(end, displaced, reached_from)
