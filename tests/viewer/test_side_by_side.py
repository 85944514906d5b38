"""Two viewers at once on one run, micrographs with odd names, and the files of the page in a wheel."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from browser import viewer
from discs import disc_micrograph
from starlette.testclient import TestClient

import cryopick
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import make_settings
from cryopick.viewer.server import create_app, read_static
from cryopick.viewer.session import Session
from cryopick.viewer.sources import RunSource
from cryopick.workflows.edits import Journals
from cryopick.workflows.pick import pick_to_folder

NAMES = (
    "with space and ümläut é 粒子.mrc",
    "it's one.mrc",
    '"quoted"&<b>.mrc',
    "a,b;c=d?e#f%20.mrc",
    "-rf.mrc",
    "Grid 1/deep er/m[1]{2}.mrc",
)


def ask(one, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {one.token}", "Content-Type": "application/json"}
    with urlopen(Request(f"{one.address}{path}", data=data, headers=headers), timeout=30) as answer:
        return json.loads(answer.read())


def put(name, x):
    return {"op": "put", "id": name, "kind": "yes", "x": x, "y": 60.0, "d": 20, "group": f"g-{name}"}


def test_two_viewers_of_one_run_take_in_each_others_marks_and_lose_none(run: Path):
    with viewer([run]) as first, viewer([run]) as second:
        assert first.port != second.port
        assert first.token != second.token
        for number in range(12):  # in turn, each knowing nothing of what the other wrote since
            one = (first, second)[number % 2]
            ask(one, "/api/r/0/m/0/marks", {"ops": [put(f"m{number}", 10.0 + 10 * number)]})
        seen = [set(ask(one, "/api/r/0/m/0/marks")["marks"]) for one in (first, second)]
        assert seen[0] == seen[1] == {f"m{number}" for number in range(12)}
        # undo takes back the last action, whoever made it, and both see that
        ask(first, "/api/r/0/m/0/marks", {"undo": True, "group": "u1"})
        assert set(ask(second, "/api/r/0/m/0/marks")["marks"]) == seen[0] - {"m11"}
    key = RunSource(run).rows[0].key
    assert set(Journals(run / "edits").read(key).marks.by_id) == seen[0] - {"m11"}


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd names")
    for seed, name in enumerate(NAMES):
        path = folder / "in put" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(path, disc_micrograph(name, seed=seed))
    pick_to_folder([folder / "in put"], folder / "run 1 ü", make_settings("blob", diameter="20px"), workers=1)
    return folder / "run 1 ü"


def test_odd_names_are_listed_shown_marked_and_exported_as_they_are(odd_run: Path):
    session = Session([RunSource(odd_run)], odd_run / "edits")
    with TestClient(
        create_app(session, token="t"), base_url="http://127.0.0.1:8700", headers={"Authorization": "Bearer t"}
    ) as client:
        table = client.get("/api/r/0/micrographs").json()
        assert sorted(table["name"]) == sorted(NAMES)
        for number, name in enumerate(table["name"]):
            for what in ("overview", "thumb", "base/raw", "candidates"):
                answer = client.get(f"/api/r/0/m/{number}/{what}")
                assert answer.status_code == 200, (name, what)
                assert answer.content
            ops = [put("one", 77.0), {"op": "verdict", "id": "", "value": "good", "group": "v"}]
            assert client.post(f"/api/r/0/m/{number}/marks", json={"ops": ops}).status_code == 200
        assert client.get("/api/r/0/micrographs").json()["edited"] == [1] * len(NAMES)
        job = client.post("/api/export", json={"threshold": None, "low": 0, "high": None, "formats": ["csv"]}).json()[
            "job"
        ]
        while (told := client.get("/api/jobs").json()["jobs"][job])["is_running"]:
            pass
        assert told["error"] == ""
        assert told["result"]["added"] == len(NAMES)
    again = Session([RunSource(odd_run)], odd_run / "edits")
    assert sorted(again.journals.keys()) == sorted(row.key for row in again.sources[0].rows)
    exported = cryopick.read_picks(odd_run / "edited" / "autopick.star")
    assert len(exported) == len(NAMES)
    assert all((abs(one.xy_px - [77.0, 60.0]) < 0.01).all(axis=1).any() for one in exported.values())


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel")
def test_a_wheel_holds_every_file_of_the_page_and_of_the_report_byte_for_byte(tmp_path: Path):
    root = Path(__file__).parents[2]
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
        static = read_static()
        assert len(static) > 10
        for name, (data, *_rest) in static.items():
            assert wheel.read(f"cryopick/viewer/static/{name}") == data
        for path in (root / "src/cryopick/pages/templates").iterdir():
            assert f"cryopick/pages/templates/{path.name}" in names
