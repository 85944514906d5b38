"""RELION as an engine: the field's own judge, for full-size data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.evaluation.relion_programs import Computing, require_relion
from cryopick.evaluation.relion_programs.installation import WHOLE_PATH, Relion
from cryopick.evaluation.relion_programs.outputs import FinishedRefinement, read_model
from cryopick.evaluation.relion_programs.running import require_space
from cryopick.evaluation.relion_programs.steps import (
    FEW_PARTICLES,
    SMALLEST_BOX_PX,
    RelionProject,
    classify_2d,
    find_local_resolution,
    make_initial_model,
    refine,
)
from cryopick.io.images.mrc import read_mrc_header, read_mrc_sections
from cryopick.io.star import read_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.reconstruction.classes_2d import Classes2D, select_classes
from cryopick.reconstruction.poses import Poses
from cryopick.types import Volume
from cryopick.workflows.validate3d.engines import Classified, EngineJob, Reconstruction, StartVolume
from cryopick.workflows.validate3d.geometry import BoxGeometry
from cryopick.workflows.validate3d.stages import PARTIAL

ITERATIONS_2D, ITERATIONS_2D_OF_MANY, MANY_PARTICLES = 6, 25, 10_000
"""With some hundred particles more iterations are worse: at 12 the classes of half random picks had collapsed into two,
one of them 87 % true, where at 6 it was 99 %. RELION's default is for many."""
RANKS = 3
"""One leads and sleeps, two refine a half set each."""
SECONDS_PER_PARTICLE = 2.4
"""Of one start and refinement at 32 px, in processor time, as in `benchmarks/results/validate3d_relion.md`."""


class RelionEngine:
    """RELION's gradient descent for a first map and its auto-refinement of two half sets.

    Its own files lie in the stage's folder; a stage that was killed goes on from RELION's newest whole iteration.
    """

    name = "relion"
    needs = "RELION 3.1, 4 or 5 and mpirun on the PATH"
    needs_start = True
    is_seeded = True
    is_aligned = False
    ranks = RANKS
    has_local_resolution = True
    smallest_box_px = SMALLEST_BOX_PX

    def check(self, *, has_poses: bool) -> None:  # noqa: ARG002  # the protocol's
        relion = require_relion(WHOLE_PATH)
        if relion.mpirun is None:
            raise InputError("mpirun: not found on the PATH, and RELION refines half sets through MPI only")

    def version(self) -> str:
        return f"RELION {_relion().said}, 1"

    def seconds(self, particles: int, geometry: BoxGeometry) -> float:
        return SECONDS_PER_PARTICLE * particles * (geometry.scaled_px / 32) ** 2

    def classes(self, job: EngineJob, count: int) -> Classified:
        """Class averages by RELION, and by their strength which of them are particles.

        RELION's own estimates of resolution and accuracy are the same for junk and for particles, see `select_classes`.
        """
        project = _project(job, threads=job.cores)
        found = classify_2d(
            project,
            _table(job),
            name=f"{_name(job)}/class2d",
            folder=_writing(job),
            classes=count,
            diameter_angstrom=job.geometry.diameter_angstrom,
            iterations=ITERATIONS_2D if len(job.stack) < MANY_PARTICLES else ITERATIONS_2D_OF_MANY,
            seed=job.seed,
        )
        averages = _averages(project.folder / found.averages, len(found.model.images))
        assignment = _in_order(found.class_of, found.data, job)
        diameter_px = job.geometry.diameter_angstrom / job.stack.pixel_size_angstrom
        measured = _measured_classes(averages, assignment, diameter_px)
        chosen = select_classes(measured, diameter_px=diameter_px)
        job.log(chosen.sentence)
        return Classified(
            averages=averages,
            assignment=assignment,
            quality=measured.quality,
            is_kept=tuple(chosen.is_kept.tolist()),
            reason=chosen.reasons,
        )

    def initial(self, job: EngineJob) -> StartVolume:
        project, folder = _project(job, threads=job.cores), _name(job)
        if len(job.stack) < FEW_PARTICLES:
            job.log(
                f"{len(job.stack)} particles; RELION refines so few no better than the embedded engine, and takes many "
                "times as long"
            )
        found = make_initial_model(
            project,
            _table(job),
            name=f"{folder}/initial",
            folder=_writing(job),
            count=len(job.stack),
            diameter_angstrom=job.geometry.diameter_angstrom,
            symmetry=job.symmetry,
            seed=job.seed,
        )
        likelihood = read_model(project.folder / _model_beside(found)).log_likelihood
        return StartVolume(volume=_volume(project.folder / found, job), score=likelihood / len(job.stack))

    def refine(self, job: EngineJob) -> Reconstruction:
        assert job.start is not None
        project = _project(job, threads=max(1, job.cores // (RANKS - 1)))
        write_volume(job.folder / "start.mrc", job.start)
        found = refine(
            project,
            _table(job),
            name=f"{_name(job)}/refine",
            folder=_writing(job),
            reference=f"{_writing(job)}/start.mrc",
            diameter_angstrom=job.geometry.diameter_angstrom,
            symmetry=job.symmetry,
            seed=job.seed,
        )
        if not found.can_align:
            job.log(f"RELION cannot align these particles: accuracy {found.accuracy_deg:.0f} degrees")
        half1, half2 = (_volume(project.folder / one, job) for one in found.halves)
        return Reconstruction(
            half1=half1, half2=half2, map=_volume(project.folder / found.volume, job), poses=_poses(found, job)
        )

    def local_resolution(
        self, root: Path, folder: Path, halves: tuple[Path, Path], mask: Path, geometry: BoxGeometry
    ) -> Volume:
        first, second, inside = (one.relative_to(root).as_posix() for one in (*halves, mask))
        writing = folder.relative_to(root)
        found = find_local_resolution(
            RelionProject(folder=root, relion=_relion()),
            (first, second),
            inside,
            name=writing.with_name(writing.name.removesuffix(PARTIAL)).as_posix(),
            folder=writing.as_posix(),
            pixel_size_angstrom=geometry.pixel_size_angstrom,
            diameter_angstrom=geometry.diameter_angstrom,
        )
        return replace(read_volume(root / found), voxel_size_angstrom=geometry.pixel_size_angstrom)


def _relion() -> Relion:
    return require_relion(WHOLE_PATH)


def _project(job: EngineJob, *, threads: int) -> RelionProject:
    require_space(job.root, job.stack.images.nbytes)
    return RelionProject(
        folder=job.root,
        relion=_relion(),
        computing=Computing(threads=threads),
        ranks=RANKS,
        is_ctf_corrected=job.stack.ctf is not None,
    )


def _writing(job: EngineJob) -> str:
    """The folder that is written now, from the project's."""
    return job.folder.relative_to(job.root).as_posix()


def _name(job: EngineJob) -> str:
    """Of the step's logs: the folder as it will be called."""
    return str(Path(_writing(job)).with_name(job.folder.name.removesuffix(PARTIAL)))


def _table(job: EngineJob) -> str:
    return job.table.relative_to(job.root).as_posix()


def _model_beside(volume: str) -> str:
    return volume.replace("_class001.mrc", "_model.star")


def _volume(path: Path, job: EngineJob) -> Volume:
    """RELION's header rounds pixel sizes; the true one is known."""
    return replace(read_volume(path), voxel_size_angstrom=job.stack.pixel_size_angstrom)


def _poses(found: FinishedRefinement, job: EngineJob) -> Poses:
    particles = read_star(job.root / found.data)["particles"]
    angles = np.stack([particles.floats(f"rlnAngle{axis}") for axis in ("Rot", "Tilt", "Psi")], axis=1)
    origins = np.stack([particles.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)
    shifts = -origins / job.stack.pixel_size_angstrom
    return Poses.of_angles(_in_order(angles, found.data, job), _in_order(shifts, found.data, job))


def _in_order(values: NDArray[Any], data: str, job: EngineJob) -> NDArray[Any]:
    """A column of RELION's table in the order of the job's particles, whatever RELION's is."""
    names = read_star(job.root / data)["particles"].text("rlnImageName")
    row_of = {name: row for row, name in enumerate(names)}
    given = read_star(job.table)["particles"].text("rlnImageName")
    return np.asarray(values[np.array([row_of[name] for name in given], dtype=np.int64)])


def _averages(path: Path, count: int) -> NDArray[np.float32]:
    """(k, box, box) RELION's class averages; empty classes, which it writes as NaN, are 0."""
    pixels, _ = read_mrc_sections(path, read_mrc_header(path))
    averages = np.asarray(pixels, np.float32)
    return np.nan_to_num(averages.reshape(count, *averages.shape[-2:]), nan=0.0, posinf=0.0, neginf=0.0)


def _measured_classes(averages: NDArray[np.float32], assignment: NDArray[np.int64], diameter_px: float) -> Classes2D:
    """Strength and centre of RELION's averages, as `Classes2D` has them of our own."""
    along = np.arange(averages.shape[-1]) - averages.shape[-1] // 2
    inside = along[:, None] ** 2 + along**2 <= (diameter_px / 2) ** 2
    counts = np.bincount(assignment, minlength=len(averages))
    quality = np.where(counts > 0, averages[:, inside].std(axis=1), 0.0)
    positive = np.maximum(averages - 0.3 * averages.max(axis=(1, 2), keepdims=True), 0) * inside
    total = np.maximum(positive.sum(axis=(1, 2)), 1e-9)
    centre = np.stack([(positive.sum(axis=axis) * along).sum(axis=1) / total for axis in (1, 2)], axis=1)
    return Classes2D(averages, assignment, counts, quality.astype(np.float64), centre)
