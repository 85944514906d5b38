"""From picks to maps by cryoSPARC: every job and parameter by name, made, waited for and taken up again.

What is asked for is planned first, as a list of jobs without a server; then the jobs are made one after the other. The
id of each is stored before it is queued, so that the same command finds it again after a stop; one that failed or was
killed is made a second time, once. Types and names are those of cryoSPARC 4.5 to 5; a server says which it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, FormatError, InputError, ServerError, SettingsError
from cryopick.io.files.atomic import write_text_atomic

EXTRACT, CLASS_2D, SELECT_2D = "extract_micrographs_cpu_parallel", "class_2D_new", "select_2D"
AB_INITIO, REFINE = "homo_abinit", "homo_refine_new"
CLASSES = 50
"""2D classes, cryoSPARC's default, which the papers used."""
TRIES = 2
DONE = ("completed", "failed", "killed")
FEWEST_OF_CLASS = 10
COARSEST_OF_FINEST = 2.0
"""Classes coarser than this times the finest one are left out. Not tuned: no server was at hand."""
SHARE_OF_FINEST = 0.02
"""Of the particles, that a class holds at least to count as the finest: tiny ones claim any resolution."""

Source = tuple[str, str]
"""A job, by its key in the plan or by its uid, and the name of one of its outputs."""


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """One job.

    Attributes
    ----------
    key : by which later jobs name it
    type : cryoSPARC's
    connections : input -> where it comes from
    params : what differs from cryoSPARC's defaults
    """

    key: str
    type: str
    connections: Mapping[str, Source]
    params: Mapping[str, Any] = field(default_factory=dict)

    def sentence(self, number: int) -> str:
        """For `--dry-run`."""
        inputs = ", ".join(f"{name} <- {job}.{output}" for name, (job, output) in self.connections.items())
        params = ", ".join(f"{name}={value}" for name, value in self.params.items()) or "defaults"
        return f"{number}. {self.type} ({self.key}): {inputs}; {params}"


def planned_jobs(
    *,
    exposures: Source,
    picks: Source,
    box_px: int,
    scaled_px: int,
    symmetry: str,
    seeds: Sequence[int],
    selections: Sequence[str] = ("none", "auto"),
    classes: int = CLASSES,
) -> list[PlannedJob]:
    """The jobs of one run: extraction, 2D classes where a selection is asked for, and a start and a refinement a seed.

    Parameters
    ----------
    exposures : micrographs with CTF, such as ("J12", "exposures")
    picks : of an External job, such as ("J55", "particles")
    box_px, scaled_px : of the boxes in the micrograph, and what they are cropped to in Fourier space
    """
    if not seeds:
        raise SettingsError("no seed is asked for; expected at least one start")
    unknown = sorted(set(selections) - {"none", "auto"})
    if unknown:
        raise SettingsError(f"2D selection {', '.join(unknown)}: cryoSPARC's jobs know none and auto")
    for name, value in (("box", box_px), ("scaled box", scaled_px)):
        if value < 2 or value % 2:
            raise SettingsError(f"{name} is {value} px; expected an even number")
    jobs = [
        PlannedJob(
            key="extract",
            type=EXTRACT,
            connections={"micrographs": exposures, "particles": picks},
            params={"box_size_pix": box_px, "bin_size_pix": scaled_px},
        )
    ]
    taken: dict[str, Source] = {"none": ("extract", "particles")}
    if "auto" in selections:
        jobs += [
            PlannedJob(
                key="class2d",
                type=CLASS_2D,
                connections={"particles": ("extract", "particles")},
                params={"class2D_K": classes},
            ),
            PlannedJob(
                key="select2d",
                type=SELECT_2D,
                connections={"particles": ("class2d", "particles"), "templates": ("class2d", "class_averages")},
            ),
        ]
        taken["auto"] = ("select2d", "particles_selected")
    for selection in selections:
        for seed in seeds:
            start = f"{selection}/seed{seed}/initial"
            jobs += [
                PlannedJob(
                    key=start,
                    type=AB_INITIO,
                    connections={"particles": taken[selection]},
                    params={"abinit_K": 1, "random_seed": seed},
                ),
                PlannedJob(
                    key=f"{selection}/seed{seed}/refine",
                    type=REFINE,
                    connections={"particles": (start, "particles_all_classes"), "volume": (start, "volume_class_0")},
                    params={"refine_symmetry": symmetry, "random_seed": seed},
                ),
            ]
    return jobs


# -------------------------------------------------------------------------------------------------- class selection


@dataclass(frozen=True)
class ChosenClasses:
    """Which 2D classes are kept: index -> whether, and why."""

    is_kept: Mapping[int, bool]
    reasons: Mapping[int, str]

    @property
    def kept(self) -> list[int]:
        return [index for index, keep in self.is_kept.items() if keep]


def choose_classes(info: Sequence[Mapping[str, Any]]) -> ChosenClasses:
    """Classes by what Select 2D says of them, number of particles and resolution.

    Raises
    ------
    FormatError
        If the server's answer lacks them.
    """
    try:
        rows = [(int(one["class_idx"]), float(one["num_particles_total"]), float(one["res_A"])) for one in info]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"cryoSPARC, Select 2D: expected class_idx, num_particles_total and res_A ({error})"
        ) from None
    if not rows:
        raise FormatError("cryoSPARC, Select 2D: it has no classes")
    total = sum(count for _, count, _ in rows)
    trusted = [res for _, count, res in rows if count >= max(FEWEST_OF_CLASS, SHARE_OF_FINEST * total)]
    finest = min(trusted, default=float("inf"))
    is_kept, reasons = {}, {}
    for index, count, resolution in rows:
        if count < FEWEST_OF_CLASS:
            reason = f"{count:.0f} particles, fewer than {FEWEST_OF_CLASS}"
        elif not resolution <= COARSEST_OF_FINEST * finest:
            reason = f"{resolution:.1f} Å, and the finest class has {finest:.1f} Å"
        else:
            reason = ""
        is_kept[index], reasons[index] = not reason, reason or "kept"
    return ChosenClasses(is_kept, reasons)


# ------------------------------------------------------------------------------------------------------ making them


class JobFailedError(CryopickError):
    """A job of cryoSPARC's ended without a result, twice."""


@dataclass
class JobRecord:
    """The ids of the jobs that were made, in a file that is written before a job is queued.

    Attributes
    ----------
    uids : key -> ids, the last of which counts
    chosen : key of a Select 2D -> its classes and why
    """

    path: Path
    where: str
    uids: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, where: str) -> JobRecord:
        """What an earlier call left; an empty one where there is none.

        Raises
        ------
        FormatError
            If the file is damaged.
        InputError
            If it is of another project or workspace.
        """
        record = cls(path, where)
        if not path.is_file():
            return record
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            record.uids = {str(key): [str(uid) for uid in uids] for key, uids in content["jobs"].items()}
            record.chosen = {str(key): dict(one) for key, one in content["classes"].items()}
            of = str(content["where"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: is damaged ({error}); remove it, and jobs are made anew") from None
        if of != where:
            raise InputError(f"{path}: its jobs are of {of}, and {where} is asked for; give another output folder")
        return record

    def write(self) -> None:
        content = {"where": self.where, "jobs": self.uids, "classes": self.chosen}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def require_types(client: Any, jobs: Sequence[PlannedJob]) -> None:
    """Whether the server has all these types of jobs; names change between its versions.

    Raises
    ------
    ServerError
        Naming those it lacks.
    """
    with _asking("reading its types of jobs"):
        if hasattr(client, "job_register"):
            known = {str(one.type) for one in client.job_register.specs}
        else:  # before version 5
            known = {str(one) for section in client.get_job_sections() for one in section["contains"]}
    missing = sorted({job.type for job in jobs} - known)
    if missing:
        raise ServerError(f"cryoSPARC has no job of type {', '.join(missing)}; is it of version 4.5 to 5?")


def run_jobs(
    jobs: Sequence[PlannedJob],
    project: Any,
    workspace: Any,
    record: JobRecord,
    *,
    lane: str | None,
    on_line: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Make, queue and await the jobs in turn; key -> uid of each that completed.

    A job that failed twice ends what depends on it, and nothing else.

    Raises
    ------
    ServerError
        If the server does not answer.
    JobFailedError
        If the extraction or the 2D classes failed, on which all depends.
    """
    done: dict[str, str] = {}
    failed: set[str] = set()
    for planned in jobs:
        needs = {job for job, _ in planned.connections.values()}
        if needs & failed:
            failed.add(planned.key)
            on_line(f"{planned.key}: left out, since {', '.join(sorted(needs & failed))} failed")
            continue
        uid = _one_job(planned, done, project, workspace, record, lane=lane, on_line=on_line)
        if uid is not None:
            done[planned.key] = uid
            continue
        failed.add(planned.key)
        if planned.key in ("extract",):
            raise JobFailedError(f"cryoSPARC: {planned.type} {record.uids[planned.key][-1]} failed; see its page")
    return done


def _one_job(
    planned: PlannedJob,
    done: Mapping[str, str],
    project: Any,
    workspace: Any,
    record: JobRecord,
    *,
    lane: str | None,
    on_line: Callable[[str], None],
) -> str | None:
    uids = record.uids.setdefault(planned.key, [])
    while True:
        if uids:
            with _asking(f"finding {uids[-1]}"):
                job = project.find_job(uids[-1])
            on_line(f"{planned.key}: {planned.type} {uids[-1]}, which an earlier call made")
        else:
            job = _make(planned, done, workspace, record, on_line)
        status = _await(planned, job, record, lane=lane)
        if status == "completed":
            return str(job.uid)
        on_line(f"{planned.key}: {planned.type} {job.uid} {status}")
        if len(uids) >= TRIES:
            return None
        _make(planned, done, workspace, record, on_line)


def _make(
    planned: PlannedJob,
    done: Mapping[str, str],
    workspace: Any,
    record: JobRecord,
    on_line: Callable[[str], None],
) -> Any:
    connections = {name: (done.get(job, job), output) for name, (job, output) in planned.connections.items()}
    with _asking(f"making {planned.type}"):
        job = workspace.create_job(
            planned.type,
            connections=connections,
            params=dict(planned.params),
            title=f"cryopick validate3d {planned.key}",
        )
    record.uids[planned.key].append(str(job.uid))
    record.write()  # before it is queued: whoever is killed now finds it again
    on_line(f"{planned.key}: {planned.type} {job.uid}")
    return job


def _await(planned: PlannedJob, job: Any, record: JobRecord, *, lane: str | None) -> str:
    with _asking(f"running {planned.type} {job.uid}"):
        if job.status == "building":
            job.queue(lane) if lane is not None else job.queue()
        if planned.type == SELECT_2D and job.status not in DONE:
            status = str(job.wait_for_status(("waiting", *DONE)))
            if status == "waiting":
                chosen = choose_classes(job.interact("get_class_info"))
                for index, keep in chosen.is_kept.items():
                    job.interact("set_class_selected", {"class_idx": index, "selected": keep})
                record.chosen[planned.key] = {str(index): why for index, why in chosen.reasons.items()}
                record.write()
                job.interact("finish")
        return str(job.wait_for_done())


# ------------------------------------------------------------------------------------------------------ what they made


@dataclass(frozen=True, eq=False)
class RefinedMaps:
    """What a refinement in cryoSPARC made; every number is made of it by our own code.

    Attributes
    ----------
    half_a, half_b, map : (n, n, n) float32, axes [z, y, x]
    pixel_size_angstrom : of them
    particles : that were in it
    """

    half_a: NDArray[np.float32]
    half_b: NDArray[np.float32]
    map: NDArray[np.float32]
    pixel_size_angstrom: float
    particles: int


def refined_maps(project: Any, uid: str) -> RefinedMaps:
    """Download the half maps and the map of a refinement.

    Raises
    ------
    FormatError
        If its output lacks them.
    ServerError
        If the server does not answer.
    """
    with _asking(f"reading the maps of {uid}"):
        job = project.find_job(uid)
        volume = job.load_output("volume")
        particles = len(job.load_output("particles"))
        missing = [
            name for name in ("map/path", "map_half_A/path", "map_half_B/path", "map/psize_A") if name not in volume
        ]
        if missing:
            raise FormatError(
                f"cryoSPARC {uid}: its volume has no {', '.join(missing)}; expected those of a refinement"
            )
        half_a, half_b, whole = (
            np.asarray(project.download_mrc(_text(volume[name][0]))[1], dtype=np.float32)
            for name in ("map_half_A/path", "map_half_B/path", "map/path")
        )
        return RefinedMaps(
            half_a=half_a,
            half_b=half_b,
            map=whole,
            pixel_size_angstrom=float(volume["map/psize_A"][0]),
            particles=particles,
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Errors of cryosparc-tools, whose kinds differ between its versions, as one sentence."""
    try:
        yield
    except CryopickError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ServerError(f"cryoSPARC, {what}: {reason}") from error
