"""RELION's own extraction of an export: its boxes hold the pixels around the marks."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from relion_here import cut_out
from starlette.testclient import TestClient

from cryopick.io.images.mrc import write_mrc
from cryopick.viewer.server import create_app
from cryopick.viewer.session import Session
from cryopick.viewer.sources import PicksSource

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="needs RELION's relion_preprocess"),
]
BOX_PX = 32


def test_relion_cuts_out_what_was_picked_and_marked_and_nothing_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).normal(10, 1, (210, 340)).astype(np.float32)
    write_mrc(Path("m1.mrc"), pixels, pixel_size_angstrom=1.5)
    Path("m1.csv").write_text("x,y,diameter\n40,30,20\n95,52,20\n300,40,20\n")
    session = Session([PicksSource(Path("m1.csv"), ["m1.mrc"])], Path("edits"))
    app = create_app(session, token="t")
    with TestClient(app, base_url="http://127.0.0.1:1", headers={"Authorization": "Bearer t"}) as client:
        marks = [
            {"op": "put", "id": "a", "kind": "no", "x": 95, "y": 52, "group": "g"},
            {"op": "put", "id": "b", "kind": "yes", "x": 160, "y": 150, "group": "g"},
        ]
        assert client.post("/api/r/0/m/0/marks", json={"ops": marks}).status_code == 200
        assert client.post("/api/export", json={"threshold": None, "formats": []}).status_code == 200
        while (job := client.get("/api/jobs").json()["jobs"][0])["is_running"]:
            time.sleep(0.02)
    edited = Path(job["result"]["folder"])
    Path("micrographs.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
        "g1 1 1.5 300 2.7 0.1\n\n# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
        "_rlnOpticsGroup #2\nm1.mrc 1\n\n"
    )
    boxes = cut_out(Path(), f"{edited}/picks", box_px=BOX_PX)
    assert len(boxes) == job["result"]["particles"] == 3
    half = BOX_PX // 2
    for x, y in ((40, 30), (300, 40), (160, 150)):
        around = pixels[y - half : y + half, x - half : x + half]
        assert max(np.corrcoef(box.ravel(), around.ravel())[0, 1] for box in boxes) > 0.99
