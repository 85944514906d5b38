"""Until the streaming tables are there."""

from cryopick.pickers.protocol import ChoosesThreshold


def open_candidates(candidates, picker):
    return candidates.kept()


def needs_all_scores(plan):
    s = plan.settings.selection
    return s.threshold is None and not s.as_found and isinstance(plan.picker, ChoosesThreshold)
