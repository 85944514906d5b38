"""What a run expects of its own picks: how many are right, how sure that is, and how many particles are picked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import share_text
from cryopick.pickers.protocol import gives_probabilities
from cryopick.pickers.survey import Survey
from cryopick.processing.belief import OpenCandidates
from cryopick.processing.probability import expected_scores, precision_range
from cryopick.runs.threshold import Cut, beliefs_of, believed_scores

DIFFERENT_SHARE = 0.1
"""Difference between the two estimates of the share of right picks from which on it is told."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is expected of the kept picks of a run.

    Parameters
    ----------
    precision : share of the picks that should be right, as their scores say
    low, high : range of that share, over the scores' estimate and the one from what the run itself shows, with the
        errors of both
    recall : share of the particles that should be picked; those that are no candidate at all are not counted
    doubt : a sentence where the two estimates differ; "" elsewhere
    """

    precision: float
    low: float
    high: float
    recall: float
    doubt: str = ""


def expected_of(picker: Any, candidates: Mapping[str, OpenCandidates], cut: Cut, survey: Survey) -> Expected | None:
    """What is expected of a run; None where the scores are no probabilities, and where nothing is kept.

    Scores were calibrated elsewhere. What the run's micrographs have in common, see `processing.belief`, gives a second
    estimate: where the run's scores fit neither the right nor the wrong candidates of the calibration, the two differ,
    and the range is as wide as that.

    Parameters
    ----------
    candidates : by micrograph, all that is open there
    """
    if not gives_probabilities(picker):
        return None
    believed = believed_scores(candidates, cut.belief)
    is_kept = believed >= np.float32(cut.threshold)
    if not is_kept.any():
        return None
    probability = picker.run_probabilities(believed, survey)
    precision, recall, _ = expected_scores(probability, float(probability[is_kept].min()))
    right = _right_in_run(picker, candidates, cut)
    estimates = [probability[is_kept]] if right is None else [probability[is_kept], right[is_kept]]
    low, high = precision_range(*estimates)
    doubt = "" if right is None else _doubt(precision, float(right[is_kept].mean()))
    return Expected(precision=precision, low=low, high=high, recall=recall, doubt=doubt)


def _right_in_run(picker: Any, candidates: Mapping[str, OpenCandidates], cut: Cut) -> NDArray[np.float64] | None:
    """(n,) of all open candidates; None where the picker does not judge micrographs."""
    if cut.right:
        return np.concatenate([cut.right[name] for name in candidates])
    found = beliefs_of(picker, list(candidates.values()))  # the user gave the threshold
    return None if found is None else np.concatenate([np.zeros(0), *found.right])


def _doubt(by_scores: float, by_run: float) -> str:
    if abs(by_scores - by_run) < DIFFERENT_SHARE:
        return ""
    return (
        "scores in this run are not distributed as where they were calibrated: by the scores alone "
        f"{share_text(by_scores)} of the picks are right, by what the run's micrographs have in common "
        f"{share_text(by_run)}"
    )
