"""Who picks the micrographs of a run."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import SettingsError
from cryopick.inference.device import current_device, separate_environments
from cryopick.runs.on_cluster import Cluster, cluster_request
from cryopick.runs.one import PickWorker
from cryopick.runs.place import output_folder
from cryopick.runs.settings import PickPlan
from cryopick.scale.executor import Executor, entry_of
from cryopick.scale.places import open_executor
from cryopick.scale.processes import usable_cores

MOST_BY_DEFAULT = 8
"""Worker processes where nobody says how many."""
WORKERS_PER_DEVICE = 2
"""One reads and draws while the other computes."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Workforce:
    """Who picks, which changes no result.

    Parameters
    ----------
    workers : processes side by side; None is one per core up to `MOST_BY_DEFAULT`, but one alone for short runs and for
        pickers that say they fill the machine
    time_limit_seconds : for one micrograph, reading included, which fails when it takes longer; None is two hours where
        there are worker processes, 0 no limit. Kept by worker processes, so that with a limit even one is a process
    devices : graphics cards, `cuda:0` and so on: each worker process sees one, in turn, and `WORKERS_PER_DEVICE` share
        each unless `workers` says otherwise
    cluster : other machines, which pick in place of this one

    Raises
    ------
    SettingsError
        If a number is impossible, or a card is not there.
    """

    workers: int | None = None
    time_limit_seconds: float | None = None
    cluster: Cluster | None = None
    devices: tuple[str, ...] = ()
    _environments: list[dict[str, str]] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"workers {self.workers}: expected 1 or more")
        if self.workers is not None and self.cluster is not None:
            raise SettingsError(
                f"workers {self.workers}: processes of this machine, while {self.cluster} picks; --jobs says how many "
                "jobs, workers_per_job in --cluster-config how many workers each"
            )
        limit = self.time_limit_seconds
        if limit is not None and not 0 <= limit < float("inf"):
            raise SettingsError(f"time limit {limit:g}: expected seconds for a micrograph, or 0 for no limit")
        if self.devices:
            object.__setattr__(self, "_environments", separate_environments(self.devices))
            if self.cluster is not None:
                self.cluster.share_out(self._environments, workers_each=WORKERS_PER_DEVICE)

    def require_fit(self, picker: Any) -> None:
        """Raise `SettingsError` where cards are named for a picker that cannot compute on them, or is told not to."""
        if not self.devices:
            return
        device = getattr(picker, "device", None)
        if device is None:
            name = getattr(picker, "name", type(picker).__name__)
            raise SettingsError(f"devices: picker {name} computes on the CPU alone; leave --devices out")
        if device not in ("auto", "cuda"):
            raise SettingsError(f"devices {','.join(self.devices)} and device {device}: leave one of them out")

    def leading(self) -> AbstractContextManager[None]:
        """What the calling process computes itself, it computes on the first of the devices."""
        return current_device(self.devices[0]) if self.devices else nullcontext()

    def open(self, plan: PickPlan, *, tasks: int | None) -> Executor:
        """The executor that picks by this plan; whoever opens it closes it.

        Parameters
        ----------
        tasks : how many there will be; None where nobody knows, as in a session that goes on: whoever follows that has
            more to do than to wait, so that even one worker is a process
        """
        if self.cluster is not None:
            return self.cluster.executor(plan, time_limit_seconds=self.time_limit_seconds)
        if self.workers is not None:
            workers = self.workers
        elif self.devices:
            workers = WORKERS_PER_DEVICE * len(self.devices)
        else:
            workers = default_workers(tasks, picker=plan.picker)
        idle = self.devices[workers:]
        if idle:
            _log.warning(
                "%d worker%s for %d devices, so that %s computes nothing; -j %d or more uses all",
                workers,
                "" if workers == 1 else "s",
                len(self.devices),
                ", ".join(idle),
                len(self.devices),
            )
        return open_executor(
            entry=entry_of(PickWorker),
            state=plan.with_absolute_paths(),
            workers=workers,
            time_limit_s=self.time_limit_seconds,
            environments=self._environments,
            is_beside=tasks is None,
        )


def who_picks(
    output: str | Path,
    *,
    workers: int | None = None,
    time_limit_seconds: float | None = None,
    devices: str = "",
    cluster: str | None = None,
    jobs: int | None = None,
    wait: str | float | None = None,
    cluster_config: str | Path | None = None,
) -> Workforce:
    """Who picks into a run folder, from the words of a call; the parameters are those of `pick_to_folder`."""
    config = None if cluster_config is None else Path(cluster_config)
    request = cluster_request(cluster, jobs=jobs, wait=wait, config=config)
    return Workforce(
        workers=workers,
        time_limit_seconds=time_limit_seconds,
        devices=tuple(filter(None, devices.split(","))),
        cluster=None if request is None else Cluster(request, output_folder(output)),
    )


def default_workers(tasks: int | None, *, picker: Any) -> int:
    """One worker per core up to 8, but one alone for short runs and for pickers that say they fill the machine."""
    if (tasks is not None and tasks < 4) or getattr(picker, "fills_machine", False):
        return 1
    return min(usable_cores(), MOST_BY_DEFAULT, MOST_BY_DEFAULT if tasks is None else tasks)
