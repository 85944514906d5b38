"""The threshold of a run that grows: it is chosen from all scores so far, and moved only where that changes much."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.belief import OpenCandidates
from cryopick.runs.threshold import Cut

MOVED_SHARE = 0.01
"""Of the picks, that must change before a new threshold is taken."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """A new cut, and the micrographs whose picks it changes, with how many do."""

    cut: Cut
    changed: dict[str, int]


@dataclass
class MovingThreshold:
    """What is kept so far, and of which candidates.

    Parameters
    ----------
    cut : in force
    candidates : by micrograph, of all that were picked
    """

    cut: Cut
    candidates: dict[str, OpenCandidates] = field(default_factory=dict)

    def in_order(self) -> dict[str, OpenCandidates]:
        """The candidates in the order of the names, as a cut is chosen from them."""
        return dict(sorted(self.candidates.items()))

    def count(self, name: str) -> int:
        """Picks on one micrograph at the cut in force."""
        return count_at(self.candidates[name], self.cut, name)

    def moved_to(self, cut: Cut, *, least_share: float = MOVED_SHARE) -> Move | None:
        """Take another cut, unless no more than `least_share` of the picks would change.

        Gives None where the cut in force stays.
        """
        changed: dict[str, int] = {}
        picks = 0
        for name, candidates in self.candidates.items():
            before, after = _kept(candidates, self.cut, name), _kept(candidates, cut, name)
            picks += int(np.count_nonzero(before))
            if different := int(np.count_nonzero(before != after)):
                changed[name] = different
        if sum(changed.values()) <= least_share * picks:
            return None
        self.cut = cut
        return Move(cut=cut, changed=changed)


def count_at(candidates: OpenCandidates, cut: Cut, name: str) -> int:
    """Picks among the open candidates of one micrograph at a cut."""
    return int(np.count_nonzero(_kept(candidates, cut, name)))


def _kept(candidates: OpenCandidates, cut: Cut, name: str) -> NDArray[np.bool_]:
    limit = np.float32(cut.threshold)
    kept: NDArray[np.bool_] = (candidates.score >= limit) & (
        candidates.score * np.float32(cut.belief_in(name)) >= limit
    )
    return kept
