"""What `inspect` says about files made for the purpose."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryopick.errors import FormatError, InputError
from cryopick.io.coordinates.formats import write_picks
from cryopick.io.images.mrc import write_mrc
from cryopick.io.images.raster import write_png
from cryopick.types import Picks
from cryopick.workflows.inspect import inspect

PIXELS = np.arange(6 * 9, dtype="f4").reshape(6, 9)


def _picks(name):
    return Picks(xy_px=[[1, 2], [3.5, 4]], score=[0.25, 0.75], diameter_px=[3, 5], micrograph_name=name)


def test_micrograph_has_its_size_statistics_and_doubts(tmp_path):
    write_mrc(tmp_path / "m.mrc", PIXELS, pixel_size_angstrom=1.0)
    found = inspect(tmp_path / "m.mrc")
    assert found.kind == "micrograph"
    assert found.facts["shape_yx"] == [6, 9]
    assert found.facts["stored_pixels"] == "float32 (MRC mode 2)"
    assert found.facts["mean"] == 26.5
    assert found.facts["standard_deviation"] == pytest.approx(PIXELS.std())
    assert found.facts["range"] == [0, 53]
    assert found.facts["field_yx_um"] == pytest.approx([6e-4, 9e-4])
    assert "exactly 1" in found.warnings[0]
    given = inspect(tmp_path / "m.mrc", pixel_size_angstrom=1.5)
    assert (given.facts["pixel_size_angstrom"], given.warnings) == (1.5, ())


def test_bad_pixels_are_counted_and_left_out_of_the_statistics(tmp_path):
    pixels = PIXELS.copy()
    pixels[0, 0], pixels[5, 8] = np.nan, np.inf
    write_mrc(tmp_path / "m.mrc", pixels, pixel_size_angstrom=2.0)
    found = inspect(tmp_path / "m.mrc")
    assert found.facts["non_finite_pixels"] == 2
    assert found.facts["mean"] == 26.5
    assert found.facts["range"] == [1, 52]


def test_an_image_of_nothing_but_nan_is_described(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.full((3, 4), np.nan, "f4"), pixel_size_angstrom=2.0)
    assert inspect(tmp_path / "m.mrc").facts["non_finite_pixels"] == 12


def test_flat_image_is_called_flat(tmp_path):
    write_png(tmp_path / "m.png", np.full((6, 9), 7, "u1"))
    found = inspect(tmp_path / "m.png")
    assert found.facts["pixel_size_angstrom"] is None
    assert "nothing to pick" in found.warnings[-1]


def test_movies_and_maps_are_described_not_refused(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((5, 6, 9), "u2"))
    movie = inspect(tmp_path / "movie.tif")
    assert (movie.kind, movie.facts["frames"]) == ("movie or stack of images", 5)
    assert "motion-corrected" in movie.warnings[-1]
    write_mrc(tmp_path / "map.mrc", np.zeros((6, 6, 6), "f4"), pixel_size_angstrom=2.0, is_volume=True)
    volume = inspect(tmp_path / "map.mrc")
    assert (volume.kind, volume.facts["sections"], volume.warnings) == ("3-D map", 6, ())


@pytest.mark.parametrize("name", ["p.star", "p.csv", "p.cbox"])
def test_coordinates_are_counted_with_their_ranges(tmp_path, name):
    write_picks([_picks("m1")], tmp_path / name)
    found = inspect(tmp_path / name)
    assert found.kind == "coordinates"
    assert (found.facts["micrographs"], found.facts["picks"]) == (1, 2)
    assert found.facts["y_px"] == pytest.approx([2, 4])
    assert found.facts["score"] == pytest.approx([0.25, 0.75])


def test_coordinates_that_need_to_know_more_say_so(tmp_path):
    write_picks([_picks("m1")], tmp_path / "p.csv")
    lines = ["X-Coordinate,Y-Coordinate,Diameter", "10,20,5"]
    (tmp_path / "cryoppp.csv").write_text("\n".join(lines) + "\n")
    found = inspect(tmp_path / "cryoppp.csv")
    assert found.kind == "coordinates"
    assert found.facts["format"].startswith("cryoppp")
    assert found.warnings


def test_empty_coordinate_file_is_fine(tmp_path):
    write_picks([Picks(xy_px=np.empty((0, 2)), micrograph_name="m1")], tmp_path / "p.star")
    assert inspect(tmp_path / "p.star").facts["picks"] == 0


def test_list_of_micrographs_tells_which_are_missing_and_doubts_the_optics(tmp_path):
    (tmp_path / "m1.mrc").touch()
    head = "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 1.0\n\n"
    rows = "\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\nm1.mrc 1\nm2.mrc 1\n\n"
    (tmp_path / "m.star").write_text(head + rows)
    found = inspect(tmp_path / "m.star")
    assert found.kind == "list of micrographs"
    assert (found.facts["micrographs"], found.facts["micrographs_found"]) == (2, 1)
    assert found.facts["pixel_size_angstrom"] == [1.0]
    assert "exactly 1" in found.warnings[0]
    assert "1 micrographs are missing" in found.warnings[1]


def test_star_file_of_something_else_lists_its_tables(tmp_path):
    (tmp_path / "other.star").write_text("\ndata_general\n\n_rlnTomoName 3\n\n")
    found = inspect(tmp_path / "other.star")
    assert found.facts["data_general"] == "1 rows: rlnTomoName"
    assert "neither" in found.warnings[0]


def test_folder_counts_formats_shapes_and_coordinates(tmp_path):
    for name in ("a.mrc", "sub/a.mrc"):
        write_mrc(tmp_path / name, PIXELS, pixel_size_angstrom=1.5)
    write_png(tmp_path / "b.png", np.zeros((4, 8), "u1"))
    (tmp_path / "broken.mrc").write_bytes(b"x" * 2000)
    (tmp_path / "notes.txt").write_text("hello")
    write_picks([_picks("a")], tmp_path / "a.box", box_px=10)
    found = inspect(tmp_path)
    assert found.kind == "folder"
    assert (found.facts["micrographs"], found.facts["image_files"]) == (4, 4)
    assert found.facts["formats"] == {"MRC float32": 2, "PNG uint8": 1}
    assert found.facts["shapes_yx"] == {"6 x 9": 2, "4 x 8": 1}
    assert found.facts["pixel_sizes_angstrom"] == {"1.5": 2, "unknown": 1}
    assert found.facts["coordinate_files"] == {"box": 1}
    assert any("cannot be read" in warning and "broken.mrc" in warning for warning in found.warnings)


def test_folder_that_cannot_be_picked_as_it_is_says_why(tmp_path):
    write_mrc(tmp_path / "a.mrc", PIXELS, pixel_size_angstrom=1.5)
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    found = inspect(tmp_path)
    assert found.facts["image_files"] == 2
    assert "choose one type" in found.warnings[0]


def test_folder_of_a_picking_job_is_recognised_with_its_counts(tmp_path):
    write_picks([_picks("a/m1"), _picks("b/m1")], tmp_path / "job", format="star")
    found = inspect(tmp_path / "job")
    assert found.kind == "RELION picking job"
    assert (found.facts["autopick_micrographs"], found.facts["autopick_picks"]) == (2, 4)


def test_what_cannot_be_inspected_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        inspect(tmp_path / "none.mrc")
    with pytest.raises(InputError, match=r"neither images .* nor coordinates found in 0 files"):
        inspect(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: neither an image"):
        inspect(tmp_path / "notes.txt")
    (tmp_path / "m.mrc").write_bytes(b"x" * 2000)
    with pytest.raises(FormatError, match="not an MRC file"):
        inspect(Path(tmp_path / "m.mrc"))


def test_links_that_lead_nowhere_are_counted(tmp_path):
    (tmp_path / "m2.mrc").symlink_to("/gone/m2.mrc")
    with pytest.raises(InputError, match=r"of 1 more the first: its link leads nowhere \(-> /gone/m2\.mrc\)"):
        inspect(tmp_path)
    write_mrc(tmp_path / "m1.mrc", PIXELS, pixel_size_angstrom=1.5)
    found = inspect(tmp_path)
    assert found.facts["micrographs"] == 2
    assert any("1 micrographs are links that lead nowhere" in warning for warning in found.warnings)
