"""What a user may write in [cluster], from where it is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.scale.cluster.config import ClusterSettings, cluster_settings

EXAMPLE = """[cluster]
queue = "gpu"
account = "cryo"
job_cores = 8
job_memory = "16GB"
job_time = "4:00:00"
gpus_per_job = 1
job_options = ["--constraint=a100"]
job_setup = ["module load cuda"]
interface = "ib0"
"""


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_says_what_a_job_is(tmp_path: Path) -> None:
    settings = cluster_settings(_written(tmp_path / "gpu.toml", EXAMPLE), environment={})
    assert (settings.queue, settings.account, settings.interface) == ("gpu", "cryo", "ib0")
    assert settings.job_options == ("--constraint=a100",)
    assert settings.job_setup == ("module load cuda",)
    assert settings.workers == 2, "two for each graphics card, so that reading hides behind computing"
    assert settings.worker_threads == 4
    assert settings.worker_memory_bytes == 8_000_000_000
    assert settings.job_seconds == 4 * 3600


def test_the_file_that_is_given_wins_over_the_one_of_the_facility_and_that_over_the_users_own(tmp_path: Path) -> None:
    given = _written(tmp_path / "given.toml", '[cluster]\nqueue = "given"\n')
    facility = _written(tmp_path / "facility.toml", '[cluster]\nqueue = "facility"\n')
    _written(tmp_path / "home" / "cryopick" / "cluster.toml", '[cluster]\nqueue = "own"\n')
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    both = home | {"CRYOPICK_CLUSTER_CONFIG": str(facility)}
    assert cluster_settings(given, environment=both).queue == "given"
    assert cluster_settings(environment=both).queue == "facility"
    assert cluster_settings(environment=home).queue == "own"
    assert cluster_settings(environment={"XDG_CONFIG_HOME": str(tmp_path)}) == ClusterSettings()


def test_a_file_that_the_environment_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.toml: cannot be read"):
        cluster_settings(environment={"CRYOPICK_CLUSTER_CONFIG": str(tmp_path / "gone.toml")})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[cluster]\nqueu = "gpu"\n', r"has no setting queu; it has: account, .*queue"),
        ('[run]\nqueue = "gpu"\n', r"has run; expected one table, \[cluster\]"),
        ('queue = "gpu"\n', r"has queue; expected one table"),
        ("[cluster\n", "is not a TOML file"),
        ('[cluster]\njob_cores = "many"\n', "job.cores"),
        ("[cluster]\njob_cores = 0\n", "job_cores is 0, expected 1 or more"),
        ("[cluster]\njob_cores = 1\nworkers_per_job = 2\n", "2 workers in a job of 1 cores"),
        ('[cluster]\njob_time = "soon"\n', "job_time is 'soon'"),
        ('[cluster]\njob_time = "2"\n', "job_time is '2', which is 120 s; expected five minutes or more"),
        ('[cluster]\njob_memory = "plenty"\n', "job_memory is 'plenty'"),
        ('[cluster]\njob_memory = "16"\n', "16 MB for each of 1 workers"),
        ('[cluster]\nqueue = """gpu\n#SBATCH -A other"""\n', "queue holds a line break"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        cluster_settings(_written(tmp_path / "c.toml", text), environment={})


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("4:00:00", 14400),
        ("1-12", 36 * 3600),
        ("1-0:30", 86400 + 1800),
        ("2-1:00:05", 49 * 3600 + 5),
    ],
)
def test_times_are_slurms(time: str, seconds: float) -> None:
    assert ClusterSettings(job_time=time).job_seconds == seconds


@pytest.mark.parametrize(
    ("memory", "slurm"), [("16GB", "16G"), ("1800MB", "1800M"), ("400M", "400M"), ("2000", "2000M"), ("1.5g", "1.5G")]
)
def test_memory_is_asked_for_as_it_was_written_and_never_rounded_up(memory: str, slurm: str) -> None:
    assert ClusterSettings(job_memory=memory).slurm_memory == slurm
