"""`--ctf estimate`: the CTF of every micrograph from its Thon rings; those that show none are left out for all runs.

Each micrograph is a stage (`Ctf/NAME`), so that one that is done is not done again, and one that failed is tried again
by the next call and costs itself. `ctf_estimates.csv` has every fit and why it was refused.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryopick.errors import CryopickError, FormatError, InputError, SettingsError
from cryopick.evaluation.ctf_estimation import (
    CtfEstimator,
    CtfFit,
    Microscope,
    ctf_estimator,
    refusal,
    search_for,
)
from cryopick.evaluation.scored_sets import some_names
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.text import read_text
from cryopick.runs.folder import MICROGRAPHS
from cryopick.workflows.validate3d.ctf_tables import read_microscopes
from cryopick.workflows.validate3d.optics import linked_name
from cryopick.workflows.validate3d.picks import Image
from cryopick.workflows.validate3d.stages import StageFolder

DOUBTFUL_PIXEL_ANGSTROM = 4.0
"""Beyond, few rings are left: with 5 Å two of eight believed fits were wrong (`benchmarks/ctf_estimation.py`)."""
FOLDER, ESTIMATES = "Ctf", "ctf_estimates.csv"
_FIT = tuple(one.name for one in fields(CtfFit))


@dataclass(frozen=True, kw_only=True)
class MicroscopeOptions:
    """What the user says of the microscope; None is not said.

    Parameters
    ----------
    voltage_kv, spherical_aberration_mm, amplitude_contrast : see `Microscope`
    """

    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None

    def given(self) -> dict[str, float]:
        """What was said."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class CtfPlan:
    """How the CTF is estimated: known before the first micrograph is read.

    Parameters
    ----------
    estimator : the program
    microscopes : of each image
    """

    estimator: CtfEstimator
    microscopes: tuple[Microscope, ...]


@dataclass(frozen=True, kw_only=True)
class EstimatedCtf:
    """What came of it.

    Parameters
    ----------
    by : the estimator's name
    fits : of each image; None where the program gave none
    refused : of each image, why it is left out; "" where it counts
    """

    by: str
    fits: tuple[CtfFit | None, ...]
    refused: tuple[str, ...]

    @property
    def kept(self) -> list[int]:
        """Which images count."""
        return [number for number, why in enumerate(self.refused) if not why]

    def sentence(self, images: Sequence[Image]) -> str:
        """What is said in log, table and report."""
        left_out = [f"{image.name} ({why})" for image, why in zip(images, self.refused, strict=True) if why]
        told = f"the CTF was estimated by {self.by} on {len(self.kept)} of {len(images)} micrographs"
        if left_out:
            told += f"; {len(left_out)} left out for all runs alike: {some_names(left_out)} (all in {ESTIMATES})"
        pixel = images[0].pixel_size_angstrom
        if pixel > DOUBTFUL_PIXEL_ANGSTROM:
            told += f"; pixels of {pixel:g} Å are coarse for that, and a fit may be wrong: give micrographs as taken"
        return told


def plan_ctf(
    images: Sequence[Image], options: MicroscopeOptions, *, sources: Sequence[Path], runs: Sequence[Path]
) -> CtfPlan:
    """Which program fits, and what it is told of the microscope.

    Parameters
    ----------
    images : the micrographs
    options : win over what files say
    sources : what the user gave as micrographs; STAR files say the optics
    runs : folders, whose `micrographs.star` may say them

    Raises
    ------
    InputError
        If nothing here estimates a CTF.
    SettingsError
        If the voltage is unknown, or the pixels are too coarse.
    """
    given = options.given()
    Microscope(**{"voltage_kv": 300.0, **given})  # what is impossible is said first
    for image in images[:1]:
        search_for(image.pixel_size_angstrom)
    stars = [path for path in sources if path.suffix.lower() == ".star"]
    stars += [path for run in runs if (path := run / MICROGRAPHS).is_file()]
    known: dict[str, Microscope] = {}
    names = [one.name for one in images]
    for path in stars:
        table = read_microscopes(path)
        known = {name: table[found] for name, found in match_micrograph_names(names, table).items()} | known
    unknown = [name for name in names if name not in known]
    if unknown and "voltage_kv" not in given:
        raise SettingsError(
            f"the voltage is not known of {len(unknown)} micrographs ({some_names(unknown)}), and --ctf estimate needs "
            "it; give it in kV (--voltage 300), or a STAR file with their optics as --micrographs"
        )
    return CtfPlan(
        estimator=ctf_estimator(),
        microscopes=tuple(Microscope(**({} if name not in known else asdict(known[name])) | given) for name in names),
    )


def estimate_ctf(folder: StageFolder, images: Sequence[Image], plan: CtfPlan, *, cores: int) -> EstimatedCtf:
    """Fit every micrograph, `cores` of them beside each other.

    Raises
    ------
    InputError
        If no fit is left.
    """
    pool = ThreadPoolExecutor(max(1, min(cores, len(images))))
    try:
        waiting = [
            pool.submit(_fit, folder, image, plan.estimator, microscope)
            for image, microscope in zip(images, plan.microscopes, strict=True)
        ]
        found = [one.result() for one in waiting]
    finally:  # who stops this waits for those that run, and no more begin
        pool.shutdown(cancel_futures=True)
    estimated = EstimatedCtf(
        by=plan.estimator.name, fits=tuple(fit for fit, _ in found), refused=tuple(why for _, why in found)
    )
    write_text_atomic(folder.root / ESTIMATES, estimates_csv(images, estimated))
    folder.log(estimated.sentence(images))
    if not estimated.kept:
        most, _ = Counter(estimated.refused).most_common(1)[0]
        raise InputError(
            f"the CTF of none of {len(images)} micrographs could be estimated by {estimated.by}: {most}; all reasons "
            f"are in {folder.root / ESTIMATES}; check --voltage and the pixel size, give micrographs not binned and "
            "not filtered, or give a table of their CTF (--ctf FILE)"
        )
    return estimated


def _fit(
    folder: StageFolder, image: Image, estimator: CtfEstimator, microscope: Microscope
) -> tuple[CtfFit | None, str]:
    search = search_for(image.pixel_size_angstrom)
    state = image.path.stat()
    inputs = {
        "micrograph": [image.name, state.st_size, state.st_mtime_ns],
        "microscope": asdict(microscope),
        "search": asdict(search),
        "estimator": dict(estimator.record()),
    }
    try:
        done = folder.stage(
            f"{FOLDER}/{without_extension(linked_name(image))}",
            inputs,
            lambda target: asdict(estimator.estimate(image.path, target, microscope=microscope, search=search)),
        )
    except CryopickError as error:
        folder.log(f"{image.name}: no estimate of the CTF: {error}")
        return None, str(error).removeprefix(f"{image.path.name}: ")
    fit = CtfFit(**done.facts)
    return fit, refusal(fit, search, least_correlation=estimator.least_correlation)


def estimates_csv(images: Sequence[Image], estimated: EstimatedCtf) -> str:
    """A row a micrograph: its fit, and why it was refused."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["micrograph", *_FIT, "refused", "estimated_by"])
    for image, fit, why in zip(images, estimated.fits, estimated.refused, strict=True):
        values = ["" if fit is None or (value := getattr(fit, name)) is None else repr(value) for name in _FIT]
        writer.writerow([image.name, *values, why, estimated.by])
    return text.getvalue()


def read_estimates(path: Path, images: Sequence[Image]) -> EstimatedCtf:
    """What `estimates_csv` wrote for these images.

    Raises
    ------
    FormatError
        If it is damaged, or of other images.
    """
    rows = {row["micrograph"]: row for row in csv.DictReader(io.StringIO(read_text(path, what="estimates of the CTF")))}
    try:
        own = [rows[image.name] for image in images]
        fits = tuple(
            CtfFit(**{name: float(row[name]) for name in _FIT if row[name]}) if row[_FIT[0]] else None for row in own
        )
        return EstimatedCtf(by=own[0]["estimated_by"], fits=fits, refused=tuple(row["refused"] for row in own))
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(
            f"{path}: is damaged or of other micrographs ({error}); run `cryopick validate3d` again without --part"
        ) from error
