"""The engines that turn particles into maps: a row each. What differs between them stands here, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation
from cryopick.reconstruction.ab_initio import initial_volume
from cryopick.reconstruction.classes_2d import classify_2d, select_classes
from cryopick.reconstruction.gridding import reconstruct
from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.refinement import refine
from cryopick.types import Volume
from cryopick.workflows.validate3d.geometry import SMALLEST_BOX_PX, BoxGeometry
from cryopick.workflows.validate3d.truth import MatchedPicks


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineJob:
    """What an engine is given for one step of one run, selection and seed.

    Parameters
    ----------
    root : the validation's folder; paths in `table` count from it
    folder : for the engine's own files; after a kill the same call may find in it what was written before
    table : RELION's table of the particles of this step, `particles.star`
    stack_name, rows : the images' file from `root`, and (n,) which of it the particles are
    stack, halves : the same particles as arrays; halves are (n,) 1 or 2
    geometry, symmetry, seed : see `ValidationSettings`
    cores : processor cores to use
    known : the particles' true poses, of a simulation
    start : the volume that a refinement starts from; None for engines that need none
    is_start_given : the start came from the user (`--reference`)
    log : takes a sentence a step
    """

    root: Path
    folder: Path
    table: Path
    stack_name: str
    rows: NDArray[np.int64]
    stack: ParticleStack
    halves: NDArray[np.int64]
    geometry: BoxGeometry
    symmetry: str
    seed: int
    cores: int
    known: MatchedPicks | None
    start: Volume | None = None
    is_start_given: bool = False
    log: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """2D classes, and which of them `--select2d auto` keeps.

    Parameters
    ----------
    averages : (k, box, box) float32, protein bright; 0 where a class is empty
    assignment : (n,) class of each particle, from 0
    quality : (k,) how much each average stands out of the noise
    is_kept, reason : of each class, why it is kept or dropped
    """

    averages: NDArray[np.float32]
    assignment: NDArray[np.int64]
    quality: NDArray[np.float64]
    is_kept: tuple[bool, ...]
    reason: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StartVolume:
    """A first volume, and how well the particles fit it: higher is better, comparable among starts of one stack."""

    volume: Volume
    score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Half maps as they are, without damping or mask, their damped sum, and where every particle lies."""

    half1: Volume
    half2: Volume
    map: Volume
    poses: Poses


class Engine(Protocol):
    """One way to a map.

    `needs` says in words what must be there; `check` raises with one sentence where it is not. `needs_start` is True
    where refinement starts from a volume, `is_seeded` where another seed gives another result.
    """

    name: str
    needs: str
    needs_start: bool
    is_seeded: bool
    is_aligned: bool
    """Its maps lie as the true map does."""
    ranks: int
    """Of MPI that it starts; 1 where it starts none."""
    has_local_resolution: bool
    smallest_box_px: int
    """Binned, of which it makes a first map."""

    def check(self, *, has_poses: bool) -> None:
        """Raise the sentence of what is missing."""

    def version(self) -> str:
        """What the results depend on besides inputs: of this program, or of another."""

    def seconds(self, particles: int, geometry: BoxGeometry) -> float:
        """A guess of the processor time of one row and seed."""

    def classes(self, job: EngineJob, count: int) -> Classified:
        """Sort the particles into at most `count` 2D classes, and say which are of particles."""

    def initial(self, job: EngineJob) -> StartVolume:
        """A volume from the particles alone."""

    def refine(self, job: EngineJob) -> Reconstruction:
        """Two half sets that never meet, and their maps."""

    def local_resolution(
        self, root: Path, folder: Path, halves: tuple[Path, Path], mask: Path, geometry: BoxGeometry
    ) -> Volume:
        """The resolution around each place in Å, where `has_local_resolution`; its own files go into the folder."""


class WithoutLocalResolution:
    """What engines share that do not find the local resolution."""

    has_local_resolution = False

    def local_resolution(self, *_: object) -> Volume:
        """Never asked for."""
        raise AssertionError("this engine finds no local resolution")


class KnownEngine(WithoutLocalResolution):
    """The angles that a simulation knows: the upper limit of any refinement, and the quickest judge of picks.

    A pick that is no particle gets random angles, as a refinement would give it at best.
    """

    name = "known"
    needs = "the simulation that the micrographs come from (--truth)"
    needs_start = False
    is_seeded = False
    is_aligned = True
    ranks = 1
    smallest_box_px = SMALLEST_BOX_PX

    def check(self, *, has_poses: bool) -> None:
        if not has_poses:
            raise SettingsError(
                "--engine known takes the particles' angles from a simulation; give its folder (--truth SIM), or "
                "choose --engine embedded"
            )

    def version(self) -> str:
        return "1"

    def seconds(self, particles: int, geometry: BoxGeometry) -> float:
        return 4e-3 * particles * (geometry.scaled_px / 48) ** 2 + 2

    def classes(self, job: EngineJob, count: int) -> Classified:
        return embedded_classes(job, count)

    def initial(self, job: EngineJob) -> StartVolume:  # noqa: ARG002  # the protocol's
        raise AssertionError("known angles start from no volume")

    def refine(self, job: EngineJob) -> Reconstruction:
        assert job.known is not None
        binning = job.geometry.box_px / job.geometry.scaled_px
        shifts = (job.known.centre_px - job.stack.centres_px) / binning
        poses = Poses.of_angles(job.known.euler_deg, shifts)
        halves = [
            reconstruct(
                job.stack.take(job.halves == one), poses.take(job.halves == one), symmetry=job.symmetry, is_masked=True
            )
            for one in (1, 2)
        ]
        curve = fourier_shell_correlation(halves[0].density, halves[1].density)
        return Reconstruction(
            half1=halves[0],
            half2=halves[1],
            map=reconstruct(job.stack, poses, symmetry=job.symmetry, snr=snr_of_both(curve), is_masked=True),
            poses=poses,
        )


def embedded_classes(job: EngineJob, count: int) -> Classified:
    """2D classes by cryopick's own classification, and those whose average stands out of the noise."""
    found = classify_2d(job.stack, classes=count, seed=job.seed, progress=job.log)
    chosen = select_classes(found)
    job.log(chosen.sentence)
    return Classified(
        averages=found.averages,
        assignment=found.assignment,
        quality=found.quality,
        is_kept=tuple(bool(one) for one in chosen.is_kept),
        reason=chosen.reasons,
    )


def snr_of_both(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """(shells,) signal over noise power of the average of two half maps whose FSC this is."""
    clipped = np.clip(curve, 1e-3, 0.999)
    return np.asarray(2 * clipped / (1 - clipped))


class EmbeddedEngine(WithoutLocalResolution):
    """cryopick's own reconstruction (`cryopick.reconstruction`): honest and light, for some thousand particles.

    Its limits: one pose a particle, no classes in 3D, no polishing of optics; small proteins fail first.
    """

    name = "embedded"
    needs = "nothing but cryopick"
    needs_start = True
    is_seeded = True
    is_aligned = False
    ranks = 1
    smallest_box_px = SMALLEST_BOX_PX

    def check(self, *, has_poses: bool) -> None:  # the protocol's
        """Nothing can be missing."""

    def version(self) -> str:
        return "1"

    def seconds(self, particles: int, geometry: BoxGeometry) -> float:
        return 30 + 0.08 * particles * (geometry.scaled_px / 48) ** 2

    def classes(self, job: EngineJob, count: int) -> Classified:
        return embedded_classes(job, count)

    def initial(self, job: EngineJob) -> StartVolume:
        found = initial_volume(job.stack, symmetry=job.symmetry, seed=job.seed, progress=job.log)
        return StartVolume(volume=found.volume, score=found.score)

    def refine(self, job: EngineJob) -> Reconstruction:
        assert job.start is not None
        found = refine(job.stack, job.halves, job.start, symmetry=job.symmetry, progress=job.log, workers=job.cores)
        return Reconstruction(half1=found.half1, half2=found.half2, map=found.map, poses=found.poses)
