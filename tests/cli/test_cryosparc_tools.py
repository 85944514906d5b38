"""The calls of `cryopick cryosparc` through cryosparc-tools 5 itself, below which only the server is played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph
from fake_cryosparc import PARTICLE_FIELDS

from cryopick.io.images.micrographs import write_micrograph
from cryopick.workflows import cryosparc_job

pytest.importorskip("cryosparc.controllers", reason="needs cryosparc-tools 5")

from cryosparc.controllers.job import ExternalJobController
from cryosparc.controllers.project import ProjectController
from cryosparc.dataset import Dataset


class PlayedServer:
    """What the client's `api.jobs` and `api.projects` are asked, and answers of the kinds that they give."""

    def __init__(self, exposures: Dataset) -> None:
        self.exposures = exposures
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.saved: dict[str, Dataset] = {}
        self.asked: list[str] = []

    def job(self, uid: str) -> SimpleNamespace:
        outputs = {"exposures": SimpleNamespace(type="exposure")} if uid == "J42" else self.outputs
        spec = SimpleNamespace(
            type="snowflake" if uid == "J55" else "curate_exposures_v2",
            inputs=SimpleNamespace(root=self.inputs),
            outputs=SimpleNamespace(root=outputs),
        )
        return SimpleNamespace(project_uid="P3", uid=uid, spec=spec)

    def find_one(self, project_uid: str, uid: str = "") -> SimpleNamespace:
        return self.job(uid) if uid else SimpleNamespace(uid=project_uid)

    def create(self, project_uid: str, workspace_uid: str, *, type: str, title: str, description: str) -> Any:
        assert (project_uid, workspace_uid, type, title) == ("P3", "W1", "snowflake", "cryopick run1")
        return self.job("J55")

    def add_external_input(self, project_uid: str, uid: str, name: str, spec: Any) -> Any:
        self.inputs[name] = spec
        return self.job(uid)

    def add_external_output(self, project_uid: str, uid: str, name: str, spec: Any) -> Any:
        self.outputs[name] = spec
        return self.job(uid)

    def connect(self, project_uid: str, uid: str, name: str, *, source_job_uid: str, source_output_name: str) -> Any:
        self.asked.append(f"connect {name} {source_job_uid} {source_output_name}")
        return self.job(uid)

    def load_output(self, project_uid: str, uid: str, name: str, *, slots: list[str], version: str) -> Dataset:
        assert (uid, name, slots) == ("J42", "exposures", ["micrograph_blob", "ctf"])
        return self.exposures

    def get_output_fields(self, project_uid: str, uid: str, name: str, _: dict[str, Any]) -> list[tuple[Any, ...]]:
        kinds = {object: "O"}
        return [
            (field, *kind) if isinstance(kind, tuple) else (field, kinds.get(kind, kind))
            for field, kind in PARTICLE_FIELDS.items()
            if field != "uid"
        ]

    def mark_running(self, project_uid: str, uid: str, *, status: str) -> Any:
        self.asked.append("start")
        return self.job(uid)

    def mark_completed(self, project_uid: str, uid: str) -> Any:
        self.asked.append("stop")
        return self.job(uid)

    def save_output(self, project_uid: str, uid: str, name: str, dataset: Dataset, *, version: int) -> Any:
        self.asked.append("save")
        self.saved[name] = dataset
        return self.job(uid)


def test_the_calls_are_those_of_cryosparc_tools_and_the_table_is_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    blob = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1")
    assert cryopick("pick", "in", "-o", "run1", *blob, cwd=tmp_path).returncode == 0
    exposures = Dataset(
        {
            "uid": np.array([7, 8], dtype="u8"),
            "micrograph_blob/path": np.array(["J7/m1_patch_aligned.mrc", "J7/m0_patch_aligned.mrc"], dtype=object),
            "micrograph_blob/shape": np.array([[120, 160]] * 2, dtype="u4"),
            "micrograph_blob/psize_A": np.array([2.0, 2.0], dtype="f4"),
            "ctf/exp_group_id": np.array([1, 2], dtype="u4"),
        }
    )
    server = PlayedServer(exposures)
    client = SimpleNamespace(api=SimpleNamespace(jobs=server, projects=server))
    client.find_project = lambda uid: ProjectController(client, uid)
    client.create_external_job = lambda project_uid, *, workspace_uid, title, desc: ExternalJobController(
        client, server.create(project_uid, workspace_uid, type="snowflake", title=title, description=desc)
    )
    monkeypatch.setattr(cryosparc_job, "connect", lambda url: client)
    words = ("--project", "P3", "--workspace", "W1", "--exposures", "J42.exposures", "--cs-rows", "relion")
    done = cryopick("cryosparc", "run1", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.asked == ["connect exposures J42 exposures", "start", "save", "stop"]
    assert [slot.name for slot in server.inputs["exposures"].slots] == ["micrograph_blob", "ctf"]
    assert [slot.name for slot in server.outputs["particles"].slots] == ["location", "pick_stats"]
    particles = server.saved["particles"]
    assert isinstance(particles, Dataset)
    assert sorted(particles["location/micrograph_uid"].tolist()) == [7, 7, 7, 8, 8, 8]
    of_m0 = particles.query({"location/micrograph_uid": 8})
    assert set(of_m0["location/exp_group_id"].tolist()) == {2}
    assert set(of_m0["location/micrograph_path"].tolist()) == {"J7/m0_patch_aligned.mrc"}
    assert of_m0["location/center_x_frac"].dtype == np.float32
    particles.save(tmp_path / "particles.cs")
    again = cryopick("convert", "particles.cs", "out.csv", "--flip-y", "no", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("6 particles of 2 micrographs")
