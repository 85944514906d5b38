"""The Slurm of the tests is a real one: two nodes, on which jobs run."""

from __future__ import annotations

import pytest
from slurm_cluster import SlurmCluster

pytestmark = pytest.mark.slurm


def test_a_job_on_each_of_two_nodes_runs_there(slurm: SlurmCluster) -> None:
    told = slurm.run("srun", "-N", "2", "bash", "-c", "echo $SLURMD_NODENAME in a job of $SLURM_JOB_NUM_NODES nodes")
    assert sorted(told.splitlines()) == ["n1 in a job of 2 nodes", "n2 in a job of 2 nodes"]
