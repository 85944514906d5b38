"""Which threshold holds in a run, how far each micrograph is believed, and what both make of the candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import BELOW_THRESHOLD, NOT_BELIEVED
from cryopick.pickers.protocol import ChoosesThreshold, JudgesMicrographs, gives_probabilities
from cryopick.processing.belief import Beliefs, OpenCandidates
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


def cut_of(folder: RunFolder, plan: PickPlan, candidates: Mapping[str, OpenCandidates] | None = None) -> Cut:
    """The cut of a run: rethreshold, else as `choose_cut`.

    `candidates`, by micrograph, are those of all finished ones; where not given they are read when the picker wants to
    see them.
    """
    moved = folder.moved_threshold()
    if moved is not None:
        return Cut(threshold=moved, source="rethreshold")
    if candidates is None and needs_all_scores(plan):
        candidates = {
            record.name: open_candidates(folder.read_candidates(record), plan.picker)
            for record in folder.records()
            if record.is_done
        }
    return choose_cut(plan, candidates or {})


def needs_all_scores(plan: PickPlan) -> bool:
    """Whether the cut of a run follows from the candidates of all its micrographs, where it was not moved since."""
    selection = plan.settings.selection
    return selection.threshold is None and not selection.as_found and isinstance(plan.picker, ChoosesThreshold)


def choose_cut(plan: PickPlan, candidates: Mapping[str, OpenCandidates]) -> Cut:
    """The cut for candidates of all micrographs: the threshold of the user, of the picker, or its default.

    A threshold that the user gives holds on every micrograph alike.

    Parameters
    ----------
    candidates : by micrograph, in the order of their names, on which the last digits of what is chosen depend
    """
    given = plan.settings.selection.threshold
    if given is not None:
        return Cut(threshold=given, source="given")
    limit = float(np.finfo(np.float32).max)  # JSON has no infinity; no score lies beyond
    if plan.settings.selection.as_found:
        return Cut(threshold=-limit, source=ALL_KEPT)
    if not isinstance(plan.picker, ChoosesThreshold):
        return Cut(threshold=float(plan.picker.default_threshold), source="the picker's default")
    belief: dict[str, float] = {}
    right: Mapping[str, NDArray[np.float64]] = {}
    found = beliefs_of(plan.picker, list(candidates.values()))
    if found is not None:
        belief = dict(zip(candidates, found.belief.tolist(), strict=True))
        right = dict(zip(candidates, found.right, strict=True))
    scores = believed_scores(candidates, belief)
    chosen = plan.picker.choose_threshold(scores, plan.seen, target_precision=plan.settings.run.target_precision)
    threshold = min(max(float(chosen), -limit), limit)
    return Cut(threshold=threshold, source="chosen by the picker from all scores", belief=belief, right=right)


def open_candidates(candidates: Picks, picker: Any) -> OpenCandidates:
    """Of the candidates of a micrograph, as they stand in its table, what the cut of a run is chosen from.

    These are the ones that no rule rejects; the sizes only where the picker judges micrographs by them.
    """
    is_kept = candidates.is_kept
    sizes = candidates.diameter_px[is_kept] if judges_micrographs(picker) else np.empty(0, np.float32)
    return OpenCandidates(score=candidates.score[is_kept], diameter_px=sizes)


def judges_micrographs(picker: Any) -> bool:
    """Whether a picker, set as it is, tells on which micrographs of a run what looks likely is believed."""
    return isinstance(picker, JudgesMicrographs) and gives_probabilities(picker)


def beliefs_of(picker: Any, candidates: Sequence[OpenCandidates]) -> Beliefs | None:
    """What the picker makes of all micrographs of a run together; None where it does not judge them."""
    return picker.beliefs(candidates) if judges_micrographs(picker) else None


def believed_scores(candidates: Mapping[str, OpenCandidates], belief: Mapping[str, float]) -> NDArray[np.float32]:
    """(n,) scores of all micrographs, each times the belief in its micrograph, 1 where there is none."""
    believed = np.empty(sum(map(len, candidates.values())), np.float32)
    start = 0
    for name, one in candidates.items():
        believed[start : start + len(one)] = one.score * np.float32(belief.get(name, 1.0))
        start += len(one)
    return believed


def is_open(candidates: Picks) -> NDArray[np.bool_]:
    """(n,) True for candidates that no rule rejects but the threshold, or the belief in their micrograph."""
    return np.isin(candidates.reason, ("", BELOW_THRESHOLD, NOT_BELIEVED))


def best_score(candidates: Iterable[OpenCandidates]) -> float | None:
    """The highest score that no rule but a threshold rejects; None where there is none that is finite."""
    best = [one.score[np.isfinite(one.score)].max(initial=-np.inf) for one in candidates]
    return float(max(best)) if best and max(best) > -np.inf else None


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
