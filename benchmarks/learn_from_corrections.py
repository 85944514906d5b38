"""Whether a hundred corrections on three micrographs make `general` better on others, where it does badly: simulated.

    python benchmarks/learn_from_corrections.py FOLDER benchmarks/results/learn_from_corrections.json [dumbbell torus]

Two made-up particles that `general` centres badly: two balls on a rod, whose balls it picks, and a ring, whose rim it
picks. For each ten micrographs are simulated and picked with the shipped weights. The three whose mistakes are together
nearest to a hundred are corrected as a person would in `cryopick view`, from the truth: wrong picks removed, missed
particles added, and ticked complete. The learning is the one that the viewer begins (two of the three teach, one
judges); the others, which neither taught nor judged, are picked with the old and with the new weights. What is in
FOLDER already is not made again.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import cryopick
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.pairing import pair_points
from cryopick.io.images.mrc import write_mrc
from cryopick.runs.folder import RunFolder
from cryopick.viewer.learning import EVERY, STEPS
from cryopick.viewer.sources import RunSource
from cryopick.workflows.edits import Mark, Marks, apply_marks
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.teaching import MICROGRAPHS, Taught, write_teaching_set

VOXEL_ANGSTROM, SIDE = 4.0, 128
PARTICLES = {"dumbbell": 350.0, "torus": 336.0}
"""Largest extent, Å, which is the diameter that is given."""
CORRECTIONS, TOLERANCE = 100, 0.25


def density(name: str) -> NDArray[np.float32]:
    """(128, 128, 128) at 4 Å, with an uneven inside."""
    z, y, x = (np.mgrid[:SIDE, :SIDE, :SIDE] - (SIDE - 1) / 2) * VOXEL_ANGSTROM
    uneven = gaussian_filter(np.random.default_rng(0).normal(size=(SIDE,) * 3), 1.5)
    if name == "dumbbell":
        balls = [np.sqrt((x - at) ** 2 + y**2 + z**2) < 65 for at in (-110, 110)]
        solid = balls[0] | balls[1] | ((np.hypot(y, z) < 14) & (abs(x) < 110))
    else:
        solid = np.hypot(np.hypot(x, y) - 140, z) < 28
    return np.asarray(0.25 * gaussian_filter(solid.astype(float), 1.0) * (1 + 0.3 * uneven / uneven.std()), np.float32)


def run(*words: Any) -> float:
    """A cryopick command; its seconds."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "cryopick", *map(str, words)], check=True)
    return time.monotonic() - start


def mistakes(source: RunSource, number: int, truth: Labels) -> tuple[list[Mark], float]:
    """What a person would have to mark on one micrograph, and its particle diameter in pixels."""
    diameter = source.diameter_px(number)
    picks = apply_marks(
        source.candidates(number),
        Marks(by_id={}),
        threshold=source.cutting.threshold,
        diameter_px=diameter,
        belief=source.rows[number].belief,
    )
    certain = truth.xy_px[~truth.is_uncertain]
    pairs = pair_points(picks.xy_px, certain, max_distance=TOLERANCE * diameter)
    wrong = np.setdiff1d(np.arange(len(picks)), pairs.first)
    missed = np.setdiff1d(np.arange(len(certain)), pairs.second)
    marks = [Mark(kind="no", x=float(x), y=float(y)) for x, y in picks.xy_px[wrong]]
    return marks + [
        Mark(kind="yes", x=float(x), y=float(y), diameter_px=diameter) for x, y in certain[missed]
    ], diameter


def teach(folder: Path, source: RunSource, truth: dict[str, Labels]) -> tuple[list[str], int]:
    """Write the teaching set; stems of the micrographs that are corrected, and how many marks that took."""
    marks = {number: mistakes(source, number, truth[Path(row.name).stem]) for number, row in enumerate(source.rows)}
    some = [number for number, row in enumerate(source.rows) if len(truth[Path(row.name).stem].xy_px) > 5]
    chosen = min(
        itertools.combinations(some, 3), key=lambda three: abs(sum(len(marks[n][0]) for n in three) - CORRECTIONS)
    )
    taught = []
    for number in chosen:
        row, (own, diameter) = source.rows[number], marks[number]
        done = Marks(by_id={f"m{k}": mark for k, mark in enumerate(own)}, is_complete=True)
        picks = apply_marks(
            source.candidates(number),
            done,
            threshold=source.cutting.threshold,
            diameter_px=diameter,
            belief=row.belief,
        )
        taught.append(
            Taught(
                key=row.key,
                source=row.source,
                marks=done,
                picks=picks,
                confident=np.zeros(len(picks), bool),
                diameter_px=diameter,
                pixel_size_angstrom=row.pixel_size_angstrom,
            )
        )
    write_teaching_set(folder / "teach", taught)
    return [Path(source.rows[number].name).stem for number in chosen], sum(len(marks[n][0]) for n in chosen)


def scores(of: Path, truth: dict[str, Labels]) -> dict[str, Any]:
    names = {Path(record.name).stem for record in RunFolder(of).records()}
    main = evaluate(of, {name: labels for name, labels in truth.items() if name in names}).main
    f1 = main.intervals.f1
    return {
        "f1": round(main.counts.f1, 3),
        "f1_interval_95": [round(f1.low, 3), round(f1.high, 3)],
        "average_precision": round(main.average_precision, 3),
    }


def learnt(folder: Path, name: str) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "sim").exists():
        write_mrc(folder / "particle.mrc", density(name), pixel_size_angstrom=VOXEL_ANGSTROM)
        words = (
            "--count",
            10,
            "--size",
            "1536x1536",
            "--pixel-size",
            3,
            "--snr",
            7,
            "--defocus",
            "1-2.5um",
            "--seed",
            11,
        )
        run("simulate", "-o", folder / "sim", "--structure", folder / "particle.mrc", *words)
    if not (folder / "run").exists():
        run(
            "pick", folder / "sim/micrographs", "-o", folder / "run", "--picker", "general", "-d", f"{PARTICLES[name]}A"
        )
    source = RunSource(folder / "run")
    truth = {
        Path(item.name).stem: item.labels
        for item in cryopick.open_dataset(folder / "sim").items
        if item.labels is not None
    }
    chosen, count = teach(folder, source, truth)
    told: dict[str, Any] = {"corrected": chosen, "corrections": count, "steps": STEPS}
    if not (folder / "learnt").exists():
        lists = f"@{folder / f'teach-{MICROGRAPHS}'}"
        words = ("--diameter", f"{source.diameter_px(0):.3f}px", "--flip-y", "no", "--steps", STEPS)
        often = ("--validate-every", EVERY, "--checkpoint-every", EVERY, "--warmup-steps", STEPS // 4)
        picks = ("--picks", folder / "teach", "--micrographs", lists, "--pixel-size", 3)
        told["seconds"] = round(run("finetune", "general", *picks, *words, *often, "-o", folder / "learnt"))
    with open(folder / "learnt/validation.csv", encoding="utf-8", newline="") as stream:
        told["judged"] = {
            row["step"]: [round(float(row[key]), 3) for key in ("new", "old")] for row in csv.DictReader(stream)
        }
    others = [row.source for row in source.rows if Path(row.name).stem not in chosen]
    (folder / "others.txt").write_text("".join(f"{path}\n" for path in others), encoding="utf-8")
    weights = {"before": (), "after": ("--weights", folder / "learnt/weights.safetensors")}
    for when, words in weights.items():
        if not (folder / when).exists():
            run(
                "pick", f"@{folder / 'others.txt'}", "-o", folder / when, "--config", folder / "run/config.toml", *words
            )
        told[f"on_the_others_{when}"] = scores(folder / when, truth)
    return told


def main() -> None:
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    results: dict[str, Any] = {"machine": asdict(describe_machine())}
    for name in sys.argv[3:] or PARTICLES:
        results[name] = learnt(folder / name, name)
        text = json.dumps(results, indent=1)
        output.write_text(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n")
        print(name, json.dumps(results[name]), flush=True)


if __name__ == "__main__":
    main()
