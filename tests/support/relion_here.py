"""RELION as it is installed here, for tests: cutting out boxes through the one driver of its programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from cryopick.evaluation.relion_programs import Relion, Stage, extract, require_relion, run_stage


def run_relion(folder: Path, words: Sequence[str], *, output: str = ".") -> None:
    """A program in a project folder."""
    run_stage(Stage(name=Path(words[0]).name, words=words, folder=output, time_limit_s=300.0), folder)


def relion_with(*programs: str) -> Relion:
    return require_relion(programs)


def cut_out(
    folder: Path,
    picks_folder: str,
    *,
    box_px: int,
    suffix: str = "_picks.star",
    background_radius_px: int | None = None,
    is_inverted: bool = False,
) -> NDArray[np.float32]:
    """(n, box, box) what RELION cuts out of `micrographs.star` at picks, in the order of the stacks' names."""
    words = extract(
        relion_with("relion_preprocess"),
        micrographs="micrographs.star",
        picks_folder=picks_folder,
        suffix=suffix,
        folder="Extract",
        box_px=box_px,
        scaled_px=box_px,
        background_radius_px=background_radius_px,
        is_inverted=is_inverted,
    )
    run_relion(folder, words, output="Extract")
    return np.concatenate([mrcfile.read(path) for path in sorted((folder / "Extract").rglob("*.mrcs"))])
