"""The picks of a run from its records and candidates, with all that the run knows of them: sizes, diameters, reasons.

The tables at the top of a run folder are for other programs and say less; they may also be older than the threshold,
where `cryopick rethreshold` was stopped in the middle. Records and candidates never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.data.labels import Labels
from cryopick.errors import InputError
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.runs.folder import AUTOPICK, CANDIDATES, PARTICLES, PICKS, RECORDS, SUMMARY, RunFolder
from cryopick.runs.record import Record
from cryopick.runs.results import warn_of_lost_records
from cryopick.runs.sizes import SizesAtPixelSize, SizesSeen, run_diameter, sizes_at
from cryopick.runs.stored_settings import plan_of_run
from cryopick.runs.threshold import Cut, at_threshold, cut_of
from cryopick.types import Picks

_SAME_PLACE_PX = 0.002  # candidates are stored to 0.001 px


@dataclass(frozen=True)
class RunMicrograph:
    """One finished micrograph of a run.

    Parameters
    ----------
    candidates : all of them, under the record's name, the reason filled in for each that is not kept; diameters are
        the picker's, or the run's where it gave none
    box_px : the suggested box, None where no diameter is known
    """

    record: Record
    candidates: Picks
    box_px: int | None


def is_picking_run(folder: Path) -> bool:
    """True for what `cryopick pick -o` made; trainings have a config.toml too, but no records."""
    return RunFolder(folder).is_run and (folder / RECORDS).is_dir()


def run_of(path: Path) -> RunFolder | None:
    """The run folder that `path` is, or of which it is a table, a folder or a file of picks; else None."""
    for folder in (path, *path.parents):
        if is_picking_run(folder):
            is_inside = path == folder or path.relative_to(folder).parts[0] in (PARTICLES, AUTOPICK, PICKS, CANDIDATES)
            return RunFolder(folder) if is_inside else None
    return None


def picks_of_run(folder: RunFolder, *, with_rejected: bool) -> list[Picks]:
    """The picks of every finished micrograph at the run's threshold, or all candidates with the reasons for rejection.

    Raises
    ------
    InputError
        If the run is not finished.
    RunFolderError
        If a record or a table of candidates is damaged.
    """
    every = each_micrograph_of_run(folder)
    return [one.candidates if with_rejected else one.candidates.kept() for one in every]


def micrographs_of_run(folder: RunFolder) -> list[RunMicrograph]:
    """Every finished micrograph of a run, sorted by name; errors as in `picks_of_run`."""
    return list(each_micrograph_of_run(folder))


def each_micrograph_of_run(folder: RunFolder) -> Iterator[RunMicrograph]:
    """As `micrographs_of_run`, one after the other: before, all are looked through for what they have in common."""
    if not (folder.path / SUMMARY).is_file():
        raise InputError(
            f"{folder.path}: the run is not finished ({SUMMARY} is missing); run its `cryopick pick` command again"
        )
    plan = plan_of_run(folder)
    records = folder.records()
    warn_of_lost_records(folder.path, len(records))
    records = [record for record in records if record.is_done]
    cut = cut_of(folder, plan)
    seen = SizesSeen(run_diameter(plan.picker, plan.survey))
    for record in records:
        seen.add(_at_cut(folder, record, cut).kept())
    sizes = seen.sizes()
    for record in records:
        yield _with_sizes(record, _at_cut(folder, record, cut), sizes_at(sizes, record.pixel_size_angstrom))


def _at_cut(folder: RunFolder, record: Record, cut: Cut) -> Picks:
    return at_threshold(folder.read_candidates(record), cut.threshold, belief=cut.belief_in(record.name))


def labels_of_run_at(path: Path | str) -> dict[str, Labels] | None:
    """The kept picks of the run folder `path` as labels, by the names that its tables give; None if it is no run."""
    folder = RunFolder(Path(path))
    if not is_picking_run(folder.path):
        return None
    labels = {}
    for one in each_micrograph_of_run(folder):
        kept = one.candidates.kept()
        known = kept.diameter_px[np.isfinite(kept.diameter_px)]
        labels[one.record.relion_name] = Labels(
            xy_px=kept.xy_px,
            is_uncertain=np.zeros(len(kept), dtype=np.bool_),
            diameter_px=float(np.median(known)) if len(known) else None,
            micrograph_name=one.record.relion_name,
            pixel_size_angstrom=one.record.pixel_size_angstrom,
            score=kept.score,
        )
    return labels


def completed_from_run(
    found: Mapping[str, Picks], micrographs: Sequence[RunMicrograph], source: Path, *, with_rejected: bool
) -> tuple[dict[str, Picks], dict[str, int], list[str]]:
    """What a table of a run says, under the names that stand there, with what the run knows besides.

    Picks that somebody edited, or that are older than the run's threshold, stay as they are in the file.

    Returns
    -------
    picks : by the names of `found`
    box_px : suggested boxes, where known
    warnings : sentences for the user
    """
    by_name = {one.record.name: one for one in micrographs}
    by_relion_name = {one.record.relion_name: one.record.name for one in micrographs}
    name_of = {name: by_relion_name[name] for name in found if name in by_relion_name}
    rest = [name for name in found if name not in name_of]
    name_of |= match_micrograph_names(rest, by_name)
    picks: dict[str, Picks] = {}
    box_px: dict[str, int] = {}
    other = []
    for name, one in found.items():
        if name not in name_of:
            picks[name] = one
            continue
        ours = by_name[name_of[name]]
        if ours.box_px is not None:
            box_px[name] = ours.box_px
        kept = ours.candidates.kept()
        is_same = len(one) == len(kept) and bool(np.allclose(one.xy_px, kept.xy_px, rtol=0, atol=_SAME_PLACE_PX))
        if is_same:
            picks[name] = replace(ours.candidates if with_rejected else kept, micrograph_name=name)
        else:
            other.append(name)
            picks[name] = replace(
                one,
                diameter_px=_diameters_at(one.xy_px, ours),
                shape_yx=ours.record.shape_yx,
                pixel_size_angstrom=ours.record.pixel_size_angstrom,
            )
    warnings = []
    if other:
        warnings.append(
            f"{source}: holds other picks than the run keeps at its threshold on {len(other)} micrographs, such as "
            f"{other[0]}; those of the file are converted. Give the run folder for those of the run"
        )
    return picks, box_px, warnings


def is_within(folder: RunFolder, record: Record, source: Path) -> bool:
    """True where the candidates of a micrograph are what `source`, a file or folder of candidates, is about."""
    path = folder.candidates_path(record.key)
    return path == source or source in path.parents


def picks_file_of(folder: RunFolder, micrographs: Sequence[RunMicrograph], source: Path) -> RunMicrograph | None:
    """The micrograph whose coordinate file `source` is, if it is one of the run."""
    return next((one for one in micrographs if folder.picks_path(one.record.key) == source), None)


def _with_sizes(record: Record, candidates: Picks, sizes: SizesAtPixelSize) -> RunMicrograph:
    if sizes.diameter_px is None:
        return RunMicrograph(record, candidates, None)
    is_known = np.isfinite(candidates.diameter_px)
    completed = np.where(is_known, candidates.diameter_px, np.float32(sizes.diameter_px))
    return RunMicrograph(record, replace(candidates, diameter_px=completed), sizes.box_px)


def _diameters_at(xy_px: NDArray[np.float64], ours: RunMicrograph) -> NDArray[np.float32]:
    """(n,) Diameters of the candidates at these places; elsewhere their median."""
    candidates = ours.candidates
    if not np.isfinite(candidates.diameter_px).any() or not len(xy_px):
        return np.full(len(xy_px), np.nan, dtype=np.float32)
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(candidates.xy_px).query(xy_px)
    median = np.float32(np.nanmedian(candidates.diameter_px))
    return np.where(distance <= _SAME_PLACE_PX, candidates.diameter_px[nearest], median).astype(np.float32)
