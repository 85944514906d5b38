"""Training runs on the machine where it is started, whatever a batch system says of others."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.lightning import LightningEnvironment, find_free_network_port


class OneMachine(LightningEnvironment):
    """All processes of a training are on this machine, and cryopick starts them.

    Without this, Lightning looks for Slurm, torchrun, LSF and MPI by their programs and variables, and takes the rank,
    the address and the number of processes from there. Inside a batch job such variables are always set; they say
    nothing of what was asked of cryopick (`--devices`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._started_in = os.getpid()

    @property
    def creates_processes_externally(self) -> bool:
        return False

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        if self._main_port == -1:
            self._main_port = find_free_network_port()
        return self._main_port

    def local_rank(self) -> int:
        # set by Lightning in the processes that it starts; elsewhere it is of another program
        return 0 if os.getpid() == self._started_in else super().local_rank()

    def node_rank(self) -> int:
        return 0
