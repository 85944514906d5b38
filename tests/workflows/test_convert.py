"""Converting: names and sizes from the images, the y axis measured or told, and refusals that write nothing."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import disc_micrograph

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.transforms import flip_x, flip_y
from cryopick.io.coordinates.formats import FORMATS, read_picks, write_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import read_star
from cryopick.runs.picks import labels_of_run_at
from cryopick.types import Micrograph, Picks
from cryopick.workflows.convert import convert
from cryopick.workflows.pick import pick

SHAPE = (200, 300)
DIAMETER_PX = 16


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, dict[str, Picks]]:
    """A folder of two rectangular micrographs with dark discs, and the discs' centres."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picks = {}
    for name in ("one/m 1.mrc", "two/m 1.mrc"):
        grid = np.stack(np.meshgrid(np.arange(20, 280, 30), np.arange(20, 180, 30)), axis=-1).reshape(-1, 2)
        grid = grid[rng.permutation(len(grid))[:20]] + rng.uniform(-5, 5, size=(20, 2))
        pixels = rng.standard_normal(SHAPE) * 0.5
        for cx, cy in grid:
            pixels[np.hypot(x - cx, y - cy) <= DIAMETER_PX / 2] -= 1
        path = tmp_path / "mics" / name
        path.parent.mkdir(parents=True)
        write_micrograph(path, Micrograph(pixels.astype(np.float32), pixel_size_angstrom=1.5))
        picks[name] = Picks(xy_px=grid, score=np.ones(20), micrograph_name=name, shape_yx=SHAPE)  # type: ignore[arg-type]
    return tmp_path / "mics", picks


def flipped(picks: dict[str, Picks]) -> list[Picks]:
    return [replace(one, xy_px=flip_y(one.xy_px, SHAPE)) for one in picks.values()]


def test_auto_leaves_upright_coordinates_and_flips_the_others(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    folder = micrographs.parent
    for name, picks in (("upright", list(truth.values())), ("flipped", flipped(truth))):
        write_picks(picks, folder / f"{name}.star")
        done = convert(
            folder / f"{name}.star",
            folder / "out.star",
            flip_y="auto",
            micrographs=[micrographs],
            diameter=f"{DIAMETER_PX * 1.5}A",
        )
        assert done.is_flipped == (name == "flipped")
        assert done.fit is not None
        assert done.fit.is_clear
        for found, one in zip(read_picks(folder / "out.star").values(), truth.values(), strict=True):
            assert np.allclose(found.xy_px, one.xy_px, atol=1e-6)


def test_auto_settles_the_row_convention_of_cryosparc(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    source = micrographs.parent / "p.cs"
    for rows in ("relion", "flipped"):
        write_picks(truth, source, rows=rows, pixel_size_angstrom=1.5)
        with pytest.raises(SettingsError, match="row convention is not given"):
            convert(source, micrographs.parent / "no.star")
        target = micrographs.parent / "out.star"
        convert(source, target, flip_y="auto", micrographs=[micrographs], diameter="16px")
        for found, one in zip(read_picks(target).values(), truth.values(), strict=True):
            assert np.allclose(found.xy_px, one.xy_px, atol=1e-3)
    assert not (micrographs.parent / "no.star").exists()


def test_auto_refuses_what_it_cannot_tell_or_mend_and_writes_nothing(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    folder = micrographs.parent
    rng = np.random.default_rng(1)
    random = [replace(one, xy_px=rng.uniform((0, 0), (300, 200), size=(20, 2))) for one in truth.values()]
    mirrored = [replace(one, xy_px=flip_x(one.xy_px, SHAPE)) for one in truth.values()]
    for picks, message in ((random, "orientation unclear: mean contrast of 40 picks"), (mirrored, "flip_x fits best")):
        write_picks(picks, folder / "in.star")
        with pytest.raises(InputError, match=message):
            convert(folder / "in.star", folder / "out.star", flip_y="auto", micrographs=[micrographs], diameter="16px")
    with pytest.raises(SettingsError, match="needs the particle diameter"):
        convert(folder / "in.star", folder / "out.star", flip_y="auto", micrographs=[micrographs])
    with pytest.raises(SettingsError, match="--micrographs DIR"):
        convert(folder / "in.star", folder / "out.star", flip_y="auto", diameter="16px")
    with pytest.raises(SettingsError, match="expected one of: auto, yes, no"):
        convert(folder / "in.star", folder / "out.star", flip_y="maybe")
    assert not (folder / "out.star").exists()


def test_yes_flips_with_the_size_of_the_images_and_needs_it(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    folder = micrographs.parent
    write_picks(flipped(truth), folder / "boxes", format="box", box_px=16)
    with pytest.raises(SettingsError, match="flipping y needs the image size"):
        convert(folder / "boxes", folder / "out.star", flip_y="yes")
    convert(folder / "boxes", folder / "out.star", flip_y="yes", micrographs=[micrographs])
    found = read_picks(folder / "out.star")
    assert list(found) == list(truth), "names are those of the images, with folder and extension"
    for name, one in truth.items():
        assert np.abs(found[name].xy_px - one.xy_px).max() <= 0.5


def test_box_side_in_angstrom_uses_the_pixel_size_of_the_images(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    folder = micrographs.parent
    write_picks(truth, folder / "in.star")
    done = convert(folder / "in.star", folder / "boxes", to="box", box="30A", micrographs=[micrographs])
    assert [path.relative_to(folder).as_posix() for path in done.files] == ["boxes/one/m 1.box", "boxes/two/m 1.box"]
    assert done.files[0].read_text().split()[2:4] == ["20", "20"]
    with pytest.raises(SettingsError, match="pixel size"):
        convert(folder / "in.star", folder / "boxes", to="box", box="30A")
    assert done.particles == 40


def test_folder_of_star_files_gets_a_list_that_leads_to_them(scene: tuple[Path, dict[str, Picks]]) -> None:
    micrographs, truth = scene
    folder = micrographs.parent
    write_picks(truth, folder / "in.csv")
    convert(folder / "in.csv", folder / "stars", to="star")
    listing = read_star(folder / "stars" / "autopick.star")["coordinate_files"]
    assert list(listing.text("rlnMicrographName")) == list(truth)
    assert all(Path(path).is_file() for path in listing.text("rlnMicrographCoordinates"))
    assert list(read_picks(folder / "stars")) == list(truth)


def test_what_the_user_should_know_is_said(scene: tuple[Path, dict[str, Picks]], tmp_path: Path) -> None:
    micrographs, _ = scene
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "m 1.csv").write_text("x,y,kind\n5,5,particle\n6,6,uncertain\n")
    (labels / "m9.csv").write_text("x,y,kind\n5,5,particle\n")
    bare = convert(labels, tmp_path / "out.star")
    assert any("left out what the file marks as rejected: 1 uncertain" in warning for warning in bare.warnings)
    assert any("have no extension" in warning for warning in bare.warnings)
    named = convert(labels, tmp_path / "out.star", micrographs=[micrographs / "one"])
    assert any("1 of 2 coordinate sets have no micrograph, for example m9" in warning for warning in named.warnings)
    with pytest.raises(InputError, match="fits 2 micrographs"):
        convert(labels, tmp_path / "out.star", micrographs=[micrographs])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run on three micrographs."""
    project = tmp_path_factory.mktemp("project")
    for seed, name in enumerate(("m1.mrc", "m2.mrc", "grid two/m3 é.mrc")):
        (project / "mics" / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(project / "mics" / name, disc_micrograph(name, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        pick("mics", "blob", output="run1", diameter="40A", threshold=3.0, workers=1)
    return project


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, seen from its project."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path("run1")


def rows_of(run: Path) -> dict[str, list[tuple[float, float]]]:
    """The kept rows of the run's candidates by file, read without cryopick."""
    kept = {}
    for path in sorted((run / "candidates").rglob("*.csv")):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        chosen = [row for row in rows if not row["reason"] and float(row["score"]) >= 3.0]
        kept[path.relative_to(run / "candidates").with_suffix("").as_posix()] = sorted(
            (float(row["x_px"]), float(row["y_px"])) for row in chosen
        )
    assert sum(map(len, kept.values())) > 0
    return kept


@pytest.mark.parametrize("source", ["", "particles.star", "autopick.star", "picks", "candidates"])
@pytest.mark.parametrize("to", FORMATS)
def test_a_run_and_its_tables_convert_to_every_format_without_further_options(run: Path, to: str, source: str) -> None:
    if source != "" and to in ("eman-json", "topaz"):
        return  # nothing that they need depends on the source
    done = convert(run / source, "out/", to=to, cs_rows="relion" if to == "cryosparc" else None)
    truth = rows_of(run)
    assert done.particles == sum(map(len, truth.values()))
    found = read_picks("out", format=to, rows="relion", shapes_yx={name: (120, 160) for name in truth})
    places = {Path(name).stem: sorted(map(tuple, picks.xy_px.tolist())) for name, picks in found.items()}
    assert len(places) == 3
    for name, expected in truth.items():
        np.testing.assert_allclose(places[Path(name).stem], expected, atol=0.51 if to == "box" else 1e-3)


def test_boxes_of_a_run_are_those_that_it_suggests_and_labels_have_the_diameter(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    convert(run / "particles.star", "boxes", to="box")
    sides = {line.split()[2] for path in Path("boxes").rglob("*.box") for line in path.read_text().splitlines()}
    assert sides == {str(summary["box_px"])}
    convert(run, "coco", to="coco")
    content = [json.loads(path.read_text()) for path in Path("coco").rglob("*.json")]
    sides = [entry["bbox"][2] for one in content for entry in one["annotations"]]
    assert sides == pytest.approx([summary["diameter_px"]] * summary["particles"], rel=0.01)


def test_all_candidates_of_a_run_are_written_with_their_reasons(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for source in (run, run / "particles.star"):
        done = convert(source, "all.csv", keep_rejected=True)
        rows = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
        assert done.particles == len(rows) == summary["candidates"]
        assert sum(row["reason"] == "" for row in rows) == summary["particles"]
    done = convert(run, "all.star", keep_rejected=True)
    assert any("cannot mark rejected candidates" in warning for warning in done.warnings)


def test_a_run_whose_tables_are_older_than_its_threshold_converts_at_the_threshold(run: Path) -> None:
    """As a rethreshold that was stopped leaves it; a table that is named is converted as it is, with a word."""
    (run / "threshold.json").write_text('{"threshold": 1e6}')
    assert convert(run, "now.csv").particles == 0
    before = convert(run / "particles.star", "then.csv")
    assert before.particles > 0
    assert any("holds other picks than the run keeps" in warning for warning in before.warnings)


def test_a_run_that_is_not_finished_is_not_converted(run: Path) -> None:
    (run / "summary.json").unlink()
    with pytest.raises(InputError, match="the run is not finished"):
        convert(run, "out.csv")


def test_files_of_another_kind_are_not_replaced(run: Path) -> None:
    convert(run, "a.csv")
    Path("notes.csv").write_text("day,microscope\n1,Krios\n")
    Path("job.star").write_text("data_job\n_rlnJobType 1\n")
    for target, error, message in (
        ("notes.csv", InputError, "exists and is no csv file"),
        ("job.star", InputError, "exists and is no star file"),
        ("run1/particles.star", SettingsError, "part of the run folder"),
        ("a.csv", SettingsError, "is what is converted"),
    ):
        before = Path(target).read_bytes()
        with pytest.raises(error, match=message):
            convert("a.csv", target)
        assert Path(target).read_bytes() == before
    with pytest.raises(SettingsError, match="part of the run folder"):
        convert(run, run, to="star")
    convert(run, "a.csv")  # an older result of the same kind is what is meant to be replaced
    convert(run, "boxes", to="box")
    Path("boxes/old.box").write_text("1 1 2 2\n")
    assert any("1 other .box files, such as old.box" in text for text in convert(run, "boxes", to="box").warnings)


def test_labels_for_training_come_from_the_candidates_of_a_run(run: Path) -> None:
    labels = labels_of_run_at(run)
    assert labels is not None
    truth = rows_of(run)
    assert sorted(sorted(map(tuple, one.xy_px.tolist())) for one in labels.values()) == sorted(truth.values())
    diameter_px = json.loads((run / "summary.json").read_text())["diameter_px"]
    assert [one.diameter_px for one in labels.values()] == pytest.approx([diameter_px] * 3, rel=0.01)
    assert labels_of_run_at(run / "picks") is None


def test_a_box_in_angstrom_is_told_for_each_pixel_size(tmp_path: Path) -> None:
    for name, size in (("a", 1.0), ("b", 2.0)):
        path = tmp_path / "mics" / f"{name}.mrc"
        path.parent.mkdir(exist_ok=True)
        write_micrograph(path, Micrograph(np.zeros((50, 60), np.float32), pixel_size_angstrom=size))
    write_picks([Picks(xy_px=[[20, 20]], micrograph_name=name) for name in "ab"], tmp_path / "in.star")  # type: ignore[arg-type]
    convert(tmp_path / "in.star", tmp_path / "boxes", to="box", box="30A", micrographs=[tmp_path / "mics"])
    sides = {path.stem: path.read_text().split()[2] for path in (tmp_path / "boxes").glob("*.box")}
    assert sides == {"a": "30", "b": "15"}


@pytest.mark.parametrize("name", ["folders/" * 600 + "m.mrc", "m" * 300 + ".mrc"], ids=["path", "file"])
def test_names_longer_than_file_systems_take_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "all.csv").write_text(f"x,y,micrograph\n1,2,short.mrc\n1,2,{name}\n")
    with pytest.raises(InputError, match=r"^micrograph name \w{7}.*bytes long, .* rename the micrograph"):
        convert(tmp_path / "all.csv", tmp_path / "out", to="box", box="10px")
    assert not (tmp_path / "out").exists()
