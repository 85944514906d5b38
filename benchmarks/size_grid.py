"""What it would cost to round a fitted working size to a grid: F1 with it as fitted, and on the grid.

    python benchmarks/size_grid.py --real path/to/sets

A run that grows measures its working size again, and its micrographs are picked again where that moved at all; on a
grid it mostly would not. Each set is surveyed once and picked twice, at the working size as fitted and at the nearest
2^(k/16) of its unit: real sets with the diameter given and measured, the simulated suite with the diameter given.
Writes size_grid.json and size_grid.md; sets that stand in the former are not measured again. What stands there was
measured with `--micrographs 2` on the suite and on the whole real sets.

The grid is not used. It was to change F1 by at most 0.002 on both real sets and in the means of the suite: no mean is
lower by so much, but a shift of the size by one percent moves F1 of a small hard set by 0.01 to 0.2 either way, as the
threshold is chosen anew from its scores, so that means over two micrographs of each set cannot show it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings
from cryopick.geometry.units import Length
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.pickers.survey import Survey
from cryopick.processing.spread import evenly_taken
from cryopick.runs.one import pick_micrograph
from cryopick.runs.settings import PickPlan, PickSettings
from cryopick.runs.threshold import at_threshold, choose_cut, open_candidates
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph
from score_summary import listed_diameter, score_summary, simulated_labels

STEPS_PER_OCTAVE = 16
SURVEYED = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--sets", nargs="*", help="of these names alone")
    parser.add_argument("--micrographs", type=int, default=100, help="of each set, at most")
    parser.add_argument("--levels", nargs="*", default=["easy", "medium", "hard"], help="of the suite")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    path = args.output / "size_grid.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, micrographs, labels, diameters in sets(args.real, args.levels, args.sets, args.micrographs, set(found)):
        found[name] = {how: compared(micrographs, labels, given, listed) for how, given, listed in diameters}
        found["machine"] = str(describe_machine())
        path.write_text(json.dumps(found, indent=1) + "\n")
        (args.output / "size_grid.md").write_text(as_markdown(found))
        print(f"{name}: {found[name]}", flush=True)


def sets(
    real: Path | None, levels: Sequence[str], names: Sequence[str] | None, most: int, known: set[str]
) -> Iterator[tuple[str, list[Micrograph], Mapping[str, Labels], list[tuple[str, Length | None, Length]]]]:
    for path in sorted(child for child in real.iterdir() if child.is_dir()) if real else ():
        if path.name not in known and (not names or path.name in names):
            items = [item for item in open_dataset(path).labelled() if item.labels is not None][:most]
            labels = {item.name: item.labels for item in items}
            if sum(len(one) for one in labels.values()):
                listed = listed_diameter(labels)
                both = [("diameter given", listed, listed), ("diameter measured", None, listed)]
                yield path.name, [item.read() for item in items], labels, both
    for one in suite_sets(levels=tuple(levels)):
        if one.name not in known and (not names or one.name in names):
            simulated = list(itertools.islice(one.micrographs(one.imager(), workers=1), most))
            diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
            labels = {each.micrograph.name: simulated_labels(each) for each in simulated}
            yield one.name, [each.micrograph for each in simulated], labels, [("diameter given", diameter, diameter)]


def compared(
    micrographs: list[Micrograph], labels: Mapping[str, Labels], given: Length | None, listed: Length
) -> dict[str, float]:
    picker = GeneralPicker(diameter=given)
    survey = picker.survey(evenly_taken(micrographs, SURVEYED))
    if survey.working_size is None:
        return {}
    fitted, grid = survey.working_size.middle, on_grid(survey.working_size.middle)
    found = {"fitted": fitted, "grid": grid}
    sizes = {"f1_fitted": fitted, "f1_grid": grid}
    if fitted == grid:
        sizes = {"f1_fitted": fitted}
    for name, size in sizes.items():
        at = replace(survey, working_size=Length(size, size, survey.working_size.unit))
        found[name] = f1(picker, at, micrographs, labels, listed)
    return {"f1_grid": found["f1_fitted"], **found}


def on_grid(size: float) -> float:
    return float(2 ** (round(np.log2(size) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE))


def f1(
    picker: GeneralPicker, survey: Survey, micrographs: list[Micrograph], labels: Mapping[str, Labels], listed: Length
) -> float:
    plan = PickPlan(settings=PickSettings(picker=picker, selection=SelectionSettings()), survey=survey)
    candidates = [pick_micrograph(one, plan) for one in micrographs]
    cut = choose_cut(plan, {one.micrograph_name: open_candidates(one, picker) for one in candidates})
    picks = [at_threshold(one, cut.threshold, belief=cut.belief_in(one.micrograph_name)) for one in candidates]
    return float(score_summary(picks, labels, diameter=listed)["f1"])


def as_markdown(found: Mapping[str, Any]) -> str:
    lines = [
        "# Working sizes on a grid",
        "",
        "Made by `python benchmarks/size_grid.py`: `general` at the working size fitted on six micrographs, and at the",
        "nearest 2^(k/16) of its unit.",
        "",
        "| set | diameter | fitted | on the grid | F1 fitted | F1 on the grid | change |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    changes: dict[str, list[float]] = {}
    for name, entry in found.items():
        for how, one in entry.items() if isinstance(entry, dict) else ():
            if one:
                change = one["f1_grid"] - one["f1_fitted"]
                level = name.rsplit("-", 1)[-1] if how == "diameter given" else ""
                if level in ("easy", "medium", "hard"):
                    changes.setdefault(level, []).append(change)
                lines.append(
                    f"| {name} | {how.removeprefix('diameter ')} | {one['fitted']:.1f} | {one['grid']:.1f} | "
                    f"{one['f1_fitted']:.4f} | {one['f1_grid']:.4f} | {change:+.4f} |"
                )
    for level, each in changes.items():
        lines.append(f"| **mean of {len(each)} {level}** | given | | | | | {np.mean(each):+.4f} |")
    return "\n".join([*lines, "", f"Machine: {found.get('machine', '')}"]) + "\n"


if __name__ == "__main__":
    main()
