"""A real Slurm of two nodes on this machine: without systemd, root or network, on free ports, for one test session."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo")
NODES = ("n1", "n2")
UP_SECONDS = 60.0
GONE_SECONDS = 60.0
"""Within which every job ends that nobody wants any more; seconds on a free machine."""
_WHERE = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=_WHERE) is None]


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm; `environment` is what its programs need."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What a command of Slurm's prints."""
        program = shutil.which(command[0], path=_WHERE) or command[0]
        done = subprocess.run(
            [program, *command[1:]],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def jobs(self) -> list[str]:
        """Numbers of the jobs that wait or run."""
        return self.run("squeue", "-h", "-o", "%i").split()

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For the rest of a test, programs of Slurm that it starts speak to this one."""
        monkeypatch.setenv("PATH", _WHERE)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def wait_until_no_job_is_left(self) -> None:
        """Raise when some are left after `GONE_SECONDS`."""
        end = time.monotonic() + GONE_SECONDS
        while left := self.jobs():
            if time.monotonic() > end:
                raise AssertionError(f"jobs are left after {GONE_SECONDS:g} s: {left}")
            time.sleep(0.2)

    def pid(self, daemon: str) -> int:
        """`munged`, `slurmctld`, `slurmd-n1` or `slurmd-n2`."""
        return int((self.folder / "run" / f"{daemon}.pid").read_text())

    def start_node(self, node: str) -> None:
        _start("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", node, environment=self.environment)

    def wait_idle(self, nodes: int = len(NODES)) -> None:
        """Return when so many nodes take jobs; raise with the end of the logs when they do not."""
        end = time.monotonic() + UP_SECONDS
        while time.monotonic() < end:
            with suppress(subprocess.SubprocessError):
                if self.run("sinfo", "-h", "-N", "-o", "%T").split().count("idle") >= nodes:
                    return
            time.sleep(0.2)
        logs = {path.name: path.read_text()[-1500:] for path in (self.folder / "log").iterdir()}
        raise RuntimeError(f"Slurm is not up after {UP_SECONDS:g} s: {logs}")


def start_slurm(folder: Path) -> SlurmCluster:
    """Write a configuration into an empty folder and start the daemons."""
    for name in ("state", "log", "run", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    folder.chmod(0o755)  # munge wants to look up to its socket
    (folder / "run").chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    (folder / "slurm.conf").write_text(_configuration(folder))
    cluster = SlurmCluster(folder)
    _start(
        *("munged", "--force", f"--key-file={key}", f"--socket={folder}/run/munge.socket"),
        *(f"--pid-file={folder}/run/munged.pid", f"--log-file={folder}/log/munged.log"),
        f"--seed-file={folder}/run/munged.seed",
        environment={},
    )
    _start("slurmctld", "-f", str(folder / "slurm.conf"), "-c", environment=cluster.environment)
    for node in NODES:
        cluster.start_node(node)
    cluster.wait_idle()
    return cluster


def stop_slurm(cluster: SlurmCluster) -> None:
    """Cancel what runs, end the daemons, slurmctld first, and remove the folder."""
    with suppress(subprocess.SubprocessError):
        cluster.run("scancel", "-u", getpass.getuser())
        end = time.monotonic() + 10
        while cluster.jobs() and time.monotonic() < end:
            time.sleep(0.2)
    for daemon in ("slurmctld", *(f"slurmd-{node}" for node in NODES), "munged"):
        with suppress(OSError, ValueError):
            _end(cluster.pid(daemon))
    shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm of this session's own. Where its programs are missing, tests that ask for it are skipped."""
    if missing := missing_programs():
        pytest.skip(f"needs Slurm and munge ({', '.join(missing)} not found; scripts/slurm installs them)")
    # not pytest's folder: munge wants every folder up to its socket readable by others, and its name must be short
    folder = Path(tempfile.mkdtemp(prefix="cryopick-slurm-"))
    cluster = SlurmCluster(folder)
    try:
        yield start_slurm(folder)
    finally:
        stop_slurm(cluster)


def _start(program: str, *arguments: str, environment: dict[str, str]) -> None:
    path = shutil.which(program, path=_WHERE) or program
    done = subprocess.run(
        [path, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} did not start: {done.stderr[-500:]}")


def _end(pid: int) -> None:
    """Ask a daemon to end; kill it after 5 s."""
    os.kill(pid, signal.SIGTERM)
    for _ in range(50):
        time.sleep(0.1)
        os.kill(pid, 0)  # raises when it is gone
    os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _configuration(folder: Path) -> str:
    user, host = getpass.getuser(), socket.gethostname().split(".")[0]
    controller_port, *node_ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 Sockets=1 CoresPerSocket=8 "
        "ThreadsPerCore=1 RealMemory=16000"
        for node, port in zip(NODES, node_ports, strict=True)
    )
    # config_overrides: the nodes claim more cores and memory than the machine has
    return f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=2
MailProg=/bin/true
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=500
"""
