"""Lengths as people write them; diameters that cannot be meant; shares that are not called everything or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.errors import SettingsError
from cryopick.geometry.units import (
    Length,
    as_length,
    check_diameter,
    meant_by_slip,
    parse_length,
    share_decimal,
    share_percent,
    share_range_text,
    share_text,
    too_wide,
)


@pytest.mark.parametrize(
    ("text", "low", "high", "unit"),
    [
        ("180A", 180, 180, "A"),
        ("180", 180, 180, "A"),
        ("18nm", 180, 180, "A"),
        ("0.018um", 180, 180, "A"),
        ("108px", 108, 108, "px"),
        ("150-200A", 150, 200, "A"),
        ("150A-200A", 150, 200, "A"),
        ("15 nm - 20 nm", 150, 200, "A"),
        ("1e2px", 100, 100, "px"),
        ("180 Angstrom", 180, 180, "A"),
        ("180 ångström", 180, 180, "A"),
        ("18 NM", 180, 180, "A"),
        pytest.param("180\u212b", 180, 180, "A", id="Angstrom sign"),
        pytest.param("180\u00c5", 180, 180, "A", id="letter A with ring"),
        pytest.param("180A\u030a", 180, 180, "A", id="A and a combining ring"),
        pytest.param("180\u00a0A", 180, 180, "A", id="no-break space"),
        pytest.param("150\u2013200A", 150, 200, "A", id="en dash"),
        pytest.param("150\u2212200A", 150, 200, "A", id="minus sign"),
        pytest.param("0.018\u03bcm", 180, 180, "A", id="Greek mu"),
        pytest.param("0.018\u00b5m", 180, 180, "A", id="micro sign"),
        pytest.param("\uff11\uff18\uff10\uff21", 180, 180, "A", id="full-width"),
    ],
)
def test_lengths_are_read_as_people_write_and_paste_them(text: str, low: float, high: float, unit: str) -> None:
    length = parse_length(text)
    assert (length.low, length.high, length.unit) == (pytest.approx(low), pytest.approx(high), unit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("180,5A", "decimals with a point"),
        ("1,800A", "thousands without a mark"),
        ("180 parsec", "unknown unit 'parsec'"),
        ("15nm-200A", "two units"),
        ("0A", "length 0A"),
        ("20-15nm", "length 20-15nm"),
        ("1e999A", "length 1e999A"),
        ("nan", "'nan' not understood"),
        ("-5px", "'-5px' not understood"),
        ("", "'' not understood"),
    ],
)
def test_a_wrong_length_is_shown_as_it_was_typed(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_length(text)
    assert words in str(error.value)


def test_a_length_is_shown_as_typed_but_kept_in_its_unit() -> None:
    typed = parse_length("18nm")
    assert (typed.as_typed, str(typed)) == ("18nm", "180A")
    assert typed == parse_length("180A")
    assert typed.times(2).as_typed == "360A"  # nobody typed that
    with pytest.raises(SettingsError, match="length 18nm is in Å but the pixel size"):
        typed.to_px(None)


@pytest.mark.parametrize("number", [60, 60.0, np.float32(60), np.int64(60), np.array(60.0, np.float32), np.uint8(60)])
def test_numbers_of_python_and_numpy_are_lengths_in_angstrom(number: object) -> None:
    assert as_length(number) == Length(60, 60, "A")


def test_a_short_float_is_the_number_that_it_prints_as() -> None:
    assert as_length(np.float32(60.1)).low == 60.1


@pytest.mark.parametrize("value", [10**400, True, np.True_, float("nan"), np.inf, None, np.array([60.0, 70.0]), 1j])
def test_what_is_no_finite_number_is_no_length(value: object) -> None:
    with pytest.raises(SettingsError):
        as_length(value)


# ------------------------------------------------------------------------------------------ diameters that can be meant


def refusal(text: str, *, pixel_size: float) -> str:
    with pytest.raises(SettingsError) as error:
        check_diameter(parse_length(text), shape_yx=(4096, 4096), pixel_size_angstrom=pixel_size)
    return str(error.value)


def test_a_diameter_that_is_too_small_is_refused_as_typed_with_what_it_means_and_what_was_meant() -> None:
    message = refusal("18A", pixel_size=5.0)
    assert "diameter 18A is 3.6 px at 5 Å per pixel, expected 4 px or more" in message
    assert "18nm (36 px)" in message
    assert "180A (36 px)" in message
    assert "diameter 2nm is 1 px at 20 Å" in refusal("2nm", pixel_size=20.0)
    assert "\n" not in message


def test_where_particles_are_enlarged_the_smallest_diameter_grows_with_the_micrograph() -> None:
    def check(shape_yx: tuple[int, int]) -> None:
        check_diameter(parse_length("8px"), shape_yx=shape_yx, pixel_size_angstrom=None, enlarged_to_px=25.0)

    check((1024, 1024))
    with pytest.raises(SettingsError, match=r"expected .* px or more on 8192 x 8192 px"):
        check((8192, 8192))  # would be 25,600 pixels wide


def test_a_diameter_of_most_of_the_micrograph_is_doubted_with_the_slip_that_explains_it() -> None:
    doubt = too_wide(parse_length("180nm"), shape_yx=(4000, 4096), pixel_size_angstrom=1.0)
    assert "180nm is 1800 px at 1 Å per pixel, 45 % of the shorter side of the micrograph (4096 x 4000 px)" in doubt
    assert "180A (180 px)" in doubt
    assert "18nm (180 px)" in doubt
    assert "wider than" in too_wide(parse_length("900px"), shape_yx=(512, 640), pixel_size_angstrom=None)
    assert too_wide(parse_length("180A"), shape_yx=(4000, 4096), pixel_size_angstrom=1.0) == ""


# ------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-5, "less than 0.1 %"),
        (0.004, "0.4 %"),
        (0.5, "50 %"),
        (0.994, "99 %"),
        (0.995, "99.5 %"),
        (0.99996, "more than 99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_only_everything_is_100_percent_and_only_nothing_is_0(share: float, text: str) -> None:
    assert share_percent(share) == text


@given(st.floats(0, 1))
def test_an_expected_share_is_never_everything_nor_nothing(share: float) -> None:
    text = share_text(share)
    assert text.startswith((">", "<")) or 1 <= int(text.split()[0]) <= 99


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "<1 %"),
        (0.009, "<1 %"),
        (0.835, "84 %"),
        (0.99, "99 %"),
        (0.9901, ">99 %"),
        (0.995, ">99 %"),
        (1, ">99 %"),
    ],
)
def test_an_expected_share_has_the_digits_of_an_expectation(share: float, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.85, 0.93, "85 to 93 %"),
        (0.968, 0.999, "97 to >99 %"),
        (0.0, 0.7, "<1 to 70 %"),
        (0.951, 0.949, "95 %"),
        (0.995, 1.0, ">99 %"),
    ],
)
def test_a_range_of_expected_shares_has_both_ends_unless_they_read_alike(low: float, high: float, text: str) -> None:
    assert share_range_text(low, high) == text


@pytest.mark.parametrize(
    ("typed", "seen", "meant"),
    [
        ("13A", 131, "130A was meant"),
        ("13A", 131, "13nm was meant"),
        ("1300A", 125, "130A was meant"),
        ("13nm", 13.5, "13A was meant"),
        ("65A", 131, "the radius was given"),
        ("262A", 131, "twice the diameter was given"),
        ("74A", 131, "74px was meant"),
        ("131px", 74, "131A was meant"),
    ],
)
def test_a_slip_is_recognised_by_the_size_that_is_seen(typed: str, seen: float, meant: str) -> None:
    given = parse_length(typed)
    assert meant in meant_by_slip(given, Length(seen, seen, given.unit), pixel_size_angstrom=1.77)


def test_no_slip_is_named_where_none_fits_or_the_pixel_size_that_it_needs_is_unknown() -> None:
    assert meant_by_slip(parse_length("100A"), Length(150, 150, "A"), pixel_size_angstrom=None) == ""
    assert meant_by_slip(parse_length("131px"), Length(74, 74, "px"), pixel_size_angstrom=None) == (
        "perhaps twice the diameter was given; "
    )


@given(st.floats(0, 1), st.integers(1, 6))
def test_a_share_as_a_decimal_is_rounded_but_never_to_all_or_nothing(share: float, digits: int) -> None:
    shown = float(share_decimal(share, digits))
    assert abs(shown - share) <= 1.0001 * 10.0**-digits
    assert (shown == 1) == (share == 1)
    assert (shown == 0) == (share == 0)


@pytest.mark.parametrize("text", ["1e300px", "1e9A", "1e8nm", "5-1e12px"])
def test_a_length_that_no_arithmetic_survives_is_a_slip(text: str) -> None:
    with pytest.raises(SettingsError, match="expected less than 1e\\+09"):
        parse_length(text)


@pytest.mark.parametrize("value", [None, 180, b"180A", (150, 200)])
def test_what_is_no_text_is_told_what_a_length_looks_like(value: object) -> None:
    with pytest.raises(SettingsError, match="expected a text such as 180A"):
        parse_length(value)  # type: ignore[arg-type]
