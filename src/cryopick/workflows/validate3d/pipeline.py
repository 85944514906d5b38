"""From picks to maps and their figures: the stages of a validation, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.evaluation.ctf_estimation import CtfFit
from cryopick.evaluation.relion_programs import ProgramFailedError
from cryopick.io.coordinates.names import without_extension
from cryopick.io.coordinates.relion import write_relion_micrograph
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.metrics.fourier_shell_correlation import fourier_shell_correlation
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.processing.ctf import CtfParameters
from cryopick.reconstruction.classes_2d import class_count
from cryopick.reconstruction.halves import split_half_sets
from cryopick.reconstruction.masks import soft_mask_of
from cryopick.reconstruction.particles import (
    ContrastTransfer,
    ParticleStack,
    extract_particles,
    extraction_centres,
)
from cryopick.reconstruction.symmetry import operators
from cryopick.types import Picks, Volume
from cryopick.workflows.validate3d.engines import Engine, EngineJob, Reconstruction
from cryopick.workflows.validate3d.geometry import BoxGeometry
from cryopick.workflows.validate3d.measure import measure
from cryopick.workflows.validate3d.optics import (
    RELION_VERSION,
    linked_name,
)
from cryopick.workflows.validate3d.particle_files import STACK, TABLE, particle_tables, read_particles, write_particles
from cryopick.workflows.validate3d.picks import (
    OVERHANG_DIAMETERS,
    CleanPicks,
    Image,
    clean_picks,
)
from cryopick.workflows.validate3d.selection import class_facts, classes_csv
from cryopick.workflows.validate3d.settings import ValidationSettings
from cryopick.workflows.validate3d.stages import DONE, LOCAL_RESOLUTION, Done, StageFolder
from cryopick.workflows.validate3d.truth import MatchedPicks, Truth, matched

FEWEST_PARTICLES = 40
"""With fewer, half maps of some twenty particles each say nothing at any resolution."""
AGREE_FSC, AGREE_DIAMETERS = 0.5, 0.2


@dataclass(frozen=True, eq=False)
class Problem:
    """All that the stages work on.

    Parameters
    ----------
    images, optics : of each micrograph; `optics` is None where nothing is to be corrected
    picks : of each run as read, in the order of the images
    truth : of a simulation; None without
    true_volume : the true map on the reconstructions' voxels; None where unknown
    chosen : classes kept by hand: by the name of the selection, then by run
    reference : the user's starting volume, on the reconstructions' voxels
    ctf_fits : of each micrograph, where the CTF was estimated here
    """

    settings: ValidationSettings
    geometry: BoxGeometry
    images: Sequence[Image]
    optics: Sequence[CtfParameters] | None
    ctf_source: str
    picks: Mapping[str, Sequence[Picks]]
    truth: Truth | None
    true_volume: Volume | None
    reference: Volume | None
    chosen: Mapping[str, Mapping[str, tuple[int, ...]]]
    engine: Engine
    cores: int
    flags: tuple[str, ...]
    ctf_fits: Sequence[CtfFit] = ()


@dataclass(frozen=True, eq=False)
class Work:
    """A problem and the folder that its stages stand in."""

    folder: StageFolder
    problem: Problem
    program_failures: list[str] = field(default_factory=list)
    part_failures: dict[str, str] = field(default_factory=dict)
    """Of parts that jobs of a batch system should have made, and why they did not."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """The particles of one run, extracted."""

    clean: CleanPicks
    done: Done
    particles: int
    known: MatchedPicks | None
    """Of the extracted particles."""
    failure: str = ""


def extracted(work: Work, run: str) -> Extracted:
    """The stage `RUN/Extract`: clean picks, their boxes, binned and normalised, and their half sets."""
    problem = work.problem
    geometry, settings = problem.geometry, problem.settings
    clean = clean_picks(
        run,
        problem.picks[run],
        problem.images,
        diameter_px=geometry.diameter_px,
        box_px=geometry.box_px,
        max_particles=settings.max_particles or None,
        seed=settings.seed,
    )
    inputs = {
        "picks": _array_digest(clean.xy_px, clean.micrograph),
        "micrographs": [[one.name, *_stamp(one.path)] for one in problem.images],
        "ctf": None if problem.optics is None else [asdict(one) for one in problem.optics],
        "geometry": asdict(geometry),
        "seed": settings.seed,
    }
    if len(clean) < FEWEST_PARTICLES:
        return _too_few(clean, len(clean))
    try:
        done = work.folder.stage(f"{run}/Extract", inputs, lambda target: _extract(target, problem, clean))
    except InputError as error:
        return Extracted(clean, Done(Path(), "", {}, 0, 0, was_made=False), 0, None, str(error))
    kept = np.asarray(done.facts["kept"], dtype=np.int64)
    known = None
    if problem.truth is not None:
        known = matched(clean, problem.truth, problem.images, geometry, seed=settings.seed).take(kept)
    return Extracted(clean, done, len(kept), known)


def _too_few(clean: CleanPicks, particles: int) -> Extracted:
    return Extracted(
        clean,
        Done(Path(), "", {}, 0, 0, was_made=False),
        particles,
        None,
        f"too few particles: {particles} are left, and a map needs {FEWEST_PARTICLES} or more",
    )


def _extract(target: Path, problem: Problem, clean: CleanPicks) -> dict[str, Any]:
    geometry = problem.geometry
    parts, kept = [], []
    for number, image in enumerate(problem.images):
        rows = np.flatnonzero(clean.micrograph == number)
        picks = Picks(
            xy_px=clean.xy_px[rows],
            score=clean.score[rows],
            micrograph_name=image.name,
            diameter_px=np.full(len(rows), geometry.diameter_px, np.float32),
        )
        write_relion_micrograph(
            target / "picks" / "micrographs" / f"{without_extension(linked_name(image))}_picks.star", picks
        )
        if not len(rows):
            continue
        found, inside = extract_particles(
            read_micrograph(image.path),
            clean.xy_px[rows],
            box_px=geometry.box_px,
            scaled_px=geometry.scaled_px,
            background_radius_px=geometry.background_radius_px,
            overhang_px=OVERHANG_DIAMETERS * geometry.diameter_px + 1,  # one, since boxes stand on whole pixels
        )
        parts.append(found)
        kept.append(rows[inside])
    index = np.concatenate(kept)
    micrograph, centres = clean.micrograph[index], extraction_centres(clean.xy_px[index])
    halves = split_half_sets(micrograph, centres, geometry.box_px, len(problem.images), problem.settings.seed)
    stack = ParticleStack(
        images=np.concatenate(parts),
        pixel_size_angstrom=geometry.pixel_size_angstrom,
        diameter_angstrom=geometry.diameter_angstrom,
        ctf=None if problem.optics is None else ContrastTransfer.of_micrographs(problem.optics, micrograph),
        micrograph=micrograph,
        centres_px=centres,
    )
    write_particles(target, stack, halves, problem.images, geometry, stack_name=f"{clean.name}/Extract/{STACK}")
    return {"kept": index.tolist(), "half1": int((halves == 1).sum()), "half2": int((halves == 2).sum())}


def _array_digest(*arrays: NDArray[Any]) -> str:
    import hashlib

    state = hashlib.blake2b(digest_size=16)
    for one in arrays:
        state.update(np.ascontiguousarray(one).tobytes())
    return state.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


# ------------------------------------------------------------------------------------------------ one row and seed


@dataclass(frozen=True, eq=False)
class Selected:
    """The particles of a run that go into the map.

    Parameters
    ----------
    index : (n,) rows of the extracted particles
    digest : of what they were chosen by
    """

    name: str
    index: NDArray[np.int64]
    digest: str
    cpu_seconds: float = 0.0


def selected(work: Work, particles: Extracted, selection: str, chosen: Mapping[str, tuple[int, ...]]) -> Selected:
    """The particles of a run that a selection keeps; `auto` and files go by the stage `RUN/Class2D`.

    Parameters
    ----------
    selection : none, auto, or the name of a file's row
    chosen : classes that the file keeps, by run
    """
    everything = np.arange(particles.particles, dtype=np.int64)
    if selection == "none":
        return Selected("none", everything, "")
    run = particles.clean.name
    count = class_count(particles.particles)
    engine = work.problem.engine
    inputs = {
        "extract": particles.done.digest,
        "engine": engine.name,
        "version": engine.version(),
        "count": count,
        "seed": work.problem.settings.seed,
    }

    def make(target: Path) -> dict[str, Any]:
        every = Selected("all", everything, "")
        job = _job(work, particles, every, work.problem.settings.seed)
        job = replace(job, folder=target, log=lambda text: work.folder.log(f"{run}/Class2D: {text}"))
        found = engine.classes(job, count)
        facts = class_facts(found.assignment, found.quality.tolist(), found.is_kept, found.reason, particles.known)
        write_mrc(
            target / "averages.mrcs", found.averages, pixel_size_angstrom=work.problem.geometry.pixel_size_angstrom
        )
        write_text_atomic(target / "classes.csv", classes_csv(facts))
        np.save(target / "assignment.npy", found.assignment)
        return {"classes": [asdict(one) for one in facts]}

    done = work.folder.stage(f"{run}/Class2D", inputs, make, can_go_on=True)
    assignment = np.load(done.folder / "assignment.npy")
    if selection == "auto":
        kept = [one["number"] for one in done.facts["classes"] if one["is_kept"]]
    else:
        kept = list(chosen[run])
        unknown = sorted(set(kept) - {one["number"] for one in done.facts["classes"]})
        if unknown:
            raise InputError(f"--select2d {selection}: {run} has no class {unknown[0]}, only 1 to {count}")
    index = np.flatnonzero(np.isin(assignment + 1, kept))
    return Selected(selection, index, _array_digest(index), done.cpu_seconds)


def reconstructed(work: Work, particles: Extracted, selected: Selected, seed: int) -> tuple[Done, Done] | str:
    """The stages `Initial`, `Refine` and `Post` of one run, selection and seed; or why there is no map."""
    if len(selected.index) < FEWEST_PARTICLES:
        return f"too few particles: {len(selected.index)} are left, and a map needs {FEWEST_PARTICLES} or more"
    folder, problem, run = work.folder, work.problem, particles.clean.name
    engine, settings = problem.engine, problem.settings
    base = f"{run}/{selected.name}/seed{seed}"
    common = {
        "extract": particles.done.digest,
        "selection": selected.digest,
        "engine": engine.name,
        "version": engine.version(),
        "symmetry": settings.symmetry,
        "seed": seed if engine.is_seeded else 0,
    }
    loaded: list[EngineJob] = []

    def job(target: Path) -> EngineJob:
        if not loaded:
            loaded.append(_job(work, particles, selected, seed))
        name = target.name.removesuffix(".partial")
        return replace(loaded[0], folder=target, log=lambda text: folder.log(f"{base}/{name}: {text}"))

    start: Volume | None = problem.reference
    start_digest = "" if start is None else _array_digest(start.density)
    cpu = 0.0
    score = None
    if engine.needs_start and start is None:

        def make_initial(target: Path) -> dict[str, Any]:
            found = engine.initial(job(target))
            write_volume(target / "initial.mrc", found.volume)
            return {"score": found.score}

        initial = folder.stage(f"{base}/Initial", common, make_initial, can_go_on=True)
        start, start_digest = read_volume(initial.folder / "initial.mrc"), initial.digest
        cpu, score = initial.cpu_seconds, initial.facts["score"]

    def make_refined(target: Path) -> dict[str, Any]:
        one = replace(job(target), start=start, is_start_given=problem.reference is not None)
        _write_reconstruction(target, engine.refine(one), one, problem)
        return {"score": score}

    refined = folder.stage(f"{base}/Refine", common | {"start": start_digest}, make_refined, can_go_on=True)

    def make_post(target: Path) -> dict[str, Any]:
        found = read_reconstruction(refined.folder)
        figures = measure(
            found,
            problem.true_volume,
            problem.geometry,
            target,
            symmetry=settings.symmetry,
            is_aligned=engine.is_aligned,
        )
        return figures.facts()

    truth_digest = None if problem.true_volume is None else _array_digest(problem.true_volume.density)
    post = folder.stage(f"{base}/Post", {"refined": refined.digest, "truth": truth_digest, "version": 1}, make_post)
    return replace(refined, cpu_seconds=refined.cpu_seconds + cpu + post.cpu_seconds), post


def starts_that_agree(work: Work, run: str, selection: str, refined: Mapping[int, Done]) -> set[int]:
    """The starts, by seed, whose map another start found too: where the truth is unknown, the sign of a right one.

    Two maps agree where one laid onto the other has an FSC of 0.5 or more beyond a fifth of the diameter.

    Parameters
    ----------
    refined : the stage `Refine` of each seed
    """
    geometry, symmetry = work.problem.geometry, work.problem.settings.symmetry

    def make(_: Path) -> dict[str, Any]:
        maps = {seed: read_volume(done.folder / "map.mrc") for seed, done in refined.items()}
        found = {}
        for first, second in combinations(maps, 2):
            aligned = align_volumes(
                maps[second],
                maps[first],
                diameter_angstrom=geometry.diameter_angstrom,
                symmetry_operators=operators(symmetry),
            ).aligned
            mask = soft_mask_of(maps[first], diameter_angstrom=geometry.diameter_angstrom)
            curve = fourier_shell_correlation(aligned.density, maps[first].density, mask)
            shell = geometry.scaled_px * geometry.pixel_size_angstrom / (AGREE_DIAMETERS * geometry.diameter_angstrom)
            found[f"{first},{second}"] = float(curve[1 : int(shell) + 2].min())
        return {"low_fsc": found}

    inputs = {"refined": {str(seed): done.digest for seed, done in refined.items()}, "symmetry": symmetry}
    done = work.folder.stage(f"{run}/{selection}/Agreement", inputs, make)
    agreed: set[int] = set()
    for pair, value in done.facts["low_fsc"].items():
        if value >= AGREE_FSC:
            agreed |= {int(one) for one in pair.split(",")}
    return agreed


def local_resolution(work: Work, start: str) -> None:
    """The stage `LocalResolution` of a start, RUN/SELECTION/seedN, whose map is there; that it failed is told."""
    folder, geometry = work.folder, work.problem.geometry
    base = folder.root / start

    def make(target: Path) -> dict[str, Any]:
        halves = (base / "Refine/half1.mrc", base / "Refine/half2.mrc")
        mask = base / "Post/mask.mrc"
        found = work.problem.engine.local_resolution(folder.root, target, halves, mask, geometry)
        write_volume(target / "local_resolution.mrc", found)
        inside = found.density[read_volume(mask).density > 0.5]
        return {"quartiles_angstrom": [float(one) for one in np.percentile(inside, (25, 50, 75))]}

    inputs = {
        "post": _digest_of_done(base / "Post"),
        "geometry": asdict(geometry),
        "version": work.problem.engine.version(),
    }
    try:
        folder.stage(f"{start}/{LOCAL_RESOLUTION}", inputs, make)
    except ProgramFailedError as error:
        folder.log(f"{start}/{LOCAL_RESOLUTION}: {error}")
        work.program_failures.append(str(error))


def _digest_of_done(folder: Path) -> str:
    return str(read_json_object(folder / DONE, what="the record of a finished stage")["digest"])


def _job(work: Work, particles: Extracted, selected: Selected, seed: int) -> EngineJob:
    folder, problem, run = work.folder, work.problem, particles.clean.name
    stack, halves = read_particles(particles.done.folder, problem.images, problem.geometry)
    taken, half = stack.take(selected.index), halves[selected.index]
    if not ((half == 1).any() and (half == 2).any()):
        raise InputError(f"{run}: after selection one half set is empty")
    table = folder.root / run / selected.name / TABLE
    write_star(
        table,
        particle_tables(taken, half, problem.images, problem.geometry, f"{run}/Extract/{STACK}", rows=selected.index),
        version=RELION_VERSION,
    )
    return EngineJob(
        root=folder.root,
        folder=folder.root,
        table=table,
        stack_name=f"{run}/Extract/{STACK}",
        rows=selected.index,
        stack=taken,
        halves=half,
        geometry=problem.geometry,
        symmetry=problem.settings.symmetry,
        seed=seed,
        cores=problem.cores,
        known=None if particles.known is None else particles.known.take(selected.index),
    )


def _write_reconstruction(target: Path, found: Reconstruction, job: EngineJob, problem: Problem) -> None:
    for name, volume in (("half1", found.half1), ("half2", found.half2), ("map", found.map)):
        write_volume(target / f"{name}.mrc", volume)
    origins = found.poses.origins_angstrom(job.stack.pixel_size_angstrom)
    angles = found.poses.rot_tilt_psi_deg
    extra = {
        "rlnAngleRot": angles[:, 0],
        "rlnAngleTilt": angles[:, 1],
        "rlnAnglePsi": angles[:, 2],
        "rlnOriginXAngst": origins[:, 0],
        "rlnOriginYAngst": origins[:, 1],
    }
    tables = particle_tables(
        job.stack,
        job.halves,
        problem.images,
        problem.geometry,
        job.stack_name,
        rows=job.rows,
        extra=extra,
    )
    write_star(target / "poses.star", tables, version=RELION_VERSION)


def read_reconstruction(folder: Path) -> Reconstruction:
    """The maps and poses of a finished `Refine`."""
    from cryopick.io.star import read_star
    from cryopick.reconstruction.poses import Poses

    tables = read_star(folder / "poses.star")
    table, optics = tables["particles"], tables["optics"]
    pixel = optics.floats("rlnImagePixelSize")[0]
    angles = np.stack([table.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], axis=1)
    origins = np.stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)
    return Reconstruction(
        half1=read_volume(folder / "half1.mrc"),
        half2=read_volume(folder / "half2.mrc"),
        map=read_volume(folder / "map.mrc"),
        poses=Poses.of_angles(angles, -origins / pixel),
    )
