"""From where particles are seen, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AZIMUTHS, ELEVATIONS = 36, 18


@dataclass(frozen=True, eq=False)
class ViewingDirections:
    """Directions of view of a set of particles.

    Parameters
    ----------
    density : (18, 36) particles per solid angle, relative to an even spread (1 everywhere); rows are elevations from
        -90 to 90 degrees, columns azimuths from -180 to 180
    evenness : in (0, 1], the effective share of equally large cells that are seen: exp(entropy) / cells
    particles : how many
    """

    density: NDArray[np.float64]
    evenness: float
    particles: int


def viewing_directions(rotations: NDArray[np.floating], symmetry: NDArray[np.floating]) -> ViewingDirections:
    """Bin the directions from which particles are seen.

    Parameters
    ----------
    rotations : (n, 3, 3) from specimen to image; the third row is the direction of view in the specimen's frame, whose
        azimuth is `rlnAngleRot` and whose elevation is 90 degrees minus `rlnAngleTilt`
    symmetry : (k, 3, 3) operators of the point group; every particle counts from each of its k equal directions, 1 / k

    References
    ----------
    The plot follows cryoSPARC's viewing direction distribution. Entropy as a count of equally likely places: Hill,
    Ecology 54 (1973).
    """
    n = len(rotations)
    if n == 0:
        return ViewingDirections(np.zeros((ELEVATIONS, AZIMUTHS)), float("nan"), 0)
    seen = np.einsum("nj,kji->nki", np.asarray(rotations)[:, 2], np.asarray(symmetry)).reshape(-1, 3)
    azimuth = np.degrees(np.arctan2(seen[:, 1], seen[:, 0]))
    height = np.clip(seen[:, 2], -1, 1)  # sine of the elevation
    edges_x = np.linspace(-180, 180, AZIMUTHS + 1)
    rows = np.sin(np.radians(np.linspace(-90, 90, ELEVATIONS + 1)))
    counts = np.histogram2d(height, azimuth, bins=(rows, edges_x))[0]
    solid_angle = np.diff(rows)[:, None] / (2 * AZIMUTHS)  # share of the sphere
    # Cells of equal size for the entropy: steps of equal height
    equal = np.histogram2d(height, azimuth, bins=(np.linspace(-1, 1, ELEVATIONS + 1), edges_x))[0].ravel()
    share = equal[equal > 0] / equal.sum()
    evenness = float(np.exp(-(share * np.log(share)).sum()) / equal.size)
    return ViewingDirections(counts / len(seen) / solid_angle, evenness, n)
