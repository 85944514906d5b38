"""What Cryo-EMMAE reaches: real sets, stability over training sets, clusters, number of micrographs, species, cost.

    python benchmarks/cryoemmae.py --real path/to/sets --output benchmarks/results --runs runs

`--real` names a folder of labelled sets (images, one CSV each, set.json); their labels are used for measuring alone.
`--parts` chooses what is measured; parts that train write their weights below `--runs` and use them again. Each part
adds its entry to cryoemmae.json; cryoemmae.md is written from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.cryoemmae.clusters import Clusters, greatest_overlap, refine_as_published
from cryopick.pickers.cryoemmae.latent import Encoder, prepare_image
from cryopick.pickers.cryoemmae.latent_space import sample_latent_space
from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker, analyse, load_model
from cryopick.pickers.cryoemmae.training import PRESETS, CryoEmmaeTrainable
from cryopick.pickers.survey import NOTHING_SEEN
from cryopick.runs.in_memory import pick_all, pick_in_memory
from cryopick.runs.settings import make_settings
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.suite import SUITE_PROTEINS, SuiteSet, suite_sets
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.train import plan_training, train_picker
from score_summary import listed_diameter, score_summary, simulated_labels

PARTS = (
    "real",
    "ablation",
    "self",
    "published",
    "stability",
    "clusters",
    "cut",
    "curve",
    "species",
    "cost",
    "unit-costs",
)
SCORES = ("clusters alone", "+ probe", "+ discriminant")
"""What ranks the same candidates: evidence of the clusters, the probe trained on labelled simulation, and the order
that a discriminant fitted on each micrograph gives the probe's probabilities."""
REDUCED = {"width": 48, "depth": 3, "decoder_width": 32, "decoder_depth": 1}
"""Of the published network, to train it on a CPU; all else of its presets is as published."""
REDUCED_EPOCHS = 8
STABILITY_PROTEINS = ("globular", "ring", "barrel", "membrane")
"""Families of the suite that one network each is trained on; other molecules of the family than the suite's."""
STARTS: dict[str, tuple[str, dict[str, int]]] = {
    "shipped": ("adapt", {}),
    "random": ("small", {"warmup_steps": 40, "validate_every": 800, "checkpoint_every": 800}),
}
"""First weights: the preset that trains from them, and what is set besides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/cryoemmae-benchmark"))
    parser.add_argument("--weights", type=Path, help="checkpoint instead of the shipped one")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--level", default="easy", help="level of the simulated suite that is tested on")
    parser.add_argument(
        "--families", nargs="*", default=list(STABILITY_PROTEINS), help="training proteins of stability"
    )
    parser.add_argument("--starts", nargs="*", default=list(STARTS), choices=STARTS, help="first weights of self")
    parser.add_argument("--train-only", action="store_true", help="train what the parts need, measure later")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "cryoemmae.json"
    picker = CryoEmmaePicker(weights=args.weights)
    measures = {
        "real": lambda: real_sets(picker, args.real),
        "ablation": lambda: ablation(picker, args.real, args.level),
        "published": lambda: published(args.real, args.runs),
        "unit-costs": unit_costs,
        "self": lambda: trained_on_real(
            args.real, args.runs, args.starts, earlier(path).get("self"), is_measured=not args.train_only
        ),
        "stability": lambda: stability(
            args.runs, args.level, args.families, earlier(path).get("stability"), is_measured=not args.train_only
        ),
        "clusters": lambda: cluster_numbers(picker, args.real, args.level),
        "cut": lambda: cuts(picker),
        "curve": lambda: training_sizes(args.real, args.runs, args.level, is_measured=not args.train_only),
        "species": lambda: species_mixture(picker),
        "cost": lambda: cost(picker),
    }
    for name in args.parts:
        if args.real is None and name in ("real", "self", "published"):
            continue
        result = measures[name]()
        if not args.train_only:
            # after every part, so that an interrupted measurement keeps what it has; other parts may run beside it
            found = {**earlier(path), "machine": str(describe_machine()), name: result}
            path.write_text(json.dumps(found, indent=1) + "\n")
            (args.output / "cryoemmae.md").write_text(as_markdown(found))
            print(json.dumps(result, indent=1), flush=True)


def earlier(path: Path) -> dict[str, object]:
    """What was measured before."""
    return json.loads(path.read_text()) if path.exists() else {}


# ------------------------------------------------------------------------------------------------------- measuring


def run(picker: CryoEmmaePicker, micrographs: Sequence[Micrograph], diameter: Length) -> list[Picks]:
    """What `cryopick pick` does with these micrographs: prepare, pick, one threshold for all."""
    return pick_in_memory(replace(picker, diameter=diameter), micrographs).picks


def real_set(picker: CryoEmmaePicker, path: Path) -> dict[str, float]:
    dataset = open_dataset(path).labelled()
    micrographs = [item.read() for item in dataset]
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    diameter = listed_diameter(labels)
    return score_summary(run(picker, micrographs, diameter), labels, diameter=diameter)


def diameter_of(path: Path) -> Length:
    return listed_diameter({item.name: item.labels for item in open_dataset(path) if item.labels is not None})


def real_sets(picker: CryoEmmaePicker, folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        found[path.name] = real_set(picker, path)
        print(path.name, found[path.name], flush=True)
    return found


def ablation(picker: CryoEmmaePicker, real: Path | None, level: str) -> dict[str, dict[str, float]]:
    """Best F1 of the same candidates by three scores, on real sets and on one micrograph of each protein of the suite.

    The clusters alone are the article's idea; the rest is ours, and the probe knows labelled simulation.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in SCORES}

    def measure(name: str, micrographs: Sequence[Micrograph], labels: dict[str, Labels], diameter: Length) -> None:
        picks: dict[str, list[Picks]] = {score: [] for score in SCORES}
        for micrograph in micrographs:
            for score, one in candidates_by_score(picker, micrograph, diameter).items():
                picks[score].append(select(one, SelectionSettings(), threshold=-np.inf))
        for score in SCORES:
            found[score][name] = score_summary(picks[score], labels, diameter=diameter)["best_f1"]
        print(name, {score: round(found[score][name], 3) for score in SCORES}, flush=True)

    for path in sorted(child for child in real.iterdir() if child.is_dir()) if real is not None else []:
        dataset = open_dataset(path).labelled()
        labels = {item.name: item.labels for item in dataset if item.labels is not None}
        if any(len(one) for one in labels.values()):
            measure(path.name, [item.read() for item in dataset], labels, listed_diameter(labels))
    for one in suite_sets(levels=(level,)):
        simulated = next(iter(one.micrographs(workers=1)))
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        truth = {simulated.micrograph.name: simulated_labels(simulated)}
        measure(one.protein.family, [simulated.micrograph], truth, diameter)
    return found


def candidates_by_score(picker: CryoEmmaePicker, micrograph: Micrograph, diameter: Length) -> dict[str, Picks]:
    """The candidates of a micrograph, scored in the ways of `SCORES`."""
    model = load_model(picker.weights)
    diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
    prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=model.preprocessing)
    if prepared is None or model.probe is None or model.particle is None:
        raise SystemExit(f"{micrograph.name}: nothing to look at, or weights without a probe")
    analysed = analyse(model.encoder, Clusters(model.centres, model.particle), prepared, cluster_count=picker.clusters)
    features = analysed.features
    column, row = np.rint(analysed.xy).astype(int).T
    height, width = analysed.evidence.shape
    evidence = analysed.responses[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].max(axis=0)
    scores = (evidence, model.probe(features), model.probe.adapted(features))
    xy_px = analysed.stored_xy()
    return {
        name: Picks.of_candidates(micrograph, xy_px, score.astype(np.float32), diameter_px)
        for name, score in zip(SCORES, scores, strict=True)
    }


def published(real: Path, runs: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The published chains from end to end, with a network reduced in width and depth, trained on five unlabelled
    micrographs of a set and run on all of it; simulation tells the particle's cluster.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for rules in ("article", "program"):
        found[rules] = {}
        for name in ("apoferritin", "bgal10017"):
            folder, path = runs / f"published-{rules}-{name}", real / name
            if not (folder / "weights.safetensors").exists():
                plan = plan_training(
                    "cryoemmae",
                    data=str(path),
                    preset=rules,
                    data_settings={"diameter": diameter_of(path)},
                    task=REDUCED,
                    training={"epochs": REDUCED_EPOCHS, "learning_rate": 1e-3},
                )
                train_picker(plan, folder, micrographs=images_of(path)[:5], resume=True)
            dataset = open_dataset(path).labelled()
            labels = {item.name: item.labels for item in dataset if item.labels is not None}
            diameter = diameter_of(path)
            settings = make_settings("cryoemmae", as_=rules, weights=folder, diameter=diameter)
            micrographs = [item.read() for item in dataset]
            picks = pick_all(micrographs, settings, masks=[None] * len(micrographs)).picks
            box = evaluate(picks, labels, diameter=diameter).box_as_released
            model = load_model(folder)
            samples = [
                sample_latent_space(model, one, labels[one.name].xy_px, diameter_px=float(diameter.middle_px(None)))
                for one in micrographs
            ]
            found[rules][name] = {
                **score_summary(picks, labels, diameter=diameter),
                **{"box_iou": box.mean_iou, "box_recall": box.recall, "box_precision": box.precision},
                **{"box_f1": box.f1, "box_f3": box.f3},
                "separation": float(np.mean([one.separation for one in samples])),
            }
            print(rules, name, found[rules][name], flush=True)
    return found


def unit_costs(*, steps: int = 3) -> dict[str, float]:
    """What one unit of the published work costs: CPU seconds of all threads together, and memory.

    A training step of 128 crops of the published network; preparing a micrograph of 4096 x 4096; encoding it;
    clustering it three times.
    """
    import resource

    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(4096, 4096)).astype(np.float32)
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any], repeats: int = 1) -> Any:
        began = time.process_time()
        for _ in range(repeats):
            result = work()
        found[f"{name}_cpu_seconds"] = (time.process_time() - began) / repeats
        return result

    for rules in ("article", "program"):
        prepared = timed(f"prepare_{rules}", partial(prepare_image, pixels, diameter_px=180, preprocessing=rules))
    trainable = CryoEmmaeTrainable(PRESETS["program"].task)
    trainable.__dict__["images"] = [np.rint(255 * prepared.image).astype(np.uint8)]
    network = trainable.build_network()
    optimizer = torch.optim.AdamW(trainable.parameter_groups(network), lr=5e-4)

    def step() -> None:
        trainable.loss(network, trainable.make_batch(0, rng))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    timed("step", step, steps)
    found["training_peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    encoder = Encoder.loaded(network, mean=0.5, std=0.1, device="cpu", precision="float32")
    latent = timed("encode", partial(encoder.tokens, prepared.image))
    start = Clusters(np.asarray(latent.flat[[0, 9_000, 30_000, 60_000]]), 0)
    timed(
        "cluster",
        partial(refine_as_published, latent.vectors, start, counts=(3, 4, 5), rule=greatest_overlap),
    )
    found["steps_of_180_micrographs"] = 400 * 180 * 256 / 128
    found["days_on_8_cores"] = found["step_cpu_seconds"] * found["steps_of_180_micrographs"] / 8 / 86_400
    found["steps_of_model_45"] = 500 * 1950 * 256 / 128
    found["days_on_8_cores_model_45"] = found["step_cpu_seconds"] * found["steps_of_model_45"] / 8 / 86_400
    return found


def suite_scores(pickers: dict[str, CryoEmmaePicker], level: str) -> dict[str, dict[str, float]]:
    """F1 of each picker on each of the eight proteins; simulated once for all."""
    found: dict[str, dict[str, float]] = {name: {} for name in pickers}
    for one in suite_sets(levels=(level,)):
        simulated = list(one.micrographs(workers=2))
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        truth = {each.micrograph.name: simulated_labels(each) for each in simulated}
        for name, picker in pickers.items():
            picks = run(picker, [each.micrograph for each in simulated], diameter)
            found[name][one.protein.family] = score_summary(picks, truth, diameter=diameter)["f1"]
        print(one.name, {name: round(scores[one.protein.family], 3) for name, scores in found.items()}, flush=True)
    for scores in found.values():
        scores["mean"] = float(np.mean(list(scores.values())))
    return found


# -------------------------------------------------------------------------------------------------------- training


def trained(folder: Path, images: Sequence[Path], diameter: Length, *, start: str) -> CryoEmmaePicker:
    """A picker with a network trained on unlabelled images, or with the one that an earlier call left in `folder`.

    Parameters
    ----------
    start : first weights, of `STARTS`
    """
    if not (folder / "weights.safetensors").exists():
        began = time.perf_counter()
        preset, training = STARTS[start]
        plan = plan_training(
            "cryoemmae",
            data=str(images[0].parent),
            preset=preset,
            data_settings={"diameter": diameter},
            training=training,
        )
        train_picker(plan, folder, micrographs=images, resume=True)
        print(f"{folder.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return CryoEmmaePicker(weights=folder)


def images_of(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix in (".png", ".jpg", ".mrc"))


def trained_on_real(
    folder: Path, runs: Path, starts: Sequence[str], known: object, *, is_measured: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """Networks adapted to, or trained on nothing but, five unlabelled micrographs of a set, measured on all of it.

    Parameters
    ----------
    starts : first weights, of `STARTS`
    known : what was measured before; scores of other first weights stay
    """
    found: dict[str, dict[str, dict[str, float]]] = dict(known) if isinstance(known, dict) else {}
    for start in starts:
        found[start] = {}
        for name in ("apoferritin", "bgal10017"):
            images, diameter = images_of(folder / name)[:5], diameter_of(folder / name)
            picker = trained(runs / f"{name}-5-{start}", images, diameter, start=start)
            if is_measured:
                found[start][name] = real_set(picker, folder / name)
    return found


def simulated_images(runs: Path, family: str, count: int, *, level: str = "easy") -> tuple[list[Path], Length]:
    """Micrographs of a molecule of a suite's family that is not the suite's own, written once."""
    number = [protein.family for protein in SUITE_PROTEINS].index(family)
    protein = SUITE_PROTEINS[number]
    one = SuiteSet(protein, level, number)
    diameter = Length(protein.diameter_angstrom, protein.diameter_angstrom, "A")
    folder = runs / "images" / family
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{family}-{index}.mrc" for index in range(count)]
    if not all(path.exists() for path in paths):
        imager = molecule(family, protein.diameter_angstrom, protein.pixel_size_angstrom, seed=number)
        for index, path in enumerate(paths):
            if not path.exists():
                simulated = simulate_micrograph(
                    one.recipe, 900 + number, imagers=[imager], index=index, name=path.stem, target_snr=16.0
                )
                write_micrograph(path, simulated.micrograph)
    return paths, diameter


def molecule(family: str, diameter_angstrom: float, pixel_size_angstrom: float, *, seed: int) -> SpecimenImager:
    rng = np.random.default_rng([77, seed])
    volume = random_protein(
        rng, diameter_angstrom=diameter_angstrom, family=family, voxel_size_angstrom=pixel_size_angstrom
    )
    return SpecimenImager(Specimen(volume, diameter_angstrom), pixel_size_angstrom)


def stability(
    runs: Path, level: str, families: Sequence[str], known: object, *, is_measured: bool
) -> dict[str, object]:
    """Networks, each trained on five micrographs of another protein, on all eight proteins of the suite.

    Parameters
    ----------
    families : to train on now
    known : what was measured before; scores of other families stay
    """
    pickers = {}
    for family in families:
        paths, diameter = simulated_images(runs, family, 5)
        pickers[family] = trained(runs / f"stability-{family}", paths, diameter, start="random")
    if not is_measured:
        return {}
    scores: dict[str, dict[str, float]] = dict(known["f1"]) if isinstance(known, dict) else {}
    scores |= suite_scores(pickers, level)
    means = [one["mean"] for one in scores.values()]
    return {"level": level, "spread": max(means) - min(means), "f1": scores}


def training_sizes(real: Path | None, runs: Path, level: str, *, is_measured: bool) -> dict[str, object]:
    """Quality against the number of training micrographs, simulated and real."""
    found: dict[str, object] = {}
    pickers = {}
    for count in (1, 5, 10):
        paths, diameter = simulated_images(runs, "globular", count)
        name = "stability-globular" if count == 5 else f"curve-globular-{count}"
        pickers[str(count)] = trained(runs / name, paths, diameter, start="random")
    if is_measured:
        found["simulated"] = {count: one["mean"] for count, one in suite_scores(pickers, level).items()}
    if real is not None:
        path = real / "apoferritin"
        on_real = {}
        for count in (1, 5, 7):
            images, diameter = images_of(path)[:count], diameter_of(path)
            picker = trained(runs / f"apoferritin-{count}-random", images, diameter, start="random")
            if is_measured:
                on_real[str(count)] = real_set(picker, path)["f1"]
        found["apoferritin"] = on_real
    return found


def cluster_numbers(picker: CryoEmmaePicker, real: Path | None, level: str) -> dict[str, object]:
    """F1, precision and recall against the number of clusters of the last refinement; 0: the training set's four."""
    numbers = (0, 3, 4, 5, 6, 8)
    pickers = {str(k): replace(picker, clusters=k) for k in numbers}
    found: dict[str, object] = {"suite": suite_scores(pickers, level)}
    if real is not None:
        found["apoferritin"] = {number: real_set(one, real / "apoferritin") for number, one in pickers.items()}
    return found


CUTS = ((1.0, 0.15), (0.8, 0.15), (0.6, 0.15), (0.5, 0.15), (0.4, 0.15), (0.5, 0.3), (0.5, 0.2), (0.5, 0.1))


def cuts(picker: CryoEmmaePicker) -> dict[str, dict[str, float]]:
    """Mean F1 on two levels of the suite by the two constants of the threshold; one micrograph of each protein."""
    found: dict[str, dict[str, float]] = {f"{factor}, {smallest}": {} for factor, smallest in CUTS}
    for level in ("easy", "medium"):
        scores: dict[str, list[float]] = {name: [] for name in found}
        for one in suite_sets(levels=(level,)):
            simulated = next(iter(one.micrographs(workers=2)))
            diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
            candidates = replace(picker, diameter=diameter).pick(simulated.micrograph)
            unlimited = select(candidates, SelectionSettings(), threshold=-np.inf).kept().score
            truth = {simulated.micrograph.name: simulated_labels(simulated)}
            for name, (factor, smallest) in zip(found, CUTS, strict=True):
                cut = picker.cut_at(unlimited, NOTHING_SEEN, factor=factor, smallest=smallest)
                picks = [select(candidates, SelectionSettings(), threshold=cut)]
                scores[name].append(score_summary(picks, truth, diameter=diameter)["f1"])
        for name, values in scores.items():
            found[name][level] = float(np.mean(values))
    for values_of in found.values():
        values_of["mean"] = float(np.mean(list(values_of.values())))
    return found


# ------------------------------------------------------------------------------------------------- species and cost


MIXTURE = (("globular", 110.0), ("barrel", 190.0), ("assembly", 320.0))
MIXTURE_PIXEL = 3.2


def species_mixture(picker: CryoEmmaePicker, *, count: int = 2) -> dict[str, object]:
    """Three proteins in each micrograph: how many are found, and how many of those carry the right class."""
    imagers = [molecule(family, size, MIXTURE_PIXEL, seed=40 + i) for i, (family, size) in enumerate(MIXTURE)]
    base = SuiteSet(SUITE_PROTEINS[0], "easy", 0).recipe
    layout = replace(base.layout, species=(3, 3))
    recipe = replace(base, pixel_size_angstrom=MIXTURE_PIXEL, layout=layout)
    sizes = tuple(Length(size, size, "A") for _, size in MIXTURE)
    confusion = np.zeros((3, 3), int)
    missed, extra = np.zeros(3, int), 0
    simulated = [
        simulate_micrograph(recipe, 4242, imagers=imagers, index=i, name=f"mixture-{i}", target_snr=18.0)
        for i in range(count)
    ]
    mixed = replace(picker, species=sizes)
    candidates = [mixed.pick(one.micrograph) for one in simulated]
    scores = np.concatenate([picks.score for picks in candidates])
    threshold = mixed.choose_threshold(scores, NOTHING_SEEN)
    for one, picks in zip(simulated, candidates, strict=True):
        kept = select(picks, SelectionSettings(), threshold=threshold).kept()
        size_px = np.array([size for _, size in MIXTURE]) / MIXTURE_PIXEL
        kind = np.argmin(np.abs(np.log(one.diameter_px[:, None] / size_px)), axis=1)
        gaps = np.hypot(*(kept.xy_px[None] - one.xy_px[:, None]).transpose(2, 0, 1))
        is_used = np.zeros(len(kept), bool)
        for i in np.flatnonzero(one.is_pickable):
            near = np.where(is_used, np.inf, gaps[i]) if len(kept) else np.array([np.inf])
            j = int(np.argmin(near))
            if near[j] <= 0.25 * one.diameter_px[i]:
                is_used[j] = True
                confusion[kind[i], kept.class_id[j] - 1] += 1
            else:
                missed[kind[i]] += 1
        extra += int((~is_used).sum())
    total = max(1, int(confusion.sum()))
    return {
        "diameters_angstrom": [size for _, size in MIXTURE],
        "confusion": confusion.tolist(),
        "missed": missed.tolist(),
        "extra": extra,
        "right_class": float(np.trace(confusion)) / total,
        "found": total / max(1, total + int(missed.sum())),
    }


def cost(picker: CryoEmmaePicker, *, repeats: int = 3) -> dict[str, float]:
    """Of one 4096 x 4096 micrograph full of particles of 108 px, after a first one that loads everything.

    Seconds on the clock, and seconds of all cores together.
    """
    rng = np.random.default_rng(0)
    picker = replace(picker, diameter=Length(108, 108, "px"))
    pixels = rng.normal(size=(4096, 4096)).astype(np.float32)
    y, x = np.mgrid[-54:55, -54:55]
    disc = 0.5 * (np.hypot(x, y) <= 54)
    for top in range(20, 3900, 160):
        for left in range(20, 3900, 160):
            pixels[top : top + 109, left : left + 109] -= disc
    micrograph = Micrograph(pixels)
    count = len(picker.pick(micrograph))
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        picker.pick(micrograph)
    return {
        "candidates": count,
        "seconds_per_4096": (time.perf_counter() - clock) / repeats,
        "cpu_seconds_per_4096": (time.process_time() - cpu) / repeats,
    }


# --------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: dict[str, object]) -> str:
    lines = ["# Cryo-EMMAE", "", "Made by `python benchmarks/cryoemmae.py`; tolerance 0.25 diameters.", ""]
    part = found.get("real")
    if isinstance(part, dict):
        lines += _real_table("shipped weights", part)
    part = found.get("self")
    if isinstance(part, dict):
        titles = {
            "shipped": "shipped weights adapted to five unlabelled micrographs of the set",
            "random": "trained on five unlabelled micrographs of the set alone",
        }
        for start, rows in part.items():
            lines += _real_table(titles[start], rows)
    lines += _ablation_and_published(found)
    part = found.get("stability")
    if isinstance(part, dict):
        lines += [f"Suite, level {part['level']}; F1 by protein of the five training micrographs:", ""]
        lines += _table("trained on", part["f1"])
        lines += ["", f"Spread of the means of {len(part['f1'])} networks: {part['spread']:.3f}", ""]
    part = found.get("clusters")
    if isinstance(part, dict):
        lines += ["Number of clusters of the last refinement, suite; 0: the training set's four alone:", ""]
        lines += [*_table("clusters", part["suite"]), ""]
        if "apoferritin" in part:
            lines += ["Number of clusters, apoferritin:", "", *_table("clusters", part["apoferritin"]), ""]
    part = found.get("cut")
    if isinstance(part, dict):
        lines += ["Mean F1 on the suite by factor of the cut with the highest expected F1, and smallest cut:", ""]
        lines += [*_table("factor, smallest cut", part), ""]
    part = found.get("curve")
    if isinstance(part, dict):
        for name, curve in part.items():
            points = ", ".join(f"{count}: {f1:.3f}" for count, f1 in curve.items())
            lines += [f"F1 by number of training micrographs, {name}: {points}", ""]
    for key in ("species", "cost", "unit-costs"):
        part = found.get(key)
        if isinstance(part, dict):
            lines += [f"{key}: " + ", ".join(f"{name} {_plain(value)}" for name, value in part.items()), ""]
    return "\n".join(lines) + "\n"


def _ablation_and_published(found: dict[str, object]) -> list[str]:
    lines: list[str] = []
    part = found.get("ablation")
    if isinstance(part, dict):
        lines += [
            "Best F1 of the same candidates by what ranks them; real sets, then one micrograph of each protein of"
        ]
        lines += ["the suite, level easy:", "", *_table("score", part), ""]
    part = found.get("published")
    if isinstance(part, dict):
        reduced = ", ".join(f"{name} {value}" for name, value in REDUCED.items())
        lines += [
            f"The published chains with a network reduced to {reduced}, {REDUCED_EPOCHS} epochs on five unlabelled",
            "micrographs of the set; box measures as the program counts; separation of latent vectors, 0.5 is chance:",
            "",
        ]
        rows = {f"{rules}, {name}": one for rules, sets in part.items() for name, one in sets.items()}
        lines += [*_table("rules, set", rows), ""]
    return lines


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _real_table(title: str, rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"| real set, {title} | F1 | precision | recall | best F1 | picks per micrograph |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {s['f1']:.3f} | {s['precision']:.3f} | {s['recall']:.3f} | {s['best_f1']:.3f} | "
        f"{s['picks_per_micrograph']:.1f} |"
        for name, s in rows.items()
    ]
    return [*lines, ""]


def _table(first: str, rows: dict[str, dict[str, float]]) -> list[str]:
    columns = list(next(iter(rows.values())))
    lines = [f"| {first} | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")
    return lines


if __name__ == "__main__":
    main()
