"""How cryopick starts Python processes of its own: what they import, how many threads they use, who ends them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENT_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Threads that wait for one another sleep instead of spinning: on a busy machine spinning costs several times the
processor time of the work itself. Read by GNU's and Intel's OpenMP and by OpenBLAS when they are loaded."""


def wait_patiently(environment: MutableMapping[str, str]) -> None:
    """Ask thread pools that are loaded from now on to sleep while they wait; what the user set stays."""
    for name, value in PATIENT_WAITING.items():
        environment.setdefault(name, value)


def usable_cores() -> int:
    """Cores that this process may use: on a cluster node or in a container fewer than the machine has."""
    quota = _quota_of_this_process()
    return _cores_in_sight() if quota is None else max(1, min(_cores_in_sight(), math.ceil(quota)))


def heed_quota(environment: MutableMapping[str, str]) -> None:
    """Give thread pools that are loaded from now on as many threads as a container's quota has cores.

    They count the cores that they see, and many threads on little time wait for one another. What the user set stays.
    """
    quota = _quota_of_this_process()
    if quota is None or math.ceil(quota) >= _cores_in_sight():
        return
    for name in THREAD_VARIABLES:
        if name not in environment:
            environment[name] = _of_quota[name] = str(usable_cores())


_of_quota: dict[str, str] = {}
"""Numbers of threads that were set by `heed_quota`: for this process, not for one of several beside each other."""


def _cores_in_sight() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota_of_this_process() -> float | None:
    return _cores_of_control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def _cores_of_control_groups(membership: Path, mounted: Path) -> float | None:
    """The smallest processor quota of this process' control groups (Linux, both versions), in cores; None without."""
    try:
        lines = membership.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers == "":
            top = mounted
        elif "cpu" in controllers.split(","):
            top = next((mounted / one for one in (controllers, "cpu") if (mounted / one).is_dir()), mounted / "cpu")
        else:
            continue
        # in a container the name is often that on the host and does not exist here; the top then is its own group
        group = Path(os.path.normpath(top / name.lstrip("/")))
        for folder in (group, *group.parents):
            quotas += _quota_of(folder)
            if folder == top:
                break
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 and int(period) > 0 else []
    except (OSError, ValueError):  # no group of that name, or of a kind that has no quota
        return []


# --------------------------------------------------------------------------------------------------- what is imported


@dataclass(frozen=True)
class ImportPath:
    """Where processes of ours look for modules.

    Parameters
    ----------
    first : as in this process, for the environment variable PYTHONPATH
    last : folders that Python itself put in front of everything because somebody stands in them; a module of the
        user's that lies there is found, but never in place of one of Python's or of a library
    """

    first: tuple[str, ...]
    last: tuple[str, ...]


def import_path() -> ImportPath:
    """The import path of this process, with the working folder behind the libraries unless somebody chose it.

    `python -m`, `python -c`, notebooks and an empty entry in PYTHONPATH put the working folder first. A `pickle.py` or
    `queue.py` that lies in a project folder would then run in place of Python's own. Chosen are folders named in
    PYTHONPATH and the folder of the script that runs.
    """
    here = _working_folder()
    chosen = {os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    if script is not None and getattr(main, "__spec__", None) is None:  # run as `python script.py`
        chosen.add(os.path.dirname(os.path.realpath(script)))
    library = os.path.dirname(os.__file__)
    # what stands behind Python's own library was put there by an installation, not by where somebody stands
    behind = sys.path[sys.path.index(library) :] if library in sys.path else []
    first, last = [], []
    for entry in sys.path:
        if here is not None and here not in chosen and entry not in behind and os.path.realpath(entry or here) == here:
            last.append(here)
        elif entry:
            first.append(entry)
    own = str(Path(__file__).resolve().parents[2])
    if own not in map(os.path.realpath, first):  # cryopick itself, where it is not installed
        first.append(own)
    return ImportPath(tuple(dict.fromkeys(first)), tuple(dict.fromkeys(last)))


def _working_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return None


# ------------------------------------------------------------------------------------------------------ starting one


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package; `-P` keeps the working folder off its import path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment(*, threads: int | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for `python_command`; numbers of threads and ways of waiting that the user set stay.

    `extra` are variables that win over those of this process.
    """
    environment = {**os.environ, **(extra or {})}
    environment["PYTHONPATH"] = os.pathsep.join(import_path().first)
    if "error" in environment.get("PYTHONWARNINGS", ""):  # meant for the user's own code, not to stop libraries
        del environment["PYTHONWARNINGS"]
    if sys.flags.utf8_mode:  # file names must mean the same bytes in both processes
        environment["PYTHONUTF8"] = "1"
    wait_patiently(environment)
    if threads is not None:
        for variable in THREAD_VARIABLES:
            if environment.get(variable) == _of_quota.get(variable):  # also where neither is set
                environment[variable] = str(threads)
    return environment


def start_python(
    module: str,
    *arguments: str,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a module of this package as a process that Ctrl-C does not reach, with variables of its own if given.

    A terminal sends Ctrl-C to all processes; here the one that the user started ends the others, so that only it
    speaks.
    """
    with _interrupts_held_back():
        variables = python_environment(threads=threads, extra=environment)
        return subprocess.Popen(python_command(module, *arguments), env=variables, **options)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block SIGINT in this thread; a process started meanwhile inherits that from its first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_process(process: subprocess.Popen[Any], *, grace_seconds: float = 0.0) -> None:
    """End a process of ours: ask for `grace_seconds`, then kill; one that the system cannot kill is left behind.

    A process that waits for a dead network disk can be killed only when the disk answers.
    """
    if process.poll() is not None:
        return
    if grace_seconds > 0:
        process.terminate()
        try:
            process.wait(grace_seconds)
            return
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        return
