"""Learning from marks: what is begun, what is told of it while it goes on, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import disc_centres, disc_micrograph
from starlette.testclient import TestClient

import cryopick
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import make_settings
from cryopick.viewer import learning
from cryopick.viewer.server import create_app
from cryopick.viewer.session import CutAsked, Session, shown_picks
from cryopick.viewer.sources import RunSource
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

SMALL = [
    "crop_px=128",
    "batch_size=2",
    "validation_crops=2",
    "calibration_crops=4",
    "distinct_crops=0",
    "micrograph_share=0",
]


@pytest.fixture(scope="module")
def general_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    for seed in range(3):
        path = folder / "micrographs" / f"m{seed}.mrc"
        path.parent.mkdir(exist_ok=True)
        write_micrograph(path, disc_micrograph(path.name, seed=seed))
    settings = make_settings("general", diameter="20px")
    pick_to_folder([folder / "micrographs"], folder / "run", settings, workers=1)
    return folder / "run"


@pytest.fixture
def session(general_run: Path, tmp_path: Path) -> Session:
    return Session([RunSource(general_run)], tmp_path / "edits")


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    app = create_app(session, token="t")
    with TestClient(app, base_url="http://127.0.0.1:8700", headers={"Authorization": "Bearer t"}) as one:
        yield one


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been begun."""
    begun: list[list[str]] = []
    monkeypatch.setattr(learning, "start_child", lambda words, folder, *, log: begun.append(words))
    return begun


def mark_discs(client: TestClient) -> None:
    for number in range(3):
        places = disc_centres(number).tolist()
        ops = [
            {"op": "put", "id": f"y{k}", "kind": "yes", "x": x, "y": y, "d": 20, "group": "g"}
            for k, (x, y) in enumerate(places)
        ]
        ops.append({"op": "put", "id": "n", "kind": "no", "x": 80.0, "y": 20.0, "group": "g"})
        assert client.post(f"/api/r/0/m/{number}/marks", json={"ops": ops}).status_code == 200


BODY = {"threshold": None, "low": 0, "high": None, "confident": False, "steps": 1, "settings": SMALL}


def test_the_plan_counts_what_teaches_and_says_what_is_missing(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    nothing = client.post("/api/learn/plan", json=BODY).json()
    assert any("nothing is marked" in one for one in nothing["problems"])
    mark_discs(client)
    plan = client.post("/api/learn/plan", json=BODY).json()
    assert (plan["particles"], plan["background"], plan["micrographs"]) == (9, 3, 3)
    assert plan["problems"] == []
    assert plan["background_teaches"] is True
    assert len(plan["validates"]) == 1
    assert plan["weights"] == "the weights that general is shipped with"
    assert "sources" not in plan
    assert any("12 labels" in one for one in plan["doubts"])
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setattr("cryopick.extras.find_spec", lambda name: None)
    assert any("install with: " in one for one in client.post("/api/learn/plan", json=BODY).json()["problems"])
    assert client.post("/api/learn", json=BODY).status_code == 422  # found before anything is measured


def test_a_learning_is_the_command_that_a_person_could_type(
    client: TestClient, session: Session, children: list[list[str]]
):
    mark_discs(client)
    assert client.post("/api/learn", json=BODY).json() == {"number": 1}
    (words,) = children
    assert words[:2] == ["finetune", "general"]
    assert Path(words[words.index("--picks") + 1], "m1.csv").read_text().count("background") == 1
    assert words[words.index("-o") + 1] == str(session.edits.with_name("learn") / "1")
    assert client.post("/api/learn", json={**BODY, "settings": ["x; rm -rf /"]}).status_code == 400
    assert client.post("/api/learn", json={**BODY, "steps": -1}).status_code == 400


def test_a_picker_without_a_network_and_imported_picks_say_so(run: Path):
    app = create_app(Session([RunSource(run)], run / "edits"), token="t")
    with TestClient(app, base_url="http://127.0.0.1:8700", headers={"Authorization": "Bearer t"}) as client:
        refused = client.post("/api/learn", json=BODY)
        assert refused.status_code == 403
        assert "blob has no network" in refused.json()["error"]


TABLE = "              before   after\nyour data     0.8390  {after}\nold data      0.9000  0.9010\n"


@pytest.mark.parametrize(
    ("files", "phase"),
    [
        ({"log.txt": "cryopick: the loss is not finite\n"}, "failed"),
        ({"log.txt": ""}, "failed"),
        ({"log.txt": TABLE.format(after="0.8390") + "kept the old weights: no step was better\n"}, "not better"),
        (
            {"log.txt": TABLE.format(after="0.9120") + "use them: cryopick pick\n", "weights.safetensors": "x"},
            "better",
        ),
    ],
)
def test_how_a_learning_ended_is_told_from_its_files(
    client: TestClient, session: Session, children: list[list[str]], files: dict[str, str], phase: str
):
    mark_discs(client)
    client.post("/api/learn", json=BODY)
    folder = session.edits.with_name("learn") / "1"
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "validation.csv").write_text("step,new,old,score\n0,0.839,0.9,0.839\n30,0.912,0.901,0.912\n")
    (state,) = client.get("/api/learn").json()["learnings"]
    assert state["phase"] == phase
    assert state["is_better"] is (phase == "better")
    assert state["validation"]["yours"] == [[0, 0.839], [30, 0.912]]
    if phase == "failed":
        assert state["error"]
    after = client.post("/api/learn/1/after", json={})
    assert after.status_code == (200 if phase == "better" else 409)
    assert client.post("/api/learn/1/pick", json={}).status_code == after.status_code


def test_f1_before_and_after_is_told_on_complete_micrographs_that_judge_and_else_why_not(
    client: TestClient, session: Session, children: list[list[str]]
):
    mark_discs(client)
    source, lowest = session.sources[0], 1.0
    for number in (0, 1):  # particles are what is surest; the run itself keeps nothing of them
        found = source.candidates(number).kept()
        best = np.argsort(-found.score)[:4]
        lowest = min(lowest, float(found.score[best].min()))
        ops = [
            {"op": "put", "id": f"b{k}", "kind": "yes", "x": x, "y": y, "d": 20, "group": "b"}
            for k, (x, y) in enumerate(found.xy_px[best].tolist())
        ]
        ops.append({"op": "complete", "id": "", "value": True, "group": "c"})
        assert client.post(f"/api/r/0/m/{number}/marks", json={"ops": ops}).status_code == 200
    client.post("/api/learn", json=BODY)
    folder = session.edits.with_name("learn") / "1"
    shutil.copytree(source.folder.path, folder / "after")
    rethreshold(folder / "after", 0.999 * lowest)
    names = [str(row.source) for row in source.rows]
    (folder / "split.json").write_text(json.dumps({"seed": 0, "train": names[2:], "validation": names[:2]}))
    found = learning.judged(source, folder)
    assert found["micrographs"] == ["m0.mrc", "m1.mrc"]
    cut = CutAsked(source.cutting.threshold, (0.0, float("inf")), True)
    truth = {row.name: shown_picks(session, 0, number, cut) for number, row in enumerate(source.rows[:2])}
    counts = []
    for run in (source.folder.path, folder / "after"):
        right = picked = 0
        for name, marked in truth.items():
            own = next(one for key, one in cryopick.read_picks(run).items() if Path(key).name == name)
            near = np.linalg.norm(own.xy_px[:, None] - marked.xy_px[None], axis=2) <= 5.0
            right += int(min(near.any(axis=0).sum(), near.any(axis=1).sum()))
            picked += len(own)
        counts.append(2 * right / (picked + sum(map(len, truth.values()))))
    assert [found["before"][0], found["after"][0]] == pytest.approx(counts, abs=0.02)
    assert found["after"][0] > found["before"][0]
    assert found["after"][1] <= found["after"][0] <= found["after"][2]
    (folder / "split.json").write_text(json.dumps({"seed": 0, "train": names[:2], "validation": names[2:]}))
    assert "complete" in learning.judged(source, folder)["why"]


@pytest.mark.slow
def test_marks_become_a_learning_with_an_honest_end_and_the_run_stays_as_it_was(
    client: TestClient, session: Session, general_run: Path
):
    before = {
        path: path.stat().st_mtime_ns for path in general_run.rglob("*") if path.is_file() and ".view" not in str(path)
    }
    mark_discs(client)
    start = time.monotonic()
    assert client.post("/api/learn", json=BODY).status_code == 200
    assert client.post("/api/learn", json=BODY).status_code == 409  # one at a time
    seen = set()
    while (state := client.get("/api/learn").json()["learnings"][0])["is_running"]:
        seen.add(state["phase"])
        time.sleep(0.2)
        assert time.monotonic() - start < 300
    assert "measuring the starting weights" in seen
    assert state["phase"] in ("better", "not better"), state["log"]
    assert state["judges"] == client.post("/api/learn/plan", json=BODY).json()["validates"]
    if not state["is_better"]:
        assert state["before"] == state["after"]  # one set of weights, one score
        assert "use them" not in state["log"]
    other = Session([RunSource(general_run)], session.edits)  # a viewer that is started later finds it
    assert learning.learnings(other)[0]["phase"] == state["phase"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_child_that_is_killed_is_known_to_be_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "_CHILD", "import time; print('begun', flush=True); time.sleep(60)")
    learning.start_child([], tmp_path, log="log.txt")
    assert learning.is_alive(tmp_path, log="log.txt")
    os.kill(int((tmp_path / "pid-log.txt").read_text()), 9)
    end = time.monotonic() + 10
    while learning.is_alive(tmp_path, log="log.txt"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_begun_is_written_down(client: TestClient, session: Session, children: list[list[str]]):
    mark_discs(client)
    client.post("/api/learn", json=BODY)
    job: dict[str, Any] = json.loads((session.edits.with_name("learn") / "1" / "job.json").read_text())
    assert job["words"] == children[0]
    assert job["particles"] == 9
