"""A picking run as data to learn from: its picks as labels, and what it knows of its micrographs besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryopick.data.labels import Labels
from cryopick.geometry.units import Length
from cryopick.runs.folder import RunFolder
from cryopick.runs.picks import is_picking_run, labels_of_run_at
from cryopick.runs.sizes import run_diameter
from cryopick.runs.stored_settings import plan_of_run


@dataclass(frozen=True, kw_only=True)
class RunAsData:
    """What need not be given again where a run is learnt from.

    Parameters
    ----------
    folder : of the run
    labels : kept picks by micrograph, each with the diameter that the run knows; None where a file in the folder is
        learnt from instead of the run's own picks
    diameter : of the particles, as the run was told or has measured; None where it knows none
    pixel_size_angstrom : that the run was told, above what files say; None where it was told none
    contrast : how particles look
    picker : that picked
    weights : that it was told to pick with, or that it trained for itself; None for those of the package
    as_ : the published configuration that it was told to pick as
    """

    folder: Path
    labels: Mapping[str, Labels] | None
    diameter: Length | None
    pixel_size_angstrom: float | None
    contrast: Literal["dark", "bright"]
    picker: str
    weights: str | None
    as_: str | None


def run_as_data(path: Path | str) -> RunAsData | None:
    """What a run folder, or a table in one, says to somebody who learns from it; None where it is neither.

    Raises
    ------
    InputError, RunFolderError
        If the run is not finished, or damaged.
    """
    path = Path(path)
    folder = next((one for one in (path, path.parent) if one.is_dir() and is_picking_run(one)), None)
    if folder is None:
        return None
    plan = plan_of_run(RunFolder(folder))
    told = [getattr(plan.picker, name, None) for name in ("weights", "model")]
    own = None if plan.survey is None else plan.survey.trained_model
    weights = next((one for one in (*told, own) if one is not None), None)
    diameter = run_diameter(plan.picker, plan.survey)
    return RunAsData(
        folder=folder,
        labels=_labels(folder, diameter) if folder == path else None,
        diameter=diameter,
        pixel_size_angstrom=plan.settings.run.pixel_size_angstrom,
        contrast=plan.settings.run.contrast,
        picker=plan.settings.picker.name,
        weights=None if weights is None else str(weights),
        as_=plan.settings.run.as_,
    )


def _labels(folder: Path, diameter: Length | None) -> dict[str, Labels]:
    """Kept picks as labels; a micrograph whose picks have no diameter, as one without any, has that of the run."""
    labels = labels_of_run_at(folder) or {}
    if diameter is None:
        return labels
    return {
        name: one
        if one.diameter_px is not None
        else replace(one, diameter_px=diameter.middle_px(one.pixel_size_angstrom))
        for name, one in labels.items()
    }
