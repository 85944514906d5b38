"""What `cryosegnet` reaches, step by step: U-Net alone, with Segment Anything, with post-processing; grid and peaks.

    python benchmarks/cryosegnet.py --real path/to/sets --output benchmarks/results

`--real` names a folder of labelled sets (images, one CSV each, set.json); without it only simulation is measured. One
setting serves all sets. Every part adds to cryosegnet.json and cryosegnet.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import Dataset, open_dataset
from cryopick.data.labels import Labels
from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.selection import SelectionSettings
from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.cryosegnet.ablations import MODULES, ablations
from cryopick.pickers.cryosegnet.mask_generation import point_grid
from cryopick.pickers.cryosegnet.model import PAPER_SIDE_PX
from cryopick.pickers.cryosegnet.picker import CryoSegNetPicker
from cryopick.runs.in_memory import pick_in_memory
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.suite import suite_sets
from cryopick.training.logs import LOSS_TABLE, VALIDATION_TABLE, read_table
from cryopick.types import Micrograph, Picks
from cryopick.workflows.evaluate import evaluate
from score_summary import listed_diameter, score_summary, simulated_labels

PARTS = ("real", "grid", "cost", "suite", "finetune", "overfit", "ablations", "training")
STEPS: Mapping[str, dict[str, Any]] = {
    "U-Net alone": {},
    "+ SAM": {"segmenter": "sam", "postprocessing": "none"},
    "+ SAM + published post-processing": {"segmenter": "sam", "postprocessing": "published"},
    "+ SAM + corrected post-processing": {"segmenter": "sam"},
    "+ SAM + corrected post-processing, grid prompts": {"segmenter": "sam", "prompts": "grid"},
    "+ SAM + published post-processing, grid prompts": {
        "segmenter": "sam",
        "postprocessing": "published",
        "prompts": "grid",
    },
}
SUITE_STEPS = ("U-Net alone", "+ SAM", "+ SAM + corrected post-processing")
OVERFIT_SIDE_PX = 128
SEED, SNR, LOOSE = 28, 12.0, 0.5
DENOISED = ("denoising", "program")
U_NET_ALONE: Mapping[str, Any] = {"postprocessing": "published", **MODULES["U-Net"]}
ABLATION_SIDE_PX = 128
ABLATION_WIDTHS = (6, 8, 12, 16, 24, 32)
"""Of the published five levels and bottleneck, so that a row takes minutes on two cores."""
ABLATION_TASK: Mapping[str, Any] = {"widths": ABLATION_WIDTHS, "side_px": ABLATION_SIDE_PX, "batch_size": 3}
TEACHERS, JUDGES, TESTED = 12, 4, 6
"""Simulated micrographs of 512 x 512 pixels that the ablations learn from, choose weights by, and are scored on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--weights", type=Path, help="U-Net instead of the shipped one")
    parser.add_argument("--sam", help="Segment Anything instead of the shipped one")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--levels", nargs="*", default=["easy", "medium", "hard"], help="of the simulated suite")
    parser.add_argument("--finetune-on", default="bgal10017", help="real set; half of its micrographs teach")
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning, learning by heart, or each ablation")
    args = parser.parse_args()
    picker = CryoSegNetPicker(weights=args.weights)
    if args.sam is not None:
        for changes in STEPS.values():
            changes.update({"sam": args.sam} if changes else {})
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "cryosegnet.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = str(describe_machine())

    def keep(part: str, value: Any) -> None:
        """After every part, and every set, so that an interrupted measurement keeps what it has."""
        found[part] = value
        path.write_text(json.dumps(found, indent=1) + "\n")
        (args.output / "cryosegnet.md").write_text(as_markdown(found))

    measures = {
        "real": lambda: real_sets(picker, args.real, keep),
        "grid": lambda: grid_coverage(args.real),
        "cost": lambda: cost(picker),
        "suite": lambda: suite(picker, args.levels),
        "finetune": lambda: finetuned(args.real / args.finetune_on, steps=args.steps),
        "overfit": lambda: overfit(args.output / "cryosegnet_overfit.png", steps=args.steps),
        "training": training_cost,
        "ablations": lambda: ablated(steps=args.steps, keep=keep),
    }
    for part in args.parts:
        if part in ("real", "grid", "finetune") and args.real is None:
            continue
        keep(part, measures[part]())
    print(as_markdown(found))


# --------------------------------------------------------------------------------------------------------- picking


def run(picker: CryoSegNetPicker, micrographs: Sequence[Micrograph]) -> list[Picks]:
    return pick_in_memory(picker, micrographs).picks


def opened(path: Path) -> tuple[Dataset, list[Micrograph], dict[str, Labels], Length]:
    dataset = open_dataset(path).labelled()
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    return dataset, [item.read() for item in dataset], labels, listed_diameter(labels)


def real_sets(
    picker: CryoSegNetPicker, folder: Path, keep: Callable[[str, Any], None]
) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        _, micrographs, labels, given = opened(path)
        sized = replace(picker, diameter=given)
        found[path.name] = {}
        for name, changes in STEPS.items():
            found[path.name][name] = score_summary(run(replace(sized, **changes), micrographs), labels, diameter=given)
            print(path.name, name, {key: round(value, 3) for key, value in found[path.name][name].items()}, flush=True)
            keep("real", found)
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        _, micrographs, labels, given = opened(path)
        found[path.name]["default, diameter measured"] = score_summary(run(picker, micrographs), labels, diameter=given)
        keep("real", found)
    return found


def grid_coverage(folder: Path) -> dict[str, float]:
    """Share of labelled particles whose disc holds a point of the published 32 x 32 grid, on each set."""
    found = {}
    for path in sorted(child for child in folder.iterdir() if child.is_dir()):
        dataset = open_dataset(path).labelled()
        held = total = 0
        for item in dataset:
            if item.labels is None or len(item.labels) == 0 or item.diameter_px is None:
                continue
            grid = point_grid(item.shape_yx)
            gap = np.hypot(*(item.labels.xy_px[:, None] - grid[None]).transpose(2, 0, 1)).min(axis=1)
            held += int((gap <= item.diameter_px / 2).sum())
            total += len(gap)
        if total:
            found[path.name] = held / total
    return found


def suite(picker: CryoSegNetPicker, levels: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in suite_sets(levels=tuple(levels)):
        simulated = list(one.micrographs())
        diameter = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        micrographs = [each.micrograph for each in simulated]
        truth = {each.micrograph.name: simulated_labels(each) for each in simulated}
        sized = replace(picker, diameter=diameter)
        found[one.name] = {
            name: score_summary(run(replace(sized, **STEPS[name]), micrographs), truth, diameter=diameter)
            for name in SUITE_STEPS
        }
        print(one.name, {name: round(entry["f1"], 3) for name, entry in found[one.name].items()}, flush=True)
    return found


# ------------------------------------------------------------------------------------------------------------ cost


def cost(picker: CryoSegNetPicker, *, repeats: int = 3) -> dict[str, float]:
    """Seconds per micrograph of 4096 x 4096 pixels full of particles of 108, and of a ViT-H with the 32 x 32 grid.

    The latter is estimated from one windowed and one global layer of its image encoder, its neck, and one batch of 64
    prompts; U-Net, denoising and post-processing are left out.
    """
    import torch

    torch.set_num_threads(2)
    size = Length(108.0, 108.0, "px")
    micrograph = crowded_micrograph(4096, diameter_px=108.0)
    prepared = replace(picker, diameter=size, working_diameter=size, segmenter="sam")
    prepared.pick(micrograph)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        picks = prepared.pick(micrograph)
    wall, used = (time.perf_counter() - start) / repeats, (time.process_time() - cpu) / repeats
    embedding, decoding = vit_h_seconds()
    estimate = embedding["cpu"] + 16 * decoding["cpu"]
    return {
        "seconds": wall,
        "cpu_seconds": used,
        "candidates": float(len(picks)),
        "vit_h_encoder_cpu_seconds": embedding["cpu"],
        "vit_h_grid_cpu_seconds": 16 * decoding["cpu"],
        "vit_h_times_slower_cpu": estimate / used,
    }


def crowded_micrograph(side_px: int, *, diameter_px: float) -> Micrograph:
    """Dark discs on a jittered grid 1.4 diameters apart in noise: about 700 on 4096 x 4096 pixels."""
    import cv2

    rng = np.random.default_rng(0)
    pixels = np.zeros((side_px, side_px), np.float32)
    places = np.arange(diameter_px, side_px - diameter_px, 1.4 * diameter_px)
    for y in places:
        for x in places:
            centre = np.rint(np.array([x, y]) + rng.uniform(-0.1, 0.1, 2) * diameter_px).astype(int)
            cv2.circle(pixels, tuple(centre.tolist()), int(diameter_px / 2), -0.5, thickness=-1)
    pixels += rng.normal(size=pixels.shape).astype(np.float32)
    return Micrograph(pixels, name="crowded", pixel_size_angstrom=1.77)


def vit_h_seconds() -> tuple[dict[str, float], dict[str, float]]:
    """(image encoder, one batch of 64 prompts), wall and processor seconds; in bfloat16 where the picker uses it."""
    import torch
    import transformers

    from cryopick.inference.device import is_bfloat16_fast
    from cryopick.pickers.cryosegnet.sam_files import meta_config

    config = meta_config("vit_h")
    config.vision_config.num_hidden_layers = 2
    config.vision_config.global_attn_indexes = [1]
    model = transformers.SamModel(config).eval()
    layers = model.vision_encoder.layers

    def timed(work: Any) -> dict[str, float]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16_fast("cpu")):
            work()
            start, cpu = time.perf_counter(), time.process_time()
            work()
            return {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}

    hidden = torch.randn(1, 64, 64, 1280)
    windowed, everywhere = (timed(lambda layer=layer: layer(hidden)) for layer in layers)
    neck = timed(lambda: model.vision_encoder.neck(hidden))
    encoder = {key: 28 * windowed[key] + 4 * everywhere[key] + neck[key] for key in neck}
    points = torch.rand(1, 64, 1, 2) * 1024
    ones = torch.ones(1, 64, 1, dtype=torch.long)
    embedding = torch.randn(1, 256, 64, 64)
    decoder = timed(lambda: model(image_embeddings=embedding, input_points=points, input_labels=ones))
    return encoder, decoder


def training_cost(*, side_px: int = 256, sustained_tflops: float = 50.0) -> dict[str, float]:
    """What the published training takes, from one step of the whole network on a small picture.

    All of it is convolution, so that time and memory go with the number of pixels.

    Parameters
    ----------
    side_px : of that picture
    sustained_tflops : of the GPU that is projected to, 10^12 operations a second: about a third of what an A100 does in
        TF32 at most; none was at hand
    """
    import torch

    from cryopick.pickers.cryosegnet.network import AttentionUNet
    from cryopick.pickers.cryosegnet.published_trainable import published_loss
    from cryopick.processing.denoise.published import denoise_published

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = AttentionUNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    saved: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    picture, mask = torch.rand(1, 1, side_px, side_px), (torch.rand(1, 1, side_px, side_px) > 0.7).float()
    times = []
    for _ in range(2):
        saved.clear()
        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = published_loss(network(picture), mask)["loss"]
        kept = sum(size for pointer, size in saved.items() if pointer not in own)
        loss.backward()
        times.append(time.process_time() - start)
        optimizer.step()
        optimizer.zero_grad()
    larger = 6 * (PAPER_SIDE_PX / side_px) ** 2  # a batch of six pictures of 1024 pixels
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    start = time.process_time()
    denoise_published(crowded_micrograph(2048, diameter_px=108.0).pixels)
    denoising = 4 * (time.process_time() - start)
    steps, operations = 165_000, 6 * 3 * 2 * 1.188e12
    return {
        "core_seconds_per_step": min(times) * larger,
        "days_on_8_cores": min(times) * larger * steps / 8 / 86_400,
        "days_on_a_gpu": operations * steps / (sustained_tflops * 1e12) / 86_400,
        "gigabytes_of_weights_gradients_and_adam": 4 * weights / 1e9,
        "gigabytes_of_activations": kept * larger / 1e9,
        "core_seconds_to_denoise_4096": denoising,
        "core_hours_to_denoise_all": denoising * (4948 + 1244) / 3600,
    }


# ------------------------------------------------------------------------------------------------------- training


def finetuned(path: Path, *, steps: int) -> dict[str, Any]:
    """Fine-tuning with predicted labels on every other micrograph of a set, judged on those in between."""
    from cryopick.workflows.self_train import self_train

    dataset, micrographs, labels, given = opened(path)
    sources = [item.source.path for item in dataset]
    with tempfile.TemporaryDirectory() as scratch:
        result = self_train(
            "cryosegnet",
            sources[::2],
            Path(scratch) / "self",
            diameter=given,
            confidence=0.9,
            training={"steps": steps, "validate_every": max(1, steps // 3), "warmup_steps": 5, "workers": 0},
        )
        others = micrographs[1::2]
        truth = {micrograph.name: labels[micrograph.name] for micrograph in others}
        before = score_summary(run(CryoSegNetPicker(diameter=given), others), truth, diameter=given)
        tuned = CryoSegNetPicker(diameter=given, weights=result.finetuning.training.weights)
        after = score_summary(run(tuned, others), truth, diameter=given)
    return {
        "teachers": result.teachers,
        "expected_f1_before": result.before,
        "expected_f1_after": result.after,
        "is_better": result.is_better,
        "f1_before": before["f1"],
        "f1_after": after["f1"],
        "f1_of_kept_weights": after["f1"] if result.is_better else before["f1"],
        "micrographs_not_used": len(others),
    }


def overfit(picture: Path, *, steps: int) -> dict[str, float]:
    """The paper preset on four simulated micrographs, squeezed into a smaller square; the loss curve as a picture."""
    from cryopick.workflows.train import plan_training, train_picker

    one = suite_sets(levels=("easy",))[2]
    simulated = list(one.micrographs())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = [(each.micrograph, each.xy_px[each.is_pickable]) for each in simulated]
        # two more, turned over: four to learn, one to validate
        for micrograph, xy_px in pairs[:2]:
            over = replace(micrograph, pixels=micrograph.pixels[::-1])
            pairs.append((over, (xy_px - [0, over.shape_yx[0] - 1]) * [1, -1]))
        labels = write_set(folder, pairs)
        size = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
        plan = plan_training(
            "cryosegnet",
            data=str(labels),
            preset="program",
            data_settings={"diameter": size, "labels": "complete", "flip_y": "no", "validation_fraction": 0.2},
            task={"side_px": OVERFIT_SIDE_PX, "batch_size": 4},
            training={
                "steps": steps,
                "validate_every": steps,
                "checkpoint_every": 10 * steps,
                "workers": 0,
                "log_every": 1,
                "precision": "bf16-mixed",
            },
        )
        train_picker(plan, folder / "out")
        table, validation = (read_table(folder / "out" / name) for name in (LOSS_TABLE, VALIDATION_TABLE))
    draw_curve(table, picture)
    losses = [row["loss"] for row in table]
    return {
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-3:])),
        "dice_of_the_four": 1 - table[-1]["dice"],
        "dice_of_an_unseen_one": validation[-1]["score"],
    }


def write_set(folder: Path, pairs: Sequence[tuple[Micrograph, Any]]) -> Path:
    """Micrographs m0.mrc and so on, and a STAR file of their particles, which is returned."""
    rows = []
    for number, (micrograph, xy_px) in enumerate(pairs):
        write_micrograph(folder / f"m{number}.mrc", micrograph)
        rows += [f"m{number}.mrc {x:.2f} {y:.2f}" for x, y in xy_px]
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (folder / "labels.star").write_text(head + "\n".join(rows) + "\n\n")
    return folder / "labels.star"


def ablated(*, steps: int, keep: Callable[[str, Any], None]) -> dict[str, dict[str, dict[str, float]]]:
    """The article's ablations (Tables S7 to S11) of a small U-Net on simulated rings, in contrast to carbon and dirt.

    One seed, a few minutes of training each: differences below a few hundredths mean nothing. Scores are those of the
    regions of the U-Net's map on micrographs that neither taught nor judged, one to one within half a diameter.
    """
    one = suite_sets(levels=("medium",))[2]
    recipe, imagers = replace(one.recipe, shape_yx=(512, 512)), [one.imager()]
    simulated = [
        simulate_micrograph(recipe, SEED, imagers=imagers, index=index, name=f"m{index}", target_snr=SNR)
        for index in range(TEACHERS + JUDGES + TESTED)
    ]
    tested = simulated[TEACHERS + JUDGES :]
    truth = {each.micrograph.name: simulated_labels(each) for each in tested}
    size = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
    found: dict[str, dict[str, dict[str, float]]] = {}
    done: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        labels = write_set(
            Path(scratch), [(each.micrograph, each.xy_px[each.is_pickable]) for each in simulated[: TEACHERS + JUDGES]]
        )
        for what, rows in ablations(ABLATION_WIDTHS).items():
            found[what] = {}
            for row, changes in rows.items():
                task = {**ABLATION_TASK, **changes}
                # denoised as the program does, which is the default of the preset, the published network is one row
                key = json.dumps({name: value for name, value in task.items() if (name, value) != DENOISED})
                if key not in done:
                    weights, dice = _trained(labels, Path(scratch) / f"run{len(done)}", task, size=size, steps=steps)
                    picker = CryoSegNetPicker(weights=weights, segmenter="sam", **U_NET_ALONE)
                    picks = pick_in_memory(
                        picker, [each.micrograph for each in tested], selection=SelectionSettings(as_found=True)
                    ).picks
                    scores = evaluate(picks, truth, diameter=size, tolerance=LOOSE).main
                    counts = scores.counts
                    done[key] = {
                        "validation_dice": dice,
                        "precision": counts.precision,
                        "recall": counts.recall,
                        "f1": counts.f1,
                    }
                found[what][row] = done[key]
                print(what, row, {name: round(value, 3) for name, value in done[key].items()}, flush=True)
                keep("ablations", found)
    return found


def _trained(labels: Path, output: Path, task: Mapping[str, Any], *, size: Length, steps: int) -> tuple[Path, float]:
    """Weights, and their Dice on the micrographs that judge."""
    from cryopick.workflows.train import plan_training, train_picker

    plan = plan_training(
        "cryosegnet",
        data=str(labels),
        preset="program",
        data_settings={
            "diameter": size,
            "labels": "complete",
            "flip_y": "no",
            "validation_fraction": JUDGES / (TEACHERS + JUDGES),
            "cache_dir": labels.parent / "cache",
        },
        task=task,
        training={
            "steps": steps,
            "learning_rate": 3e-3,
            "validate_every": max(1, steps // 4),
            "checkpoint_every": steps,
            "workers": 0,
            "log_every": 20,
        },
    )
    result = train_picker(plan, output)
    return result.weights, float(result.scores["score"])


def draw_curve(table: Sequence[Mapping[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    for name in ("loss", "bce", "dice"):
        axes.plot([row["step"] for row in table], [row[name] for row in table], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    figure.savefig(path, dpi=110)


# --------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: Mapping[str, Any]) -> str:
    lines = ["# CryoSegNet", "", "Made by `python benchmarks/cryosegnet.py`; one setting for all sets.", ""]
    for name, steps in found.get("real", {}).items():
        lines += [f"## {name}", ""]
        lines += [
            "| | F1 | precision | recall | average precision | picks per micrograph |",
            "|---|---|---|---|---|---|",
        ]
        for step, s in steps.items():
            lines.append(
                f"| {step} | {_number(s['f1'])} | {_number(s['precision'])} | {_number(s['recall'])} | "
                f"{_number(s['average_precision'])} | {s['picks_per_micrograph']:.1f} |"
            )
        lines.append("")
    if "grid" in found:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in found["grid"].items())
        lines += [f"Share of particles that hold a point of the published 32 x 32 grid: {shares}", ""]
    if "suite" in found:
        lines += ["## Simulated suite, F1", "", f"| set | {' | '.join(SUITE_STEPS)} |"]
        lines.append(f"|{'---|' * (len(SUITE_STEPS) + 1)}")
        for name, steps in found["suite"].items():
            lines.append(f"| {name} | {' | '.join(_number(steps[step]['f1']) for step in SUITE_STEPS)} |")
        for level in dict.fromkeys(name.rsplit("-", 1)[1] for name in found["suite"]):
            rows = [steps for name, steps in found["suite"].items() if name.endswith(f"-{level}")]
            means = [_number(float(np.mean([row[step]["f1"] for row in rows]))) for step in SUITE_STEPS]
            lines.append(f"| **mean {level}** | {' | '.join(means)} |")
        lines.append("")
    for what, ablated_rows in found.get("ablations", {}).items():
        lines += [f"## Ablation of {what}, a small U-Net on simulation", ""]
        lines += ["| | validation Dice | precision | recall | F1 |", "|---|---|---|---|---|"]
        for row, s in ablated_rows.items():
            values = " | ".join(_number(s[name]) for name in ("validation_dice", "precision", "recall", "f1"))
            lines.append(f"| {row} | {values} |")
        lines.append("")
    for title in ("cost", "training", "finetune", "overfit"):
        if title in found:
            values = ", ".join(f"{key} {_number(value)}" for key, value in found[title].items())
            lines += [f"{title}: {values}", ""]
    lines += [f"Machine: {found.get('machine', 'unknown')}", ""]
    return "\n".join(lines)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
