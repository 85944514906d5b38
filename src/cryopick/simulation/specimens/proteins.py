"""Made-up proteins of every shape that is picked in practice, so that a picker can learn particles, not one protein."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from cryopick.errors import InputError, SettingsError
from cryopick.simulation.specimens.protein_families import FAMILY_BY_NAME, lay_out_family
from cryopick.simulation.specimens.protein_layouts import largest_extent
from cryopick.simulation.specimens.residues import fill_layout
from cryopick.simulation.specimens.specimen import BOX_PER_DIAMETER, PROTEIN_CONTRAST_V, BandLimitedGrid
from cryopick.types import Volume

FAMILIES: tuple[str, ...] = tuple(FAMILY_BY_NAME)
SMALLEST_DIAMETER_ANGSTROM, LARGEST_DIAMETER_ANGSTROM = 60.0, 600.0

_BEAD_SIGMA_ANGSTROM = 2.3  # half a residue with its thermal motion


def random_protein(
    rng: np.random.Generator,
    *,
    diameter_angstrom: float | None = None,
    family: str | None = None,
    voxel_size_angstrom: float = 4.0,
) -> Volume:
    """A protein that does not exist.

    Parameters
    ----------
    rng : source of randomness; the same state gives the same protein
    diameter_angstrom : largest extent, 60 to 600; None draws it from the family's range, evenly in its logarithm
    family : one of `FAMILIES`; None draws one
    voxel_size_angstrom : of the map

    Returns
    -------
    volume : potential in volts above ice, centre of mass at voxel `n // 2`, edge at least 1.5 diameters; its name
        starts with the family

    Raises
    ------
    SettingsError
        An unknown family, a diameter out of range, or a voxel size that is not positive.
    """
    if family is None:
        family = str(rng.choice(FAMILIES))
    if family not in FAMILY_BY_NAME:
        raise SettingsError(f"family {family!r} is unknown; expected one of: {', '.join(FAMILIES)}")
    if diameter_angstrom is None:
        diameter_angstrom = draw_diameter(rng, family)
    if not SMALLEST_DIAMETER_ANGSTROM <= diameter_angstrom <= LARGEST_DIAMETER_ANGSTROM:
        raise SettingsError(
            f"diameter_angstrom is {diameter_angstrom:g}, expected {SMALLEST_DIAMETER_ANGSTROM:g} to "
            f"{LARGEST_DIAMETER_ANGSTROM:g} Å"
        )
    layout = lay_out_family(rng, family=family, diameter_angstrom=diameter_angstrom)
    beads = fill_layout(rng, layout)
    xyz = beads.xyz_angstrom - np.average(beads.xyz_angstrom, axis=0, weights=beads.volume_angstrom3)
    radius = float(np.sqrt((xyz**2).sum(axis=1)).max())
    grid = BandLimitedGrid(2 * radius, voxel_size_angstrom)
    smear = np.exp(-2 * np.pi**2 * (_BEAD_SIGMA_ANGSTROM * beads.grain) ** 2 * grid.square_frequency)
    grid.add(xyz, PROTEIN_CONTRAST_V * beads.volume_angstrom3, smear)
    return grid.volume(BOX_PER_DIAMETER * diameter_angstrom, name=f"{family}-{diameter_angstrom:.0f}A")


def draw_diameter(rng: np.random.Generator, family: str) -> float:
    """A diameter in Å in the range of a family, evenly in its logarithm."""
    kind = FAMILY_BY_NAME[family]
    return float(np.exp(rng.uniform(np.log(kind.smallest_angstrom), np.log(kind.largest_angstrom))))


def particle_diameter_angstrom(volume: Volume) -> float:
    """Largest distance between two places of a particle, in Å.

    The particle is where the map, averaged over 3 x 3 x 3 voxels, exceeds a third of its typical density inside (the
    mean over what lies above half of its maximum).

    Raises
    ------
    InputError
        If no voxel is positive.
    """
    smooth = uniform_filter(volume.density, 3)
    if not smooth.max() > 0:
        raise InputError(f"{volume.name}: no positive density; expected the particle above its surroundings")
    inside = float(smooth[smooth > smooth.max() / 2].mean())
    z_y_x = np.argwhere(smooth > inside / 3).astype(np.float64)
    if len(z_y_x) < 5 or np.any(np.ptp(z_y_x, axis=0) == 0):
        return float(np.linalg.norm(np.ptp(z_y_x, axis=0) + 1)) * volume.voxel_size_angstrom
    return largest_extent(z_y_x) * volume.voxel_size_angstrom
