"""cryoSPARC's own jobs without a server: what is asked is kept, and answered as versions 4.5 to 5 do.

`FakeServer` is client, project and workspace at once. A job of a type in `fails` fails so many times; `stops_at` is a
job at whose queueing the one who asks is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

GOOD = {"class_idx": 0, "num_particles_total": 300, "res_A": 9.0}
COARSE = {"class_idx": 1, "num_particles_total": 250, "res_A": 25.0}
TINY = {"class_idx": 2, "num_particles_total": 4, "res_A": 6.0}
FAIR = {"class_idx": 3, "num_particles_total": 120, "res_A": 14.0}


@dataclass
class FakeJob:
    server: FakeServer
    uid: str
    type: str
    status: str = "building"

    def queue(self, lane: str | None = None) -> None:
        self.server.calls.append(("queue", self.uid, lane))
        assert self.uid in self.server.stored(), "queued before its id was kept"
        if self.server.stops_at == self.uid:
            self.server.stops_at = ""
            self.status = "running"
            raise KeyboardInterrupt
        self.status = "waiting" if self.type == "select_2D" else "running"

    def wait_for_status(self, status: tuple[str, ...]) -> str:
        assert self.status in status
        return self.status

    def interact(self, action: str, body: Mapping[str, Any] | None = None) -> Any:
        self.server.calls.append((action, self.uid, body))
        return [GOOD, COARSE, TINY, FAIR] if action == "get_class_info" else None

    def wait_for_done(self) -> str:
        fails = self.server.fails.get(self.type, 0)
        self.server.fails[self.type] = fails - 1
        self.status = "failed" if fails > 0 else "completed"
        return self.status

    def load_output(self, name: str) -> Any:
        if name == "particles":
            return range(512)
        return {"map/psize_A": [1.5]} | {f"{one}/path": [f"{self.uid}/{one}.mrc"] for one in self.server.maps}


@dataclass
class FakeServer:
    """Client, project and workspace at once."""

    record: Path
    fails: dict[str, int] = field(default_factory=dict)
    stops_at: str = ""
    calls: list[Any] = field(default_factory=list)
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    made: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)
    maps: tuple[str, ...] = ("map", "map_half_A", "map_half_B")

    @property
    def job_register(self) -> Any:
        types = ("extract_micrographs_cpu_parallel", "class_2D_new", "select_2D", "homo_abinit", "homo_refine_new")
        return SimpleNamespace(specs=[SimpleNamespace(type=one) for one in types])

    def create_job(self, type: str, *, connections: Any, params: Any, title: str) -> FakeJob:
        uid = f"J{len(self.jobs) + 1}"
        self.made.append((uid, type, connections, params))
        self.jobs[uid] = FakeJob(self, uid, type)
        return self.jobs[uid]

    def find_job(self, uid: str) -> FakeJob:
        if uid not in self.jobs:
            raise RuntimeError("422 no such job\nmore lines")
        return self.jobs[uid]

    def download_mrc(self, path: str) -> tuple[None, np.ndarray]:
        return None, np.full((4, 4, 4), {"map.mrc": 0, "map_half_A.mrc": 1, "map_half_B.mrc": 2}[path.split("/")[1]])

    def stored(self) -> list[str]:
        return [uid for uids in json.loads(self.record.read_text())["jobs"].values() for uid in uids]
