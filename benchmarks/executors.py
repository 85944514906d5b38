"""What giving out work costs: a run against the same run of an older commit, and many workers against the ideal.

git worktree add ../before COMMIT
python benchmarks/executors.py --before ../before/src [-o benchmarks/results]

The first table picks the same 20 micrographs by this code and by the older one, turn by turn, and gives the ratio of
the shortest times: other programs only ever add to them. Processor time is that of the command and all its workers.

The second table has workers that sleep: 2 s for each of 4 N + 4 micrographs, by N workers, so that the ideal is known.
Workers are started before time counts, as a run of hours does not notice how long they take to import; what a start
takes stands beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cryopick.evaluation.machine import describe_machine
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.survey import Survey
from cryopick.runs.one import Outcome, Task
from cryopick.runs.settings import PickPlan, PickSettings
from cryopick.runs.workers import Workforce
from cryopick.scale.executor import run_all
from cryopick.types import Micrograph, Picks

MICROGRAPHS, SHAPE_YX = 20, (512, 640)
DIAMETER_PX, SPACING_PX, ANGSTROM = 32, 80, 2.0
PICKERS = {"blob": ["--picker", "blob", "-d", f"{DIAMETER_PX}px"], "general": ["--picker", "general"]}
SLEEP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One run by both codes: the shortest of several times, seconds."""

    picker: str
    workers: int
    rounds: int
    before_s: float
    now_s: float
    before_cpu_s: float
    now_cpu_s: float

    @property
    def ratio(self) -> float:
        return self.now_s / self.before_s

    @property
    def cpu_ratio(self) -> float:
        return self.now_cpu_s / self.before_cpu_s


@dataclass(frozen=True, kw_only=True)
class Scaling:
    workers: int
    micrographs: int
    ideal_s: float
    measured_s: float
    start_s: float
    """Until every worker had given its first result."""

    @property
    def excess(self) -> float:
        return self.measured_s / self.ideal_s - 1


@dataclass(frozen=True, kw_only=True)
class SleepingPicker:
    name: ClassVar[str] = "sleeping"
    score_meaning: ClassVar[str] = "none"
    default_threshold: ClassVar[float] = 0.0
    seconds: float = SLEEP_SECONDS

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        del survey
        time.sleep(0.1 if micrograph.name.startswith("warm") else self.seconds)
        return Picks(xy_px=np.zeros((0, 2)), score=np.zeros(0, np.float32))


def write_micrographs(folder: Path) -> None:
    """Noise with dark discs on a grid, each shifted a little."""
    rows, columns = np.mgrid[: SHAPE_YX[0], : SHAPE_YX[1]]
    for number in range(MICROGRAPHS):
        rng = np.random.default_rng(number)
        pixels = rng.normal(0, 1, SHAPE_YX)
        for y in range(SPACING_PX // 2, SHAPE_YX[0], SPACING_PX):
            for x in range(SPACING_PX // 2, SHAPE_YX[1], SPACING_PX):
                dy, dx = rng.uniform(-8, 8, 2)
                pixels -= (rows - y - dy) ** 2 + (columns - x - dx) ** 2 <= (DIAMETER_PX / 2) ** 2
        name = f"m{number:02d}.mrc"
        write_micrograph(folder / name, Micrograph(pixels.astype(np.float32), pixel_size_angstrom=ANGSTROM, name=name))


def picked(source: Path, micrographs: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of `cryopick pick` by the code in `source`; the run's tables must be there."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-m", "cryopick", "pick", micrographs, "-o", output, *options],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
    )
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (output / "autopick.star").is_file()
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(before: Path, rounds: int) -> Iterator[Pair]:
    sources = {"before": before, "now": Path(__file__).parents[1] / "src"}
    with tempfile.TemporaryDirectory() as place:
        micrographs = Path(place) / "in"
        micrographs.mkdir()
        write_micrographs(micrographs)
        for picker, options in PICKERS.items():
            for workers in (1, 2):
                times: dict[str, list[tuple[float, float]]] = {"before": [], "now": []}
                for turn in range(rounds):
                    for code, source in sources.items():
                        output = Path(place) / f"{code}-{picker}-{workers}-{turn}"
                        times[code].append(picked(source, micrographs, output, [*options, "-j", str(workers)]))
                for code in sources:
                    assert len(list(Path(place).glob(f"{code}-{picker}-{workers}-0/picks/*.star"))) == MICROGRAPHS
                wall, cpu = ({code: min(one[kind] for one in times[code]) for code in times} for kind in (0, 1))
                pair = Pair(
                    picker=picker,
                    workers=workers,
                    rounds=rounds,
                    before_s=wall["before"],
                    now_s=wall["now"],
                    before_cpu_s=cpu["before"],
                    now_cpu_s=cpu["now"],
                )
                print(pair, times, file=sys.stderr, flush=True)
                yield pair


def scaled(workers: int) -> Scaling:
    from executors import SleepingPicker as Importable  # not of __main__, which workers do not have

    plan = PickPlan(settings=PickSettings(picker=Importable()))
    count = 4 * workers + 4
    pixels = np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)

    def tasks(kind: str, number: int) -> Iterator[tuple[str, Task]]:
        for index in range(number):
            name = f"{kind}{index}"
            yield name, Task(name=name, micrograph=Micrograph(pixels, name=name))

    with closing(Workforce(workers=workers, time_limit_seconds=600).open(plan, tasks=count)) as executor:
        start = time.perf_counter()
        for name, task in tasks("warm", workers):
            executor.submit(name, task)
        for _ in range(workers):
            require(executor.next(None))
        time.sleep(1.0)
        started_s = time.perf_counter() - start - 1.0
        start = time.perf_counter()
        for done in run_all(executor, tasks("m", count)):
            require(done)
        measured_s = time.perf_counter() - start
    ideal_s = SLEEP_SECONDS * math.ceil(count / workers)
    return Scaling(workers=workers, micrographs=count, ideal_s=ideal_s, measured_s=measured_s, start_s=started_s)


def require(done: Any) -> None:
    assert done is not None
    assert isinstance(done.result, Outcome)
    assert done.result.error == ""


def as_markdown(pairs: list[Pair], scaling: list[Scaling], machine: str) -> str:
    lines = ["# Giving out work", "", f"Made by `benchmarks/executors.py` on {machine}", ""]
    if pairs:
        lines += [
            f"{MICROGRAPHS} micrographs of {SHAPE_YX[1]} x {SHAPE_YX[0]} px; the shortest of {pairs[0].rounds} runs.",
            "",
            "| picker | workers | before, s | now, s | ratio | processor before, s | now, s | ratio |",
            "|---|---|---|---|---|---|---|---|",
            *(
                f"| {one.picker} | {one.workers} | {one.before_s:.1f} | {one.now_s:.1f} | {one.ratio:.2f} | "
                f"{one.before_cpu_s:.1f} | {one.now_cpu_s:.1f} | {one.cpu_ratio:.2f} |"
                for one in pairs
            ),
            "",
        ]
    if scaling:
        lines += [
            f"A picker that sleeps {SLEEP_SECONDS:g} s.",
            "",
            "| workers | micrographs | ideal, s | measured, s | above | start of the workers, s |",
            "|---|---|---|---|---|---|",
            *(
                f"| {one.workers} | {one.micrographs} | {one.ideal_s:.0f} | {one.measured_s:.1f} | {one.excess:.1%} | "
                f"{one.start_s:.1f} |"
                for one in scaling
            ),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="src folder of the older code; without it only the second table")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    scaling = [scaled(workers) for workers in given.workers]
    print(as_markdown([], scaling, "this machine"), flush=True)
    pairs = [] if given.before is None else list(compared(given.before.resolve(), given.rounds))
    machine = describe_machine()
    print(as_markdown(pairs, scaling, str(machine)))
    if given.output is not None:
        content = {"machine": asdict(machine), "runs": list(map(asdict, pairs)), "scaling": list(map(asdict, scaling))}
        (given.output / "executors.json").write_text(json.dumps(content, indent=1) + "\n")
        (given.output / "executors.md").write_text(as_markdown(pairs, scaling, str(machine)))


if __name__ == "__main__":
    main()
