"""Is a consensus better than its best member? The simulated suite and real sets, each member and all of them together.

    python benchmarks/consensus.py --real path/to/sets

Also: is the centring error that a run of the consensus tells the true one? Diameters are given. Every member is run as
it would be alone; the consensus is one more run. Seconds are processor seconds of picking, the survey of the run
included. Writes consensus.json and consensus.md; sets that are not asked for keep what the file says of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.pickers.consensus import known_members
from cryopick.pickers.registry import make_picker
from cryopick.runs.centring import CentringSeen
from cryopick.runs.in_memory import pick_in_memory
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph
from cryopick.workflows.evaluate import evaluate
from score_summary import listed_diameter, score_summary, simulated_labels


@dataclass(frozen=True)
class Measured:
    """One set to pick."""

    name: str
    level: str
    micrographs: Sequence[Micrograph]
    labels: Mapping[str, Labels]
    diameter: Length


def sets(levels: Sequence[str], real: Path | None, most: int) -> Iterator[Measured]:
    """The suite's sets of these levels, and the first micrographs of every real set."""
    for one in suite_sets(levels=tuple(levels)) if levels else []:
        simulated = list(one.micrographs(one.imager(), workers=2))
        size = one.protein.diameter_angstrom
        truth = {each.micrograph.name: simulated_labels(each) for each in simulated}
        yield Measured(one.name, one.level, [each.micrograph for each in simulated], truth, Length(size, size, "A"))
    for path in sorted(child for child in real.iterdir() if child.is_dir()) if real is not None else []:
        items = [item for item in open_dataset(path).labelled() if item.labels is not None and len(item.labels)][:most]
        if items:
            labels = {item.name: item.labels for item in items if item.labels is not None}
            yield Measured(path.name, "real", [item.read() for item in items], labels, listed_diameter(labels))


def measured(one: Measured, picker: str) -> dict[str, float]:
    """Scores and cost of a picker on a set."""
    start = time.process_time()
    found = pick_in_memory(make_picker(picker, diameter=one.diameter), one.micrographs)
    seconds = time.process_time() - start
    calibration = evaluate(found.candidates, one.labels, diameter=one.diameter, is_probability=True).calibration
    told = CentringSeen()
    for picks in found.picks:
        told.add(picks.least_centring_error_px, pixel_size_angstrom=None, picks=len(picks.kept()))
    return {
        **score_summary(found.picks, one.labels, diameter=one.diameter),
        "centring_px": evaluate(found.picks, one.labels, diameter=one.diameter).main.centring.median_px,
        **{f"told_centring_px {whose}": error_px for whose, error_px in told.errors_px(None).items()},
        "calibration_error": float("nan") if calibration is None else calibration.expected_calibration_error,
        "cpu_seconds": seconds,
    }


def as_markdown(found: Mapping[str, Any]) -> str:
    """F1 of each, the consensus against its best member, and the means of the levels."""
    rows = found["sets"]
    pickers = [*known_members(), "consensus"]
    lines = [
        "# Consensus against its members",
        "",
        "F1 at the default thresholds, diameter given; `benchmarks/consensus.py`.",
        "",
        f"| set | {' | '.join(pickers)} | consensus - best | calibration error |",
        "|---|" + "---|" * (len(pickers) + 2),
    ]
    levels: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        levels.setdefault(row["level"], []).append(row)
        lines.append(_line(name, row, pickers))
    for level, of_level in levels.items():
        mean = {
            picker: {key: float(np.mean([row[picker][key] for row in of_level])) for key in ("f1", "calibration_error")}
            for picker in pickers
        }
        lines.append(_line(f"**mean of {level}**", mean, pickers))
    lines += ["", *_centring_table(rows, pickers)]
    alone = sum(row[picker]["cpu_seconds"] for row in rows.values() for picker in known_members())
    together = sum(row["consensus"]["cpu_seconds"] for row in rows.values())
    lines += [
        "",
        f"Processor seconds: members one after the other {alone:.0f}, in one pass {together:.0f} "
        f"({together / alone:.2f} of it).",
    ]
    return "\n".join(lines) + f"\n\nMachine: {found['machine']}\n"


def _line(name: str, row: Mapping[str, Any], pickers: Sequence[str]) -> str:
    f1 = {picker: row[picker]["f1"] for picker in pickers}
    best = max(value for picker, value in f1.items() if picker != "consensus")
    cells = " | ".join(f"{f1[picker]:.3f}" for picker in pickers)
    return f"| {name} | {cells} | {f1['consensus'] - best:+.3f} | {row['consensus']['calibration_error']:.3f} |"


def _centring_table(rows: Mapping[str, Any], pickers: Sequence[str]) -> list[str]:
    """What the run of the consensus tells of each centring error, and the true one of each one's own run."""
    lines = [
        "Centring error, median, px: what the run of the consensus tells that it is at least / against the truth.",
        "",
        f"| set | {' | '.join(pickers)} |",
        "|---|" + "---|" * len(pickers),
    ]
    ratios: dict[str, list[float]] = {picker: [] for picker in pickers}
    for name, row in rows.items():
        if "centring_px" not in row["consensus"]:  # measured before there was the estimate
            continue
        cells = []
        for picker in pickers:
            told = row["consensus"].get(f"told_centring_px {picker}", float("nan"))
            cells.append(f"{told:.2f} / {row[picker]['centring_px']:.2f}")
            if row["level"] != "real":  # where labels are off by more
                ratios[picker].append(told / row[picker]["centring_px"])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    medians = " | ".join(f"{np.nanmedian(ratios[picker]):.2f}" for picker in pickers)
    return [*lines, f"| **told over true, median of simulated** | {medians} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--levels", nargs="*", default=["medium", "hard"])
    parser.add_argument("--most", type=int, default=4, help="micrographs of a real set")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    kept = args.output / "consensus.json"
    rows: dict[str, Any] = json.loads(kept.read_text())["sets"] if kept.is_file() else {}
    for one in sets(args.levels, args.real, args.most):
        rows[one.name] = {"level": one.level}
        for picker in (*known_members(), "consensus"):
            rows[one.name][picker] = measured(one, picker)
        print(_line(one.name, rows[one.name], [*known_members(), "consensus"]), flush=True)
        found = {"machine": str(describe_machine()), "sets": rows}
        kept.write_text(json.dumps(found, indent=1) + "\n")
        (args.output / "consensus.md").write_text(as_markdown(found))


if __name__ == "__main__":
    main()
