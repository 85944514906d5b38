"""Where jobs are asked for: a batch system, or this machine. A job runs `cryopick.scale.cluster.job`.

A queue is asked by the keeper of the jobs (`keeper.py`) and knows nothing of why jobs are wanted.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from cryopick.errors import WorkerError
from cryopick.scale.cluster import job
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.security import RunSecrets
from cryopick.scale.processes import THREAD_VARIABLES, import_path, python_environment

JOB_MODULE = job.__name__
COMMAND_SECONDS = 120.0
"""For a command of the batch system, which on a busy cluster takes tens of seconds."""
LIFETIME_MARGIN_SECONDS = 120
"""Before the end of their job workers take no more work, so that they end between two items."""
LIFETIME_STAGGER_SECONDS = 60
DEATH_SECONDS = 60
"""For a worker process to start and to be known to the scheduler: on a busy machine imports alone take long."""

State = Literal["pending", "running", "ended"]


@dataclass(frozen=True)
class JobState:
    """What the batch system says of a job: `reason` why it waits or how it ended, `host` where it runs."""

    state: State
    reason: str = ""
    host: str = ""


class JobQueue(Protocol):
    """Takes jobs. The name of a job is also that of its worker, followed by `-0`, `-1`, ... where it has several."""

    def submit(self, name: str) -> str:
        """Ask for a job; its number. `WorkerError` with the batch system's own sentence where it is refused."""
        ...

    def states(self) -> Mapping[str, JobState] | None:
        """By number; a job that is not among them has ended. None where the batch system does not answer now."""
        ...

    def cancel(self, numbers: Iterable[str]) -> None: ...

    def cancel_all(self) -> None:
        """Also jobs whose number never came back."""
        ...

    def log_of(self, name: str) -> Path:
        """What a job printed."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """What all jobs of a run have in common."""

    address: str
    """Of the scheduler, for the workers."""
    settings: ClusterSettings
    secrets: RunSecrets
    logs: Path
    run_name: str
    """Tells the jobs of this run from all others of this user."""

    def worker_options(self, *, workers: int, memory_bytes: int) -> list[str]:
        """The options of `dask worker` for one job."""
        options = ["--nthreads", "1", "--nworkers", str(workers), "--nanny", "--no-dashboard"]
        options += ["--memory-limit", str(memory_bytes), "--death-timeout", str(DEATH_SECONDS)]
        if self.settings.interface:
            options += ["--interface", self.settings.interface]
        return options

    def environment(self) -> dict[str, str]:
        """Dask's settings of the workers, as variables, and the way to the certificates."""
        memory = {name: "False" for name in ("TARGET", "SPILL", "PAUSE")} | {"TERMINATE": "0.95"}
        return {
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(self.secrets.certificate),
            "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT": str(self.secrets.certificate),
            "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": str(self.secrets.key),
            **{f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": value for name, value in memory.items()},
            "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
        }

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"


# -------------------------------------------------------------------------------------------------------------- Slurm


class SlurmQueue:
    """Slurm, by its own commands; dask-jobqueue writes the scripts."""

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan

    def log_of(self, name: str) -> Path:
        return self._plan.log_of(name)

    def script(self, name: str) -> str:
        """The batch script of a job."""
        import dask
        from dask_jobqueue.slurm import SLURMJob

        settings, workers = self._plan.settings, self._plan.settings.workers
        options = self._plan.worker_options(workers=workers, memory_bytes=settings.worker_memory_bytes)
        lifetime = max(60, int(settings.job_seconds) - LIFETIME_MARGIN_SECONDS)
        options += ["--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{LIFETIME_STAGGER_SECONDS}s"]
        log = str(self._plan.log_of(name)).replace("%", "%%")
        directives = [f'--output="{log}"', "--open-mode=append", "--no-requeue", *settings.job_options]
        if settings.gpus_per_job:
            directives.insert(0, f"--gres=gpu:{settings.gpus_per_job}")
        # what a user's file for other programs says (jobqueue.yaml) holds for those alone
        with dask.config.set({"jobqueue.slurm": dict.fromkeys(_NOT_FROM_DASK)}):
            written: Any = SLURMJob(
                self._plan.address,
                name=name,
                job_name=self._plan.run_name,
                queue=settings.queue or None,
                account=settings.account or None,
                walltime=settings.job_time,
                job_cpu=settings.job_cores,
                job_mem=settings.slurm_memory,
                cores=workers,  # of Dask: threads that work on items, one for each worker
                processes=workers,
                memory=f"{settings.worker_memory_bytes * workers}B",
                nanny=True,
                python=shlex.join([sys.executable, "-P"]),
                worker_command=JOB_MODULE,
                worker_extra_args=options,
                job_extra_directives=directives,
                job_directives_skip=[],
                job_script_prologue=self._prologue(),
                shebang="#!/usr/bin/env bash",
                death_timeout=DEATH_SECONDS,
            )
        script: str = written.job_script()
        return script

    def _prologue(self) -> list[str]:
        settings = self._plan.settings
        lines = list(settings.job_setup)
        threads = {f"{name}": f"${{{name}:-{settings.worker_threads}}}" for name in THREAD_VARIABLES}
        lines += [f"export {name}={value}" for name, value in threads.items()]
        variables = self._plan.environment() | {"PYTHONPATH": os.pathsep.join(import_path().first)}
        return lines + [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]

    def submit(self, name: str) -> str:
        told = self._run("sbatch", "--parsable", given=self.script(name))
        number = told.strip().splitlines()[-1].split(";")[0] if told.strip() else ""
        if not number.isdecimal():
            raise WorkerError(f"sbatch: said {told.strip()!r}, expected the number of a job")
        return number

    def states(self) -> Mapping[str, JobState] | None:
        try:
            told = self._run("squeue", "-h", "-t", "all", f"--name={self._plan.run_name}", "-o", "%i|%T|%r|%N")
        except WorkerError:
            return None
        states = {}
        for line in told.splitlines():
            number, state, reason, host = [*line.strip().split("|"), "", "", ""][:4]
            states[number] = _slurm_state(state, reason, host)
        return states

    def cancel(self, numbers: Iterable[str]) -> None:
        if numbers := list(numbers):
            self._run_quietly("scancel", *numbers)

    def cancel_all(self) -> None:
        self._run_quietly("scancel", f"--name={self._plan.run_name}")

    def _run_quietly(self, *command: str) -> None:
        try:
            self._run(*command)
        except WorkerError:  # it is gone already, or the batch system is: jobs end without their scheduler
            return

    def _run(self, *command: str, given: str | None = None) -> str:
        """What a command of Slurm's prints; `WorkerError` with its own first line where it fails."""
        told = shlex.join(command)
        try:
            done = subprocess.run(
                command,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                check=False,
                timeout=COMMAND_SECONDS,
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        except FileNotFoundError:
            raise WorkerError(
                f"{command[0]}: not found on the PATH; is this a machine of a Slurm cluster? (wanted to run: {told})"
            ) from None
        except subprocess.TimeoutExpired:
            raise WorkerError(f"{told}: no answer within {COMMAND_SECONDS:g} s") from None
        if done.returncode != 0:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            # the last line of sbatch says what all came to, such as "Batch job submission failed: ..."
            said = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no word")
            raise WorkerError(f"{said} (exit status {done.returncode} of: {told})")
        return done.stdout


_NOT_FROM_DASK = (
    *("queue", "account", "project", "interface", "log-directory", "local-directory", "extra", "job-extra"),
    *("env-extra", "header-skip", "job-cpu", "job-mem"),
)
_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"}


def _slurm_state(state: str, reason: str, host: str) -> JobState:
    if state in _PENDING:
        return JobState("pending", "" if reason == "None" else reason)
    if state in _RUNNING:
        return JobState("running", "", host)
    return JobState("ended", state.lower().replace("_", " "), host)


# -------------------------------------------------------------------------------------------------------- this machine


@dataclass
class LocalQueue:
    """Jobs as processes of this machine, one worker each.

    Parameters
    ----------
    environments : variables of the jobs, in turn: a graphics card of its own, for example
    threads : for the libraries in one worker, unless the environment says how many
    memory_bytes : of one worker; 0 is no limit
    """

    plan: JobPlan
    threads: int
    environments: Sequence[Mapping[str, str]] = ()
    memory_bytes: int = 0
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def log_of(self, name: str) -> Path:
        return self.plan.log_of(name)

    def submit(self, name: str) -> str:
        options = self.plan.worker_options(workers=1, memory_bytes=self.memory_bytes)
        environment = python_environment(threads=self.threads) | self.plan.environment()
        if self.environments:
            environment |= self.environments[len(self._processes) % len(self.environments)]
        command = [sys.executable, "-P", "-m", JOB_MODULE, self.plan.address, "--name", name, *options]
        try:
            with open(self.log_of(name), "ab") as log:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is ours to answer
                )
        except OSError as error:
            raise WorkerError(f"no worker process can be started ({error.strerror})") from error
        self._processes[str(process.pid)] = process
        return str(process.pid)

    def states(self) -> Mapping[str, JobState]:
        return {number: _process_state(process.poll()) for number, process in self._processes.items()}

    def cancel(self, numbers: Iterable[str]) -> None:
        for number in numbers:
            self._end(self._processes[number])

    def cancel_all(self) -> None:
        self.cancel(self._processes)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        """A job and the worker that it started: they are a session of their own."""
        if process.poll() is not None:  # its worker has left with it
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            process.kill()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:  # it waits for a dead disk
            return


def _process_state(status: int | None) -> JobState:
    if status is None:
        return JobState("running")
    return JobState("ended", f"signal {-status}" if status < 0 else f"exit status {status}")
