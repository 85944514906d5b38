"""How many training samples one core makes in a second: micrographs prepared anew, read from the disk cache, in memory.

python benchmarks/data_loading.py [--size 4096] [--micrographs 4] [-o benchmarks/results]

The micrographs are noise with discs in the layout of CryoPPP, of the size that most of its sets have; the time that a
sample takes does not depend on what is on it. One thread makes everything, and its processor time counts. The presets
are those of the published systems, with smaller batches; a sample is what a batch has several of.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cryopick.data.datasets import Dataset, open_dataset, open_micrographs
from cryopick.data.prepared_cache import Prepared, PreparedCache
from cryopick.errors import CryopickError
from cryopick.evaluation.machine import describe_machine
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.families import family_of, find_preset, make_trainable
from cryopick.types import Micrograph

PRESETS = (
    "cryotransformer article",
    "cryosegnet article",
    "cryoemmae article",
    "segmentation-crf article",
    "cryosegnet small",
)
STATES = ("anew", "disk", "memory")
DIAMETER_PX, SPACING_PX, ANGSTROM = 100, 160, 1.77
BATCH_SIZE = 2
CACHE_BYTES = MEMORY_BYTES = 8 * 10**9
GPU_SAMPLES_PER_SECOND = {
    "cryotransformer article": (
        300 * 5172 / (59 * 3600),
        "300 epochs of 5,172 images in 2 days 11 hours on an A100 (article)",
    ),
    "cryoemmae article": (
        400 * 100 * 256 / (2.5 * 3600),
        "400 epochs of 100 micrographs of 256 crops in 2.5 hours on an RTX 4080 (article)",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Samples per second and core of one preset; None where it cannot be had."""

    preset: str
    anew: float | None = None
    disk: float | None = None
    memory: float | None = None
    problem: str = ""


def write_data(folder: Path, *, count: int, size: int) -> Path:
    """So many micrographs of `size` x `size` in the layout of CryoPPP."""
    centres = np.arange(SPACING_PX, size - SPACING_PX, SPACING_PX)
    xy = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    disc = np.zeros((size, size), np.float32)
    for x, y in xy.tolist():
        cv2.circle(disc, (x, y), DIAMETER_PX // 2, -0.3, thickness=-1)
    labels = folder / "ground_truth" / "particle_coordinates"
    labels.mkdir(parents=True)
    (folder / "micrographs").mkdir()
    rows = "".join(f"{x},{size - y},{DIAMETER_PX}\n" for x, y in xy.tolist())
    for number in range(count):
        pixels = np.random.default_rng(number).standard_normal((size, size), dtype=np.float32) + disc
        write_micrograph(
            folder / "micrographs" / f"m{number}.mrc", Micrograph(pixels, "m", pixel_size_angstrom=ANGSTROM)
        )
        (labels / f"m{number}.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n" + rows)
    return folder


def measure(preset: str, folder: Path, cache: Path, *, states: Sequence[str] = STATES) -> Row:
    picker, name = preset.split()
    try:
        task = find_preset(picker, name).task
        with suppress(CryopickError):  # of a task whose batches cannot be so small
            if "batch_size" in {one.name for one in fields(task)}:
                task = replace(task, batch_size=BATCH_SIZE)
        rates = dict(measured(picker, task, folder, cache, states))
    except (CryopickError, TypeError) as error:
        return Row(preset=preset, problem=str(error))
    return Row(preset=preset, **rates)


def measured(picker: str, task: Any, folder: Path, cache: Path, asked: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The state of what is prepared, and samples per second."""
    states = {
        "anew": Prepared(memory_bytes=1),
        "disk": Prepared(PreparedCache(cache, CACHE_BYTES), memory_bytes=1),
        "memory": Prepared(memory_bytes=MEMORY_BYTES),
    }
    for state, prepared in [(state, states[state]) for state in asked]:
        train, validation = (replace(one, prepared=prepared) for one in opened(picker, folder))
        needs_labels = family_of(picker).needs_labels
        trainable = make_trainable(picker, task, train=train, validation=validation if needs_labels else None)
        epoch = 1 if state == "anew" else -(-len(train) // BATCH_SIZE)
        for index in range(epoch):  # fills what is to be filled, and imports what has to be imported
            make(trainable, index)
        count, samples, began = 1 if state == "anew" else 8, 0, time.process_time()
        for index in range(epoch, epoch + count):
            samples += make(trainable, index)
        yield state, samples / (time.process_time() - began)


def opened(picker: str, folder: Path) -> tuple[Dataset, Dataset]:
    if not family_of(picker).needs_labels:
        every = open_micrographs(folder)
        return every, every
    every = open_dataset(folder, completeness="complete", flip_y="no")
    names = [item.name for item in every]
    return every.take(names[:-1]), every.take(names[-1:])


def make(trainable: Any, index: int) -> int:
    """How many samples batch `index` has."""
    batch = trainable.make_batch(index, np.random.default_rng([0, index]))
    return next(len(tensor) for tensor in batch.values() if isinstance(tensor, torch.Tensor) and tensor.ndim)


def as_markdown(rows: list[Row], *, size: int, count: int) -> str:
    def cell(rate: float | None) -> str:
        return "-" if rate is None else f"{rate:.3g}"

    lines = [
        "# Training samples per second and core",
        "",
        f"{count} micrographs of {size} x {size} px; {describe_machine()}. From `benchmarks/data_loading.py`.",
        "",
        "| preset | prepared anew | from the disk cache | in memory | cores that feed the authors' GPU |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        wanted = GPU_SAMPLES_PER_SECOND.get(row.preset)
        cores = f"{wanted[0] / row.disk:.1f}: {wanted[1]}" if wanted and row.disk else "-"
        lines.append(
            f"| {row.preset} | {cell(row.anew)} | {cell(row.disk)} | {cell(row.memory)} | {row.problem or cores} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side of a micrograph")
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--presets", nargs="*", default=PRESETS, metavar="'PICKER PRESET'")
    parser.add_argument("--states", nargs="*", default=STATES, choices=STATES, help="of what is prepared")
    parser.add_argument("-o", "--output", type=Path, help="folder for data_loading.md and data_loading.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_data(Path(scratch) / "10017", count=arguments.micrographs, size=arguments.size)
        cache = Path(scratch) / "cache"
        rows = [measure(preset, folder, cache, states=arguments.states) for preset in arguments.presets]
    table = as_markdown(rows, size=arguments.size, count=arguments.micrographs)
    print(table, end="")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "data_loading.md").write_text(table)
        content = [{name: value for name, value in vars(row).items() if value not in (None, "")} for row in rows]
        (arguments.output / "data_loading.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
