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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryopick.errors import CryopickError
from cryopick.evaluation.benchmark_report import as_markdown, write_benchmark
from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow, BenchmarkSet
from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.usage import Usage, run_measured
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.types import Picks
from cryopick.workflows.benchmark import RUNS, open_sets, run_picker
from cryopick.workflows.evaluate import evaluate

TOPAZ_PARTICLE_PX = 20
"""Particle diameter that Topaz's pretrained networks expect, in pixels of the scaled image."""
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
                rows += [
                    run_relion(relion, one, project, shapes_yx=shapes_yx, limits=limits, seed=arguments.seed)
                    for limits in LOG_RANGES
                ]
            if topaz is not None:
                print(f"Topaz on {one.name}", file=sys.stderr)
                rows += run_topaz(topaz, one, project, shapes_yx=shapes_yx, seed=arguments.seed)
    result = Benchmark(tuple(rows), tuple(sets), 0.25, describe_machine())
    write_benchmark(result, arguments.output)
    print(as_markdown(result))


def convert_to_mrc(data: BenchmarkSet, project: Path) -> dict[str, tuple[int, int]]:
    """The images of a set as MRC in `project`/mics, which is what the other programs read; their sizes by name."""
    shapes_yx = {}
    for path in data.images:
        micrograph = read_micrograph(path, pixel_size_angstrom=data.pixel_size_angstrom or 1.0)
        write_micrograph(project / "mics" / f"{path.stem}.mrc", micrograph)
        shapes_yx[path.stem] = micrograph.shape_yx
    return shapes_yx


def run_relion(
    program: str,
    data: BenchmarkSet,
    project: Path,
    *,
    shapes_yx: Mapping[str, tuple[int, int]],
    limits: tuple[float, float],
    seed: int,
) -> BenchmarkRow:
    """RELION's Laplacian-of-Gaussian picker, looking for diameters within `limits` times the true one."""
    low, high = limits
    name = "RELION LoG, D" if low == high else f"RELION LoG, {low:g}-{high:g} D"
    pixel_size = data.pixel_size_angstrom or 1.0
    diameter_angstrom = _diameter_px(data) * pixel_size
    output = project / f"log{low:g}"
    # Equal limits make the program divide by zero steps; a tenth of a per cent apart is one diameter.
    options = {
        "--i": "mics/*.mrc",
        "--odir": f"{output.name}/",
        "--pickname": "autopick",
        "--angpix": f"{pixel_size:g}",
        "--LoG_diam_min": f"{low * diameter_angstrom * 0.9995:.3f}",
        "--LoG_diam_max": f"{high * diameter_angstrom * 1.0005:.3f}",
        "--LoG_adjust_threshold": "0",
        "--shrink": "0",
        "--lowpass": "20",
    }
    command = [program, "--LoG", *(word for pair in options.items() for word in pair)]
    usage = run_measured(command, cwd=project)
    if usage.exit_code != 0:
        return BenchmarkRow(name, data.name, None, error=usage.last_line, settings=options)
    try:
        picks = read_picks(output / "mics", format="star", shapes_yx=dict(shapes_yx))
    except CryopickError as error:
        return BenchmarkRow(name, data.name, None, error=str(error), settings=options)
    return _row(name, data, picks, usages=[usage], options=options, seed=seed)


def run_topaz(
    program: str, data: BenchmarkSet, project: Path, *, shapes_yx: Mapping[str, tuple[int, int]], seed: int
) -> list[BenchmarkRow]:
    """Topaz's own pretrained network; one row per threshold, of one and the same run."""
    diameter_px = _diameter_px(data)
    scale = max(1, round(diameter_px / TOPAZ_PARTICLE_PX))
    options = {"-s": str(scale), "-r": str(round(diameter_px / scale / 2)), "-m": "resnet16"}
    images = [f"mics/{path.stem}.mrc" for path in data.images]
    scaled = [f"scaled/{path.stem}.mrc" for path in data.images]
    preprocess = [program, "preprocess", "-s", options["-s"], "-d", "-1", "-o", "scaled/", *images]
    network = ["-m", options["-m"], "-r", options["-r"], "-x", options["-s"]]
    extract = [program, "extract", *network, "-d", "-1", "-o", "topaz.txt", *scaled]
    usages = []
    for command in (preprocess, extract):
        usages.append(run_measured(command, cwd=project))
        if usages[-1].exit_code != 0:
            return [BenchmarkRow("Topaz", data.name, None, error=usages[-1].last_line, settings=options)]
    picks = read_picks(project / "topaz.txt", shapes_yx=dict(shapes_yx))
    rows = []
    for threshold in TOPAZ_THRESHOLDS:
        kept = {name: one.take(one.score > threshold) for name, one in picks.items()}
        rows.append(_row(f"Topaz, score > {threshold:g}", data, kept, usages=usages, options=options, seed=seed))
    return rows


def _row(
    name: str,
    data: BenchmarkSet,
    picks: Mapping[str, Picks],
    *,
    usages: Sequence[Usage],
    options: Mapping[str, str],
    seed: int,
) -> BenchmarkRow:
    # A program that finds nothing on a micrograph may leave it out of its files.
    stems = [path.stem for path in data.images]
    missing = set(stems) - set(match_micrograph_names(stems, picks))
    known = {one: replace(found, micrograph_name=one) for one, found in picks.items()}
    known |= {one: Picks(xy_px=np.empty((0, 2)), micrograph_name=one) for one in missing}
    wall_seconds = sum(usage.wall_seconds for usage in usages)
    return BenchmarkRow(
        picker=name,
        set_name=data.name,
        evaluation=evaluate(known, data.labels, tolerance=0.25, seed=seed),
        seconds_per_micrograph=wall_seconds / len(data.images),
        wall_seconds=wall_seconds,
        cpu_seconds=sum(usage.cpu_seconds for usage in usages),
        peak_memory_bytes=max((usage.peak_memory_bytes or 0 for usage in usages), default=0) or None,
        settings=options,
    )


def _diameter_px(data: BenchmarkSet) -> float:
    if data.diameter_px is None:
        raise ValueError(f"{data.name}: the diameter is unknown")
    low, high = data.diameter_px
    return (low * high) ** 0.5


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
