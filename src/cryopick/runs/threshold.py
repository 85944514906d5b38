"""Which threshold holds in a run, how far each micrograph is believed, and what both make of the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import BELOW_THRESHOLD, NOT_BELIEVED
from cryopick.pickers.protocol import ChoosesThreshold, JudgesMicrographs, gives_probabilities
from cryopick.processing.belief import Beliefs
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import PickPlan
from cryopick.types import Picks

ALL_KEPT = "all that the picker gives"
"""Where the threshold comes from in a run as found: there is none."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What decides which candidates of a run are kept.

    Parameters
    ----------
    threshold : smallest score that is kept, after it is multiplied by the micrograph's belief
    source : where the threshold comes from
    belief : 0 to 1, by micrograph; 1 for those that are not in it, and for all where the user gave the threshold
    right : by micrograph (n,), how likely each open candidate is right by what the run itself shows, see `Beliefs`;
        empty where the picker was not asked
    """

    threshold: float
    source: str = ""
    belief: Mapping[str, float] = field(default_factory=dict)
    right: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    def belief_in(self, name: str) -> float:
        """Of one micrograph."""
        return self.belief.get(name, 1.0)


def cut_of(folder: RunFolder, plan: PickPlan, candidates: Mapping[str, Picks] | None = None) -> Cut:
    """The cut of a run: rethreshold, else as `choose_cut`.

    `candidates`, by micrograph, are those of all finished ones; where not given they are read when the picker wants to
    see them.
    """
    moved = folder.moved_threshold()
    if moved is not None:
        return Cut(threshold=moved, source="rethreshold")
    if candidates is None and plan.settings.selection.threshold is None and isinstance(plan.picker, ChoosesThreshold):
        candidates = {record.name: folder.read_candidates(record) for record in folder.records() if record.is_done}
    return choose_cut(plan, candidates or {})


def choose_cut(plan: PickPlan, candidates: Mapping[str, Picks]) -> Cut:
    """The cut for candidates of all micrographs: the threshold of the user, of the picker, or its default.

    A threshold that the user gives holds on every micrograph alike.
    """
    given = plan.settings.selection.threshold
    if given is not None:
        return Cut(threshold=given, source="given")
    limit = float(np.finfo(np.float32).max)  # JSON has no infinity; no score lies beyond
    if plan.settings.selection.as_found:
        return Cut(threshold=-limit, source=ALL_KEPT)
    if not isinstance(plan.picker, ChoosesThreshold):
        return Cut(threshold=float(plan.picker.default_threshold), source="the picker's default")
    open_candidates = {name: one.kept() for name, one in candidates.items()}
    belief: dict[str, float] = {}
    right: Mapping[str, NDArray[np.float64]] = {}
    found = beliefs_of(plan.picker, list(open_candidates.values()))
    if found is not None:
        belief = dict(zip(open_candidates, found.belief.tolist(), strict=True))
        right = dict(zip(open_candidates, found.right, strict=True))
    done = [one.score * np.float32(belief.get(name, 1.0)) for name, one in open_candidates.items()]
    scores = np.concatenate(done) if done else np.empty(0, np.float32)
    chosen = plan.picker.choose_threshold(scores, plan.seen, target_precision=plan.settings.run.target_precision)
    threshold = min(max(float(chosen), -limit), limit)
    return Cut(threshold=threshold, source="chosen by the picker from all scores", belief=belief, right=right)


def beliefs_of(picker: Any, candidates: Sequence[Picks]) -> Beliefs | None:
    """What the picker makes of all micrographs of a run together; None where its scores are no probabilities.

    `candidates` of each micrograph are those that are open, see `is_open`.
    """
    if not (isinstance(picker, JudgesMicrographs) and gives_probabilities(picker)):
        return None
    found: Beliefs = picker.beliefs(candidates)
    return found


def is_open(candidates: Picks) -> NDArray[np.bool_]:
    """(n,) True for candidates that no rule rejects but the threshold, or the belief in their micrograph."""
    return np.isin(candidates.reason, ("", BELOW_THRESHOLD, NOT_BELIEVED))


def best_score(candidates: Sequence[Picks]) -> float | None:
    """The highest score that no rule but a threshold rejects; None where there is none that is finite."""
    scores = np.concatenate([np.empty(0, np.float32), *[one.score[is_open(one)] for one in candidates]])
    scores = scores[np.isfinite(scores)]
    return float(scores.max()) if len(scores) else None


def what_would_keep_some(best: float, score_meaning: str) -> str:
    """What a user can do where every score is below the threshold."""
    step = 10.0 ** (np.floor(np.log10(abs(best))) - 1) if best else 0.01
    return (
        f"the best of them has a score of {best:.4g} ({score_meaning}), so --threshold "
        f"{np.floor(best / step * (1 + 1e-6)) * step:.3g} keeps some"
    )


def at_threshold(candidates: Picks, threshold: float, *, belief: float = 1.0) -> Picks:
    """Candidates with the reason filled in for those that only their score, or its micrograph, rules out.

    The other selection rules take candidates from the best score down, so what lies below a threshold never changes
    what is kept above it: one selection serves every threshold.
    """
    is_low = candidates.is_kept & ~(candidates.score >= np.float32(threshold))
    is_doubted = candidates.is_kept & ~is_low & ~(candidates.score * np.float32(belief) >= np.float32(threshold))
    reason = np.where(is_low, BELOW_THRESHOLD, candidates.reason)
    return replace(candidates, reason=np.where(is_doubted, NOT_BELIEVED, reason))
