"""The threshold of pickers whose score is a calibrated probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.processing.probability import (
    adapted_to_emptier_run,
    chance_to_be_marked,
    threshold_for_f1,
    threshold_for_precision,
)
from cryopick.types import Micrograph, Picks

EMPTY_FILLED_SHARE = 0.015
"""Share of the area that likely particles cover from which on a run is known to hold some. Measured: 0.023 and more on
56 simulated sets, flexible and faint ones included; at most 0.012 on noise and on empty micrographs, but for specks of
the smallest size (0.02)."""


class ChoosesByExpectedF1:
    """Gives a picker `run_probabilities` and `choose_threshold`; the picker says `calibrated_share`.

    A run that holds no particles must yield none, and one of faint particles must not be taken for it. A picker tells
    them apart by `filled_share` or by `decoy_share`, whichever it measures.
    """

    smallest_diameter_px: ClassVar[float] = 6.0
    enlarged_to_px: ClassVar[float] = 25.0
    """Networks see particles at least about this wide; micrographs of smaller ones are enlarged."""
    default_threshold: ClassVar[float] = 0.4
    minimum_threshold: ClassVar[float] = 0.3
    """Never chosen lower, so that a run of empty micrographs yields none."""
    minimum_where_unfilled: ClassVar[float] = 0.5
    """The same where likely particles cover so little that the run may hold none: a pick must be likelier right than
    wrong."""
    marked_power: ClassVar[float] = 3.0
    """Of `chance_to_be_marked`; 2 to 4 suited two real sets about equally."""
    empty_decoy_share: ClassVar[float] = 0.4
    """From this share of decoys on, a run may be empty, and its own share of right candidates decides."""
    decoy_share: float | None = None
    """Picks on decoys of a run's micrographs over those on them, for pickers that measure it."""
    filled_share: float | None = None
    """Share of a few micrographs' area that likely particles cover, for pickers that measure it."""
    is_empty: bool = False
    """Whether the run is known to hold no particles, for pickers that ask; candidates keep their scores."""

    @property
    def calibrated_share(self) -> float:
        """Share of right candidates where the probabilities were calibrated (`Calibration.share`)."""
        raise NotImplementedError

    def run_probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """The scores; lowered for a run that holds few particles, unless it is known to hold some.

        0 for an empty one.
        """
        if self.is_empty:
            return np.zeros(len(scores))
        has_few_decoys = self.decoy_share is not None and self.decoy_share < self.empty_decoy_share
        if has_few_decoys or self._is_filled:
            return np.asarray(scores, np.float64)
        return adapted_to_emptier_run(scores, share=self.calibrated_share)

    @property
    def _is_filled(self) -> bool | None:
        """Whether likely particles cover enough of the run; None where that is not measured."""
        return None if self.filled_share is None else self.filled_share >= EMPTY_FILLED_SHARE

    def choose_threshold(self, scores: NDArray[np.float32], *, target_precision: float | None = None) -> float:
        """The cut with the highest F1 expected against a person's labels, or the lowest that reaches the precision."""
        if len(scores) == 0:
            return self.default_threshold
        probability = self.run_probabilities(scores)
        if target_precision is not None:
            cut = threshold_for_precision(probability, target_precision)
        else:
            agreement = probability * chance_to_be_marked(scores, power=self.marked_power)
            least = self.minimum_where_unfilled if self._is_filled is False else self.minimum_threshold
            is_kept = (agreement >= threshold_for_f1(agreement)) & (probability >= least)
            cut = float(probability[is_kept].min()) if is_kept.any() else 2.0
        kept = scores[probability >= cut]  # the probabilities rise with the scores
        return float(kept.min()) if len(kept) else 1.0


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
