"""What somebody who follows a session hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal[
    "start",
    "waiting",
    "seen",
    "prepared",
    "repick",
    "micrograph",
    "threshold",
    "revised",
    "incomplete",
    "moved",
    "gone",
    "clash",
    "companion",
    "warning",
    "summary",
    "end",
    "run",
]


@dataclass(frozen=True)
class WatchEvent:
    """Something that happened in a run that is followed.

    Parameters
    ----------
    kind : see `docs/watch.md`, where each has its line
    name : of the micrograph that it is about; "" where it is about the run
    content : the rest, as in the JSON line: numbers, texts, and what JSON knows besides
    """

    kind: EventKind
    name: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """A part of the content, by name."""
        return self.content[key]

    def as_dict(self) -> dict[str, Any]:
        """One flat JSON object."""
        return {"event": self.kind, **({"name": self.name} if self.name else {}), **self.content}
