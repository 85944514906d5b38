"""The page of a validation: the papers' table first, then what stands behind each row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.io.images.mrc import read_mrc_header, read_mrc_sections
from cryopick.io.structures.volume import read_volume
from cryopick.pages.parts import Curves, Picture, Table
from cryopick.pages.render import render
from cryopick.types import Volume
from cryopick.workflows.validate3d.geometry import BoxGeometry
from cryopick.workflows.validate3d.measure import read_curves
from cryopick.workflows.validate3d.pictures import (
    directions_png,
    image_png,
    local_resolution_png,
    slices_and_projections,
)
from cryopick.workflows.validate3d.settings import COMPARISONS
from cryopick.workflows.validate3d.stages import DONE, LOCAL_RESOLUTION
from cryopick.workflows.validate3d.table import Row, angstrom, share, shown_cells

LEGEND = (
    "N: particles extracted, after second picks of one particle and boxes over the border were left out. Yield: SSNR "
    "against the true map relative to what the true picks reach; 1 is worth all of them. Expected yield: precision x "
    "recall. Success: starts whose map is right out to a quarter of the diameter. Half .143: resolution of the two "
    "half maps against each other; truth .5: of the map against the true one; mean of the starts that are right, and "
    "the best of several in brackets. Counted mean: failed starts count with the penalty, as in Cryo-EMMAE's Table 2. "
    "Underlined: failed. Bold: the best of its column."
)
_EVENNESS = "the effective share of directions that are seen, relative to the true picks' where they are known"


@dataclass(frozen=True, kw_only=True)
class ClassView:
    """One 2D class."""

    number: int
    text: str
    reason: str
    is_kept: bool
    png: bytes


@dataclass(frozen=True, kw_only=True)
class RunSection:
    """What the page shows of one run."""

    name: str
    sentence: str
    panels: tuple[Picture | Curves | Table, ...]
    classes_title: str = ""
    classes_caption: str = ""
    classes: tuple[ClassView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ValidationPage:
    """The report model of a validation."""

    title: str
    subtitle: str
    flags: tuple[str, ...]
    columns: tuple[str, ...]
    table: tuple[tuple[tuple[str, str], ...], ...]
    """Rows of texts, each with its mark: "best", "failed" or ""."""
    sentences: tuple[str, ...]
    legend: str
    overview: tuple[Curves, ...]
    runs: tuple[RunSection, ...]
    stages: Table
    settings: Table

    def html(self) -> str:
        """The page as one file."""
        return render("validation.html", page=self)


def validation_page(
    root: Path,
    rows: Sequence[Row],
    *,
    geometry: BoxGeometry,
    true_volume: Volume | None,
    flags: Sequence[str],
    sentences: Sequence[str],
    settings: Mapping[str, object],
    directions: Mapping[str, tuple[NDArray[np.float64], float]],
) -> ValidationPage:
    """The page of a finished validation.

    Parameters
    ----------
    root : its folder
    flags : sentences that hold for every number and come first
    sentences : what the table says
    directions : of each run's best start: views per solid angle (elevations, azimuths), and their evenness
    """
    best: dict[str, Path] = {}
    for row in rows:
        where = best_start(root, row)
        if where is not None:
            best.setdefault(row.run, where)
    curves = {run: read_curves(where / "Post/fsc.csv") for run, where in best.items()}
    columns, every = shown_cells(rows)
    marks = _marks(rows, columns)
    table = tuple(
        tuple((text, marks.get((number, column), "")) for column, text in zip(columns, row, strict=True))
        for number, row in enumerate(every)
    )
    kinds = [("truth", "FSC of each map against the true one", 0.5)] if true_volume is not None else []
    kinds.append(("corrected", "FSC of each map's half maps, corrected for the mask", 0.143))
    overview = tuple(
        fsc_plot(title, {run: one[kind] for run, one in curves.items() if kind in one}, geometry, level)
        for kind, title, level in kinds
    )
    runs = tuple(
        _section(
            root,
            [row for row in rows if row.run == run],
            best.get(run),
            geometry,
            true_volume=true_volume,
            directions=directions.get(run),
        )
        for run in dict.fromkeys(row.run for row in rows)
    )
    return ValidationPage(
        title=f"{', '.join(dict.fromkeys(row.run for row in rows))}: what their picks give",
        subtitle=f"Particles of {geometry.diameter_angstrom:.0f} Å in boxes of {geometry.scaled_px} px of "
        f"{geometry.pixel_size_angstrom:.2f} Å; Nyquist {geometry.nyquist_angstrom:.1f} Å.",
        flags=tuple(flags),
        columns=columns,
        table=table,
        sentences=tuple(one for one in sentences if one not in flags),
        legend=LEGEND,
        overview=overview,
        runs=runs,
        stages=stages_table(root),
        settings=Table(
            title="Settings", columns=("setting", "value"), rows=tuple((k, str(v)) for k, v in settings.items())
        ),
    )


def _marks(rows: Sequence[Row], columns: Sequence[str]) -> dict[tuple[int, str], str]:
    """Which cells are the best of their column, and which are those of failed maps."""
    found: dict[tuple[int, str], str] = {}
    for column, name, sign in (
        ("yield", "yield_share", 1),
        ("truth .5", "truth_angstrom", -1),
        ("half .143", "half_angstrom", -1),
    ):
        if column not in columns:
            continue
        judged = [
            (sign * value, k) for k, row in enumerate(rows) if row.right and (value := row.mean(name)) is not None
        ]
        judged = [one for one in judged if rows[one[1]].run not in COMPARISONS]
        if judged:
            top = max(judged)[0]
            found |= {(k, column): "best" for value, k in judged if value == top}
        found |= {(k, column): "failed" for k, row in enumerate(rows) if not row.right}
    return found


def best_start(root: Path, row: Row) -> Path | None:
    """The folder of a row's best start; None where none gave a map."""
    with_map = [one for one in row.seeds if not one.failure]
    if not with_map:
        return None
    name = row.headline
    top = min(
        with_map,
        key=lambda one: (not one.is_right, np.inf if (value := getattr(one, name)) is None else value),
    )
    return root / row.run / row.selection / f"seed{top.seed}"


def fsc_plot(
    title: str, curves: Mapping[str, NDArray[np.float64]], geometry: BoxGeometry, level: float, *, caption: str = ""
) -> Curves:
    """FSC over frequency up to Nyquist; values below 0 are drawn at 0."""
    last = geometry.scaled_px // 2
    edge = geometry.scaled_px * geometry.pixel_size_angstrom
    lines = {
        name: tuple((shell / last, float(np.clip(curve[shell], 0, 1))) for shell in range(1, last + 1))
        for name, curve in curves.items()
    }
    ticks = tuple((k / 6, f"{edge / (last * k / 6):.0f}") for k in range(1, 7))
    return Curves(
        title=title,
        caption=caption or f"Line at {level:g}. The right end is Nyquist, {geometry.nyquist_angstrom:.1f} Å.",
        x_label="resolution / Å",
        y_label="FSC",
        lines=lines,
        x_ticks=ticks,
        levels=((level, f"{level:g}"),),
    )


def _section(
    root: Path,
    rows: Sequence[Row],
    best: Path | None,
    geometry: BoxGeometry,
    *,
    true_volume: Volume | None,
    directions: tuple[NDArray[np.float64], float] | None,
) -> RunSection:
    row = rows[0]
    if best is None:
        return RunSection(name=row.run, sentence=f"No map: {row.seeds[0].failure}.", panels=())
    curves = read_curves(best / "Post/fsc.csv")
    panels: list[Picture | Curves | Table] = [
        fsc_plot(
            "FSC of the best start",
            {name: curves[name] for name in ("unmasked", "masked", "corrected", "truth") if name in curves},
            geometry,
            0.143,
            caption="unmasked, masked and corrected for the mask are of the half maps; truth is of the map against "
            "the true one, whose limit is 0.5.",
        )
    ]
    shown = [read_volume(best / "Refine/map.mrc")]
    names = ["the map"]
    if true_volume is not None:
        aligned = read_volume(best / "Post/aligned.mrc")
        shown = [aligned, true_volume, _difference(aligned, true_volume)]
        names = ["the map, laid onto the true one", "the true map", "their difference"]
    panels.append(
        Picture(
            title="Central slices along z, y, x; projections along z, y, x",
            caption=f"Rows: {'; '.join(names)}.",
            png=slices_and_projections(shown),
        )
    )
    if (best / LOCAL_RESOLUTION / DONE).is_file():
        panels.append(_local_resolution(best))
    starts = sorted((root / row.run / row.selection).glob("seed*/Initial/initial.mrc"))
    if starts:
        panels.append(
            Picture(
                title="First volumes of the starts",
                caption=f"Rows: {', '.join(one.parents[1].name for one in starts)}; each in its own orientation.",
                png=slices_and_projections([read_volume(one) for one in starts]),
            )
        )
    if directions is not None:
        panels.append(
            Picture(
                title="Directions of view",
                caption="Elevation over azimuth, particles per solid angle, logarithmic, empty where there are none. "
                f"Evenness {directions[1]:.2f}: {_EVENNESS}.",
                png=directions_png(directions[0]),
            )
        )
    panels.append(_starts_table(rows))
    classes = _classes(root / row.run / "Class2D")
    kept = sum(one.is_kept for one in classes)
    return RunSection(
        name=row.run,
        sentence=_sentence(row),
        panels=tuple(panels),
        classes=classes,
        classes_title=f"2D classes: {kept} of {len(classes)} kept",
        classes_caption="Sorted by how much the average stands out of the noise; green is kept, red is dropped, for "
        "the reason that shows when the pointer rests on it.",
    )


def _local_resolution(start: Path) -> Picture:
    """Of the map as it was reconstructed, not laid onto the true one: RELION's half maps are there."""
    found = read_volume(start / LOCAL_RESOLUTION / "local_resolution.mrc")
    facts = json.loads((start / LOCAL_RESOLUTION / DONE).read_text(encoding="utf-8"))["facts"]
    low, middle, high = facts["quartiles_angstrom"]
    mask = read_volume(start / "Post/mask.mrc").density > 0.5
    return Picture(
        title="Local resolution, along z, y, x",
        caption="Central slices of the map in its own orientation, coloured inside the mask, the scale in Å: half of "
        f"it lies between {low:.1f} and {high:.1f} Å, the middle is {middle:.1f} Å. By relion_postprocess --locres.",
        png=local_resolution_png(found.density, mask, read_volume(start / "Refine/map.mrc").density),
    )


def _difference(aligned: Volume, truth: Volume) -> Volume:
    """The map, scaled to the true one where both have the most in common, minus it."""
    scale = float((aligned.density * truth.density).sum() / max(float((aligned.density**2).sum()), 1e-12))
    return Volume(aligned.density * np.float32(scale) - truth.density, truth.voxel_size_angstrom)


def _sentence(row: Row) -> str:
    parts = [f"{row.given:,} picks, {row.particles:,} extracted"]
    if row.duplicates:
        parts.append(f"{row.duplicates:,} second picks of a particle left out")
    if row.at_border:
        parts.append(f"{row.at_border:,} at the border left out")
    if row.true_particles is not None:
        parts.append(f"{row.true_particles:,} of the selected are particles")
    return ", ".join(parts) + "."


def _starts_table(rows: Sequence[Row]) -> Table:
    found = []
    for row in rows:
        nyquist = row.nyquist_angstrom
        for one in row.seeds:
            verdict = one.failure or ("right" if one.is_right else "failed")
            found.append(
                (
                    f"{row.selection}, seed {one.seed}",
                    verdict + (", mirrored" if one.mirrored else ""),
                    angstrom(one.half_angstrom, nyquist),
                    angstrom(one.truth_angstrom, nyquist),
                    share(one.yield_share),
                    "-" if one.score is None else f"{one.score:.4g}",
                    f"{one.cpu_seconds:.0f}",
                )
            )
    return Table(
        title="Starts",
        columns=("start", "map", "half .143", "truth .5", "yield", "score of the first volume", "CPU s"),
        rows=tuple(found),
    )


def _classes(folder: Path) -> tuple[ClassView, ...]:
    if not (folder / DONE).is_file():
        return ()
    path = folder / "averages.mrcs"
    averages, _ = read_mrc_sections(path, read_mrc_header(path))
    facts = json.loads((folder / DONE).read_text(encoding="utf-8"))["facts"]["classes"]
    views = []
    for one in sorted(facts, key=lambda item: -(item["quality"] or 0.0)):
        known = f", {100 * one['precision']:.0f} % true" if one.get("precision") is not None else ""
        views.append(
            ClassView(
                number=one["number"],
                text=f"{one['particles']:,}{known}",
                reason=one["reason"],
                is_kept=one["is_kept"],
                png=image_png(np.asarray(averages[one["number"] - 1], np.float32)),
            )
        )
    return tuple(views)


def stages_table(root: Path) -> Table:
    """Every finished stage with its time."""
    found = []
    for path in sorted(root.rglob(DONE)):
        if any(part.endswith(".partial") for part in path.parts):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        name = path.parent.relative_to(root).as_posix()
        found.append((name, f"{content['seconds']:.1f}", f"{content['cpu_seconds']:.1f}"))
    return Table(title="Stages", columns=("stage", "wall s", "CPU s of cryopick"), rows=tuple(found))
