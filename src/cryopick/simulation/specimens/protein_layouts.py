"""Where the lobes of a made-up protein sit, how symmetry copies them, and whether they make one piece.

A layout is a handful of ellipsoidal lobes (the domains of one subunit) and the symmetry that copies them. It has no
texture; `cryopick.simulation.specimens.residues` fills it with secondary structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

MEAN_BUMP = 1.04  # how far the rough surface of a lobe sticks out of its ellipsoid where it is outermost


@dataclass(frozen=True, eq=False)
class Belt:
    """Lipid or detergent around a membrane part: an elliptic cylinder (nanodisc) or ellipsoid (micelle) about z.

    Parameters
    ----------
    center_z, radius, half_thickness : Å once the layout is scaled
    is_micelle : rounded rim instead of a cut disc
    """

    center_z: float
    radius: float
    half_thickness: float
    is_micelle: bool


@dataclass(frozen=True, eq=False)
class Layout:
    """Ellipsoidal lobes of one subunit and the rotations that make the whole particle of it.

    Parameters
    ----------
    center : (k, 3), `(x, y, z)`
    semi_axes : (k, 3)
    frame : (k, 3, 3), rows are the directions of the semi-axes
    contrast : (k,), 1 for protein
    operators : (m, 3, 3) rotations, the identity among them
    belt : of a membrane protein, else None
    """

    center: Array
    semi_axes: Array
    frame: Array
    contrast: Array
    operators: Array
    belt: Belt | None = None

    def surface_points(self) -> Array:
        """Points on every lobe of every copy, enough to measure the particle."""
        points = self._lobe_points(MEAN_BUMP).reshape(-1, 3)
        return np.asarray(np.einsum("mij,pj->mpi", self.operators, points).reshape(-1, 3))

    def _lobe_points(self, factor: float) -> Array:
        """(k, 26, 3) on the surfaces of the subunit's lobes, blown up by a factor."""
        steps = np.array([-1.0, 0.0, 1.0])
        direction = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
        direction = direction[np.any(direction != 0, axis=1)]
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        local = direction * self.semi_axes[:, None] * factor
        return np.asarray(np.einsum("kpa,kax->kpx", local, self.frame) + self.center[:, None])

    def is_connected(self) -> bool:
        """True if lobes overlap into one piece, copies included."""
        k, m = len(self.center), len(self.operators)
        probes = np.concatenate([self._lobe_points(0.95), self.center[:, None]], axis=1)  # (k, 27, 3)
        # A copy of a lobe holds a point if the lobe holds the point turned back
        turned = np.einsum("mji,kpj->mkpi", self.operators, probes)
        local = np.einsum("lai,mkpli->mkpla", self.frame, turned[:, :, :, None] - self.center) / self.semi_axes
        touches = ((local**2).sum(axis=-1) < 1).any(axis=2)  # (m, k, k): lobe k of the subunit, lobe l of copy m
        copy, first, second = np.nonzero(touches)
        # The same contact between every pair of copies that is related in the same way: h to h times copy
        products = np.einsum("hij,cjk->hcik", self.operators, self.operators[copy]).reshape(-1, 9)
        partner = cKDTree(self.operators.reshape(-1, 9)).query(products)[1].reshape(m, -1)
        start = (np.arange(m)[:, None] * k + first).ravel()
        graph = coo_array((np.ones(start.size), (start, (partner * k + second).ravel())), shape=(m * k, m * k))
        return int(connected_components(graph, directed=False)[0]) == 1

    def scaled(self, factor: float) -> Layout:
        """All lengths times a factor; the belt keeps its thickness, which the lipid fixes."""
        belt = None
        if self.belt is not None:
            belt = replace(self.belt, center_z=self.belt.center_z * factor, radius=self.belt.radius * factor)
        return replace(self, center=self.center * factor, semi_axes=self.semi_axes * factor, belt=belt)


def largest_extent(points: NDArray[np.floating]) -> float:
    """The largest distance between two of the points (n, 3), n at least 4 and not all in one plane."""
    hull = points[ConvexHull(points).vertices]
    return float(pdist(hull).max())


def symmetry_operators(group: str) -> Array:
    """(m, 3, 3) rotations of a point group in Schoenflies notation: C4, D7, T, O, I; the n-fold axis along z."""
    return np.asarray(Rotation.create_group(group).as_matrix())
