"""The benchmark: pickers run as programs on labelled sets, one table."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_layouts import write_cryoppp, write_released_coco
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from typer.testing import CliRunner

from cryopick.cli.main import build_app
from cryopick.errors import CryopickError, InputError, SettingsError
from cryopick.evaluation.benchmark_report import as_json, as_markdown, write_benchmark
from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow
from cryopick.evaluation.usage import run_measured
from cryopick.io.images.micrographs import write_micrograph
from cryopick.metrics.detection import Counts
from cryopick.types import Micrograph, Picks
from cryopick.workflows.benchmark import benchmark, open_sets
from cryopick.workflows.evaluate import evaluate


def write_set(folder: Path, *, seeds: tuple[int, ...], is_empty: bool = False) -> None:
    """Micrographs of discs with CSV labels, or of noise with empty labels."""
    folder.mkdir(parents=True)
    for seed in seeds:
        micrograph = disc_micrograph(f"m{seed}.mrc", seed=seed)
        if is_empty:
            noise = np.random.default_rng(seed).normal(size=micrograph.shape_yx).astype(np.float32)
            micrograph = Micrograph(noise, name=micrograph.name, pixel_size_angstrom=2.0)
        write_micrograph(folder / micrograph.name, micrograph)
        rows = [] if is_empty else [f"{x},{y},particle" for x, y in disc_centres(seed)]
        (folder / f"m{seed}.csv").write_text("\n".join(["x,y,kind", *rows]) + "\n")
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX, "pixel_size_angstrom": 2.0}))


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A folder of two sets: discs, and nothing but noise."""
    write_set(tmp_path / "sets" / "discs", seeds=(0, 1, 2))
    write_set(tmp_path / "sets" / "noise", seeds=(3,), is_empty=True)
    return tmp_path / "sets"


def test_a_folder_of_sets_stands_for_its_sets(sets: Path) -> None:
    both = open_sets([sets])
    assert [(one.name, len(one.images), one.particle_count) for one in both] == [("discs", 3, 9), ("noise", 1, 0)]
    assert both[0].diameter_px == (DIAMETER_PX, DIAMETER_PX)
    assert both[0].pixel_size_angstrom == 2.0
    assert [one.name for one in open_sets([sets / "discs", sets / "discs"])] == ["discs", "discs-2"]


def test_sets_are_chosen_by_empiar_number_and_labels_in_the_other_frame_are_turned(tmp_path: Path) -> None:
    folder = write_cryoppp(tmp_path / "cryoppp", {"10017": 1, "10081": 4, "10345": 1})
    (one,) = open_sets([folder], ids=["10081"])
    assert one.name == "10081"
    np.testing.assert_allclose(one.labels["m1.mrc"].xy_px, disc_centres(1), atol=0.01)
    for table in (folder / "10081").glob("ground_truth/*/*.csv"):  # as if y grew downwards
        table.write_text(table.read_text().replace("X-Coordinate,Y-Coordinate", "x,y"))
    with pytest.raises(InputError, match="flip_y auto"):
        open_sets([folder / "10081"])
    (turned,) = open_sets([folder], ids=["10081"], flip_y="auto")
    np.testing.assert_allclose(turned.labels["m1.mrc"].xy_px, disc_centres(1), atol=1.01)
    with pytest.raises(InputError, match="has no set 10028"):
        open_sets([folder], ids=["cryosegnet-test"])
    with pytest.raises(InputError, match="keep train and validation apart"):
        open_sets([write_released_coco(tmp_path / "released", {"train": 1, "val": 1})])


@pytest.mark.slow
def test_discs_are_found_and_tables_say_so(sets: Path, tmp_path: Path) -> None:
    result = benchmark(["blob", "template"], [sets], tmp_path / "bench")
    rows = {(row.picker, row.set_name): row for row in result.rows}
    discs = rows["blob", "discs"]
    assert discs.evaluation is not None
    assert discs.evaluation.main.counts.f1 == 1
    assert discs.peak_memory_bytes is not None
    assert 20e6 < discs.peak_memory_bytes < 4e9
    assert 0 < discs.seconds_per_micrograph < discs.wall_seconds
    assert discs.cpu_seconds > 0
    # Template matching needs references, and nobody gave any: a row that says so, not an end of the benchmark.
    assert rows["template", "discs"].evaluation is None
    assert "references" in rows["template", "discs"].error

    files = {path.name: path for path in write_benchmark(result, tmp_path / "bench")}
    assert set(files) == {
        "benchmark.md", "benchmark.csv", "benchmark.json", "benchmark.html", "scores.png", "curves-discs.png",
    }  # fmt: skip
    table = list(csv.DictReader(files["benchmark.csv"].read_text().splitlines()))
    assert [(row["set"], row["picker"], row["F1"]) for row in table][:2] == [
        ("discs", "blob", "1.000"),
        ("discs", "template", "failed"),
    ]
    assert "| discs" in as_markdown(result)
    assert json.loads(files["benchmark.json"].read_text()) == json.loads(json.dumps(as_json(result)))
    page = files["benchmark.html"].read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page  # nothing is loaded from elsewhere


def test_tables_call_only_all_of_it_one(sets: Path, tmp_path: Path) -> None:
    none = benchmark([], [sets / "discs"], tmp_path / "bench")
    centres = {f"m{seed}": Picks(disc_centres(seed), score=[3, 2, 1], micrograph_name=f"m{seed}") for seed in range(3)}
    found = evaluate(centres, sets / "discs")
    nearly = replace(found.main, counts=Counts(true_positive=9999, false_positive=1, false_negative=1))
    rows = tuple(BenchmarkRow("blob", "discs", replace(found, tolerances=(main,))) for main in (found.main, nearly))
    lines = as_markdown(Benchmark(rows, none.sets, none.tolerance, none.machine)).splitlines()
    perfect, almost = ([cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| discs"))
    assert [perfect[i] for i in (3, 5, 6)] == ["1.000"] * 3
    assert [almost[i] for i in (3, 5, 6)] == ["0.999"] * 3


def test_the_same_benchmark_again_repeats_no_run(sets: Path, tmp_path: Path) -> None:
    first = benchmark(["blob"], [sets / "discs"], tmp_path / "bench")
    again = benchmark(["blob"], [sets / "discs"], tmp_path / "bench")
    assert as_json(first)["rows"] == as_json(again)["rows"]
    assert again.rows[0].wall_seconds == first.rows[0].wall_seconds


def test_unknown_names_are_refused_before_anything_runs(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="known pickers"):
        benchmark(["blub"], [sets], tmp_path / "bench")
    with pytest.raises(SettingsError, match="no setting colour"):
        benchmark(["blob"], [sets], tmp_path / "bench", settings={"blob": {"colour": "red"}})
    with pytest.raises(InputError, match="no such file or folder"):
        benchmark(["blob"], [tmp_path / "nowhere"], tmp_path / "bench")
    (tmp_path / "bare").mkdir()
    with pytest.raises(CryopickError, match="bare"):
        benchmark(["blob"], [tmp_path / "bare"], tmp_path / "bench")


@pytest.mark.slow
def test_command_takes_several_sets_and_settings(sets: Path, tmp_path: Path) -> None:
    arguments = ["benchmark", "--pickers", "blob", "--data", str(sets / "discs"), str(sets / "noise")]
    arguments += ["-o", str(tmp_path / "bench"), "--set", "blob.profile=disc", "--json"]
    result = CliRunner().invoke(build_app("benchmark"), arguments, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["rows"]
    assert [row["set"] for row in rows] == ["discs", "noise"]
    assert rows[0]["settings"]["--profile"] == "disc"


def test_a_program_is_measured_with_its_own_memory_and_time() -> None:
    ballast = np.ones(50_000_000)  # 400 MB of this process, which must not count
    small = run_measured([sys.executable, "-c", "print('done')"])
    large = run_measured([sys.executable, "-c", "x = bytearray(200_000_000); sum(range(3_000_000))"])
    assert ballast[0] == 1
    assert (small.exit_code, small.last_line) == (0, "done")
    assert small.peak_memory_bytes is not None
    assert large.peak_memory_bytes is not None
    assert small.peak_memory_bytes < 50e6
    assert 200e6 < large.peak_memory_bytes < 260e6
    assert large.cpu_seconds > small.cpu_seconds
    assert run_measured([sys.executable, "-c", "raise SystemExit(3)"]).exit_code == 3
    missing = run_measured(["no-such-program-anywhere"])
    assert missing.exit_code == 127
    assert "no-such-program-anywhere" in missing.last_line
