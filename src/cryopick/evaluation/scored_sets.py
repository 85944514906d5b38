"""Which picks belong to which labels: read both, agree on names and diameters, and say what is left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import CRYOPPP_IMAGES, CRYOPPP_LABELS, open_dataset
from cryopick.data.labels import Labels, read_labels
from cryopick.errors import CryopickError, InputError, SettingsError
from cryopick.geometry.transforms import TRANSFORMS
from cryopick.geometry.units import Length
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.pickers.protocol import gives_probabilities
from cryopick.runs.folder import SUMMARY, RunFolder
from cryopick.types import Picks


@dataclass(frozen=True, eq=False)
class PickedSet:
    """Picks to score.

    Parameters
    ----------
    candidates : by micrograph; those kept have no reason, those that another threshold would keep too have
        `is_threshold_only` True, the others can never be kept
    is_probability : True where the scores are known to be probabilities
    failed : micrographs that could not be picked
    score_meaning : what the picker says of its scores; "" where unknown
    """

    candidates: Mapping[str, Picks]
    is_threshold_only: Mapping[str, NDArray[np.bool_]]
    is_probability: bool = False
    failed: tuple[str, ...] = ()
    score_meaning: str = ""


@dataclass(frozen=True, eq=False)
class LabelledPicks:
    """One micrograph ready to be scored: labels, kept picks and all picks that some threshold keeps."""

    name: str
    kept: Picks
    curve: Picks
    particles_xy_px: NDArray[np.float64]
    uncertain_xy_px: NDArray[np.float64]
    diameter_px: float


def read_picked_set(picks: Path | str | Mapping[str, Picks] | Sequence[Picks]) -> PickedSet:
    """A run folder, any coordinate file or folder of them, or picks in memory."""
    if isinstance(picks, str | Path):
        folder = RunFolder(Path(picks))
        if folder.is_run:
            return _read_run(folder)
        from cryopick.io.coordinates.formats import read_picks

        picks = read_picks(Path(picks))
    elif not isinstance(picks, Mapping):
        by_name = {one.micrograph_name: one for one in picks}
        if len(by_name) < len(picks):
            raise InputError("two picks in the list are for one micrograph; join them, or give each its name")
        picks = by_name
    return PickedSet(picks, {name: one.is_kept for name, one in picks.items()})


def _read_run(folder: RunFolder) -> PickedSet:
    from cryopick.runs.results import read_summary, warn_of_lost_records
    from cryopick.runs.threshold import at_threshold

    if not (folder.path / SUMMARY).is_file():
        raise InputError(f"{folder.path}: the run is not finished ({SUMMARY} is missing); run the same command again")
    folder.refuse_unfinished()
    summary = read_summary(folder.path)
    threshold = float(summary["threshold"])
    verdicts = summary.get("verdicts", {})
    candidates, is_threshold_only = {}, {}
    records = folder.records()
    warn_of_lost_records(folder.path, len(records), summary)
    for record in records:
        if record.is_done:
            every = folder.read_candidates(record)
            belief = float(verdicts.get(record.name, {}).get("belief", 1.0))
            candidates[record.name] = at_threshold(every, threshold, belief=belief)
            is_threshold_only[record.name] = every.is_kept
    return PickedSet(
        candidates,
        is_threshold_only,
        _are_probabilities(folder, summary),
        tuple(summary.get("failed", ())),
        str(summary.get("score_meaning", "")),
    )


def _are_probabilities(folder: RunFolder, summary: Mapping[str, Any]) -> bool:
    """Whether the scores of a run are calibrated probabilities; the picker says so for runs of version 0.1."""
    from cryopick.runs.stored_settings import plan_of_run

    told = summary.get("score_is_probability")
    if told is not None:
        return bool(told)
    try:
        return gives_probabilities(plan_of_run(folder).picker)
    except CryopickError:  # a picker that is not installed here
        return False


def read_truth(
    path: Path, *, flip_y: str | None = None, shapes_yx: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, Labels]:
    """Labels from label files, or from a data set that keeps its images in a folder `micrographs`, or several of them.

    Such data sets (a simulation, CryoPPP as published or a folder of its sets) are opened as ones, which checks their
    frame on the images. Micrographs of several sets are named by their paths, as `cryopick pick` names them.

    Parameters
    ----------
    flip_y : as in `cryopick.data.datasets.open_dataset`; "auto" needs images
    shapes_yx : sizes of the micrographs by name, for labels that come without images and count y from below

    Raises
    ------
    InputError
        If labels without images are to be flipped and the size of a micrograph is unknown.
    """
    if (path / CRYOPPP_IMAGES).is_dir() or _holds_sets(path):
        dataset = open_dataset(path, flip_y=flip_y)
        several = len({item.group for item in dataset}) > 1
        return {
            item.source.path.relative_to(path).as_posix() if several else item.name: item.labels
            for item in dataset
            if item.labels is not None
        }
    labels = read_labels(path, shapes_yx=dict(shapes_yx or {}))
    if flip_y == "auto":
        raise InputError(
            f"{path}: are labels without images, on which the orientation could be measured; give the data set with "
            "its images, or flip_y yes or no"
        )
    return labels if flip_y != "yes" else _flipped(path, labels, shapes_yx or {})


def _holds_sets(path: Path) -> bool:
    return path.is_dir() and any((one / CRYOPPP_LABELS).is_dir() for one in path.iterdir())


def _flipped(path: Path, labels: Mapping[str, Labels], shapes_yx: Mapping[str, tuple[int, int]]) -> dict[str, Labels]:
    found = match_micrograph_names(labels, shapes_yx)
    unknown = [name for name in labels if name not in found]
    if unknown:
        raise InputError(
            f"{path}: to count y from the other end, the height of {unknown[0]} is needed, and no picks tell it; give "
            "the data set with its images"
        )
    return {
        name: replace(one, xy_px=TRANSFORMS["flip_y"](one.xy_px, shapes_yx[found[name]]))
        for name, one in labels.items()
    }


def pair_up(
    picked: PickedSet,
    labels: Mapping[str, Labels],
    *,
    diameter: Length | None,
    pixel_size_angstrom: float | None,
    skip_unpicked: bool,
    notes: list[str],
) -> list[LabelledPicks]:
    """Each labelled micrograph with its picks, by name; `notes` grows by what is left out or counted as missed.

    Raises
    ------
    InputError
        If no labelled micrograph has picks.
    SettingsError
        If a diameter is unknown.
    """
    found = match_micrograph_names(labels, picked.candidates)
    if not found:
        raise InputError(
            f"none of the {len(labels)} labelled micrographs ({some_names(labels)}) has picks "
            f"(these have: {some_names(picked.candidates)}); names must agree, folder and extension aside"
        )
    unlabelled = sorted(set(picked.candidates) - set(found.values()))
    if unlabelled:
        notes.append(
            f"{len(unlabelled)} micrographs have picks but no labels and are not scored: {some_names(unlabelled)}"
        )
    unpicked = sorted(set(labels) - set(found))
    if unpicked and skip_unpicked:
        notes.append(f"{len(unpicked)} labelled micrographs without picks are left out: {some_names(unpicked)}")
    elif unpicked:
        failed = f", {len(picked.failed)} of the run failed" if picked.failed else ""
        notes.append(
            f"{len(unpicked)} labelled micrographs have no picks and count with all their particles missed"
            f"{failed}: {some_names(unpicked)}"
        )
    scored = []
    for name in sorted(labels):
        if name not in found and skip_unpicked:
            continue
        label = labels[name]
        picks = picked.candidates[found[name]] if name in found else Picks(xy_px=np.zeros((0, 2)), micrograph_name=name)
        is_candidate = picked.is_threshold_only[found[name]] if name in found else np.zeros(0, dtype=bool)
        size = pixel_size_angstrom or picks.pixel_size_angstrom or label.pixel_size_angstrom
        scored.append(
            LabelledPicks(
                name=name,
                kept=picks.kept(),
                curve=picks.take(is_candidate),
                particles_xy_px=label.xy_px[~label.is_uncertain],
                uncertain_xy_px=label.xy_px[label.is_uncertain],
                diameter_px=_diameter_px(diameter, label, size),
            )
        )
    if all(len(one.particles_xy_px) == 0 for one in scored):
        notes.append("the labels hold no particle, so every pick that is not ignored is false and recall is undefined")
    return scored


def _diameter_px(diameter: Length | None, label: Labels, pixel_size_angstrom: float | None) -> float:
    if diameter is not None:
        if diameter.unit == "A" and pixel_size_angstrom is None:
            raise SettingsError(
                f"{label.micrograph_name}: diameter {diameter.as_typed} is in Å and neither picks nor labels say the "
                "pixel size; give --pixel-size (Å per pixel), or the diameter in pixels, for example 108px"
            )
        return diameter.middle_px(pixel_size_angstrom)
    if label.diameter_px is None:
        raise SettingsError(
            f"{label.micrograph_name}: the labels do not say the particle diameter, and matching needs it; "
            "give --diameter, for example 180A or 108px"
        )
    return label.diameter_px


def some_names(names: Iterable[str]) -> str:
    """The first of some names, in their order."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")
