"""The threshold of pickers whose score is a calibrated probability."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.heatmap.emptiness import EMPTY_FILLED_SHARE, MINIMUM_WHERE_UNFILLED
from cryopick.pickers.survey import Survey
from cryopick.processing.probability import (
    adapted_to_emptier_run,
    chance_to_be_marked,
    threshold_for_f1,
    threshold_for_precision,
)


class ChoosesByExpectedF1:
    """Gives a picker `run_probabilities` and `choose_threshold`; the picker says `calibrated_share`.

    A run that holds no particles must yield none, and one of faint particles must not be taken for it. A picker tells
    them apart by the survey's `filled_share` or `decoy_share`, whichever it measures.
    """

    smallest_diameter_px: ClassVar[float] = 6.0
    enlarged_to_px: ClassVar[float] = 25.0
    """Networks see particles at least about this wide; micrographs of smaller ones are enlarged."""
    default_threshold: ClassVar[float] = 0.4
    minimum_threshold: ClassVar[float] = 0.3
    """Never chosen lower, so that a run of empty micrographs yields none."""
    minimum_where_unfilled: ClassVar[float] = MINIMUM_WHERE_UNFILLED
    marked_power: ClassVar[float] = 3.0
    """Of `chance_to_be_marked`; 2 to 4 suited two real sets about equally."""
    empty_decoy_share: ClassVar[float] = 0.4
    """From this share of decoys on, a run may be empty, and its own share of right candidates decides."""

    @property
    def calibrated_share(self) -> float:
        """Share of right candidates where the probabilities were calibrated (`Calibration.share`)."""
        raise NotImplementedError

    def run_probabilities(self, scores: NDArray[np.float32], survey: Survey) -> NDArray[np.float64]:
        """The scores; lowered for a run that holds few particles, unless it is known to hold some.

        0 for an empty one.
        """
        if survey.is_empty:
            return np.zeros(len(scores))
        has_few_decoys = survey.decoy_share is not None and survey.decoy_share < self.empty_decoy_share
        if has_few_decoys or _is_filled(survey):
            return np.asarray(scores, np.float64)
        return adapted_to_emptier_run(scores, share=self.calibrated_share)

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The cut with the highest F1 expected against a person's labels, or the lowest that reaches the precision."""
        if len(scores) == 0:
            return self.default_threshold
        probability = self.run_probabilities(scores, survey)
        if target_precision is not None:
            cut = threshold_for_precision(probability, target_precision)
        else:
            agreement = probability * chance_to_be_marked(scores, power=self.marked_power)
            least = self.minimum_where_unfilled if _is_filled(survey) is False else self.minimum_threshold
            is_kept = (agreement >= threshold_for_f1(agreement)) & (probability >= least)
            cut = float(probability[is_kept].min()) if is_kept.any() else 2.0
        kept = scores[probability >= cut]  # the probabilities rise with the scores
        return float(kept.min()) if len(kept) else 1.0


def _is_filled(survey: Survey) -> bool | None:
    """Whether likely particles cover enough of the run; None where that was not measured."""
    return None if survey.filled_share is None else survey.filled_share >= EMPTY_FILLED_SHARE
