"""Commands as jobs of Slurm: templates as RELION's users have them, scripts of the configuration, and a real Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster

from cryopick.errors import InputError, SettingsError, WorkerError
from cryopick.scale.cluster.batch import (
    BatchJob,
    script_from_settings,
    script_from_template,
    script_of,
    states_of,
    submit,
)
from cryopick.scale.cluster.config import ClusterSettings

QSUB = """#!/bin/bash
#SBATCH --ntasks=XXXmpinodesXXX
#SBATCH --cpus-per-task=XXXthreadsXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --output=XXXoutfileXXX
export HERE=${name}
XXXcommandXXX
"""
OURS = "#!/bin/bash\n#SBATCH -n {ranks} -c {threads}\n# {cores} cores, not ${ranks}\n{command}\n"


def job(folder: Path, *command: str, **how: int) -> BatchJob:
    return BatchJob(name="general/auto seed 1", command=command or ("run", "it's here"), folder=folder, **how)


def test_relions_own_template_is_filled(tmp_path: Path) -> None:
    (tmp_path / "qsub.sh").write_text(QSUB)
    script = script_from_template(
        tmp_path / "qsub.sh", job(tmp_path, ranks=3, threads=2), ClusterSettings(queue="main")
    )
    assert script == (
        "#!/bin/bash\n#SBATCH --ntasks=3\n#SBATCH --cpus-per-task=2\n#SBATCH --partition=main\n"
        f"#SBATCH --error={tmp_path}/general-auto-seed-1.err\n#SBATCH --output={tmp_path}/general-auto-seed-1.out\n"
        "export HERE=${name}\nrun 'it'\"'\"'s here'\n"
    )


def test_our_own_words_are_filled_and_variables_of_the_shell_are_left(tmp_path: Path) -> None:
    (tmp_path / "ours.sh").write_text(OURS)
    script = script_from_template(tmp_path / "ours.sh", job(tmp_path, "run", ranks=3, threads=2), ClusterSettings())
    assert script == "#!/bin/bash\n#SBATCH -n 3 -c 2\n# 6 cores, not ${ranks}\nrun\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/bash\nXXXcommandXXX\n", "no line #SBATCH"),
        ("#SBATCH -n 1\nsleep 1\n", "it would run nothing"),
        ("#SBATCH -n XXXextra1XXX\nXXXcommandXXX\n", "nothing is known for XXXextra1XXX"),
        ("#SBATCH -p XXXqueueXXX\nXXXcommandXXX\n", "wants a queue"),
    ],
)
def test_a_template_that_would_run_nothing_or_something_else_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.sh").write_text(text)
    with pytest.raises(SettingsError, match=told):
        script_from_template(tmp_path / "t.sh", job(tmp_path), ClusterSettings())
    with pytest.raises(InputError, match=r"nowhere\.sh: cannot be read"):
        script_of(job(tmp_path), ClusterSettings(), template=tmp_path / "nowhere.sh")


def test_the_configuration_of_the_cluster_makes_a_script(tmp_path: Path) -> None:
    settings = ClusterSettings(
        queue="gpu", account="lab7", job_time="2:00:00", job_memory="12G", gpus_per_job=1,
        job_options=("--constraint=a100",), job_setup=("module load relion",),
    )  # fmt: skip
    lines = script_from_settings(job(tmp_path, "run", ranks=3), settings).splitlines()
    for wanted in (
        *("#SBATCH --partition=gpu", "#SBATCH --account=lab7", "#SBATCH --ntasks=3", "#SBATCH --cpus-per-task=1"),
        *("#SBATCH --time=2:00:00", "#SBATCH --mem=12G", "#SBATCH --gres=gpu:1", "#SBATCH --constraint=a100"),
        "module load relion",
    ):
        assert wanted in lines
    assert lines[-1] == "run"
    assert lines.index("module load relion") > lines.index("#SBATCH --constraint=a100")


def test_no_slurm_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkerError, match="sbatch: not found on the PATH"):
        submit("#!/bin/sh\n", job(tmp_path))
    assert states_of(["7"]) == {}


@pytest.mark.slurm
def test_jobs_run_on_a_real_slurm_in_their_folder_and_one_waits_for_the_others(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    settings = ClusterSettings(job_memory="400M", queue="main")
    body = "import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1]).touch(); sys.exit(int(sys.argv[2]))"
    first = [
        BatchJob(name=f"part {seed}", command=[sys.executable, "-c", body, f"done{seed}", str(seed)], folder=tmp_path)
        for seed in (0, 1)  # the second ends with status 1, which the report has to tell of
    ]
    (tmp_path / "qsub.sh").write_text(QSUB)
    numbers = [
        submit(script_of(first[0], settings), first[0]),
        submit(script_of(first[1], settings, template=tmp_path / "qsub.sh"), first[1]),
    ]
    look = "import pathlib; names = sorted(path.name for path in pathlib.Path().glob('done*'))\n"
    look += "pathlib.Path('report').write_text(' '.join(names))"
    last = BatchJob(name="report", command=[sys.executable, "-c", look], folder=tmp_path)
    submit(script_of(last, settings), last, after=numbers)
    assert set(states_of(numbers)) <= set(numbers)
    slurm.wait_until_no_job_is_left()
    assert (tmp_path / "report").read_text() == "done0 done1"
    assert (tmp_path / "part-1.err").exists()


@pytest.mark.slurm
def test_what_slurm_refuses_is_told_in_its_own_words(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    one = job(tmp_path, "true")
    with pytest.raises(WorkerError, match=r"sbatch refused general/auto seed 1: .*invalid partition"):
        submit(script_of(one, ClusterSettings(queue="nowhere")), one)
