"""cryopick's pickers beside RELION's LoG picker and pretrained Topaz: same files, same labels, same run, one table.

    python benchmarks/peers.py --data SETS... -o out/ [--pickers blob,general] [--topaz /path/to/topaz]

RELION (`relion_autopick`) and Topaz (`topaz`, GPL) are run as programs where they are installed and are left out, with
a sentence, where they are not. Every program gets the particle diameter of the set and its own default threshold:

- RELION LoG: diameters 0.8 to 1.2 D (as its users give a range) and exactly D, threshold adjustment 0, and what its
  interface sets: `--shrink 0 --lowpass 20`.
- Topaz: the resnet16 that comes with it, images scaled down so that the particle is about 20 px, radius half of that;
  at its default score of -6, and at 0, where a pick is more likely a particle than not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cryopick.errors import CryopickError
from cryopick.evaluation.benchmark_report import as_markdown, write_benchmark
from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow, BenchmarkSet
from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.peers import PeerRun, convert_to_mrc, run_relion_log, run_topaz
from cryopick.workflows.benchmark import RUNS, open_sets, run_picker
from cryopick.workflows.evaluate import evaluate

LOG_RANGES = ((0.8, 1.2), (1.0, 1.0))
TOPAZ_THRESHOLDS = (-6.0, 0.0)


def main() -> None:
    """Parse, run every program on every set, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="labelled sets, or folders of such")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pickers", default="blob", help="cryopick's pickers, separated by commas")
    parser.add_argument("--relion", default="relion_autopick", help="RELION's program")
    parser.add_argument("--topaz", default="topaz", help="Topaz's program")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pickers = [name.strip() for name in arguments.pickers.split(",")]
    relion, topaz = shutil.which(arguments.relion), shutil.which(arguments.topaz)
    for name, found in (("RELION", relion), ("Topaz", topaz)):
        if found is None:
            print(f"{name} is not installed here and is left out", file=sys.stderr)
    rows: list[BenchmarkRow] = []
    sets = open_sets(arguments.data)
    for one in sets:
        for name in pickers:
            print(f"{name} on {one.name}", file=sys.stderr)
            folder = arguments.output / RUNS / one.name / name
            rows.append(run_picker(name, one, folder, settings={}, tolerance=0.25, workers=1, seed=arguments.seed))
        if one.diameter_px is None or not (relion or topaz):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            project = Path(scratch)
            shapes_yx = convert_to_mrc(one, project)
            if relion is not None:
                print(f"RELION on {one.name}", file=sys.stderr)
                rows += relion_rows(relion, one, project, shapes_yx=shapes_yx, seed=arguments.seed)
            if topaz is not None:
                print(f"Topaz on {one.name}", file=sys.stderr)
                rows += topaz_rows(topaz, one, project, shapes_yx=shapes_yx, seed=arguments.seed)
    result = Benchmark(tuple(rows), tuple(sets), 0.25, describe_machine())
    write_benchmark(result, arguments.output)
    print(as_markdown(result))


def relion_rows(
    program: str, data: BenchmarkSet, project: Path, *, shapes_yx: Mapping[str, tuple[int, int]], seed: int
) -> list[BenchmarkRow]:
    """RELION's Laplacian-of-Gaussian picker at both ranges of diameters."""
    rows = []
    for low, high in LOG_RANGES:
        name = "RELION LoG, D" if low == high else f"RELION LoG, {low:g}-{high:g} D"
        try:
            run = run_relion_log(program, data, project, shapes_yx=shapes_yx, limits=(low, high))
        except CryopickError as error:
            rows.append(BenchmarkRow(name, data.name, None, error=str(error)))
            continue
        rows.append(_row(name, data, run, seed=seed))
    return rows


def topaz_rows(
    program: str, data: BenchmarkSet, project: Path, *, shapes_yx: Mapping[str, tuple[int, int]], seed: int
) -> list[BenchmarkRow]:
    """Topaz's own pretrained network; one row per threshold, of one and the same run."""
    try:
        run = run_topaz(program, data, project, shapes_yx=shapes_yx)
    except CryopickError as error:
        return [BenchmarkRow("Topaz", data.name, None, error=str(error))]
    rows = []
    for threshold in TOPAZ_THRESHOLDS:
        kept = {name: one.take(one.score > threshold) for name, one in run.picks.items()}
        rows.append(_row(f"Topaz, score > {threshold:g}", data, replace(run, picks=kept), seed=seed))
    return rows


def _row(name: str, data: BenchmarkSet, run: PeerRun, *, seed: int) -> BenchmarkRow:
    return BenchmarkRow(
        picker=name,
        set_name=data.name,
        evaluation=evaluate(run.picks, data.labels, tolerance=0.25, seed=seed),
        seconds_per_micrograph=run.wall_seconds / len(data.images),
        wall_seconds=run.wall_seconds,
        cpu_seconds=sum(usage.cpu_seconds for usage in run.usages),
        peak_memory_bytes=max((usage.peak_memory_bytes or 0 for usage in run.usages), default=0) or None,
        settings=run.options,
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
