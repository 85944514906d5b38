"""What `general` reaches: real sets, the simulated suite against the physical limit, calibration, junk, cost.

    python benchmarks/general.py --real path/to/sets
    python benchmarks/general.py --real path/to/sets --parts finetune --tune-on bgal10017

`--real` names a folder of labelled sets (images, one CSV each, set.json); without it only simulation is measured. One
setting serves all sets. Parts that are not asked for keep what was measured before. Writes general.json and general.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.io.coordinates.formats import write_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.processing.probability import expected_scores
from cryopick.runs.in_memory import PickedInMemory, pick_in_memory
from cryopick.runs.one import junk_mask
from cryopick.simulation.crops import Crop, CropGenerator, CropRanges
from cryopick.simulation.recipe import DirtRanges, Recipe
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph, Picks
from cryopick.workflows.finetune import finetune
from ideal import ideal_detection
from score_summary import listed_diameter, score_summary, simulated_labels

PARTS = ("real", "finetune", "suite", "junk", "cost")
OF_REAL_SETS = ("real", "finetune")
TUNED_MICROGRAPHS = 3
LABELLED_SHARE = 0.2
JUNK_SEEDS = (90210, 4711, 12345)
"""Several, because a few crops of carbon decide; on the first one alone some constants were chosen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--weights", type=Path, help="checkpoint instead of the shipped one")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tune-on", default="bgal10017", help="the set whose labels teach in the part `finetune`")
    args = parser.parse_args()
    picker = GeneralPicker(weights=args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "general.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    measures: dict[str, Callable[[], Any]] = {
        "real": lambda: real_sets(picker, args.real),
        "finetune": lambda: fine_tuned(picker, args.real, args.tune_on),
        "suite": lambda: suite(picker),
        "junk": lambda: junk(picker),
        "cost": lambda: cost(picker),
    }
    for part in args.parts:
        if part in OF_REAL_SETS and args.real is None:
            continue
        found[part] = measures[part]()
        # after every part, so that an interrupted measurement keeps what it has
        found["machine"] = {**found.get("machine", {}), part: str(describe_machine())}
        path.write_text(json.dumps(found, indent=1) + "\n")
        (args.output / "general.md").write_text(as_markdown(found))
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------- measuring


def run(picker: GeneralPicker, micrographs: list[Micrograph], diameter: Length | None) -> PickedInMemory:
    return pick_in_memory(replace(picker, diameter=diameter), micrographs)


def summary(
    picker: GeneralPicker, found: PickedInMemory, labels: Mapping[str, Labels], diameter: Length
) -> dict[str, float]:
    """Scores, and what the picker itself expects of its picks."""
    candidates = found.believed_scores()
    probability = picker.run_probabilities(candidates, found.survey)
    kept = probability[candidates >= np.float32(found.threshold)]
    cut = float(kept.min()) if len(kept) else 2.0
    expected_precision, expected_recall, expected_f1 = expected_scores(probability, cut)
    return {
        **score_summary(found.picks, labels, diameter=diameter),
        "threshold": found.threshold,
        "expected_precision": expected_precision,
        "expected_recall": expected_recall,
        "expected_f1": expected_f1,
    }


def real_sets(picker: GeneralPicker, folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        dataset = open_dataset(path).labelled()
        micrographs = [item.read() for item in dataset]
        labels = {item.name: item.labels for item in dataset if item.labels is not None}
        given = listed_diameter(labels)
        entry: dict[str, object] = {}
        for name, diameter in (("diameter given", given), ("diameter measured", None)):
            run_found = run(picker, micrographs, diameter)
            entry[name] = summary(picker, run_found, labels, given)
        kept = [one.kept() for one in run_found.picks]
        sizes = np.concatenate([one.diameter_px for one in kept])
        entry["listed_diameter_px"] = given.middle
        entry["measured_diameter_px"] = measured_px(picker, micrographs)
        entry["median_size_of_picks_px"] = float(np.median(sizes)) if len(sizes) else float("nan")
        found[path.name] = entry
    return found


def fine_tuned(picker: GeneralPicker, folder: Path, name: str) -> dict[str, float]:
    """F1 before and after learning from a fifth of the labels of three micrographs: the others of the set, other sets.

    What a user does with `cryopick finetune general --picks picks/ --micrographs ...`, its defaults included.
    """
    found: dict[str, float] = {}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = open_dataset(folder / name).labelled()
        items = [item for item in dataset if item.labels is not None]
        used = items[:TUNED_MICROGRAPHS]
        few = []
        for item in used:
            xy_px = item.labels.xy_px[rng.random(len(item.labels)) < LABELLED_SHARE]
            few.append(Picks(xy_px=xy_px, micrograph_name=item.name, shape_yx=item.shape_yx))
        write_picks(few, Path(scratch) / "few.star")
        start = time.perf_counter()
        result = finetune(
            "general",
            Path(scratch) / "few.star",
            Path(scratch) / "tuned",
            micrographs=[item.source.path for item in used],
            weights=picker.weights,
            diameter=Length(used[0].labels.diameter_px, used[0].labels.diameter_px, "px"),
        )
        found["minutes"] = (time.perf_counter() - start) / 60
        found["labels"] = float(sum(len(one) for one in few))
        found["is_better"] = float(result.is_better)
        tuned = replace(picker, weights=result.training.weights)
        for path in sorted(child for child in folder.iterdir() if child.is_dir()):
            others = [item for item in open_dataset(path).labelled() if item.name not in {one.name for one in used}]
            labels = {item.name: item.labels for item in others}
            if not sum(len(one) for one in labels.values()):
                continue
            micrographs = [item.read() for item in others]
            given = Length(others[0].labels.diameter_px, others[0].labels.diameter_px, "px")
            for when, one in (("before", picker), ("after", tuned)):
                picks = run(one, micrographs, given).picks
                found[f"{path.name}, F1 {when}"] = score_summary(picks, labels, diameter=given)["f1"]
    return found


def measured_px(picker: GeneralPicker, micrographs: list[Micrograph]) -> float:
    sample = [micrographs[i] for i in np.unique(np.linspace(0, len(micrographs) - 1, 6).round().astype(int))]
    size = picker.survey(sample).particle_size
    return float("nan") if size is None else size.middle_px(sample[0].pixel_size_angstrom)


def suite(picker: GeneralPicker) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for one in suite_sets():
        imager = one.imager()
        simulated = list(one.micrographs(imager, workers=2))
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        micrographs = [each.micrograph for each in simulated]
        truth = {each.micrograph.name: simulated_labels(each) for each in simulated}
        entry = summary(picker, run(picker, micrographs, diameter), truth, diameter)
        entry["ideal_f1"] = float(np.mean([ideal_detection(each, [imager], workers=2).f1 for each in simulated]))
        size_px = measured_px(picker, micrographs)
        entry["measured_over_true_diameter"] = size_px / diameter.middle_px(one.protein.pixel_size_angstrom)
        found[one.name] = entry
        print(f"{one.name}: F1 {entry['f1']:.3f}, ideal {entry['ideal_f1']:.3f}", flush=True)
    return found


def junk(picker: GeneralPicker, *, count: int = 40) -> dict[str, float]:
    """Simulated crops with carbon and ice: picks inside junk, and the map of junk against the truth."""
    inside = total = both = either = 0
    for crop in itertools.chain.from_iterable(dirty_crops(seed, count) for seed in JUNK_SEEDS):
        picks = run(picker, [Micrograph(crop.image)], Length(20.0, 20.0, "px")).picks
        kept = picks[0].kept()
        column, row = np.rint(kept.xy_px).astype(int).T.clip(0, crop.junk.shape[0] - 1)
        inside += int(crop.junk[row, column].sum())
        total += len(kept)
        mask = junk_mask(picks[0])
        rows, columns = (np.arange(480) * side // 480 for side in mask.shape)
        found = mask[np.ix_(rows, columns)]
        both += int((found & crop.junk).sum())
        either += int((found | crop.junk).sum())
    return {"picks": total, "share_in_junk": inside / max(total, 1), "junk_iou": both / max(either, 1)}


def dirty_crops(seed: int, count: int) -> Iterator[Crop]:
    dirt = DirtRanges(carbon_probability=0.6, blob_probability=0.9, crystalline_probability=0.1)
    generator = CropGenerator(
        Recipe(dirt=dirt),
        seed=seed,
        crop_px=480,
        particle_px_range=(20.0, 20.0),
        ranges=CropRanges(diameter_error=(0.9, 1.1), detection_snr=(6.0, 25.0), empty_probability=0.0),
    )
    return itertools.islice(generator.crops(), count)


def cost(picker: GeneralPicker) -> dict[str, float]:
    """Seconds and memory of whole runs, files read to STAR written, measured on the program from outside."""
    found: dict[str, float] = {}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        # the program's own files are read from disk once, whatever is picked later
        subprocess.run([sys.executable, "-c", "import torch, cryopick.cli.main"], check=True)
        for side, count in ((4096, 20), (8192, 2)):
            folder = Path(scratch) / str(side)
            folder.mkdir()
            pixels = rng.normal(size=(side, side)).astype(np.float32)
            for index in range(count):
                rolled = np.roll(pixels, 97 * index, axis=1)
                write_micrograph(folder / f"m{index:02d}.mrc", Micrograph(rolled, pixel_size_angstrom=1.77))
            command = [sys.executable, "-m", "cryopick.cli.main", "pick", str(folder), "-o", f"{folder}-run"]
            command += ["--picker", "general", "--diameter", "191A"]
            if picker.weights is not None:
                command += ["--weights", str(picker.weights)]
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            peak_mib = watch(process)
            found[f"seconds_per_{side}"] = (time.perf_counter() - start) / count
            found[f"peak_mib_{side}"] = peak_mib
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return found


def watch(process: subprocess.Popen[bytes]) -> float:
    """Largest memory of a process and its children while it runs, MiB (proportional shares of shared pages)."""
    peak = 0.0
    while process.poll() is None:
        members = [process.pid]
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) in members:
                members.append(int(status.parent.name))
        total = 0.0
        for member in members:
            try:
                rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next((float(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        peak = max(peak, total)
        time.sleep(0.1)
    return peak


# --------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: dict[str, Any]) -> str:
    lines = ["# General picker", "", "Made by `python benchmarks/general.py`; one setting for all sets.", ""]
    real = found.get("real")
    if isinstance(real, dict):
        lines += [
            "| real set | diameter | F1 | precision | recall | expected precision | picks per micrograph |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, entry in real.items():
            for how in ("diameter given", "diameter measured"):
                s = entry[how]
                px = entry["listed_diameter_px"] if how == "diameter given" else entry["measured_diameter_px"]
                lines.append(
                    f"| {name} | {how}: {px:.0f} px | {s['f1']:.3f} | {s['precision']:.3f} | {s['recall']:.3f} | "
                    f"{s['expected_precision']:.3f} | {s['picks_per_micrograph']:.1f} |"
                )
        lines.append("")
    suite_rows = found.get("suite")
    if isinstance(suite_rows, dict):
        lines += ["| simulated set | F1 | ideal F1 | ratio | precision | expected | measured / true diameter |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for name, s in suite_rows.items():
            lines.append(
                f"| {name} | {s['f1']:.3f} | {s['ideal_f1']:.3f} | {s['f1'] / s['ideal_f1']:.3f} | "
                f"{s['precision']:.3f} | {s['expected_precision']:.3f} | {s['measured_over_true_diameter']:.2f} |"
            )
        for level in dict.fromkeys(name.rsplit("-", 1)[1] for name in suite_rows):
            rows = [s for name, s in suite_rows.items() if name.endswith(f"-{level}")]
            mean = {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
            ratio = mean["f1"] / mean["ideal_f1"]
            lines.append(
                f"| **mean {level}** | {mean['f1']:.3f} | {mean['ideal_f1']:.3f} | {ratio:.3f} | "
                f"{mean['precision']:.3f} | {mean['expected_precision']:.3f} | "
                f"{mean['measured_over_true_diameter']:.2f} |"
            )
        gap = float(np.nanmean([abs(s["precision"] - s["expected_precision"]) for s in suite_rows.values()]))
        lines += ["", f"Mean |expected - observed precision| on the suite: {gap:.3f}", ""]
        log_error = np.log([s["measured_over_true_diameter"] for s in suite_rows.values()])
        mean_error, rms = float(np.nanmean(log_error)), float(np.sqrt(np.nanmean(log_error**2)))
        lines += [f"Logarithm of measured over true diameter on the suite: mean {mean_error:.3f}, rms {rms:.3f}", ""]
    for title in ("finetune", "junk", "cost"):
        part = found.get(title)
        if isinstance(part, dict):
            lines += [f"{title}: " + ", ".join(f"{key} {value:.3f}" for key, value in part.items()), ""]
    machines = found.get("machine")
    if isinstance(machines, dict):
        lines += [f"Machine ({part}): {machine}" for part, machine in machines.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
