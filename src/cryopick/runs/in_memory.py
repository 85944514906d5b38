"""A run without a folder: the same steps on micrographs in memory, for notebooks and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.geometry.selection import SelectionSettings
from cryopick.pickers.protocol import Picker, surveys
from cryopick.pickers.survey import NOTHING_SEEN, Survey
from cryopick.runs.one import pick_micrograph
from cryopick.runs.settings import PickPlan, PickSettings
from cryopick.runs.threshold import at_threshold, choose_threshold
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
    """

    survey: Survey
    candidates: list[Picks]
    picks: list[Picks]
    threshold: float


def pick_in_memory(
    picker: Picker, micrographs: Sequence[Micrograph], *, selection: SelectionSettings | None = None
) -> PickedInMemory:
    """Survey all micrographs, pick each, and choose one threshold for them.

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
    survey = settings.picker.survey(micrographs) if surveys(settings.picker) and micrographs else None
    plan = PickPlan(settings=settings, survey=survey)
    candidates = [
        pick_micrograph(micrograph, plan, exclusion_mask=mask)
        for micrograph, mask in zip(micrographs, masks, strict=True)
    ]
    candidates = [replace(one, warnings=(*one.warnings, *plan.seen.doubts)) for one in candidates]
    threshold, _ = choose_threshold(plan, candidates)
    picks = [at_threshold(one, threshold) for one in candidates]
    return PickedInMemory(survey or NOTHING_SEEN, candidates, picks, threshold)
