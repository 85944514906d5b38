"""Converting: names and sizes from the images, the y axis measured or told, and refusals that write nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.transforms import flip_x, flip_y
from cryopick.io.coordinates import read_picks, write_picks
from cryopick.io.images import write_micrograph
from cryopick.io.star import read_star
from cryopick.types import Micrograph, Picks
from cryopick.workflows.convert import convert

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
