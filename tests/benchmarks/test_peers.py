"""The benchmark script that runs other programs reads their picks in the right place."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.io.images.micrographs import write_micrograph
from cryopick.workflows.benchmark import open_sets

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_autopick") is None, reason="needs RELION's relion_autopick")
def test_relion_log_finds_the_discs_and_names_with_dots_stay_apart(tmp_path: Path) -> None:
    folder, project = tmp_path / "discs", tmp_path / "project"
    folder.mkdir()
    for seed in (0, 1):
        write_micrograph(folder / f"may.08_{seed}.0.mrc", disc_micrograph("m", seed=seed))
        rows = "".join(f"{x},{y}\n" for x, y in disc_centres(seed))
        (folder / f"may.08_{seed}.0.csv").write_text("x,y\n" + rows)
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    peers = runpy.run_path(str(SCRIPT))
    (data,) = open_sets([folder])
    shapes_yx = peers["convert_to_mrc"](data, project)
    row = peers["run_relion"](
        shutil.which("relion_autopick"), data, project, shapes_yx=shapes_yx, limits=(0.8, 1.2), seed=0
    )
    assert row.error == ""
    counts = row.evaluation.main.counts
    assert counts.true_positive == 6
    assert row.evaluation.main.centring.median_px < 2
    assert row.cpu_seconds > 0
