"""Clusters for the commands of the documentation: a real Slurm, and a scheduler of somebody else's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from foreign_scheduler import foreign_scheduler
from slurm_cluster import SlurmCluster

SMALL = '[cluster]\nqueue = "main"\njob_cores = 1\njob_memory = "900M"\njob_time = "0:20:00"\ninterface = "lo"\n'
FOREIGN = "tls://scheduler:8786"


@contextmanager
def cluster_for(
    line: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The command, or Python, with one job in place of many, where all that it names is there."""
    if not re.search(r"--cluster |cluster=", line):
        yield line
        return
    pytest.importorskip("distributed")
    (folder / "gpu.toml").write_text(SMALL)
    monkeypatch.setenv("CRYOPICK_CLUSTER_CONFIG", str(folder / "gpu.toml"))
    line = re.sub(r"(--jobs |jobs=)\d+", r"\g<1>1", line)
    if "slurm" in line:
        slurm: SlurmCluster = request.getfixturevalue("slurm")
        slurm.use(monkeypatch)
    if FOREIGN not in line:
        yield line
        return
    with foreign_scheduler(folder / "theirs") as theirs:
        (folder / "tls.toml").write_text(theirs.config())
        yield line.replace(FOREIGN, theirs.address)
