"""A run without a folder: the same steps on micrographs in memory, for notebooks and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings
from cryopick.pickers.protocol import ChoosesSample, Picker, surveys
from cryopick.pickers.survey import NOTHING_SEEN, SURVEYED_MICROGRAPHS, Survey
from cryopick.runs.expected import Expected, expected_of
from cryopick.runs.one import pick_micrograph, wide_enough
from cryopick.runs.sample import chosen_sample, sample_order
from cryopick.runs.settings import PickPlan, PickSettings
from cryopick.runs.threshold import at_threshold, choose_cut, open_candidates
from cryopick.types import Micrograph, Picks


@dataclass(frozen=True, eq=False)
class PickedInMemory:
    """A run without a folder.

    Parameters
    ----------
    survey : what was seen on the micrographs before
    candidates : of each micrograph, with the reasons that no threshold changes
    picks : the same at the threshold, those below it with that as their reason
    threshold : one for all micrographs
    belief : of each micrograph, see `cryopick.runs.threshold.Cut`
    expected : of the picks; None where the scores are no probabilities, and where nothing is kept
    """

    survey: Survey
    candidates: list[Picks]
    picks: list[Picks]
    threshold: float
    belief: list[float]
    expected: Expected | None = None

    def believed_scores(self) -> NDArray[np.float32]:
        """(n,) scores of all candidates that no other rule rejects, each times its micrograph's belief."""
        pairs = zip(self.candidates, self.belief, strict=True)
        return np.concatenate([np.zeros(0, np.float32), *(one.kept().score * np.float32(by) for one, by in pairs)])


def pick_in_memory(
    picker: Picker, micrographs: Sequence[Micrograph], *, selection: SelectionSettings | None = None
) -> PickedInMemory:
    """Survey the micrographs as a run does, pick each, and choose one threshold for them.

    Parameters
    ----------
    micrographs : particles dark
    selection : rules on distances and borders; the usual ones when not given
    """
    settings = PickSettings(picker=picker, selection=selection or SelectionSettings())
    return pick_all(micrographs, settings, masks=[None] * len(micrographs))


def pick_all(
    micrographs: Sequence[Micrograph], settings: PickSettings, *, masks: Sequence[Path | None]
) -> PickedInMemory:
    """As `pick_in_memory`, with all settings of a run and the exclusion mask of each micrograph."""
    has_survey = surveys(settings.picker) and len(micrographs) > 0
    survey = None
    if has_survey:
        survey = settings.picker.survey(_sample(settings.picker, wide_enough(settings.picker, micrographs)))
    plan = PickPlan(settings=settings, survey=survey)
    candidates = [
        pick_micrograph(micrograph, plan, exclusion_mask=mask)
        for micrograph, mask in zip(micrographs, masks, strict=True)
    ]
    candidates = [replace(one, warnings=(*one.warnings, *plan.seen.doubts)) for one in candidates]
    numbered = {str(number): open_candidates(one, settings.picker) for number, one in enumerate(candidates)}
    cut = choose_cut(plan, numbered)
    belief = [cut.belief_in(str(number)) for number in range(len(candidates))]
    picks = [at_threshold(one, cut.threshold, belief=each) for one, each in zip(candidates, belief, strict=True)]
    expected = expected_of(settings.picker, numbered, cut, plan.seen)
    return PickedInMemory(survey or NOTHING_SEEN, candidates, picks, cut.threshold, belief, expected)


def _sample(picker: Picker, micrographs: Sequence[Micrograph]) -> Sequence[Micrograph]:
    """What a picker is shown first: all, unless it would rather see those that hold something."""
    if not isinstance(picker, ChoosesSample) or len(micrographs) < 2:
        return micrographs
    wanted = min(SURVEYED_MICROGRAPHS, len(micrographs))
    readable = ((index, micrographs[index]) for index in sample_order(len(micrographs), wanted))
    return chosen_sample(readable, picker, wanted=wanted, available=len(micrographs)).micrographs
