"""Whom to believe about the pixel size."""

import math

import pytest

from cryopick.errors import SettingsError
from cryopick.io.images.pixel_size import choose_pixel_size, doubt_about


def _choose(given=None, optics=None, header=None):
    return choose_pixel_size(given_angstrom=given, optics_angstrom=optics, header_angstrom=header)


@pytest.mark.parametrize(
    ("given", "optics", "header", "expected"),
    [
        (1.1, 1.12, 1.13, 1.1),
        (1.1, 1.1, 2.2, 1.1),
        (1.1, None, 1.0, 1.1),
        (None, 1.2, 1.201, 1.2),
        (None, None, 1.3, 1.3),
        (None, None, None, None),
    ],
)
def test_given_beats_optics_table_beats_header(given, optics, header, expected):
    assert _choose(given, optics, header) == (expected, ())


@pytest.mark.parametrize("header", [0.0, -1.0, math.nan, math.inf])
def test_header_that_is_no_length_means_unknown_and_says_so(header):
    angstrom, warnings = _choose(header=header)
    assert angstrom is None
    assert "unknown; give --pixel-size" in warnings[0]


@pytest.mark.parametrize("value", [1.0, 0.199, 20.1])
@pytest.mark.parametrize("source", ["given", "optics", "header"])
def test_doubtful_values_are_used_but_doubted_aloud(value, source):
    angstrom, warnings = _choose(**{source: value})
    assert angstrom == value
    assert len(warnings) == 1
    assert "check it" in warnings[0]


@pytest.mark.parametrize("value", [0.2, 0.9999, 1.0001, 20.0])
def test_values_at_the_limits_are_not_doubted(value):
    assert doubt_about(value) is None
    assert _choose(header=value) == (value, ())


def test_optics_table_without_a_length_falls_back_to_the_header_aloud():
    angstrom, warnings = _choose(optics=0.0, header=1.3)
    assert angstrom == 1.3
    assert "optics table's pixel size is 0" in warnings[0]


def test_optics_table_and_sound_header_that_disagree_are_reported():
    angstrom, warnings = _choose(optics=1.3, header=0.65)
    assert angstrom == 1.3
    assert "header 0.65" in warnings[0]
    assert _choose(optics=1.3, header=1.0) == (1.3, ())  # a header that is doubtful itself contradicts nobody


@pytest.mark.parametrize(
    ("given", "header", "slip"),
    [
        (18.0, 1.8, "ten times as much, as by a slip of the decimal point"),
        (0.106, 1.06, "a tenth, as by a slip of the decimal point, or nm for Å"),
        (2.12, 1.06, "twice as much, as of micrographs binned by 2"),
        (0.53, 1.06, "half as much, as of super-resolution"),
        (1.4, 1.06, ""),
    ],
)
@pytest.mark.parametrize("source", ["optics", "header"])
def test_a_given_pixel_size_that_neither_table_nor_header_has_is_used_and_slips_named(given, header, slip, source):
    angstrom, warnings = _choose(given=given, **{source: header})
    assert angstrom == given
    assert f"--pixel-size says {given:g} Å per pixel" in warnings[-1]
    assert f"{header:g} Å{f' (the given one is {slip})' if slip else ''}; the given one is used" in warnings[-1]


@pytest.mark.parametrize("given", [0.0, -1.5, math.nan, math.inf])
def test_a_given_value_that_is_no_length_is_the_callers_mistake(given):
    with pytest.raises(SettingsError, match="expected a positive number"):
        _choose(given=given, header=1.3)
