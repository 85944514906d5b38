"""Labels that teach a picker, made from what a person marked on the picks of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.io.coordinates.csv import BACKGROUND, PARTICLE
from cryopick.io.files.atomic import explain_write_errors, write_text_atomic
from cryopick.io.set_json import write_set_settings
from cryopick.types import Picks
from cryopick.workflows.edits import NEAR_DIAMETERS, Mark, Marks, is_inside_polygon
from cryopick.workflows.run_index import RunIndex

MICROGRAPHS = "micrographs.txt"
CONFIDENT_PRECISION = 0.95
"""Expected precision of the picks that teach besides the marks, as in self-training."""
FEW_LABELS = 30
JUNK_STEP_DIAMETERS, MOST_JUNK_PLACES = 0.5, 400
"""Junk is background all over: places half a diameter apart, at most as many a micrograph."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """One micrograph that a person marked.

    Parameters
    ----------
    key : of its files in the run
    source : the image
    marks : a person's
    picks : at the cut, with the marks
    confident : those of the picks that teach besides the marks where these are not complete
    """

    key: str
    source: Path
    marks: Marks
    picks: Picks
    confident: NDArray[np.bool_]
    diameter_px: float
    pixel_size_angstrom: float | None = None


@dataclass
class Teaching:
    """What a teaching set holds."""

    particles: int = 0
    background: int = 0
    confident: int = 0
    micrographs: int = 0
    complete: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Their images."""
    missing: list[str] = field(default_factory=list)
    """Images that are not there any more; their marks are left out."""
    diameter_px: float | None = None
    pixel_size_angstrom: float | None = None

    @property
    def doubts(self) -> list[str]:
        """What a person should know before a learning."""
        told = []
        if self.particles + self.background < FEW_LABELS:
            told.append(
                f"only {self.particles + self.background} labels; a hundred, over several micrographs, are safer"
            )
        if self.micrographs == 1:
            told.append("labels of one micrograph: views or ice that it lacks cannot be learnt")
        if self.missing:
            told.append(f"{len(self.missing)} marked micrographs are not there any more: {', '.join(self.missing[:3])}")
        return told


def confident_score(index: RunIndex) -> float | None:
    """The lowest score from which on the picks of a run are expected to be right to 95 %; None where nobody knows."""
    curve = index.curve()
    is_sure = (curve.precision >= CONFIDENT_PRECISION) & (curve.kept > 0)
    return float(curve.threshold[np.argmax(is_sure)]) if is_sure.any() else None


def labels_of(taught: Taught) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Particles and background that one micrograph teaches, (n, 2) and (k, 2), and how many of the particles are picks.

    On a complete one what is picked are the particles, and all else is background without being listed.
    """
    own = taught.marks.xy_px("yes")
    if taught.marks.is_complete:
        return taught.picks.xy_px, np.zeros((0, 2)), max(0, len(taught.picks) - len(own))
    sure = taught.picks.xy_px[taught.confident]
    near = (NEAR_DIAMETERS * taught.diameter_px) ** 2
    is_new = np.array([not len(own) or ((own - xy) ** 2).sum(axis=1).min() > near for xy in sure], bool)
    sure = sure[is_new] if len(sure) else sure
    background = [taught.marks.xy_px("no")]
    background += [_places_in(mark, taught.diameter_px) for mark in taught.marks.of_kind("junk")]
    return np.concatenate([own, sure]), np.concatenate(background), len(sure)


def _places_in(junk: Mark, diameter_px: float) -> NDArray[np.float64]:
    corners = np.array(junk.points)
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = JUNK_STEP_DIAMETERS * diameter_px
    step = max(step, float(np.sqrt(np.prod(np.maximum(high - low, 1.0)) / MOST_JUNK_PLACES)))
    x, y = (np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    inside = grid[is_inside_polygon(grid, corners)]
    return inside if len(inside) else corners.mean(axis=0, keepdims=True)


def teaching_counts(micrographs: Iterable[Taught]) -> Teaching:
    """What `write_teaching_set` would write."""
    return _collect(micrographs, None)


def write_teaching_set(folder: Path, micrographs: Iterable[Taught]) -> Teaching:
    """Write a set of labels that `open_dataset` and `cryopick finetune` read, in place of an earlier one.

    `folder` gets a CSV file of `x,y,kind` for each micrograph, `set.json`, and `micrographs.txt`, the list of images.

    Raises
    ------
    InputError
        If nothing is marked, or the path of an image cannot stand in a list.
    OutputError
        If the folder cannot be written.
    """
    with explain_write_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    told = _collect(micrographs, folder)
    if not told.micrographs:
        raise InputError("nothing is marked that could teach: mark particles, remove wrong picks, or tick complete")
    return told


def _collect(micrographs: Iterable[Taught], folder: Path | None) -> Teaching:
    told = Teaching()
    diameters: list[float] = []
    sizes: list[float] = []
    for one in micrographs:
        if not one.source.is_file():
            told.missing.append(one.key)
            continue
        particles, background, picked = labels_of(_inside(one))
        if not len(particles) and not len(background) and not one.marks.is_complete:
            continue
        told.micrographs += 1
        told.particles += len(particles)
        told.background += len(background)
        told.confident += picked
        if one.marks.is_complete:
            told.complete.append(one.key)
        diameters.append(one.diameter_px)
        sizes += [one.pixel_size_angstrom] if one.pixel_size_angstrom else []
        if "\n" in str(one.source) or "\r" in str(one.source):
            raise InputError(f"{one.source!s}: a path with a line break cannot stand in a list; rename the file")
        told.sources.append(str(one.source))
        if folder is not None:
            rows = [f"{x:.3f},{y:.3f},{PARTICLE}\n" for x, y in particles.tolist()]
            rows += [f"{x:.3f},{y:.3f},{BACKGROUND}\n" for x, y in background.tolist()]
            write_text_atomic(folder / f"{one.key}.csv", "x,y,kind\n" + "".join(rows))
    told.diameter_px = float(np.median(diameters)) if diameters else None
    told.pixel_size_angstrom = float(np.median(sizes)) if sizes else None
    if folder is not None and told.sources:
        write_text_atomic(
            folder.with_name(f"{folder.name}-{MICROGRAPHS}"), "".join(f"{path}\n" for path in told.sources)
        )
        settings = {
            "diameter_px": told.diameter_px,
            "pixel_size_angstrom": told.pixel_size_angstrom,
            "labels": "sparse",
            "complete": told.complete,
        }
        write_set_settings(folder, settings)
    return told


def _inside(one: Taught) -> Taught:
    """Without places outside the image, as after another micrograph took its name."""
    shape = one.picks.shape_yx
    if shape is None:
        return one
    is_in = ((one.picks.xy_px >= 0) & (one.picks.xy_px <= [shape[1] - 1, shape[0] - 1])).all(axis=1)
    by_id = {
        name: mark
        for name, mark in one.marks.by_id.items()
        if mark.kind == "junk" or (0 <= mark.x <= shape[1] - 1 and 0 <= mark.y <= shape[0] - 1)
    }
    return replace(
        one,
        picks=one.picks.take(np.asarray(is_in)),
        confident=one.confident[is_in],
        marks=replace(one.marks, by_id=by_id),
    )
