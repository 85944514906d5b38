"""What RELION's programs write, read by label: columns' order and number differ between versions 3.1, 4 and 5.

A label that is missing is unknown (NaN), never guessed; `inf`, `nan` and accuracies of 999 are legal and mean that a
class is empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, FormatError
from cryopick.io.images.mrc import read_mrc_header
from cryopick.io.star import StarTable, read_star

UNKNOWN_ACCURACY = 999.0
"""RELION's accuracy of a class that no particle was given to."""
WORST_ACCURACY_DEG = 10.0
"""Coarser than this, particles cannot be aligned (yet); RELION's own warning has this limit."""
_ITERATION = re.compile(r"(.+)_(?:ct\d+_)?it(\d{3})_optimiser\.star")


@dataclass(frozen=True, eq=False)
class ModelTable:
    """A model.star: what is known of each class, and of the whole.

    Attributes
    ----------
    images : (k,) names of the references, `000001@run_it006_classes.mrcs` or a map
    share : (k,) of the particles
    accuracy_deg, accuracy_angstrom : (k,) of alignment; NaN for empty classes, and where not written
    resolution_angstrom : (k,) RELION's estimate; inf and NaN for empty classes
    current_resolution_angstrom, mean_peak_probability : of the whole; NaN where not written
    pixel_size_angstrom : of the references
    log_likelihood : of the particles of the last iteration, under the model; NaN where not written
    """

    images: tuple[str, ...]
    share: NDArray[np.float64]
    accuracy_deg: NDArray[np.float64]
    accuracy_angstrom: NDArray[np.float64]
    resolution_angstrom: NDArray[np.float64]
    current_resolution_angstrom: float
    mean_peak_probability: float
    pixel_size_angstrom: float
    log_likelihood: float

    @property
    def is_empty(self) -> NDArray[np.bool_]:
        """(k,) classes without particles."""
        return (self.share <= 0) | ~np.isfinite(self.share)


@dataclass(frozen=True)
class Iteration:
    """A whole iteration of a refinement; files as RELION names them, from the project folder.

    Attributes
    ----------
    models : one, or one for each half set
    has_converged : of auto-refinement
    accuracy_deg : of alignment, of auto-refinement; NaN where not written
    """

    number: int
    optimiser: str
    data: str
    models: tuple[str, ...]
    sampling: str
    root: str
    has_converged: bool
    accuracy_deg: float


@dataclass(frozen=True)
class FinishedRefinement:
    """What a refinement wrote when it had converged; files from the project folder.

    Attributes
    ----------
    halves : the unfiltered maps of both half sets
    volume : the map of all particles, filtered by RELION
    data : STAR of the particles with their angles
    accuracy_deg : of alignment; NaN where it is not written
    """

    halves: tuple[str, str]
    volume: str
    data: str
    model: str
    accuracy_deg: float

    @property
    def can_align(self) -> bool:
        """False where RELION itself says that particles cannot be aligned."""
        return not self.accuracy_deg > WORST_ACCURACY_DEG


@dataclass(frozen=True, eq=False)
class Postprocessing:
    """A post.star.

    Attributes
    ----------
    frequency : (s,) of each shell, in 1/Å, from 0
    corrected, unmasked, masked, random_phases : (s,) Fourier shell correlations; NaN where not written
    final_resolution_angstrom : RELION's, which steps by shells
    b_factor : in Å², NaN where none was fitted
    """

    frequency: NDArray[np.float64]
    corrected: NDArray[np.float64]
    unmasked: NDArray[np.float64]
    masked: NDArray[np.float64]
    random_phases: NDArray[np.float64]
    final_resolution_angstrom: float
    b_factor: float


def read_model(path: Path) -> ModelTable:
    """The classes of a model.star of RELION 3.1, 4 or 5.

    Raises
    ------
    FormatError
        If it has no table of classes.
    """
    tables = read_star(path)
    classes = tables.get("model_classes")
    if classes is None or "rlnReferenceImage" not in classes:
        raise FormatError(f"{path}: has no classes (data_model_classes with rlnReferenceImage); expected a model.star")
    general = tables.get("model_general")
    accuracy = _column(classes, "rlnAccuracyRotations")
    return ModelTable(
        images=tuple(classes.text("rlnReferenceImage")),
        share=_column(classes, "rlnClassDistribution"),
        accuracy_deg=_known_accuracy(accuracy),
        accuracy_angstrom=_known_accuracy(_column(classes, "rlnAccuracyTranslationsAngst")),
        resolution_angstrom=_column(classes, "rlnEstimatedResolution"),
        current_resolution_angstrom=_value(general, "rlnCurrentResolution"),
        mean_peak_probability=_value(general, "rlnAveragePmax"),
        pixel_size_angstrom=_value(general, "rlnPixelSize"),
        log_likelihood=_value(general, "rlnLogLikelihood"),
    )


def read_postprocessing(path: Path) -> Postprocessing:
    """The FSC curves of a post.star.

    Raises
    ------
    FormatError
        If it has none.
    """
    tables = read_star(path)
    fsc = tables.get("fsc")
    if fsc is None or "rlnResolution" not in fsc:
        raise FormatError(f"{path}: has no FSC curve (data_fsc with rlnResolution); expected what postprocess writes")
    general = tables.get("general")
    return Postprocessing(
        frequency=_column(fsc, "rlnResolution"),
        corrected=_column(fsc, "rlnFourierShellCorrelationCorrected"),
        unmasked=_column(fsc, "rlnFourierShellCorrelationUnmaskedMaps"),
        masked=_column(fsc, "rlnFourierShellCorrelationMaskedMaps"),
        random_phases=_column(fsc, "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"),
        final_resolution_angstrom=_value(general, "rlnFinalResolution"),
        b_factor=_value(general, "rlnBfactorUsedForSharpening"),
    )


def newest_iteration(project: Path, folder: str) -> Iteration | None:
    """The newest iteration in FOLDER whose files are all there and can be read; None where there is none.

    A kill leaves files of an iteration half written; the one before it is whole.
    """
    found = []
    for path in (project / folder).glob("*_optimiser.star"):
        match = _ITERATION.fullmatch(path.name)
        if match is not None:
            found.append((int(match[2]), path.stat().st_mtime_ns, path))
    for number, _, path in sorted(found, reverse=True):
        if (iteration := _whole(project, path, number)) is not None:
            return iteration
    return None


def finished_refinement(project: Path, folder: str) -> FinishedRefinement | None:
    """What an auto-refinement wrote when it had converged; None where its files are not all there and whole.

    Only the unfiltered half maps may be compared. Those of iterations are regularised: their empty shells correlate
    through the mask.
    """
    halves = [path for path in (project / folder).glob("*_half1_class001_unfil.mrc") if "_it" not in path.name]
    for half in sorted(halves, key=lambda one: one.stat().st_mtime_ns, reverse=True):
        root = half.relative_to(project).as_posix().removesuffix("_half1_class001_unfil.mrc")
        found = FinishedRefinement(
            halves=(f"{root}_half1_class001_unfil.mrc", f"{root}_half2_class001_unfil.mrc"),
            volume=f"{root}_class001.mrc",
            data=f"{root}_data.star",
            model=f"{root}_model.star",
            accuracy_deg=float("nan"),
        )
        try:
            for volume in (*found.halves, found.volume):
                read_mrc_header(project / volume)  # also whether it is as long as it says
            rows = read_star(project / found.data).get("particles")
            accuracy = read_model(project / found.model).accuracy_deg
        except (CryopickError, OSError):
            continue
        if rows is not None and len(rows):
            return replace(found, accuracy_deg=float(accuracy[0]))
    return None


def _whole(project: Path, path: Path, number: int) -> Iteration | None:
    try:
        table = read_star(path).get("optimiser_general")
        if table is None:
            return None
        models = [
            table.text(label)[0] for label in ("rlnModelStarFile", "rlnModelStarFile2") if _is_named(table, label)
        ]
        data = table.text("rlnExperimentalDataStarFile")[0]
        sampling = table.text("rlnOrientSamplingStarFile")[0]
        for model in models:
            read_model(project / model)
        rows = read_star(project / data).get("particles")
        if rows is None or not len(rows) or not models or "sampling_general" not in read_star(project / sampling):
            return None
    except (CryopickError, OSError):
        return None
    return Iteration(
        number=int(_value(table, "rlnCurrentIteration")) if number < 0 else number,
        optimiser=path.relative_to(project).as_posix(),
        data=data,
        models=tuple(models),
        sampling=sampling,
        root=table.text("rlnOutputRootName")[0] if "rlnOutputRootName" in table else "",
        has_converged=_value(table, "rlnHasConverged") == 1,
        accuracy_deg=float(_known_accuracy(np.array([_value(table, "rlnOverallAccuracyRotations")]))[0]),
    )


def _is_named(table: StarTable, label: str) -> bool:
    return label in table and table.text(label)[0] not in ("", "None")


def _column(table: StarTable, label: str) -> NDArray[np.float64]:
    if label not in table:
        return np.full(len(table), np.nan)
    return np.array([_number(text) for text in table.text(label)], dtype=np.float64)


def _value(table: StarTable | None, label: str) -> float:
    return float("nan") if table is None or label not in table else _number(table.text(label)[0])


def _number(text: str) -> float:
    """RELION writes inf, nan and -nan for what is empty."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _known_accuracy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values >= UNKNOWN_ACCURACY, np.nan, values)
