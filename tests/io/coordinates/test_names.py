"""Names of one micrograph in different programs are matched; whatever is ambiguous is refused."""

from __future__ import annotations

import pytest

from cryopick.errors import InputError
from cryopick.io.coordinates.names import (
    by_products_of_picking,
    match_micrograph_names,
    micrograph_name_of_file,
    without_extension,
)


@pytest.mark.parametrize(
    ("name", "candidate"),
    [
        ("m1.mrc", "m1.mrc"),
        ("m1", "m1.mrc"),
        ("May08_03.15.02", "May08_03.15.02.png"),
        ("MotionCorr/job002/Movies/m1.mrc", "Movies/m1.mrc"),
        ("m1_autopick.star", "m1.mrc.gz"),
        ("008578565574161745010_m1_patch_aligned_doseweighted.mrc", "m1.mrc"),
        ("J42/motioncorrected/008578565574161745010_m1_patch_aligned_doseweighted.mrc", "m1.tif"),
        ("m1", "008578565574161745010_m1_patch_aligned_doseweighted.mrc"),
        ("C:\\data\\m1.mrc", "m1.mrc"),
        ("m1_automatch.star", "m1.mrc"),
        ("m1_extract.star", "m1.mrc"),
        ("m1_topazpicks.star", "m1.mrc"),
        ("m1_manualpick.star", "m1_noDW.mrc"),
        ("m1_DW_automatch.star", "m1.mrc"),
        ("m1_dw.box", "m1.mrc"),
        ("m1_sum_coords.txt", "m1_SumCorr.mrc"),
        ("m1.frames_picks.star", "m1.mrc"),
        ("m1", "m1_Fractions.tif"),
        ("m1_aligned_mic_DW.box", "m1.mrc"),
        ("M1_autopick.star", "m1.mrc"),
    ],
)
def test_aliases_of_one_micrograph_match(name: str, candidate: str) -> None:
    assert match_micrograph_names([name], [candidate, "other.mrc"]) == {name: candidate}


def test_names_without_a_micrograph_are_left_out() -> None:
    assert match_micrograph_names(["m1", "m2"], ["m1.mrc", "m3.mrc"]) == {"m1": "m1.mrc"}


def test_equal_base_names_are_told_apart_by_their_folders() -> None:
    found = match_micrograph_names(["x/one/m", "x/two/m"], ["two/m.mrc", "one/m.mrc"])
    assert found == {"x/one/m": "one/m.mrc", "x/two/m": "two/m.mrc"}


def test_closest_match_wins_before_aliases_are_tried() -> None:
    candidates = ["m1.mrc", "m1_DW.mrc"]
    assert match_micrograph_names(["m1_DW", "m1"], candidates) == {"m1_DW": "m1_DW.mrc", "m1": "m1.mrc"}


def test_a_name_that_fits_two_micrographs_is_refused() -> None:
    with pytest.raises(InputError, match=r"'m' fits 2 micrographs: one/m\.mrc, two/m\.mrc; use names that include"):
        match_micrograph_names(["m"], ["one/m.mrc", "two/m.mrc"])


def test_two_names_that_fit_one_micrograph_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 names fit the one micrograph 'm\.mrc': one/m, two/m"):
        match_micrograph_names(["one/m", "two/m"], ["m.mrc"])


def test_only_known_extensions_are_removed() -> None:
    assert without_extension("a/May08_03.15.02.mrc.gz") == "a/May08_03.15.02"
    assert without_extension("a/May08_03.15.02") == "a/May08_03.15.02"
    assert without_extension(".mrc") == ".mrc"
    assert micrograph_name_of_file("a/m1_picks.star") == "a/m1"
    assert micrograph_name_of_file("m1_info.json") == "m1"


@pytest.mark.parametrize("name", ["m1_ali", "m1", "M1"])
def test_endings_never_make_two_micrographs_one(name: str) -> None:
    candidates = ["m1_sum.mrc", "m1_avg.mrc"]
    with pytest.raises(InputError, match="fits 2 micrographs"):
        match_micrograph_names([name], candidates)
    found = match_micrograph_names(["m1_sum", "m1_avg"], candidates)
    assert found == {"m1_sum": "m1_sum.mrc", "m1_avg": "m1_avg.mrc"}
    assert match_micrograph_names(["m1", "M1"], ["m1.mrc", "M1.mrc"]) == {"m1": "m1.mrc", "M1": "M1.mrc"}


def test_numbers_and_words_inside_names_are_no_endings() -> None:
    assert match_micrograph_names(["sum_1", "dw2", "m1_2"], ["1.mrc", "dw.mrc", "m1.mrc"]) == {}


def test_what_gautomatch_writes_beside_its_picks_is_told_from_them() -> None:
    files = ["a/m1_automatch.star", "a/m1_rejected.star", "a/m1_nonunique.star", "m2_rejected.star", "m3.star"]
    assert by_products_of_picking(files) == {"a/m1_rejected.star", "a/m1_nonunique.star"}
