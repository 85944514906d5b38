"""Sizes in pixels hold for one pixel size: runs of several magnifications, and diameters that cannot be meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import disc_centres, disc_micrograph

import cryopick
from cryopick.data.labels import Labels
from cryopick.errors import SettingsError
from cryopick.evaluation.report import as_table
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.registry import list_pickers, make_picker
from cryopick.runs.results import RunSummary
from cryopick.runs.settings import make_settings
from cryopick.types import Micrograph
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder

METHODS = ("pick", "survey")
"""Which look at pixels; references tell `template` all it needs."""


def write_disc_micrographs(folder: Path, pixel_sizes: list[float | None]) -> None:
    """Discs of 20 px, whatever the pixel size."""
    folder.mkdir()
    for number, size in enumerate(pixel_sizes, start=1):
        name = f"m{number}.mrc"
        write_micrograph(folder / name, replace(disc_micrograph(name, seed=number), pixel_size_angstrom=size))


def run_on(folder: Path, pixel_sizes: list[float | None], **settings: object) -> RunSummary:
    write_disc_micrographs(folder / "in", pixel_sizes)
    return pick_to_folder([folder / "in"], folder / "run", make_settings("blob", **settings), workers=1)


def test_two_magnifications_in_one_run_get_a_box_each_and_a_warning_that_names_both(tmp_path: Path) -> None:
    summary = run_on(tmp_path, [2.0, 1.0, 2.0], diameter="20A", threshold=1)
    sizes = [(one.pixel_size_angstrom, one.micrographs, one.diameter_px, one.box_px) for one in summary.sizes]
    assert sizes == [(1.0, 1, 20.0, 30), (2.0, 2, 10.0, 16)]  # 1.5 diameters, even and fast: 30 and 16
    (warning,) = [text for text in summary.warnings if "pixel sizes" in text]
    for word in ("1 Å per pixel (m2.mrc, box 30 px)", "2 Å per pixel (2 micrographs such as m1.mrc, box 16 px)"):
        assert word in warning
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    # the fields of version 0.1 are one consistent set, that of most micrographs, and no mean of two
    assert (written["pixel_size_angstrom"], written["diameter_px"], written["box_px"]) == (2.0, 10.0, 16)
    assert [one["box_px"] for one in written["sizes"]] == [30, 16]
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "suggested box at 1 Å per pixel" in report
    assert "suggested box at 2 Å per pixel" in report


def test_pixel_sizes_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    summary = run_on(tmp_path, [1.06, 1.0601, 1.0603], diameter="20px")
    assert [one.micrographs for one in summary.sizes] == [3]
    assert summary.pixel_size_angstrom == pytest.approx(1.0601, abs=1e-5)
    assert summary.warnings == {}


def test_a_diameter_in_pixels_is_doubted_where_pixels_differ(tmp_path: Path) -> None:
    summary = run_on(tmp_path, [1.0, 2.0], diameter="20px")
    assert any("better give it in Å" in text for text in summary.warnings)


@pytest.mark.parametrize("bad", [0, 2])
def test_a_micrograph_without_pixel_size_fails_alone_wherever_it_stands(tmp_path: Path, bad: int) -> None:
    sizes: list[float | None] = [2.0, 2.0, 2.0]
    sizes[bad] = None
    summary = run_on(tmp_path, sizes, diameter="40A")
    assert list(summary.failed) == [f"m{bad + 1}.mrc"]
    assert "--pixel-size" in summary.failed[f"m{bad + 1}.mrc"]
    assert summary.particles > 0


def test_micrographs_without_pixel_size_are_told_apart_where_pixels_do(tmp_path: Path) -> None:
    summary = run_on(tmp_path, [2.0, None, 2.0], diameter="20px")
    assert [(one.pixel_size_angstrom, one.micrographs) for one in summary.sizes] == [(2.0, 2), (None, 1)]
    assert any("unknown pixel size (m2.mrc" in text and "--pixel-size" in text for text in summary.warnings)


def test_a_diameter_that_is_impossible_everywhere_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^m1\.mrc: diameter 0\.2nm is 1 px at 2 Å per pixel, expected 4 px"):
        run_on(tmp_path, [2.0, 2.0], diameter="0.2nm")
    with pytest.raises(SettingsError, match=r"^m1\.mrc: diameter 9um is 45000 px .* wider than the micrograph"):
        pick_to_folder([tmp_path / "in"], tmp_path / "wide", make_settings("blob", diameter="9um"), workers=1)


def test_a_diameter_of_half_the_micrograph_is_picked_with_a_warning(tmp_path: Path) -> None:
    height, width = disc_micrograph("m.mrc", seed=0).shape_yx
    summary = run_on(tmp_path, [2.0], diameter=f"{0.6 * min(height, width):g}px")
    assert any("of the shorter side of the micrograph" in text for text in summary.warnings)


@pytest.mark.parametrize(
    ("name", "method"),
    [("template", "pick"), *((name, method) for name in list_pickers() if name != "template" for method in METHODS)],
)
def test_every_picker_refuses_a_diameter_of_two_pixels_before_it_computes_anything(name: str, method: str) -> None:
    picker = make_picker(name, diameter=cryopick.parse_length("2px"))
    image = Micrograph(np.random.default_rng(0).normal(size=(3000, 3000)), name="m.mrc")
    with pytest.raises(SettingsError, match=r"m\.mrc: diameter 2px is 2 px, expected"):
        getattr(picker, method)(image if method == "pick" else [image])


def test_a_working_diameter_of_one_pixel_is_refused_too() -> None:
    with pytest.raises(SettingsError, match="working diameter 1px"):
        cryopick.pick(np.zeros((600, 600)), "general", diameter="40px", working_diameter="1px")


def test_numpys_numbers_are_taken_wherever_pythons_are(tmp_path: Path) -> None:
    micrograph = disc_micrograph("m.mrc", seed=0)
    given = {"pixel_size_angstrom": np.array(2.0, np.float32), "diameter": np.float32(40), "max_count": np.int64(2)}
    picks = cryopick.pick(micrograph.pixels, "blob", **given)
    assert int(picks.is_kept.sum()) == 2
    assert type(picks.pixel_size_angstrom) is float
    write_micrograph(tmp_path / "m.mrc", micrograph)
    cryopick.pick(tmp_path / "m.mrc", "blob", output=tmp_path / "run", **given)
    assert cryopick.rethreshold(tmp_path / "run", np.float32(100)).particles == 0
    labels = {"m": Labels(disc_centres(0), np.zeros(3, dtype=bool), None, "m")}
    scores = evaluate([picks], {"micrograph": labels["m"]}, diameter=np.float32(40), pixel_size_angstrom=np.float32(2))
    assert scores.diameter_px == 20


@pytest.mark.parametrize("size", [True, float("nan"), np.inf, 0.0, -1.0, "1.5"])
def test_what_is_no_pixel_size_is_refused_by_a_micrograph(size: object) -> None:
    with pytest.raises(ValueError, match="m: pixel size"):
        Micrograph(np.zeros((4, 4)), name="m", pixel_size_angstrom=size)  # type: ignore[arg-type]


def test_picks_and_micrographs_print_in_one_line() -> None:
    micrograph = disc_micrograph("m.mrc", seed=0)
    picks = cryopick.pick(micrograph, "blob", diameter="20px")
    kept = int(picks.is_kept.sum())
    assert repr(picks).startswith(f"<Picks on 'm.mrc': {len(picks)} candidates, {kept} kept, score ")
    assert repr(micrograph).startswith("<Micrograph 'm.mrc': ")
    for shown in (picks, micrograph, picks.take(np.zeros(len(picks), bool)), replace(picks, score=np.nan)):
        assert len(repr(shown).splitlines()) == 1
        assert len(repr(shown)) < 120


def test_an_evaluation_of_two_magnifications_gives_no_mean_length(tmp_path: Path) -> None:
    run_on(tmp_path, [1.0, 2.0], diameter="20A")
    labels = {f"m{n}": Labels(disc_centres(n), np.zeros(3, dtype=bool), None, f"m{n}") for n in (1, 2)}
    evaluation = evaluate(tmp_path / "run", labels, diameter="20A")
    assert evaluation.pixel_size_angstrom is None
    assert "diameter 10-20 px\n" in as_table(evaluation)
    assert any("different pixel sizes (1, 2 Å)" in note for note in evaluation.notes)


@pytest.mark.parametrize("name", ["blob", "general", "deepcryopicker"])
def test_a_particle_wider_than_all_micrographs_is_refused_before_anything_is_computed_with_it(name: str) -> None:
    image = Micrograph(np.random.default_rng(0).normal(size=(96, 128)), name="m.mrc")
    with pytest.raises(SettingsError, match=r"m\.mrc: diameter 900000000px is .* wider than the micrograph"):
        cryopick.pick(image, name, diameter="900000000px")
