"""What a benchmark consists of: sets, rows, and the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryopick.data.labels import Labels
from cryopick.evaluation.machine import Machine
from cryopick.evaluation.scores import Evaluation


@dataclass(frozen=True, eq=False)
class BenchmarkSet:
    """Labelled micrographs.

    Parameters
    ----------
    name : unique in a benchmark
    images : one path per micrograph
    labels : by micrograph name
    diameter_px : (low, high); equal when all micrographs share one diameter, None when labels do not say
    pixel_size_angstrom : None when unknown or different from micrograph to micrograph
    """

    name: str
    images: tuple[Path, ...]
    labels: Mapping[str, Labels]
    diameter_px: tuple[float, float] | None
    pixel_size_angstrom: float | None

    @property
    def particle_count(self) -> int:
        return sum(int(np.count_nonzero(~labels.is_uncertain)) for labels in self.labels.values())


@dataclass(frozen=True, eq=False)
class BenchmarkRow:
    """One picker on one set.

    Parameters
    ----------
    evaluation : None where the picker failed; `error` says why
    seconds_per_micrograph : reading and picking, start of the program not counted; NaN where unknown
    wall_seconds, cpu_seconds : the whole program, from start to end; CPU time sums over cores and, unlike the others,
        hardly depends on what else the machine does
    peak_memory_bytes : of the picking process; None where the system does not tell
    settings : what the picker was given besides its defaults
    """

    picker: str
    set_name: str
    evaluation: Evaluation | None
    error: str = ""
    seconds_per_micrograph: float = float("nan")
    wall_seconds: float = float("nan")
    cpu_seconds: float = float("nan")
    peak_memory_bytes: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """All rows of a benchmark, in the order of sets and pickers."""

    rows: tuple[BenchmarkRow, ...]
    sets: tuple[BenchmarkSet, ...]
    tolerance: float
    machine: Machine
