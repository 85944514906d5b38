"""Single commands as jobs of Slurm: a script from a facility's template or from the cluster configuration, and sbatch.

Templates are those that RELION's users have for its queue (`XXXcommandXXX`, `XXXmpinodesXXX`, ...); `{command}`,
`{ranks}` and so on are taken, too. How a job ended is told by the files that its command makes, never by asking Slurm.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.errors import InputError, SettingsError, WorkerError
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.processes import THREAD_VARIABLES

COMMAND_SECONDS = 120.0
"""For sbatch, which on a busy cluster takes tens of seconds."""
RELION_NAMES = {
    "mpinodes": "ranks",
    "threads": "threads",
    "cores": "cores",
    "dedicated": "cores",
    "name": "name",
    "outfile": "out",
    "errfile": "err",
    "queue": "queue",
    "command": "command",
}
"""RELION's words in a template, between XXX and XXX, and ours."""
_RELION_WORD = re.compile(r"XXX(\w+?)XXX")
_OUR_WORD = re.compile(r"(?<!\$)\{(ranks|threads|cores|name|out|err|queue|command)\}")


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """One command as a job.

    Attributes
    ----------
    name : in lists of the batch system
    command : words of a command that needs no shell
    folder : in which it runs; also of its logs
    ranks, threads : of MPI, and of each rank
    """

    name: str
    command: Sequence[str]
    folder: Path
    ranks: int = 1
    threads: int = 1

    @property
    def cores(self) -> int:
        return self.ranks * self.threads

    @property
    def out(self) -> Path:
        """What it prints."""
        return self.folder / f"{self._stem}.out"

    @property
    def err(self) -> Path:
        return self.folder / f"{self._stem}.err"

    @property
    def _stem(self) -> str:
        return re.sub(r"[^\w.-]+", "-", self.name)

    def values(self, settings: ClusterSettings) -> dict[str, str]:
        """What stands for the words of a template."""
        return {
            "ranks": str(self.ranks),
            "threads": str(self.threads),
            "cores": str(self.cores),
            "name": self._stem,
            "out": str(self.out),
            "err": str(self.err),
            "queue": settings.queue,
            "command": shlex.join(self.command),
        }


def script_from_template(template: Path, job: BatchJob, settings: ClusterSettings) -> str:
    """The batch script of a job.

    Raises
    ------
    InputError
        If the template cannot be read.
    SettingsError
        If it is no script for Slurm, has no place for the command, or has a word that nothing is known for.
    """
    try:
        text = template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--submit {template}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if "#SBATCH" not in text:
        raise SettingsError(f"--submit {template}: has no line #SBATCH; expected a script for Slurm")
    values = job.values(settings)
    found = {RELION_NAMES.get(word, "") for word in _RELION_WORD.findall(text)} | set(_OUR_WORD.findall(text))
    unknown = [word for word in _RELION_WORD.findall(text) if word not in RELION_NAMES]
    if unknown:
        known = ", ".join(f"XXX{word}XXX" for word in RELION_NAMES)
        raise SettingsError(f"--submit {template}: nothing is known for XXX{unknown[0]}XXX; known: {known}")
    if "command" not in found:
        raise SettingsError(f"--submit {template}: has neither XXXcommandXXX nor {{command}}, so it would run nothing")
    if "queue" in found and not settings.queue:
        raise SettingsError(f"--submit {template}: wants a queue; name one in the cluster configuration (queue = ...)")
    text = _RELION_WORD.sub(lambda match: values[RELION_NAMES[match[1]]], text)
    return _OUR_WORD.sub(lambda match: values[match[1]], text)


def script_from_settings(job: BatchJob, settings: ClusterSettings) -> str:
    """The batch script of a job by the cluster configuration, with as many cores as the job's command wants."""
    lines = ["#!/usr/bin/env bash", f"#SBATCH --job-name={job.values(settings)['name']}"]
    lines += [f'#SBATCH --output="{job.out}"'.replace("%", "%%"), f'#SBATCH --error="{job.err}"'.replace("%", "%%")]
    lines += [f"#SBATCH --partition={settings.queue}"] if settings.queue else []
    lines += [f"#SBATCH --account={settings.account}"] if settings.account else []
    lines += [f"#SBATCH --ntasks={job.ranks}", f"#SBATCH --cpus-per-task={job.threads}", "#SBATCH --nodes=1"]
    lines += [f"#SBATCH --time={settings.job_time}", f"#SBATCH --mem={settings.slurm_memory}", "#SBATCH --no-requeue"]
    lines += [f"#SBATCH --gres=gpu:{settings.gpus_per_job}"] if settings.gpus_per_job else []
    lines += [f"#SBATCH {option}" for option in settings.job_options]
    lines += list(settings.job_setup)
    lines += [f"export {name}=${{{name}:-1}}" for name in THREAD_VARIABLES]
    return "\n".join([*lines, shlex.join(job.command), ""])


def submit(script: str, job: BatchJob, *, after: Sequence[str] = ()) -> str:
    """Hand a script to sbatch; the number of the job.

    Parameters
    ----------
    after : numbers of jobs that must have ended, well or not, before it starts: what they made tells how they ended

    Raises
    ------
    WorkerError
        With Slurm's own sentence where it is refused.
    """
    words = ["sbatch", "--parsable", f"--chdir={job.folder}"]
    words += [f"--dependency=afterany:{':'.join(after)}"] if after else []
    try:
        done = subprocess.run(
            words,
            input=script,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=COMMAND_SECONDS,
            start_new_session=True,  # Ctrl-C is ours to answer
        )
    except FileNotFoundError:
        raise WorkerError("sbatch: not found on the PATH; is this a machine of a Slurm cluster?") from None
    except subprocess.TimeoutExpired:
        raise WorkerError(f"sbatch: no answer within {COMMAND_SECONDS:g} s") from None
    number = done.stdout.strip().splitlines()[-1].split(";")[0] if done.stdout.strip() else ""
    if done.returncode != 0 or not number.isdecimal():
        said = " ".join((done.stderr or done.stdout).split())[:300] or "no word"
        raise WorkerError(f"sbatch refused {job.name}: {said}")
    return number


def script_of(job: BatchJob, settings: ClusterSettings, *, template: Path | None = None) -> str:
    """The batch script of a job, by a template where one is given."""
    return script_from_settings(job, settings) if template is None else script_from_template(template, job, settings)


def states_of(numbers: Sequence[str]) -> Mapping[str, str]:
    """What Slurm says of jobs that it still knows, for a line of progress; nothing depends on it."""
    if not numbers:
        return {}
    try:
        done = subprocess.run(
            ["squeue", "-h", "-j", ",".join(numbers), "-o", "%i|%T|%r"],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [line.strip().split("|") for line in done.stdout.splitlines()]
    return {
        row[0]: row[1].lower() + (f" ({row[2]})" if row[2] not in ("None", "") else "") for row in rows if len(row) == 3
    }
