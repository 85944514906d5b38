"""A client of cryosparc-tools that has no server: it keeps what it is asked, and answers as version 5 does.

The classes hold the calls that cryopick makes, by their names and arguments, and nothing else. A table is a dictionary
of columns whose types are fixed when it is made, as those of `cryosparc.dataset.Dataset` are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PARTICLE_FIELDS: dict[str, Any] = {
    "uid": "<u8",
    "location/micrograph_uid": "<u8",
    "location/exp_group_id": "<u4",
    "location/micrograph_path": object,
    "location/micrograph_shape": ("<u4", (2,)),
    "location/center_x_frac": "<f4",
    "location/center_y_frac": "<f4",
    "location/micrograph_psize_A": "<f4",
    "location/min_dist_A": "<f4",
    "pick_stats/ncc_score": "<f4",
    "pick_stats/power": "<f4",
    "pick_stats/template_idx": "<u4",
    "pick_stats/angle_rad": "<f4",
}
"""What version 5 allocates for the slots `location` and `pick_stats`."""


class FakeTable(dict[str, np.ndarray]):
    """Columns of fixed types and length."""

    @classmethod
    def of(cls, rows: int, fields: dict[str, Any]) -> FakeTable:
        return cls({name: np.zeros(rows, dtype=kind) for name, kind in fields.items()})

    def __setitem__(self, name: str, column: Any) -> None:
        self[name][...] = column

    def __len__(self) -> int:
        return len(self["uid"])


def exposures_table(paths: Sequence[str], *, shape_yx: tuple[int, int], pixel_size: float = 2.0) -> FakeTable:
    count = len(paths)
    return FakeTable(
        {
            "uid": np.arange(1, count + 1, dtype="<u8") * 1_000_003,
            "micrograph_blob/path": np.array(paths, dtype=object),
            "micrograph_blob/shape": np.tile(np.array(shape_yx, dtype="<u4"), (count, 1)),
            "micrograph_blob/psize_A": np.full(count, pixel_size, dtype="<f4"),
            "ctf/exp_group_id": np.arange(count, dtype="<u4") % 3 + 1,
        }
    )


@dataclass
class FakeJob:
    calls: list[tuple[str, dict[str, Any]]]
    uid: str = "J55"
    saved: dict[str, FakeTable] = field(default_factory=dict)
    fails_at: str = ""

    def _keep(self, call: str, /, **arguments: Any) -> None:
        self.calls.append((call, arguments))
        if call == self.fails_at:
            raise RuntimeError(f"*** (http://server:39000) 422 Unprocessable: {call}\nmore lines")

    def add_input(self, *, type: str, name: str, min: int, slots: list[str], title: str) -> str:
        self._keep("add_input", type=type, name=name, min=min, slots=slots)
        return name

    def connect(self, target_input: str, source_job_uid: str, source_output: str) -> bool:
        self._keep("connect", input=target_input, job=source_job_uid, output=source_output)
        return True

    def add_output(self, *, type: str, name: str, slots: list[str], title: str) -> str:
        self._keep("add_output", type=type, name=name, slots=slots)
        return name

    def start(self) -> None:
        self._keep("start")

    def alloc_output(self, name: str, alloc: np.ndarray) -> FakeTable:
        self._keep("alloc_output", name=name, rows=len(alloc))
        table = FakeTable.of(len(alloc), PARTICLE_FIELDS)
        table["uid"] = alloc
        return table

    def save_output(self, name: str, dataset: FakeTable) -> None:
        self._keep("save_output", name=name)
        self.saved[name] = dataset

    def stop(self, error: str = "") -> None:
        self._keep("stop", error=error)


@dataclass
class FakeCryosparc:
    """Client, project and source job at once: each gives the next."""

    exposures: FakeTable
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fails_at: str = ""
    job: FakeJob | None = None

    def find_project(self, project_uid: str) -> FakeCryosparc:
        self.calls.append(("find_project", {"project": project_uid}))
        return self

    def find_job(self, job_uid: str) -> FakeCryosparc:
        self.calls.append(("find_job", {"job": job_uid}))
        return self

    def load_output(self, name: str, slots: list[str]) -> FakeTable:
        self.calls.append(("load_output", {"name": name, "slots": slots}))
        if self.fails_at == "load_output":
            raise RuntimeError("no such output")
        return self.exposures

    def create_external_job(self, workspace_uid: str, *, title: str) -> FakeJob:
        self.calls.append(("create_external_job", {"workspace": workspace_uid, "title": title}))
        self.job = FakeJob(self.calls, fails_at=self.fails_at)
        return self.job
