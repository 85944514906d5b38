"""What finishing a run costs: processor time and memory for each micrograph, of tables, report and summary.

python benchmarks/finishing.py [--counts 500 2000] [--before OTHER/src] [-o benchmarks/results]

Run folders are made up, 800 candidates on each micrograph, of which about 480 stand after all rules but the threshold.
Each is finished by `rethreshold --reset` in a process of its own, which has finished a small run before, so that what
is loaded once does not count. `--before` gives the sources of another version, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import TOO_CLOSE
from cryopick.io.coordinates.candidates import candidates_text
from cryopick.runs.folder import CONFIG, PREPARED, RunFolder
from cryopick.runs.record import Record, record_text
from cryopick.runs.report.pictures import overview_jpeg
from cryopick.runs.settings import make_settings, settings_sections
from cryopick.settings import to_toml
from cryopick.types import Picks

CANDIDATES = 800
RULED_OUT_SHARE = 0.4
SMALL = 30
PICKERS = ("blob", "general")
"""One whose threshold is fixed, and one that judges micrographs and chooses it from all scores."""
FINISH = """
import json, resource, sys, time
from cryopick.workflows.rethreshold import rethreshold
small, run = sys.argv[1:]
rethreshold(small, None)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, start = peak(), time.process_time()
summary = rethreshold(run, None)
print(json.dumps({"particles": summary.particles, "seconds": time.process_time() - start, "before_kb": before,
                  "peak_kb": peak()}))
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished run."""

    version: str
    picker: str
    micrographs: int
    particles: int
    seconds: float
    """Of the processor."""
    before_kb: int
    peak_kb: int
    """Most memory of the process, before and in the end."""


def make_run(folder: Path, picker: str, *, micrographs: int, candidates: int = CANDIDATES, seed: int = 0) -> RunFolder:
    """A run folder as picking leaves it, without tables: scores and diameters as pickers give them, no images read."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    settings = make_settings(picker, diameter="150A")
    run.write(run.path / CONFIG, to_toml(settings_sections(settings)))
    if picker != "blob":
        run.write(run.path / PREPARED, to_toml({"survey": {"particle_size": "150A", "sentence": "made up"}}))
    generator = np.random.default_rng(seed)
    picture = overview_jpeg(generator.normal(size=(96, 96)).astype(np.float32))
    for number in range(micrographs):
        key = f"grid one/FoilHole_{number:06d}_Data_fractions"
        picks = _made_up(generator, candidates, name=f"{key}.mrc", is_probability=picker != "blob")
        run.write(run.candidates_path(key), candidates_text(picks))
        run.write(run.image_path(key), picture)
        record = Record(
            name=picks.micrograph_name,
            key=key,
            source=f"/data/session/{picks.micrograph_name}",
            relion_name=f"Micrographs/{picks.micrograph_name}",
            size_bytes=1,
            modified_ns=1,
            shape_yx=picks.shape_yx,
            pixel_size_angstrom=picks.pixel_size_angstrom,
            seconds=1.2345,
            warnings=("made up",) if number % 3 == 0 else (),
            candidate_count=candidates,
            junk_share=0.1,
        )
        run.write(run.record_path(key), record_text(record))
    return run


def _made_up(generator: np.random.Generator, count: int, *, name: str, is_probability: bool) -> Picks:
    right = np.arange(count) < count // 3
    if is_probability:
        score = np.where(right, generator.beta(8, 2, count), generator.beta(1, 8, count))
        diameter_px = np.where(right, generator.normal(100, 7, count), generator.normal(90, 25, count).clip(20))
    else:
        score, diameter_px = generator.gamma(2, 2.5, count), np.full(count, 100.0)
    best_first = np.argsort(-score)
    return Picks(
        xy_px=generator.uniform(0, 4000, (count, 2)),
        score=score[best_first].astype(np.float32),
        diameter_px=diameter_px[best_first].astype(np.float32),
        class_id=np.zeros(count, np.int32),
        reason=np.where(generator.random(count) < RULED_OUT_SHARE, TOO_CLOSE, ""),
        micrograph_name=name,
        shape_yx=(4096, 4096),
        pixel_size_angstrom=1.5,
    )


def finish(run: Path, small: Path, *, sources: Path | None) -> dict[str, float]:
    """Seconds and memory of a process that finishes `run`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if sources is not None:
        environment["PYTHONPATH"] = str(sources)
    command = [sys.executable, "-c", FINISH, str(small), str(run)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(answer.stdout))


def as_markdown(rows: Sequence[Row]) -> str:
    """A table of the runs, and what each further micrograph costs, from the smallest and the largest of them."""
    lines = [
        "# Finishing a run",
        "",
        f"{CANDIDATES} candidates a micrograph; {describe_machine()}. From `benchmarks/finishing.py`.",
        "",
        "| version | picker | micrographs | particles | CPU s | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.version} | {row.picker} | {row.micrographs:,} | {row.particles:,} | {row.seconds:.2f} "
            f"| {row.peak_kb / 1024:.0f} |"
        )
    lines += ["", "| version | picker | CPU ms a micrograph | memory KB a micrograph |", "|---|---|---|---|"]
    for version, picker in dict.fromkeys((row.version, row.picker) for row in rows):
        own = sorted((row for row in rows if (row.version, row.picker) == (version, picker)), key=_micrographs)
        if len(own) > 1:
            more = own[-1].micrographs - own[0].micrographs
            seconds, kb = own[-1].seconds - own[0].seconds, own[-1].peak_kb - own[0].peak_kb
            lines.append(f"| {version} | {picker} | {1000 * seconds / more:.2f} | {kb / more:.1f} |")
    return "\n".join(lines) + "\n"


def _micrographs(row: Row) -> int:
    return row.micrographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", nargs="+", type=int, default=[500, 2000], help="micrographs of the runs")
    parser.add_argument("--pickers", nargs="+", default=PICKERS)
    parser.add_argument("--before", type=Path, help="the folder src of another version")
    parser.add_argument("-o", "--output", type=Path, help="folder for finishing.md and finishing.json")
    arguments = parser.parse_args()
    versions = {"before": arguments.before} if arguments.before is not None else {}
    rows = []
    for picker in arguments.pickers:
        for count in arguments.counts:
            with tempfile.TemporaryDirectory() as scratch:
                small = make_run(Path(scratch) / "small", picker, micrographs=SMALL).path
                run = make_run(Path(scratch) / "run", picker, micrographs=count).path
                for version, sources in {**versions, "now": None}.items():
                    measured = finish(run, small, sources=sources)
                    rows.append(Row(version=version, picker=picker, micrographs=count, **measured))  # type: ignore[arg-type]
                    print(rows[-1], flush=True)
    table = as_markdown(rows)
    print(table, end="")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "finishing.md").write_text(table)
        (arguments.output / "finishing.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
