"""What the published segmentation networks cost: operations, memory, and days of the whole training.

    python benchmarks/segmentation_published.py --output benchmarks/results

Operations and what a training step keeps in memory are counted without computing (torch's `meta` device), at the sizes
that the authors trained with; a step of a small crop is timed, in processor seconds of one core, and the rest follows.
A minute on one core. Writes segmentation_published.json and segmentation_published.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.report import markdown_table
from cryopick.pickers.families import find_preset
from cryopick.pickers.segmentation_crf.dense_crf import mean_field_in_bands, published_crf
from cryopick.pickers.segmentation_crf.mixture_normalization import normalized_by_mixture
from cryopick.pickers.segmentation_crf.published import tiles
from cryopick.pickers.segmentation_crf.published_network import PublishedSegmentation

TEACHING, VALIDATING, SIDE_PX = 58, 9, 3840
"""Micrographs of the authors' training, and the side of each."""
EPOCHS = {"fcn-resnet101": 94, "deeplabv3-resnet50": 46}
"""After which theirs stopped."""
TIMED_PX = 160
GPU_TFLOPS = 10.0
"""Taken for a GPU of the authors' kind (V100) in float32: two thirds of its nominal speed."""
CORES = 8
CRF_PX = 768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": str(describe_machine()), "networks": {}}
    for preset in ("article", "article-deeplabv3"):
        task = find_preset("segmentation-crf", preset).task
        found["networks"][task.backbone] = cost_of(task)
        print(task.backbone, found["networks"][task.backbone], flush=True)
    found["others"] = others()
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "segmentation_published.json").write_text(json.dumps(found, indent=1) + "\n")
    text = as_markdown(found)
    (args.output / "segmentation_published.md").write_text(text)
    print(text)


def network_of(task: Any, *, device: str) -> PublishedSegmentation:
    with torch.device(device):
        return PublishedSegmentation(head=task.head, depth=task.depth)


def cost_of(task: Any) -> dict[str, float]:
    """Of one network at the size of its crops."""
    network = network_of(task, device="meta").train()
    crop = torch.zeros(2, 1, task.crop_px, task.crop_px, device="meta")
    target = torch.zeros(2, task.crop_px, task.crop_px, dtype=torch.long, device="meta")
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    alive = []  # so that no storage's number is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        return keep(tensor)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(network(crop), target)
    weights = sum(one.numel() * 4 for one in network.parameters())
    activations = (sum(kept.values()) - weights) / len(crop)
    with FlopCounterMode(display=False) as forward:
        network(crop)
    with FlopCounterMode(display=False) as both:
        cross_entropy(network(crop), target).backward()
    del loss
    per_crop = both.get_total_flops() / len(crop)
    per_piece = forward.get_total_flops() / len(crop)
    pieces = len(list(tiles((SIDE_PX, SIDE_PX), task.crop_px)))
    epoch = TEACHING * per_crop + VALIDATING * pieces * per_piece
    speed = core_speed(task)
    epochs = EPOCHS[task.backbone]
    return {
        "parameters": sum(one.numel() for one in network.parameters()),
        "gflop_per_piece": per_piece / 1e9,
        "gflop_per_taught_crop": per_crop / 1e9,
        "tflop_per_epoch": epoch / 1e12,
        "epochs": epochs,
        # weights, gradients and two moments, and what a batch keeps
        "training_gb": (4 * weights + task.batch_size * activations) / 1e9,
        "core_gflops": speed / 1e9,
        "gpu_hours": epochs * epoch / (GPU_TFLOPS * 1e12) / 3600,
        "days_on_8_cores": epochs * epoch / (CORES * speed) / 86400,
        "pick_seconds_of_8_cores": pieces * per_piece / (CORES * speed),
    }


def core_speed(task: Any) -> float:
    """Operations per processor second of one core, in a training step."""
    network = network_of(task, device="cpu").train()
    crop = torch.randn(2, 1, TIMED_PX, TIMED_PX)
    target = torch.zeros(2, TIMED_PX, TIMED_PX, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(network(crop), target).backward()
    start = time.process_time()
    cross_entropy(network(crop), target).backward()
    return float(counter.get_total_flops() / (time.process_time() - start))


def others() -> dict[str, float]:
    """Processor seconds per million pixels of what is done besides the network."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(CRF_PX, CRF_PX)).astype(np.float32)
    probability = rng.dirichlet((8, 2), size=pixels.shape).transpose(2, 0, 1).astype(np.float32)
    megapixels = pixels.size / 1e6

    def seconds(call: Any) -> float:
        start = time.process_time()
        call()
        return (time.process_time() - start) / megapixels

    found = {"normalisation of 4096 x 4096 (s)": 0.0}
    big = rng.normal(size=(4096, 4096)).astype(np.float32)
    start = time.process_time()
    normalized_by_mixture(big)
    found["normalisation of 4096 x 4096 (s)"] = time.process_time() - start
    for name, fault in (("dense CRF, article", False), ("dense CRF, program", True)):
        crf = published_crf(with_axis_fault=fault, counts_itself=fault)
        per_million = seconds(lambda crf=crf: mean_field_in_bands(np.log(probability), pixels, crf, diameter_px=108.0))
        found[f"{name}, of 3840 x 3840 (s)"] = per_million * SIDE_PX**2 / 1e6
    return found


def as_markdown(found: dict[str, Any]) -> str:
    header = ["", *found["networks"]]
    names = {
        "parameters": ("parameters, millions", 1e-6, 1),
        "gflop_per_piece": ("GFLOP per piece seen", 1, 0),
        "gflop_per_taught_crop": ("GFLOP per crop taught", 1, 0),
        "tflop_per_epoch": ("TFLOP per epoch, with validation", 1, 0),
        "training_gb": ("memory of training, GB", 1, 1),
        "epochs": ("epochs until theirs stopped", 1, 0),
        "gpu_hours": (f"hours on a GPU of {GPU_TFLOPS:g} TFLOP/s", 1, 2),
        "core_gflops": ("GFLOP/s of a core here, measured", 1, 1),
        "days_on_8_cores": (f"days on {CORES} such cores", 1, 1),
        "pick_seconds_of_8_cores": (f"s per micrograph of 3840 x 3840 on {CORES} such cores, without CRF", 1, 0),
    }
    rows = [
        [title, *(f"{one[name] * factor:.{digits}f}" for one in found["networks"].values())]
        for name, (title, factor, digits) in names.items()
    ]
    rest = [[name, f"{value:.1f}"] for name, value in found["others"].items()]
    intro = (
        f"By `benchmarks/segmentation_published.py` on {found['machine']}. {TEACHING} micrographs teach, {VALIDATING} "
        f"validate, {SIDE_PX} x {SIDE_PX} each, at the authors' crops and batches; operations are counted, one core is "
        "timed, reading of micrographs comes on top."
    )
    tables = [markdown_table(header, rows), markdown_table(["processor seconds of one core", ""], rest)]
    return "\n\n".join(["# Cost of the published segmentation networks", intro, *tables]) + "\n"


if __name__ == "__main__":
    main()
