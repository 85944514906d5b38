"""From picks to a map by RELION, step by step; a step that was stopped goes on from its newest whole iteration.

Each step is a function of a project and of plain settings; it leaves RELION's own files in its folder and answers what
is in them. A step whose files are all there is not run again, so whoever changes its settings removes its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.evaluation.relion_programs import commands
from cryopick.evaluation.relion_programs.commands import Computing
from cryopick.evaluation.relion_programs.failures import ProgramFailedError
from cryopick.evaluation.relion_programs.installation import Relion, mpi_command
from cryopick.evaluation.relion_programs.outputs import (
    FinishedRefinement,
    Iteration,
    ModelTable,
    Postprocessing,
    finished_refinement,
    newest_iteration,
    read_model,
    read_postprocessing,
)
from cryopick.evaluation.relion_programs.running import Stage, StageRun, run_stage
from cryopick.io.star import StarTable, make_table, read_star, write_star

STAR_VERSION = 30001
"""The comment of STAR files that RELION 3.1 and later read."""
HALF_SET = "rlnRandomSubset"
FROM_PICKS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber")
"""Columns that a picker may leave and a refinement finds: two of one name end RELION."""
FINEST_PIXELS = 2.2
"""To which resolution gradient descent goes at most, in pixels: at Nyquist's, 2, RELION 3.1 fails in its projector."""
SMALLEST_BOX_PX = 22
"""RELION 3.1's gradient descent fails in 20 px, twice the radius to which it interpolates."""
JOINED_DIAMETERS = 0.25
"""Coarser than this share of the diameter the half sets share what they find, and never finer than RELION's 40 Å: what
they share agrees by itself, and maps of some hundred particles end near 40 Å."""
FEW_PARTICLES = 3000
"""Below so many, RELION's refinement takes longer than it is worth; the specification measured it."""


@dataclass(frozen=True, kw_only=True)
class RelionProject:
    """A project folder and how programs run in it.

    Attributes
    ----------
    folder : all paths are relative to it
    ranks : of MPI in refinements: one leads, the others share the half sets; odd, at least 3
    time_limit_s : of each program; None is none
    is_ctf_corrected : False where particles have no CTF; then no map is corrected for it
    """

    folder: Path
    relion: Relion
    computing: Computing = field(default_factory=Computing)
    ranks: int = 3
    time_limit_s: float | None = None
    is_ctf_corrected: bool = True

    def run(self, name: str, words: Sequence[str], folder: str, expected: Sequence[str] = ()) -> StageRun:
        """Run a program, with MPI where its name says so."""
        is_mpi = words[0].endswith("_mpi")
        ranks = self.ranks if is_mpi else 1
        stage = Stage(
            name=name,
            words=mpi_command(self.relion, words, ranks=ranks) if is_mpi else words,
            folder=folder,
            expected=expected,
            ranks=ranks,
            time_limit_s=self.time_limit_s,
        )
        return run_stage(stage, self.folder, said=self.relion.said)


@dataclass(frozen=True, eq=False)
class Extracted:
    """Particles that were cut out, in the order of the table.

    Attributes
    ----------
    star : its path from the project folder
    micrograph : name of each particle's
    xy_px : (n, 2) in the stored micrograph
    pixel_size_angstrom : of the scaled boxes
    box_px : of the scaled boxes
    """

    star: str
    micrograph: tuple[str, ...]
    xy_px: NDArray[np.float64]
    pixel_size_angstrom: float
    box_px: int

    def __len__(self) -> int:
        return len(self.micrograph)


@dataclass(frozen=True, eq=False)
class Classified:
    """2D classes.

    Attributes
    ----------
    averages : file of the stack of averages
    class_of : (n,) of each particle, from 0, in the order of `data`
    data : STAR of the particles with their classes
    """

    model: ModelTable
    averages: str
    class_of: NDArray[np.int64]
    data: str


def write_coordinates(
    project: Path, folder: str, picks: Mapping[str, NDArray[np.float64]], *, suffix: str = "_picks.star"
) -> str:
    """Coordinates as all versions find them: FOLDER/a/b_picks.star for a/b.mrc, and FOLDER/coordinates.star, a list.

    Parameters
    ----------
    picks : name of a micrograph as in the list of micrographs -> (n, 2) centres in px

    Returns
    -------
    list : its path from the project folder
    """
    named: dict[str, str] = {}
    for name, xy_px in picks.items():
        path = Path(folder) / Path(name).with_name(f"{Path(name).stem}{suffix}")
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        columns = {"rlnCoordinateX": xy_px[:, 0].astype(np.float64), "rlnCoordinateY": xy_px[:, 1].astype(np.float64)}
        write_star(project / path, [make_table("", columns)])
        named[name] = path.as_posix()
    listed = f"{folder.rstrip('/')}/coordinates.star"
    columns_of_list = {"rlnMicrographName": list(named), "rlnMicrographCoordinates": list(named.values())}
    write_star(project / listed, [make_table("coordinate_files", columns_of_list)], version=STAR_VERSION)
    return listed


def extract_particles(
    project: RelionProject,
    *,
    name: str,
    micrographs: str,
    picks: Mapping[str, NDArray[np.float64]],
    picks_folder: str,
    folder: str,
    box_px: int,
    scaled_px: int,
    background_radius_px: int,
) -> Extracted:
    """Cut out the boxes of picks.

    Raises
    ------
    ProgramFailedError
        Of kind `picks` if there are none, of kind `path` if the program leaves particles out, which it does in silence
        where it does not find a file.
    """
    count = sum(len(xy_px) for xy_px in picks.values())
    if not count:
        raise ProgramFailedError(f"{name}: there is no pick to cut out", "picks")
    star = f"{folder.rstrip('/')}/particles.star"
    if not (project.folder / star).is_file():
        listed = write_coordinates(project.folder, picks_folder, picks)
        words = commands.extract(
            project.relion,
            micrographs=micrographs,
            picks_folder=picks_folder,
            suffix="_picks.star",
            coordinate_list=listed,
            folder=folder,
            box_px=box_px,
            scaled_px=scaled_px,
            background_radius_px=background_radius_px,
        )
        done = project.run(name, words, folder, [star])
        table = read_star(project.folder / star).get("particles")  # which it leaves out where there is none
        if (cut := 0 if table is None else len(table)) != count:  # it ends well all the same
            (project.folder / star).unlink()
            raise ProgramFailedError(
                f"{name}: {count} picks were given, and RELION cut out {cut}: {_first_warning(done.err)}; it counts "
                f"paths from the project folder; see programs/{name}.err",
                "path",
            )
    return read_extracted(project.folder, star)


def _first_warning(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    warnings = [line.strip() for line in lines if line.startswith("Warning")]
    return warnings[0] if warnings else "it does not say why"


def _require_particles(project: Path, star: str, name: str) -> int:
    """How many there are: RELION crashes without a word where there is none."""
    particles = read_star(project / star).get("particles")
    if particles is None or not len(particles):
        raise ProgramFailedError(
            f"{name}: {star} has no particles; nothing was picked, or selection kept none", "picks"
        )
    return len(particles)


def read_extracted(project: Path, star: str) -> Extracted:
    """Particles of an extraction.

    Raises
    ------
    FormatError
        If the table lacks what RELION writes, or has boxes of several sizes.
    """
    tables = read_star(project / star)
    particles, optics = tables.get("particles"), tables.get("optics")
    if particles is None or optics is None:
        raise FormatError(f"{star}: has no data_particles and data_optics; expected particles of RELION 3.1 or later")
    boxes, pixels = set(optics.ints("rlnImageSize")), set(optics.floats("rlnImagePixelSize"))
    if len(boxes) != 1 or max(pixels) > 1.01 * min(pixels):
        raise FormatError(f"{star}: has boxes of {sorted(boxes)} px and {sorted(pixels)} Å; expected one size")
    xy_px = np.stack([particles.floats("rlnCoordinateX"), particles.floats("rlnCoordinateY")], axis=1)
    return Extracted(star, tuple(particles.text("rlnMicrographName")), xy_px, float(min(pixels)), int(min(boxes)))


def write_subset(
    project: Path,
    star: str,
    output: str,
    *,
    is_kept: NDArray[np.bool_] | None = None,
    half: NDArray[np.int64] | None = None,
) -> str:
    """Some of the particles, with their half sets, without what a picker or an earlier step found of their angles.

    Parameters
    ----------
    is_kept : (n,) all where None
    half : (n,) 1 or 2, as rlnRandomSubset, which refinements keep
    """
    tables = dict(read_star(project / star))
    particles = tables["particles"]
    keep = np.ones(len(particles), dtype=bool) if is_kept is None else is_kept
    rows = np.flatnonzero(keep).tolist()
    columns = {
        label: [values[row] for row in rows]
        for label, values in particles.columns.items()
        if label not in (*FROM_PICKS, HALF_SET)
    }
    if half is not None:
        columns[HALF_SET] = [str(int(half[row])) for row in rows]
    (project / output).parent.mkdir(parents=True, exist_ok=True)
    optics = tables["optics"]
    write_star(project / output, [optics, StarTable("particles", columns)], version=STAR_VERSION)
    return output


def classify_2d(
    project: RelionProject,
    particles: str,
    *,
    name: str,
    folder: str,
    classes: int,
    diameter_angstrom: float,
    iterations: int,
    seed: int,
) -> Classified:
    """2D classes of particles."""
    _require_particles(project.folder, particles, name)

    def words(begun: Iteration | None) -> list[str]:
        if begun is not None:
            return commands.continued(
                project.relion,
                optimiser=begun.optimiser,
                folder=folder,
                computing=project.computing,
                iterations=iterations,
            )
        return commands.class_2d(
            project.relion,
            particles=particles,
            folder=folder,
            classes=classes,
            diameter_angstrom=diameter_angstrom,
            iterations=iterations,
            seed=seed,
            computing=project.computing,
            is_ctf_corrected=project.is_ctf_corrected,
        )

    newest = _iterated(project, name, folder, iterations, words)
    model = read_model(project.folder / newest.models[0])
    rows = read_star(project.folder / newest.data)["particles"]
    averages = model.images[0].partition("@")[2]
    return Classified(model, averages, rows.ints("rlnClassNumber") - 1, newest.data)


def make_initial_model(
    project: RelionProject,
    particles: str,
    *,
    name: str,
    folder: str,
    count: int,
    diameter_angstrom: float,
    symmetry: str,
    seed: int,
    iterations: tuple[int, int, int] | None = None,
    healpix_order: int = 1,
) -> str:
    """A first map without a reference; its path from the project folder.

    Parameters
    ----------
    count : of particles: with few of them, an iteration takes a part of them only, and fewer iterations do
    iterations : by default 50, 200 and 50, and with fewer than 2,000 particles 10, 20 and 10, for which the
        specification measured 67 Å at FSC 0.5 from 785 particles of a ribosome
    """
    _require_particles(project.folder, particles, name)
    is_few = count < 2000
    planned = iterations or ((10, 20, 10) if is_few else (50, 200, 50))

    def words(begun: Iteration | None) -> list[str]:
        optics = read_star(project.folder / particles)["optics"]
        if (box := int(min(optics.ints("rlnImageSize")))) < SMALLEST_BOX_PX:
            raise SettingsError(
                f"{name}: boxes have {box} px, and a first map needs {SMALLEST_BOX_PX} or more; give finer pixels"
            )
        finest = FINEST_PIXELS * max(optics.floats("rlnImagePixelSize"))
        if begun is not None:
            return commands.continued(
                project.relion, optimiser=begun.optimiser, folder=folder, computing=project.computing
            )
        return commands.initial_model(
            project.relion,
            particles=particles,
            folder=folder,
            diameter_angstrom=diameter_angstrom,
            symmetry=symmetry,
            seed=seed,
            computing=project.computing,
            is_ctf_corrected=project.is_ctf_corrected,
            iterations=planned,
            healpix_order=healpix_order,
            subsets=(int(np.clip(count // 5, min(count, 50), 100)), min(count, 300)),
            resolutions_angstrom=(max(0.3 * diameter_angstrom, finest), max(0.12 * diameter_angstrom, finest)),
            offset_range_px=3.0 if is_few else 6.0,
        )

    newest = _iterated(project, name, folder, sum(planned), words)
    return read_model(project.folder / newest.models[0]).images[0]


def _iterated(
    project: RelionProject, name: str, folder: str, iterations: int, words: Callable[[Iteration | None], list[str]]
) -> Iteration:
    """The last iteration of a program, which goes on from the newest whole one where it had begun.

    Parameters
    ----------
    words : its command line, from the iteration that it goes on from; from None it begins
    """
    newest = newest_iteration(project.folder, folder)
    if newest is None or newest.number < iterations:
        project.run(name, words(newest if newest is not None and newest.number >= 1 else None), folder)
        newest = newest_iteration(project.folder, folder)
    if newest is None or newest.number < iterations:
        raise ProgramFailedError(f"{name}: ended well and wrote no iteration {iterations}: see programs/{name}.err")
    return newest


def refine(
    project: RelionProject,
    particles: str,
    *,
    name: str,
    folder: str,
    reference: str,
    diameter_angstrom: float,
    symmetry: str,
    seed: int,
    is_on_scale: bool = False,
    is_quick: bool = False,
    healpix_orders: tuple[int, int] | None = None,
) -> FinishedRefinement:
    """Refine two half sets until RELION says that they have converged.

    Parameters
    ----------
    is_on_scale : see `commands.auto_refine`; a map of RELION's own gradient descent is not: taken for one, it was lost
        in the first iteration
    healpix_orders : of the first angles, and from which they are searched for near the last ones only. By default 15
        degrees (2) and RELION's 3.75 (4), with few particles 7.5 (3): searching all angles of 7.5 degrees takes eight
        times as long as 15, and so few particles do not tell them apart
    """
    count = _require_particles(project.folder, particles, name)
    orders = healpix_orders or ((2, 3) if count < FEW_PARTICLES else (2, 4))
    finished = finished_refinement(project.folder, folder)
    if finished is None:
        newest = newest_iteration(project.folder, folder)
        if newest is None or newest.number < 1:
            words = commands.auto_refine(
                project.relion,
                particles=particles,
                folder=folder,
                reference=reference,
                diameter_angstrom=diameter_angstrom,
                low_pass_angstrom=0.2 * diameter_angstrom,
                symmetry=symmetry,
                seed=seed,
                computing=project.computing,
                is_ctf_corrected=project.is_ctf_corrected,
                is_on_scale=is_on_scale,
                low_resol_join_halves_angstrom=max(40.0, JOINED_DIAMETERS * diameter_angstrom),
                is_quick=is_quick,
                healpix_order=orders[0],
                local_healpix_order=orders[1],
            )
        else:
            words = commands.continued(
                project.relion, optimiser=newest.optimiser, folder=folder, computing=project.computing, is_mpi=True
            )
        project.run(name, words, folder)
        finished = finished_refinement(project.folder, folder)
        if finished is None:
            raise ProgramFailedError(f"{name}: ended well and has not converged: see programs/{name}.out")
    return finished


def make_mask(
    project: RelionProject, volume: str, *, name: str, output: str, threshold: float, diameter_angstrom: float,
    pixel_size_angstrom: float,
) -> str:  # fmt: skip
    """A soft mask of what exceeds a density of the low-passed map; its path."""
    if not (project.folder / output).is_file():
        words = commands.mask_create(
            project.relion,
            volume=volume,
            output=output,
            threshold=threshold,
            low_pass_angstrom=max(15.0, 0.1 * diameter_angstrom),
            pixel_size_angstrom=pixel_size_angstrom,
            threads=project.computing.threads,
        )
        project.run(name, words, str(Path(output).parent), [output])
    return output


def postprocess(
    project: RelionProject, halves: tuple[str, str], mask: str, *, name: str, folder: str, pixel_size_angstrom: float
) -> Postprocessing:
    """FSC curves of two half maps within a mask."""
    star = f"{folder.rstrip('/')}/post.star"
    if not (project.folder / star).is_file():
        words = commands.postprocess(
            project.relion,
            half1=halves[0],
            half2=halves[1],
            mask=mask,
            pixel_size_angstrom=pixel_size_angstrom,
            folder=folder,
        )
        project.run(name, words, folder, [star])
    return read_postprocessing(project.folder / star)


def find_local_resolution(
    project: RelionProject,
    halves: tuple[str, str],
    mask: str,
    *,
    name: str,
    folder: str,
    pixel_size_angstrom: float,
    diameter_angstrom: float,
) -> str:
    """A map of the resolution around each place, in Å; its path."""
    output = f"{folder.rstrip('/')}/locres_locres.mrc"
    if not (project.folder / output).is_file():
        words = commands.local_resolution(
            project.relion,
            half1=halves[0],
            half2=halves[1],
            mask=mask,
            pixel_size_angstrom=pixel_size_angstrom,
            folder=folder,
            diameter_angstrom=diameter_angstrom,
            finest_angstrom=2 * pixel_size_angstrom,
        )
        project.run(name, words, folder, [output])
    return output
