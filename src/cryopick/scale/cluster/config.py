"""What a cluster is asked for: one table of a TOML file. None of it changes a result, so no run keeps it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cryopick.errors import InputError, SettingsError
from cryopick.settings import convert_settings, require_known, settings_of

VARIABLE = "CRYOPICK_CLUSTER_CONFIG"
"""Names the file that is read where none is given; a facility sets it once for its users."""
TABLE = "cluster"
WORKER_MEMORY_BYTES = 4_000_000_000
"""Of a worker where no memory is asked for: a micrograph of 16 megapixels and a network beside it take less."""
LEAST_JOB_SECONDS = 300
"""Workers end two minutes before their job does; a shorter job would hardly work."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.IGNORECASE)
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """The jobs that a run asks for, and how its processes reach one another."""

    queue: Annotated[str, "partition; the default one of the batch system where empty"] = ""
    account: Annotated[str, "account that is charged"] = ""
    job_cores: Annotated[int, "cores of one job"] = 4
    job_memory: Annotated[str, "memory of one job, given to the batch system as it is; 4 GB per worker if empty"] = ""
    job_time: Annotated[str, "longest time of one job, as Slurm writes it; jobs that end are replaced"] = "1:00:00"
    gpus_per_job: Annotated[int, "graphics cards of one job"] = 0
    workers_per_job: Annotated[int | None, "worker processes of one job; 1, or 2 for each graphics card"] = None
    job_options: Annotated[tuple[str, ...], "further options of the batch system, one each"] = ()
    job_setup: Annotated[tuple[str, ...], "lines of shell at the start of each job"] = ()
    interface: Annotated[str, "network interface through which coordinator and workers speak, such as ib0"] = ""
    shared_directory: Annotated[str, "folder for the certificates of a run; RUN/.cluster where empty"] = ""
    ca: Annotated[str, "for tls:// addresses: file of the certificate authority"] = ""
    cert: Annotated[str, "for tls:// addresses: file of our certificate"] = ""
    key: Annotated[str, "for tls:// addresses: file of our private key"] = ""

    def __post_init__(self) -> None:
        for name in ("job_cores", "workers_per_job"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"cluster: {name} is {value}, expected 1 or more")
        if self.gpus_per_job < 0:
            raise SettingsError(f"cluster: gpus_per_job is {self.gpus_per_job}, expected 0 or more")
        if self.workers > self.job_cores:
            raise SettingsError(
                f"cluster: {self.workers} workers in a job of {self.job_cores} cores; raise job_cores, or lower "
                "workers_per_job"
            )
        if self.job_seconds < LEAST_JOB_SECONDS:
            raise SettingsError(
                f"cluster: job_time is {self.job_time!r}, which is {self.job_seconds:g} s; expected five minutes or "
                "more, such as 0:30:00"
            )
        if self.worker_memory_bytes < 100_000_000:
            raise SettingsError(
                f"cluster: job_memory {self.job_memory!r} is {self.worker_memory_bytes / 1e6:.0f} MB for each of "
                f"{self.workers} workers; expected 100 MB or more, such as 16G"
            )
        for name in ("queue", "account", "interface", *self._lists()):
            values = getattr(self, name)
            for value in (values,) if isinstance(values, str) else values:
                if name != "job_setup" and any(letter in value for letter in "\n\r"):
                    raise SettingsError(f"cluster: {name} holds a line break, expected one line")

    @staticmethod
    def _lists() -> tuple[str, ...]:
        return ("job_options", "job_setup")

    @property
    def workers(self) -> int:
        """Worker processes of one job."""
        return self.workers_per_job or max(1, 2 * self.gpus_per_job)

    @property
    def worker_threads(self) -> int:
        return max(1, self.job_cores // self.workers)

    @property
    def worker_memory_bytes(self) -> int:
        """What one worker may take before it is ended."""
        if not self.job_memory:
            return WORKER_MEMORY_BYTES
        return _bytes(self.job_memory) // self.workers

    @property
    def slurm_memory(self) -> str:
        """As Slurm wants it: never rounded up, which would ask for more than was said."""
        if not self.job_memory:
            return f"{WORKER_MEMORY_BYTES * self.workers // 1_000_000}M"
        match = _MEMORY.fullmatch(self.job_memory.strip())
        assert match is not None, self.job_memory  # __post_init__ has read it
        return f"{match[1]}{match[2].upper() or 'M'}"

    @property
    def job_seconds(self) -> float:
        """`job_time` in seconds: Slurm's minutes, minutes:seconds, hours:minutes:seconds, and with days- before."""
        match = _TIME.fullmatch(self.job_time.strip())
        if match is None:
            raise SettingsError(f"cluster: job_time is {self.job_time!r}, expected hours:minutes:seconds or days-hours")
        days, *parts = match.groups()
        numbers = [int(part) for part in parts if part is not None]
        if days is not None:  # days-hours[:minutes[:seconds]]
            hours, minutes, seconds = [*numbers, 0, 0][:3]
        elif len(numbers) == 3:
            hours, minutes, seconds = numbers
        else:  # minutes[:seconds]
            hours, (minutes, seconds) = 0, [*numbers, 0][:2]
        return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds


def cluster_settings(file: Path | None = None, *, environment: Mapping[str, str] | None = None) -> ClusterSettings:
    """The settings in a file; else in the one that the environment names; else in the user's own; else the defaults.

    Parameters
    ----------
    file : TOML with one table, `[cluster]`
    environment : variables, those of this process where None

    Raises
    ------
    InputError
        If the file that is given or named cannot be read.
    SettingsError
        If it is no TOML, holds another table or an unknown name (the known ones are listed), or an impossible value.
    """
    variables = os.environ if environment is None else environment
    if file is None and variables.get(VARIABLE):
        file = Path(variables[VARIABLE]).expanduser()
    if file is None:
        own = _home(variables) / "cryopick" / "cluster.toml"
        if not own.is_file():
            return ClusterSettings()
        file = own
    return _read(file)


def _home(variables: Mapping[str, str]) -> Path:
    named = variables.get("XDG_CONFIG_HOME")
    return Path(named) if named else Path("~/.config").expanduser()


def _read(file: Path) -> ClusterSettings:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); expected a TOML file with [{TABLE}]") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{file}: is not a TOML file ({error})") from error
    others = sorted(set(content) - {TABLE})
    given: Any = content.get(TABLE, {})
    if others or not isinstance(given, dict):
        raise SettingsError(f"{file}: has {', '.join(others) or TABLE}; expected one table, [{TABLE}]")
    where = f"{file}: [{TABLE}]"
    require_known(given, [setting.name for setting in settings_of(ClusterSettings)], where=where)
    return ClusterSettings(**convert_settings(ClusterSettings, given, section=where))


def _bytes(text: str) -> int:
    """Slurm's sizes: a number alone is in megabytes."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"cluster: job_memory is {text!r}, expected a number and K, M, G or T, such as 16G")
    powers = {"K": 1, "M": 2, "": 2, "G": 3, "T": 4}
    return int(float(match[1]) * 1000 ** powers[match[2].upper()])
