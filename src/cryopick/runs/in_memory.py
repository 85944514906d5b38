"""What `cryopick pick` keeps of micrographs, without files: for benchmarks and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.pickers.protocol import ChoosesThreshold, Picker, PreparesForRun
from cryopick.runs.one import junk_mask
from cryopick.types import Micrograph, Picks


@dataclass(frozen=True, eq=False)
class PickedInMemory:
    """A run without a folder.

    Parameters
    ----------
    picker : prepared on the micrographs
    candidates : of each micrograph, with the reasons that no threshold changes
    picks : the same at the threshold, those below it with that as their reason
    threshold : one for all micrographs
    """

    picker: Picker
    candidates: list[Picks]
    picks: list[Picks]
    threshold: float


def pick_in_memory(
    picker: Picker, micrographs: Sequence[Micrograph], *, selection: SelectionSettings | None = None
) -> PickedInMemory:
    """Prepare the picker on all micrographs, pick each, and choose one threshold for them.

    Parameters
    ----------
    micrographs : particles dark
    selection : rules on distances and borders; the usual ones when not given
    """
    rules = selection or SelectionSettings()
    prepared = picker.prepare(micrographs) if isinstance(picker, PreparesForRun) else picker
    found = [prepared.pick(micrograph) for micrograph in micrographs]
    masks = [junk_mask(picks) for picks in found]

    def selected(threshold: float) -> list[Picks]:
        return [
            select(picks, rules, threshold=threshold, junk_mask=mask) for picks, mask in zip(found, masks, strict=True)
        ]

    candidates = selected(-np.inf)
    threshold = prepared.default_threshold
    if isinstance(prepared, ChoosesThreshold):
        scores = [picks.kept().score for picks in candidates]
        threshold = prepared.choose_threshold(np.concatenate(scores) if scores else np.zeros(0, np.float32))
    return PickedInMemory(prepared, candidates, selected(threshold), threshold)
