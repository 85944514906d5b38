"""What `cryotransformer` reaches: real sets, crowded micrographs, duplicates, cost, ablations, and where it looks.

    python benchmarks/cryotransformer.py --real path/to/sets --output benchmarks/results
    python benchmarks/cryotransformer.py --parts ingredients backbones denoising --steps 100

`--real` names a folder of labelled sets (images, one CSV each, set.json). Parts that are not asked for keep what was
measured before. Writes cryotransformer.json and cryotransformer.md; the part `attention` also draws
docs/images/cryotransformer_attention.png. The ablations train, at reduced size and for few steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.labels import Labels
from cryopick.metrics.detection import match_picks
from cryopick.pickers.cryotransformer import CryoTransformerPicker, load_set_model
from cryopick.pickers.cryotransformer_local import NOMINAL_PARTICLE_PX, LocalSetModel
from cryopick.processing.scale import network_planes, resample
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import DirtRanges, named_recipe
from cryopick.simulation.suite import SUITE_SEED, SuiteProtein, SuiteSet, suite_sets
from cryopick.training.cryotransformer_local import DUPLICATE, LocalTask, LocalTrainable, count_duplicates
from cryopick.training.datasets import open_dataset
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.machine import describe_machine
from cryopick.workflows.pick_one import junk_mask

NAME = "cryotransformer"
NO_SPACING = SelectionSettings(min_distance=Length(1e-3, 1e-3, "px"))
"""Nothing is rejected for being near a better pick: what the network itself leaves of duplicates shows."""
PARTS = ("real", "crowding", "suite", "cost", "attention", "ingredients", "backbones", "denoising")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--weights", type=Path, help="checkpoint instead of the shipped one")
    parser.add_argument("--parts", nargs="*", default=PARTS[:5], choices=PARTS)
    parser.add_argument("--steps", type=int, default=100, help="of each training of the ablations")
    parser.add_argument(
        "--backbones", nargs="*", default=["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    )
    args = parser.parse_args()
    picker = CryoTransformerPicker(weights=args.weights)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{NAME}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = str(describe_machine())
    measures = {
        "real": lambda: real_sets(picker, args.real),
        "crowding": lambda: crowding(picker),
        "suite": lambda: suite(picker),
        "cost": lambda: cost(picker),
        "attention": lambda: attention(picker, Path("docs/images/cryotransformer_attention.png")),
        "ingredients": lambda: ingredients(args.steps),
        "backbones": lambda: backbones(args.steps, args.backbones),
        "denoising": lambda: denoising(args.steps),
    }
    for part in args.parts:
        if part == "real" and args.real is None:
            continue
        result = measures[part]()
        # after every part, of an ablation after every training, so that an interrupted measurement keeps what it has
        for so_far in [result] if isinstance(result, dict) else result:
            found[part] = so_far
            path.write_text(json.dumps(found, indent=1) + "\n")
            (args.output / f"{NAME}.md").write_text(as_markdown(found))
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------- picking


def run(
    picker: CryoTransformerPicker, micrographs: list[Micrograph], diameter: Length | None
) -> tuple[list[Picks], list[Picks], float]:
    """What `cryopick pick` keeps of these micrographs, what the network alone would keep, and the threshold."""
    picker = replace(picker, diameter=diameter).prepare(micrographs)
    candidates = [picker.pick(micrograph) for micrograph in micrographs]
    masks = [junk_mask(picks) for picks in candidates]

    def chosen(settings: SelectionSettings, threshold: float) -> list[Picks]:
        return [
            select(picks, settings, threshold=threshold, junk_mask=mask)
            for picks, mask in zip(candidates, masks, strict=True)
        ]

    scores = np.concatenate([picks.kept().score for picks in chosen(SelectionSettings(), -np.inf)])
    threshold = picker.choose_threshold(scores)
    return chosen(SelectionSettings(), threshold), chosen(NO_SPACING, threshold), threshold


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
            picks, plain, threshold = run(picker, micrographs, diameter)
            scores, without = evaluate(picks, labels, diameter=given).main, evaluate(plain, labels, diameter=given).main
            found[f"{path.name}, diameter {name}"] = {
                "f1": scores.counts.f1,
                "precision": scores.counts.precision,
                "recall": scores.counts.recall,
                "average_precision": scores.average_precision,
                "f1_without_spacing": without.counts.f1,
                "duplicates_without_spacing": duplicates(plain, listed_px),
                "threshold": threshold,
                "picks_per_micrograph": float(np.mean([one.is_kept.sum() for one in picks])),
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


def crowding(picker: CryoTransformerPicker) -> dict[str, dict[str, float]]:
    found = {}
    for snr in (9.0, 16.0):
        for count, how_many in ((150, 3), (1500, 1)):
            simulated = [crowded(count, snr=snr, index=index) for index in range(how_many)]
            diameter = Length(120.0, 120.0, "A")
            picks, plain, threshold = run(picker, [one.micrograph for one in simulated], diameter)
            matches = [
                match_picks(
                    kept.kept().xy_px, one.xy_px[one.is_pickable], one.xy_px[~one.is_pickable], max_distance_px=7.5
                ).counts
                for kept, one in zip(picks, simulated, strict=True)
            ]
            right, wrong, missed = (
                sum(getattr(match, name) for match in matches)
                for name in ("true_positive", "false_positive", "false_negative")
            )
            found[f"{count} particles, SNR {snr:g}"] = {
                "particles": float(np.mean([one.is_pickable.sum() for one in simulated])),
                "recall": right / (right + missed),
                "precision": right / max(right + wrong, 1),
                "duplicates_without_spacing": duplicates(plain, 30.0),
                "threshold": threshold,
            }
    return found


def suite(picker: CryoTransformerPicker) -> dict[str, dict[str, float]]:
    found = {}
    for one in suite_sets():
        simulated = list(one.micrographs())
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        picks, plain, _ = run(picker, [each.micrograph for each in simulated], diameter)
        labels = {each.micrograph.name: labels_of(each) for each in simulated}
        counts = evaluate(picks, labels, diameter=diameter).main.counts
        diameter_px = one.protein.diameter_angstrom / one.protein.pixel_size_angstrom
        found[one.name] = {
            "f1": 0.0 if np.isnan(counts.f1) else counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "duplicates_without_spacing": duplicates(plain, diameter_px),
        }
    return found


def labels_of(simulated: SimulatedMicrograph) -> Labels:
    return Labels(
        xy_px=simulated.xy_px,
        is_uncertain=~simulated.is_pickable,
        diameter_px=float(np.median(simulated.diameter_px)) if len(simulated.diameter_px) else None,
        micrograph_name=simulated.micrograph.name,
    )


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
    planes = network_planes(working, particle_px=NOMINAL_PARTICLE_PX)
    seen: list[Any] = []
    found, query = model.with_attention(planes, seen=seen)
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


def ingredients(steps: int) -> Iterator[dict[str, dict[str, float]]]:
    """The small network without one ingredient at a time: scores on held-out simulated crops; more at every turn."""
    found: dict[str, dict[str, float]] = {}
    for name, changes in INGREDIENTS.items():
        trainable = LocalTrainable(LocalTask(batch_size=8, validation_crops=32, **changes))
        found[name] = trainable.validate(trained(trainable, steps, rate=1e-3)) | {"steps": steps}
        yield dict(found)


REDUCED = {
    "queries": 100,
    "width": 64,
    "heads": 4,
    "layers": 2,
    "feed_width": 256,
    "short_px": 224,
    "longest_px": 448,
    "batch_size": 4,
    "validation_images": 16,
    "augment": False,
}
"""The published network at a size that trains on a CPU; the backbone is the full one."""


def reduced(steps: int, **changes: Any) -> dict[str, float]:
    """Losses of the reduced network on held-out images after training, as the article compares them."""
    import torch

    from cryopick.training.cryotransformer_detr import DetrTask, DetrTrainable, padded

    trainable = DetrTrainable(DetrTask(**{**REDUCED, **changes}))
    network = trained(trainable, steps, rate=2e-4)
    losses: list[dict[str, float]] = []
    for start in range(0, len(trainable.held_out), 4):
        views = trainable.held_out[start : start + 4]
        grey, mask = padded([view.grey for view in views])
        rows = [np.column_stack([np.full(len(view.boxes), i), view.boxes]) for i, view in enumerate(views)]
        boxes = torch.from_numpy(np.concatenate(rows).astype(np.float32))
        batch = {"grey": torch.from_numpy(grey), "mask": torch.from_numpy(mask), "boxes": boxes}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            losses.append({name: float(value) for name, value in trainable.loss(network, batch).items()})
    mean = {name: float(np.mean([one[name] for one in losses])) for name in losses[0]}
    return {**mean, "average_precision": trainable.validate(network)["score"], "steps": steps}


def backbones(steps: int, names: list[str]) -> Iterator[dict[str, dict[str, float]]]:
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = reduced(steps, backbone=name)
        yield dict(found)


def denoising(steps: int) -> dict[str, dict[str, float]]:
    return {
        title: reduced(steps, backbone="resnet18", denoising=kind)
        for title, kind in (("denoised", "corrected"), ("raw", "none"))
    }


# ---------------------------------------------------------------------------------------------------------- report


TITLES = {
    "real": "Real sets, default settings, tolerance 0.25 diameters",
    "crowding": "Simulated micrographs of 2048 x 2048 px with few and many particles of 30 px",
    "suite": "Simulated suite",
    "ingredients": "The small network without one ingredient at a time, after short trainings; held-out crops",
    "backbones": "The published network reduced: backbones, losses on held-out simulated images",
    "denoising": "The published network reduced: denoised against raw images",
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
