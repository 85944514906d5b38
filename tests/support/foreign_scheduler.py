"""A Dask scheduler and a worker that somebody else runs, on this machine, with certificates of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ForeignScheduler:
    address: str
    folder: Path

    def settings(self) -> dict[str, str]:
        """The files by which it knows its users."""
        names = {"ca": "certificate.pem", "cert": "certificate.pem", "key": "key.pem"}
        return {name: str(self.folder / file) for name, file in names.items()}

    def config(self) -> str:
        """The same as a file for --cluster-config."""
        return "[cluster]\n" + "".join(f'{name} = "{path}"\n' for name, path in self.settings().items())


@contextmanager
def foreign_scheduler(folder: Path) -> Iterator[ForeignScheduler]:
    from distributed.security import Security

    folder.mkdir(parents=True, exist_ok=True)
    security = Security.temporary()
    (folder / "certificate.pem").write_text(security.tls_ca_file)
    (folder / "key.pem").write_text(security.tls_client_key)
    tls = ["--tls-ca-file", "certificate.pem", "--tls-cert", "certificate.pem", "--tls-key", "key.pem"]
    support = str(Path(__file__).parent)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [support, os.environ.get("PYTHONPATH", "")])),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
        "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    }
    processes = []

    def start(*words: str) -> None:
        with open(folder / f"{words[0]}.log", "ab") as log:
            command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], *tls, "--no-dashboard"]
            processes.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    try:
        start("scheduler", "--host", "tls://127.0.0.1", "--port", "0", "--scheduler-file", "where.json")
        end = time.monotonic() + 60
        while not (folder / "where.json").exists():
            if time.monotonic() > end or processes[0].poll() is not None:
                raise RuntimeError((folder / "scheduler.log").read_text()[-1000:])
            time.sleep(0.1)
        import json

        address = json.loads((folder / "where.json").read_text())["address"]
        start("worker", address, "--host", "tls://127.0.0.1", "--nthreads", "1", "--nworkers", "1")
        yield ForeignScheduler(address, folder)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
