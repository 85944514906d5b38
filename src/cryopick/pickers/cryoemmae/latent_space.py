"""How well the latent space tells particles from background: the article's Fig. 3 and Table S3, with one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.pickers.cryoemmae.latent import prepare_image
from cryopick.pickers.cryoemmae.picker import LatentModel
from cryopick.types import Micrograph

INSIDE_RADII, OUTSIDE_RADII = 0.7, 1.5
"""Cells nearer to a label than the first are the particle's, farther from all than the second background; in particle
radii. What lies between is left out: labels are not exact, and a vector sees its neighbours."""
FEWEST_CELLS = 10


@dataclass(frozen=True, eq=False)
class LatentSample:
    """Vectors of one micrograph, as many of particles as of background.

    Parameters
    ----------
    name : of the micrograph
    particles, background : (n, c) each
    """

    name: str
    particles: NDArray[np.float32]
    background: NDArray[np.float32]

    @property
    def separation(self) -> float:
        """How often a particle's vector lies farther along the line from background to particles than a background's.

        0.5 is chance, 1 is apart. The line through the two means is found on one half of the vectors and judged on the
        other.
        """
        first = [one[::2].mean(axis=0) for one in (self.particles, self.background)]
        line = first[0] - first[1]
        particles, background = (np.sort(one[1::2] @ line) for one in (self.particles, self.background))
        below = np.searchsorted(background, particles, side="left") + np.searchsorted(
            background, particles, side="right"
        )
        return float(below.mean() / (2 * len(background)))


def sample_latent_space(
    model: LatentModel,
    micrograph: Micrograph,
    particles_xy_px: NDArray[np.float64],
    *,
    diameter_px: float,
    count: int = 1000,
    seed: int = 0,
) -> LatentSample:
    """Latent vectors at random cells on labelled particles and at as many away from them.

    Parameters
    ----------
    micrograph : particles dark
    particles_xy_px : (n, 2) labels, pixels of the micrograph
    count : of each kind, fewer where there are fewer

    Raises
    ------
    InputError
        If the micrograph shows nothing, or fewer than `FEWEST_CELLS` cells of one kind.
    """
    from scipy.spatial import cKDTree

    prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=model.preprocessing)
    if prepared is None:
        raise InputError(f"{micrograph.name}: is blank or smaller than a particle of {diameter_px:.0f} px")
    is_ours = model.preprocessing == "corrected"
    latent = model.encoder.dense(prepared.image) if is_ours else model.encoder.tokens(prepared.image)
    rows, columns = latent.vectors.shape[:2]
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2).astype(np.float64)
    places = prepared.to_stored_xy(latent.to_image_xy(cells))
    radii = np.full(len(places), np.inf)
    if len(particles_xy_px):
        radii = cKDTree(particles_xy_px).query(places)[0] / (diameter_px / 2)
    rng = np.random.default_rng(seed)
    kinds = [rng.permutation(np.flatnonzero(one)) for one in (radii < INSIDE_RADII, radii > OUTSIDE_RADII)]
    taken = min(count, *map(len, kinds))
    if taken < FEWEST_CELLS:
        raise InputError(
            f"{micrograph.name}: {len(kinds[0])} cells lie on particles and {len(kinds[1])} clearly beside them; "
            f"expected {FEWEST_CELLS} or more of each"
        )
    return LatentSample(micrograph.name, *(latent.flat[kind[:taken]] for kind in kinds))


def mean_distances(first: LatentSample, second: LatentSample) -> NDArray[np.float64]:
    """(4, 4) mean Euclidean distance between vectors of different kinds and micrographs, as Table S3.

    Rows and columns: particles and background of the first, then of the second. A vector's distance to itself does not
    count.
    """
    from scipy.spatial.distance import cdist

    groups = [first.particles, first.background, second.particles, second.background]
    found = np.empty((4, 4))
    for row, one in enumerate(groups):
        for column, other in enumerate(groups):
            distances = cdist(one, other)
            pairs = len(one) * len(other) - (len(one) if row == column else 0)
            found[row, column] = distances.sum() / pairs
    return found


def principal_components(sample: LatentSample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 2) particles and (n, 2) background along the first two principal components of both together.

    Particles lie to the right.
    """
    both = np.concatenate([sample.particles, sample.background]).astype(np.float64)
    centred = both - both.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    n = len(sample.particles)
    if places[:n, 0].mean() < 0:
        places[:, 0] *= -1
    return places[:n], places[n:]


def scatter_png(samples: Sequence[LatentSample], *, across: int = 3) -> bytes:
    """A PNG as Fig. 3: one panel per micrograph, particles and background along their principal components."""
    from matplotlib.figure import Figure

    down = -(-len(samples) // across)
    across = min(across, len(samples))
    figure = Figure(figsize=(3.2 * across, 3.2 * down), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across)).ravel()
    for panel in panels[len(samples) :]:
        panel.set_axis_off()
    for panel, sample in zip(panels, samples, strict=False):
        particles, background = principal_components(sample)
        panel.scatter(*background.T, s=3, alpha=0.4, color="tab:blue", label="background", linewidths=0)
        panel.scatter(*particles.T, s=3, alpha=0.4, color="tab:orange", label="particles", linewidths=0)
        panel.set_title(f"{sample.name}\nseparation {sample.separation:.3f}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
    panels[0].legend(markerscale=3, fontsize=7)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
