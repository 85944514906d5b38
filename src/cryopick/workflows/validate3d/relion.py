"""RELION as an engine: the field's own judge, for full-size data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryopick.errors import InputError
from cryopick.evaluation.relion_programs import Computing, require_relion
from cryopick.evaluation.relion_programs.installation import WHOLE_PATH, Relion
from cryopick.evaluation.relion_programs.outputs import FinishedRefinement, read_model
from cryopick.evaluation.relion_programs.running import require_space
from cryopick.evaluation.relion_programs.steps import (
    FEW_PARTICLES,
    RelionProject,
    make_initial_model,
    refine,
)
from cryopick.io.star import read_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.reconstruction.poses import Poses
from cryopick.types import Volume
from cryopick.workflows.validate3d.engines import EngineJob, Reconstruction, StartVolume
from cryopick.workflows.validate3d.geometry import BoxGeometry

RANKS = 3
"""One leads and sleeps, two refine a half set each."""
SECONDS_PER_PARTICLE = 3.0
"""Of one start and refinement at 32 px, in processor time: 384 particles took so on the benchmark's set."""


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

    def check(self, *, has_poses: bool) -> None:  # noqa: ARG002  # the protocol's
        relion = require_relion(WHOLE_PATH)
        if relion.mpirun is None:
            raise InputError("mpirun: not found on the PATH, and RELION refines half sets through MPI only")

    def version(self) -> str:
        return f"RELION {_relion().said}, 1"

    def seconds(self, particles: int, geometry: BoxGeometry) -> float:
        return SECONDS_PER_PARTICLE * particles * (geometry.scaled_px / 32) ** 2

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
            is_on_scale=not job.is_start_given,
        )
        if not found.can_align:
            job.log(f"RELION cannot align these particles: accuracy {found.accuracy_deg:.0f} degrees")
        half1, half2 = (_volume(project.folder / one, job) for one in found.halves)
        return Reconstruction(
            half1=half1, half2=half2, map=_volume(project.folder / found.volume, job), poses=_poses(found, job)
        )


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
    return str(Path(_writing(job)).with_name(job.folder.name.removesuffix(".partial")))


def _table(job: EngineJob) -> str:
    return job.table.relative_to(job.root).as_posix()


def _model_beside(volume: str) -> str:
    return volume.replace("_class001.mrc", "_model.star")


def _volume(path: Path, job: EngineJob) -> Volume:
    """RELION's header rounds pixel sizes; the true one is known."""
    return replace(read_volume(path), voxel_size_angstrom=job.stack.pixel_size_angstrom)


def _poses(found: FinishedRefinement, job: EngineJob) -> Poses:
    """In the order of the job's particles, whatever RELION's is."""
    particles = read_star(job.root / found.data)["particles"]
    given = read_star(job.table)["particles"].text("rlnImageName")
    row_of = {name: row for row, name in enumerate(particles.text("rlnImageName"))}
    rows = np.array([row_of[name] for name in given], dtype=np.int64)
    angles = np.stack([particles.floats(f"rlnAngle{axis}") for axis in ("Rot", "Tilt", "Psi")], axis=1)[rows]
    origins = np.stack([particles.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)[rows]
    return Poses.of_angles(angles, -origins / job.stack.pixel_size_angstrom)
