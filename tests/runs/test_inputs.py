"""A run says what it left out of the input, and one micrograph that cannot be used costs no other."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import InputError, SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.inputs import sources
from cryopick.runs.results import RunSummary
from cryopick.runs.settings import make_settings
from cryopick.workflows.pick import pick, pick_to_folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mics").mkdir()
    for seed, name in enumerate(("m1", "m2")):
        write_micrograph(Path("mics") / f"{name}.mrc", disc_micrograph(name, seed=seed))
    return tmp_path


def _run(*inputs: str, output: str = "run", **settings: Any) -> RunSummary:
    chosen = make_settings("blob", **({"diameter": f"{DIAMETER_PX}px"} | settings))
    return pick_to_folder(list(inputs), Path(output), chosen, workers=1)


# ------------------------------------------------------------------------------------------ output beside the input


@pytest.mark.parametrize("output", [".", "mics", "..", "run1"])
@pytest.mark.parametrize("given", ["mics", "mics/*.mrc", "mics/**/*.mrc", "**/*.mrc", "@list.txt"])
def test_the_output_may_lie_anywhere_and_never_becomes_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, output: str
) -> None:
    (tmp_path / "project" / "mics").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    write_micrograph(Path("mics/m1.mrc"), disc_micrograph("m1"))
    Path("list.txt").write_text("mics/*.mrc\n")
    for _ in range(2):
        summary = _run(given, output=output)
        assert (summary.micrographs, summary.failed) == (1, {})


def test_a_second_run_of_the_same_folder_leaves_the_pictures_of_the_first_out(project: Path) -> None:
    for output in ("run1", "run2", "run1"):
        assert _run(".", output=output).micrographs == 2
    assert "images that cryopick itself wrote into run1/images" in Path("run2/run.log").read_text()


def test_what_is_left_out_reaches_the_log_of_the_run(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_micrograph(Path("mics/m1_EVN.mrc"), disc_micrograph("even"))
    os.symlink("/gone/m3.mrc", "mics/m3.mrc")
    summary = _run("mics")
    assert "half sum (m1_EVN.mrc)" in caplog.text
    assert "half sum (m1_EVN.mrc)" in Path("run/run.log").read_text()
    assert "leads nowhere (-> /gone/m3.mrc)" in summary.failed["m3.mrc"]
    assert summary.micrographs == 3


@pytest.mark.parametrize("are_logged", [True, False])
def test_warnings_reach_the_terminal_where_nothing_else_listens_unless_another_shows_them(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, are_logged: bool
) -> None:
    assert logging.lastResort is not None
    monkeypatch.setattr(logging.getLogger(sources.__name__), "propagate", False)  # pytest listens above
    write_micrograph(Path("mics/m1_EVN.mrc"), disc_micrograph("even"))
    with sources.search_warnings(are_logged=are_logged) as told:
        sources.find_micrographs(["mics"])
    assert "half sum (m1_EVN.mrc)" in "".join(told)
    assert ("half sum (m1_EVN.mrc)" in capfd.readouterr().err) is are_logged


def test_a_tilde_in_the_output_is_the_home_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project / "home"))
    _run("mics", output="~/run")
    assert (project / "home" / "run" / "summary.json").is_file()
    assert not Path("~").exists()
    with pytest.raises(SettingsError, match="output is empty"):
        pick("mics", "blob", output="")


# ------------------------------------------------------------------------------------------------------ pixel sizes


UNLISTABLE = "a 'b\" c"
"""No STAR file can hold it: blanks, and both kinds of quotes."""


def test_a_folder_that_no_table_can_name_costs_its_micrographs_alone_and_aloud(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(UNLISTABLE)
    write_micrograph(Path(UNLISTABLE, "m3.mrc"), disc_micrograph("m3"))
    with pytest.raises(InputError, match="1 micrographs left out, whose paths no STAR file can hold"):
        _run(UNLISTABLE)
    assert not Path("run").exists()
    assert _run("mics", UNLISTABLE).micrographs == 2
    assert "1 micrographs left out, whose paths no STAR file can hold" in caplog.text
    assert repr(f"{UNLISTABLE}/m3.mrc") in caplog.text
    os.chdir(UNLISTABLE)
    assert _run("m3.mrc").micrographs == 1, "where it is called by a name without them"


def test_an_output_folder_that_no_table_can_name_is_refused_before_any_work(project: Path) -> None:
    with pytest.raises(SettingsError, match="no STAR file can hold this path"):
        _run("mics", output=f"{UNLISTABLE}/run")
    assert not Path(UNLISTABLE).exists()


@pytest.mark.parametrize("unsized", ["m0", "m9"])
@pytest.mark.parametrize("setting", [{"diameter": "40A"}, {"min_distance": "30A"}])
def test_one_micrograph_without_a_pixel_size_fails_alone(project: Path, unsized: str, setting: dict[str, str]) -> None:
    one = replace(disc_micrograph("m", seed=5), pixel_size_angstrom=None)
    write_micrograph(Path("mics") / f"{unsized}.mrc", one)
    summary = _run("mics", **setting)
    assert list(summary.failed) == [f"{unsized}.mrc"]
    assert "pixel size of the micrograph is unknown" in summary.failed[f"{unsized}.mrc"]
    assert summary.micrographs == 3
    assert summary.particles > 0


def test_when_no_micrograph_has_a_pixel_size_it_is_one_sentence_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "mics").mkdir()
    for seed in range(3):
        one = replace(disc_micrograph("m", seed=seed), pixel_size_angstrom=None)
        write_micrograph(tmp_path / "mics" / f"m{seed}.mrc", one)
    with pytest.raises(SettingsError, match="--pixel-size"):
        _run(str(tmp_path / "mics"), output=str(tmp_path / "run"), diameter="40A")
    assert not list(tmp_path.glob("run/records/*"))


# ------------------------------------------------------------------------------------------------------------ masks


def _mask(path: str, *, shape: tuple[int, int] = (12, 16), whole: bool = False) -> None:
    import cv2

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(shape, np.uint8)
    pixels[:, : shape[1] if whole else shape[1] // 2] = 255
    assert cv2.imwrite(path, pixels)


def _excluded(name: str) -> int:
    return Path(f"run/candidates/{name}.csv").read_text().count("in exclusion mask")


@pytest.mark.parametrize(
    "file", ["m1.png", "m1_mask.png", "m1.mask.tif", "m1_segmentation.png", "M1.png", "deep/m1_DW_mask.png", "m1.jpg"]
)
def test_a_mask_is_matched_as_coordinates_are(project: Path, file: str) -> None:
    shape = (64, 80) if file.endswith("jpg") else (12, 16)
    _mask(f"masks/{file}", shape=shape)
    summary = _run("mics", exclusion_masks="masks")
    assert _excluded("m1") > 0
    assert _excluded("m2") == 0
    assert summary.warnings["no exclusion mask belongs to it, so nothing is excluded"] == 1


def test_masks_that_belong_to_no_micrograph_stop_the_run_before_any_work(project: Path) -> None:
    _mask("masks/other.png")
    with pytest.raises(InputError, match=r"none of the 1 images in masks \(other\.png\) .*names such as m1\.png"):
        _run("mics", exclusion_masks="masks")
    assert not list(Path("run/records").glob("*"))
    Path("empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        _run("mics", output="run2", exclusion_masks="empty")


def test_a_mask_that_is_left_over_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    _mask("masks/m1.png")
    _mask("masks/m7_mask.png")
    _run("mics", exclusion_masks="masks")
    assert "1 images in masks belong to no micrograph" in caplog.text
    assert "m7_mask.png" in Path("run/run.log").read_text()


def test_a_mask_serves_one_micrograph_and_none_of_a_similar_name(project: Path) -> None:
    write_micrograph(Path("mics/m1_ali.mrc"), disc_micrograph("m1", seed=0))
    _mask("masks/m1.png")
    _run("mics", exclusion_masks="masks")
    assert _excluded("m1") > 0
    assert _excluded("m1_ali") == 0


def test_a_mask_of_another_shape_and_one_over_everything_are_doubted(project: Path) -> None:
    _mask("masks/m1.png", shape=(16, 12))
    _mask("masks/m2.png", whole=True)
    told = " ".join(_run("mics", exclusion_masks="masks").warnings)
    assert "the exclusion mask is 12 x 16 px" in told
    assert "covers the whole micrograph" in told
    assert json.loads(Path("run/summary.json").read_text())["particles"] < 6


def test_one_image_in_memory_finds_its_mask_by_name(project: Path) -> None:
    _mask("masks/m1_mask.png")
    picks = pick("mics/m1.mrc", "blob", diameter=f"{DIAMETER_PX}px", exclusion_masks="masks")
    assert (picks.reason == "in exclusion mask").any()
