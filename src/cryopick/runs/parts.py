"""A part of a run, picked beside others that pick the other parts, and what it came to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cryopick.errors import SettingsError

MOST_PARTS = 1_000_000


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, counted from 0: every `count`-th micrograph of the run in the order of their names."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.count <= MOST_PARTS or not 0 <= self.number < self.count:
            last = (
                f"0/{self.count} to {self.count - 1}/{self.count}" if 0 < self.count <= MOST_PARTS else "0/16 to 15/16"
            )
            raise SettingsError(f"part {self}: there is no such part; expected K/N such as {last}, K from 0")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, names: Iterable[str]) -> list[str]:
        """Those of the names of all micrographs of the run that this part picks."""
        return sorted(names)[self.number :: self.count]


def parse_part(text: str) -> Part:
    """The part that `K/N` names.

    Raises
    ------
    SettingsError
        If the text is no part.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text, re.ASCII)
    if match is None:
        raise SettingsError(f"part {text[:40]!r}: expected K/N such as 0/16, the first of 16, to 15/16, the last")
    return Part(int(match[1]), int(match[2]))


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """What a call came to that picked some micrographs of a run and left the tables to a later call."""

    part: str
    """`K/N`; "" where single micrographs were added."""
    micrographs: int
    """Of this part, picked now or before."""
    skipped: int
    """Of them, finished before."""
    failed: Mapping[str, str]
    """Name and error of each micrograph that could not be picked."""
    particles: int
    """Picks at the threshold so far; it may be chosen anew when the tables are written."""
    threshold: float


def part_summary_as_dict(summary: PartSummary) -> dict[str, Any]:
    """A summary as one flat JSON object, the last line of `--json`."""
    return {"event": "part", **asdict(summary)}
