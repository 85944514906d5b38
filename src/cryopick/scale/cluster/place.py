"""A cluster that is open: a scheduler, the workers that it knows, and the jobs in which they run.

Executors (`executor.py`) come and go on it; it stays as long as the run.
"""

from __future__ import annotations

import math
import re
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryopick.errors import SettingsError, WorkerError
from cryopick.extras import require_extra
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.engine import SILENT_SECONDS, dask_rules, loggers_in_file, own_scheduler
from cryopick.scale.cluster.jobs import JobPlan, JobQueue, LocalQueue, SlurmQueue
from cryopick.scale.cluster.keeper import LOOK_SECONDS, JobKeeper
from cryopick.scale.cluster.security import (
    RunSecrets,
    begin_secrets,
    own_security,
    private_folder,
    require_safe_address,
    security_of,
)
from cryopick.scale.processes import usable_cores

SLURM, LOCAL = "slurm", "local"
MODULES = ("distributed", "dask_jobqueue", "cryptography")
CONNECT_SECONDS = 60.0
"""For a scheduler that somebody else runs to answer."""
MEMBERS_SECONDS = 1.0
"""Between two looks at which workers there are."""
CAUSE_SECONDS = 3.0
"""After the loss of a worker, until the log of its job says how that ended."""
CLOSE_SECONDS = 20.0
TASKS_NAMED = 10_000
_CAUSE = re.compile(r"Worker process \d+ (was killed by signal \d+|exited with status \d+)|exceeded \d+% memory budget")


def require_place(where: str, settings: ClusterSettings, *, jobs: int | None) -> None:
    """Refuse what can never work, before anything is begun.

    Raises
    ------
    SettingsError
        If it is no place, an address that is not safe, or if the number of jobs is missing or impossible.
    MissingExtraError
        If Dask is not installed.
    """
    if jobs is not None and jobs < 1:
        raise SettingsError(f"--jobs {jobs}: expected 1 or more")
    if where not in (SLURM, LOCAL):
        require_safe_address(where, settings)
        if jobs is not None:
            raise SettingsError(
                f"--cluster {where}: whoever runs that scheduler decides on its workers; leave --jobs out"
            )
    elif where == SLURM and jobs is None:
        raise SettingsError("--cluster slurm: say how many jobs to ask for, such as --jobs 4")
    require_extra("cluster", MODULES, f"--cluster {where}")


@dataclass
class _Member:
    """A worker that the scheduler knows."""

    name: str
    address: str
    host: str


@dataclass
class Place:
    """An open cluster.

    Attributes
    ----------
    where : as in `open_place`
    client : Dask's, connected
    keeper : of the jobs; None where somebody else runs the workers
    wait_seconds : for a first worker that can work for this run; None is for ever
    """

    where: str
    client: Any
    keeper: JobKeeper | None
    secrets: RunSecrets
    logs: Path
    wait_seconds: float | None
    workers_wanted: int
    on_status: Callable[[str], None]
    on_line: Callable[[str], None]
    _stack: ExitStack
    is_owned: bool = True
    has_work: bool = True
    _members: dict[str, _Member] = field(default_factory=dict)
    """By address, those that are there; `_known` has those that were, too."""
    _known: dict[str, _Member] = field(default_factory=dict)
    _looked: float = -math.inf
    _fit_since: float | None = None
    _opened: float = field(default_factory=time.monotonic)
    _unfit: dict[str, str] = field(default_factory=dict)
    """By host, why its workers were sent away."""
    _away: set[str] = field(default_factory=set)
    """Names of those workers."""
    _losses: deque[tuple[float, Mapping[str, Any]]] = field(default_factory=deque)
    """When and which workers the scheduler lost, as its events tell, from another thread."""
    _told: str = ""
    _lost_any: bool = False
    _tasks: dict[int, str] = field(default_factory=dict)
    _last_task: int = 0

    def number_of_task(self, name: str) -> int:
        """A number that no task had before; the names of the last ones are kept for the log."""
        self._last_task += 1
        self._tasks[self._last_task] = name
        self._tasks.pop(self._last_task - TASKS_NAMED, None)
        return self._last_task

    def _name_of_task(self, key: Any) -> str:
        return self._tasks.get(key[1], "") if isinstance(key, tuple) and len(key) == 2 else ""

    def workers(self) -> int:
        """Workers that are there now and were not sent away."""
        return sum(member.name not in self._away for member in self._members.values())

    def look_after(self, *, at_once: bool = False) -> None:
        """Notice workers that came and went, tell of them, and raise `WorkerError` when none will come any more.

        Parameters
        ----------
        at_once : else at most once in `MEMBERS_SECONDS`
        """
        now = time.monotonic()
        if now - self._looked < MEMBERS_SECONDS and not at_once:
            return
        self._looked = now
        self._look_at_members()
        self._tell()
        if self.keeper is not None and self.keeper.error is not None and not self._members:
            raise self.keeper.error
        if self.keeper is not None and self.keeper.error is not None and self.keeper.error.__cause__ is not None:
            raise self.keeper.error
        if self._fit_since is None and self._unfit and self._nobody_else_comes():
            raise WorkerError(f"every worker was sent away: {self.unfit_text()}")
        is_waiting = self._fit_since is None and self.workers() == 0
        if is_waiting and self.wait_seconds is not None and now - self._opened > self.wait_seconds:
            why = f"; {self.unfit_text()}" if self._unfit else ""
            raise WorkerError(f"no worker could work within {self.wait_seconds:g} s: {self.status()}{why}")

    def _look_at_members(self) -> None:
        try:
            told = self.client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:  # the connection is gone, in one of many ways
            if self.client.status in ("running", "connecting") and isinstance(error, TimeoutError):
                return
            raise WorkerError(f"the scheduler of {self.where} does not answer any more ({error})") from error
        before, self._members = self._members, {}
        for address, one in told.items():
            name = str(one["name"])
            if address not in before and self.keeper is not None:
                self.keeper.joined(name)
            known = self.keeper.host_of(name) if self.keeper is not None else ""
            self._members[address] = _Member(name, address, known or str(one.get("host", "")))
            if address not in before:
                self.on_line(f"worker {name} joined{self._at(self._members[address])}")
        self._known |= self._members

    def _tell_lines(self, *, of_losses_before: float = math.inf) -> None:
        while self._losses and self._losses[0][0] < of_losses_before:
            self._tell_of_loss(self._losses.popleft()[1])
        for line in () if self.keeper is None else self.keeper.lines():
            self.on_line(line)

    def _tell(self) -> None:
        self._tell_lines(of_losses_before=time.monotonic() - CAUSE_SECONDS)
        text = self.status()
        if text != self._told:
            self._told = text
            self.on_status(text)

    def _tell_of_loss(self, loss: Mapping[str, Any]) -> None:
        address = str(loss.get("worker", ""))
        member = self._known.get(address) or _Member(address, address, "")
        tasks = ", ".join(filter(None, map(self._name_of_task, loss.get("processing-tasks", ()))))
        if loss.get("expected"):
            self.on_line(f"worker {member.name} left{self._at(member)}")
            return
        self._lost_any = True
        self.on_line(
            f"worker {member.name} was lost{self._at(member)} while at {tasks or 'nothing'}: "
            f"{self.cause_of_loss(member.name) or 'its connection ended'}"
        )

    def _at(self, member: _Member) -> str:
        job = None if self.keeper is None else self.keeper.job_of(member.name)
        parts = [f"host {member.host}" if member.host else "", f"job {job.number}" if job is not None else ""]
        told = ", ".join(part for part in parts if part)
        return f" ({told})" if told else ""

    def cause_of_loss(self, worker: str) -> str:
        """How a worker ended, from the log of its job; empty where that says nothing."""
        if self.keeper is None:
            return ""
        found = [match.group(1) or "out of memory" for match in _CAUSE.finditer(self.keeper.log_text(worker))]
        if not found:
            return ""
        return "it took more memory than it may" if "out of memory" in found[-2:] else found[-1]

    def status(self) -> str:
        """`3 of 16 workers; 13 jobs pending (Resources)`."""
        wanted = f" of {self.workers_wanted}" if self.workers_wanted else ""
        text = f"{self.workers()}{wanted} worker{'' if (self.workers_wanted or self.workers()) == 1 else 's'}"
        count, reason = (0, "") if self.keeper is None else self.keeper.pending()
        if count:
            text += f"; {count} job{'' if count == 1 else 's'} pending" + (f" ({reason})" if reason else "")
        return text

    # ------------------------------------------------------------------------------------------------- who is no good

    def was_fit(self, worker: str) -> None:
        if self._fit_since is None:
            self._fit_since = time.monotonic()
        if self.keeper is not None:
            self.keeper.gave_result(worker)

    def send_away(self, worker: str, host: str, why: str) -> None:
        """A worker that must not work for this run."""
        self._away.add(worker)
        if host not in self._unfit:
            self._unfit[host] = why
            self.on_line(f"host {host}: {why}; its workers are sent away")
        if self.keeper is not None:
            self.keeper.send_away(worker)
            return
        addresses = [member.address for member in self._members.values() if member.name == worker]
        if addresses:
            self.client.retire_workers(addresses, close_workers=True)
        self._looked = -math.inf

    def unfit_text(self) -> str:
        texts = [f"host {host}: {why}" for host, why in self._unfit.items()]
        more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
        return (texts[0] if texts else "") + more

    def _nobody_else_comes(self) -> bool:
        return self.workers() == 0 if self.keeper is None else self.keeper.all_sent_away()

    def restart(self, worker: str) -> None:
        """A new process in place of one in which a thread hangs."""
        addresses = [member.address for member in self._members.values() if member.name == worker]
        if addresses:
            with suppress(Exception):  # it may be gone by itself; nothing that follows depends on it
                self.client.restart_workers(addresses, timeout=30, raise_for_error=False)

    def close(self) -> None:
        """Cancel the jobs, end what runs here, remove the certificates; called again it does nothing."""
        self.has_work = False
        with self._stack:
            self._tell_lines()


def open_place(
    where: str,
    *,
    folder: Path,
    jobs: int | None = None,
    settings: ClusterSettings | None = None,
    wait_seconds: float | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    on_status: Callable[[str], None] = lambda _: None,
    on_line: Callable[[str], None] = lambda _: None,
    silent_seconds: float = SILENT_SECONDS,
    look_seconds: float = LOOK_SECONDS,
    connect_seconds: float = CONNECT_SECONDS,
) -> Place:
    """Open a cluster; whoever opens it closes it.

    Parameters
    ----------
    where : `slurm`, `local`, or the address of a scheduler, `tls://HOST:PORT`
    folder : that every worker sees under this path, for certificates and logs; made, and removed where it is empty
    jobs : to keep at work; for `local`, where None, one per core
    wait_seconds : for a first worker that can work, before that is an error; None waits for ever
    environments : for `local`, variables of the jobs, in turn
    on_status : hears how many workers there are, whenever that changes
    on_line : hears what is worth a line in a log
    silent_seconds, look_seconds, connect_seconds : see `SILENT_SECONDS`, `LOOK_SECONDS` and `CONNECT_SECONDS`

    Raises
    ------
    SettingsError, MissingExtraError
        As `require_place`.
    WorkerError
        If the batch system takes no job, or no scheduler answers at the address.
    """
    settings = ClusterSettings() if settings is None else settings
    require_place(where, settings, jobs=jobs)
    is_own = where in (SLURM, LOCAL)
    is_encrypted = is_own or require_safe_address(where, settings) == "tls"
    logs = private_folder(folder) / "logs"
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, folder)
        stack.enter_context(dask_rules(is_encrypted=is_encrypted))
        logs.mkdir(exist_ok=True)
        stack.callback(_remove_if_empty, logs)
        stack.enter_context(loggers_in_file(logs / "coordinator.log"))
        made = begin_secrets(folder, settings, with_certificate=is_own)
        stack.callback(made.remove)
        place = Place(
            where=where,
            client=None,
            keeper=None,
            secrets=made,
            logs=logs,
            wait_seconds=wait_seconds,
            workers_wanted=0,
            on_status=on_status,
            on_line=on_line,
            _stack=ExitStack(),
        )
        stack.callback(_clear_logs, place)
        if is_own:
            count = jobs or usable_cores()
            _open_own(
                place,
                stack,
                settings,
                jobs=count,
                environments=environments,
                silent_seconds=silent_seconds,
                look_seconds=look_seconds,
            )
        else:
            place.client = _client(stack, where, security_of(where, settings), seconds=connect_seconds)
        place.client.subscribe_topic("all", lambda event: _note_event(place, event[1]))
        place._stack = stack.pop_all()
        return place


def _open_own(
    place: Place,
    stack: ExitStack,
    settings: ClusterSettings,
    *,
    jobs: int,
    environments: Sequence[Mapping[str, str]],
    silent_seconds: float,
    look_seconds: float,
) -> None:
    is_local = place.where == LOCAL
    security = own_security(place.secrets)
    scheduler = own_scheduler(
        security=security,
        host="127.0.0.1" if is_local else None,
        interface=settings.interface or None,
        scratch=Path(stack.enter_context(TemporaryDirectory(prefix="cryopick-scheduler-"))),
        silent_seconds=silent_seconds,
    )
    stack.callback(_close_quietly, scheduler)
    place.client = _client(stack, scheduler, security)
    plan = JobPlan(
        address=scheduler.scheduler_address,
        settings=settings,
        secrets=place.secrets,
        logs=place.logs,
        run_name=f"cryopick-{secrets.token_hex(4)}",
    )
    queue: JobQueue
    if is_local:
        memory = settings.worker_memory_bytes if settings.job_memory else 0
        queue = LocalQueue(plan, max(1, usable_cores() // jobs), environments, memory)
    else:
        queue = SlurmQueue(plan)
    place.workers_wanted = jobs * (1 if is_local else settings.workers)
    keeper = JobKeeper(queue, jobs=jobs, has_work=lambda: place.has_work, look_seconds=look_seconds)
    stack.callback(keeper.stop)
    keeper.start()
    place.keeper = keeper


def _client(stack: ExitStack, where: Any, security: Any, *, seconds: float = CONNECT_SECONDS) -> Any:
    from distributed import Client

    try:
        client = Client(where, security=security, set_as_default=False, timeout=seconds)
    except (OSError, TimeoutError, ValueError) as error:
        told = " ".join(str(error).split())
        raise WorkerError(f"{where}: no scheduler answers there, or not to our certificate ({told})") from error
    stack.callback(_close_quietly, client)
    return client


def _close_quietly(opened: Any) -> None:
    """Whatever is still under way there is of no more use to anybody."""
    with suppress(Exception):
        opened.close(timeout=CLOSE_SECONDS)


def _note_event(place: Place, event: Any) -> None:
    """From another thread: what the scheduler tells of its workers."""
    if isinstance(event, Mapping) and event.get("action") == "add-worker":
        place._looked = -math.inf  # one that dies of its first item is known by then
    if isinstance(event, Mapping) and event.get("action") == "remove-worker":
        place._losses.append((time.monotonic(), dict(event)))


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _clear_logs(place: Place) -> None:
    """Keep the logs of what went wrong alone."""
    failed = set() if place.keeper is None else place.keeper.failed_logs()
    if not failed and not place._lost_any:
        shutil.rmtree(place.logs, ignore_errors=True)
        return
    if not place._lost_any:
        for path in place.logs.glob("j*.log"):
            if path.stem not in failed:
                path.unlink(missing_ok=True)
