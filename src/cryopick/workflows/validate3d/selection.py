"""2D selection: which particles of a run go into the map, by the classes that their images fall into."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.files.text import read_text
from cryopick.workflows.validate3d.truth import MatchedPicks


@dataclass(frozen=True, kw_only=True)
class ClassFact:
    """One 2D class; `number` counts from 1."""

    number: int
    particles: int
    quality: float
    is_kept: bool
    reason: str
    precision: float | None = None


def class_facts(
    assignment: NDArray[np.int64],
    quality: Sequence[float] | NDArray[np.float64],
    is_kept: Sequence[bool],
    reason: Sequence[str],
    known: MatchedPicks | None,
) -> list[ClassFact]:
    """What the report shows of each class; with known truth, which share of it are particles.

    Parameters
    ----------
    assignment : (n,) class of each particle, from 0
    """
    facts = []
    for number in range(len(quality)):
        mine = assignment == number
        precision = float(known.is_true[mine].mean()) if known is not None and mine.any() else None
        value = float(quality[number])
        facts.append(
            ClassFact(
                number=number + 1,
                particles=int(mine.sum()),
                quality=value if np.isfinite(value) else 0.0,
                is_kept=bool(is_kept[number]),
                reason=reason[number],
                precision=precision,
            )
        )
    return facts


def classes_csv(facts: Sequence[ClassFact]) -> str:
    """One row a class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", "particles", "quality", "is_kept", "reason", "precision"])
    for one in facts:
        precision = "" if one.precision is None else f"{one.precision:.4f}"
        rows.writerow([one.number, one.particles, f"{one.quality:.4g}", int(one.is_kept), one.reason, precision])
    return text.getvalue()


def chosen_classes(path: Path, runs: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    """The classes that a file keeps of each run.

    Lines are `RUN: 1, 2, 5`; with one run its numbers alone do. Numbers are those of the report; blank lines and what
    follows a # are left out.

    Raises
    ------
    InputError
        If there is no such file.
    FormatError
        If a word is no number, a run is unknown or missing.
    """
    if not path.is_file():
        raise InputError(f"--select2d {path}: no such file; expected none, auto, or a file of class numbers")
    found: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(read_text(path, what="class numbers").splitlines(), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        head, colon, tail = words.rpartition(":")
        name = head.strip() if colon else ""
        if not name and len(runs) > 1:
            raise FormatError(f"{path} line {number}: says no run; with several write `RUN: 1, 2, 5`")
        name = name or runs[0]
        if name not in runs:
            raise FormatError(f"{path} line {number}: run {name!r} is unknown; known: {', '.join(runs)}")
        try:
            found[name] = tuple(int(one) for one in tail.replace(",", " ").split())
        except ValueError as error:
            raise FormatError(f"{path} line {number}: expected class numbers, got {tail.strip()!r}") from error
    missing = [one for one in runs if one not in found]
    if missing:
        raise FormatError(f"{path}: keeps no classes of {', '.join(missing)}; write a line for each run")
    return found
