"""Do the picks of a consensus teach one of its members more than its own picks do? Simulated, faint micrographs.

    python benchmarks/consensus_teaching.py FOLDER benchmarks/results/consensus_teaching.md [--seeds 1 2 3]

For each seed twelve faint micrographs of one made-up protein are simulated (matched-filter SNR 6). The first eight are
picked by `general` and by the consensus of the default members; the picks of each that score 0.9 or more fine-tune
`general`. The other four, which taught nothing, are picked with the shipped weights and with both tuned ones. Diameters
are given. What is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cryopick
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.io.files.atomic import write_text_atomic
from cryopick.runs.folder import RunFolder
from cryopick.workflows.evaluate import evaluate
from learn_from_corrections import run, scores

COUNT, TEACHERS, SIZE, PIXEL_SIZE_ANGSTROM, SNR = 12, 8, "2048x2048", 2, 6
LEAST_SCORE, STEPS, EVERY = 0.9, 60, 20


@dataclass(frozen=True)
class Row:
    """What one start of the weights is worth on the micrographs that taught nothing."""

    seed: int
    taught_by: str
    teachers: str
    """Of the picks that taught: how many, and the share that is right."""
    f1: float
    average_precision: float


def rows_of(folder: Path, seed: int) -> list[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    sim = folder / "sim"
    if not sim.exists():
        run("simulate", "-o", sim, "--count", COUNT, "--size", SIZE, "--pixel-size", PIXEL_SIZE_ANGSTROM, "--snr", SNR,
            "--diameter", "120-250A", "--seed", seed)  # fmt: skip
    items = [item for item in cryopick.open_dataset(sim).items if item.labels is not None]
    truth = {Path(item.name).stem: item.labels for item in items if item.labels is not None}
    diameter = next(item.diameter_px for item in items if item.diameter_px) * PIXEL_SIZE_ANGSTROM
    parts = {"teaching": items[:TEACHERS], "judging": items[TEACHERS:]}
    for name, part in parts.items():
        write_text_atomic(folder / f"{name}.txt", "".join(f"{item.source.path}\n" for item in part))
    weights: dict[str, tuple[str | Path, ...]] = {"nobody": ()}
    told = {"nobody": "-"}
    for picker in ("general", "consensus"):
        picked, tuned = folder / f"by-{picker}", folder / f"taught-by-{picker}"
        if not picked.exists():
            run("pick", f"@{folder / 'teaching.txt'}", "-o", picked, "--picker", picker, "-d", f"{diameter:.1f}A")
        if not tuned.exists():
            words = ("--steps", STEPS, "--validate-every", EVERY, "--warmup-steps", STEPS // 4)
            run("finetune", "general", "--picks", picked, "--min-score", LEAST_SCORE, *words, "-o", tuned)
        weights[picker] = ("--weights", tuned / "weights.safetensors")
        told[picker] = teachers(picked, truth)
    found = []
    for name, words in weights.items():
        out = folder / f"judged-{name}"
        if not out.exists():
            run("pick", f"@{folder / 'judging.txt'}", "-o", out, "-d", f"{diameter:.1f}A", *words)
        score = scores(out, truth)
        found.append(Row(seed, name, told[name], score["f1"], score["average_precision"]))
    return found


def teachers(picked: Path, truth: dict[str, Labels]) -> str:
    """How many picks taught, and which share of them is right."""
    folder = RunFolder(picked)
    taught = [folder.read_candidates(record).kept() for record in folder.records()]
    taught = [picks.take(picks.score >= LEAST_SCORE) for picks in taught]
    named = {Path(picks.micrograph_name).stem: picks for picks in taught}
    counts = evaluate(named, {name: truth[name] for name in named}).main.counts
    return f"{sum(map(len, taught))}, {counts.precision:.3f} right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    rows: list[Row] = []
    for seed in options.seeds:
        rows += rows_of(options.folder / str(seed), seed)
        lines = [
            "# Picks of a consensus as teachers",
            "",
            f"Made by `benchmarks/consensus_teaching.py` on {describe_machine()}.",
            "",
            "| protein (seed) | weights taught by | picks that taught | F1 on others | average precision |",
            "|---|---|---|---|---|",
            *(
                f"| {row.seed} | {row.taught_by} | {row.teachers} | {row.f1:.3f} | {row.average_precision:.3f} |"
                for row in rows
            ),
        ]
        write_text_atomic(options.output, "\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
