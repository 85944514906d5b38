"""Every coordinate format: files as found in the wild, round trips on rectangular images, errors at the edges."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryopick.errors import CryopickError, FormatError, InputError, SettingsError
from cryopick.io.coordinates import formats
from cryopick.io.coordinates.formats import FORMATS, FileFacts, detect_format, read_picks, write_picks
from cryopick.io.coordinates.grouping import NO_SCORES
from cryopick.io.coordinates.names import without_extension
from cryopick.io.coordinates.relion import OpticsGroup, read_micrographs_star, write_relion_particles
from cryopick.io.star import read_star
from cryopick.types import Picks
from cryopick.workflows.convert import convert

HEIGHT, WIDTH = 30, 50  # rectangular, so that exchanged or flipped axes cannot pass
SHAPE = (HEIGHT, WIDTH)
WHOLE_PIXELS = {"box"}
WITHOUT_SCORE = {"cryoppp"}


def make_picks(name: str, xy: list[list[float]], score: list[float] | None = None) -> Picks:
    return Picks(
        xy_px=np.array(xy, dtype=np.float64).reshape(-1, 2),
        score=score,  # type: ignore[arg-type]
        diameter_px=np.full(len(xy), 8.0),  # type: ignore[arg-type]
        micrograph_name=name,
        shape_yx=SHAPE,
        pixel_size_angstrom=1.5,
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def only(found: Mapping[str, Picks]) -> Picks:
    (picks,) = found.values()
    return picks


# Files as other programs write them. Each marks the particles at (10, 4) and (40.5, 25) of a 50 x 30 image.
SAMPLES = {
    "m1_autopick.star": """
# version 30001

data_

loop_ 
_rlnCoordinateX #1 
_rlnCoordinateY #2 
_rlnClassNumber #3 
_rlnAnglePsi #4 
_rlnAutopickFigureOfMerit #5 
   10.000000     4.000000            1    -999.00000     2.500000 
   40.500000    25.000000            2     10.000000    -0.500000 
 
""",  # noqa: W291, W293  # RELION itself ends lines with blanks
    "m1.box": "6\t0\t8\t8\t2.5\n36\t21\t9\t8\t-0.5\n",
    "m1.cbox": """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
6.0 0.0 <NA> 8.0 8.0 1 7.5 6.5 2.5 <NA> <NA>
36.5 21.0 <NA> 8.0 8.0 1 <NA> <NA> -0.5 <NA> <NA>

data_cryolo_include

loop_
_slice_index #1

""",
    "old/m1.cbox": "6.0 0.0 8.0 8.0 2.5 7.5 6.5\n36.5 21.0 8.0 8.0 -0.5 7.0 7.0\n",
    "m1_info.json": '{"boxes": [[10, 4, "manual", 2.5], [40.5, 25.0, "auto_local", -0.5]], "apix_unbin": 1.5}',
    "picks.txt": "image_name\tx_coord\ty_coord\tscore\nm1\t10\t4\t2.5\nm1\t40.5\t25\t-0.5\n",
    "coco.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "m1", "width": WIDTH, "height": HEIGHT}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [6, 0, 8, 8], "score": 2.5},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [36.5, 21, 8, 8], "score": -0.5},
            ],
            "categories": [{"id": 1, "name": "particle"}],
        }
    ),
    "m1.csv": "x,y,score\n10,4,2.5\n40.5,25,-0.5\n",
    "bare/m1.csv": "10, 4, 2.5\r\n40.5, 25, -0.5\r\n",
    "Å/m1.csv": "x_angstrom,y_angstrom,score\n15,6,2.5\n60.75,37.5,-0.5\n",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_file_of_another_program_gives_centres_and_scores(tmp_path: Path, name: str) -> None:
    found = read_picks(write(tmp_path / name, SAMPLES[name]), shapes_yx={"m1": SHAPE}, pixel_size_angstrom=1.5)
    assert list(found) == ["m1"]
    assert found["m1"].xy_px.tolist() == [[10, 4], [40 if name == "m1.box" else 40.5, 25]]
    assert found["m1"].score.tolist() == [2.5, -0.5]
    assert found["m1"].warnings == ()


def test_lengths_in_angstrom_need_the_pixel_size(tmp_path: Path) -> None:
    path = write(tmp_path / "m1.csv", "x,y,diameter_angstrom\n1,2,90\n3,4,\n")
    picks = only(read_picks(path, pixel_size_angstrom=1.5))
    assert picks.diameter_px[0] == 60
    assert np.isnan(picks.diameter_px[1])
    with pytest.raises(SettingsError, match="diameter is in Å and the pixel size is unknown"):
        read_picks(path)


def test_a_list_may_name_box_files_and_not_itself(tmp_path: Path) -> None:
    listing = "data_coordinate_files\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    write(tmp_path / "m1.box", SAMPLES["m1.box"])
    write(tmp_path / "autopick.star", f"{listing}a/m1.mrc m1.box\n")
    assert read_picks(tmp_path)["a/m1.mrc"].xy_px.tolist() == [[10, 4], [40, 25]]
    write(tmp_path / "autopick.star", f"{listing}a/m1.mrc autopick.star\n")
    with pytest.raises(FormatError, match="is itself a list"):
        read_picks(tmp_path)
    write(tmp_path / "autopick.star", f"{listing}a.mrc m1.box\na.mrc m1.box\n")
    with pytest.raises(FormatError, match=r"line 6: micrograph a\.mrc is listed twice"):
        read_picks(tmp_path)


def test_cryoppp_counts_y_from_the_bottom(tmp_path: Path) -> None:
    text = "X-Coordinate,Y-Coordinate,Class Reference,Diameter\n10,26,1,8\n40.5,5,1,8\n"
    path = write(tmp_path / "m1.csv", text)
    picks = only(read_picks(path, shapes_yx={"m1.mrc": SHAPE}))
    assert picks.xy_px.tolist() == [[10, 4], [40.5, 25]]
    assert picks.diameter_px.tolist() == [8, 8]
    with pytest.raises(SettingsError, match="height is needed"):
        read_picks(path)


def test_cbox_size_estimate_is_the_diameter_and_its_absence_unknown(tmp_path: Path) -> None:
    picks = only(read_picks(write(tmp_path / "m1.cbox", SAMPLES["m1.cbox"])))
    assert picks.diameter_px[0] == 7
    assert np.isnan(picks.diameter_px[1])


def test_sizes_of_0_and_below_are_unknown_and_said_to_be(tmp_path: Path) -> None:
    picks = only(read_picks(write(tmp_path / "m1.csv", "x,y,diameter_px\n1,2,-9999\n3,4,0\n5,6,20\n")))
    np.testing.assert_array_equal(picks.diameter_px, np.array([np.nan, np.nan, 20], np.float32))
    assert "2 diameters are 0 or below, which is taken for unknown" in picks.warnings


def test_relion_30_particles_take_the_pixel_size_from_detector_and_magnification(tmp_path: Path) -> None:
    text = """
data_

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnMagnification #4
_rlnDetectorPixelSize #5
_rlnAutopickFigureOfMerit #6
Micrographs/b.mrc 10 4 10000 1.5 -999
Micrographs/a.mrc 40.5 25 10000 1.5 3
Micrographs/b.mrc 11 5 10000 1.5 0
"""
    found = read_picks(write(tmp_path / "particles.star", text))
    assert list(found) == ["Micrographs/b.mrc", "Micrographs/a.mrc"]
    assert found["Micrographs/b.mrc"].xy_px.tolist() == [[10, 4], [11, 5]]
    assert found["Micrographs/b.mrc"].pixel_size_angstrom == 1.5
    assert np.isnan(found["Micrographs/b.mrc"].score[0]), "RELION writes -999 where a manual pick has no score"
    assert found["Micrographs/b.mrc"].score[1] == 0


def test_relion_31_particles_take_the_pixel_size_of_their_optics_group(tmp_path: Path) -> None:
    text = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnImagePixelSize #4
one 1 1.35 5.4
two 2 0.675 2.7


# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnImageName #3
_rlnMicrographName #4
_rlnOpticsGroup #5
10 4 000001@Extract/a.mrcs a.mrc 2
40 25 000001@Extract/b.mrcs b.mrc 1
"""
    found = read_picks(write(tmp_path / "particles.star", text))
    assert {name: picks.pixel_size_angstrom for name, picks in found.items()} == {"a.mrc": 0.675, "b.mrc": 1.35}
    entries = read_micrographs_star(tmp_path / "particles.star")
    assert [(entry.name, entry.pixel_size_angstrom) for entry in entries] == [("a.mrc", 0.675), ("b.mrc", 1.35)]
    missing = write(tmp_path / "missing.star", text.replace("b.mrc 1", "b.mrc 7"))
    with pytest.raises(FormatError, match="optics group 7"):
        read_picks(missing)


def test_autopick_list_is_followed_from_the_project_folder_and_after_moving_the_job(tmp_path: Path) -> None:
    listing = """
# version 30001

data_coordinate_files

loop_
_rlnMicrographName #1
_rlnMicrographCoordinates #2
MotionCorr/job002/Movies/m1.mrc AutoPick/job005/Movies/m1_autopick.star

"""
    job = tmp_path / "AutoPick" / "job005"
    write(job / "autopick.star", listing)
    write(job / "Movies" / "m1_autopick.star", SAMPLES["m1_autopick.star"])
    for folder in (job, shutil.copytree(job, tmp_path / "elsewhere")):
        found = read_picks(folder)
        assert list(found) == ["MotionCorr/job002/Movies/m1.mrc"]
        assert only(found).class_id.tolist() == [1, 2]
    (job / "Movies" / "m1_autopick.star").unlink()
    with pytest.raises(InputError, match=r"line 9: lists AutoPick/job005/Movies/m1_autopick\.star, which is not found"):
        read_picks(job / "autopick.star")


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_through_a_folder_keeps_places_scores_and_names_apart(tmp_path: Path, name: str) -> None:
    given_picks = [
        make_picks("one/m 1.mrc", [[0, 0], [49, 29], [10.25, 4.75]], [0.5, -1, 3]),
        make_picks("two/m 1.mrc", [[7, 20]], [1]),
    ]
    shapes = {one.micrograph_name: SHAPE for one in given_picks}
    written = write_picks(given_picks, tmp_path / "out", format=name, rows="flipped")
    assert len(written) == (3 if name == "star" else 2)
    found = read_picks(tmp_path / "out", format=name, shapes_yx=shapes, rows="flipped")
    tolerance = 0.5 if name in WHOLE_PIXELS else 1e-4
    for one, (read_name, again) in zip(given_picks, found.items(), strict=True):
        assert read_name.removesuffix(".mrc") == one.micrograph_name.removesuffix(".mrc")
        assert np.abs(again.xy_px - one.xy_px).max() <= tolerance
        if name not in WITHOUT_SCORE:
            assert again.score.tolist() == one.score.tolist()


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if not entry.is_per_micrograph])
def test_round_trip_through_one_file_keeps_micrographs_in_order(tmp_path: Path, name: str) -> None:
    given_picks = {n: make_picks(n, [[1.5, 28], [48, 3.25]], [1, 2]) for n in ("b.mrc", "a/ö.mrc")}
    path = tmp_path / f"all{FORMATS[name].suffix}"
    assert write_picks(given_picks, path, format=name, rows="relion") == [path]
    found = read_picks(path, format=name, rows="relion")
    assert [n.removesuffix(".mrc") for n in found] == ["b", "a/ö"]
    for picks in found.values():
        assert np.abs(picks.xy_px - [[1.5, 28], [48, 3.25]]).max() < 1e-4


coordinate = st.floats(-1e5, 1e5, allow_nan=False)
scores = st.floats(-1e6, 1e6, width=32).filter(lambda score: score not in NO_SCORES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    name=st.sampled_from([name for name in FORMATS if name not in WHOLE_PIXELS | {"cryosparc"}]),
    rows=st.lists(st.tuples(coordinate, coordinate, scores), min_size=1, max_size=6),
)
def test_any_finite_coordinates_survive_every_format(
    tmp_path: Path, name: str, rows: list[tuple[float, float, float]]
) -> None:
    table = np.array(rows)
    picks = make_picks("m1", table[:, :2].tolist(), table[:, 2].tolist())
    path = tmp_path / f"m1{FORMATS[name].suffix}"
    path.unlink(missing_ok=True)
    write_picks([picks], path, format=name)
    found = only(FORMATS[name].read(path, _facts()))
    assert np.abs(found.xy_px - picks.xy_px).max() <= 1e-6
    if name not in WITHOUT_SCORE:
        assert np.array_equal(found.score, picks.score)


def _facts():  # type: ignore[no-untyped-def]
    from cryopick.io.coordinates.formats import FileFacts

    return FileFacts(shape_yx=SHAPE)


def test_box_rounds_to_the_nearest_pixel_and_says_so_in_whole_numbers(tmp_path: Path) -> None:
    write_picks([make_picks("m", [[10.4, 4.6], [10.6, 4.4]])], tmp_path / "m.box", box_px=7)
    assert (tmp_path / "m.box").read_text() == "7\t2\t7\t7\n8\t1\t7\t7\n"
    assert only(read_picks(tmp_path / "m.box")).xy_px.tolist() == [[10, 5], [11, 4]]


def test_missing_scores_are_minus_999_in_star_and_empty_in_csv(tmp_path: Path) -> None:
    picks = [make_picks("m", [[1, 2], [3, 4]], [0.5, np.nan])]
    write_picks(picks, tmp_path / "m.star")
    text = (tmp_path / "m.star").read_text()
    assert text.split()[-5:] == ["3", "4", "0", "0", "-999"]
    assert {"nan", "<NA>"}.isdisjoint(text.split())
    write_picks(picks, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().splitlines()[2] == "3,4,,8,0,"
    for file in ("m.star", "m.csv"):
        assert np.isnan(only(read_picks(tmp_path / file)).score).tolist() == [False, True]


def test_rejected_candidates_stay_out_unless_asked_for(tmp_path: Path) -> None:
    picks = replace(make_picks("m", [[1, 2], [3, 4]]), reason=np.array(["", "edge"]))
    write_picks([picks], tmp_path / "kept.csv")
    assert only(read_picks(tmp_path / "kept.csv")).xy_px.tolist() == [[1, 2]]
    write_picks([picks], tmp_path / "all.csv", keep_rejected=True)
    assert only(read_picks(tmp_path / "all.csv")).reason.tolist() == ["", "edge"]


def test_kind_column_marks_uncertain_labels_with_class_1_and_a_reason(tmp_path: Path) -> None:
    picks = only(read_picks(write(tmp_path / "m.csv", "x,y,kind\n1,2,particle\n3,4,uncertain\n")))
    assert picks.class_id.tolist() == [0, 1]
    assert picks.reason.tolist() == ["", "uncertain"]
    with pytest.raises(FormatError, match=r"m\.csv line 2: kind is 'ice'"):
        read_picks(write(tmp_path / "m.csv", "x,y,kind\n1,2,ice\n"))


def test_eman_info_keeps_what_else_the_file_knows(tmp_path: Path) -> None:
    path = write(tmp_path / "m1_info.json", '{"ctf": [1, 2], "boxes": [[1, 1, "manual"]]}')
    write_picks([make_picks("m1", [[10, 4]])], path, format="eman-json")
    assert json.loads(path.read_text()) == {"ctf": [1, 2], "boxes": [[10.0, 4.0, "manual"]]}


def test_picks_outside_the_image_are_kept_with_a_warning_unless_they_are_most(tmp_path: Path) -> None:
    path = write(tmp_path / "m1.csv", "x,y\n1,1\n2,2\n60,3\n-0.5,0\n")
    picks = only(read_picks(path, shapes_yx={"m1.mrc": SHAPE}))
    assert len(picks) == 4
    assert len(picks.warnings) == 1
    assert "1 of 4 picks of m1 are outside the 50 x 30 image" in picks.warnings[0]
    write(path, "x,y\n1,40\n2,45\n3,3\n")
    with pytest.raises(InputError, match="2 of 3 picks of m1 are outside"):
        read_picks(path, shapes_yx={"m1.mrc": SHAPE})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "x,y\n1,2\n3\n", r"m\.csv line 3: 1 values, expected 2; fix or delete the row"),
        ("m.csv", "x,y\n1,2\n\n3,four\n", r"m\.csv line 4: y is 'four', expected a number"),
        ("m.csv", "x,y\n1,nan\n", r"m\.csv line 2: y is 'nan', expected a number"),
        ("m.csv", "x_nm,y_nm\n1,2\n", "column 'x_nm' has a unit that we do not convert"),
        ("m.csv", "a,b\n1,2\n", "has no column x; columns found: a, b"),
        ("m.csv", "x,y,x_px\n1,2,3\n", "two columns mean x"),
        ("m.csv", "", "is empty"),
        ("m.csv", "x,y,score\n1,2,1e300\n", "score is 1e[+]300, expected a number below 3e38"),
        ("m.csv", "x,y,class_id\n1,2,1e12\n", "class_id is 1e[+]12, expected a whole number"),
        ("m.csv", "x,y\n1,2\n1,1e300\n", r"pick 2 of m is at \(1, 1e[+]300\), expected pixels below"),
        ("m.box", "1 2 3\n", r"m\.box line 1: 3 values, expected 4: x y width height"),
        ("m.box", "1 2 8 8\n1 2 0 8\n", r"m\.box line 2: box is 0 x 8, expected a positive size"),
        ("m.box", "1 2 8 8\n1 x 8 8\n", r"m\.box line 2: y is 'x', expected a number"),
        ("m.box", "1 2 8 8 -1\n9 9 8 8 -2\n", "filament"),
        ("m.cbox", "data_global\n_cbox_format_version 1.0\n", "no table data_cryolo"),
        ("m_info.json", '{"boxes": [[1]]}', r"m_info\.json box 1 is \[1\], expected"),
        ("m_info.json", '{"boxes": [[1, "2", "manual"]]}', "box 1: y is '2', expected a number"),
        ("m_info.json", '{"boxes": [[1, NaN]]}', "box 1: y is nan, expected a finite number"),
        ("m.json", "{", "not JSON"),
        ("m.json", "[]", "holds a list"),
        ("m.json", "{}", "neither `boxes`"),
        ("m.txt", "image_name\tx_coord\ty_coord\nm\t1\n", r"m\.txt line 2: 2 values, expected 3 separated by tabs"),
        ("m.txt", "image_name\tx_coord\ty_coord\nm\t1\t?\n", r"m\.txt line 2: y_coord is '\?'"),
        ("m.txt", "hello\n", "not recognised"),
        ("m.star", "data_\nloop_\n_rlnCoordinateX\n1\n", "no column rlnCoordinateY"),
        ("m.star", "data_\nloop_\n_rlnDefocusU\n1\n", "no table with rlnCoordinateX"),
        ("m.foo", "1 2\n", "not recognised; pass one of"),
        ("m.cs", "x" * 50, "not a CryoSPARC .cs file"),
    ],
)
def test_malformed_file_is_refused_with_place_and_expectation(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path / name, text), rows="relion")


def test_folder_of_several_formats_asks_which(tmp_path: Path) -> None:
    write(tmp_path / "EMAN" / "m1.box", SAMPLES["m1.box"])
    write(tmp_path / "CBOX" / "m1.cbox", SAMPLES["m1.cbox"])
    write(tmp_path / "notes.txt", "carbon on the left\n")
    with pytest.raises(InputError, match=r"several formats \(\.box, \.cbox\)"):
        read_picks(tmp_path)
    assert list(read_picks(tmp_path, format="cbox")) == ["CBOX/m1"]
    with pytest.raises(InputError, match="no coordinate files"):
        read_picks(tmp_path, format="coco")


def test_two_files_of_one_micrograph_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "m1_autopick.star", SAMPLES["m1_autopick.star"])
    write(tmp_path / "m1_manualpick.star", SAMPLES["m1_autopick.star"])
    with pytest.raises(InputError, match=r"micrograph m1 is in m1_autopick\.star and in m1_manualpick\.star"):
        read_picks(tmp_path)


def test_what_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    two = [make_picks("a", [[1, 1]]), make_picks("b", [[1, 1]])]
    sizeless = Picks(xy_px=np.array([[1.0, 1.0]]), micrograph_name="a")
    with pytest.raises(SettingsError, match="give a folder instead"):
        write_picks(two, tmp_path / "x.box")
    with pytest.raises(SettingsError, match="--box 200px"):
        write_picks([sizeless], tmp_path / "x.box")
    with pytest.raises(SettingsError, match="image size of a"):
        write_picks([sizeless], tmp_path / "x.json", format="coco", box_px=10)
    with pytest.raises(SettingsError, match="row convention is not given"):
        write_picks(two, tmp_path / "x.cs")
    with pytest.raises(SettingsError, match="unknown coordinate format 'bos'; known formats: star, box"):
        write_picks(two, tmp_path / "x", format="bos")
    with pytest.raises(SettingsError, match="is a folder, so the format must be given"):
        write_picks(two, tmp_path / "folder")
    with pytest.raises(SettingsError, match=r"\.json stands for eman-json, coco"):
        write_picks(two, tmp_path / "x.json")
    with pytest.raises(InputError, match=r"would share m\.csv"):
        write_picks([make_picks("m.mrc", [[1, 1]]), make_picks("m.tif", [[1, 1]])], tmp_path / "y", format="csv")
    with pytest.raises(InputError, match="expected finite pixels"):
        write_picks([make_picks("m", [[1, np.nan]])], tmp_path / "m.star")
    assert list(tmp_path.iterdir()) == []


def test_a_micrograph_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    written = write_picks([make_picks("/../../m.mrc", [[1, 1]])], tmp_path / "out", format="csv")
    assert written == [tmp_path / "out" / "m.csv"]


def test_an_empty_set_of_picks_is_written_and_read_as_empty(tmp_path: Path) -> None:
    for name, entry in FORMATS.items():
        if entry.is_per_micrograph or name in ("star", "csv"):
            folder = tmp_path / name
            write_picks([make_picks("m1", [])], folder, format=name)
            found = read_picks(folder, format=name, shapes_yx={"m1": SHAPE})
            assert list(found) == ["m1"], name
            assert len(found["m1"]) == 0, name


def _fuzzed(data: st.DataObject, content: bytes) -> bytes:
    """The content cut short, with bytes changed, or with a slice repeated."""
    content = content[: data.draw(st.integers(0, len(content)), label="cut")] if data.draw(st.booleans()) else content
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 6), label="changes")):
        if changed:
            place = data.draw(st.integers(0, len(changed) - 1))
            changed[place] = data.draw(st.sampled_from([0, 9, 10, 13, 32, 34, 35, 39, 44, 45, 48, 57, 91, 93, 95, 255]))
    if changed and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place:place] = changed[place : place + 40]
    return bytes(changed)


def _read_or_message(path: Path, **options: Any) -> tuple[dict[str, Picks], str | None]:
    """What is in the file, or the message of a documented error; any other exception is the test's failure."""
    try:
        return read_picks(path, rows="relion", **options), None
    except CryopickError as error:
        return {}, str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=250, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_documented_errors_only(tmp_path: Path, data: st.DataObject) -> None:
    samples = {name: text.encode() for name, text in SAMPLES.items()}
    path = tmp_path / "sample.cs"
    if not path.exists():
        write_picks([make_picks("a.mrc", [[1, 2], [3, 4]], [1, 2])], path, rows="relion")
    samples["cryosparc.cs"] = path.read_bytes()
    name = data.draw(st.sampled_from(sorted(samples)))
    damaged = tmp_path / "damaged" / Path(name).name
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(_fuzzed(data, samples[name]))
    found, message = _read_or_message(damaged, pixel_size_angstrom=1.5, shapes_yx={"m1": SHAPE})
    assert all(np.isfinite(picks.xy_px).all() for picks in found.values())
    assert message is None or str(damaged) in message or "micrograph" in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(name=st.sampled_from(list(FORMATS)), content=st.binary(max_size=200))
def test_random_bytes_raise_documented_errors_only(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / f"m1{FORMATS[name].suffix}"
    path.write_bytes(content)
    found, message = _read_or_message(path, format=name)
    assert all(np.isfinite(picks.xy_px).all() for picks in found.values())
    assert message is None or str(path) in message


def test_format_is_recognised_by_ending_and_content(tmp_path: Path) -> None:
    expected = {
        "m1.cbox": "cbox",
        "m1_info.json": "eman-json",
        "coco.json": "coco",
        "picks.txt": "topaz",
        "m1.csv": "csv",
    }
    for name, format_name in expected.items():
        assert detect_format(write(tmp_path / name, SAMPLES[name])) == format_name
    assert detect_format(write(tmp_path / "p.csv", "X-Coordinate,Y-Coordinate\n")) == "cryoppp"


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_printtable") is None, reason="needs RELION's relion_star_printtable")
def test_relion_prints_the_coordinates_we_wrote(tmp_path: Path) -> None:
    picks = [make_picks("a.mrc", [[1.5, 28], [48, 3.25]], [1, np.nan]), make_picks("b.mrc", [[7, 8]], [2])]
    write_relion_particles(tmp_path / "p31.star", picks, optics=OpticsGroup(1.5, 300, 2.7))
    write_relion_particles(tmp_path / "p30.star", picks)
    columns = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]
    expected = [["a.mrc", "1.5", "28", "1"], ["a.mrc", "48", "3.25", "-999"], ["b.mrc", "7", "8", "2"]]
    for file, table in (("p31.star", "data_particles"), ("p30.star", "data_")):
        command = ["relion_star_printtable", file, table, *columns]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
        assert [line.split() for line in done.stdout.splitlines() if line.strip()] == expected


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="needs RELION's relion_star_handler")
def test_relion_upgrades_and_filters_our_particles(tmp_path: Path) -> None:
    picks = [make_picks("dir a/a.mrc", [[1.5, 28], [48, 3.25]], [0.25, 0.75])]
    write_relion_particles(tmp_path / "in.star", picks, optics=OpticsGroup(1.5, 300, 2.7))
    select = ["--select", "rlnAutopickFigureOfMerit", "--minval", "0.5"]
    command = ["relion_star_handler", "--i", "in.star", "--o", "out.star", *select]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    found = only(read_picks(tmp_path / "out.star"))
    assert found.xy_px.tolist() == [[48, 3.25]]
    assert found.pixel_size_angstrom == 1.5
    assert "rlnAmplitudeContrast" in read_star(tmp_path / "out.star")["optics"]


@pytest.mark.parametrize("name", ["m1.box", "m1_autopick.star", "picks.txt", "m1.csv", "m1.cbox", "m1_info.json"])
def test_carriage_returns_alone_end_lines_in_every_text_format(tmp_path: Path, name: str) -> None:
    picks = only(read_picks(write(tmp_path / name, SAMPLES[name].replace("\n", "\r"))))
    assert len(picks) == 2
    assert picks.score.tolist() == [2.5, -0.5]


def test_hidden_files_of_other_systems_are_left_out_of_folders(tmp_path: Path) -> None:
    write(tmp_path / "m1.box", SAMPLES["m1.box"])
    for name in ("._m1.box", ".DS_Store", ".Trash/m2.box", "deeper/._m3.box"):
        write(tmp_path / name, "\0\5\26\7")
    assert list(read_picks(tmp_path)) == ["m1"]


STAR_HEAD = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.star", f"{STAR_HEAD}_rlnAutopickFigureOfMerit\n1 2 -9999.0\n3 4 -999\n5 6 -3\n", [np.nan, np.nan, -3]),
        ("m.box", "1 2 8 8 -3\n3 4 8 8 -3\n", [np.nan, np.nan]),
        ("m.box", "1 2 8 8 -3\n3 4 8 8 -2.5\n", [-3, -2.5]),
        ("m.txt", "image_name\tx_coord\ty_coord\tscore\nm\t1\t2\t-3\nm\t3\t4\t-3\n", [-3, -3]),
        ("m.csv", "x,y,score\n1,2,-999\n3,4,-999\n", [np.nan, np.nan]),
        ("m.csv", "x,y,score\n1,2,-999\n3,4,7\n", [-999, 7]),
        ("m_info.json", '{"boxes": [[1, 2, "manual", -9999]]}', [np.nan]),
    ],
)
def test_sentinels_of_each_program_are_no_scores(tmp_path: Path, name: str, text: str, expected: list[float]) -> None:
    score = only(read_picks(write(tmp_path / name, text))).score
    np.testing.assert_array_equal(score, np.array(expected, dtype=np.float32))


CBOX_HEAD = "data_cryolo\nloop_\n_CoordinateX\n_CoordinateY\n_CoordinateZ\n_Width\n_Height\n_Depth\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.star", "data_particles\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\nT1 1 2\n"),
        ("p.star", f"{STAR_HEAD}_rlnCoordinateZ\n1 2 3\n"),
        ("p.star", "data_\nloop_\n_rlnTomoName\n_rlnCenteredCoordinateXAngst\nT1 1\n"),
        ("m.cbox", f"{CBOX_HEAD}1 2 30 8 8 1\n"),
        ("m.cbox", f"{CBOX_HEAD}1 2 <NA> 8 8 5\n"),
        ("p.txt", "image_name\tx_coord\ty_coord\tz_coord\nm\t1\t2\t3\n"),
        ("m.csv", "x,y,z\n1,2,3\n"),
        ("m_info.json", '{"boxes": [], "boxes_3d": [[1, 2, 3, "manual", 0, 0]]}'),
    ],
)
def test_particles_of_tomograms_are_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(FormatError, match="tomogram"):
        read_picks(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("text", "xy", "is_doubtful"),
    [
        ("x,y,width,height\n10,20,100,60\n", [60, 50], True),
        ("left,top,width,height\n10,20,100,60\n", [60, 50], False),
        ("xmin,ymin,xmax,ymax\n10,20,110,80\n", [60, 50], False),
        ("filename,width,height,class,xmin,ymin,xmax,ymax\nm.png,4096,4096,p,10,20,110,80\n", [60, 50], False),
        ("center_x,center_y,width,height\n10,20,100,60\n", [10, 20], False),
        ("# exported by a picker 3\n# second line\nx,y\n10,20\n", [10, 20], False),
        ("#x,y\n10,20\n", [10, 20], False),
        ("x;y;score\n10;20;1\n", [10, 20], False),
        ("x\ty\n10\t20\n", [10, 20], False),
        ("x,y,z\n10,20,0\n", [10, 20], False),
    ],
)
def test_csv_boxes_comments_and_separators(tmp_path: Path, text: str, xy: list[float], is_doubtful: bool) -> None:
    picks = only(read_picks(write(tmp_path / "m.csv", text)))
    assert picks.xy_px.tolist() == [xy]
    assert ["taken for the corner" in warning for warning in picks.warnings] == [True] * is_doubtful


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,box_size\n1,2,3\n", "do not tell whether x and y are the centre or the corner"),
        ("x,y,width\n1,2,3\n", "do not tell whether"),
        ("left,top,width,height\n1,2,0,3\n", "line 2: box is 0 x 3, expected a positive size"),
        ("xmin,ymin,xmax,ymax\n5,2,1,3\n", "line 2: box is -4 x 1"),
        ("1,2,3,4\n", "4 columns and no header"),
        ("x;y\n10,5;20\n", "line 2: x is '10,5', expected a number; write decimal points"),
    ],
)
def test_csv_that_could_mean_two_things_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_picks(write(tmp_path / "m.csv", text))


@pytest.mark.parametrize("centre", [[np.nan, 1], [1, np.inf], [1e300, 1]])
@pytest.mark.parametrize("name", FORMATS)
def test_no_format_is_written_with_centres_that_no_reader_takes(tmp_path: Path, name: str, centre: list[float]) -> None:
    picks = make_picks("m1.mrc", [[1, 2], centre], [1, 2])
    with pytest.raises(InputError, match=r"m1\.mrc: pick 2 has the centre"):
        write_picks([picks], tmp_path / f"m1{FORMATS[name].suffix}", format=name, rows="relion")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["a\0b.mrc", "a\ud800b.mrc", "a" * 300 + ".mrc", "a\nb.mrc", "a\rb.mrc", "a\tb.mrc"])
@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_names_that_a_format_cannot_hold_are_refused_and_nothing_is_written(
    tmp_path: Path, name: str, as_folder: bool, bad: str
) -> None:
    picks = [make_picks("good.mrc", [[1, 2]], [1]), make_picks(bad, [[3, 4]], [1])]
    path = tmp_path / "out" if as_folder else tmp_path / f"out{FORMATS[name].suffix}"
    try:
        write_picks(picks, path, format=name, rows="relion")
    except CryopickError:
        assert list(tmp_path.iterdir()) == []
        return
    found = read_picks(path, format=name, rows="relion", shapes_yx={"good.mrc": SHAPE, bad: SHAPE})
    assert sum(map(len, found.values())) == 2
    assert {n.removesuffix(".mrc") for n in found} == {"good", bad.removesuffix(".mrc")}


def test_a_folder_that_was_not_written_to_the_end_is_marked_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryopick.io.coordinates import formats as coordinates

    def stop_at_second(path: Path, picks: list[Picks], facts: Any) -> None:
        if picks[0].micrograph_name == "b":
            raise KeyboardInterrupt
        coordinates.write_csv(path, picks)

    picks = [make_picks(name, [[1, 2]]) for name in "abc"]
    with monkeypatch.context() as patch:
        patch.setitem(coordinates.FORMATS, "csv", replace(FORMATS["csv"], write=stop_at_second))
        with pytest.raises(KeyboardInterrupt):
            write_picks(picks, tmp_path / "out", format="csv")
    with pytest.raises(InputError, match="stopped in the middle"):
        read_picks(tmp_path / "out")
    write_picks(picks, tmp_path / "out", format="csv")
    assert list(read_picks(tmp_path / "out")) == ["a", "b", "c"]


def test_a_folder_of_which_one_file_cannot_be_written_is_not_begun(tmp_path: Path) -> None:
    picks = [make_picks("a", [[1, 2]]), replace(make_picks("b", [[1, 2]]), diameter_px=None, shape_yx=None)]
    for name in ("box", "cbox", "coco", "cryoppp", "cryosparc"):
        with pytest.raises(SettingsError):
            write_picks(picks, tmp_path / "out", format=name, rows="relion")
    assert list(tmp_path.iterdir()) == []


def test_particle_pixels_of_relion_30_are_not_the_micrographs(tmp_path: Path) -> None:
    labels = "_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnMagnification\n_rlnDetectorPixelSize\n"
    micrographs = only(read_picks(write(tmp_path / "a.star", f"data_\nloop_\n{labels}m.mrc 1 2 10000 1.5\n")))
    assert micrographs.pixel_size_angstrom == pytest.approx(1.5)
    path = write(tmp_path / "p.star", f"data_\nloop_\n{labels}_rlnImageName\nm.mrc 1 2 10000 6.0 1@p.mrcs\n")
    picks = only(read_picks(path))
    assert picks.pixel_size_angstrom is None
    assert "pixel size of the particle images only" in picks.warnings[0]
    given = only(read_picks(path, pixel_size_angstrom=1.5))
    assert (given.pixel_size_angstrom, given.warnings) == (1.5, ())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000), scores), min_size=1, max_size=6))
def test_whole_pixels_survive_box_and_fractions_of_the_image_survive_cs(
    tmp_path: Path, rows: list[tuple[int, int, float]]
) -> None:
    table = np.array(rows, dtype=np.float64)
    picks = make_picks("m1", table[:, :2].tolist(), table[:, 2].tolist())
    for name, tolerance in (("box", 0), ("cryosparc", 1e-3)):
        path = tmp_path / f"m1{FORMATS[name].suffix}"
        write_picks([picks], path, format=name, rows="flipped")
        found = only(FORMATS[name].read(path, FileFacts(shape_yx=SHAPE, rows="flipped")))
        assert np.abs(found.xy_px - picks.xy_px).max() <= tolerance
        if not (np.isin(picks.score, (-3, -2, -1, 0)).all() and name == "box"):
            assert np.array_equal(found.score, picks.score)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    name=st.sampled_from([name for name, entry in FORMATS.items() if not entry.is_per_micrograph]),
    names=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=4, unique=True),
)
def test_any_names_come_back_or_are_refused(tmp_path: Path, name: str, names: list[str]) -> None:
    names = [f"{text}x.mrc" for text in names]
    path = tmp_path / f"all{FORMATS[name].suffix}"
    path.unlink(missing_ok=True)
    try:
        write_picks([make_picks(one, [[1, 2]], [1]) for one in names], path, format=name, rows="relion")
    except CryopickError:
        assert not path.exists()
        return
    found = FORMATS[name].read(path, FileFacts(rows="relion"))
    expected = [without_extension(one) for one in names] if name == "topaz" else names
    assert list(found) == (list(dict.fromkeys(expected)) if name != "csv" else [one.strip() for one in names])


def test_a_new_format_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, _facts: FileFacts) -> dict[str, Picks]:
        name = path.name.removesuffix(".toy")
        rows = [line.split() for line in path.read_text().splitlines()[1:]]
        return {name: Picks(xy_px=np.array(rows, float), micrograph_name=name)}

    def write_toy(path: Path, picks: Any, _facts: FileFacts) -> None:
        write(path, "\n".join(["toy", *(f"{x:g} {y:g}" for x, y in picks[0].xy_px)]))

    monkeypatch.setattr(formats, "FORMATS", dict(FORMATS))
    monkeypatch.setattr(formats, "COORDINATE_ENDINGS", names := set(formats.COORDINATE_ENDINGS))
    monkeypatch.setattr("cryopick.io.coordinates.names.COORDINATE_ENDINGS", names)
    formats.add_format(
        formats.CoordinateFormat(
            "toy",
            ".toy",
            "a toy",
            read,
            write_toy,
            other_suffixes=(".txt",),
            recognises=lambda head: head.path.read_text().startswith("toy"),
            is_per_micrograph=True,
        )
    )
    picks = make_picks("a/m1.mrc", [[10, 4], [40.5, 25]])
    (file,) = write_picks([picks], tmp_path / "out", format="toy")
    assert file == tmp_path / "out" / "a" / "m1.toy"
    assert detect_format(file) == detect_format(file.rename(file.with_suffix(".txt"))) == "toy"
    file.with_suffix(".txt").rename(file)
    np.testing.assert_array_equal(read_picks(tmp_path / "out")["a/m1"].xy_px, picks.xy_px)
    done = convert(tmp_path / "out", tmp_path / "boxes", to="box", box="4px")
    assert done.files == (tmp_path / "boxes" / "a" / "m1.box",)
    assert convert(file, tmp_path / "m1.csv").particles == 2
    with pytest.raises(SettingsError, match=r"known formats: .*, toy"):
        formats.format_named("bos")


def test_the_help_names_every_format() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "cryopick.cli.main", "convert", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in shown for name in FORMATS)


COORDINATES = "\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n10 4\n40.5 25\n\n"


def test_a_manual_picking_job_of_relion_4_is_read_through_its_list(tmp_path: Path) -> None:
    job = tmp_path / "ManualPick/job005"
    write(job / "Movies/m1_manualpick.star", COORDINATES)
    write(job / "micrographs_selected.star", "\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\nMovies/m1.mrc\n\n")
    row = "Movies/m1.mrc ManualPick/job005/Movies/m1_manualpick.star"
    labels = "_rlnMicrographName #1\n_rlnMicrographCoordinates #2"
    write(job / "manualpick.star", f"\ndata_coordinate_files\n\nloop_\n{labels}\n{row}\n\n")
    found = read_picks(job)
    assert {name: picks.xy_px.tolist() for name, picks in found.items()} == {"Movies/m1.mrc": [[10, 4], [40.5, 25]]}


def test_a_folder_with_two_lists_is_refused(tmp_path: Path) -> None:
    for name in ("autopick.star", "manualpick.star"):
        write(tmp_path / name, COORDINATES)
    with pytest.raises(InputError, match=r"autopick\.star and manualpick\.star; give one"):
        read_picks(tmp_path)


def test_tables_without_coordinates_beside_picks_are_left_out_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "m1_picks.star", COORDINATES)
    other = write(tmp_path / "class_averages.star", "\ndata_\n\nloop_\n_rlnReferenceImage #1\n1@a.mrcs\n\n")
    assert list(read_picks(tmp_path)) == ["m1"]
    assert "class_averages.star" in caplog.text
    (tmp_path / "m1_picks.star").unlink()
    with pytest.raises(FormatError, match=other.name):
        read_picks(tmp_path)


def test_links_among_coordinate_files_are_followed_and_dangling_ones_are_not_lost(tmp_path: Path) -> None:
    write(tmp_path / "real/m1.box", "6 0 8 8\n")
    folder = tmp_path / "boxes"
    folder.mkdir()
    (folder / "linked").symlink_to("../real")
    (folder / "linked_back").symlink_to(".")
    assert list(read_picks(folder)) == ["linked/m1"]
    (folder / "m2.box").symlink_to("/not/mounted/m2.box")
    with pytest.raises(InputError, match=r"m2\.box: .*leads nowhere \(-> /not/mounted/m2\.box\)"):
        read_picks(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="every folder is open to root")
def test_a_folder_of_coordinates_that_cannot_be_looked_into_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "m1.box", "6 0 8 8\n")
    (tmp_path / "closed").mkdir(mode=0)
    assert list(read_picks(tmp_path)) == ["m1"]
    assert "closed: left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "x,y,micrograph\n10,4,m1.mrc\n40,25, \n"),
        ("p.star", '\ndata_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"" 10 4\n\n'),
        ("p.txt", "image_name\tx_coord\ty_coord\n\t10\t4\n"),
    ],
)
def test_a_row_without_a_micrograph_name_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(FormatError, match=r"1 picks have an empty micrograph name"):
        read_picks(write(tmp_path / name, text))


@pytest.mark.parametrize(
    "header", ["X [px],Y [px],Radius [px]", "x (Å),y (Å),radius (Å)", "x [A],y [A],diameter_angstrom"]
)
def test_units_in_brackets_and_radii_are_understood(tmp_path: Path, header: str) -> None:
    scale = 1.5 if "px" not in header else 1
    size = 8 * scale if "diameter" in header else 4 * scale
    text = f"sep=,\n{header}\n{10 * scale},{4 * scale},{size}\n"
    picks = only(read_picks(write(tmp_path / "m1.csv", text), pixel_size_angstrom=1.5))
    assert picks.xy_px.tolist() == [[10, 4]]
    assert picks.diameter_px.tolist() == [8]


def test_scores_that_are_not_available_are_unknown(tmp_path: Path) -> None:
    picks = only(read_picks(write(tmp_path / "m1.csv", "x,y,score\n10,4,NA\n40,25,0.5\n")))
    assert np.isnan(picks.score[0])
    assert picks.score[1] == 0.5


def test_a_column_that_may_tell_ice_from_particles_is_not_dropped_without_a_word(tmp_path: Path) -> None:
    picks = only(read_picks(write(tmp_path / "m1.csv", "x,y,label\n10,4,protein\n40,25,ice\n")))
    assert "label (protein, ice) is not read" in " ".join(picks.warnings)
    assert not only(read_picks(write(tmp_path / "m2.csv", "x,y,label\n10,4,protein\n40,25,protein\n"))).warnings


def test_shifts_of_a_refinement_that_are_not_applied_are_named(tmp_path: Path) -> None:
    labels = "_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnOriginXAngst"
    for name, shift in (("shifted", "3.5"), ("unshifted", "0")):
        text = f"\ndata_particles\n\nloop_\n{labels}\nm1.mrc 10 4 {shift}\n\n"
        picks = only(read_picks(write(tmp_path / f"{name}.star", text)))
        assert picks.xy_px.tolist() == [[10, 4]]
        assert ("rlnOriginXAngst are not applied" in " ".join(picks.warnings)) == (name == "shifted")


def test_picks_of_one_micrograph_need_no_list_and_scores_that_topaz_cannot_hold_are_missed_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picks = make_picks("m1.mrc", [[10, 4], [40.5, 25]], [0.5, float("nan")])
    write_picks(picks, tmp_path / "m1.csv")
    assert only(read_picks(tmp_path / "m1.csv")).xy_px.tolist() == picks.xy_px.tolist()
    assert caplog.text == ""
    write_picks(picks, tmp_path / "m1.txt")
    assert "no scores are written, since 1 of 2 picks have none" in caplog.text
