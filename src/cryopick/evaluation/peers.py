"""Other programs that pick particles, run as programs of their own where they are installed; none is imported.

Each gets the particle diameter of the set, and its own defaults otherwise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryopick.errors import InputError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.relion_programs import Stage, log_picker, run_stage
from cryopick.evaluation.usage import Usage, run_measured
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.types import Picks

TOPAZ_PARTICLE_PX = 20
"""Particle diameter that Topaz's pretrained networks expect, in pixels of the scaled image."""
TOPAZ, CRYOLO, RELION = "topaz", "cryolo_predict.py", "relion_autopick"


@dataclass(frozen=True)
class PeerRun:
    """What a program found on a set.

    Parameters
    ----------
    picks : by micrograph; empty where it found none
    usages : of each program that was run for it
    options : that it was given
    """

    picks: Mapping[str, Picks]
    usages: Sequence[Usage]
    options: Mapping[str, str]

    @property
    def wall_seconds(self) -> float:
        return sum(usage.wall_seconds for usage in self.usages)


def find_program(name: str) -> str | None:
    """Its path, or None where it is not installed."""
    return shutil.which(name)


def convert_to_mrc(data: BenchmarkSet, project: Path) -> dict[str, tuple[int, int]]:
    """The images of a set as MRC in `project`/mics, which is what the other programs read; their sizes by name."""
    shapes_yx = {}
    for path in data.images:
        micrograph = read_micrograph(path, pixel_size_angstrom=data.pixel_size_angstrom or 1.0)
        write_micrograph(project / "mics" / f"{path.stem}.mrc", micrograph)
        shapes_yx[path.stem] = micrograph.shape_yx
    return shapes_yx


def run_relion_log(
    program: str,
    data: BenchmarkSet,
    project: Path,
    *,
    shapes_yx: Mapping[str, tuple[int, int]],
    limits: tuple[float, float],
) -> PeerRun:
    """RELION's Laplacian-of-Gaussian picker, looking for diameters within `limits` times the true one.

    Raises
    ------
    ProgramFailedError
        If the program fails, in one sentence.
    """
    low, high = limits
    pixel_size = data.pixel_size_angstrom or 1.0
    diameter_angstrom = diameter_of(data) * pixel_size
    output = project / f"log{low:g}"
    # Equal limits make the program divide by zero steps; a tenth of a per cent apart is one diameter.
    options = {
        "--i": "mics/*.mrc",
        "--odir": f"{output.name}/",
        "--pickname": "autopick",
        "--angpix": f"{pixel_size:g}",
        "--LoG_diam_min": f"{low * diameter_angstrom * 0.9995:.3f}",
        "--LoG_diam_max": f"{high * diameter_angstrom * 1.0005:.3f}",
        "--LoG_adjust_threshold": "0",
        "--shrink": "0",
        "--lowpass": "20",
    }
    words = log_picker(program, list(options.items()))
    run = run_stage(Stage(name=output.name, words=words, folder=output.name, hang_s=None), project)
    picks = read_picks(output / "mics", format="star", shapes_yx=dict(shapes_yx))
    return PeerRun(_of_all(data, picks), [run.usage], options)


def run_topaz(program: str, data: BenchmarkSet, project: Path, *, shapes_yx: Mapping[str, tuple[int, int]]) -> PeerRun:
    """Topaz's own pretrained resnet16: all candidates with their scores, logits.

    Raises
    ------
    InputError
        If the program fails; the message is its last line.
    """
    diameter_px = diameter_of(data)
    scale = max(1, round(diameter_px / TOPAZ_PARTICLE_PX))
    options = {"-s": str(scale), "-r": str(round(diameter_px / scale / 2)), "-m": "resnet16"}
    images = [f"mics/{path.stem}.mrc" for path in data.images]
    scaled = [f"scaled/{path.stem}.mrc" for path in data.images]
    network = ["-m", options["-m"], "-r", options["-r"], "-x", options["-s"]]
    usages = [
        _run([program, "preprocess", "-s", options["-s"], "-d", "-1", "-o", "scaled/", *images], project),
        _run([program, "extract", *network, "-d", "-1", "-o", "topaz.txt", *scaled], project),
    ]
    picks = read_picks(project / "topaz.txt", shapes_yx=dict(shapes_yx))
    return PeerRun(_of_all(data, picks), usages, options)


def run_cryolo(
    program: str,
    data: BenchmarkSet,
    project: Path,
    *,
    shapes_yx: Mapping[str, tuple[int, int]],
    model: Path,
    threshold: float = 0.3,
) -> PeerRun:
    """crYOLO with a model of its makers, such as the general one (`gmodel_phosnet_*.h5`), at its default threshold.

    Raises
    ------
    InputError
        If the program fails; the message is its last line.
    """
    box_px = round(diameter_of(data))
    config = {"model": {"architecture": "PhosaurusNet", "input_size": 1024, "anchors": [box_px, box_px]}}
    config["model"] |= {"max_box_per_image": 1000, "filter": [0.1, "filtered"]}
    (project / "cryolo.json").write_text(json.dumps(config), encoding="utf-8")
    options = {"-c": "cryolo.json", "-w": str(model.absolute()), "-i": "mics", "-o": "cryolo", "-t": f"{threshold:g}"}
    usage = _run([program, *(word for pair in options.items() for word in pair)], project)
    found = project / "cryolo" / "CBOX"
    if not found.is_dir():
        raise InputError(f"{program}: wrote no folder CBOX; expected what crYOLO 1.7 and later write")
    return PeerRun(_of_all(data, read_picks(found, shapes_yx=dict(shapes_yx))), [usage], options)


def diameter_of(data: BenchmarkSet) -> float:
    """The particle diameter of a set in pixels, of a range the middle.

    Raises
    ------
    InputError
        If its labels do not say it.
    """
    if data.diameter_px is None:
        raise InputError(f"{data.name}: the labels do not say the particle diameter, which other programs need")
    low, high = data.diameter_px
    return float((low * high) ** 0.5)


def _run(command: Sequence[str], project: Path) -> Usage:
    usage = run_measured(list(command), cwd=project)
    if usage.exit_code != 0:
        raise InputError(f"{Path(command[0]).name}: {usage.last_line}")
    return usage


def _of_all(data: BenchmarkSet, picks: Mapping[str, Picks]) -> dict[str, Picks]:
    """A program that finds nothing on a micrograph may leave it out of its files."""
    stems = [path.stem for path in data.images]
    missing = set(stems) - set(match_micrograph_names(stems, picks))
    known = {one: replace(found, micrograph_name=one) for one, found in picks.items()}
    return known | {one: Picks(xy_px=np.empty((0, 2)), micrograph_name=one) for one in missing}
