"""What each picker's picks are worth for a map, on simulated sets of three proteins, and at which threshold.

    python benchmarks/validate3d.py --work /tmp/maps
    python benchmarks/validate3d.py --work /tmp/maps --engine embedded --pickers general --without-bad-picks

Truth picks, every picker, half random picks, random picks and truth picks given twice go through `cryopick validate3d`
on three made-up proteins: one of 275 Å without symmetry, a barrel with D7, a small one of 100 Å. Then `general` is cut
at other thresholds than its own on the first. Writes validate3d.json and validate3d.md; what is there in `--work` is
used again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import cryopick
from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.report import markdown_table
from cryopick.evaluation.scored_sets import read_picked_set
from cryopick.io.structures.volume import write_volume
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Picks
from cryopick.workflows.validate3d.table import rows_as_json, shown_cells

PICKERS = ("general", "cryotransformer", "cryosegnet", "cryoemmae", "deepcryopicker", "segmentation-crf", "blob")
JITTER_PX = 2.0
"""How far the second pick of a particle lies from the first, as the published scripts that doubled picks did."""


@dataclass(frozen=True, kw_only=True)
class Protein:
    """A simulated set: the protein, and pixels and dose at which it is seen."""

    name: str
    family: str
    seed: int
    diameter_angstrom: float
    symmetry: str
    pixel_size_angstrom: float
    dose_e_per_angstrom2: float
    angpix: float
    micrographs: int = 9


PROTEINS = (
    Protein(
        name="large", family="ribonucleoprotein", seed=1, diameter_angstrom=275.0, symmetry="C1",
        pixel_size_angstrom=5.0, dose_e_per_angstrom2=4.0, angpix=6.0,
    ),
    Protein(
        name="barrel-d7", family="barrel", seed=2, diameter_angstrom=165.0, symmetry="D7",
        pixel_size_angstrom=4.0, dose_e_per_angstrom2=6.0, angpix=4.0,
    ),
    Protein(
        name="small", family="multilobed", seed=3, diameter_angstrom=105.0, symmetry="C1",
        pixel_size_angstrom=2.5, dose_e_per_angstrom2=25.0, angpix=3.0, micrographs=8,
    ),
)  # fmt: skip


def simulated(protein: Protein, folder: Path, *, workers: int) -> Path:
    """The folder of a set, simulated unless it is there."""
    recipe = named_recipe("validation")
    recipe = replace(
        recipe,
        pixel_size_angstrom=protein.pixel_size_angstrom,
        detector=replace(recipe.detector, dose_e_per_angstrom2=(protein.dose_e_per_angstrom2,) * 2),
    )
    path = folder / "protein.mrc"
    if not path.is_file():
        volume = random_protein(
            np.random.default_rng(_seed_of(protein)),
            family=protein.family,
            diameter_angstrom=protein.diameter_angstrom,
            voxel_size_angstrom=max(2.0, protein.diameter_angstrom / 96),
        )
        write_volume(path, volume)
    settings = SimulationSettings(structures=(str(path),), seed=protein.seed, recipe=recipe)
    cryopick.simulate(folder / "sim", settings, count=protein.micrographs, workers=workers)
    return folder / "sim"


def _seed_of(protein: Protein) -> int:
    """The first seed from the protein's own whose protein has the wanted symmetry: families draw theirs."""
    from cryopick.simulation.specimens.protein_families import lay_out_family

    for seed in range(protein.seed, protein.seed + 200):
        layout = lay_out_family(
            np.random.default_rng(seed), family=protein.family, diameter_angstrom=protein.diameter_angstrom
        )
        fold = {"C1": 1, "D7": 14}[protein.symmetry]
        if len(layout.operators) == fold:
            return seed
    raise ValueError(f"no {protein.family} with symmetry {protein.symmetry} among 200")


def picked(pickers: Sequence[str], sim: Path, folder: Path, diameter_angstrom: float) -> dict[str, tuple[Path, float]]:
    """A run folder of each picker and its processor seconds; one that fails is named and left out."""
    found = {}
    for picker in pickers:
        path = folder / picker
        began = time.process_time()
        try:
            cryopick.pick([sim / "micrographs"], output=path, picker=picker, diameter=f"{diameter_angstrom:g}A")
        except Exception as error:  # a row less, said aloud
            print(f"{picker} cannot pick here: {type(error).__name__}: {error}")
            continue
        found[picker] = (path, time.process_time() - began)
    return found


def made_picks(sim: Path, folder: Path, *, seed: int = 0) -> dict[str, Path]:
    """Picks made of the truth: half of them put anywhere; all of them given twice."""
    rng = np.random.default_rng(seed)
    truth = cryopick.read_labels(sim / "micrographs")
    shapes = {name: cryopick.read_micrograph(sim / "micrographs" / f"{name}.mrc").shape_yx for name in truth}
    half, doubled = [], []
    for name, labels in truth.items():
        xy = labels.xy_px[~labels.is_uncertain]
        size = np.array(shapes[name][::-1])
        order = rng.permutation(len(xy))
        anywhere = rng.uniform(0, 1, (len(xy) - len(xy) // 2, 2)) * size
        places = np.concatenate([xy[order[: len(xy) // 2]], anywhere])
        half.append(Picks(xy_px=places, micrograph_name=name))
        twice = np.concatenate([xy, xy + rng.normal(0, JITTER_PX, xy.shape)])
        doubled.append(Picks(xy_px=twice, micrograph_name=name))
    cryopick.write_picks(half, folder / "half-random.csv")
    cryopick.write_picks(doubled, folder / "truth-twice.csv")
    return {"half-random": folder / "half-random.csv", "truth-twice": folder / "truth-twice.csv"}


def table_of(protein: Protein, sim: Path, folder: Path, runs: dict[str, Path], asked: argparse.Namespace) -> Any:
    """The rows of a set, from one validation of all its runs."""
    return cryopick.validate3d(
        list(runs.values()),
        names=list(runs),
        output=folder / f"v3d-{asked.engine}{'-good' if asked.without_bad_picks else ''}",
        truth=sim,
        engine=asked.engine,
        symmetry=protein.symmetry,
        angpix=protein.angpix,
        micrographs=[sim / "micrographs"],
        compare=["truth"] if asked.without_bad_picks else ["truth", "random"],
        select2d=asked.select2d.split(","),
        seeds=asked.seeds,
        on_progress=lambda text: print(f"{protein.name}: {text}", flush=True),
    )


def thresholds(protein: Protein, sim: Path, folder: Path, run: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """What the picks of a run above other thresholds than its own give."""
    every = read_picked_set(run)
    own = float(json.loads((run / "summary.json").read_text())["threshold"])
    scores = np.concatenate([one.score for one in every.candidates.values()])
    able = np.concatenate(list(every.is_threshold_only.values()))
    levels = sorted({own, *np.quantile(scores[able], (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85)).tolist()})
    runs = {}
    for number, level in enumerate(levels):
        kept = [
            replace(one, reason=np.full(len(one), "")).take(every.is_threshold_only[name] & (one.score >= level))
            for name, one in every.candidates.items()
        ]
        path = folder / "thresholds" / f"t{number}.csv"
        path.parent.mkdir(exist_ok=True)
        cryopick.write_picks(kept, path)
        runs[f"t{number}"] = path
    found = cryopick.validate3d(
        list(runs.values()),
        names=list(runs),
        output=folder / f"v3d-thresholds-{asked.engine}",
        truth=sim,
        engine=asked.engine,
        symmetry=protein.symmetry,
        angpix=protein.angpix,
        micrographs=[sim / "micrographs"],
        compare=["truth"],
        select2d=["none"],
        seeds=1,
    )
    rows = {row.run: row for row in found.table}
    return [
        {
            "protein": protein.name,
            "threshold": level,
            "is_own": level == own,
            "particles": rows[name].selected,
            "precision": rows[name].precision,
            "recall": rows[name].recall,
            "yield": rows[name].mean("yield_share"),
            "half_angstrom": rows[name].mean("half_angstrom"),
            "truth_angstrom": rows[name].mean("truth_angstrom"),
        }
        for level, name in zip(levels, runs, strict=True)
    ]


def as_markdown(results: dict[str, Any]) -> str:
    """The tables to read."""
    parts = [
        "# What picks are worth for a map",
        "",
        f"Engine `{results['engine']}`, selection {results['select2d']}, {results['seeds']} starts. Machine: "
        f"{results['machine']}. Made by `benchmarks/validate3d.py`. Yield: SSNR against the true map relative to the "
        "true picks'; expected yield: precision x recall; resolutions in Å.",
    ]
    for name, one in results["sets"].items():
        parts += ["", f"## {name}", "", one["about"], "", markdown_table(one["columns"], one["cells"])]
    if results["thresholds"]:
        parts += [
            "",
            "## Which threshold?",
            "",
            "`general`'s candidates cut at other thresholds; its own is marked.",
            "",
        ]
        columns = ["set", "threshold", "N", "precision", "recall", "yield", "half .143", "truth .5"]
        cells = [
            [
                row["protein"],
                f"{row['threshold']:.4f}" + (" (own)" if row["is_own"] else ""),
                f"{row['particles']:,}",
                *(f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("precision", "recall", "yield")),
                *(f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("half_angstrom", "truth_angstrom")),
            ]
            for row in results["thresholds"]
        ]
        parts.append(markdown_table(columns, cells))
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for micrographs, runs and maps")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--engine", default="known")
    parser.add_argument("--select2d", default="none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pickers", default=",".join(PICKERS))
    parser.add_argument("--proteins", default=",".join(one.name for one in PROTEINS))
    parser.add_argument("--name", default="validate3d", help="of the two files")
    parser.add_argument("--without-bad-picks", action="store_true", help="only the pickers and the true picks")
    parser.add_argument("-j", "--workers", type=int, default=1)
    asked = parser.parse_args()
    results: dict[str, Any] = {
        "engine": asked.engine,
        "select2d": asked.select2d,
        "seeds": asked.seeds,
        "machine": str(describe_machine()),
        "sets": {},
        "thresholds": [],
    }
    for protein in (one for one in PROTEINS if one.name in asked.proteins.split(",")):
        folder = asked.work / protein.name
        folder.mkdir(parents=True, exist_ok=True)
        sim = simulated(protein, folder, workers=asked.workers)
        runs = picked(asked.pickers.split(","), sim, folder, protein.diameter_angstrom)
        every = {name: path for name, (path, _) in runs.items()}
        if not asked.without_bad_picks:
            every |= made_picks(sim, folder)
        validation = table_of(protein, sim, folder, every, asked)
        columns, cells = shown_cells(validation.table)
        geometry = validation.geometry
        results["sets"][protein.name] = {
            "about": f"{protein.family} of {geometry.diameter_angstrom:.0f} Å, {protein.symmetry}, "
            f"{protein.micrographs} micrographs of 1024 px at {protein.pixel_size_angstrom:g} Å, "
            f"{protein.dose_e_per_angstrom2:g} e/Å²; boxes of {geometry.scaled_px} px of "
            f"{geometry.pixel_size_angstrom:.2f} Å, Nyquist {geometry.nyquist_angstrom:.1f} Å.",
            "columns": list(columns),
            "cells": [list(row) for row in cells],
            "rows": rows_as_json(validation.table),
            "sentences": list(validation.sentences),
            "picking_cpu_seconds": {name: round(seconds, 1) for name, (_, seconds) in runs.items()},
        }
        if "general" in runs and protein is PROTEINS[0] and asked.engine == "known":  # others take minutes a map
            results["thresholds"] += thresholds(protein, sim, folder, runs["general"][0], asked)
        asked.output.mkdir(parents=True, exist_ok=True)
        (asked.output / f"{asked.name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        (asked.output / f"{asked.name}.md").write_text(as_markdown(results))
        print(as_markdown(results), flush=True)


if __name__ == "__main__":
    main()
