"""What the three DeepCryoPicker pickers reach: real sets, the network against the clusters it learnt from, views, cost.

    python benchmarks/deepcryopicker.py --real path/to/sets --output benchmarks/results

`--real` names a folder of labelled sets (images, one CSV each, set.json); without it only simulated barrels are
measured. No picker is given a diameter or a label; one setting serves all sets. Writes deepcryopicker.json and .md.

The part `klh` draws sparse sessions like KLH's (`sparse_barrels.py`): 17 barrels a micrograph, three micrographs to
label and train, two others to judge, half of KLH's size to spare time; other seeds than anything was chosen on. It also
gives the right diameter to all pickers, wrong ones to `deepcryopicker`, and micrographs without particles to all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.errors import TrainingError
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.metrics.detection import match_picks
from cryopick.pickers.deepcryopicker.measures import score_views
from cryopick.pickers.deepcryopicker.objects import VIEWS
from cryopick.pickers.deepcryopicker.picker import LABELS_FILE, DeepCryoPicker
from cryopick.pickers.registry import make_picker
from cryopick.processing.scale import ScaleMap
from cryopick.simulation.specimens.barrels import SIDE_VIEW, TOP_VIEW, draw_barrels
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from sparse_barrels import Look, draw_look, draw_sparse_barrels, without_particles

PICKERS = ("autocryopicker", "supercryopicker", "deepcryopicker")
GIVEN = ", diameter given"
KLH_SEED, KLH_SCALE = 40, 0.5
"""First session's seed; size over that of a KLH micrograph of 2048 pixels."""
RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", nargs="*", help="names of sets, or barrels; what is left out keeps its last figures")
    parser.add_argument("--sessions", type=int, default=4, help="sparse sessions of the part klh")
    args = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {"barrels": barrels, "klh": lambda: klh(args.sessions)}
    if args.real is not None:
        for path in sorted(child for child in args.real.iterdir() if child.is_dir()):
            parts[path.name] = lambda path=path: real_set(path)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "deepcryopicker.json"
    found: dict[str, Any] = json.loads(file.read_text()) if args.only and file.is_file() else {}
    if not args.only:
        found["machine"] = str(describe_machine())
    for name, measure in parts.items():
        if not args.only or name in args.only:
            found[name] = measure()
            # after every part, so that an interrupted measurement keeps what it has
            file.write_text(json.dumps(found, indent=1) + "\n")
            (args.output / "deepcryopicker.md").write_text(as_markdown(found))
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------- measuring


def real_set(path: Path) -> dict[str, Any]:
    """All pickers on one set, without and with a diameter, and the stage that labelled the network's examples."""
    dataset = open_dataset(path).labelled()
    micrographs = [item.read() for item in dataset]
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    listed = float(np.median([one.diameter_px for one in labels.values() if one.diameter_px]))
    entry: dict[str, Any] = {
        "micrographs": len(micrographs),
        "listed_diameter_px": listed,
        "machine": str(describe_machine()),
    }
    for name in PICKERS:
        with tempfile.TemporaryDirectory() as scratch:
            given = measured(name, micrographs, labels, listed, Path(scratch), diameter=Length(listed, listed, "px"))
        entry[f"{name}{GIVEN}"] = given
        print(path.name, name, "diameter given", given, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in PICKERS:
            entry[name] = measured(name, micrographs, labels, listed, Path(scratch))
            print(path.name, name, entry[name], flush=True)
        entry["labelling stage"] = labelling_stage(Path(scratch), micrographs, labels, listed)
    print(path.name, entry["labelling stage"], flush=True)
    return entry


def measured(
    name: str,
    micrographs: list[Micrograph],
    labels: dict[str, Labels],
    listed: float,
    scratch: Path,
    *,
    diameter: Length | None = None,
) -> dict[str, Any]:
    """One picker at its own threshold; the finding instead where it stops."""
    picker = make_picker(name, diameter=diameter)
    start = clocks()
    try:
        if isinstance(picker, DeepCryoPicker):
            survey = picker.survey_in(scratch, micrographs[: picker.sample_size])
        else:
            survey = picker.survey(micrographs)
    except TrainingError as error:
        return {"stopped": str(error)}
    surveyed = clocks()
    candidates = [picker.pick(micrograph, survey) for micrograph in micrographs]
    done = clocks()
    picks = kept_of(candidates, picker.default_threshold)
    size = survey.particle_size
    measured_px = None if size is None else size.middle_px(micrographs[0].pixel_size_angstrom)
    count = len(micrographs)
    return {
        **scores(picks, labels, listed),
        "measured_diameter_px": measured_px,
        "picks_per_micrograph": float(np.mean([one.is_kept.sum() for one in picks])),
        "prepare_cpu_s": surveyed[0] - start[0],
        "prepare_wall_s": surveyed[1] - start[1],
        "pick_cpu_s": (done[0] - surveyed[0]) / count,
        "pick_wall_s": (done[1] - surveyed[1]) / count,
    }


def labelling_stage(
    scratch: Path, micrographs: list[Micrograph], labels: dict[str, Labels], listed: float
) -> dict[str, Any]:
    """The clustered objects that examples were chosen from, and the chosen ones, as if they were picks."""
    if not (scratch / LABELS_FILE).is_file():
        return {}
    picks: dict[str, list[Picks]] = {"all objects": [], "chosen": []}
    with np.load(scratch / LABELS_FILE) as examples:
        for index, micrograph in enumerate(micrographs[: DeepCryoPicker.sample_size]):
            (height, width), (rows, columns) = micrograph.shape_yx, examples[f"pixels{index}"].shape
            xy_px = ScaleMap((rows / height, columns / width)).to_stored_xy(examples[f"xy_px{index}"])
            everything = Picks(
                xy_px=xy_px,
                score=examples[f"score{index}"],
                micrograph_name=micrograph.name,
                shape_yx=micrograph.shape_yx,
                pixel_size_angstrom=micrograph.pixel_size_angstrom,
            )
            picks["all objects"].append(everything)
            picks["chosen"].append(everything.take(examples[f"reason{index}"] == ""))
    shown = {one.micrograph_name: labels[one.micrograph_name] for one in picks["chosen"]}
    return {name: scores(own, shown, listed) for name, own in picks.items()}


def kept_of(candidates: Sequence[Picks], threshold: float) -> list[Picks]:
    return [select(picks, SelectionSettings(), threshold=threshold) for picks in candidates]


def scores(picks: Sequence[Picks], labels: dict[str, Labels], diameter_px: float) -> dict[str, float]:
    main = evaluate(list(picks), labels, diameter=Length(diameter_px, diameter_px, "px")).main
    return {
        "f1": main.counts.f1,
        "precision": main.counts.precision,
        "recall": main.counts.recall,
        "average_precision": main.average_precision,
        "best_f1": main.best_f1,
    }


def clocks() -> tuple[float, float]:
    """Processor and wall seconds."""
    return time.process_time(), time.perf_counter()


def barrels() -> dict[str, Any]:
    """Label and train on eight micrographs of rings and rectangles, judge on four others."""
    train = [draw_barrels(seed=seed) for seed in range(8)]
    test = [draw_barrels(seed=100 + seed) for seed in range(4)]
    labels = {one.micrograph.name: as_labels(one.micrograph, one.xy_px, one.diameter_px) for one in test}
    with tempfile.TemporaryDirectory() as scratch:
        picker = DeepCryoPicker()
        survey = picker.survey_in(Path(scratch), [one.micrograph for one in train])
        candidates = [picker.pick(one.micrograph, survey) for one in test]
    picks = kept_of(candidates, picker.default_threshold)
    diameter_px = test[0].diameter_px
    right = total = 0
    for one, own in zip(test, picks, strict=True):
        kept = own.kept()
        pairs = match_picks(kept.xy_px, one.xy_px, np.zeros((0, 2)), max_distance_px=0.25 * diameter_px).pairs
        right += int(np.count_nonzero(kept.class_id[pairs.first] == one.view[pairs.second]))
        total += len(pairs.first)
    entry: dict[str, Any] = scores(picks, labels, diameter_px) | {
        "right_picks": total,
        "view_right": right,
        "clustering": {
            name: scores(
                kept_of([clusterer.pick(one.micrograph, seen) for one in test], clusterer.default_threshold),
                labels,
                diameter_px,
            )["f1"]
            for name in PICKERS[:2]
            for clusterer in [make_picker(name)]
            for seen in [clusterer.survey([one.micrograph for one in train])]
        },
        "curves": {},
    }
    for view in (TOP_VIEW, SIDE_VIEW):
        own_labels = {
            one.micrograph.name: as_labels(one.micrograph, one.xy_px[one.view == view], diameter_px) for one in test
        }
        own_picks = [own.take(own.class_id == view) for own in picks]
        result = evaluate(own_picks, own_labels, diameter=Length(diameter_px, diameter_px, "px")).main
        curve = result.curve
        entry["curves"][VIEWS[view]] = {
            "f1": result.counts.f1,
            "average_precision": result.average_precision,
            "recall": [] if curve is None else [round(float(x), 4) for x in curve.recall],
            "precision": [] if curve is None else [round(float(x), 4) for x in curve.precision],
        }
    return entry


def klh(count: int) -> dict[str, Any]:
    """Sparse sessions: every picker without a diameter and with the right one, wrong diameters, empty micrographs."""
    sessions = []
    for seed in range(KLH_SEED, KLH_SEED + count):
        look = draw_look(seed, scale=KLH_SCALE)
        side_px = round(2048 * KLH_SCALE)

        def drawn(first: int, count: int, look: Look = look, side_px: int = side_px, seed: int = seed) -> list[Any]:
            return [draw_sparse_barrels(look, seed=1000 * seed + first + i, side_px=side_px) for i in range(count)]

        train, test = drawn(0, 3), drawn(700, 2)
        empty = [without_particles(look, seed=1000 * seed + 500 + i, side_px=side_px) for i in range(2)]
        right = Length(look.ring_px, look.ring_px, "px")
        entry: dict[str, Any] = {"seed": seed, "ring_px": look.ring_px, "noise": look.noise, "pickers": {}, "empty": {}}
        for name in PICKERS:
            entry["pickers"][name] = views_of(make_picker(name), train, test)
            entry["empty"][name] = picks_on_empty(make_picker(name), empty)
        for name in ("autocryopicker", "supercryopicker", "deepcryopicker", "blob"):
            entry["pickers"][f"{name}, diameter given"] = views_of(make_picker(name, diameter=right), train, test)
        entry["wrong"] = {}
        for factor in (0.75, 1.5):
            wrong = Length(factor * look.ring_px, factor * look.ring_px, "px")
            found = views_of(make_picker("deepcryopicker", diameter=wrong), train, test)
            entry["wrong"][f"{factor:g}"] = "stops" if "stopped" in found else f"F1 {found['f1']:.3f}"
        print(entry, flush=True)
        sessions.append(entry)
    return {"sessions": sessions}


def views_of(picker: Any, train: Sequence[Any], test: Sequence[Any]) -> dict[str, Any]:
    """F1 and views of one picker; its finding where it stops."""
    with tempfile.TemporaryDirectory() as scratch:
        micrographs = [one.micrograph for one in train]
        try:
            if isinstance(picker, DeepCryoPicker):
                survey = picker.survey_in(Path(scratch), micrographs)
            else:
                survey = picker.survey(micrographs)
        except TrainingError as error:
            return {"stopped": str(error)}
        candidates = [picker.pick(one.micrograph, survey) for one in test]
    kept = [picks.kept() for picks in kept_of(candidates, picker.default_threshold)]
    thinned = [picks.kept() for picks in kept_of(candidates, 0.0)]
    result = score_views(
        thinned,
        kept,
        [one.xy_px for one in test],
        [one.view for one in test],
        max_distance_px=0.25 * test[0].diameter_px,
    )
    counts = result.all_views.counts
    return {
        "f1": counts.f1,
        "precision": counts.precision,
        "recall": counts.recall,
        "accuracy": result.all_views.accuracy,
        "view_right": result.view_right,
        "pairs": result.pairs,
        "by_view": {name: scores.curve.average_precision for name, scores in result.by_view.items()},
        "diameter_px": None if survey.particle_size is None else survey.particle_size.middle_px(None),
        "dark_part": survey.dark_part,
    }


def picks_on_empty(picker: Any, micrographs: Sequence[Micrograph]) -> Any:
    """Picks per micrograph that holds nothing, or "stops"."""
    try:
        survey = picker.survey(list(micrographs))
    except TrainingError:
        return "stops"
    kept = kept_of([picker.pick(one, survey) for one in micrographs], picker.default_threshold)
    return float(np.mean([one.is_kept.sum() for one in kept]))


def as_labels(micrograph: Micrograph, xy_px: np.ndarray, diameter_px: float) -> Labels:
    return Labels(xy_px, np.zeros(len(xy_px), bool), diameter_px, micrograph.name)


# --------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: dict[str, Any]) -> str:
    lines = [
        "# DeepCryoPicker, AutoCryoPicker, SuperCryoPicker",
        "",
        "Made by `python benchmarks/deepcryopicker.py`. No label, default settings, one for all sets, and no diameter",
        "unless it says so. A pick is right within a quarter of the listed diameter. Processor seconds (wall seconds).",
        "",
        f"Machine: {found['machine']}",
        "",
        "| set | picker | F1 | precision | recall | average precision | prepare, s | pick, s per micrograph |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    sets = {name: part for name, part in found.items() if isinstance(part, dict) and "listed_diameter_px" in part}
    for name, part in sets.items():
        for picker in (*PICKERS, *(f"{one}{GIVEN}" for one in PICKERS)):
            s = part.get(picker)
            if s is None:
                continue
            if "stopped" in s:
                lines.append(f"| {name} | {picker} | stops: {s['stopped']} | | | | | |")
                continue
            lines.append(
                f"| {name} | {picker} | {s['f1']:.3f} | {s['precision']:.3f} | {s['recall']:.3f} | "
                f"{s['average_precision']:.3f} | {s['prepare_cpu_s']:.0f} ({s['prepare_wall_s']:.0f}) | "
                f"{s['pick_cpu_s']:.2f} ({s['pick_wall_s']:.2f}) |"
            )
    own = {
        name: part["machine"]
        for name, part in sets.items()
        if part.get("machine", found["machine"]) != found["machine"]
    }
    lines += ["", *(f"{name}: {machine}" for name, machine in own.items())] if own else []
    lines += ["", "Network against what labelled its examples, F1 (gain of the network):", ""]
    lines += [
        "| set | network | all clustered objects | chosen examples | better of the two clustering pickers |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, part in sets.items():
        network, stage = part["deepcryopicker"], part["labelling stage"]
        if "f1" not in network or not stage:
            continue
        others = [stage["all objects"]["f1"], stage["chosen"]["f1"], max(part[one]["f1"] for one in PICKERS[:2])]
        cells = " | ".join(f"{other:.3f} ({network['f1'] - other:+.3f})" for other in others)
        lines.append(f"| {name} | {network['f1']:.3f} | {cells} |")
    part = found.get("barrels")
    if part:
        lines += [
            "",
            "## Simulated barrels",
            "",
            f"Rings and rectangles, 8 micrographs to label and train, 4 others to judge: F1 {part['f1']:.3f} "
            f"(precision {part['precision']:.3f}, recall {part['recall']:.3f}); the view is right for "
            f"{part['view_right']} of {part['right_picks']} right picks. "
            + ", ".join(f"{name} {f1:.3f}" for name, f1 in part["clustering"].items())
            + ".",
            "",
            "| view | F1 | average precision | " + " | ".join(f"precision at recall {r:g}" for r in RECALLS) + " |",
            "| --- | --- | --- |" + " --- |" * len(RECALLS),
        ]
        for view, curve in part["curves"].items():
            cells = " | ".join(precision_at(curve, recall) for recall in RECALLS)
            lines.append(f"| {view} | {curve['f1']:.3f} | {curve['average_precision']:.3f} | {cells} |")
        lines += ["", "All points of both curves are in deepcryopicker.json."]
    if "klh" in found:
        lines += klh_lines(found["klh"]["sessions"])
    return "\n".join(lines) + "\n"


def klh_lines(sessions: Sequence[dict[str, Any]]) -> list[str]:
    """The table of sparse sessions."""
    lines = [
        "",
        "## Sparse sessions like KLH's",
        "",
        "17 barrels a micrograph; three micrographs to label and train, two others to judge. F1 (views right).",
        "",
        "| picker | " + " | ".join(f"{s['ring_px']:.0f} px, noise {s['noise']:.2f}" for s in sessions) + " |",
        "| --- |" + " --- |" * len(sessions),
    ]
    for name in sessions[0]["pickers"]:
        cells = []
        for session in sessions:
            own = session["pickers"][name]
            views = f" ({own['view_right']}/{own['pairs']})" if "pairs" in own else ""
            cells.append("stops" if "stopped" in own else f"{own['f1']:.3f}{views}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name in PICKERS:
        cells = [str(session["empty"][name]) for session in sessions]
        lines.append(f"| {name}, picks on empty ones | " + " | ".join(cells) + " |")
    for factor in sessions[0]["wrong"]:
        cells = [session["wrong"][factor] for session in sessions]
        lines.append(f"| deepcryopicker, {factor} times the diameter given | " + " | ".join(cells) + " |")
    return lines


def precision_at(curve: dict[str, Any], recall: float) -> str:
    """Best precision at this recall or more."""
    reached = [p for r, p in zip(curve["recall"], curve["precision"], strict=True) if r >= recall]
    return f"{max(reached):.3f}" if reached else "not reached"


if __name__ == "__main__":
    main()
