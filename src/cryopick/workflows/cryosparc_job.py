"""A finished run as an External job of cryoSPARC, through cryosparc-tools, which another program's server answers.

The picks are bound to exposures of the project by their uids; which exposure a micrograph is, is found by its name.
Everything that can be refused is refused before a job is made in the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, ServerError, SettingsError
from cryopick.extras import require_extra
from cryopick.io.coordinates.cryosparc import particle_uids, require_rows
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.runs.folder import RunFolder
from cryopick.runs.picks import RunMicrograph, is_picking_run, micrographs_of_run

EXPOSURE_SLOTS = ("micrograph_blob", "ctf")
PARTICLE_SLOTS = ("location", "pick_stats")
INPUT, OUTPUT = "exposures", "particles"
_NEEDED_OF_EXPOSURES = (
    "uid",
    "micrograph_blob/path",
    "micrograph_blob/shape",
    "micrograph_blob/psize_A",
    "ctf/exp_group_id",
)
_SHAPE_TOLERANCE = 0.01
"""Relative; binned copies may lack the last rows, and anything else is another image."""


@dataclass(frozen=True, kw_only=True)
class SavedToCryosparc:
    """What became of a run in cryoSPARC."""

    project: str
    job: str
    particles: int
    micrographs: int
    """That were found among the exposures."""
    left_out: tuple[str, ...]
    """Micrographs of the run that are no exposure of the given ones."""
    exposures: int


def connect(url: str | None = None) -> Any:
    """A client of cryosparc-tools; address and account as that takes them from the environment or its own login.

    Raises
    ------
    MissingExtraError
        If cryosparc-tools is not installed.
    ServerError
        If the server does not answer, or does not know the account.
    """
    require_extra("cryosparc", ["cryosparc"], "saving to cryoSPARC")
    from cryosparc.tools import CryoSPARC

    with _asking("connecting"):
        return CryoSPARC() if url is None else CryoSPARC(base_url=url)


def save_to_cryosparc(
    run: Path,
    client: Any,
    *,
    project: str,
    workspace: str,
    exposures: str,
    rows: str | None,
    title: str = "",
) -> SavedToCryosparc:
    """Make an External job with the picks of a run, bound to exposures of the project.

    Parameters
    ----------
    run : a finished run folder
    client : from `connect`
    project, workspace : their uids, `P3` and `W1`
    exposures : which micrographs were picked, as job and output: `J42.exposures`
    rows : which way y is counted, "relion" or "flipped", see `io.coordinates.cryosparc`; None raises
    title : of the job; by default the name of the run

    Raises
    ------
    InputError
        If the folder is no finished run, if no micrograph, or one several times, is among the exposures, or if an
        exposure is an image of another shape.
    SettingsError
        If `rows` is missing, or `exposures` is not JOB.OUTPUT.
    ServerError
        If cryoSPARC refuses something; a job that was begun is marked as failed there.
    """
    require_rows(rows, source=f"project {project}")
    source_job, _, source_output = exposures.partition(".")
    if not (source_job and source_output):
        raise SettingsError(f"exposures {exposures}: expected a job and the name of its output, such as J42.exposures")
    if not is_picking_run(run):
        raise InputError(f"{run}: is no run folder; give one that `cryopick pick` made")
    micrographs = micrographs_of_run(RunFolder(run))
    with _asking(f"reading {exposures}"):
        within = client.find_project(project)
        table = within.find_job(source_job).load_output(source_output, slots=list(EXPOSURE_SLOTS))
    columns = _columns(table, exposures)
    row_of = _rows_of(micrographs, columns, exposures)
    picked = [one for one in micrographs if one.record.name in row_of]
    values = _particles(picked, row_of, columns, rows=rows)
    with _asking("making the job"):
        job = within.create_external_job(workspace, title=title or f"cryopick {run.name}")
    try:
        with _asking(f"connecting {exposures}"):
            slots = list(EXPOSURE_SLOTS)
            job.add_input(type="exposure", name=INPUT, min=1, slots=slots, title="Micrographs that were picked")
            job.connect(INPUT, source_job, source_output)
            job.add_output(type="particle", name=OUTPUT, slots=list(PARTICLE_SLOTS), title="Picked particles")
            job.start()
        with _asking("saving the particles"):  # outputs are taken only between start and stop
            particles = job.alloc_output(OUTPUT, values.pop("uid"))
            _fill(particles, values)
            job.save_output(OUTPUT, particles)
            job.stop()
    except BaseException as error:
        with suppress(ServerError), _asking("marking the job as failed"):  # what went wrong first is the news
            job.stop(error=str(error) or type(error).__name__)
        raise
    return SavedToCryosparc(
        project=project,
        job=str(job.uid),
        particles=len(particles),
        micrographs=len(picked),
        left_out=tuple(one.record.name for one in micrographs if one.record.name not in row_of),
        exposures=len(columns["uid"]),
    )


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Errors of cryosparc-tools, whose kinds differ between its versions, as one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ServerError(f"cryoSPARC, {what}: {reason}") from error


def _columns(table: Any, exposures: str) -> dict[str, NDArray[Any]]:
    missing = [name for name in _NEEDED_OF_EXPOSURES if name not in table]
    if missing:
        raise InputError(
            f"{exposures}: has no {', '.join(missing)}; expected micrographs with CTF, as Patch CTF and "
            "Curate Exposures give them"
        )
    return {name: np.asarray(table[name]) for name in _NEEDED_OF_EXPOSURES}


def _rows_of(micrographs: Sequence[RunMicrograph], columns: dict[str, NDArray[Any]], exposures: str) -> dict[str, int]:
    """The row of the exposure that each micrograph is, by the micrograph's name."""
    paths = [path.decode() if isinstance(path, bytes) else str(path) for path in columns["micrograph_blob/path"]]
    row_of_path = {path: row for row, path in enumerate(paths)}
    if len(row_of_path) < len(paths):
        raise InputError(f"{exposures}: names a micrograph twice; connect exposures of one job only")
    found = match_micrograph_names([one.record.source for one in micrographs], paths)
    row_of = {
        one.record.name: row_of_path[found[one.record.source]] for one in micrographs if one.record.source in found
    }
    if not row_of:
        first = micrographs[0].record.source if micrographs else "none"
        raise InputError(
            f"{exposures}: none of the {len(micrographs)} micrographs of the run is among its {len(paths)} exposures; "
            f"the run's first is {first}, the exposures' {paths[0] if paths else 'none'}"
        )
    for one in micrographs:
        if one.record.name in row_of:
            _require_same_image(one, columns["micrograph_blob/shape"][row_of[one.record.name]], exposures)
    return row_of


def _require_same_image(micrograph: RunMicrograph, shape_hw: NDArray[Any], exposures: str) -> None:
    """Fractions of a binned copy hold for the exposure, too; those of an image of another shape do not."""
    picked = micrograph.candidates.shape_yx
    if picked is None:
        raise InputError(f"{micrograph.record.name}: the run does not know the size of this image; pick it again")
    factors = np.asarray(shape_hw, dtype=np.float64) / picked
    if abs(factors[0] / factors[1] - 1) > _SHAPE_TOLERANCE:
        raise InputError(
            f"{exposures}: exposure of {micrograph.record.name} has {int(shape_hw[0])} x {int(shape_hw[1])} pixels "
            f"(rows x columns), and {picked[0]} x {picked[1]} were picked, which is another shape; give the exposures "
            "that the run is of"
        )


def _particles(
    picked: Sequence[RunMicrograph], row_of: dict[str, int], columns: dict[str, NDArray[Any]], *, rows: str | None
) -> dict[str, NDArray[Any]]:
    """Columns of all particles, by the names of cryoSPARC's fields."""
    kept = [one.candidates.kept() for one in picked]
    counts = [len(picks) for picks in kept]
    row = np.repeat([row_of[one.record.name] for one in picked], counts)  # (n,) of each particle's exposure
    fractions = np.concatenate(
        [picks.xy_px / np.array([picks.shape_yx[1], picks.shape_yx[0]]) for picks in kept if picks.shape_yx is not None]
        or [np.zeros((0, 2))]
    )
    score = np.concatenate([picks.score for picks in kept] or [np.zeros(0, np.float32)])
    uids = [particle_uids(one.record.source, count) for one, count in zip(picked, counts, strict=True)]
    return {
        "uid": np.concatenate(uids or [np.zeros(0, np.uint64)]),
        "location/micrograph_uid": columns["uid"][row],
        "location/exp_group_id": columns["ctf/exp_group_id"][row],
        "location/micrograph_path": columns["micrograph_blob/path"][row],
        "location/micrograph_shape": columns["micrograph_blob/shape"][row],
        "location/micrograph_psize_A": columns["micrograph_blob/psize_A"][row],
        "location/center_x_frac": fractions[:, 0].astype(np.float32),
        "location/center_y_frac": (fractions[:, 1] if rows == "relion" else 1 - fractions[:, 1]).astype(np.float32),
        "pick_stats/ncc_score": score.astype(np.float32),
        "pick_stats/power": score.astype(np.float32),
    }


def _fill(particles: Any, values: dict[str, NDArray[Any]]) -> None:
    missing = [name for name in values if name not in particles]
    if missing:
        raise InputError(
            f"the particles of this cryoSPARC have no {', '.join(missing)}; is cryosparc-tools of the server's version?"
        )
    for name, column in values.items():
        particles[name] = column
