"""Training inside jobs of batch systems: their programs and variables change nothing, and Lightning gives no hints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryopick.io.weights import read_tensors
from cryopick.training.loop import _make_fabric
from cryopick.training.trainable import TrainSettings

SUPPORT = Path(__file__).parent.parent / "support"
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "picking",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[01-02]",
    "SLURM_NTASKS_PER_NODE": "2",
}
SYSTEMS = {
    "none": {},
    "srun on the path": {},
    "sbatch": {name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NODELIST")},
    "srun": SLURM,
    "torchrun": {
        **{"RANK": "3", "LOCAL_RANK": "3", "GROUP_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
        **{"MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500", "NODE_RANK": "1"},
        **{"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "0"},
    },
    "mpirun": {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "2", "PMI_SIZE": "4"},
    "lsf": {
        **{"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "none", "LSB_HOSTS": "a b"},
        **{"JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "1"},
    },
}
ALL = {name: value for variables in SYSTEMS.values() for name, value in variables.items()}


@pytest.fixture
def srun(tmp_path: Path) -> Path:
    """A folder with a program `srun`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    return tmp_path / "bin"


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_device_is_one_process_whatever_variables_are_set(srun, monkeypatch, system):
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(srun), prepend=os.pathsep)
    for name, value in SYSTEMS[system].items():
        monkeypatch.setenv(name, value)
    fabric = _make_fabric(TrainSettings(accelerator="cpu"))  # warnings are errors in tests
    assert (fabric.world_size, fabric.global_rank, fabric.is_global_zero) == (1, 0, True)
    spawned = _make_fabric(TrainSettings(accelerator="cpu", devices=2))
    assert (spawned.world_size, spawned.strategy.node_rank, spawned.strategy.local_rank) == (2, 0, 0)
    assert spawned.strategy.cluster_environment.main_address == "127.0.0.1"


def train_in(folder: Path, variables: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    search_path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    plain = {name: value for name, value in os.environ.items() if name not in ALL}
    environment = {**plain, "PYTHONPATH": search_path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, str(SUPPORT / "cryopick_with_toy.py"), "train", "toy", "-o", "t", "--steps", "2"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_a_job_of_every_system_at_once_changes_neither_weights_nor_words(tmp_path, srun):
    (tmp_path / "plain").mkdir()
    (tmp_path / "job").mkdir()
    expected = train_in(tmp_path / "plain", {})
    found = train_in(tmp_path / "job", {**ALL, "PATH": f"{srun}{os.pathsep}{os.environ['PATH']}"})
    assert found.returncode == 0, found.stderr
    assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr)
    first, second = (read_tensors(tmp_path / one / "t" / "weights.safetensors") for one in ("plain", "job"))
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.slow
def test_several_devices_are_those_of_this_machine(tmp_path, srun):
    variables = {**ALL, "PATH": f"{srun}{os.pathsep}{os.environ['PATH']}"}
    done = train_in(tmp_path, variables, "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert "srun" not in done.stderr
