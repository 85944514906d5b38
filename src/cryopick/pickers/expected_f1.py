"""The threshold of pickers whose score is a calibrated probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.survey import Survey
from cryopick.processing.belief import Beliefs, OpenCandidates, beliefs
from cryopick.processing.probability import (
    Calibration,
    chance_to_be_marked,
    threshold_for_f1,
    threshold_for_precision,
)


class ChoosesByExpectedF1:
    """Gives a picker `beliefs`, `run_probabilities` and `choose_threshold`; the picker says its `calibration`."""

    smallest_diameter_px: ClassVar[float] = 6.0
    enlarged_to_px: ClassVar[float] = 25.0
    """Networks see particles at least about this wide; micrographs of smaller ones are enlarged."""
    default_threshold: ClassVar[float] = 0.4
    minimum_threshold: ClassVar[float] = 0.3
    """Never chosen lower."""
    marked_power: ClassVar[float] = 3.0
    """Of `chance_to_be_marked`; 2 to 4 suited two real sets about equally."""

    @property
    def calibration(self) -> Calibration:
        """Of the scores, where they were calibrated."""
        raise NotImplementedError

    def beliefs(self, candidates: Sequence[OpenCandidates]) -> Beliefs:
        """How far the likely candidates of each micrograph of a run are believed; see `processing.belief`."""
        return beliefs(
            [one.score for one in candidates], [one.diameter_px for one in candidates], calibration=self.calibration
        )

    def run_probabilities(self, scores: NDArray[np.float32], survey: Survey) -> NDArray[np.float64]:  # noqa: ARG002  # of the protocol
        """The scores, which are probabilities, as they are."""
        return np.asarray(scores, np.float64)

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
            agreement = chance_to_be_marked(scores, power=self.marked_power)
            agreement *= probability
            is_kept = (agreement >= threshold_for_f1(agreement)) & (probability >= self.minimum_threshold)
            cut = float(probability[is_kept].min()) if is_kept.any() else 2.0
        kept = scores[probability >= cut]  # the probabilities rise with the scores
        return float(kept.min()) if len(kept) else 1.0
