"""What `segmentation-crf` reaches: real and simulated sets with and without each CRF, its own synthetic data, cost.

    python benchmarks/segmentation_crf.py --real path/to/sets --recipe recipe/ --output benchmarks/results

`--real` names a folder of labelled sets (images, one CSV each, set.json). `--recipe` names a folder that holds `sim/`,
micrographs of the recipe `segmentation-crf`, and the training folders `complete/` and `sparse/`, made by

    python benchmarks/segmentation_crf.py --recipe FOLDER --parts prepare

which measures them, too (a quarter of an hour on 2 cores).
Parts that are not asked for keep their earlier figures. Writes segmentation_crf.json and segmentation_crf.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.errors import CryopickError
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.images.raster import read_raster_image, write_png
from cryopick.io.weights import PACKAGE_WEIGHTS
from cryopick.metrics.bootstrap import bootstrap
from cryopick.metrics.detection import Counts, RankedOutcomes, match_picks, precision_recall_curve, rank_outcomes
from cryopick.metrics.localization import centring_error
from cryopick.metrics.segmentation import ConfusionMatrix
from cryopick.pickers.protocol import surveys
from cryopick.pickers.registry import make_picker
from cryopick.pickers.segmentation_crf.model import CRFS, particle_map
from cryopick.pickers.segmentation_crf.picker import SegmentationCrfPicker
from cryopick.pickers.survey import NOTHING_SEEN, Survey
from cryopick.processing.scale import network_planes
from cryopick.runs.one import junk_mask
from cryopick.simulation.published.segmentation_crf import WholeImageNoise, segmentation_crf_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.suite import SNR_OF_LEVEL, suite_sets
from cryopick.types import Micrograph, Picks
from cryopick.workflows.simulate import simulate
from cryopick.workflows.train import plan_training, train_picker

BACKBONES = ("small", "deeplabv3-small")
PARTS = ("real", "suite", "variants", "centring", "recipe", "removal", "cost")
TOLERANCE = 0.25
VARIANTS: Mapping[str, dict[str, Any]] = {
    "1 view, not recentred": {"views": 1, "recentre": False},
    "1 view": {"views": 1},
    "4 views (default)": {},
}
BOX_PICKERS = ("cryotransformer", "deepcryopicker", "cryosegnet", "blob", "general")
"""Pickers whose centring is compared; those that are not installed or have no weights are left out."""


@dataclass(frozen=True, eq=False)
class TestSet:
    """Labelled micrographs of one particle size."""

    name: str
    micrographs: Sequence[Micrograph]
    labels: Sequence[Labels]
    diameter_px: float

    @property
    def diameter(self) -> Length:
        return Length(self.diameter_px, self.diameter_px, "px")


@dataclass(frozen=True, eq=False)
class Result:
    """One micrograph under one configuration."""

    counts: Counts
    ranked: RankedOutcomes
    offsets_px: NDArray[np.float64]
    kept: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--recipe", type=Path, help="folder with sim/, complete/ and sparse/")
    parser.add_argument("--parts", nargs="*", default=list(PARTS))
    parser.add_argument("--levels", nargs="*", default=["medium", "hard"], help="of the simulated suite")
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    path = args.output / "segmentation_crf.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = str(describe_machine())
    parts = {
        "real": lambda: compare(list(real_sets(args.real)), args.backbones),
        "suite": lambda: compare(simulated_sets(tuple(args.levels)), args.backbones),
        "centring": lambda: centring(
            [one for one in simulated_sets(tuple(args.levels)) if one.name.endswith(args.levels[0])]
        ),
        "variants": lambda: variants([*simulated_sets(tuple(args.levels)), *real_sets(args.real)]),
        "recipe": lambda: recipe_table(args.recipe),
        "removal": lambda: label_removal(args.recipe),
        "cost": cost,
        "prepare": lambda: prepare(args.recipe),
    }
    needs = {"real": args.real, "variants": args.real, **dict.fromkeys(("recipe", "removal", "prepare"), args.recipe)}
    asked = [*args.parts, *(["recipe", "removal"] if "prepare" in args.parts else [])]
    for name in asked:
        if name in needs and needs[name] is None:
            continue
        found[name] = parts[name]()
        if name == "cost":
            found["cost_machine"] = found["machine"]
        args.output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        (args.output / "segmentation_crf.md").write_text(as_markdown(found))
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------------- data


def real_sets(folder: Path) -> Iterator[TestSet]:
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        dataset = open_dataset(path).labelled()
        labels = [item.labels for item in dataset if item.labels is not None]
        diameter_px = float(np.median([one.diameter_px for one in labels if one.diameter_px]))
        yield TestSet(path.name, [item.read() for item in dataset], labels, diameter_px)


@lru_cache(maxsize=1)
def simulated_sets(levels: tuple[str, ...]) -> list[TestSet]:
    sets = []
    for one in suite_sets(levels=levels):
        simulated = list(one.micrographs())
        diameter_px = one.protein.diameter_angstrom / one.protein.pixel_size_angstrom
        labels = [
            Labels(
                xy_px=each.xy_px,
                is_uncertain=~each.is_pickable,
                diameter_px=diameter_px,
                micrograph_name=each.micrograph.name,
            )
            for each in simulated
        ]
        sets.append(TestSet(one.name, [each.micrograph for each in simulated], labels, diameter_px))
    return sets


# --------------------------------------------------------------------------------------------- with and without CRF


def compare(sets: list[TestSet], backbones: Sequence[str]) -> dict[str, Any]:
    """Every backbone with every CRF on every set, as `cryopick pick` cuts each; and CRFs against none, paired."""
    found: dict[str, Any] = {}
    for backbone in backbones:
        results: dict[str, list[Result]] = {crf: [] for crf in CRFS}
        rows: dict[str, Any] = {}
        for one in sets:
            pickers, survey = pickers_of(one, backbone)
            picks: dict[str, list[Picks]] = {crf: [] for crf in CRFS}
            for micrograph in one.micrographs:
                for crf, maps, picker, scale in maps_of(pickers, survey, micrograph):
                    picks[crf].append(picker.read_particles(maps, micrograph, scale, diameter_px=one.diameter_px))
            for crf in CRFS:
                scored = judge(pickers[crf], picks[crf], one, survey)
                results[crf] += scored
                rows[f"{one.name} {crf}"] = summary(scored, one.diameter_px)
                print(backbone, one.name, crf, rows[f"{one.name} {crf}"], flush=True)
        paired = {crf: paired_difference(results["none"], results[crf]) for crf in CRFS if crf != "none"}
        total = {crf: summary(results[crf], float("nan")) for crf in CRFS}
        found[backbone] = {"rows": rows, "paired": paired, "total": total}
    return found


def pickers_of(
    one: TestSet, backbone: str, weights: Path | None = None
) -> tuple[dict[str, SegmentationCrfPicker], Survey]:
    """By CRF, and what a run sees first."""
    picker = SegmentationCrfPicker(diameter=one.diameter, backbone=backbone, weights=weights)
    return {crf: replace(picker, crf=crf) for crf in CRFS}, picker.survey(one.micrographs)


def maps_of(pickers, survey: Survey, micrograph):
    """The maps of every CRF on one pass of the network."""
    picker = pickers["none"]
    model = picker.model()
    diameter_px = picker.diameter.middle_px(micrograph.pixel_size_angstrom)
    working, scale = picker.working_image(micrograph, diameter_px=diameter_px, added_noise=survey.noise_level or 0.0)
    planes = network_planes(working, particle_px=model.particle_px, count=model.input_planes)
    maps = model.maps(planes, views=picker.views)
    for crf, picker in pickers.items():
        yield crf, model.refined(maps, planes[0], crf=crf, dense_crf=picker.dense_crf), picker, scale


def judge(picker, candidates: Sequence[Picks], one: TestSet, survey: Survey) -> list[Result]:
    """Select as a run does, one threshold for the set, and match to the labels."""
    masks = [junk_mask(picks) for picks in candidates]
    thinned = [
        select(picks, SelectionSettings(), threshold=-np.inf, junk_mask=mask).kept()
        for picks, mask in zip(candidates, masks, strict=True)
    ]
    threshold = picker.choose_threshold(np.concatenate([picks.score for picks in thinned]), survey)
    results = []
    for picks, labels in zip(thinned, one.labels, strict=True):
        certain, doubtful = labels.xy_px[~labels.is_uncertain], labels.xy_px[labels.is_uncertain]
        kept = picks.xy_px[picks.score >= np.float32(threshold)]
        reach = TOLERANCE * one.diameter_px
        match = match_picks(kept, certain, doubtful, max_distance_px=reach)
        offsets = kept[match.pairs.first] - certain[match.pairs.second]
        ranked = rank_outcomes(picks.xy_px, picks.score, certain, doubtful, max_distance_px=reach)
        results.append(Result(match.counts, ranked, offsets / one.diameter_px, len(kept)))
    return results


def summary(results: Sequence[Result], diameter_px: float) -> dict[str, float]:
    counts = sum((one.counts for one in results), Counts())
    offsets = np.concatenate([one.offsets_px for one in results])
    return {
        "f1": counts.f1,
        "precision": counts.precision,
        "recall": counts.recall,
        "average_precision": precision_recall_curve([one.ranked for one in results]).average_precision,
        "centring": float(np.median(np.hypot(*offsets.T))) if len(offsets) else float("nan"),
        "picks_per_micrograph": float(np.mean([one.kept for one in results])),
        "diameter_px": diameter_px,
    }


def paired_difference(without: Sequence[Result], with_crf: Sequence[Result]) -> dict[str, Any]:
    """With minus without, and 95 % intervals over micrographs, the same resampled micrographs on both sides."""
    tables = [np.array([[r.counts.true_positive, r.counts.false_positive, r.counts.false_negative] for r in side])
              for side in (without, with_crf)]  # fmt: skip

    def scores(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = []
        for table, side in zip(tables, (without, with_crf), strict=True):
            true, false, missed = weights @ table
            curve = precision_recall_curve([one.ranked for one in side], weights=weights)
            rows.append((true, false, missed, curve))
        (t0, f0, m0, c0), (t1, f1, m1, c1) = rows
        precision = t0 / max(t0 + f0, 1)
        is_as_precise = c1.precision >= precision
        recall = float(c1.recall[is_as_precise].max(initial=0.0))
        difference = 2 * t1 / max(2 * t1 + f1 + m1, 1) - 2 * t0 / max(2 * t0 + f0 + m0, 1)
        return np.array([difference, recall - t0 / max(t0 + m0, 1), c1.average_precision - c0.average_precision])

    everything = scores(np.ones(len(without)))
    intervals = bootstrap(
        scores,
        micrograph_count=len(without),
        generator=np.random.default_rng(0),
        resamples=400,
        confidence=0.95,
        size=3,
    )
    names = ("f1", "recall_at_equal_precision", "average_precision")
    return {
        name: {"difference": float(value), "low": interval.low, "high": interval.high}
        for name, value, interval in zip(names, everything, intervals, strict=True)
    }


def variants(sets: list[TestSet]) -> dict[str, Any]:
    """What mirror images and recentring are worth: each real set, and the simulated ones together."""
    found: dict[str, Any] = {}
    for title, settings in VARIANTS.items():
        together: dict[str, list[Result]] = {}
        for one in sets:
            picker = SegmentationCrfPicker(diameter=one.diameter, **settings)
            survey = picker.survey(one.micrographs)
            results = judge(picker, [picker.pick(micrograph, survey) for micrograph in one.micrographs], one, survey)
            is_real = not any(one.name.endswith(level) for level in SNR_OF_LEVEL)
            together.setdefault(one.name if is_real else one.name.rsplit("-", 1)[1], []).extend(results)
        for name, results in together.items():
            found[f"{name} {title}"] = summary(results, float("nan"))
            print(name, title, found[f"{name} {title}"], flush=True)
    return dict(sorted(found.items()))


def centring(sets: list[TestSet]) -> dict[str, float]:
    """Median distance of right picks from the true centre, in diameters, of this picker and of others."""
    found: dict[str, float] = {}
    names = [("segmentation-crf", {}), ("segmentation-crf", {"backbone": "deeplabv3-small"})]
    for name, settings in [*names, *((other, {}) for other in BOX_PICKERS)]:
        offsets = []
        try:
            for one in sets:
                picker = make_picker(name, diameter=one.diameter, **settings)
                survey = picker.survey(list(one.micrographs)) if surveys(picker) else NOTHING_SEEN
                candidates = [picker.pick(micrograph, survey) for micrograph in one.micrographs]
                if hasattr(picker, "choose_threshold"):
                    offsets += [each.offsets_px for each in judge(picker, candidates, one, survey)]
                else:
                    for picks, labels in zip(candidates, one.labels, strict=True):
                        kept = select(picks, SelectionSettings(), threshold=picker.default_threshold).kept()
                        certain = labels.xy_px[~labels.is_uncertain]
                        match = match_picks(
                            kept.xy_px, certain, np.zeros((0, 2)), max_distance_px=TOLERANCE * one.diameter_px
                        )
                        offsets.append((kept.xy_px[match.pairs.first] - certain[match.pairs.second]) / one.diameter_px)
        except CryopickError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        title = " ".join([name, *settings.values()])
        joined = np.concatenate(offsets)
        found[title] = centring_error(joined, np.zeros_like(joined)).median_px
        print(title, found[title], flush=True)
    return found


# --------------------------------------------------------------------------------------------- the synthetic recipe


MICROGRAPHS, SIDE_PX, PARTICLES = 16, 2048, 38
"""Of the reduced set: a quarter of the published area with a quarter of its 150 particles, so that density and noise
are the published ones, and fewer of them (84)."""
WITHHELD_SHARE = 0.2
STEPS = {"complete": 240, "sparse": 160}
TRAINING = {"learning_rate": 2e-3, "warmup_steps": 15, "ema_decay": 0.98, "gradient_clip": 2.0}
TRAINING |= {"precision": "bf16-mixed", "workers": 1}
TASK = {"batch_size": 8, "crop_px": 320}


def prepare(folder: Path) -> dict[str, Any]:
    """Simulate the recipe, withhold labels, and train on all labels and on those that are left."""
    recipe = replace(
        segmentation_crf_recipe(),
        shape_yx=(SIDE_PX, SIDE_PX),
        segmentation_crf=WholeImageNoise(particles=PARTICLES),
    )
    settings = SimulationSettings(diameter_angstrom=(191.0, 191.0), recipe=recipe, seed=7)
    simulate(folder / "sim", settings, count=MICROGRAPHS)
    withheld = withhold(folder / "sim", folder / "withheld")
    (folder / "withheld.json").write_text(json.dumps(withheld) + "\n")
    for name, data, labels in (("complete", "sim", "complete"), ("sparse", "withheld", "sparse")):
        steps = STEPS[name]
        task = {**TASK, "crf_crops": 4 if name == "complete" else 0, "crf_from_step": round(0.65 * steps)}
        plan = plan_training(
            "segmentation-crf",
            data=str(folder / data),
            data_settings={"labels": labels, "validation_fraction": 0.25},
            task=task,
            training={**TRAINING, "steps": steps, "validate_every": steps},
        )
        result = train_picker(plan, folder / name)
        print(name, dict(result.scores), flush=True)
    return {"micrographs": MICROGRAPHS, "side_px": SIDE_PX, "particles": PARTICLES}


def withhold(source: Path, target: Path) -> dict[str, list[int]]:
    """A copy of a simulation without a fifth of its labels, in table and mask; the rows taken out, by micrograph."""
    rng, removed = np.random.default_rng(0), {}
    for part in ("micrographs", "masks", "truth"):
        (target / part).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / part).iterdir()):
            copy = target / part / path.name
            copy.unlink(missing_ok=True)
            if path.suffix == ".csv":
                head, *rows = path.read_text().splitlines()
                taken = sorted(rng.choice(len(rows), round(WITHHELD_SHARE * len(rows)), replace=False).tolist())
                removed[path.stem] = taken
                copy.write_text("\n".join([head, *(row for i, row in enumerate(rows) if i not in taken)]) + "\n")
            elif not path.name.endswith("_instances.png"):
                os.link(path, copy)
    for stem, taken in removed.items():
        name = f"{stem}_instances.png"
        instances = np.rint(read_raster_image(source / "masks" / name).pixels).astype(np.int64)
        is_left = np.ones(int(instances.max()) + 1, bool)
        is_left[[0, *(i + 1 for i in taken)]] = False
        number = np.where(is_left, np.cumsum(is_left), 0)
        write_png(target / "masks" / name, number[instances].astype(np.uint16))
    return removed


def held_out(folder: Path, name: str) -> list[Any]:
    """Micrographs that a training did not see."""
    split = json.loads((folder / name / "split.json").read_text())
    return list(open_dataset(folder / "sim").take(split["validation"]).labelled())


def recipe_table(folder: Path) -> dict[str, Any]:
    """Pixel and particle scores on held-out micrographs, masks compared at the resolution of the micrograph."""
    found: dict[str, Any] = {}
    items = held_out(folder, "complete")
    both = ((None, "shipped"), (folder / "complete" / "weights.safetensors", "trained on the recipe"))
    for weights, title in both:
        if weights is None and not (PACKAGE_WEIGHTS / "segmentation-crf.safetensors").exists():
            print("no weights are shipped: only those trained on the recipe are measured", flush=True)
            continue
        for backbone in BACKBONES:
            matrices = {crf: ConfusionMatrix.empty(2) for crf in CRFS}
            results: dict[str, list[Result]] = {crf: [] for crf in CRFS}
            for item in items:
                micrograph, diameter_px = item.read(), float(item.diameter_px)
                one = TestSet(item.name, [micrograph], [item.labels], diameter_px)
                pickers, survey = pickers_of(one, backbone, weights)
                truth = read_raster_image(item.instances_path).pixels > 0
                for crf, maps, picker, scale in maps_of(pickers, survey, micrograph):
                    probability = stored_resolution(particle_map(maps), picker.model().stride_px, scale, truth.shape)
                    matrices[crf] += ConfusionMatrix.of(truth, probability > 0.5, classes=2)
                    picks = picker.read_particles(maps, micrograph, scale, diameter_px=diameter_px)
                    results[crf] += judge(picker, [picks], one, survey)
            for crf in CRFS:
                matrix = matrices[crf]
                found[f"{title}: {backbone} {crf}"] = {
                    "accuracy": matrix.accuracy,
                    "pixel_precision": float(matrix.precision[1]),
                    "pixel_recall": float(matrix.recall[1]),
                    "pixel_iou": float(matrix.iou[1]),
                    "pixel_f1": float(matrix.f1[1]),
                    "mean_iou": matrix.mean_iou,
                    **{f"particle_{key}": value for key, value in summary(results[crf], diameter_px).items()},
                }
                print(title, backbone, crf, found[f"{title}: {backbone} {crf}"], flush=True)
    found["micrographs"] = len(items)
    return found


def stored_resolution(values: NDArray[np.float32], stride_px: int, scale: Any, shape_yx: Any) -> NDArray[np.float32]:
    """A map on the pixels of the micrograph, linearly, cell centres where they belong."""
    height, width = shape_yx
    factor_y, factor_x = scale.factor_yx
    x = ((np.arange(width) + 0.5) * factor_x / stride_px - 0.5).astype(np.float32)
    y = ((np.arange(height) + 0.5) * factor_y / stride_px - 0.5).astype(np.float32)
    grid_x, grid_y = np.broadcast_to(x, shape_yx), np.broadcast_to(y[:, None], shape_yx)
    warped = cv2.remap(
        values, np.ascontiguousarray(grid_x), np.ascontiguousarray(grid_y), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(warped, np.float32)


def label_removal(folder: Path) -> dict[str, float]:
    """Of the particles whose labels were withheld from training, how many the trained network finds."""
    withheld = json.loads((folder / "withheld.json").read_text())
    weights = folder / "sparse" / "weights.safetensors"
    trained_on = json.loads((folder / "sparse" / "split.json").read_text())["train"]
    found: dict[str, float] = {}
    for backbone in BACKBONES:
        removed = kept = total_removed = total_kept = picks_made = 0
        for item in open_dataset(folder / "sim").take(trained_on).labelled():
            micrograph, diameter_px = item.read(), float(item.diameter_px or 0)
            picker = SegmentationCrfPicker(
                diameter=Length(diameter_px, diameter_px, "px"), backbone=backbone, weights=weights
            )
            candidates = picker.pick(micrograph)
            chosen = select(candidates, SelectionSettings(), threshold=-np.inf, junk_mask=junk_mask(candidates)).kept()
            threshold = picker.choose_threshold(chosen.score, NOTHING_SEEN)
            xy_px = chosen.xy_px[chosen.score >= np.float32(threshold)]
            reach = TOLERANCE * diameter_px
            match = match_picks(xy_px, item.labels.xy_px, np.zeros((0, 2)), max_distance_px=reach)
            is_found = np.zeros(len(item.labels.xy_px), bool)
            is_found[match.pairs.second] = True
            is_removed = np.zeros(len(is_found), bool)
            is_removed[withheld[Path(item.name).stem]] = True
            removed += int(is_found[is_removed].sum())
            kept += int(is_found[~is_removed].sum())
            total_removed += int(is_removed.sum())
            total_kept += int((~is_removed).sum())
            picks_made += len(xy_px)
        found[f"{backbone}: removed particles"] = total_removed
        found[f"{backbone}: recall of removed"] = removed / max(total_removed, 1)
        found[f"{backbone}: recall of labelled"] = kept / max(total_kept, 1)
        found[f"{backbone}: strict precision"] = kept / max(picks_made, 1)
        found[f"{backbone}: curated precision"] = (kept + removed) / max(picks_made, 1)
    return found


# ------------------------------------------------------------------------------------------------------------- cost


def cost() -> dict[str, dict[str, float]]:
    """For one 4096 x 4096 micrograph with particles of 108 px, from resampling to picks."""
    rng = np.random.default_rng(0)
    micrograph = Micrograph(rng.normal(size=(4096, 4096)).astype(np.float32), pixel_size_angstrom=1.77)
    found: dict[str, dict[str, float]] = {}
    for backbone in BACKBONES:
        diameter = Length(108.0, 108.0, "px")
        picker = SegmentationCrfPicker(diameter=diameter, backbone=backbone, added_noise=0.0)
        seen = Survey(particle_size=diameter, decoy_share=1.0)
        picker.pick(micrograph, seen)  # loads the network
        for crf in CRFS:
            found[f"{backbone} {crf}"] = fastest(partial(replace(picker, crf=crf).pick, survey=seen), micrograph)
        found[f"{backbone} none, 1 view"] = fastest(partial(replace(picker, views=1).pick, survey=seen), micrograph)
        measuring = replace(picker, added_noise=None)
        found[f"{backbone}: preparation, once per run"] = fastest(measuring.survey, [micrograph] * 3)
    return found


def fastest(call: Callable[[Any], Any], argument: Any) -> dict[str, float]:
    """Least of two calls: seconds that passed, and seconds of all cores together, whatever else runs."""
    passed, busy = [], []
    for _ in range(2):
        start, start_busy = time.perf_counter(), time.process_time()
        call(argument)
        passed.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    return {"passed": min(passed), "busy": min(busy)}


# ---------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: dict[str, Any]) -> str:
    lines = ["# Segmentation + conditional random field", "", "Made by `python benchmarks/segmentation_crf.py`.", ""]
    for part, title in (("real", "Real sets"), ("suite", "Simulated suite")):
        if part in found:
            lines += [f"## {title}, diameter given, tolerance 0.25", ""]
            for backbone, entry in found[part].items():
                lines += comparison(backbone, entry, is_suite=part == "suite")
    if "variants" in found:
        lines += ["## Mirror images and recentring, `small` without CRF", ""]
        lines += ["| set | variant | F1 | precision | recall | average precision | centring, D |", "| --- " * 7 + "|"]
        keys = ("f1", "precision", "recall", "average_precision", "centring")
        for name, row in found["variants"].items():
            set_name, variant = name.split(" ", 1)
            lines.append(f"| {set_name} | {variant} | {' | '.join(f'{row[key]:.3f}' for key in keys)} |")
        lines.append("")
    if "centring" in found:
        lines += ["## Median centring error on the simulated suite, medium noise, diameters", ""]
        lines += [f"- {name}: {value:.4f}" for name, value in found["centring"].items()] + [""]
    if "recipe" in found:
        entry = found["recipe"]
        lines += [f"## Synthetic recipe, {entry['micrographs']} held-out micrographs", ""]
        names = ("accuracy", "precision", "recall", "IoU", "F1", "mean IoU", "particle F1", "centring, D")
        keys = ("accuracy", "pixel_precision", "pixel_recall", "pixel_iou", "pixel_f1", "mean_iou", "particle_f1",
                "particle_centring")  # fmt: skip
        lines += [f"| weights: network, CRF | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
        for name, row in entry.items():
            if isinstance(row, dict):
                lines.append(f"| {name} | {' | '.join(f'{row[key]:.3f}' for key in keys)} |")
        lines.append("")
    if "removal" in found:
        lines += ["## Labels removed from training", ""]
        lines += [f"- {name}: {value:.3f}" for name, value in found["removal"].items()] + [""]
    if "cost" in found:
        lines += ["## Seconds per 4096 x 4096 micrograph", "", f"On: {found['cost_machine']}.", ""]
        lines += ["| network, CRF | seconds | of all cores together |", "| --- | --- | --- |"]
        lines += [f"| {name} | {row['passed']:.2f} | {row['busy']:.2f} |" for name, row in found["cost"].items()] + [""]
    return "\n".join(lines)


def comparison(backbone: str, entry: dict[str, Any], *, is_suite: bool) -> list[str]:
    """Lines for one backbone with and without each CRF."""
    lines = [f"### {backbone}", "", "| set | CRF | F1 | precision | recall | average precision | centring, D | picks |"]
    lines += ["| --- " * 8 + "|"]
    total = {f"**all** {crf}": value for crf, value in entry["total"].items()}
    for name, row in {**(levels(entry["rows"]) if is_suite else entry["rows"]), **total}.items():
        set_name, crf = name.rsplit(" ", 1)
        lines.append(
            f"| {set_name} | {crf} | {row['f1']:.3f} | {row['precision']:.3f} | {row['recall']:.3f} | "
            f"{row['average_precision']:.3f} | {row['centring']:.3f} | {row['picks_per_micrograph']:.1f} |"
        )
    lines += ["", "With CRF minus without, 95 % interval over micrographs:", ""]
    lines += ["| CRF | F1 | recall at equal precision | average precision |", "| --- | --- | --- | --- |"]
    for crf, row in entry["paired"].items():
        cells = [f"{v['difference']:+.4f} ({v['low']:+.4f} to {v['high']:+.4f})" for v in row.values()]
        lines.append(f"| {crf} | {' | '.join(cells)} |")
    return [*lines, ""]


def levels(rows: dict[str, Any]) -> dict[str, Any]:
    """Rows of a suite averaged over its proteins."""
    groups: dict[str, list[dict[str, float]]] = {}
    for name, row in rows.items():
        set_name, crf = name.rsplit(" ", 1)
        groups.setdefault(f"mean {set_name.rsplit('-', 1)[1]} {crf}", []).append(row)
    return {
        name: {key: float(np.nanmean([row[key] for row in group])) for key in group[0]}
        for name, group in groups.items()
    }


if __name__ == "__main__":
    main()
