"""Which threshold holds in a run, and what it makes of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.pickers.protocol import ChoosesThreshold
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import PickPlan
from cryopick.types import Picks


def threshold_of(folder: RunFolder, plan: PickPlan, candidates: Sequence[Picks] | None = None) -> tuple[float, str]:
    """The threshold of a run and where it comes from: rethreshold, else as `choose_threshold`.

    `candidates` are those of all finished micrographs; where not given they are read when the picker wants to see them.
    """
    moved = folder.moved_threshold()
    if moved is not None:
        return moved, "rethreshold"
    if candidates is None and plan.settings.selection.threshold is None and isinstance(plan.picker, ChoosesThreshold):
        candidates = [folder.read_candidates(record) for record in folder.records() if record.is_done]
    return choose_threshold(plan, candidates or [])


def choose_threshold(plan: PickPlan, candidates: Sequence[Picks]) -> tuple[float, str]:
    """The threshold for candidates of all micrographs, and where it comes from: the user, the picker, its default."""
    given = plan.settings.selection.threshold
    if given is not None:
        return given, "given"
    if not isinstance(plan.picker, ChoosesThreshold):
        return float(plan.picker.default_threshold), "the picker's default"
    done = [one.kept().score for one in candidates]
    scores = np.concatenate(done) if done else np.empty(0, np.float32)
    chosen = plan.picker.choose_threshold(scores, plan.seen, target_precision=plan.settings.run.target_precision)
    limit = float(np.finfo(np.float32).max)  # JSON has no infinity; no score lies beyond
    return min(max(float(chosen), -limit), limit), "chosen by the picker from all scores"


def best_score(candidates: Sequence[Picks]) -> float | None:
    """The highest score that no rule but a threshold rejects; None where there is none that is finite."""
    is_open = [(one.reason == "") | (one.reason == BELOW_THRESHOLD) for one in candidates]
    scores = np.concatenate([np.empty(0, np.float32), *[c.score[o] for c, o in zip(candidates, is_open, strict=True)]])
    scores = scores[np.isfinite(scores)]
    return float(scores.max()) if len(scores) else None


def what_would_keep_some(best: float, score_meaning: str) -> str:
    """What a user can do where every score is below the threshold."""
    step = 10.0 ** (np.floor(np.log10(abs(best))) - 1) if best else 0.01
    return (
        f"the best of them has a score of {best:.4g} ({score_meaning}), so --threshold "
        f"{np.floor(best / step * (1 + 1e-6)) * step:.3g} keeps some"
    )


def at_threshold(candidates: Picks, threshold: float) -> Picks:
    """Candidates with the reason filled in for those that only their score rules out.

    The other selection rules take candidates from the best score down, so what lies below a threshold never changes
    what is kept above it: one selection serves every threshold.
    """
    is_low = candidates.is_kept & ~(candidates.score >= np.float32(threshold))
    return replace(candidates, reason=np.where(is_low, BELOW_THRESHOLD, candidates.reason))
