"""Picking as a job of RELION's pipeline ("External"), whose folder is the run folder.

What RELION wants of an External job: marker files that say how it ended, a file that asks it to end, and a list of
what it made (`RELION_OUTPUT_NODES.star`), which differs between versions 3.1, 4 and 5. Paths count from the project
folder, which is the working folder.

RELION continues such jobs: in a Scheme again and again, on a list of micrographs that has grown. What was picked stays
as it is then, also for the sizes that the first call measured, because later jobs never read a finished file again.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.evaluation.relion_programs import ABORT, ABORTED, FAILURE, SUCCESS, Version
from cryopick.io.coordinates.relion import VERSION, read_micrographs_star
from cryopick.io.files.text import write_text
from cryopick.io.star import StarTable, make_table, star_text
from cryopick.runs.folder import AUTOPICK, PICKS
from cryopick.runs.place import output_folder
from cryopick.runs.record import PICKS_TAIL
from cryopick.runs.results import RunSummary
from cryopick.runs.settings import PickSettings
from cryopick.workflows.pick import pick_to_folder

PIPELINE, NODES, SIZES = "default_pipeline.star", "RELION_OUTPUT_NODES.star", "particle_sizes.star"
MANUAL_PICKING = ".gui_manualpickjob.star"
"""In the project folder: RELION shows coordinates only where the settings of a manual picking job are saved."""
COORDS_SUFFIX = f"coords_suffix{PICKS_TAIL}"
"""What stands for all coordinate files of a folder in RELION 3.1: their ending is the rest of its name."""
NODE_LABELS: dict[Version, str] = {
    "4": "MicrographsCoords.star.relion.autopick",
    "5": "MicrographCoordsGroup.star.relion.autopick",
}
COORDINATES_3_1 = 2
"""RELION 3.1's number for nodes that are coordinates."""
MANUAL_PICKING_3_1 = 3
"""RELION 3.1's number for manual picking jobs."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How often the file that asks the job to end is looked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RelionJob:
    """One call of an External job."""

    folder: Path
    """As RELION gives it, such as `External/job012`, from the project folder."""
    project: Path = Path()

    def begin(self) -> None:
        """Make the folder, and remove what says how an earlier call ended."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: the job folder cannot be made ({error.strerror})") from error
        for marker in (SUCCESS, FAILURE, ABORTED):
            (self.folder / marker).unlink(missing_ok=True)

    def end(self, marker: str) -> None:
        """Tell RELION how this call ended."""
        (self.folder / ABORT).unlink(missing_ok=True)
        (self.folder / marker).touch()

    @contextmanager
    def ends_marked(self) -> Iterator[None]:
        """Whatever happens inside is told to RELION: success, a failure, or that the job was asked to end."""
        self.begin()
        try:
            yield
        except BaseException as error:
            self.end(FAILURE if isinstance(error, Exception) else ABORTED)
            raise
        self.end(SUCCESS)

    @contextmanager
    def aborting(self, abort: Callable[[], None] | None) -> Iterator[None]:
        """Call `abort` once, from a thread of its own, when RELION asks this job to end."""
        if abort is None:
            yield
            return
        is_over = threading.Event()

        def look() -> None:
            while not (self.folder / ABORT).exists():
                if is_over.wait(SECONDS_BETWEEN_LOOKS):
                    return
            abort()

        thread = threading.Thread(target=look, name="RELION's abort file", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()


def relion_job(
    output: str | Path,
    in_mics: str | Path,
    settings: PickSettings | Callable[[], PickSettings],
    *,
    abort: Callable[[], None] | None = None,
    **how: Any,
) -> RunSummary:
    """Pick the micrographs of a RELION list into the folder of an External job, and tell RELION what was made.

    Parameters
    ----------
    output : the job folder, relative to the project folder, which is the working folder
    in_mics : a `micrographs.star`
    settings : or what makes them, so that RELION is told of wrong ones, too
    abort : called from another thread when RELION asks the job to end; it should raise in this one
    how : as for `pick_to_folder`: `workers`, `cluster`, `on_event` and the others

    Raises
    ------
    InputError
        If `in_mics` is no list of micrographs; otherwise as `pick_to_folder`.
    SettingsError
        If `drop_bad` is set for RELION 3.1, which finds coordinate files by their names and would find all.
    """
    job = RelionJob(folder=output_folder(output))
    with job.ends_marked(), job.aborting(abort):
        chosen = settings() if callable(settings) else settings
        listed = _micrographs_star(in_mics)
        version = relion_version(job.project)
        if version is None:
            _log.warning("no %s in %s: what RELION reads is written as for version 5", PIPELINE, job.project.absolute())
            version = "5"
        if version == "3.1" and chosen.run.drop_bad:
            raise SettingsError(
                "drop bad: RELION 3.1 finds coordinate files by their names, so that none can be left out; leave the "
                "option out, and the micrographs that micrographs.star of this job calls bad, by RELION's selection"
            )
        summary = pick_to_folder([listed], job.folder, chosen, **how)
        _write_nodes(job, version, listed)
        _write_sizes(job, summary)
        _write_manual_picking(job, version, summary)
    return summary


def _micrographs_star(given: str | Path) -> Path:
    path = Path(given)
    if path.suffix != ".star":
        raise InputError(f"--in_mics {path}: expected RELION's list of micrographs, such as micrographs_ctf.star")
    if not path.is_file():
        raise InputError(f"--in_mics {path}: no such file, seen from {Path.cwd()}; run it in RELION's project folder")
    try:
        read_micrographs_star(path)
    except FormatError as error:
        raise FormatError(f"--in_mics {error}") from error
    return path


def relion_version(project: Path) -> Version | None:
    """The version of RELION that a project was written by; None where there is no pipeline file.

    Version 3.1 numbers the types of jobs and nodes, 4 and 5 name them; 5 says so in the comments of its files.
    """
    try:
        text = (project / PIPELINE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if "TypeLabel" not in text:
        return "3.1"
    numbers = [int(number) for number in re.findall(r"^# version (\d{5})\b", text, flags=re.MULTILINE)]
    return "5" if max(numbers, default=0) >= 50_000 else "4"


def _write_nodes(job: RelionJob, version: Version, micrographs: Path) -> None:
    """What this job made, for the pipeline."""
    place = job.folder.as_posix()
    columns: dict[str, list[Any]]
    if version == "3.1":
        node = f"{place}/{PICKS}/{COORDS_SUFFIX}"
        write_text(job.folder / PICKS / COORDS_SUFFIX, f"{micrographs.as_posix()}\n")  # what RELION shows them on
        columns = {"rlnPipeLineNodeName": [node], "rlnPipeLineNodeType": [COORDINATES_3_1]}
    else:
        columns = {
            "rlnPipeLineNodeName": [f"{place}/{AUTOPICK}"],
            "rlnPipeLineNodeTypeLabel": [NODE_LABELS[version]],
        }
    write_text(job.folder / NODES, star_text([make_table("output_nodes", columns)], version=VERSION))


def _write_sizes(job: RelionJob, summary: RunSummary) -> None:
    """Diameter and boxes for later jobs and for the variables of a Scheme; a row for each pixel size."""
    rows = [
        (
            one.pixel_size_angstrom,
            one.diameter_angstrom,
            one.box_px,
            one.binned_box_px or one.box_px,  # where no binning is suggested
            one.binned_pixel_size_angstrom or one.pixel_size_angstrom,
        )
        for one in summary.sizes
    ]
    known = [row for row in rows if None not in row]
    labels = ("rlnMicrographPixelSize", "rlnParticleDiameter", "rlnOriginalImageSize", "rlnImageSize")
    if not known:
        (job.folder / SIZES).unlink(missing_ok=True)
        return
    columns = dict(zip((*labels, "rlnImagePixelSize"), map(list, zip(*known, strict=True)), strict=True))
    write_text(job.folder / SIZES, star_text([make_table("sizes", columns)], version=VERSION))


def _write_manual_picking(job: RelionJob, version: Version, summary: RunSummary) -> None:
    """The settings by which RELION shows coordinates, unless the project has some; then they are the user's."""
    path = job.project / MANUAL_PICKING
    if path.exists() or summary.diameter_angstrom is None:
        return
    pixel_sizes = {one.pixel_size_angstrom for one in summary.sizes}
    size = pixel_sizes.pop() if len(pixel_sizes) == 1 else None
    kind: dict[str, list[Any]] = (
        {"rlnJobType": [MANUAL_PICKING_3_1]} if version == "3.1" else {"rlnJobTypeLabel": ["relion.manualpick"]}
    )
    values = {
        "angpix": "-1" if size is None else f"{size:.6g}",  # the two columns of autopick.star do not say it
        "black_val": "0",
        "color_label": "rlnAutopickFigureOfMerit",
        "diameter": f"{summary.diameter_angstrom:.0f}",
        "do_color": "No",
        "do_queue": "No",
        "do_startend": "No",
        "highpass": "-1",
        "lowpass": "20",
        "micscale": "0.2",
        "sigma_contrast": "3",
        "white_val": "0",
    }
    tables = [
        StarTable(
            "job", {label: list(map(str, value)) for label, value in {**kind, "rlnJobIsContinue": [0]}.items()}, False
        ),
        make_table(
            "joboptions_values",
            {"rlnJobOptionVariable": list(values), "rlnJobOptionValue": list(values.values())},
        ),
    ]
    write_text(path, star_text(tables, version=VERSION))
