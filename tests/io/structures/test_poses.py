"""Refined particles: impossible numbers are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, SettingsError
from cryopick.io.structures.poses import read_poses

COLUMNS = ("MicrographName", "CoordinateX", "CoordinateY", "AngleRot", "AngleTilt", "AnglePsi")


def write_table(path: Path, row: str, *more: str) -> Path:
    labels = "".join(f"_rln{name}\n" for name in (*COLUMNS, *more))
    path.write_text(f"data_\n\nloop_\n{labels}{row}\n\n")
    return path


def test_magnification_and_origin_give_centres_in_pixels_of_the_micrograph(tmp_path: Path) -> None:
    more = ("DetectorPixelSize", "Magnification", "OriginXAngst", "OriginYAngst")
    path = write_table(tmp_path / "p.star", "m.mrc 10 20 1 2 3 5 25000 4 -2", *more)  # 5 µm / 25000 = 2 Å
    poses = read_poses(path)["m.mrc"]
    assert poses.pixel_size_angstrom == 2
    np.testing.assert_array_equal(poses.xy_px, [[8, 21]])


@pytest.mark.parametrize(("pixel", "magnification"), [("5", "0"), ("0", "25000"), ("-5", "25000"), ("1e300", "1e-300")])
def test_impossible_magnifications_are_refused(tmp_path: Path, pixel: str, magnification: str) -> None:
    row = f"m.mrc 10 20 1 2 3 {pixel} {magnification}"
    path = write_table(tmp_path / "p.star", row, "DetectorPixelSize", "Magnification")
    with pytest.raises(FormatError, match=r"p\.star: rlnMicrographPixelSize of row 1 is"):
        read_poses(path)


def test_places_beyond_any_micrograph_are_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "p.star", "m.mrc 10 20 1 2 3 1e20 0", "OriginXAngst", "OriginYAngst")
    with pytest.raises(FormatError, match="beyond any micrograph"):
        read_poses(path, pixel_size_angstrom=1.5)


@pytest.mark.parametrize("given", [0.0, -1.5, float("nan"), float("inf")])
def test_a_given_pixel_size_is_positive(tmp_path: Path, given: float) -> None:
    path = write_table(tmp_path / "p.star", "m.mrc 10 20 1 2 3")
    with pytest.raises(SettingsError, match="expected a positive number"):
        read_poses(path, pixel_size_angstrom=given)
