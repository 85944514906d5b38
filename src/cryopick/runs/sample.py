"""Which micrographs of a run a picker is shown before it picks: some that hold something, spread over the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryopick.errors import SettingsError, UnknownPixelSizeError
from cryopick.heatmap.size_votes import MEASURING
from cryopick.inference.progress import tell
from cryopick.pickers.protocol import ChoosesSample
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph

ENOUGH_HOLDING = 3
"""Where fewer of the first few hold something, more are read."""
MOST_READ = 24
"""Micrographs read in search of some that hold something: each large one costs a second and more to read."""
LOOKING = "looking for micrographs that hold something"


@dataclass(frozen=True, eq=False)
class Sample:
    """Micrographs to survey, in the order of the run, and a sentence for the log about how they were chosen."""

    micrographs: list[Micrograph]
    sentence: str


def chosen_sample(
    readable: Iterable[tuple[int, Micrograph]], picker: ChoosesSample, *, wanted: int, available: int
) -> Sample:
    """At most `wanted` micrographs, those that hold something; where none does, the first `wanted`.

    The first `wanted` are looked at. Where fewer than `ENOUGH_HOLDING` of them hold something, more are, one by one,
    until so many do or `MOST_READ` are read; what holds nothing is let go at once.

    Parameters
    ----------
    readable : place in the run and content, the first `wanted` spread over the run, and every further beginning too
    picker : is asked which hold something
    available : micrographs of the run
    """
    doing = MEASURING if getattr(picker, "diameter", None) is None else LOOKING
    first: list[tuple[int, Micrograph]] = []
    holding: list[tuple[int, Micrograph]] = []
    count = 0
    for one in readable:
        count += 1
        tell(doing, count, wanted if count <= wanted else min(MOST_READ, available))
        asked = [*holding, one]
        holding = [asked[index] for index in _holding(picker, [micrograph for _, micrograph in asked])]
        if len(first) < wanted:
            first.append(one)
        if count >= wanted and (len(holding) >= min(ENOUGH_HOLDING, wanted) or count >= MOST_READ):
            break
    chosen = sorted(holding or first, key=lambda one: one[0])
    sentence = f"looked at {count} of {available} micrographs before picking: {len(holding)} hold something"
    if not holding:
        sentence += f", so the first {len(chosen)} looked at are gone by"
    return Sample([micrograph for _, micrograph in chosen], sentence)


def _holding(picker: ChoosesSample, micrographs: list[Micrograph]) -> list[int]:
    try:
        return picker.holding_particles(micrographs)
    except (SettingsError, UnknownPixelSizeError):
        return list(range(len(micrographs) - 1))  # impossible for the new one: the survey, and picking it, say why


def sample_order(count: int, wanted: int) -> list[int]:
    """0 to `count - 1`: at first `wanted` at equal steps, then some more spread over the whole, then the rest."""
    first = evenly_taken(range(count), wanted)
    left = sorted(set(range(count)) - set(first))
    spread = evenly_taken(left, MOST_READ)
    between = [*spread[::2], *spread[1::2]]  # so that few of them are spread, too
    return [*first, *between, *sorted(set(left) - set(spread))]
