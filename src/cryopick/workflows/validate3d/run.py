"""`validate3d`: what is asked is made whole and checked, then the stages run, then table and report are made."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.evaluation.relion_programs import ProgramFailedError
from cryopick.geometry.units import as_length
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.folder_lock import LOCK_FILES, locked_folder
from cryopick.io.structures.volume import read_volume
from cryopick.metrics.map_yield import yield_against
from cryopick.metrics.viewing_directions import viewing_directions
from cryopick.processing.ctf import CtfParameters
from cryopick.processing.volumes import resampled_volume
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.symmetry import operators
from cryopick.settings import to_toml
from cryopick.types import Picks, Volume
from cryopick.workflows.compare import names_of_sets
from cryopick.workflows.validate3d.engine_table import DEFAULT_ENGINE, engine_named
from cryopick.workflows.validate3d.engines import Engine
from cryopick.workflows.validate3d.estimated_ctf import (
    ESTIMATES,
    CtfPlan,
    EstimatedCtf,
    MicroscopeOptions,
    estimate_ctf,
    plan_ctf,
    read_estimates,
)
from cryopick.workflows.validate3d.estimated_ctf import FOLDER as CTF_FOLDER
from cryopick.workflows.validate3d.geometry import BoxGeometry, box_geometry
from cryopick.workflows.validate3d.measure import SUCCESS_FSC, read_curves
from cryopick.workflows.validate3d.optics import (
    ESTIMATE,
    NONE,
    linked_name,
    no_ctf_text,
    optics_from_file,
    write_micrographs_ctf,
)
from cryopick.workflows.validate3d.part_worker import write_call
from cryopick.workflows.validate3d.parts import PartJobs, made_by_jobs, part_jobs, part_name, split_part
from cryopick.workflows.validate3d.picks import Image, find_images, on_images, random_picks, read_runs
from cryopick.workflows.validate3d.pipeline import (
    FEWEST_PARTICLES,
    Extracted,
    Problem,
    Selected,
    Work,
    extracted,
    local_resolution,
    read_reconstruction,
    reconstructed,
    selected,
    starts_that_agree,
)
from cryopick.workflows.validate3d.report import best_start, validation_page
from cryopick.workflows.validate3d.selection import chosen_classes
from cryopick.workflows.validate3d.settings import COMPARISONS, DEFAULT_SELECTIONS, SELECTIONS, ValidationSettings
from cryopick.workflows.validate3d.stages import Done, StageFolder
from cryopick.workflows.validate3d.table import Row, SeedResult, rows_as_json, sentences, table_csv
from cryopick.workflows.validate3d.truth import Truth, is_simulation, read_simulation, true_map

RESERVED = ("picks", "micrographs", "programs", "parts", CTF_FOLDER)
SETTINGS, LOG, REPORT = "settings.toml", "run.log", "report.html"
_MARKS = (SETTINGS, "command.txt", "micrographs_ctf.star")
"""What a validation writes first, and all of which nothing else has."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Validation:
    """What `validate3d` found.

    Parameters
    ----------
    folder : with all files
    table : a row a run and selection
    sentences : what the table says in words; what cannot be known comes first
    made : the stages that this call made; () where all were there
    geometry : box and pixels of the maps
    report : the page
    program_failures : what programs of others ended with; not bad picks, which are a result
    """

    folder: Path
    table: tuple[Row, ...]
    sentences: tuple[str, ...]
    made: tuple[str, ...]
    geometry: BoxGeometry
    report: Path | None = None
    program_failures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    _seed_folders: Mapping[str, Path] = field(default_factory=dict)

    @property
    def maps(self) -> dict[str, Volume]:
        """The map of each run's best start, of its first selection."""
        return {run: read_volume(path / "Refine/map.mrc") for run, path in self._seed_folders.items()}

    @property
    def poses(self) -> dict[str, Poses]:
        """Where every particle of that map lies."""
        return {run: read_reconstruction(path / "Refine").poses for run, path in self._seed_folders.items()}

    @property
    def fsc(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """The curves of that map by their names, (shells,) each."""
        return {run: read_curves(path / "Post/fsc.csv") for run, path in self._seed_folders.items()}


def validate3d(
    runs: Sequence[Path | str],
    *,
    output: Path | str,
    engine: str | None = None,
    truth: Path | str | None = None,
    ctf: Path | str | None = None,
    voltage_kv: float | None = None,
    spherical_aberration_mm: float | None = None,
    amplitude_contrast: float | None = None,
    symmetry: str = "C1",
    diameter: str | float | None = None,
    box: str | None = None,
    angpix: float | None = None,
    pixel_size_angstrom: float | None = None,
    micrographs: Sequence[Path | str] = (),
    names: Sequence[str] = (),
    compare: Sequence[str] | None = None,
    select2d: Sequence[str] | None = None,
    reference: Path | str | None = None,
    low_pass_angstrom: float = 0.0,
    seeds: int = 3,
    seed: int = 0,
    max_particles: int = 0,
    penalty_angstrom: float = 0.0,
    cores: int | None = None,
    overwrite: bool = False,
    submit: Path | str | None = None,
    part: str = "",
    on_progress: Callable[[str], None] | None = None,
) -> Validation:
    """Reconstruct a map from each run's picks, alike for all, and say how good it is.

    Parameters
    ----------
    runs : run folders of `cryopick pick`, or coordinate files of any program; all of the same micrographs
    output : folder; the same call resumes in it
    engine : what makes the maps (see `engine_table.ENGINES`)
    truth : folder of the simulation that the micrographs come from, or the true map (MRC)
    ctf : RELION's `micrographs_ctf.star`, cryoSPARC's exposures, "estimate" (CTFFIND, or torch-ctf-estimation), or
        "none"; None takes the simulation's own
    voltage_kv, spherical_aberration_mm, amplitude_contrast : for an estimate; None takes what a STAR file given as
        `micrographs` says of each, and 2.7 mm and 0.1 where none does
    symmetry : point group
    diameter : of the particle, with its unit or in Å; None takes the simulation's, or the median of the picks'
    box, angpix : see `geometry.box_geometry`; the box in px of the micrograph or in Å
    pixel_size_angstrom : of the micrographs, where no file says it
    micrographs : the images; run folders know theirs
    names : what to call the runs; by default the names of their folders
    compare : of "truth" and "random", picks that are made here; None takes "truth" where a simulation is given
    select2d : of "none", "auto" and files of class numbers; None takes none and auto
    reference, low_pass_angstrom : a map to start from, and how far it is low-passed
    seeds, seed, max_particles, penalty_angstrom : see `ValidationSettings`
    cores : None takes those that this process may use
    overwrite : replace what another validation left in the folder
    submit : make each map by a job of Slurm: "slurm" for a script of the cluster configuration, or a template as
        RELION's queue has; the call waits for the jobs, and after a stop the same call waits on
    part : make this part of the folder alone, RUN/SELECTION/seedN, and no table; jobs do
    on_progress : called with a sentence a step

    Returns
    -------
    validation : its table holds a result or an honest failure for every row

    Raises
    ------
    InputError, SettingsError
        If picks, images, CTF or settings cannot be used; the sentence says what to do.
    RunFolderError
        If another process writes to the folder, or it holds something else.
    WorkerError
        If Slurm takes no job.
    """
    call = {name: value for name, value in locals().items() if name not in ("submit", "part", "on_progress")}
    say = on_progress or (lambda _: None)
    chosen = engine_named(engine or DEFAULT_ENGINE)
    truth_path = None if truth is None else Path(truth)
    paths = [Path(one) for one in runs]
    if not paths:
        raise InputError("no run to validate; give run folders of `cryopick pick`, or coordinate files")
    called = [_folder_name(one) for one in names_of_sets(paths, names)]
    taken = sorted({*RESERVED, *COMPARISONS} & set(called))
    if taken:
        raise SettingsError(f"a run cannot be called {taken[0]}, which means something else here; name it (--names)")
    selections, chosen_by_hand = _selections(select2d, called, compare)
    microscope = MicroscopeOptions(
        voltage_kv=voltage_kv,
        spherical_aberration_mm=spherical_aberration_mm,
        amplitude_contrast=amplitude_contrast,
    )
    is_estimated = str(ctf) == ESTIMATE
    if microscope.given() and not is_estimated:
        raise SettingsError("--voltage, --cs and --amplitude-contrast are for --ctf estimate; leave them out")
    settings = ValidationSettings(
        engine=chosen.name,
        symmetry=symmetry,
        selections=selections,
        seeds=seeds if chosen.is_seeded else 1,
        seed=seed,
        low_pass_angstrom=low_pass_angstrom,
        max_particles=max_particles,
        penalty_angstrom=penalty_angstrom,
    )
    simulation = truth_path if truth_path is not None and is_simulation(truth_path) else None
    chosen.check(has_poses=simulation is not None)
    given = dict(zip(called, paths, strict=True))
    read = read_runs(given)
    images = find_images(given, read, micrographs, pixel_size_angstrom=pixel_size_angstrom)
    picks: dict[str, Sequence[Picks]] = dict(on_images(read, images, are_images_given=bool(micrographs)))
    known = None if simulation is None else read_simulation(simulation, images)
    geometry = _geometry(diameter=diameter, box=box, angpix=angpix, image=images[0], picks=picks, truth=known)
    _require_pixels(geometry, chosen, reference)
    comparisons = tuple(compare) if compare is not None else (("truth",) if known is not None else ())
    picks |= _compared(comparisons, picks, given=given, images=images, truth=known, geometry=geometry, seed=seed)
    plan = None
    if is_estimated:
        plan = plan_ctf(images, microscope, sources=[Path(one) for one in micrographs], runs=paths)
    optics, ctf_source = (None, ESTIMATE) if plan is not None else _optics(ctf, images, known)
    true_volume = None
    if truth_path is not None:
        true_volume = true_map(truth_path if known is None else known.volume, geometry)
    problem = Problem(
        settings=settings,
        geometry=geometry,
        images=images,
        optics=optics,
        ctf_source=ctf_source,
        picks=picks,
        truth=known,
        true_volume=true_volume,
        reference=None if reference is None else _reference(Path(reference), low_pass_angstrom, geometry),
        engine=chosen,
        chosen=chosen_by_hand,
        cores=cores or len(os.sched_getaffinity(0)),
        flags=_flags(optics is not None or is_estimated, true_volume, reference),
    )
    root = Path(output)
    if part:
        if plan is not None:
            problem = _with_estimates(problem, plan, read_estimates(root / ESTIMATES, images))
        return _make_part(root, problem, part, say)
    with locked_folder(root):
        _require_ours(root, overwrite=overwrite)
        if plan is not None:
            stages = StageFolder(root, _log_to(root, say))
            problem = _with_estimates(problem, plan, estimate_ctf(stages, images, plan, cores=problem.cores))
        _claim(root, problem)
        jobs = None if submit is None else part_jobs(submit, cores=cores, ranks=chosen.ranks, call=validate3d)
        if jobs is not None:
            write_call(root, call | {"cores": jobs.cores})
        return _run(root, problem, say, jobs=jobs)


def is_validation(folder: Path) -> bool:
    """Whether `validate3d` writes, or wrote, into this folder."""
    return all((folder / name).is_file() for name in _MARKS)


def progress_of(folder: Path) -> str:
    """The last that a validation told of itself."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "nothing was begun"


# ------------------------------------------------------------------------------------------------ what is asked, whole


def _selections(
    select2d: Sequence[str] | None, runs: Sequence[str], compare: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Mapping[str, tuple[int, ...]]]]:
    """The rows' names, and the classes that files keep, by the name of their row."""
    names, chosen = [], {}
    for one in DEFAULT_SELECTIONS if select2d is None else select2d:
        if one in SELECTIONS:
            names.append(one)
            continue
        name = _folder_name(Path(one).stem)
        if name in SELECTIONS:
            raise SettingsError(f"--select2d {one}: a file of this name would be taken for {name}; rename it")
        chosen[name] = chosen_classes(Path(one), [*runs, *(compare or ())])
        names.append(name)
    return tuple(names), chosen


def _folder_name(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_.+" else "_" for one in name).strip(".") or "run"


def _geometry(
    *,
    diameter: str | float | None,
    box: str | None,
    angpix: float | None,
    image: Image,
    picks: Mapping[str, Sequence[Picks]],
    truth: Truth | None,
) -> BoxGeometry:
    pixel = image.pixel_size_angstrom
    if diameter is not None:
        diameter_angstrom = as_length(diameter).middle_px(pixel) * pixel
    elif truth is not None:
        diameter_angstrom = truth.diameter_angstrom
    else:
        every = np.concatenate([np.zeros(0, np.float32), *(one.diameter_px for run in picks.values() for one in run)])
        every = every[np.isfinite(every)]
        if not len(every):
            raise SettingsError("no run says how large its particles are; give --diameter, for example 180A")
        diameter_angstrom = float(np.median(every)) * pixel
    box_px = None if box is None else round(as_length(box).middle_px(pixel))
    return box_geometry(diameter_angstrom, pixel, box_px=box_px, angpix=angpix)


def _require_pixels(geometry: BoxGeometry, engine: Engine, reference: Path | str | None) -> None:
    if engine.needs_start and reference is None:
        geometry.require_pixels(engine.smallest_box_px, why=f" for a first map by --engine {engine.name}")


def _compared(
    comparisons: Sequence[str],
    picks: Mapping[str, Sequence[Picks]],
    *,
    given: Mapping[str, Path],
    images: Sequence[Image],
    truth: Truth | None,
    geometry: BoxGeometry,
    seed: int,
) -> dict[str, Sequence[Picks]]:
    unknown = sorted(set(comparisons) - set(COMPARISONS))
    if unknown:
        raise SettingsError(f"--compare {unknown[0]} is unknown; known: {', '.join(COMPARISONS)}")
    found: dict[str, Sequence[Picks]] = {}
    if "truth" in comparisons:
        if truth is None:
            raise SettingsError("--compare truth needs the simulation that the micrographs come from (--truth SIM)")
        found["truth"] = truth.picks(images)
    if "random" in comparisons:
        first = next(iter(picks))
        found["random"] = random_picks(
            picks[first],
            images,
            diameter_px=geometry.diameter_px,
            box_px=geometry.box_px,
            run=given.get(first),
            seed=seed,
        )
    return found


def _optics(
    ctf: Path | str | None, images: Sequence[Image], truth: Truth | None
) -> tuple[Sequence[CtfParameters] | None, str]:
    if ctf is None:
        if truth is None:
            raise InputError(no_ctf_text([one.name for one in images]))
        return truth.optics, "the simulation's own"
    if str(ctf) == NONE:
        return None, NONE
    return optics_from_file(Path(ctf), images), str(ctf)


def _reference(path: Path, low_pass_angstrom: float, geometry: BoxGeometry) -> Volume:
    volume = read_volume(path)
    finest = low_pass_angstrom or max(60.0, geometry.diameter_angstrom / 5)
    edge = geometry.scaled_px * geometry.pixel_size_angstrom
    # Voxels of half the resolution hold just what is to be left
    coarse = resampled_volume(volume, size_px=2 * math.ceil(edge / finest), voxel_size_angstrom=finest / 2)
    return resampled_volume(coarse, size_px=geometry.scaled_px, voxel_size_angstrom=geometry.pixel_size_angstrom)


def _with_estimates(problem: Problem, plan: CtfPlan, estimated: EstimatedCtf) -> Problem:
    """The problem on those micrographs whose CTF is known, for all runs alike."""
    kept = estimated.kept
    fits = [fit for number in kept if (fit := estimated.fits[number]) is not None]
    return replace(
        problem,
        images=[problem.images[number] for number in kept],
        picks={run: [picks[number] for number in kept] for run, picks in problem.picks.items()},
        truth=None if problem.truth is None else problem.truth.of_images(kept),
        optics=[plan.microscopes[number].ctf(fit) for number, fit in zip(kept, fits, strict=True)],
        ctf_fits=fits,
        flags=(*problem.flags, estimated.sentence(problem.images)),
    )


def _flags(is_corrected: bool, truth: Volume | None, reference: object) -> tuple[str, ...]:
    found = []
    if not is_corrected:
        found.append("not CTF-corrected: every number holds for images as they are, and fine detail is lost or wrong")
    if truth is None:
        found.append(
            "the true structure is not known here: half maps show that the particles agree with each other, not that "
            "the map is right"
        )
    if reference is not None:
        found.append("reference-biased: the refinement started from a given map, which noise can take the shape of")
    return tuple(found)


def _require_ours(root: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds other things; estimates of the CTF come before the settings are written."""
    own = (*LOCK_FILES, CTF_FOLDER, ESTIMATES, LOG)
    others = [one.name for one in root.iterdir() if one.name not in own and not one.name.startswith(".")]
    if not (root / SETTINGS).is_file() and others and not overwrite:
        raise RunFolderError(f"{root}: is not empty and no validation; choose a new folder, or give --overwrite")


def _claim(root: Path, problem: Problem) -> None:
    """Write into the folder, which is ours, what is asked, and by which names the micrographs are read."""
    text = _settings_text(problem)
    path = root / SETTINGS
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        _log.warning("%s: other settings than those of the last call; what depends on them is made again", root)
    write_text_atomic(path, text)
    write_text_atomic(root / "command.txt", shlex.join(sys.argv) + "\n")
    links = root / "micrographs"
    wanted = {links / linked_name(image) for image in problem.images}
    for link in links.rglob("*"):
        if link.is_symlink() and link not in wanted:  # of an earlier call, on other micrographs
            link.unlink()
    for image in problem.images:
        link = links / linked_name(image)
        link.parent.mkdir(parents=True, exist_ok=True)
        target = image.path.resolve()
        if not (link.is_symlink() and Path(os.readlink(link)) == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    write_micrographs_ctf(root / "micrographs_ctf.star", problem.images, problem.optics, fits=problem.ctf_fits)


def _settings_text(problem: Problem) -> str:
    content = {
        **asdict(problem.settings),
        "ctf": problem.ctf_source,
        "runs": tuple(problem.picks),
        "geometry": {**asdict(problem.geometry), "pixel_size_angstrom": problem.geometry.pixel_size_angstrom},
    }
    return to_toml(content)


# ------------------------------------------------------------------------------------------------ the stages in turn


def _log_to(root: Path, say: Callable[[str], None]) -> Callable[[str], None]:
    def log(text: str) -> None:
        with (root / LOG).open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        say(text)

    return log


def _make_part(root: Path, problem: Problem, part: str, say: Callable[[str], None]) -> Validation:
    """The map of one run, selection and start, while others are made beside it; what is before it is there."""
    run, selection, seed = split_part(part)
    work = Work(StageFolder(root, _log_to(root, say)), problem)
    with locked_folder(root / part):
        particles = extracted(work, run)
        found: tuple[Done, Done] | str = particles.failure
        if not found:
            chosen = selected(work, particles, selection, problem.chosen.get(selection, {}))
            found = reconstructed(work, particles, chosen, seed)
    if isinstance(found, str):
        raise ProgramFailedError(found, "picks")
    return Validation(
        folder=root,
        table=(),
        sentences=(),
        made=tuple(work.folder.made),
        geometry=problem.geometry,
        flags=problem.flags,
    )


def _submit(work: Work, jobs: PartJobs) -> None:
    """Have all maps made by jobs; particles and their selection are made here first, which takes little."""
    problem, parts = work.problem, []
    for run in problem.picks:
        particles = extracted(work, run)
        for selection in () if particles.failure else problem.settings.selections:
            try:
                chosen = selected(work, particles, selection, problem.chosen.get(selection, {}))
            except ProgramFailedError:  # its row tells
                continue
            if len(chosen.index) >= FEWEST_PARTICLES:
                parts += [part_name(run, selection, seed) for seed in range(1, problem.settings.seeds + 1)]
    work.part_failures.update(made_by_jobs(work.folder.root, parts, jobs, work.folder.log))


def _run(root: Path, problem: Problem, say: Callable[[str], None], *, jobs: PartJobs | None) -> Validation:
    log = _log_to(root, say)
    work = Work(StageFolder(root, log), problem)
    rows: list[Row] = []
    best: dict[str, Path] = {}
    log(_announcement(problem))
    if jobs is not None:
        _submit(work, jobs)
    for run in problem.picks:
        particles = extracted(work, run)
        for name in problem.settings.selections:
            row, where = _row(work, particles, name, problem.chosen.get(name, {}))
            rows.append(row)
            if where is not None:
                best.setdefault(run, where)
    for start in best.values() if problem.engine.has_local_resolution else ():
        local_resolution(work, start.relative_to(root).as_posix())
    rows = _with_penalty(_with_yields(root, problem, rows), problem.settings.penalty_angstrom)
    told = sentences(rows, problem.flags)
    content = {
        "sentences": told,
        "engine": problem.engine.name,
        "symmetry": problem.settings.symmetry,
        "ctf": problem.ctf_source,
        "pixel_size_angstrom": problem.geometry.pixel_size_angstrom,
        "box_px": problem.geometry.scaled_px,
        "diameter_angstrom": problem.geometry.diameter_angstrom,
        "rows": rows_as_json(rows),
    }
    write_text_atomic(root / "table.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text_atomic(root / "table.csv", table_csv(rows))
    report = root / REPORT
    page = validation_page(
        root,
        rows,
        geometry=problem.geometry,
        true_volume=problem.true_volume,
        flags=problem.flags,
        sentences=told,
        settings={**asdict(problem.settings), "ctf": problem.ctf_source, "command": shlex.join(sys.argv)},
        directions=_directions(rows, best, problem),
    )
    write_text_atomic(report, page.html())
    return Validation(
        folder=root,
        table=tuple(rows),
        sentences=tuple(told),
        made=tuple(work.folder.made),
        geometry=problem.geometry,
        report=report,
        program_failures=tuple(dict.fromkeys(work.program_failures)),
        flags=problem.flags,
        _seed_folders=best,
    )


def _directions(
    rows: Sequence[Row], best: Mapping[str, Path], problem: Problem
) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Of each run's best start: views per solid angle, and their evenness as the table has it."""
    found = {}
    for run, path in best.items():
        row = next(one for one in rows if one.run == run)
        seen = viewing_directions(
            read_reconstruction(path / "Refine").poses.rotations, operators(problem.settings.symmetry)
        )
        told = next(one.evenness for one in row.seeds if path.name == f"seed{one.seed}")
        found[run] = (seen.density, seen.evenness if told is None else told)
    return found


def _announcement(problem: Problem) -> str:
    picks = {run: sum(len(one) for one in by_image) for run, by_image in problem.picks.items()}
    settings = problem.settings
    seconds = sum(problem.engine.seconds(count, problem.geometry) for count in picks.values())
    minutes = seconds * len(settings.selections) * settings.seeds / 60
    geometry = problem.geometry
    return (
        f"{len(picks)} pick sets x {len(settings.selections)} selections x {settings.seeds} seeds, engine "
        f"{problem.engine.name}, {len(problem.images)} micrographs, particles of {geometry.diameter_angstrom:.0f} Å in "
        f"boxes of {geometry.box_px} px binned to {geometry.scaled_px} px of {geometry.pixel_size_angstrom:.2f} Å: "
        f"about {max(1, math.ceil(minutes))} min of processor time; Ctrl-C loses nothing that is finished"
    )


def _row(
    work: Work, particles: Extracted, selection: str, chosen: Mapping[str, tuple[int, ...]]
) -> tuple[Row, Path | None]:
    """The row of one run and selection, and the folder of its best start."""
    problem, run = work.problem, particles.clean.name
    failure = particles.failure
    chosen_particles = Selected(selection, np.zeros(0, np.int64), "")
    if not failure:
        try:
            chosen_particles = selected(work, particles, selection, chosen)
        except ProgramFailedError as error:
            failure = str(error)
    results: list[SeedResult] = []
    maps: dict[int, Done] = {}
    for seed in range(1, problem.settings.seeds + 1):
        if failure:
            results.append(SeedResult(seed=seed, failure=failure))
            continue
        try:
            lost = work.part_failures.get(part_name(run, selection, seed), "")
            if lost:
                work.program_failures.append(lost)
            found = lost or reconstructed(work, particles, chosen_particles, seed)
        except ProgramFailedError as error:
            work.folder.log(f"{run}, {selection}, seed {seed}: {error}")
            found = str(error)
            if error.kind != "picks":
                work.program_failures.append(str(error))
        if isinstance(found, str):
            results.append(SeedResult(seed=seed, failure=found))
            continue
        refined, post = found
        maps[seed] = refined
        results.append(
            SeedResult(
                seed=seed,
                is_right=post.facts["low_fsc"] >= SUCCESS_FSC,
                half_angstrom=post.facts["half_angstrom"],
                truth_angstrom=post.facts["truth_angstrom"],
                mirrored=post.facts["mirrored"],
                score=refined.facts["score"],
                evenness=post.facts["evenness"],
                cpu_seconds=refined.cpu_seconds,
            )
        )
    if problem.true_volume is None and len(maps) > 1:
        agreed = starts_that_agree(work, run, selection, maps)
        results = [replace(one, is_right=one.is_right and one.seed in agreed) for one in results]
    known = None if particles.known is None else particles.known.take(chosen_particles.index)
    clean = particles.clean
    row = Row(
        run=run,
        selection=selection,
        given=clean.given,
        duplicates=clean.duplicates,
        at_border=clean.at_border,
        left_out=clean.left_out,
        particles=particles.particles,
        selected=len(chosen_particles.index),
        true_particles=None if known is None else int(known.is_true.sum()),
        precision=None if known is None else known.precision,
        recall=None if known is None else known.recall,
        expected_yield=None,
        seeds=tuple(results),
        nyquist_angstrom=problem.geometry.nyquist_angstrom,
    )
    return row, best_start(work.folder.root, row)


def _with_yields(root: Path, problem: Problem, rows: Sequence[Row]) -> list[Row]:
    """Each start's share of the SSNR that the best start of the truth picks reaches with the same engine."""
    yardstick, reference = None, next((row for row in rows if row.run == "truth"), None)
    if reference is not None and reference.right and problem.true_volume is not None:
        best = min(reference.right, key=lambda one: one.truth_angstrom or math.inf)
        yardstick = read_curves(root / "truth" / reference.selection / f"seed{best.seed}" / "Post/fsc.csv")["truth"]
    found = []
    for row in rows:
        expected = None
        if row.precision is not None and row.recall is not None and row.selected:
            expected = row.precision * row.recall
        seeds = row.seeds
        if yardstick is not None:
            seeds = tuple(
                one if one.failure else replace(one, yield_share=_yield(root, row, one, yardstick, problem.geometry))
                for one in seeds
            )
        found.append(replace(row, seeds=seeds, expected_yield=expected))
    even = None if reference is None else reference.mean("evenness")
    return found if not even else [_relative_evenness(row, even) for row in found]


def _relative_evenness(row: Row, even: float) -> Row:
    seeds = (one if one.evenness is None else replace(one, evenness=one.evenness / even) for one in row.seeds)
    return replace(row, seeds=tuple(seeds))


def _yield(
    root: Path, row: Row, one: SeedResult, yardstick: NDArray[np.float64], geometry: BoxGeometry
) -> float | None:
    curve = read_curves(root / row.run / row.selection / f"seed{one.seed}" / "Post/fsc.csv")["truth"]
    value = yield_against(
        curve,
        yardstick,
        box_px=geometry.scaled_px,
        pixel_size_angstrom=geometry.pixel_size_angstrom,
        coarsest_angstrom=geometry.diameter_angstrom / 4,
    )
    return float(value) if np.isfinite(value) else None


def _with_penalty(rows: Sequence[Row], penalty_angstrom: float) -> list[Row]:
    """The penalty of failed maps: given, or twice the worst that succeeded."""
    worst = [value for row in rows for one in row.right if (value := getattr(one, row.headline)) is not None]
    penalty = penalty_angstrom or (2 * max(worst) if worst else None)
    return [replace(row, penalty_angstrom=penalty) for row in rows]
