"""Where work is done, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryopick.errors import SettingsError
from cryopick.scale.executor import Executor

HERE = "here"
"""This machine; every other place is a cluster."""


def open_executor(
    where: str = HERE,
    *,
    entry: str,
    state: Any,
    workers: int = 1,
    time_limit_s: float | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    is_beside: bool = False,
    jobs: int | None = None,
    config: Path | None = None,
    folder: Path | None = None,
    wait_s: float | None = None,
) -> Executor:
    """The executor of a place; whoever opens it closes it.

    Parameters
    ----------
    where : `here`, which is this machine, or a cluster: `slurm`, `local`, or a Dask scheduler's `tls://HOST:PORT`
    entry, state : see `cryopick.scale.executor`
    workers : here, processes side by side; 1 stays in this process unless something is asked for that only another
        process can keep: a time limit, or an environment
    time_limit_s : for one item, in seconds, see `Processes`
    environments : environment variables of the workers, in turn
    is_beside : even one worker is another process, so that waiting for it takes no longer than it is told to
    jobs : on a cluster, to keep at work
    config : of the cluster, see `cryopick.scale.cluster.config.cluster_settings`
    folder : on a cluster, one that every worker sees under this path, for certificates and logs
    wait_s : on a cluster, for a first worker, in seconds; None is for ever

    Raises
    ------
    SettingsError
        If there is no such place, or what is said of it is impossible.
    MissingExtraError
        If it is a cluster, and Dask is not installed.
    WorkerError
        If it is a cluster that takes no job or does not answer.
    """
    if where != HERE:
        from cryopick.scale.cluster.config import cluster_settings
        from cryopick.scale.cluster.executor import DaskExecutor
        from cryopick.scale.cluster.place import open_place, require_place

        settings = cluster_settings(config)
        require_place(where, settings, jobs=jobs)
        if folder is None:
            raise SettingsError(f"place {where!r}: give a folder that every worker sees, for certificates and logs")
        place = open_place(
            where,
            folder=folder,
            jobs=jobs,
            settings=settings,
            wait_seconds=wait_s,
            environments=environments,
        )
        return DaskExecutor(place, entry, state, time_limit_s=time_limit_s, is_owner=True)
    from cryopick.scale.in_process import InProcess
    from cryopick.scale.process_pool import Processes

    if workers <= 1 and not (time_limit_s or environments or is_beside):
        return InProcess(entry, state)
    return Processes(entry, state, workers=workers, time_limit_s=time_limit_s, environments=environments)
