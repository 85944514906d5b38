"""From a run's picks to maps in cryoSPARC, judged by our own code: the same for every picker, on the user's own server.

The picks become an External job as `cryopick cryosparc` makes it; extraction, 2D classes and their selection, first
maps and refinements are jobs of cryoSPARC's. What comes back are half maps and maps, whose figures are made here as
those of every other engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.cryosparc_jobs import (
    TRIES,
    JobRecord,
    PlannedJob,
    RefinedMaps,
    planned_jobs,
    refined_maps,
    require_types,
    run_jobs,
)
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.metrics.fourier_shell_correlation import (
    AGAINST_TRUTH,
    HALF_MAPS,
    fourier_shell_correlation,
    half_map_curves,
    resolution_at,
)
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.processing.volumes import resampled_volume
from cryopick.reconstruction.masks import soft_mask_of
from cryopick.runs.folder import RunFolder
from cryopick.runs.picks import RunMicrograph, is_picking_run, micrographs_of_run
from cryopick.types import Volume
from cryopick.workflows.cryosparc_job import save_to_cryosparc

RECORD, TABLE = "cryosparc.json", "maps.json"
PICKS = "picks"


@dataclass(frozen=True, kw_only=True)
class MapsAsked:
    """What is asked of cryoSPARC.

    Attributes
    ----------
    project, workspace, exposures : `P3`, `W1`, `J42.exposures`
    rows : which way y is counted there, see `io.coordinates.cryosparc`
    symmetry : point group
    seeds : of starts
    selections : of 2D classes: none, auto
    box_px, scaled_px : of the boxes, and what they are cropped to in Fourier space; None takes the run's own box, and
        no cropping
    diameter_angstrom : of the mask in which maps are compared; None takes the run's
    lane : where jobs are queued; None leaves it to the server
    """

    project: str
    workspace: str
    exposures: str
    rows: str
    symmetry: str = "C1"
    seeds: tuple[int, ...] = (1, 2, 3)
    selections: tuple[str, ...] = ("none", "auto")
    box_px: int | None = None
    scaled_px: int | None = None
    diameter_angstrom: float | None = None
    lane: str | None = None

    @property
    def where(self) -> str:
        return f"{self.project} {self.workspace}"


@dataclass(frozen=True, kw_only=True)
class CryosparcMap:
    """One selection and start; `failure` says why there is no map."""

    selection: str
    seed: int
    job: str = ""
    particles: int = 0
    half_angstrom: float | None = None
    truth_angstrom: float | None = None
    is_mirrored: bool | None = None
    failure: str = ""


def maps_asked_for(run: Path, asked: MapsAsked, *, picks_job: str = PICKS) -> list[PlannedJob]:
    """The jobs that would be made, without a server.

    Raises
    ------
    InputError, SettingsError
        If the folder is no finished run, or something asked for is impossible.
    """
    source, _, output = asked.exposures.partition(".")
    if not (source and output):
        raise SettingsError(f"exposures {asked.exposures}: expected a job and its output, such as J42.exposures")
    box_px = asked.box_px or _box_of(run)
    return planned_jobs(
        exposures=(source, output),
        picks=(picks_job, "particles"),
        box_px=box_px,
        scaled_px=asked.scaled_px or box_px,
        symmetry=asked.symmetry,
        seeds=asked.seeds,
        selections=asked.selections,
    )


def plan_text(run: Path, asked: MapsAsked) -> list[str]:
    """A line a job, for those who make them by hand or look first."""
    lines = [f"1. an External job with the picks of {run} on {asked.exposures} (picks): `cryopick cryosparc` makes it"]
    jobs = maps_asked_for(run, asked)
    return lines + [job.sentence(number) for number, job in enumerate(jobs, start=2)]


def maps_in_cryosparc(
    run: Path,
    client: Any,
    asked: MapsAsked,
    *,
    output: Path,
    truth: Path | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> list[CryosparcMap]:
    """Reconstruct from a run's picks in cryoSPARC; the same call takes up what an earlier one made.

    Parameters
    ----------
    run : a finished run folder
    client : from `cryosparc_job.connect`
    output : folder for the ids of the jobs, the maps, and `maps.json` with their figures
    truth : the true map where it is known

    Raises
    ------
    InputError, SettingsError
        If the run, or something asked for, cannot be used.
    ServerError
        If cryoSPARC refuses something or does not answer.
    JobFailedError
        If its extraction failed twice.
    """
    jobs = maps_asked_for(run, asked)
    require_types(client, jobs)
    record = JobRecord.read(output / RECORD, where=asked.where)
    if not record.uids.get(PICKS):
        saved = save_to_cryosparc(
            run, client, project=asked.project, workspace=asked.workspace, exposures=asked.exposures, rows=asked.rows
        )
        record.uids[PICKS] = [saved.job]
        record.write()
        on_line(f"picks: {saved.particles:,} particles saved as {saved.job}")
    jobs = maps_asked_for(run, asked, picks_job=record.uids[PICKS][-1])
    project = client.find_project(asked.project)
    done = run_jobs(jobs, project, project.find_workspace(asked.workspace), record, lane=asked.lane, on_line=on_line)
    diameter = asked.diameter_angstrom or _diameter_of(run)
    true_map = None if truth is None else read_volume(truth)
    found = []
    for selection in asked.selections:
        for seed in asked.seeds:
            key = f"{selection}/seed{seed}/refine"
            if key not in done:
                why = f"failed in cryoSPARC, {TRIES} times: {', '.join(record.uids.get(key, [])) or 'a job before it'}"
                found.append(CryosparcMap(selection=selection, seed=seed, failure=why))
                continue
            maps = refined_maps(project, done[key])
            figures = _figures(maps, true_map, diameter, output / selection / f"seed{seed}")
            found.append(
                CryosparcMap(selection=selection, seed=seed, job=done[key], particles=maps.particles, **figures)
            )
    content = {"asked": asdict(asked), "maps": [asdict(one) for one in found]}
    write_text_atomic(output / TABLE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return found


def table_lines(found: Sequence[CryosparcMap]) -> list[str]:
    """The figures as text, a line each."""

    def resolution(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} Å"

    lines = [f"{'2D selection':<13} {'seed':>4} {'particles':>10} {'half maps':>10} {'truth':>8}  job"]
    for one in found:
        figures = (
            f"{one.particles:>10,} {resolution(one.half_angstrom):>10} {resolution(one.truth_angstrom):>8}  {one.job}"
        )
        lines.append(f"{one.selection:<13} {one.seed:>4} " + (one.failure or figures))
    return lines


def _figures(maps: RefinedMaps, truth: Volume | None, diameter_angstrom: float, folder: Path) -> dict[str, Any]:
    """Resolution of half maps at 0.143 and against the truth at 0.5; the maps are written beside."""
    pixel = maps.pixel_size_angstrom
    half_a, half_b, whole = (Volume(one, pixel) for one in (maps.half_a, maps.half_b, maps.map))
    for name, volume in (("half1", half_a), ("half2", half_b), ("map", whole)):
        write_volume(folder / f"{name}.mrc", volume)
    box_px = len(whole.density)
    mask = soft_mask_of(whole, diameter_angstrom=diameter_angstrom)
    half = resolution_at(
        half_map_curves(half_a.density, half_b.density, mask).corrected,
        HALF_MAPS,
        box_px=box_px,
        pixel_size_angstrom=pixel,
    )
    figures: dict[str, Any] = {"half_angstrom": half if math.isfinite(half) else None}
    if truth is not None:
        fitted = resampled_volume(truth, size_px=box_px, voxel_size_angstrom=pixel)
        alignment = align_volumes(whole, fitted, diameter_angstrom=diameter_angstrom)
        true_mask = soft_mask_of(fitted, diameter_angstrom=diameter_angstrom)
        curve = fourier_shell_correlation(alignment.aligned.density, fitted.density, true_mask)
        value = resolution_at(curve, AGAINST_TRUTH, box_px=box_px, pixel_size_angstrom=pixel)
        figures |= {"truth_angstrom": value if math.isfinite(value) else None, "is_mirrored": alignment.is_mirrored}
    return figures


def _box_of(run: Path) -> int:
    boxes = [one.box_px for one in _micrographs(run) if one.box_px is not None]
    if not boxes:
        raise SettingsError(f"{run}: does not know how large its particles are; give the box (--box-size 256)")
    return 2 * math.ceil(max(boxes) / 2)


def _diameter_of(run: Path) -> float:
    for one in _micrographs(run):
        pixel, diameters = one.record.pixel_size_angstrom, one.candidates.diameter_px
        if pixel is not None and diameters is not None and len(diameters):
            return float(diameters[0]) * pixel
    raise SettingsError(f"{run}: knows no diameter in Å, in which maps are compared; give it (--diameter 180)")


def _micrographs(run: Path) -> list[RunMicrograph]:
    if not is_picking_run(run):
        raise InputError(f"{run}: is no run folder; give one that `cryopick pick` made")
    return list(micrographs_of_run(RunFolder(run)))
