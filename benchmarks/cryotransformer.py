"""What `cryotransformer` reaches: real sets, crowded micrographs, duplicates, cost, ablations, and where it looks.

    python benchmarks/cryotransformer.py --real path/to/sets --output benchmarks/results
    python benchmarks/cryotransformer.py --parts overfit
    python benchmarks/cryotransformer.py --parts ingredients --ingredients "all" "no competition" --steps 100
    python benchmarks/cryotransformer.py --parts article
    python benchmarks/cryotransformer.py --parts backbones denoising --steps 400
    python benchmarks/cryotransformer.py --parts published_costs

`--real` names a folder of labelled sets (images, one CSV each, set.json). Parts that are not asked for keep what was
measured before, and so do rows of ablations. Writes cryotransformer.json and cryotransformer.md; the part `attention`
also draws docs/images/cryotransformer_attention.png. `overfit` and the ablations train, at reduced size and for few
steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopick.data.datasets import open_dataset
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.metrics.detection import match_picks, precision_recall_curve, rank_outcomes
from cryopick.pickers.cryotransformer.model import LocalSetModel
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker, load_set_model
from cryopick.pickers.cryotransformer.trainable import DUPLICATE, LocalTask, LocalTrainable, count_duplicates
from cryopick.pickers.families import find_preset, make_trainable
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, resample
from cryopick.runs.one import junk_mask
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import DirtRanges, named_recipe
from cryopick.simulation.recipe_words import recipe_with
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.suite import SUITE_SEED, SuiteProtein, SuiteSet, suite_sets
from cryopick.training.logs import LOSS_TABLE, VALIDATION_TABLE, read_table
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.simulate import simulate
from score_summary import simulated_labels

NAME = "cryotransformer"
NO_SPACING = SelectionSettings(min_distance=Length(1e-3, 1e-3, "px"))
"""Nothing is rejected for being near a better pick: what the network itself leaves of duplicates shows."""
PARTS = (
    *("real", "crowding", "alone", "suite", "cost", "attention"),
    *("overfit", "ingredients", "article", "backbones", "denoising", "published_costs"),
)
ADDED_TO = ("ingredients", "backbones", "denoising")
"""Parts whose rows are trainings; those measured before are kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--weights", type=Path, help="checkpoint instead of the shipped one")
    parser.add_argument("--parts", nargs="*", default=PARTS[:6], choices=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("runs/cryotransformer-overfit"), help="of the part overfit")
    parser.add_argument("--article-folder", type=Path, default=Path("runs/cryotransformer-article"))
    parser.add_argument("--minutes", type=float, help="of the part article; the same command goes on")
    parser.add_argument("--steps", type=int, default=100, help="of each training of the ablations")
    parser.add_argument("--ingredients", nargs="*", default=list(INGREDIENTS), choices=INGREDIENTS)
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES), choices=BACKBONES)
    args = parser.parse_args()
    picker = CryoTransformerPicker(weights=args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{NAME}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = str(describe_machine())
    measures = {
        "real": lambda: real_sets(picker, args.real),
        "crowding": lambda: crowding(picker),
        "alone": lambda: alone(picker),
        "suite": lambda: suite(picker),
        "cost": lambda: cost(picker),
        "attention": lambda: attention(picker, Path("docs/images/cryotransformer_attention.png")),
        "overfit": lambda: overfit(args.folder),
        "ingredients": lambda: ingredients(args.steps, args.ingredients),
        "article": lambda: article(args.article_folder, minutes=args.minutes),
        "backbones": lambda: backbones(args.article_folder, args.steps, args.backbones),
        "denoising": lambda: denoising(args.article_folder, args.steps),
        "published_costs": published_costs,
    }
    for part in args.parts:
        if part == "real" and args.real is None:
            continue
        result = measures[part]()
        # after every part, of an ablation after every training, so that an interrupted measurement keeps what it has
        for so_far in [result] if isinstance(result, dict) else result:
            found[part] = {**found.get(part, {}), **so_far} if part in ADDED_TO else so_far
            path.write_text(json.dumps(found, indent=1) + "\n")
            (args.output / f"{NAME}.md").write_text(as_markdown(found))
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------- picking


@dataclass(frozen=True)
class Run:
    """What `cryopick pick` makes of some micrographs.

    Parameters
    ----------
    picks : at the threshold that the picker chose
    unspaced : the same without the rule that no pick lies within 0.6 diameters of a better one
    candidates : what some threshold would keep
    """

    picks: list[Picks]
    unspaced: list[Picks]
    candidates: list[Picks]
    threshold: float


def run(picker: CryoTransformerPicker, micrographs: list[Micrograph], diameter: Length | None) -> Run:
    picker = replace(picker, diameter=diameter)
    survey = picker.survey(micrographs)
    found = [picker.pick(micrograph, survey) for micrograph in micrographs]
    masks = [junk_mask(picks) for picks in found]

    def chosen(settings: SelectionSettings, threshold: float) -> list[Picks]:
        return [
            select(picks, settings, threshold=threshold, junk_mask=mask)
            for picks, mask in zip(found, masks, strict=True)
        ]

    candidates = [picks.kept() for picks in chosen(SelectionSettings(), -np.inf)]
    threshold = picker.choose_threshold(np.concatenate([picks.score for picks in candidates]), survey)
    picks, unspaced = chosen(SelectionSettings(), threshold), chosen(NO_SPACING, threshold)
    return Run(picks, unspaced, candidates, threshold)


def duplicates(picks: list[Picks], diameter_px: float) -> int:
    """Pairs of kept picks no further apart than 0.3 diameters."""
    return sum(count_duplicates(one.kept().xy_px, DUPLICATE * diameter_px) for one in picks)


def real_sets(picker: CryoTransformerPicker, folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        dataset = open_dataset(path).labelled()
        micrographs = [item.read() for item in dataset]
        labels = {item.name: item.labels for item in dataset if item.labels is not None}
        listed_px = float(np.median([one.diameter_px for one in labels.values() if one.diameter_px]))
        given = Length(listed_px, listed_px, "px")
        for name, diameter in (("given", given), ("measured", None)):
            done = run(picker, micrographs, diameter)
            scores = evaluate(done.picks, labels, diameter=given).main
            without = evaluate(done.unspaced, labels, diameter=given).main
            found[f"{path.name}, diameter {name}"] = {
                "f1": scores.counts.f1,
                "precision": scores.counts.precision,
                "recall": scores.counts.recall,
                "average_precision": scores.average_precision,
                "f1_without_spacing": without.counts.f1,
                "duplicates_without_spacing": duplicates(done.unspaced, listed_px),
                "threshold": done.threshold,
                "picks_per_micrograph": float(np.mean([one.is_kept.sum() for one in done.picks])),
            }
    return found


def crowded(count: int, *, snr: float, index: int) -> SimulatedMicrograph:
    """A 2048 x 2048 micrograph that holds about `count` ring-shaped particles of 30 px, without dirt."""
    one = SuiteSet(SuiteProtein("ring", 120.0, 4.0), "medium", 2)
    coverage = count * np.pi / 4 * 30.0**2 / 2048**2
    clean = named_recipe("clean")
    recipe = replace(
        one.recipe,
        shape_yx=(2048, 2048),
        layout=replace(
            clean.layout,
            coverage=(coverage, coverage),
            spacing_diameters=(0.95, 1.1),
            empty_probability=0.0,
            clumped_probability=0.0,
            packed_probability=0.0,
        ),
        dirt=DirtRanges(**{name: 0.0 for name in vars(DirtRanges()) if name.endswith("_probability")}),
    )
    return simulate_micrograph(recipe, SUITE_SEED, imagers=[one.imager()], index=index, target_snr=snr)


FALSE_PER_MICROGRAPH = 20
FIXED_THRESHOLD = 0.5


def crowding(picker: CryoTransformerPicker) -> Iterator[dict[str, dict[str, float]]]:
    """Few and many particles on otherwise equal micrographs (optics, dose, noise), each set a run of its own."""
    found: dict[str, dict[str, float]] = {}
    diameter = Length(120.0, 120.0, "A")
    for snr in (9.0, 16.0):
        for count in (150, 1500):
            simulated = [crowded(count, snr=snr, index=index) for index in range(3)]
            done = run(picker, [one.micrograph for one in simulated], diameter)
            total = sum(int(one.is_pickable.sum()) for one in simulated)
            picks = [one.kept() for one in done.picks]
            right, wrong = _right_and_wrong(simulated, picks)
            fixed = [one.take(one.score >= FIXED_THRESHOLD) for one in done.candidates]
            fixed_right, fixed_wrong = _right_and_wrong(simulated, fixed)
            outcomes = [
                rank_outcomes(
                    one.xy_px,
                    one.score,
                    truth.xy_px[truth.is_pickable],
                    truth.xy_px[~truth.is_pickable],
                    max_distance_px=7.5,
                )
                for one, truth in zip(done.candidates, simulated, strict=True)
            ]
            curve = precision_recall_curve(outcomes)
            is_few = curve.false_positive <= FALSE_PER_MICROGRAPH * len(simulated)
            found[f"{count} particles, SNR {snr:g}"] = {
                "particles": total / len(simulated),
                "recall": right / total,
                "precision": right / max(right + wrong, 1),
                "threshold": done.threshold,
                "duplicates_without_spacing": duplicates(done.unspaced, 30.0),
                f"recall_at_{FIXED_THRESHOLD}": fixed_right / total,
                f"precision_at_{FIXED_THRESHOLD}": fixed_right / max(fixed_right + fixed_wrong, 1),
                f"recall_with_{FALSE_PER_MICROGRAPH}_false_picks_each": float(curve.recall[is_few].max(initial=0.0)),
                "best_f1": float(np.nanmax(curve.f1)),
                "recall_at_best_f1": float(curve.recall[np.nanargmax(curve.f1)]),
            }
            yield dict(found)


LONE_DIAMETERS = 3.5
SURE = 0.7


def alone(picker: CryoTransformerPicker) -> dict[str, dict[str, float]]:
    """Why lone particles score lower: those of a crowd, discs of 0.7 to 0.8 diameters radius around them pasted where
    a sparse micrograph of the same optics, dose and noise is empty for 3.5 diameters."""
    diameter = Length(120.0, 120.0, "A")
    sized = replace(picker, diameter=diameter, working_diameter=diameter)
    found: dict[str, list[NDArray[np.bool_]]] = {
        "in the crowd": [],
        "cut out and alone": [],
        "alone from the start": [],
    }
    for index in range(3):
        crowd, sparse = crowded(1500, snr=9.0, index=index), crowded(150, snr=9.0, index=index)
        native = sparse.xy_px[sparse.is_pickable & _is_lone(sparse.xy_px, sparse.xy_px) & _is_inside(sparse.xy_px)]
        grid = np.stack(np.meshgrid(*[np.arange(105, 1943, 105)] * 2), axis=2).reshape(-1, 2)
        empty = grid[_is_lone(grid, sparse.xy_px)]
        cut = crowd.xy_px[crowd.is_pickable & _is_inside(crowd.xy_px)][: len(empty)]
        pixels = sparse.micrograph.pixels.copy()
        pasted = [_paste(pixels, crowd.micrograph.pixels, xy, place) for xy, place in zip(cut, empty, strict=True)]
        mixed = replace(sparse.micrograph, pixels=pixels)
        for name, micrograph, xy_px in (
            ("in the crowd", crowd.micrograph, cut),
            ("cut out and alone", mixed, np.array(pasted)),
            ("alone from the start", sparse.micrograph, native),
        ):
            picks = sized.pick(micrograph)
            distance = cKDTree(picks.xy_px[picks.score >= SURE]).query(xy_px)[0]
            found[name].append(distance <= 7.5)
    return {
        name: {"particles": sum(len(one) for one in parts), "recall": float(np.concatenate(parts).mean())}
        for name, parts in found.items()
    }


def _is_lone(xy_px: NDArray[Any], others_px: NDArray[Any]) -> NDArray[np.bool_]:
    """Which places have no other particle within 3.5 diameters of 30 px."""
    distance = cKDTree(others_px).query(xy_px, k=2)[0]
    nearest = np.where(distance[:, 0] < 1e-6, distance[:, 1], distance[:, 0])
    return np.asarray(nearest > LONE_DIAMETERS * 30)


def _is_inside(xy_px: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(((xy_px > 40) & (xy_px < 2048 - 41)).all(axis=1))


def _paste(
    target: NDArray[np.float32], source: NDArray[np.float32], xy_px: NDArray[Any], place: NDArray[Any]
) -> NDArray[Any]:
    """Paste the disc around a particle, its surroundings' median made that of the target's; gives the new centre."""

    def around(image: NDArray[np.float32], x: int, y: int, reach: int) -> NDArray[np.float32]:
        return image[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]

    x, y = (int(one) for one in np.rint(xy_px))
    to_x, to_y = (int(one) for one in place)
    radius = np.hypot(*np.mgrid[-25:26, -25:26])
    share = np.clip((24 - radius) / 3, 0, 1).astype(np.float32)
    level = np.median(around(target, to_x, to_y, 90)) - np.median(around(source, x, y, 90))
    disc = around(source, x, y, 25) + level
    here = around(target, to_x, to_y, 25)
    here += share * (disc - here)
    return np.asarray(place + xy_px - [x, y])


def _right_and_wrong(simulated: list[SimulatedMicrograph], picks: list[Picks]) -> tuple[int, int]:
    counts = [
        match_picks(
            one.xy_px, truth.xy_px[truth.is_pickable], truth.xy_px[~truth.is_pickable], max_distance_px=7.5
        ).counts
        for one, truth in zip(picks, simulated, strict=True)
    ]
    return sum(int(one.true_positive) for one in counts), sum(int(one.false_positive) for one in counts)


def suite(picker: CryoTransformerPicker) -> Iterator[dict[str, dict[str, float]]]:
    found: dict[str, dict[str, float]] = {}
    for one in suite_sets():
        simulated = list(one.micrographs())
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        done = run(picker, [each.micrograph for each in simulated], diameter)
        labels = {each.micrograph.name: simulated_labels(each) for each in simulated}
        counts = evaluate(done.picks, labels, diameter=diameter).main.counts
        diameter_px = one.protein.diameter_angstrom / one.protein.pixel_size_angstrom
        found[one.name] = {
            "f1": 0.0 if np.isnan(counts.f1) else counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "duplicates_without_spacing": duplicates(done.unspaced, diameter_px),
            "threshold": done.threshold,
        }
        yield dict(found)


def cost(picker: CryoTransformerPicker) -> dict[str, float]:
    """Seconds of `pick` for a 4096 x 4096 micrograph, network loaded: on the clock and of all cores together."""
    found = {}
    rng = np.random.default_rng(0)
    simulated = crowded(1500, snr=16.0, index=0).micrograph.pixels
    pixels = np.kron(simulated, np.ones((2, 2), np.float32)) + rng.normal(0, 0.1, (4096, 4096)).astype(np.float32)
    for diameter_px in (108.0, 60.0):
        sized = replace(picker, diameter=Length(diameter_px, diameter_px, "px"))
        sized.pick(Micrograph(pixels[:512, :512]))
        wall, cpu = time.perf_counter(), time.process_time()
        picks = sized.pick(Micrograph(pixels))
        found[f"seconds, particles of {diameter_px:g} px"] = time.perf_counter() - wall
        found[f"core seconds, particles of {diameter_px:g} px"] = time.process_time() - cpu
        found[f"candidates, particles of {diameter_px:g} px"] = len(picks)
    found["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


# ------------------------------------------------------------------------------------------------------ attention


def attention(picker: CryoTransformerPicker, path: Path) -> dict[str, float]:
    """Draw what a few queries look at; how much of their attention falls on their own particle."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    model = load_set_model(picker.weights, device=picker.device, precision=picker.precision)
    if not isinstance(model, LocalSetModel):
        raise SystemExit("attention is drawn for the small network only")
    one = next(each for each in suite_sets(levels=("easy",)) if each.protein.family == "ring")
    simulated = next(iter(one.micrographs()))
    diameter_px = one.protein.diameter_angstrom / one.protein.pixel_size_angstrom
    working, scale = resample(simulated.micrograph.pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
    truth = scale.to_working_xy(simulated.xy_px)
    corners = [(x, y) for y in range(0, working.shape[0] - 223, 32) for x in range(0, working.shape[1] - 223, 32)]
    corner = max(corners, key=lambda xy: int(((truth >= xy) & (truth < np.array(xy) + 224)).all(axis=1).sum()))
    working, truth = working[corner[1] : corner[1] + 224, corner[0] : corner[0] + 224], truth - corner
    working = np.ascontiguousarray(working)
    seen: list[Any] = []
    found, query = model.with_attention(working, seen=seen)
    columns = -(-working.shape[1] // 4)
    best = np.argsort(-found.score)
    best = best[((found.xy_px[best] > 24) & (found.xy_px[best] < 200)).all(axis=1) & (found.score[best] > 0.5)]
    chosen = best[np.linspace(0, len(best) - 1, 6).astype(int)]
    figure, axes = plt.subplots(3, 6, figsize=(12, 6.4), constrained_layout=True)
    for column, number in enumerate(chosen):
        x, y = found.xy_px[number]
        for row, layer in enumerate(seen):
            index = layer.index[query[number]].numpy()
            weight = layer.weight[query[number]].numpy()
            token_xy = np.stack([index % columns, index // columns], axis=1) * 4 + 1.5
            axis = axes[row, column]
            axis.imshow(working, cmap="gray", vmin=np.quantile(working, 0.01), vmax=np.quantile(working, 0.99))
            axis.scatter(*token_xy.T, s=700 * weight, c="orangered", alpha=0.55, linewidths=0)
            axis.scatter(*truth.T, s=14, c="deepskyblue", marker="+")
            axis.add_patch(plt.Circle((x, y), 10 * found.diameter_ratio[number], fill=False, color="lime"))
            axis.set(xlim=(x - 22, x + 22), ylim=(y + 22, y - 22), xticks=[], yticks=[])
            if row == 0:
                axis.set_title(f"probability {found.score[number]:.2f}", fontsize=9)
            if column == 0:
                axis.set_ylabel(f"layer {row + 1}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    shares = {}
    for row, layer in enumerate(seen):
        sure = np.flatnonzero(found.score > 0.5)
        index, weight = layer.index[query[sure]].numpy(), layer.weight[query[sure]].numpy()
        token_xy = np.stack([index % columns, index // columns], axis=2) * 4 + 1.5
        inside = np.hypot(*(token_xy - found.xy_px[sure][:, None]).transpose(2, 0, 1)) <= 0.5 * NOMINAL_PARTICLE_PX
        shares[f"on the particle, layer {row + 1}"] = float((weight * inside).sum(axis=1).mean())
        shares["on the particle, if spread evenly"] = float(inside.mean())
    return shares


# ------------------------------------------------------------------------------------------------------ ablations


INGREDIENTS: dict[str, dict[str, Any]] = {
    "all": {},
    "trunk from random weights": {"start": "random"},
    "trunk kept as it is": {"trunk_rate": 0.0},
    "no competition": {"competes": False},
    "no self-attention, no competition": {"neighbours": 1},
    "one decoder layer": {"layers": 1},
    "no decoder: proposals alone": {"layers": 0},
    "no many-to-one heat loss": {"heat_weight": 0.0},
}


def trained(trainable: Any, steps: int, *, rate: float) -> Any:
    """The network after so many steps of AdamW with a cosine, in bfloat16."""
    import torch

    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    network = trainable.build_network()
    groups = [{**one, "rate": rate * one.get("lr_factor", 1.0)} for one in trainable.parameter_groups(network)]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=1e-2)
    for step in range(steps):
        network.train()
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = group["rate"] * warm * 0.5 * (1 + np.cos(np.pi * step / steps))
        batch = trainable.make_batch(step, np.random.default_rng([0, step]))
        with torch.autocast("cpu", torch.bfloat16):
            loss = trainable.loss(network, batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.set_flush_denormal(False)
    return network.eval()


def ingredients(steps: int, names: list[str]) -> Iterator[dict[str, dict[str, float]]]:
    """The small network without one ingredient at a time: scores on held-out simulated crops; more at every turn."""
    found: dict[str, dict[str, float]] = {}
    for name in names:
        trainable = LocalTrainable(LocalTask(batch_size=8, validation_crops=32, **INGREDIENTS[name]))
        found[name] = trainable.validate(trained(trainable, steps, rate=1e-3)) | {"steps": steps}
        yield dict(found)


BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
CONFIG = Path(__file__).with_name("cryotransformer_article.toml")
ARTICLE_SETS = {"train": (11, 1000), "held-out": (12, 60)}
"""Seed and micrographs."""
ARTICLE_DIAMETER = Length(220.0, 220.0, "A")


def article_sets(folder: Path) -> None:
    """Simulated micrographs of 170 x 170 px with about three particles of 55 px each, without dirt, in low noise."""
    recipe = recipe_with("clean", size="170x170", pixel_size_angstrom=4.0, dose="60")
    layout = replace(
        recipe.layout, coverage=(0.3, 0.3), empty_probability=0.0, clumped_probability=0.0, packed_probability=0.0
    )
    diameter = (ARTICLE_DIAMETER.low, ARTICLE_DIAMETER.high)
    for name, (seed, micrographs) in ARTICLE_SETS.items():
        settings = SimulationSettings(diameter_angstrom=diameter, seed=seed, recipe=replace(recipe, layout=layout))
        simulate(folder / name, settings, count=micrographs)


def article_training(folder: Path, name: str, *, task: dict[str, Any], training: dict[str, Any]) -> Path:
    """The configuration of `CONFIG` with some changes, trained into a folder of that name; goes on where it stopped."""
    from cryopick.workflows.train import plan_training, train_picker

    plan = plan_training(
        config=CONFIG,
        data=str(folder / "train"),
        data_settings={"cache_dir": folder / "prepared"},
        task=task,
        training=training,
    )
    train_picker(plan, folder / name, resume=True)
    return folder / name


def article(folder: Path, *, minutes: float | None) -> dict[str, dict[str, float]]:
    """The network of the article, reduced, from random weights: its curve, and what it picks on held-out micrographs.

    `folder` keeps micrographs, denoised pictures and training; a training that was interrupted, or whose `minutes` are
    over, goes on.
    """
    article_sets(folder)
    trained_to = article_training(folder, "trained", task={}, training={"max_minutes": minutes} if minutes else {})
    losses = read_table(trained_to / LOSS_TABLE)
    rows = read_table(trained_to / VALIDATION_TABLE)
    found = {
        f"step {row['step']:.0f}": {name: row[name] for name in ("train_loss", "validation_loss", "best_f1")}
        for row in rows[:: max(1, len(rows) // 12)]
    }
    found["whole training"] = {"steps": losses[-1]["step"], "minutes": losses[-1]["seconds"] / 60}
    return found | article_picks(folder, trained_to)


def article_picks(folder: Path, trained_to: Path) -> dict[str, dict[str, float]]:
    """Scores on the held-out micrographs, picked as the article says and by the calibrated threshold."""
    from cryopick.runs.in_memory import pick_all
    from cryopick.runs.settings import make_settings

    dataset = open_dataset(folder / "held-out").labelled()
    micrographs = [item.read() for item in dataset]
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    weights = {"weights": trained_to / "weights.safetensors", "precision": "float32"}
    ways = {
        "picked, calibrated threshold": make_settings(NAME, **weights),
        "picked as article (25th percentile)": make_settings(NAME, as_="article", **weights),
        "picked as article, 65th percentile": make_settings(NAME, as_="article", percentile=65, **weights),
    }
    found = {}
    for name, settings in ways.items():
        picks = pick_all(micrographs, settings, masks=[None] * len(micrographs)).picks
        scores = evaluate(picks, labels, diameter=ARTICLE_DIAMETER).main
        found[name] = {
            "f1": scores.counts.f1,
            "precision": scores.counts.precision,
            "recall": scores.counts.recall,
            "picks_per_micrograph": float(np.mean([one.is_kept.sum() for one in picks])),
            "particles_per_micrograph": float(np.mean([len(one.xy_px) for one in labels.values()])),
        }
    return found


def ablated(folder: Path, steps: int, *, backbone: str = "resnet18", denoising: str = "article") -> dict[str, float]:
    """Losses and best F1 on the micrographs that validate after so many steps of the reduced network."""
    article_sets(folder)
    training = {"steps": steps, "validate_every": steps, "warmup_steps": min(200, steps // 4)}
    name = f"{backbone}-{denoising}-{steps}"
    task = {"backbone": backbone, "denoising": denoising}
    trained_to = article_training(folder, name, task=task, training=training)
    row = read_table(trained_to / VALIDATION_TABLE)[-1]
    names = ("train_loss", "validation_loss", "validation_class", "validation_l1", "validation_giou", "best_f1")
    return {**{one: row[one] for one in names}, "steps": steps}


def backbones(folder: Path, steps: int, names: list[str]) -> Iterator[dict[str, dict[str, float]]]:
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = ablated(folder, steps, backbone=name)
        yield dict(found)


def denoising(folder: Path, steps: int) -> Iterator[dict[str, dict[str, float]]]:
    found: dict[str, dict[str, float]] = {}
    for title, kind in (("denoised", "article"), ("raw", "none")):
        found[title] = ablated(folder, steps, denoising=kind)
        yield dict(found)


def published_costs() -> dict[str, float]:
    """Core seconds of what training at full size consists of, one thread: a training step of one image, a forward
    pass, the denoising of a micrograph; and the memory that a step of one image takes at its peak."""
    import torch

    from cryopick.pickers.cryotransformer.detr_model import full_size_picture, resized
    from cryopick.pickers.cryotransformer.detr_network import DetectionTransformer, normalized
    from cryopick.pickers.cryotransformer.matching import detr_losses

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(4096, 4096)).astype(np.float32)
    start = time.process_time()
    picture = full_size_picture(pixels, "article")
    found = {"core seconds to denoise 4096 x 4096": time.process_time() - start}
    start = time.process_time()
    resized(picture, short_px=800, longest_px=1333)
    found["core seconds to resize it"] = time.process_time() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    network = DetectionTransformer()
    images = normalized(torch.rand(1, 800, 800))
    network.set_norms(images)
    found["trained parameters, millions"] = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
    for name in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16"):
            start = time.process_time()
            answers = network(images)
            forward = time.process_time()
        losses = detr_losses([(a.float(), b.float()) for a, b in answers], [torch.rand(300, 4) * 0.5 + 0.2])
        losses["loss"].backward()
        found[f"core seconds of a forward pass, {name}"] = forward - start
        found[f"core seconds of a step of one image, {name}"] = time.process_time() - start
        network.zero_grad()
    found["peak MiB of a step of one image"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return found


OVERFIT_TASK = {
    "backbone": "resnet18",
    "queries": 18,
    "width": 128,
    "heads": 4,
    "layers": 2,
    "feed_width": 256,
    "dropout": 0.0,
    "short_px": 96,
    "longest_px": 96,
    "batch_size": 2,
    "validation_images": 2,
    "augment": "none",
    "behaviour": "corrected",
    "denoising": "corrected",
}
OVERFIT_TRAINING = {"epochs": None, "steps": 200, "learning_rate": 3e-4, "validate_every": 50, "checkpoint_every": 100}
OVERFIT_TRAINING |= {"validate_every_epochs": None, "checkpoint_every_epochs": None}
"""Changes of the preset `article`; everything else, matching and losses among it, is as there."""


def overfit(folder: Path) -> dict[str, dict[str, float]]:
    """The preset `article` at reduced size, on tiles, learns two simulated micrographs by heart: its scores on them as
    it learns, and at last the picks of `cryotransformer` with the trained weights on the two.

    `folder` keeps micrographs and training; a training that was interrupted goes on.
    """
    from cryopick.training.loop import WEIGHTS_FILE, train

    recipe = recipe_with("clean", size="288x288", pixel_size_angstrom=2.5, dose="60")
    layout = replace(
        recipe.layout, coverage=(0.4, 0.4), empty_probability=0.0, clumped_probability=0.0, packed_probability=0.0
    )
    settings = SimulationSettings(diameter_angstrom=(240.0, 240.0), seed=3, recipe=replace(recipe, layout=layout))
    preset = find_preset(NAME, "article").changed(task=OVERFIT_TASK, training=OVERFIT_TRAINING)
    simulate(folder / "set", settings, count=2)
    dataset = open_dataset(folder / "set").labelled()
    trainable = make_trainable(NAME, preset.task, train=dataset, validation=dataset)
    trained_to = folder / "trained"
    train(trainable, preset.training, trained_to, resume=True)
    losses = {row["step"]: row for row in read_table(trained_to / LOSS_TABLE)}
    found = {
        f"step {row['step']:.0f}": {
            "loss": losses[row["step"]]["loss"],
            "average_precision": row["score"],
            "best_f1": row["best_f1"],
        }
        for row in read_table(trained_to / VALIDATION_TABLE)
    }
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    diameter = Length(240.0, 240.0, "A")
    # at the size it has learnt: what is learnt by heart is whole images, not particles
    trained_picker = CryoTransformerPicker(weights=trained_to / WEIGHTS_FILE, working_diameter=diameter)
    done = run(trained_picker, [item.read() for item in dataset], diameter)
    scores = evaluate(done.picks, labels, diameter=diameter).main
    found["picked with the trained weights"] = {
        "particles": sum(len(one.xy_px) for one in labels.values()),
        "f1": scores.counts.f1,
        "precision": scores.counts.precision,
        "recall": scores.counts.recall,
        "average_precision": scores.average_precision,
    }
    return found


# ---------------------------------------------------------------------------------------------------------- report


TITLES = {
    "real": "Real sets, default settings, tolerance 0.25 diameters",
    "crowding": "Simulated micrographs of 2048 x 2048 px with few and many particles of 30 px",
    "alone": "The same particles (signal-to-noise ratio 9) in their crowd and cut out of it; probability at least 0.7",
    "suite": "Simulated suite",
    "overfit": "The preset `article`, reduced, learns two simulated micrographs by heart",
    "ingredients": "The small network without one ingredient at a time, after short trainings; held-out crops",
    "article": "The network of the article, reduced, from random weights on simulated micrographs",
    "backbones": "The same after fewer steps: backbones, losses on the micrographs that validate",
    "denoising": "The same after fewer steps: denoised against raw micrographs",
    "published_costs": "What training at full size consists of, one thread",
    "cost": "Cost of a 4096 x 4096 micrograph",
    "attention": "Share of a query's attention",
}


def as_markdown(found: dict[str, Any]) -> str:
    lines = ["# CryoTransformer", "", f"Made by `python benchmarks/{NAME}.py` on: {found['machine']}", ""]
    for part, title in TITLES.items():
        rows = found.get(part)
        if not rows:
            continue
        lines += [f"## {title}", ""]
        if isinstance(next(iter(rows.values())), dict):
            columns = list(dict.fromkeys(name for row in rows.values() for name in row))
            lines += [f"| | {' | '.join(columns)} |".replace("_", " "), "| --- " * (len(columns) + 1) + "|"]
            lines += [
                f"| {name} | {' | '.join(_number(row.get(column)) for column in columns)} |"
                for name, row in rows.items()
            ]
        else:
            lines += [f"- {name}: {_number(value)}" for name, value in rows.items()]
        lines.append("")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
