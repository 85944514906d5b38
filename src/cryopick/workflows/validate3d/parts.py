"""The maps of a validation as jobs of a batch system: one for each run, selection and start.

Before the stages run here, each part whose map is not there is handed to Slurm: a job calls `validate3d` as it was
called here, for its part alone (`part_worker.py`). Then all are waited for, and the stages find what the jobs made. A
job is finished when its stage is, whatever Slurm says of it; one that left no word and that Slurm no longer knows has
failed. The same call after a stop waits for the jobs that are still there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import SettingsError
from cryopick.io.files.atomic import write_text_atomic
from cryopick.scale.cluster.batch import BatchJob, script_of, states_of, submit
from cryopick.scale.cluster.config import cluster_settings
from cryopick.scale.processes import import_path, python_command
from cryopick.workflows.validate3d import part_worker
from cryopick.workflows.validate3d.part_worker import FOLDER, ended_file, stem_of
from cryopick.workflows.validate3d.stages import DONE

NUMBERS = "jobs.json"
SLURM = "slurm"
"""In place of a template: the script is made of the cluster configuration."""
LOOK_SECONDS = 2.0
ASK_SECONDS = 20.0
"""Between two questions to Slurm, which serves others too."""
UNKNOWN_SECONDS = 60.0
"""After which a job that Slurm does not know, and that left no word, is lost: its files may come late by network."""


@dataclass(frozen=True, kw_only=True)
class PartJobs:
    """How parts are run.

    Attributes
    ----------
    template : a script for Slurm, or None for the cluster configuration
    cores : of each job
    ranks : of MPI that the engine starts in it; 1 for engines without
    entry : module and name of the function that a job calls
    """

    template: Path | None
    cores: int
    ranks: int = 1
    entry: str = ""


def part_jobs(submit: Path | str, *, cores: int | None, ranks: int, call: Callable[..., Any]) -> PartJobs:
    """As `--submit` asks for them: `slurm`, or a template; `call` is what a job calls, with `part` more."""
    template = None if str(submit) == SLURM else Path(submit)
    entry = f"{call.__module__}:{call.__qualname__}"
    return PartJobs(template=template, cores=cores or cluster_settings(None).job_cores, ranks=ranks, entry=entry)


def part_name(run: str, selection: str, seed: int) -> str:
    return f"{run}/{selection}/seed{seed}"


def is_made(root: Path, part: str) -> bool:
    """Whether the part's map and its figures are there; stages look closer."""
    return all((root / part / stage / DONE).is_file() for stage in ("Refine", "Post"))


def made_by_jobs(root: Path, parts: Sequence[str], jobs: PartJobs, log: Callable[[str], None]) -> dict[str, str]:
    """Hand in the parts that are not there, wait for them, and say why each of those is missing that still is.

    Returns
    -------
    failures : part -> a sentence; nothing for those that are made

    Raises
    ------
    WorkerError
        If Slurm takes no job, in its own words.
    InputError, SettingsError
        If the template cannot be used.
    """
    numbers = {part: number for part, number in _numbers(root).items() if part in parts}
    known = states_of(list(numbers.values()))
    settings = cluster_settings(None)
    waiting: dict[str, str] = {}
    for part in parts:
        if is_made(root, part):
            continue
        if numbers.get(part) in known:
            waiting[part] = numbers[part]
            log(f"{part}: job {numbers[part]} of an earlier call")
            continue
        ended_file(root, part).unlink(missing_ok=True)
        job = BatchJob(
            name=stem_of(part),
            command=_command(root, part, jobs.entry),
            folder=(root / FOLDER).absolute(),
            ranks=jobs.ranks,
            threads=max(1, jobs.cores // max(1, jobs.ranks - 1)),  # one rank of several leads and sleeps
        )
        waiting[part] = numbers[part] = submit(script_of(job, settings, template=jobs.template), job)
        write_text_atomic(root / FOLDER / NUMBERS, json.dumps(numbers, indent=1) + "\n")
        log(f"{part}: job {numbers[part]}")
    return _await(root, waiting, log)


def _await(root: Path, waiting: dict[str, str], log: Callable[[str], None]) -> dict[str, str]:
    failures: dict[str, str] = {}
    unknown_since: dict[str, float] = {}
    asked = -ASK_SECONDS
    while waiting:
        now = time.monotonic()
        if now - asked > ASK_SECONDS:
            asked, states = now, states_of(list(waiting.values()))
            for part, number in waiting.items():
                if number in states:
                    unknown_since.pop(part, None)
                else:
                    unknown_since.setdefault(part, now)
        for part, number in list(waiting.items()):
            failure = _failure(root, part)
            if failure is None and now - unknown_since.get(part, now) > UNKNOWN_SECONDS:
                failure = f"its job {number} ended without a word; see {FOLDER}/{stem_of(part)}.err"
            if failure is None:
                continue
            del waiting[part]
            if failure:
                failures[part] = failure
            log(f"{part}: job {number} {f'failed: {failure}' if failure else 'is done'}")
        if waiting:
            time.sleep(LOOK_SECONDS)
    return failures


def _failure(root: Path, part: str) -> str | None:
    """ "" where a part is made, why not where its job said so, None where it has not ended."""
    if is_made(root, part):
        return ""
    try:
        said = json.loads(ended_file(root, part).read_text(encoding="utf-8"))["failure"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return str(said) or "its job says that it is made, and its files are not here"


def _command(root: Path, part: str, entry: str) -> list[str]:
    path = os.pathsep.join(import_path().first)
    return ["env", f"PYTHONPATH={path}", *python_command(part_worker.__name__, str(root.absolute()), part, entry)]


def _numbers(root: Path) -> dict[str, str]:
    try:
        content = json.loads((root / FOLDER / NUMBERS).read_text(encoding="utf-8"))
        return {str(part): str(number) for part, number in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def split_part(part: str) -> tuple[str, str, int]:
    """Run, selection and seed of a part's name."""
    words = part.split("/")
    if len(words) != 3 or not words[2].removeprefix("seed").isdecimal():
        raise SettingsError(f"part {part!r}: expected RUN/SELECTION/seedN")
    return words[0], words[1], int(words[2].removeprefix("seed"))
