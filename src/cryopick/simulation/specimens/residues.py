"""Fills a layout of lobes with pseudo-residues in packed helices and sheets: the texture of protein at 8 to 20 Å."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.simulation.specimens.protein_layouts import Belt, Layout

Array = NDArray[np.float64]

RESIDUE_VOLUME_ANGSTROM3 = 135.0  # mean residue (110 g/mol) at 1.35 g/cm^3
BACKBONE_SHARE = 0.45  # of a residue's contrast: N, CA, C, O with their hydrogens, by the tables of `specimen`

_FOLD_SPACING = 30.0  # Å between the middles of folding units, about 200 residues each
_BLOCK_RADIUS = 29.0  # Å, reaches the farthest corner of a unit's cell
_HELIX_SPACING = 10.2  # Å between packed helices; with 1.5 Å rise per residue this gives 135 Å^3 per residue
_STRAND_SPACING, _SHEET_SPACING, _STRAND_RISE = 4.8, 8.6, 3.3  # Å, likewise
_CLEFT = 2.5  # Å, mean width of the solvent between folding units
_CAVITIES = 0.08  # share of folding units left out of a large lobe
_FEWEST_UNITS_WITH_CAVITIES = 6
_BLOCKS = 6  # different folding units per protein
_MOST_RESIDUES = 80_000  # beyond it residues are merged into larger ones
_BELT_SPACING = 6.0  # Å between beads of lipid
_ROUGHNESS_WAVES = 6
_REACH = 1.3  # in semi-axes: no bump of a lobe sticks out farther


@dataclass(frozen=True, eq=False)
class Beads:
    """Points that stand for protein or lipid.

    Parameters
    ----------
    xyz_angstrom : (n, 3)
    volume_angstrom3 : (n,), volume that each stands for, times its contrast relative to protein
    grain : linear size of a bead relative to half a residue; above 1 only in particles of very many residues
    """

    xyz_angstrom: Array
    volume_angstrom3: Array
    grain: float


def fill_layout(rng: np.random.Generator, layout: Layout) -> Beads:
    """Beads of all copies of a layout.

    Parameters
    ----------
    rng : source of randomness
    layout : in Å

    Returns
    -------
    beads : two per residue (backbone, side chain), then those of the belt
    """
    lobe_volume = 4 / 3 * math.pi * layout.semi_axes.prod(axis=1)
    expected = lobe_volume.sum() * len(layout.operators) / RESIDUE_VOLUME_ANGSTROM3
    grain = max(1.0, (expected / _MOST_RESIDUES) ** (1 / 3))
    blocks = [_folding_unit(rng, _BLOCK_RADIUS) * grain for _ in range(_BLOCKS)]
    # Copies of lobes that can reach into the subunit; the subunit's own come first
    lobes = _neighbour_lobes(layout)
    roughness = _Roughness(rng, len(layout.center))
    points, weights = [], []
    for index in range(len(layout.center)):
        pair = _fill_lobe(rng, layout, index, blocks=blocks, spacing=_FOLD_SPACING * grain)  # (n, 2, 3)
        owner, closeness = _nearest_lobe(pair[:, 0], lobes)
        limit = roughness(pair[:, 0] - layout.center[index], index)
        kept = pair[(owner == index) & (closeness < limit)]
        share = np.array([BACKBONE_SHARE, 1 - BACKBONE_SHARE])
        weight = layout.contrast[index] * RESIDUE_VOLUME_ANGSTROM3 * grain**3 * np.tile(share, len(kept))
        points.append(kept.reshape(-1, 3))
        weights.append(weight)
    subunit, subunit_weight = np.concatenate(points), np.concatenate(weights)
    xyz = np.einsum("mij,pj->mpi", layout.operators, subunit).reshape(-1, 3)
    weight = np.tile(subunit_weight, len(layout.operators))
    if layout.belt is not None:
        lipid, lipid_weight = _fill_belt(rng, layout.belt, xyz)
        xyz, weight = np.concatenate([xyz, lipid]), np.concatenate([weight, lipid_weight])
    return Beads(xyz, weight, grain)


def _folding_unit(rng: np.random.Generator, radius: float) -> Array:
    """A ball of residues in parallel helices or stacked sheets: (n, 2, 3), backbone and side chain of each."""
    is_helical = rng.random() < 0.6
    reach = np.arange(-math.ceil(radius / _STRAND_SPACING), math.ceil(radius / _STRAND_SPACING) + 1)
    i, j = (grid.ravel().astype(np.float64) for grid in np.meshgrid(reach, reach))
    if is_helical:
        axis_x, axis_y = _HELIX_SPACING * (i + 0.5 * j), _HELIX_SPACING * math.sqrt(0.75) * j
        rise, turn, backbone_radius, side_radius = 1.5, math.radians(100), 2.3, 5.2
    else:
        axis_x, axis_y = _STRAND_SPACING * i, _SHEET_SPACING * j
        rise, turn, backbone_radius, side_radius = _STRAND_RISE, math.pi, 0.8, 2.6
    is_near = np.hypot(axis_x, axis_y) < radius
    axis = np.stack([axis_x[is_near], axis_y[is_near]], axis=1)
    axis += rng.normal(0, 0.5, size=axis.shape)
    step = np.arange(-int(radius / rise), int(radius / rise) + 1)
    z: Array = rise * (step + rng.uniform(0, 1, size=(len(axis), 1)))  # (rods, residues)
    start = rng.uniform(0, 2 * math.pi, size=(len(axis), 1)) if is_helical else np.full((len(axis), 1), math.pi / 2)
    angle = start + turn * step
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (rods, residues, 2)
    pair = np.empty((*z.shape, 2, 3))
    for which, distance in enumerate((backbone_radius, side_radius)):
        pair[:, :, which, :2] = axis[:, None] + distance * circle
        pair[:, :, which, 2] = z
    # Turns and loops: runs of residues that leave their rod
    is_loop = np.sin(2 * math.pi * step / rng.uniform(12, 22, size=(len(axis), 1)) + rng.uniform(0, 6.3)) > 0.93
    pair += rng.normal(0, 0.4, size=pair.shape) + is_loop[:, :, None, None] * rng.normal(0, 2.0, size=pair.shape)
    pair = pair.reshape(-1, 2, 3)
    return np.asarray(pair[np.linalg.norm(pair[:, 0], axis=1) < radius])


def _fill_lobe(rng: np.random.Generator, layout: Layout, index: int, *, blocks: list[Array], spacing: float) -> Array:
    """Residues that cover one lobe generously: folding units on a shaken cubic lattice."""
    reach = layout.semi_axes[index] * _REACH
    count = np.maximum(1, np.round(2 * reach / spacing)).astype(int)
    steps = [(np.arange(c) - (c - 1) / 2) * 2 * r / c for c, r in zip(count, reach, strict=True)]
    local = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    if len(local) > 1:
        local = local + rng.uniform(-1, 1, size=local.shape) * np.minimum(spacing / 3, reach / 2)
        local = local[np.linalg.norm(local / (reach + spacing / 3), axis=1) < 1]
    middle = local @ layout.frame[index] + layout.center[index]
    turns = euler_to_matrix(random_rotations(len(middle), rng))
    chosen = rng.integers(0, len(blocks), size=len(middle))
    parts = [blocks[b] @ turn.T + point for b, turn, point in zip(chosen, turns, middle, strict=True)]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    pair = np.concatenate(parts)
    is_near = np.linalg.norm((pair[:, 0] - layout.center[index]) @ layout.frame[index].T / reach, axis=1) < 1
    pair, owner = pair[is_near], owner[is_near]
    if len(middle) == 1:
        return np.asarray(pair)
    distance, nearest = cKDTree(middle).query(pair[:, 0], k=2)
    gap = rng.exponential(_CLEFT, size=len(middle))
    is_present = rng.random(len(middle)) >= _CAVITIES * (len(middle) > _FEWEST_UNITS_WITH_CAVITIES)
    is_own = (nearest[:, 0] == owner) & (distance[:, 1] - distance[:, 0] > gap[owner])
    return np.asarray(pair[is_own & is_present[owner]])


class _Lobes:
    """Ellipsoids as arrays: transforms that turn each into the unit ball."""

    def __init__(self, center: Array, whiten: Array) -> None:
        self.center, self.whiten = center, whiten


def _neighbour_lobes(layout: Layout) -> _Lobes:
    center = np.einsum("mij,kj->mki", layout.operators, layout.center)  # (m, k, 3)
    frame = np.einsum("mij,kaj->mkai", layout.operators, layout.frame)
    whiten = frame / layout.semi_axes[None, :, :, None]  # (m, k, 3, 3)
    first = int(np.argmax(np.trace(layout.operators, axis1=1, axis2=2)))  # the identity
    order = np.concatenate([[first], np.delete(np.arange(len(layout.operators)), first)])
    center, whiten = center[order].reshape(-1, 3), whiten[order].reshape(-1, 3, 3)
    k = len(layout.center)
    reach = layout.semi_axes.max(axis=1)
    gap = np.linalg.norm(center[:, None] - layout.center, axis=2) - 1.4 * reach
    is_near = (gap < 1.4 * np.tile(reach, len(order))[:, None]).any(axis=1)
    is_near[:k] = True
    return _Lobes(center[is_near], whiten[is_near])


def _nearest_lobe(xyz: Array, lobes: _Lobes) -> tuple[NDArray[np.int64], Array]:
    """For each point the lobe it is deepest in, and how far out in it lies (1 at the surface)."""
    best = np.full(len(xyz), np.inf, dtype=np.float32)
    owner = np.zeros(len(xyz), dtype=np.int64)
    points = xyz.astype(np.float32)
    for index, (center, whiten) in enumerate(zip(lobes.center, lobes.whiten, strict=True)):
        relative = (points - center.astype(np.float32)) @ whiten.T.astype(np.float32)
        square = np.einsum("pi,pi->p", relative, relative)
        is_better = square < best
        best[is_better] = square[is_better]
        owner[is_better] = index
    return owner, np.sqrt(best).astype(np.float64)


class _Roughness:
    """A bumpy surface: the lobe's limit, 1 on average, as a smooth random function of place."""

    def __init__(self, rng: np.random.Generator, lobes: int) -> None:
        direction = rng.normal(size=(_ROUGHNESS_WAVES, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self._wave = direction * (2 * math.pi / rng.uniform(18, 70, size=(_ROUGHNESS_WAVES, 1)))
        self._phase = rng.uniform(0, 2 * math.pi, size=(lobes, _ROUGHNESS_WAVES))
        self._amplitude = rng.uniform(0.05, 0.18)

    def __call__(self, relative: Array, lobe: int) -> Array:
        bump = np.sin(relative @ self._wave.T + self._phase[lobe]).sum(axis=1)
        return np.asarray(1 + self._amplitude * np.clip(bump, -2.5, 2.5) / math.sqrt(_ROUGHNESS_WAVES / 2) - 0.02)


def _fill_belt(rng: np.random.Generator, belt: Belt, protein: Array) -> tuple[Array, Array]:
    """Beads of lipid or detergent where no protein is: heads denser, tails thinner than protein."""
    radius, half = belt.radius, belt.half_thickness
    steps = [np.arange(-extent, extent + 1e-6, _BELT_SPACING) for extent in (radius, radius, half)]
    xyz = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    xyz = xyz + rng.uniform(-0.4, 0.4, size=xyz.shape) * _BELT_SPACING
    across = np.hypot(xyz[:, 0], xyz[:, 1]) / radius
    depth = np.abs(xyz[:, 2]) / half
    outside = np.hypot(across, depth * 0.75) if belt.is_micelle else np.maximum(across, depth)
    is_head = (outside > 0.85) if belt.is_micelle else (depth > 0.7)
    xyz[:, 2] += belt.center_z
    is_free = (outside < 1) & (cKDTree(protein).query(xyz)[0] > 5.0)
    # Contrast relative to protein: hydrocarbon tails scatter little more than ice, heads (P, O, N) almost as protein
    contrast = np.where(is_head, rng.uniform(0.6, 0.9), rng.uniform(0.1, 0.35))
    return xyz[is_free], (contrast * _BELT_SPACING**3)[is_free]
