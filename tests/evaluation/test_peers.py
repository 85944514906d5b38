"""Other programs: their picks are read in the right place, and one that fails says why."""

import json
import shutil
import stat
import sys
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.errors import InputError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.peers import PeerRun, convert_to_mrc, run_cryolo, run_relion_log, run_topaz
from cryopick.io.images.micrographs import write_micrograph
from cryopick.workflows.benchmark import open_sets
from cryopick.workflows.evaluate import evaluate


@pytest.fixture
def discs(tmp_path: Path) -> BenchmarkSet:
    folder = tmp_path / "discs"
    folder.mkdir()
    for seed in (0, 1):
        write_micrograph(folder / f"may.08_{seed}.0.mrc", disc_micrograph("m", seed=seed))
        rows = "".join(f"{x},{y}\n" for x, y in disc_centres(seed))
        (folder / f"may.08_{seed}.0.csv").write_text("x,y\n" + rows)
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX}))
    return open_sets([folder])[0]


def require_all_found(run: PeerRun, data: BenchmarkSet) -> None:
    scores = evaluate(run.picks, data.labels, tolerance=0.25).main
    assert scores.counts.true_positive == sum(len(labels) for labels in data.labels.values())
    assert scores.centring.median_px < 2


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_autopick") is None, reason="needs RELION's relion_autopick")
def test_relion_log_finds_the_discs_and_names_with_dots_stay_apart(discs: BenchmarkSet, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shapes_yx = convert_to_mrc(discs, project)
    program = shutil.which("relion_autopick")
    assert program is not None
    run = run_relion_log(program, discs, project, shapes_yx=shapes_yx, limits=(0.8, 1.2))
    require_all_found(run, discs)
    assert run.usages[0].cpu_seconds > 0


def program_that_writes(path: Path, lines: str) -> str:
    """A stand-in for a program that is not installed here: it writes the files that the real one documents."""
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_topaz_is_given_its_working_scale_and_its_table_is_read(discs: BenchmarkSet, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shapes_yx = convert_to_mrc(discs, project)
    found = "".join(f"may.08_{seed}.0\\t{x:.0f}\\t{y:.0f}\\t1.5\\n" for seed in (0, 1) for x, y in disc_centres(seed))
    program = program_that_writes(
        tmp_path / "topaz",
        "Path('called.txt').open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"Path('topaz.txt').write_text('image_name\\tx_coord\\ty_coord\\tscore\\n{found}')",
    )
    run = run_topaz(program, discs, project, shapes_yx=shapes_yx)
    require_all_found(run, discs)
    preprocess, extract = (project / "called.txt").read_text().splitlines()
    assert preprocess.startswith(f"preprocess -s {run.options['-s']}")
    assert extract.startswith("extract -m resnet16")
    assert f"-x {run.options['-s']}" in extract


def test_cryolo_is_given_its_model_and_its_boxes_are_read(discs: BenchmarkSet, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shapes_yx = convert_to_mrc(discs, project)
    boxes = {  # the lower left corner of each box, and its size
        seed: [(float(x) - DIAMETER_PX / 2, float(y) - DIAMETER_PX / 2) for x, y in disc_centres(seed)]
        for seed in (0, 1)
    }
    lines = [
        "folder = Path('cryolo/CBOX')",
        "folder.mkdir(parents=True)",
        "labels = ['CoordinateX', 'CoordinateY', 'CoordinateZ', 'Width', 'Height', 'Depth', 'EstWidth', 'EstHeight',"
        " 'Confidence', 'NumBoxes', 'Angle']",
        f"for seed, corners in {boxes!r}.items():",
        "    table = 'data_global\\n\\n_cbox_format_version 1.0\\n\\ndata_cryolo\\n\\nloop_\\n'",
        "    table += ''.join(f'_{label} #{n}\\n' for n, label in enumerate(labels, 1))",
        f"    size = {DIAMETER_PX}",
        "    table += ''.join(f'{x} {y} 0 {size} {size} 1 {size} {size} 0.9 1 0\\n' for x, y in corners)",
        "    (folder / f'may.08_{seed}.0.cbox').write_text(table + '\\n')",
    ]
    program = program_that_writes(tmp_path / "cryolo_predict.py", "\n".join(lines))
    model = tmp_path / "gmodel.h5"
    model.write_bytes(b"")
    run = run_cryolo(program, discs, project, shapes_yx=shapes_yx, model=model)
    require_all_found(run, discs)
    assert run.options["-w"] == str(model)


def test_a_program_that_fails_says_its_last_line(discs: BenchmarkSet, tmp_path: Path) -> None:
    shapes_yx = convert_to_mrc(discs, tmp_path / "project")
    program = program_that_writes(tmp_path / "topaz", "sys.exit('no such model')")
    with pytest.raises(InputError, match="topaz: no such model"):
        run_topaz(program, discs, tmp_path / "project", shapes_yx=shapes_yx)
