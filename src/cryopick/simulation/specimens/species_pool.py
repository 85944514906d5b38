"""A changing stock of procedural proteins, each as projections at working scale, for endless training crops."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.geometry.units import Range
from cryopick.processing.projection import project
from cryopick.simulation.recipe import draw_log
from cryopick.simulation.specimens.imaging import preferred_directions, resized
from cryopick.simulation.specimens.proteins import random_protein

STOCK_DIAMETERS_PX = (32, 24, 16, 12)
"""Particle diameters at which projections are kept; crops take the nearest that is large enough and shrink it a bit."""


@dataclass(frozen=True, eq=False)
class StockedSpecies:
    """One species, ready to be placed.

    Parameters
    ----------
    views_by_diameter : for each of `STOCK_DIAMETERS_PX`, (m, b, b) float32, projected potential above ice, V Å
    reach : (m,) float32, radius of the silhouette around the centre, in particle diameters
    diameter_angstrom : largest extent
    """

    views_by_diameter: dict[int, NDArray[np.float32]]
    reach: NDArray[np.float32]
    diameter_angstrom: float

    @property
    def views(self) -> NDArray[np.float32]:
        """The finest views."""
        return self.views_by_diameter[STOCK_DIAMETERS_PX[0]]

    def views_for(self, diameter_px: float) -> tuple[NDArray[np.float32], int]:
        """Views to be scaled to a diameter with little blur or aliasing, and the diameter that they have."""
        enough = [stocked for stocked in STOCK_DIAMETERS_PX if stocked >= 0.95 * diameter_px]
        stocked = enough[-1] if enough else STOCK_DIAMETERS_PX[0]
        return self.views_by_diameter[stocked], stocked


class SpeciesPool:
    """`size` species at any time; one of them is replaced every `crops_per_species` crops.

    Which species serve crop number i depends on the seed and on i alone, so crops can be made in any order and by any
    number of workers.

    Parameters
    ----------
    seed : of all species
    size : species at a time
    views_per_species : projections of each; crops add in-plane rotation, mirror and scale
    crops_per_species : crops after which the next species is replaced
    diameter_angstrom : range of diameters, log-uniform
    preferred_probability : share of species seen mostly from few directions
    """

    def __init__(
        self,
        seed: int,
        *,
        size: int,
        views_per_species: int,
        crops_per_species: int,
        diameter_angstrom: Range,
        preferred_probability: float,
    ) -> None:
        self.seed, self.size = seed, size
        self.views_per_species, self.crops_per_species = views_per_species, crops_per_species
        self.diameter_angstrom, self.preferred_probability = diameter_angstrom, preferred_probability
        self._stock: OrderedDict[int, StockedSpecies] = OrderedDict()

    def species_for_crop(self, crop_index: int, rng: np.random.Generator) -> StockedSpecies:
        """A random species of those in stock at crop `crop_index`."""
        newest = self.size + crop_index // self.crops_per_species
        return self.species(newest - 1 - int(rng.integers(self.size)))

    def species(self, number: int) -> StockedSpecies:
        """Species `number`, made at the first call and kept while it may still be asked for."""
        if number not in self._stock:
            self._stock[number] = self._make(number)
            while len(self._stock) > self.size + 8:  # a few more than in stock: neighbouring crops may be out of order
                self._stock.popitem(last=False)
        self._stock.move_to_end(number)
        return self._stock[number]

    def _make(self, number: int) -> StockedSpecies:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1, number)))
        diameter = draw_log(rng, self.diameter_angstrom)
        finest_px = STOCK_DIAMETERS_PX[0]
        volume = random_protein(rng, diameter_angstrom=diameter, voxel_size_angstrom=diameter / finest_px)
        angles = random_rotations(self.views_per_species, rng)
        if rng.random() < self.preferred_probability:
            angles = preferred_orientations(rng, angles)
        views = project(volume, euler_to_matrix(angles))
        views_by_diameter = {
            diameter_px: resized(views, 2 * round(views.shape[-1] * diameter_px / finest_px / 2))
            for diameter_px in STOCK_DIAMETERS_PX
        }
        return StockedSpecies(
            views_by_diameter=views_by_diameter, reach=_reach(views) / np.float32(finest_px), diameter_angstrom=diameter
        )


def preferred_orientations(rng: np.random.Generator, rot_tilt_psi_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gather most views around one to three random directions, as at an air-water interface.

    Parameters
    ----------
    rot_tilt_psi_deg : (n, 3), uniform orientations; psi stays
    """
    angles = rot_tilt_psi_deg.copy()
    directions = preferred_directions(rng)
    is_gathered = rng.random(len(angles)) < rng.uniform(0.6, 1.0)
    chosen = directions[rng.integers(len(directions), size=len(angles))]
    spread_deg = rng.uniform(3, 20)
    angles[is_gathered, :2] = (chosen + rng.normal(0, spread_deg, (len(angles), 2)))[is_gathered]
    return angles


def _reach(views: NDArray[np.float32]) -> NDArray[np.float32]:
    size = views.shape[-1]
    offset = np.arange(size) - size // 2
    distance = np.hypot(offset[:, None], offset[None, :]).astype(np.float32)
    limit = 0.12 * views.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.where(views > limit, distance, 0).max(axis=(1, 2)) + 0.5, dtype=np.float32)
