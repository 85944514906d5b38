"""Which threshold holds in a run, and what it makes of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.pickers.protocol import ChoosesThreshold
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import PickSettings
from cryopick.types import Picks


def threshold_of(
    folder: RunFolder, settings: PickSettings, candidates: Sequence[Picks] | None = None
) -> tuple[float, str]:
    """The threshold of a run and where it comes from: rethreshold, the user, the picker's choice, its default.

    `candidates` are those of all finished micrographs; where not given they are read when the picker wants to see them.
    """
    moved = folder.moved_threshold()
    if moved is not None:
        return moved, "rethreshold"
    if settings.selection.threshold is not None:
        return settings.selection.threshold, "given"
    picker = settings.picker
    if isinstance(picker, ChoosesThreshold):
        if candidates is None:
            candidates = [folder.read_candidates(record) for record in folder.records() if record.is_done]
        done = [one.kept().score for one in candidates]
        scores = np.concatenate(done) if done else np.empty(0, np.float32)
        chosen = picker.choose_threshold(scores, target_precision=settings.run.target_precision)
        limit = float(np.finfo(np.float32).max)  # JSON has no infinity; no score lies beyond
        return min(max(float(chosen), -limit), limit), "chosen by the picker from all scores"
    return float(picker.default_threshold), "the picker's default"


def at_threshold(candidates: Picks, threshold: float) -> Picks:
    """Candidates with the reason filled in for those that only their score rules out.

    The other selection rules take candidates from the best score down, so what lies below a threshold never changes
    what is kept above it: one selection serves every threshold.
    """
    is_low = candidates.is_kept & ~(candidates.score >= np.float32(threshold))
    return replace(candidates, reason=np.where(is_low, BELOW_THRESHOLD, candidates.reason))
