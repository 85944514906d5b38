"""Where, when and with what a run was computed, for programs that tell runs apart or keep a record of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from cryopick.inference.computing import Computing
from cryopick.runs.files import UsedFile
from cryopick.runs.folder import SUMMARY, RunFolder

FINISHED, STOPPED = "finished", "stopped"
"""Of `RunFacts.state`."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is noted of the last call that picked into a run; part of `summary.json`."""

    state: str = ""
    """`finished`, or `stopped` where the call ended before every micrograph was picked."""
    host: str = ""
    """Of the machine that wrote the tables."""
    started: str = ""
    ended: str = ""
    """Date, time and offset from UTC, ISO 8601, at which the call began, and at which it had picked everything."""
    device: str = ""
    """`cpu`, `cuda` or `mps`."""
    precision: str = ""
    """`float32`, `bfloat16` or `int8`; "" where the picker has no such choice."""
    processors: tuple[str, ...] = ()
    """Models of the CPUs or graphics cards that micrographs of the run were picked on."""
    files: Mapping[str, UsedFile] = field(default_factory=dict)
    """Weights, references and models that it was picked with, by what they are for."""

    def with_computing(self, computing: Computing | None) -> RunFacts:
        """The same with what the run computes with."""
        return self if computing is None else replace(self, device=computing.device, precision=computing.precision)

    def at_end(self, *, is_stopped: bool) -> RunFacts:
        """The same with what is known when all is picked, or no more will be."""
        return replace(self, state=STOPPED if is_stopped else FINISHED, ended=now())

    def as_fields(self) -> dict[str, Any]:
        """By name."""
        return {one.name: getattr(self, one.name) for one in fields(RunFacts)}


def facts_of_now() -> RunFacts:
    """Of a call that begins."""
    return RunFacts(host=socket.gethostname(), started=now())


def now() -> str:
    """Such as `2026-11-30T12:04:05+01:00`."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read_facts(folder: RunFolder) -> RunFacts:
    """What the summary in a folder says; nothing where there is none, where it is older, or damaged.

    For commands that write the tables of a run again without picking.
    """
    try:
        content = json.loads((folder.path / SUMMARY).read_text(encoding="utf-8", errors="surrogateescape"))
        json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")  # it must be possible to write it
        texts = {name: content[name] for name in ("state", "host", "started", "ended", "device", "precision")}
        files = {str(role): UsedFile(**one) for role, one in content["files"].items()}
        if not all(isinstance(text, str) for text in texts.values()):
            return RunFacts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return RunFacts()
    return RunFacts(**texts, files=files)
