"""Until the streaming tables are there."""

# ruff: noqa
from cryopick.pickers.protocol import ChoosesThreshold
from cryopick.runs.threshold import choose_cut as choose_cut
from cryopick.types import Picks as OpenCandidates
from typing import Any


def open_candidates(candidates: Any, picker: Any) -> Any:
    return candidates.kept()


def needs_all_scores(plan: Any) -> bool:
    s = plan.settings.selection
    return s.threshold is None and not s.as_found and isinstance(plan.picker, ChoosesThreshold)
