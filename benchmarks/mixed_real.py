"""Real sets with micrographs that hold nothing in one run with them: F1 beside the set alone, and what is picked there.

    python benchmarks/mixed_real.py --real path/to/sets

`--real` names a folder of labelled sets (images, one CSV each, set.json). Sets without any label give the micrographs
that hold nothing; they are resampled to each labelled set's particle size, and white noise is added up to that set's.
Writes mixed_real.json and mixed_real.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.pickers.registry import make_picker
from cryopick.runs.in_memory import pick_in_memory
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from score_summary import listed_diameter

LARGEST_PX = 60.0
"""Particles are shown at most so wide: small micrographs without particles would be enlarged too much."""
COLUMNS = ("set", "picker", "diameter", "F1 alone", "F1 mixed", "false per empty", "worst", "share of picks on empty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--pickers", nargs="*", default=["general"])
    parser.add_argument("--micrographs", type=int, default=3, help="of each labelled set, at most")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    filled, empty = read_sets(given.real, count=given.micrographs)
    rows: list[dict[str, Any]] = []
    for name, (micrographs, labels) in filled.items():
        shown, scaled = rescaled_set(micrographs, labels)
        beside = [like(one, size_px, shown, listed_diameter(scaled)) for one, size_px in empty]
        for picker in given.pickers:
            for how in ("given", "measured"):
                row = {"set": name, "picker": picker, "diameter": how, **measure(picker, how, shown, scaled, beside)}
                rows.append(row)
                print(row, flush=True)
    for picker in given.pickers:
        rows.append({"set": "the empty ones alone", "picker": picker, "diameter": "given", **nothing(picker, empty)})
        print(rows[-1], flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    found = {"rows": rows, "machine": str(describe_machine())}
    (given.output / "mixed_real.json").write_text(json.dumps(found, indent=1) + "\n")
    (given.output / "mixed_real.md").write_text(as_markdown(rows))


def read_sets(
    folder: Path, *, count: int
) -> tuple[dict[str, tuple[list[Micrograph], dict[str, Labels]]], list[tuple[Micrograph, float]]]:
    """Labelled sets by name, and the micrographs of sets without labels with their listed diameter, px."""
    filled: dict[str, tuple[list[Micrograph], dict[str, Labels]]] = {}
    empty: list[tuple[Micrograph, float]] = []
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        items = [item for item in open_dataset(path) if item.labels is not None]
        if any(len(item.labels) for item in items):
            chosen = items[:count]
            filled[path.name] = [item.read() for item in chosen], {item.name: item.labels for item in chosen}
        else:
            size_px = float(json.loads((path / "set.json").read_text())["diameter_px"])
            empty += [(item.read(), size_px) for item in items]
    return filled, empty


def rescaled(micrograph: Micrograph, factor: float) -> Micrograph:
    """Resampled, smoothed first where it shrinks; the pixel size is dropped."""
    pixels = micrograph.pixels
    if factor < 1:
        pixels = gaussian_filter(pixels, 0.4 / factor)
    if factor != 1:
        pixels = zoom(pixels, factor, order=1)
    return replace(micrograph, pixels=np.asarray(pixels, np.float32), pixel_size_angstrom=None)


def rescaled_set(
    micrographs: Sequence[Micrograph], labels: dict[str, Labels]
) -> tuple[list[Micrograph], dict[str, Labels]]:
    """A set with its particles at most `LARGEST_PX` wide."""
    size_px = listed_diameter(labels).middle
    factor = min(1.0, LARGEST_PX / size_px)
    scaled = {
        name: replace(one, xy_px=(one.xy_px + 0.5) * factor - 0.5, diameter_px=size_px * factor)
        for name, one in labels.items()
    }
    return [rescaled(one, factor) for one in micrographs], scaled


def white_noise(pixels: NDArray[np.float32]) -> float:
    """Deviation of the finest detail, from differences that cancel what is smooth."""
    fine = pixels[:-1, :-1] - pixels[1:, :-1] - pixels[:-1, 1:] + pixels[1:, 1:]
    return float(np.median(np.abs(fine))) / 0.6745 / 2


def like(micrograph: Micrograph, size_px: float, others: Sequence[Micrograph], size: Length) -> Micrograph:
    """A micrograph at the scale and with the white noise, relative to its coarser contrast, of others."""

    def contrast(pixels: NDArray[np.float32]) -> float:
        return float(gaussian_filter(pixels, size.middle / 8).std())

    wanted = float(np.median([white_noise(one.pixels) / contrast(one.pixels) for one in others]))
    shown = rescaled(micrograph, size.middle / size_px)
    pixels = shown.pixels / contrast(shown.pixels)
    lacking = np.sqrt(max(wanted**2 - white_noise(pixels) ** 2, 0.0))
    noise = np.random.default_rng(0).normal(0, lacking, pixels.shape)
    return replace(shown, pixels=(pixels + noise).astype(np.float32))


def measure(
    name: str, how: str, micrographs: Sequence[Micrograph], labels: dict[str, Labels], empty: Sequence[Micrograph]
) -> dict[str, float]:
    size = listed_diameter(labels)
    picker = make_picker(name, diameter=size if how == "given" else None)
    alone = pick_in_memory(picker, micrographs)
    mixed = pick_in_memory(picker, [*empty, *micrographs])
    beside = mixed.picks[: len(empty)]
    return {
        "F1 alone": f1(alone.picks, labels, size),
        "F1 mixed": f1(mixed.picks[len(empty) :], labels, size),
        **counted(beside),
        "share of picks on empty": sum(len(one.kept()) for one in beside)
        / max(1, sum(len(one.kept()) for one in mixed.picks)),
    }


def nothing(name: str, empty: Sequence[tuple[Micrograph, float]]) -> dict[str, float]:
    """A run of micrographs that hold nothing, with their listed diameter."""
    size_px = empty[0][1]
    picker = make_picker(name, diameter=Length(size_px, size_px, "px"))
    shown = [replace(one, pixel_size_angstrom=None) for one, _ in empty]
    return counted(pick_in_memory(picker, shown).picks)


def counted(picks: Sequence[Picks]) -> dict[str, float]:
    counts = [len(one.kept()) for one in picks]
    return {"false per empty": float(np.mean(counts)), "worst": float(max(counts))}


def f1(picks: Sequence[Picks], labels: dict[str, Labels], size: Length) -> float:
    return float(evaluate(picks, labels, diameter=size).main.counts.f1)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Real sets mixed with micrographs that hold nothing",
        "",
        "Made by `python benchmarks/mixed_real.py`.",
        "",
    ]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for row in rows:
        cells = [row.get(column, "") for column in COLUMNS]
        lines.append(f"| {' | '.join(f'{one:.3f}' if isinstance(one, float) else str(one) for one in cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
