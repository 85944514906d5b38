"""When a run that grows looks at its micrographs again, and how much of what it sees then changes how it picks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from cryopick.geometry.units import Length
from cryopick.heatmap.emptiness import EMPTY_FILLED_SHARE
from cryopick.pickers.protocol import SurveysInFolder, run_level_fields, surveys
from cryopick.pickers.survey import Survey

FIRST_LOOKS = (1, 3, 6)
"""Micrographs after which it looks; from the last on at each doubling."""
LOOK_AGAIN_SECONDS, LOOK_AGAIN_MICROGRAPHS = 600.0, 3
"""Where nothing was found, or the run looks empty, it also looks after so long, if so many have come meanwhile."""
MOVED_FACTOR = 2 ** (2 / 16)
"""Between working sizes from which on everything is picked again: two steps of the grid of measured sizes, 9 %. Within
5 % the F1 does not change by more than 0.002."""
_ROUNDING = 1e-6


def next_look(count: int) -> int:
    """How many micrographs there must be for the next look, after one at `count` of them."""
    for first in FIRST_LOOKS:
        if count < first:
            return first
    last = FIRST_LOOKS[-1]
    doublings = math.floor(math.log2(count / last) + 1e-9) + 1
    return int(last * 2**doublings)


@dataclass(frozen=True, kw_only=True)
class TakenOver:
    """What becomes of a look.

    Parameters
    ----------
    survey : that holds now
    is_other_look : whether micrographs would be picked otherwise than by the survey before
    why : in words, where they are
    """

    survey: Survey
    is_other_look: bool
    why: str = ""


@dataclass
class Preparing:
    """The looks of one call.

    Parameters
    ----------
    picker : as it is set
    settle : micrographs from which on the first size that is found stays; None where it is measured until the end
    """

    picker: Any
    settle: int | None = None
    survey: Survey | None = None
    """None until there was a look."""
    is_settled: bool = False
    _looked_at: int = 0
    _looked_when: float = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether nothing can be picked yet, since the picker has not looked."""
        return surveys(self.picker) and self.survey is None

    def is_due(self, count: int, now: float) -> bool:
        """Whether to look now.

        Parameters
        ----------
        count : micrographs that are complete
        now : s
        """
        if not surveys(self.picker) or self.is_settled or not count:
            return False
        if isinstance(self.picker, SurveysInFolder):
            is_enough = count >= self.picker.sample_size
            return is_enough and (not self._looked_at or self._is_worth_another(count, now))
        if count >= next_look(self._looked_at):
            return True
        if self.settle is not None and self._looked_at < self.settle <= count:
            return True
        return self._is_worth_another(count, now)

    def _is_worth_another(self, count: int, now: float) -> bool:
        return (
            (self.survey is None or _state(self.survey) != "found")
            and now - self._looked_when >= LOOK_AGAIN_SECONDS
            and count - self._looked_at >= LOOK_AGAIN_MICROGRAPHS
        )

    def cannot_wait(self, count: int) -> bool:
        """Whether a look that is due goes before micrographs that wait for their picks.

        The first does, since it tells how to pick, and one after which another is due already: where more arrives than
        is picked, some always wait.
        """
        return self.survey is None or count >= next_look(next_look(self._looked_at))

    def begun(self, count: int, now: float) -> None:
        """A look at so many micrographs has begun."""
        self._looked_at, self._looked_when = count, now

    def taken_over(self, seen: Survey) -> TakenOver:
        """Take over from a new look what changes no candidate, and the rest where it has changed by enough."""
        before = self.survey
        why = "" if before is None else _what_changed(before, seen)
        is_other = before is None or bool(why)
        if before is not None and not is_other:
            aside = look_names(self.picker, before)
            seen = replace(seen, **{name: getattr(before, name) for name in aside})
        self.survey = seen
        is_found = _state(seen) == "found"
        if isinstance(self.picker, SurveysInFolder) or (
            self.settle is not None and self._looked_at >= self.settle and is_found
        ):
            self.is_settled = True
        return TakenOver(survey=seen, is_other_look=is_other, why=why)


def look_names(picker: Any, survey: Survey) -> frozenset[str]:
    """The fields of a survey that candidates depend on."""
    aside = run_level_fields(picker)
    if survey.working_size is None:  # then pickers look at the size of the particles itself
        aside = aside - {"particle_size"}
    return frozenset(one.name for one in fields(Survey)) - aside


def _size(survey: Survey) -> Length | None:
    return survey.working_size or survey.particle_size


def _state(survey: Survey) -> str:
    if _size(survey) is None and survey.trained_model is None:
        return "nothing"
    is_unfilled = survey.filled_share is not None and survey.filled_share < EMPTY_FILLED_SHARE
    return "empty" if survey.is_empty or is_unfilled else "found"


def _what_changed(before: Survey, now: Survey) -> str:
    """Why everything is picked again, or "" where it is not."""
    one, other = _state(before), _state(now)
    if one != other:
        words = {"nothing": "nothing found", "empty": "looks empty", "found": "particles found"}
        return f"{words[one]} before, {words[other]} now"
    old, new = _size(before), _size(now)
    if old is None or new is None:
        return ""
    is_moved = old.unit != new.unit or any(
        max(a, b) >= min(a, b) * MOVED_FACTOR * (1 - _ROUNDING) for a, b in ((old.low, new.low), (old.high, new.high))
    )
    if not is_moved:
        return ""
    return f"working size {old.middle:.4g} {old.unit_symbol} before, {new.middle:.4g} {new.unit_symbol} now"
