"""Sizes of boxes and pixels."""

from __future__ import annotations

import pytest

from cryopick.errors import SettingsError
from cryopick.workflows.validate3d.geometry import box_geometry


def test_sizes_follow_from_the_diameter() -> None:
    found = box_geometry(275.0, 5.0)
    assert (found.box_px, found.scaled_px) == (84, 48)  # 1.5 x 55 px = 82.5; 420 Å at 275 / 32 Å
    assert found.pixel_size_angstrom == 8.75
    assert found.nyquist_angstrom == 17.5


def test_pixels_are_never_finer_than_the_micrograph_s() -> None:
    found = box_geometry(100.0, 5.0)
    assert found.pixel_size_angstrom == 5.0
    assert found.box_px == found.scaled_px == 30


def test_wanted_pixels_are_met_as_well_as_an_even_box_allows() -> None:
    assert box_geometry(275.0, 5.0, angpix=6.0).pixel_size_angstrom == pytest.approx(6.0)
    assert box_geometry(275.0, 5.0, angpix=7.0).pixel_size_angstrom == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"box_px": 85}, "the box is 85 pixels, expected an even number .*; give --box 86px"),
        ({"box_px": 56}, "the box is 280 Å wide and the particle 275 Å"),
        ({"angpix": 4.0}, "--angpix is 4 Å and the micrographs have 5 Å"),
        ({"angpix": 40.0}, "finer pixels"),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(asked: dict[str, float], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        box_geometry(275.0, 5.0, **asked)
