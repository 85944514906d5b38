"""`cryopick relion`: what RELION sees of an External job, whatever becomes of it; and RELION itself running one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import NoneDoneError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import read_star
from cryopick.types import Micrograph
from cryopick.workflows import relion_job

JOB = "External/job012/"
LIST = "CtfFind/job003/micrographs_ctf.star"
BLOB = ("--picker", "blob", "--diameter", "40A", "--j", "1")
MARKERS = {"RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"}
PIPELINE = {
    "3.1": "\n# version 30001\n\ndata_pipeline_processes\n\nloop_ \n_rlnPipeLineProcessName #1 \n"
    "_rlnPipeLineProcessType #2 \nExternal/job012/ 99 \n \n",
    "4": "\n# version 30001\n\ndata_pipeline_processes\n\nloop_ \n_rlnPipeLineProcessName #1 \n"
    "_rlnPipeLineProcessTypeLabel #2 \nExternal/job012/ relion.external \n \n",
    "5": "\n# version 50001\n\ndata_pipeline_processes\n\nloop_ \n_rlnPipeLineProcessName #1 \n"
    "_rlnPipeLineProcessTypeLabel #2 \nExternal/job012/ relion.external \n \n",
}
HEADER = (
    "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
    "_rlnMicrographPixelSize #3\n_rlnVoltage #4\n"
    "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\ng1 1 2.0 300 2.7 0.1\n\n"
    "# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
)


def give_micrographs(project: Path, count: int) -> list[str]:
    """A project whose list of micrographs has grown to `count`."""
    names = [f"MotionCorr/job002/Movies/m{number}.mrc" for number in range(count)]
    (project / names[0]).parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        if not (project / name).exists():
            write_micrograph(project / name, disc_micrograph("m", seed=number))
    (project / LIST).parent.mkdir(parents=True, exist_ok=True)
    (project / LIST).write_text(HEADER + "".join(f"{name} 1\n" for name in names) + "\n")
    return names


@pytest.fixture
def project(tmp_path: Path) -> Path:
    give_micrographs(tmp_path, 2)
    (tmp_path / "default_pipeline.star").write_text(PIPELINE["5"])
    return tmp_path


def job_of(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return cryopick("relion", "--o", JOB, *words, cwd=project)


def markers(project: Path) -> set[str]:
    return {path.name for path in (project / JOB).iterdir()} & MARKERS


def node_of(project: Path) -> dict[str, str]:
    (table,) = read_star(project / JOB / "RELION_OUTPUT_NODES.star").values()
    assert table.name == "output_nodes"
    return {label: values[0] for label, values in table.columns.items()}


@pytest.mark.parametrize(
    ("version", "node"),
    [
        ("3.1", {"rlnPipeLineNodeName": f"{JOB}picks/coords_suffix_picks.star", "rlnPipeLineNodeType": "2"}),
        (
            "4",
            {
                "rlnPipeLineNodeName": f"{JOB}autopick.star",
                "rlnPipeLineNodeTypeLabel": "MicrographsCoords.star.relion.autopick",
            },
        ),
        (
            "5",
            {
                "rlnPipeLineNodeName": f"{JOB}autopick.star",
                "rlnPipeLineNodeTypeLabel": "MicrographCoordsGroup.star.relion.autopick",
            },
        ),
    ],
)
def test_each_version_of_relion_is_told_of_the_coordinates_in_its_words(
    project: Path, version: str, node: dict[str, str]
) -> None:
    (project / "default_pipeline.star").write_text(PIPELINE[version])
    done = job_of(project, "--in_mics", LIST, *BLOB, "--pipeline_control", JOB)
    assert done.returncode == 0, done.stderr
    assert markers(project) == {"RELION_JOB_EXIT_SUCCESS"}
    assert node_of(project) == node
    assert (project / node["rlnPipeLineNodeName"]).is_file()
    listed = read_star(project / JOB / "autopick.star")["coordinate_files"]
    assert listed.text("rlnMicrographName") == give_micrographs(project, 2)
    for path in listed.text("rlnMicrographCoordinates"):
        assert (project / path).is_file()  # seen from the project folder
    kind = read_star(project / ".gui_manualpickjob.star")["job"]
    assert ("rlnJobType" if version == "3.1" else "rlnJobTypeLabel") in kind


@pytest.mark.parametrize("size", [2.0, 1.0])
def test_diameter_and_boxes_are_a_table(project: Path, size: float) -> None:
    words = ("--diameter", f"{20 * size:g}A", "--pixel_size", f"{size:g}", "--threshold", "0")
    job_of(project, "--in_mics", LIST, *BLOB[:2], *words)
    summary = json.loads((project / JOB / "summary.json").read_text())
    (table,) = read_star(project / JOB / "particle_sizes.star").values()
    assert {label: float(values[0]) for label, values in table.columns.items()} == {
        "rlnMicrographPixelSize": size,
        "rlnParticleDiameter": 20 * size,
        "rlnOriginalImageSize": summary["box_px"],
        "rlnImageSize": summary["binned_box_px"] or summary["box_px"],
        "rlnImagePixelSize": pytest.approx(summary["binned_pixel_size_angstrom"] or size),
    }


def test_settings_for_showing_picks_are_written_once_and_stay_the_users(project: Path) -> None:
    job_of(project, "--in_mics", LIST, *BLOB)
    path = project / ".gui_manualpickjob.star"
    options = read_star(path)["joboptions_values"]
    values = dict(zip(options.text("rlnJobOptionVariable"), options.text("rlnJobOptionValue"), strict=True))
    assert (values["diameter"], values["angpix"]) == ("40", "2")
    path.write_text("data_\n\n_mine 1\n")
    job_of(project, "--in_mics", LIST, *BLOB)
    assert path.read_text() == "data_\n\n_mine 1\n"


def test_labels_are_settings_with_underscore_or_hyphen_and_without_value_they_switch_on(project: Path) -> None:
    words = ("--min_distance", "30A", "--drop_bad", "--edge-margin", "12A", "--threshold", "-0.5")
    done = job_of(project, "--in_mics", LIST, *BLOB, *words)
    assert done.returncode == 0, done.stderr
    config = (project / JOB / "config.toml").read_text()
    for line in ('min_distance = "30A"', "drop_bad = true", 'edge_margin = "12A"', "threshold = -0.5"):
        assert line in config


def test_how_to_pick_is_given_by_labels_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def pick(inputs: list[Path], folder: Path, settings: object, **how: object) -> None:
        given.update(how)
        raise NoneDoneError("not picked")

    monkeypatch.setattr(relion_job, "pick_to_folder", pick)
    job_of(project, "--in_mics", LIST, *BLOB, "--devices", "cuda:0,cuda:1", "--time_limit", "60", "--overwrite")
    wanted = {"workers": 1, "devices": "cuda:0,cuda:1", "time_limit_seconds": 60.0, "overwrite": True, "cluster": None}
    assert {name: given[name] for name in wanted} == wanted
    job_of(project, "--in_mics", LIST, *BLOB, "--cluster", "slurm", "--jobs", "4", "--cluster_config", "gpu.toml")
    wanted = {"workers": None, "cluster": "slurm", "jobs": 4, "cluster_config": Path("gpu.toml")}
    assert {name: given[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("--in_mics", LIST, *BLOB, "--diametre", "40A"), "--diametre: no setting of that name; picker 'blob'", 4),
        (("--in_mics", LIST, "--picker", "blob", "--diameter", "40", "A"), "--diameter: expected one value, got", 4),
        (("--in_mics", LIST, *BLOB, "--max_count", "many"), "--max-count", 4),
        (("--in_mics", LIST, *BLOB, "--max_count", "3", "--max_count", "4"), "--max_count: given twice", 4),
        (("--in_mics", LIST, "stray", *BLOB), "stray: expected --label value", 4),
        (("--in_mics", "nowhere.star", *BLOB), "--in_mics nowhere.star: no such file", 5),
        (("--in_mics", "MotionCorr/", *BLOB), "expected RELION's list of micrographs", 5),
        (("--in_mics", "default_pipeline.star", *BLOB), "no table with rlnMicrographName", 5),
        (BLOB, "expected RELION's list of micrographs", 5),
        (("--in_movies", "movies.star"), "--in_movies movies.star: picks are made from micrographs", 5),
        (("--in_parts", "particles.star"), "Input micrographs", 5),
        (("--in_coords", "coords.star"), "Input micrographs", 5),
        (("--in_3dref", "map.mrc"), "Input micrographs", 5),
        (("--in_mask", "mask.mrc"), "Input micrographs", 5),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_failure_for_relion_and_a_sentence_for_people(
    project: Path, words: tuple[str, ...], told: str, code: int
) -> None:
    (project / JOB).mkdir(parents=True)
    (project / JOB / "RELION_JOB_EXIT_SUCCESS").touch()
    done = job_of(project, *words)
    assert told in done.stderr
    assert done.returncode == code
    assert markers(project) == {"RELION_JOB_EXIT_FAILURE"}


def test_in_version_3_1_bad_micrographs_cannot_be_left_out_and_that_is_said(project: Path) -> None:
    (project / "default_pipeline.star").write_text(PIPELINE["3.1"])
    done = job_of(project, "--in_mics", LIST, *BLOB, "--drop_bad")
    assert done.returncode == 4
    assert "RELION 3.1 finds coordinate files by their names" in done.stderr


def test_without_a_pipeline_file_the_newest_version_is_assumed_and_that_is_said(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "default_pipeline.star").unlink()
    job_of(project, "--in_mics", LIST, *BLOB)
    assert "no default_pipeline.star" in caplog.text
    assert node_of(project)["rlnPipeLineNodeTypeLabel"] == "MicrographCoordsGroup.star.relion.autopick"


def test_micrographs_without_a_particle_are_a_success_with_empty_tables(project: Path) -> None:
    for path in (project / "MotionCorr/job002/Movies").iterdir():
        write_micrograph(path, Micrograph(np.ones((120, 160), np.float32), pixel_size_angstrom=2.0))
    done = job_of(project, "--in_mics", LIST, *BLOB)
    assert done.returncode == 0, done.stderr
    assert markers(project) == {"RELION_JOB_EXIT_SUCCESS"}
    assert len(read_star(project / JOB / "autopick.star")["coordinate_files"].text("rlnMicrographName")) == 2


def test_a_job_that_relion_asks_to_end_ends_and_goes_on_when_it_is_continued(project: Path) -> None:
    for number in range(2, 200):
        os.link(project / "MotionCorr/job002/Movies/m0.mrc", project / f"MotionCorr/job002/Movies/m{number}.mrc")
    names = give_micrographs(project, 200)
    words = [sys.executable, "-P", "-m", "cryopick.cli.main", "relion", "--o", JOB, "--in_mics", LIST, *BLOB]
    process = subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and sum(1 for _ in (project / JOB).glob("records/Movies/*.json")) < 3:
        time.sleep(0.01)
    (project / JOB / "RELION_JOB_ABORT_NOW").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "RELION asks this job to end (RELION_JOB_ABORT_NOW)" in said
    assert "the same command resumes" in said
    assert markers(project) == {"RELION_JOB_EXIT_ABORTED"}
    assert not (project / JOB / "RELION_JOB_ABORT_NOW").exists()
    done = job_of(project, "--in_mics", LIST, *BLOB)
    assert done.returncode == 0
    assert markers(project) == {"RELION_JOB_EXIT_SUCCESS"}
    assert len(read_star(project / JOB / "autopick.star")["coordinate_files"].text("rlnMicrographName")) == len(names)


def test_what_was_picked_stays_byte_for_byte_when_the_list_grows(project: Path) -> None:
    """Later jobs of a Scheme do not read a finished file again."""
    give_micrographs(project, 1)
    files: dict[Path, bytes] = {}
    for count in (1, 2, 4):
        give_micrographs(project, count)
        assert job_of(project, "--in_mics", LIST, *BLOB, "--threshold", "1").returncode == 0
        for path, content in files.items():
            assert path.read_bytes() == content
        files = {path: path.read_bytes() for path in (project / JOB / "picks" / "Movies").glob("*.star")}
        assert len(files) == count


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_pipeliner") is None, reason="RELION's programs are not installed")
def test_relion_runs_and_continues_the_job_on_a_list_that_grew_twice_and_extracts(tmp_path: Path) -> None:
    def pipeliner(*words: str) -> None:
        done = subprocess.run(
            ["relion_pipeliner", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(job: str, name: str) -> None:
        pipeliner("--RunJobs", job, "--schedule", name, "--sec_wait_after", "1")
        assert (tmp_path / job / "RELION_JOB_EXIT_SUCCESS").exists(), (tmp_path / job / "run.err").read_text()

    (tmp_path / "default_pipeline.star").write_text(
        "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       1\n \n"
    )
    program = tmp_path / "cryopick"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m cryopick.cli.main "$@"\n')
    program.chmod(0o755)
    labels = {"picker": "blob", "diameter": f"{2 * DIAMETER_PX}A", "threshold": "4.5", "edge_margin": "40A"}
    params = ";".join(
        f"param{number}_label == {label};param{number}_value == {value}"
        for number, (label, value) in enumerate(labels.items(), start=1)
    )
    options = f"fn_exe == {program} relion;in_mic == {LIST};nr_threads == 1;{params}"
    names: list[str] = []
    for count in (1, 2, 4):
        names = give_micrographs(tmp_path, count)
        if count == 1:
            pipeliner("--addJob", "External", "--addJobOptions", options)
        run("External/job001/", f"picking{count}")
        if count == 1:
            node = "External/job001/picks/coords_suffix_picks.star"
            assert node in read_star(tmp_path / "default_pipeline.star")["pipeline_nodes"].text("rlnPipeLineNodeName")
            extraction = (
                f"star_mics == {LIST};coords_suffix == {node};extract_size == 32;bg_diameter == 28;do_invert == No"
            )
            pipeliner("--addJob", "Extract", "--addJobOptions", f"{extraction};nr_mpi == 1;do_norm == No")
        if count != 2:
            run("Extract/job002/", f"extraction{count}")  # with --only_do_unfinished
    particles = read_star(tmp_path / "Extract/job002/particles.star")["particles"]
    micrographs = particles.text("rlnMicrographName")
    assert set(micrographs) == set(names)
    xy = np.stack([particles.floats("rlnCoordinateX"), particles.floats("rlnCoordinateY")], axis=1)
    half = 16
    for name, place, (x, y) in zip(micrographs, particles.text("rlnImageName"), xy, strict=True):
        slice_number, stack = place.split("@")
        box = mrcfile.read(tmp_path / stack).reshape(-1, 32, 32)[int(slice_number) - 1]
        row, column = int(y) - half, int(x) - half  # RELION cuts coordinates to whole pixels
        image = mrcfile.read(tmp_path / name)
        np.testing.assert_array_equal(box, image[row : row + 32, column : column + 32])
        assert box[10:22, 10:22].mean() < image.mean() - image.std()  # a dark disc is in the middle
    picked = sum(
        len(next(iter(read_star(path).values())).floats("rlnCoordinateX"))
        for path in (tmp_path / "External/job001/picks/Movies").glob("*.star")
    )
    assert len(xy) == picked > 8
    pipeliner("--addJobFromStar", ".gui_manualpickjob.star", "--addJobOptions", f"fn_in == {LIST}")  # RELION reads it
    (manual,) = (tmp_path / "ManualPick").glob("job*/job.star")
    options_read = read_star(manual)["joboptions_values"]
    values = dict(zip(options_read.text("rlnJobOptionVariable"), options_read.text("rlnJobOptionValue"), strict=True))
    assert float(values["diameter"]) == 2 * DIAMETER_PX


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_scheduler") is None, reason="RELION's programs are not installed")
def test_a_schedule_of_relion_reads_the_box_that_the_job_suggests(project: Path) -> None:
    def scheduler(*words: str) -> None:
        called = ["relion_scheduler", "--schedule", "s1", *words]
        done = subprocess.run(called, cwd=project, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    assert job_of(project, "--in_mics", LIST, *BLOB).returncode == 0
    box = json.loads((project / JOB / "summary.json").read_text())["box_px"]
    (project / "default_pipeline.star").write_text(
        "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       1\n \n"
    )
    table = f"{JOB}particle_sizes.star,sizes,rlnOriginalImageSize"
    for name, value in (("sizes", table), ("zero", "0"), ("box", "1")):
        scheduler("--add", "variable", "--name", name, "--value", value)
    scheduler("--add", "operator", "--type", "float=read_star", "--i", "sizes", "--i2", "zero", "--o", "box")
    scheduler("--add", "operator", "--type", "exit")
    scheduler("--add", "edge", "--i", "box=STAR_sizes_zero", "--o", "EXIT")
    scheduler("--set_current_node", "box=STAR_sizes_zero")
    scheduler("--run", "--run_pipeline", "default")
    variables = read_star(project / "Schedules" / "s1" / "schedule.star")["schedule_floats"]
    values = zip(
        variables.text("rlnScheduleFloatVariableName"), variables.floats("rlnScheduleFloatVariableValue"), strict=True
    )
    assert dict(values)["box"] == box
