"""A run whose micrographs are read, looked at and picked on other machines; this one only writes what they found.

What depends on the machine is settled by the first worker (device and number format) and holds for all; a worker that
cannot keep to it says so and is sent away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.errors import SettingsError, WorkerError
from cryopick.inference.computing import Computing, computing_here, remedy, why_not_here
from cryopick.runs.one import PickWorker
from cryopick.runs.settings import PickPlan
from cryopick.runs.surveying import Surveyed, SurveyErrand
from cryopick.scale.cluster.config import ClusterSettings, cluster_settings
from cryopick.scale.executor import Executor, entry_of
from cryopick.settings import seconds_of

if TYPE_CHECKING:
    from cryopick.scale.cluster.place import Place

FOLDER = ".cluster"
"""In a run folder, while it is picked on a cluster: certificates, and the logs of jobs; afterwards those of what went
wrong alone."""


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """Where a run is picked, which changes no result.

    Parameters
    ----------
    where : `slurm`, `local`, or the address of a scheduler, `tls://HOST:PORT`
    jobs : to keep at work
    wait_seconds : for a first worker; None is for ever
    settings : of the jobs

    Raises
    ------
    SettingsError, MissingExtraError
        If that can never work, or Dask is not installed.
    """

    where: str
    jobs: int | None = None
    wait_seconds: float | None = None
    settings: ClusterSettings = field(default_factory=ClusterSettings)

    def __post_init__(self) -> None:
        from cryopick.scale.cluster.place import require_place  # here and below: most runs ask for no cluster

        require_place(self.where, self.settings, jobs=self.jobs)


def cluster_request(
    where: str | None,
    *,
    jobs: int | None = None,
    wait: str | float | None = None,
    config: Path | None = None,
) -> ClusterRequest | None:
    """What a user asks for by `--cluster` and the options that belong to it; None where it is not given.

    Raises
    ------
    SettingsError
        If one of the others is given without it, or as `ClusterRequest` and `cluster_settings`.
    """
    if where is None:
        others = {"--jobs": jobs, "--wait": wait, "--cluster-config": config}
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise SettingsError(f"{', '.join(given)}: belongs to --cluster, which is not given")
        return None
    return ClusterRequest(
        where=where,
        jobs=jobs,
        wait_seconds=None if wait is None else seconds_of(wait, name="--wait"),
        settings=cluster_settings(config),
    )


class ClusterPickWorker(PickWorker):
    """The worker of a run on another machine than the run's own."""

    def __init__(self, plan: PickPlan) -> None:
        computing = plan.computing
        if computing is not None and (why := why_not_here(plan.picker, computing)):
            options = remedy(plan.picker, computing)
            raise WorkerError(why + (f"; {options} lets it join" if options else ""))
        super().__init__(plan)


@dataclass(frozen=True)
class ComputingErrand:
    """What `auto` means for device and number format, as work for a worker."""

    def done(self, plan: PickPlan) -> Computing | str:
        """What it means where this runs; a text says why the settings are impossible there."""
        try:
            return computing_here(plan.picker)
        except SettingsError as error:
            return " ".join(str(error).split())


class Cluster:
    """The cluster of a run, opened when there is something to do.

    Parameters
    ----------
    run_folder : must lie under the same path on every machine
    on_status : hears how many workers there are, whenever that changes
    on_line : takes lines for the log of the run
    """

    def __init__(
        self,
        request: ClusterRequest,
        run_folder: Path,
        *,
        on_status: Callable[[str], None] = lambda _: None,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.request = request
        self._folder = Path(os.path.abspath(run_folder)) / FOLDER
        self.on_status, self.on_line = on_status, on_line
        self._environments: Sequence[Mapping[str, str]] = ()
        self._jobs = request.jobs
        self._place: Place | None = None

    def share_out(self, environments: Sequence[Mapping[str, str]], *, workers_each: int) -> None:
        """Give the workers graphics cards of this machine, in turn.

        Parameters
        ----------
        environments : variables by which a worker sees one card
        workers_each : that share a card, where the number of jobs is not given

        Raises
        ------
        SettingsError
            If the workers are on other machines.
        """
        from cryopick.scale.cluster.place import LOCAL

        if self.request.where != LOCAL:
            raise SettingsError(
                f"devices: names graphics cards of this machine, while {self} picks; gpus_per_job in --cluster-config "
                "says how many each job gets"
            )
        self._environments = environments
        self._jobs = self.request.jobs or workers_each * len(environments)

    def __str__(self) -> str:
        return f"cluster {self.request.where}"

    def executor(self, plan: PickPlan, *, time_limit_seconds: float | None = None) -> Executor:
        """Picks by this plan; closing it leaves the cluster open for the next."""
        from cryopick.scale.cluster.executor import DaskExecutor

        state = plan.with_absolute_paths()
        return DaskExecutor(self._opened(), entry_of(ClusterPickWorker), state, time_limit_s=time_limit_seconds)

    def computing(self, plan: PickPlan) -> Computing:
        """What the settings of the picker mean on the first worker that is there.

        Raises
        ------
        SettingsError
            If the device is not there, or cannot compute as it is asked to.
        """
        answer = self._done(plan, "what the first worker computes with", ComputingErrand())
        if isinstance(answer, Computing):
            return answer
        raise SettingsError(f"on the first worker of {self}: {answer}")

    def surveyed(self, plan: PickPlan, errand: SurveyErrand) -> Surveyed:
        """What a picker sees on some micrographs, looked at on a worker."""
        given: Surveyed = self._done(plan, "the preparation of the run", errand)
        return given

    def _done(self, plan: PickPlan, what: str, errand: Any) -> Any:
        with closing(self.executor(plan, time_limit_seconds=0.0)) as executor:
            executor.submit(what, errand)
            done = executor.next(None)
        if done is None or done.lost:
            raise WorkerError(f"{what}: {'' if done is None else done.lost}")
        return done.result

    def _opened(self) -> Place:
        if self._place is None:
            request = self.request
            from cryopick.scale.cluster.place import open_place

            self._place = open_place(
                request.where,
                folder=self._folder,
                jobs=self._jobs,
                settings=request.settings,
                wait_seconds=request.wait_seconds,
                environments=self._environments,
                on_status=self.on_status,
                on_line=self.on_line,
            )
        return self._place

    def close(self) -> None:
        """Cancel its jobs and remove its certificates."""
        if self._place is not None:
            self._place.close()
            self._place = None
