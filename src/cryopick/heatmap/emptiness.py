"""Telling micrographs without particles from those with faint ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.types import Micrograph, Picks

EMPTY_FILLED_SHARE = 0.015
"""Share of the area that likely particles cover from which on a run is known to hold some. Measured: 0.023 and more on
56 simulated sets, flexible and faint ones included; at most 0.012 on noise and on empty micrographs, but for specks of
the smallest size (0.02)."""
MINIMUM_WHERE_UNFILLED = 0.5
"""Least probability that is kept where likely particles cover so little that the run may hold none: a pick must be
likelier right than wrong."""


def thinned_scores(candidates: Picks) -> NDArray[np.float32]:
    """Of the candidates that no better one is too near to, whatever their score."""
    return select(candidates, SelectionSettings(), threshold=-np.inf).kept().score


def negative(micrograph: Micrograph) -> Micrograph:
    """The same noise, but no dark particles; hollow ones, however, are dark both ways."""
    return replace(micrograph, pixels=-micrograph.pixels)


def measured_decoy_share(
    scores_of: Callable[[Micrograph], NDArray[np.floating]],
    micrographs: Sequence[Micrograph],
    *,
    least: float | None = None,
) -> float:
    """Particles on the negatives of micrographs, over those on the micrographs: the median of a few.

    It shows what a picker makes of noise alone: about 1 where there is nothing, near 0 where there are particles,
    however faint.

    Parameters
    ----------
    scores_of : a micrograph to the probabilities of its candidates, thinned as picks are (`thinned_scores`)
    micrographs : a few of the run
    least : candidates that reach it are counted; where not set, all probabilities are summed, which the many improbable
        candidates of a less certain picker would drown; half a candidate is added to both counts, so that few prove
        nothing

    References
    ----------
    J. Elias, S. Gygi, Nature Methods 4, 2007, 207: decoys, of another kind, in another field.
    """
    shares = []
    for micrograph in micrographs:
        pair = (scores_of(micrograph), scores_of(negative(micrograph)))
        if least is None:
            found, decoys = (max(float(scores.sum()), 1e-6) for scores in pair)
        else:
            found, decoys = (0.5 + np.count_nonzero(scores >= least) for scores in pair)
        shares.append(decoys / found)
    return float(np.median(shares))  # one micrograph of ice grains must not speak for the run
