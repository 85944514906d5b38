"""The server without a browser: who is refused, what is answered, and that nothing of the run changes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import cryopick
from cryopick.io.coordinates.relion import read_relion
from cryopick.runs.folder import CONTENTS
from cryopick.viewer.server import create_app
from cryopick.viewer.session import Session
from cryopick.viewer.sources import PicksSource, RunSource
from cryopick.workflows.rethreshold import rethreshold

TOKEN = "the-token"
SIGNED = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def client_of(session: Session, **headers: str) -> Iterator[TestClient]:
    with TestClient(create_app(session, token=TOKEN), base_url="http://127.0.0.1:8700", headers=headers) as client:
        yield client


@pytest.fixture
def session(run: Path) -> Session:
    return Session([RunSource(run)], run / "edits")


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    with client_of(session, **SIGNED) as one:
        yield one


def wait_until(condition: Any, *, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def digests(folder: Path) -> dict[str, str]:
    """Of everything that `cryopick pick` wrote."""
    found = {}
    for name in CONTENTS:
        top = folder / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def put(group: str, x: float, y: float, *, kind: str = "yes", name: str | None = None) -> dict[str, Any]:
    return {"op": "put", "id": name or group, "kind": kind, "x": x, "y": y, "group": group, "what": "added"}


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Cookie": f"token={TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}é"},
    ],
)
def test_data_need_the_token(session: Session, headers: dict[str, str]):
    with client_of(session) as client:
        encoded = {name: value.encode() for name, value in headers.items()}
        for path in ("/api/runs", "/api/r/0/m/0/thumb", f"/api/runs?t={TOKEN}", "/api/nothing"):
            assert client.get(path, headers=encoded).status_code == 401
        assert client.post("/api/r/0/m/0/marks", headers=encoded, json={"ops": []}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.nip.io:8700"}, 403),
        ({"Host": "127.0.0.1:8700@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://127.0.0.1"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # what rebinding makes alike
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "localhost:9999"}, 200),
        ({"Host": "[::1]:9999", "Origin": "http://localhost:1"}, 200),
    ],
)
def test_foreign_hosts_and_origins_are_refused_and_tunnels_are_not(
    client: TestClient, headers: dict[str, str], status: int
):
    for path in ("/", "/static/app.js", "/api/runs"):
        assert client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        *("/api/r/1/micrographs", "/api/r/0/m/3/thumb", "/api/r/0/m/-1/thumb", "/api/r/0/m/0/map/99"),
        *("/api/r/0/m/9999999999999999999999/thumb", f"/api/r/0/m/{'9' * 5000}/thumb", "/api/r/0/m/0/base/secret"),
        *("/api/r/0/m/0/tile/raw/0/0/0", "/api/r/0/m/0/tile/band/0/0/0", "/api/r/0/m/0/matched/1"),
        *(
            "/static/../server.py",
            "/static/..%2fserver.py",
            "/static/%2e%2e/server.py",
            "/static/",
            "/etc/passwd",
        ),
        *("/api/r/0/m/..%2f..%2fconfig.toml/thumb", "/api/r/..%2f/micrographs", "/static/%00", "/config.toml"),
    ],
)
def test_what_is_not_there_is_not_found_and_no_path_leads_anywhere(client: TestClient, path: str):
    response = client.get(path)
    assert response.status_code == 404
    assert b"cryopick" not in response.content.lower()


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"ops": [' + b"1," * 600_000 + b"1]}", {"Content-Type": "application/json"}, 413),
        (b"[[[", {"Content-Type": "application/json"}, 400),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 400),
        (json.dumps({"ops": [put("g", 1e9, 0)]}).encode(), {"Content-Type": "application/json"}, 400),
        (json.dumps({"ops": [put("g", 0, 0, name="../x")]}).encode(), {"Content-Type": "application/json"}, 400),
        (
            json.dumps({"ops": [{"op": "drop", "id": "a", "group": "g"} for _ in range(10_001)]}).encode(),
            {"Content-Type": "application/json"},
            400,
        ),
        (
            b'{"ops":' + b'[{"op":"drop","id":"a","group":"g"},' * 1 + b'{"op":"eval"}]}',
            {"Content-Type": "application/json"},
            400,
        ),
    ],
)
def test_posts_are_small_json_with_sound_numbers(
    client: TestClient, session: Session, content: bytes, headers: dict[str, str], status: int
):
    assert client.post("/api/r/0/m/0/marks", content=content, headers=headers).status_code == status
    assert not session.journals.keys()


def test_every_answer_forbids_scripts_from_elsewhere_frames_and_guessing(client: TestClient):
    for path in ("/", "/static/app.js", "/api/runs", "/api/r/0/m/0/thumb", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/api/runs").headers["cache-control"] == "no-store"


def test_the_page_has_no_inline_script_or_style_and_never_makes_html_of_text():
    from importlib.resources import files

    static = files("cryopick.viewer").joinpath("static")
    sources = {one.name: one.read_text(encoding="utf-8") for one in static.iterdir()}
    page = sources["index.html"]
    assert "style=" not in page
    assert page.count("<script") == 1
    assert "http" not in page.replace("http-equiv", "")
    for name, text in sources.items():
        if name.endswith(".js"):
            assert not [
                word
                for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write", "://")
                if word in text
            ], name


# ---------------------------------------------------------------------- answers


def test_names_of_any_kind_and_the_runs_facts_are_told(client: TestClient):
    facts = client.get("/api/runs").json()
    assert facts["runs"][0]["picker"] == "blob"
    table = client.get("/api/r/0/micrographs").json()
    assert "grid two/<img src=x onerror=document.title='hacked'>.mrc" in table["name"]
    assert {len(column) for column in table.values()} == {3}


def test_candidates_are_those_of_the_run(client: TestClient, session: Session):
    source = session.sources[0]
    for number in range(3):
        response = client.get(f"/api/r/0/m/{number}/candidates?v=1")
        assert response.headers["cache-control"].startswith("private, max-age=86400")
        table = np.frombuffer(response.content, "<f4").reshape(-1, 7)
        picks = source.candidates(number)
        np.testing.assert_allclose(table[:, :2], picks.xy_px, atol=1e-4)
        np.testing.assert_array_equal(table[:, 2], picks.score)
        reasons = ["", *json.loads(response.headers["x-reasons"])]
        assert [reasons[int(k)] for k in table[:, 5]] == picks.reason.tolist()
        assert (table[:, 4] > 0).all()


def test_the_exact_numbers_are_those_that_rethreshold_prints(
    client: TestClient, session: Session, run: Path, tmp_path: Path
):
    wait_until(lambda: session.sources[0].indexed == 3)
    other = shutil.copytree(run, tmp_path / "other")
    for threshold in (0.2, 0.5, 0.8):
        data = client.get(f"/api/r/0/expect?threshold={threshold}").content
        head, per = np.frombuffer(data[:40], "<f8"), np.frombuffer(data[40:], "<u4")
        summary = rethreshold(other, threshold)
        assert head[0] == per.sum() == summary.particles
    own = np.frombuffer(client.get("/api/r/0/expect").content[:8], "<f8")
    assert own[0] == json.loads((run / "summary.json").read_text())["particles"]


def test_answers_are_compressed_where_that_helps(client: TestClient):
    response = client.get("/static/app.js", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    again = client.get("/static/app.js", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    total = sum(
        len(gzip.compress(client.get(f"/static/{name}").content))
        for name in ("app.js", "api.js", "model.js", "view.js", "draw.js", "list.js", "charts.js", "style.css")
    )
    assert total < 45_000


def test_a_micrograph_that_is_gone_has_its_overview_and_says_why_the_rest_is_missing(run: Path):
    session = Session([RunSource(run)], run / "edits")
    from dataclasses import replace

    source = session.sources[0]
    source.rows[0] = replace(source.rows[0], source=Path("/nowhere/gone.mrc"))
    with client_of(session, **SIGNED) as client:
        assert client.get("/api/r/0/m/0/overview").status_code == 200
        assert client.get("/api/r/0/m/0/candidates").status_code == 200
        refused = client.get("/api/r/0/m/0/base/raw")
        assert refused.status_code == 422
        assert "gone.mrc" in refused.json()["error"]


def test_a_growing_run_shows_new_micrographs_under_numbers_that_stay(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cryopick.viewer.session.LOOK_AGAIN_S", 0.05)
    first, *rest = sorted((run / "records").rglob("*.json"), key=lambda path: path.name)
    away = run.parent / "away"
    for path in [*rest, run / "summary.json"]:
        target = away / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    session = Session([RunSource(run)], run / "edits")
    with client_of(session, **SIGNED) as client:
        before = client.get("/api/r/0/micrographs").json()["name"]
        assert len(before) == 1
        since = client.get("/api/runs").json()["since"]
        for path in rest:
            (away / path.relative_to(run)).rename(path)
        wait_until(lambda: len(client.get("/api/r/0/micrographs").json()["name"]) == 3)
        assert client.get("/api/r/0/micrographs").json()["name"][0] == before[0]
        told = client.get(f"/api/changes?since={since}").json()["changes"]
        assert {one[0] for one in told} >= {"record"}
        assert not client.get("/api/runs").json()["runs"][0]["is_finished"]
    assert first.is_file()


def test_a_record_that_leads_out_of_the_folder_is_left_out(run: Path):
    record = next((run / "records").glob("m1*.json"))
    content = json.loads(record.read_text())
    (run / "records" / "evil.json").write_text(json.dumps({**content, "name": "evil", "key": "../../etc/passwd"}))
    source = RunSource(run)
    assert len(source.rows) == 3
    assert "evil" in source.damaged


# ---------------------------------------------------------------------- marks


def test_marks_are_kept_undone_and_told_to_other_pages(client: TestClient, run: Path):
    first = client.post("/api/r/0/m/0/marks", json={"ops": [put("g1", 20, 20)]}).json()
    assert (first["revision"], first["undo"]) == (1, "added")
    second = client.post("/api/r/0/m/0/marks", json={"ops": [put("g2", 90, 20), put("g2", 60, 60, name="b")]}).json()
    assert len(second["marks"]) == 3
    for _ in range(2):  # an answer that was lost is asked for again
        undone = client.post("/api/r/0/m/0/marks", json={"undo": True, "group": "u1"}).json()
    assert list(undone["marks"]) == ["g1"]
    with client_of(Session([RunSource(run)], run / "edits"), **SIGNED) as other:
        assert list(other.get("/api/r/0/m/0/marks").json()["marks"]) == ["g1"]
        again = other.post("/api/r/0/m/0/marks", json={"redo": True, "group": "u2"}).json()
        assert len(again["marks"]) == 3
    assert ["marks", 0, 0] in client.get("/api/changes?since=0").json()["changes"]
    assert client.get("/api/changes?since=100").status_code == 204


def test_junk_becomes_a_mask_that_pick_takes(client: TestClient, run: Path):
    corners = [[0, 0], [80, 0], [80, 60], [0, 60]]
    junk = {**put("j", 0, 0, kind="junk"), "points": corners}
    assert client.post("/api/r/0/m/0/marks", json={"ops": [junk]}).status_code == 200
    (mask,) = (run / "edits" / "masks").rglob("*.png")
    source = RunSource(run)
    name = source.rows[0].name
    picks = cryopick.pick(source.rows[0].source, "blob", diameter="20px", exclusion_masks=run / "edits" / "masks")
    assert mask.name == name.rpartition("/")[2].removesuffix(".mrc") + ".png"
    inside = (picks.xy_px[:, 0] < 78) & (picks.xy_px[:, 1] < 58)
    assert inside.any()
    assert not (inside & picks.is_kept).any()


def test_a_folder_that_cannot_be_written_is_said_to_be_read_only(run: Path):
    session = Session([RunSource(run)], run / "edits", read_only="the folder cannot be written")
    with client_of(session, **SIGNED) as client:
        refused = client.post("/api/r/0/m/0/marks", json={"ops": [put("g", 1, 1)]})
        assert refused.status_code == 403
        assert "cannot be written" in refused.json()["error"]
        assert client.get("/api/runs").json()["read_only"]


def test_a_full_disk_is_told_and_nothing_is_half_written(
    client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch
):
    client.post("/api/r/0/m/0/marks", json={"ops": [put("g1", 20, 20)]})
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:7])

    monkeypatch.setattr("cryopick.workflows.edits.os.write", full)
    refused = client.post("/api/r/0/m/0/marks", json={"ops": [put("g2", 20, 20)]})
    assert refused.status_code == 507
    assert "full" in refused.json()["error"]
    monkeypatch.undo()
    journal = session.journals.path(session.sources[0].rows[0].key).read_bytes()
    assert journal.count(b"\n") == 1
    assert journal.endswith(b"\n")


# ---------------------------------------------------------------------- exports and the run


def exported(client: TestClient, **body: Any) -> dict[str, Any]:
    number = client.post("/api/export", json={"threshold": None, "low": 0, "high": None, "formats": [], **body}).json()[
        "job"
    ]
    wait_until(lambda: not client.get("/api/jobs").json()["jobs"][number]["is_running"])
    return dict(client.get("/api/jobs").json()["jobs"][number])


def test_a_session_of_everything_exports_and_leaves_the_run_as_it_was(client: TestClient, session: Session, run: Path):
    before = digests(run)
    source = session.sources[0]
    kept = [source.candidates(number).kept() for number in range(3)]
    first = kept[0].xy_px[0]
    client.post("/api/r/0/m/0/marks", json={"ops": [put("a", 10.5, 100.25)]})
    client.post("/api/r/0/m/0/marks", json={"ops": [put("b", *first, kind="no")]})
    client.post("/api/r/0/m/1/marks", json={"ops": [{"op": "verdict", "value": "bad", "group": "v"}]})
    client.post("/api/view", json={"threshold": 0.3})
    for path in ("micrographs", "curve", "expect?threshold=0.1", "m/0/base/band", "m/0/base/denoised", "m/2/thumb"):
        assert client.get(f"/api/r/0/{path}").status_code == 200
    job = exported(client, threshold=-1.0, formats=["csv", "box", "cryosparc"])
    assert job["error"] == ""
    result = job["result"]
    assert result["left_out_as_bad"] == [source.rows[1].name]
    assert (result["added"], result["removed"]) == (1, 1)
    listed = read_relion(run / "edited" / "autopick.star")
    by_name = cryopick.read_picks(run / "edited")
    assert len(listed) == len(by_name) == 2
    mine = by_name[source.rows[0].relion_name]
    assert len(mine) == len(kept[0])
    assert np.abs(mine.xy_px - [10.5, 100.25]).sum(axis=1).min() < 1e-3
    assert np.hypot(*(mine.xy_px - first).T).min() > 6
    assert sum(map(len, by_name.values())) == result["particles"]
    particles = cryopick.read_picks(run / "edited" / "particles.star")
    assert sum(map(len, particles.values())) == result["particles"]
    assert sum(map(len, cryopick.read_picks(run / "edited" / "csv").values())) == result["particles"]
    assert json.loads((run / "edited" / "summary.json").read_text())["particles"] == result["particles"]
    assert digests(run) == before


def test_an_export_that_fails_leaves_the_former_one(client: TestClient, run: Path, monkeypatch: pytest.MonkeyPatch):
    exported(client)
    before = (run / "edited" / "particles.star").read_bytes()

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cryopick.workflows.edited_picks.write_picks", fails)
    job = exported(client, formats=["csv"])
    assert "No space left" in job["error"]
    assert (run / "edited" / "particles.star").read_bytes() == before
    assert not (run / "edited.new").exists()


def test_marks_outside_a_smaller_micrograph_are_not_exported_and_counted(client: TestClient, session: Session):
    width = session.sources[0].rows[0].shape_yx[1]
    client.post("/api/r/0/m/0/marks", json={"ops": [put("a", width + 5, 10)]})
    assert exported(client)["result"]["outside"] == 1


def test_the_threshold_of_the_run_is_set_as_rethreshold_does(client: TestClient, run: Path, tmp_path: Path):
    other = shutil.copytree(run, tmp_path / "other" / "run")
    summary = rethreshold(other, 0.5)
    told = client.post("/api/r/0/threshold", json={"threshold": 0.5}).json()
    assert told == {"threshold": 0.5, "particles": summary.particles}
    assert (run / "particles.star").read_bytes() == (other / "particles.star").read_bytes()
    assert client.get("/api/runs").json()["runs"][0]["threshold"] == 0.5


def test_a_run_that_is_being_written_keeps_its_threshold_and_says_who_writes(client: TestClient, run: Path):
    from cryopick.runs.folder import RunFolder

    with RunFolder(run).lock():
        refused = client.post("/api/r/0/threshold", json={"threshold": 0.5})
        assert refused.status_code == 423
        assert "another cryopick" in refused.json()["error"]
        assert client.post("/api/r/0/m/0/marks", json={"ops": [put("g", 1, 1)]}).status_code == 200


# ---------------------------------------------------------------------- compare


def test_two_runs_are_compared_one_to_one(run: Path, tmp_path: Path):
    other = shutil.copytree(run, tmp_path / "second")
    session = Session([RunSource(run), RunSource(other)], run / "edits")
    with client_of(session, **SIGNED) as client:
        source = session.sources[0]
        first = source.candidates(0).kept().xy_px[0]
        client.post("/api/r/0/m/0/marks", json={"ops": [put("a", *first, kind="no")]})
        client.post("/api/r/0/m/0/marks", json={"ops": [put("b", 10, 110)]})
        found = client.get("/api/r/0/m/0/matched/1").json()
        kept = len(cryopick.read_picks(run)[source.rows[0].relion_name])
        assert found["counts"] == {"both": kept - 1, "here": 1, "there": 1}
        assert [one for one in found["rings"] if one[2] == "here"] == [[10.0, 110.0, "here"]]
        scores = client.get("/api/r/0/scores/1").json()
        assert scores["differ"][1] == scores["differ"][2] == 0
        assert scores["differ"][0] > 0


def test_truth_tells_right_from_wrong_as_evaluate_does(run: Path):
    from discs import disc_centres

    from cryopick.data.labels import Labels
    from cryopick.workflows.evaluate import evaluate

    source = RunSource(run)
    seeds = {"m1": 0, "m2": 1, "gr": 2}
    labels = {
        row.name: Labels(
            xy_px=disc_centres(seeds[row.name[:2]]),
            is_uncertain=np.zeros(3, bool),
            diameter_px=20.0,
            micrograph_name=row.name,
        )
        for row in source.rows
    }
    session = Session([source], run / "edits", labels=labels)
    with client_of(session, **SIGNED) as client:
        scores = client.get("/api/r/0/scores/truth").json()
        expected = evaluate(run, labels).main
        assert scores["scores"]["f1"][0] == pytest.approx(expected.counts.f1)
        assert scores["counts"]["right"] == expected.counts.true_positive
        here = client.get("/api/r/0/m/0/matched/truth").json()
        assert here["counts"]["right"] + here["counts"]["missed"] == 3


def test_picks_of_another_program_are_looked_at_and_mended(run_on_record: Path, tmp_path: Path):
    cryopick.convert(run_on_record / "run", tmp_path / "other.star")
    source = PicksSource(tmp_path / "other.star", [str(run_on_record / "micrographs")])
    session = Session([source], tmp_path / "edits")
    with client_of(session, **SIGNED) as client:
        table = client.get("/api/r/0/micrographs").json()
        assert sum(table["candidates"]) > 0
        number = table["name"].index("m1.mrc")
        assert client.get(f"/api/r/0/m/{number}/overview").content[:2] == b"\xff\xd8"
        assert client.post(f"/api/r/0/m/{number}/marks", json={"ops": [put("a", 10, 10)]}).status_code == 200
        result = exported(client)["result"]
        assert result["particles"] == sum(table["candidates"]) + 1


# ---------------------------------------------------------------------- the process


def test_the_viewer_does_not_import_torch():
    code = "import sys, cryopick.viewer.server, cryopick.viewer.sources; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
