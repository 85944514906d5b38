"""Picks after a person's marks, written for RELION, cryoSPARC and every other program whose format is known."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cryopick.errors import SettingsError
from cryopick.io.coordinates.formats import FORMATS, write_picks
from cryopick.io.coordinates.relion import (
    relion_list_text,
    relion_micrograph_text,
    relion_particles_text,
)
from cryopick.io.files.atomic import explain_write_errors, write_text_atomic
from cryopick.runs.record import PICKS_TAIL
from cryopick.types import Picks

LIST, PARTICLES, SUMMARY, PICKS = "autopick.star", "particles.star", "summary.json", "picks"


@dataclass(frozen=True, kw_only=True)
class EditedMicrograph:
    """One micrograph to write.

    Parameters
    ----------
    key : where its file lies below `picks/`
    relion_name : as RELION knows it
    picks : after the marks
    is_bad : left out, since a person says so
    added, removed : how many picks a person added, and how many candidates above the cut were taken away
    """

    name: str
    key: str
    relion_name: str
    picks: Picks
    is_bad: bool = False
    added: int = 0
    removed: int = 0


@dataclass
class Export:
    """What was written; also `summary.json`."""

    micrographs: int = 0
    particles: int = 0
    left_out_as_bad: list[str] = field(default_factory=list)
    outside: int = 0
    """Places outside their micrograph, which are not written."""
    added: int = 0
    removed: int = 0
    formats: list[str] = field(default_factory=list)
    cut: dict[str, Any] = field(default_factory=dict)


def export_edited(
    output: Path,
    micrographs: Iterable[EditedMicrograph],
    *,
    place: str,
    formats: Sequence[str] = (),
    diameter_px: float | None = None,
    cut: dict[str, Any] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Export:
    """Write `autopick.star`, `picks/`, `particles.star`, `summary.json`, and a folder for each further format.

    The folder is replaced as a whole: whoever reads it sees the former export or this one.

    Parameters
    ----------
    output : the folder, such as `RUN/edited`
    place : what RELION calls `output`, counted from its project folder
    formats : names from `cryopick.io.coordinates.formats.FORMATS`
    diameter_px : from which formats of boxes take their size where a pick has none

    Raises
    ------
    SettingsError
        If a format is unknown, or lacks what it needs.
    OutputError
        If the folder cannot be written; the former export stays.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise SettingsError(f"no format {', '.join(unknown)}; known: {', '.join(FORMATS)}")
    told = Export(formats=list(formats), cut=dict(cut or {}))
    written: list[EditedMicrograph] = []
    new, old = output.with_name(f"{output.name}.new"), output.with_name(f"{output.name}.old")
    with explain_write_errors(output):
        for left in (new, old):
            if left.exists():
                shutil.rmtree(left)
        new.mkdir(parents=True)
    try:
        for number, one in enumerate(micrographs, start=1):
            if one.is_bad:
                told.left_out_as_bad.append(one.name)
            else:
                inside = _inside(one.picks)
                told.outside += len(one.picks) - len(inside)
                kept = replace(one, picks=inside)
                write_text_atomic(new / PICKS / f"{one.key}{PICKS_TAIL}", relion_micrograph_text(inside))
                written.append(kept)
            if on_step is not None:
                on_step(number)
        told.micrographs = len(written)
        told.particles = sum(len(one.picks) for one in written)
        told.added, told.removed = sum(one.added for one in written), sum(one.removed for one in written)
        files = [(PurePosixPath(place) / PICKS / f"{one.key}{PICKS_TAIL}").as_posix() for one in written]
        write_text_atomic(new / LIST, relion_list_text([one.relion_name for one in written], files))
        bases = [PurePosixPath(one.name).name for one in written]
        is_unique = len(set(bases)) == len(bases)
        named = [
            replace(one.picks, micrograph_name=base if is_unique else one.name)
            for one, base in zip(written, bases, strict=True)
        ]
        write_text_atomic(new / PARTICLES, relion_particles_text(named))
        for name in formats:
            every = [replace(one.picks, micrograph_name=one.name) for one in written]
            side = None if diameter_px is None else _even(diameter_px)
            write_picks(every, f"{new / name}/", format=name, box_px=side, rows="relion")
        write_text_atomic(new / SUMMARY, json.dumps(_plain(told), indent=1) + "\n")
        with explain_write_errors(output):
            if output.exists():
                output.rename(old)
            new.rename(output)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return told


def _inside(picks: Picks) -> Picks:
    if picks.shape_yx is None:
        return picks
    height, width = picks.shape_yx
    is_inside = ((picks.xy_px >= -0.5) & (picks.xy_px < np.array([width - 0.5, height - 0.5]))).all(axis=1)
    return picks.take(np.asarray(is_inside))


def _even(diameter_px: float) -> int:
    return max(2, 2 * math.ceil(diameter_px / 2))


def _plain(told: Export) -> dict[str, Any]:
    return {name: value for name, value in vars(told).items() if not callable(value)}
