"""How reliably slips in diameter and contrast are told, and that nothing is said of what is right.

    .venv/bin/python benchmarks/doubts.py [--seed N] [--real FOLDER]
    .venv/bin/python benchmarks/doubts.py --inverted [--seed N] [--families ring rod]

Simulated sets of 8 families at other sizes than the suite's, loose and packed, SNR 6 to 60, and micrographs without
particles. The constants of `cryopick.heatmap.doubts` were chosen on such sets of seeds 501, 602, 777 and 888; the seed
that is judged where none is given is another. `--real` names a folder of labelled sets (images, set.json), which were
only measured. Prints a line for each wrong or missing sentence, and a table; writes nothing.

`--inverted` picks the negatives of the simulated sets with `general`, the diameter given and measured, as if their
contrast were right: the precision that is expected, its range, the one that is observed, and whether the run warns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryopick.geometry.units import Length, parse_length
from cryopick.heatmap.doubts import doubts_about_sample
from cryopick.heatmap.model import HeatmapModel, load_model
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.runs.in_memory import pick_in_memory
from cryopick.runs.one import Task, read_task
from cryopick.runs.settings import RunSettings
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.suite import SUITE_PROTEINS, SuiteProtein, SuiteSet
from cryopick.types import Micrograph
from cryopick.workflows.evaluate import evaluate
from score_summary import simulated_labels

JUDGED_SEED = 943
MICROGRAPHS = 2
LOOSE, PACKED = (0.15, 0.3), (0.6, 0.8)
"""Coverage, of what fits."""
KINDS = (("loose", LOOSE, 6.0), ("loose", LOOSE, 16.0), ("packed", PACKED, 16.0), ("packed", PACKED, 60.0))
"""Name, coverage and SNR."""
SLIPS = {"radius": 0.5, "twice": 2.0, "tenth": 0.1, "ten times": 10.0}
"""Name and what the right diameter is multiplied with."""
SMALLEST_PX = 4.0
"""Smaller diameters are refused before anything is looked at."""


def simulated(
    seed: int, families: Sequence[str] = ()
) -> Iterator[tuple[str, list[SimulatedMicrograph], Length | None]]:
    """Name, micrographs and diameter of each set, or of some families' sets; None where there are no particles."""
    for number, of_suite in enumerate(SUITE_PROTEINS):
        if families and of_suite.family not in families:
            continue
        rng = np.random.default_rng([seed, number])
        larger = float(np.exp(rng.uniform(np.log(0.7), np.log(1.5))))
        diameter, pixel_size = round(of_suite.diameter_angstrom * larger), of_suite.pixel_size_angstrom * larger**0.5
        protein = SuiteProtein(of_suite.family, float(diameter), pixel_size)
        volume = random_protein(rng, diameter_angstrom=diameter, family=protein.family, voxel_size_angstrom=pixel_size)
        imager = SpecimenImager(Specimen(volume, diameter), pixel_size)
        recipe = SuiteSet(protein, "easy", number).recipe
        for kind, coverage, snr in (*KINDS, ("empty", (0.0, 0.0), 9.0)):
            layout = replace(recipe.layout, coverage=coverage, spacing_diameters=(0.92, 1.0))
            micrographs = [
                simulate_micrograph(
                    replace(recipe, layout=layout),
                    seed + number,
                    imagers=[imager],
                    index=index,
                    name=f"{protein.family} {kind} {snr:g} {index + 1}",
                    target_snr=snr,
                )
                for index in range(MICROGRAPHS)
            ]
            given = None if kind == "empty" else parse_length(f"{diameter}A")  # the layout places one particle at least
            yield f"{protein.family} {kind} {snr:g}", micrographs, given


def _only_images(
    sets: Iterator[tuple[str, list[SimulatedMicrograph], Length | None]],
) -> Iterator[tuple[str, list[Micrograph], Length | None]]:
    for name, micrographs, diameter in sets:
        yield name, [one.micrograph for one in micrographs], diameter


def real(folder: Path) -> Iterator[tuple[str, list[Micrograph], Length | None]]:
    for path in sorted(folder.glob("*/set.json")):
        card = json.loads(path.read_text())
        images = sorted(file for file in path.parent.iterdir() if file.suffix in (".png", ".jpg", ".mrc"))
        run = RunSettings(pixel_size_angstrom=card["pixel_size_angstrom"])
        micrographs = [read_task(Task(name=image.name, path=image), run) for image in images]
        has_particles = not card["protein"].startswith("none")
        yield path.parent.name, micrographs, parse_length(f"{card['diameter_px']}px") if has_particles else None


def judge(
    model: HeatmapModel, name: str, micrographs: Sequence[Micrograph], diameter: Length | None, told: Counter[str]
) -> None:
    """Count, under `what: told` and `what: all`, for which slips a sentence is given."""

    def count(what: str, is_told: bool, *, is_wanted: bool, sentence: str = "") -> None:
        told[f"{what}: all"] += 1
        told[f"{what}: told"] += is_told
        if is_told != is_wanted:
            print(f"{name}: {what}: {sentence or 'nothing is said'}", flush=True)

    right = doubts_about_sample(model, micrographs, given=diameter or parse_length("20px"))
    sentence = right.contrast or right.size or ""
    count("right" if diameter else "empty", bool(sentence), is_wanted=False, sentence=sentence)
    measured = doubts_about_sample(model, micrographs, given=None).contrast or ""
    count("contrast right, no diameter", bool(measured), is_wanted=False, sentence=measured)
    if diameter is None:
        return
    negatives = [micrograph.inverted() for micrograph in micrographs]
    for what, given in (("inverted", diameter), ("inverted, no diameter", None)):
        count(what, bool(doubts_about_sample(model, negatives, given=given).contrast), is_wanted=True)
    for what, factor in SLIPS.items():
        given = parse_length(f"{diameter.middle * factor:g}{diameter.unit}")
        if given.middle_px(micrographs[0].pixel_size_angstrom) >= SMALLEST_PX:
            count(what, bool(doubts_about_sample(model, micrographs, given=given).size), is_wanted=True)


def inverted(seed: int, families: Sequence[str], hows: Sequence[str]) -> None:
    """Print what `general` expects of its picks on negatives, what is right of them, and whether it warns."""
    print("| set | diameter | picks | expected | range | observed | warned |\n|---|---|---|---|---|---|---|")
    rows: list[tuple[float, float, int, bool, bool]] = []
    warned: list[bool] = []
    for name, micrographs, diameter in simulated(seed, families):
        for how in hows if diameter is not None else ():
            found = pick_in_memory(
                GeneralPicker(diameter=diameter if how == "given" else None),
                [one.micrograph.inverted() for one in micrographs],
            )
            labels = {one.micrograph.name: simulated_labels(one) for one in micrographs}
            counts = evaluate(found.picks, labels, diameter=diameter).main.counts
            judged = counts.true_positive + counts.false_positive
            warned.append(found.survey.contrast_doubt is not None)
            columns = [name, how, str(judged), "", "", "", "yes" if warned[-1] else "no"]
            if found.expected is not None and judged:
                told, observed = found.expected, counts.true_positive / judged
                rows.append((told.precision, observed, judged, told.low <= observed <= told.high, warned[-1]))
                columns[3:6] = f"{told.precision:.3f}", f"{told.low:.3f} to {told.high:.3f}", f"{observed:.3f}"
            print(f"| {' | '.join(columns)} |", flush=True)
    print(f"\n{sum(warned)} of {len(warned)} runs warn; {len(rows)} have picks")
    if rows:
        expected, observed, judged, within, is_warned = (np.array(column) for column in zip(*rows, strict=True))
        gap = expected - observed
        print(
            f"of these {within.sum()} with what is observed in the range; expected less observed: pooled "
            f"{(gap * judged).sum() / judged.sum():+.3f}, largest {gap[np.abs(gap).argmax()]:+.3f}, "
            f"largest without a warning {max(np.abs(gap[~is_warned]), default=0.0):.3f}"
        )


def main() -> None:
    """Print what was told of each slip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=JUDGED_SEED, help="of the simulated sets")
    parser.add_argument("--real", type=Path, help="folder of labelled sets, instead of simulated ones")
    parser.add_argument("--families", nargs="+", default=(), help="of simulated proteins; all where none is given")
    parser.add_argument("--diameter", nargs="+", default=["given", "measured"], help="of picks on negatives")
    parser.add_argument("--inverted", action="store_true", help="what is expected of picks on negatives")
    arguments = parser.parse_args()
    if arguments.inverted:
        inverted(arguments.seed, arguments.families, arguments.diameter)
        return
    model, told = load_model(None), Counter[str]()
    start = time.process_time()
    sets = (
        real(arguments.real)
        if arguments.real is not None
        else _only_images(simulated(arguments.seed, arguments.families))
    )
    for name, micrographs, diameter in sets:
        judge(model, name, micrographs, diameter, told)
    print("\n| given | sets | a sentence |\n|---|---|---|")
    for what in [key.removesuffix(": all") for key in told if key.endswith(": all")]:
        print(f"| {what} | {told[f'{what}: all']} | {told[f'{what}: told']} |")
    print(f"\n{time.process_time() - start:.0f} core seconds")


if __name__ == "__main__":
    main()
