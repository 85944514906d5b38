"""Dask as cryopick sets it: one task at a time per worker, no spilling, no pages over HTTP, TLS, its own log file.

Everything of Dask's that more than one module needs is here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ALLOWED_FAILURES = 1
"""Workers that may die of a task before Dask gives it up, which then is no verdict yet: see `executor.py`."""
SILENT_SECONDS = 120.0
"""A worker that says nothing for so long is taken for dead: it is stopped, its node hangs, its network is gone."""

_RULES: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.comm.require-encryption": True,
    "distributed.comm.timeouts.connect": "30s",
}


@contextmanager
def dask_rules(*, is_encrypted: bool) -> Iterator[None]:
    """Dask's configuration as a run needs it, put back at the end.

    Nothing of it is read when `distributed` is imported, which brings the defaults that must be there to be put back.
    """
    import dask
    import distributed  # noqa: F401

    with dask.config.set(_RULES | {"distributed.comm.require-encryption": is_encrypted}):
        yield


@contextmanager
def loggers_in_file(path: Path) -> Iterator[None]:
    """What Dask's own loggers say (tracebacks of lost workers, above all) goes to a file, never to the terminal."""
    import distributed  # noqa: F401  # sets its loggers up, which would undo what follows

    names = [
        name
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.split(".")[0] in ("distributed", "dask_jobqueue", "tornado") and isinstance(logger, logging.Logger)
    ]
    names += [name for name in ("distributed", "tornado", "dask_jobqueue", "asyncio") if name not in names]
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    tops = {name for name in names if not any(name.startswith(f"{other}.") for other in names)}
    before = {}
    for name in names:
        logger = logging.getLogger(name)
        before[name] = (list(logger.handlers), logger.propagate, logger.level)
        logger.handlers = [handler] if name in tops else []
        logger.propagate = name not in tops
    try:
        yield
    finally:
        for name, (handlers, propagate, level) in before.items():
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()


def own_scheduler(
    *, security: Any, host: str | None, interface: str | None, scratch: Path, silent_seconds: float = SILENT_SECONDS
) -> Any:
    """A scheduler in this process, without workers, that speaks TLS alone; it listens at once."""
    from distributed import Scheduler
    from distributed.deploy.spec import SpecCluster

    class OneAtATime(Scheduler):
        """Gives no worker a second task: of a worker that dies, the one task that it had is to blame."""

        def is_rootish(self, ts: Any) -> bool:
            return not (ts.resource_restrictions or ts.worker_restrictions or ts.host_restrictions)

    options: dict[str, Any] = {
        "local_directory": str(scratch),
        "protocol": "tls://",
        "security": security,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": ALLOWED_FAILURES,
        "worker_ttl": f"{silent_seconds}s",
        "port": 0,
    }
    if host is not None:
        options["host"] = host
    elif interface is not None:
        options["interface"] = interface
    before = list(sys.path)
    try:
        return SpecCluster(
            workers={}, scheduler={"cls": OneAtATime, "options": options}, security=security, silence_logs=False
        )
    finally:  # it wants files that it is sent to be modules, which nobody sends here
        sys.path[:] = before
