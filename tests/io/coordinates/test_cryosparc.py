"""CryoSPARC `.cs`: both row conventions, chosen aloud; columns, units and damage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, MissingExtraError, SettingsError
from cryopick.io.coordinates.cryosparc import read_cryosparc, write_cryosparc
from cryopick.types import Picks

NAME = "J1/motioncorrected/008578565574161745010_m1_patch_aligned_doseweighted.mrc"


def picks_of(name: str = NAME, *, shape_yx: tuple[int, int] = (30, 50)) -> Picks:
    return Picks(
        xy_px=np.array([[10.0, 6.0], [40.0, 24.0]]),
        score=np.array([0.5, 2.0], dtype=np.float32),
        micrograph_name=name,
        shape_yx=shape_yx,
        pixel_size_angstrom=1.25,
    )


@pytest.mark.parametrize(("rows", "y_frac"), [("relion", [0.2, 0.8]), ("flipped", [0.8, 0.2])])
def test_fractions_are_of_width_and_height_in_the_convention_asked_for(
    tmp_path: Path, rows: str, y_frac: list[float]
) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows=rows)
    table = np.load(tmp_path / "p.cs")
    assert np.allclose(table["location/center_x_frac"], [0.2, 0.8])
    assert np.allclose(table["location/center_y_frac"], y_frac)
    assert table["location/micrograph_shape"].tolist() == [[30, 50]] * 2
    assert table["location/micrograph_psize_A"].tolist() == [1.25] * 2
    assert table["pick_stats/ncc_score"].tolist() == [0.5, 2]
    assert table["location/micrograph_uid"].tolist() == [8578565574161745010] * 2
    assert len(set(table["uid"].tolist())) == 2
    again = read_cryosparc(tmp_path / "p.cs", rows=rows)[NAME]
    assert np.allclose(again.xy_px, picks_of().xy_px, atol=1e-5)
    assert (again.shape_yx, again.pixel_size_angstrom) == ((30, 50), 1.25)


def test_a_file_as_cryosparc_writes_it_is_read_with_its_other_columns(tmp_path: Path) -> None:
    """Columns and types as in CryoSPARC's exports: text as objects of fixed width, fractions as float32."""
    table = np.zeros(
        2,
        dtype=[
            ("uid", "<u8"),
            ("blob/path", "S40"),
            ("ctf/type", "S6"),
            ("location/micrograph_uid", "<u8"),
            ("location/exp_group_id", "<u4"),
            ("location/micrograph_path", "S80"),
            ("location/micrograph_shape", "<u4", (2,)),
            ("location/center_x_frac", "<f4"),
            ("location/center_y_frac", "<f4"),
            ("alignments3D/pose", "<f4", (3,)),
        ],
    )
    table["location/micrograph_path"] = NAME.encode()
    table["location/micrograph_shape"] = (4092, 5760)
    table["location/center_x_frac"] = [0.25, 0.5]
    table["location/center_y_frac"] = [0.75, 0.5]
    with (tmp_path / "p.cs").open("wb") as stream:
        np.save(stream, table)
    picks = read_cryosparc(tmp_path / "p.cs", rows="flipped")[NAME]
    assert picks.xy_px.tolist() == [[1440, 1023], [2880, 2046]]
    assert np.isnan(picks.score).all()
    assert picks.pixel_size_angstrom is None


def test_row_convention_must_be_given(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows="relion")
    for rows in (None, "up"):
        with pytest.raises(
            SettingsError, match=r"p\.cs: the row convention is .* give rows='relion' or rows='flipped'"
        ):
            read_cryosparc(tmp_path / "p.cs", rows=rows)


def test_same_picks_give_the_same_bytes_and_other_micrographs_other_uids(tmp_path: Path) -> None:
    for name in ("a.cs", "b.cs"):
        write_cryosparc(tmp_path / name, [picks_of("m1.mrc"), picks_of("m2.mrc")], rows="relion")
    assert (tmp_path / "a.cs").read_bytes() == (tmp_path / "b.cs").read_bytes()
    table = np.load(tmp_path / "a.cs")
    assert len(set(table["uid"].tolist())) == 4
    assert len(set(table["location/micrograph_uid"].tolist())) == 2


def test_compressed_form_is_recognised_and_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryosparc.dataset", None)
    for first_byte in (b"\x94", b"\x95"):  # of different versions of cryosparc-tools
        (tmp_path / "p.cs").write_bytes(first_byte + b"CSDAT" + b"\0" * 100)
        with pytest.raises(MissingExtraError, match=r"cryosparc-tools; install with: "):
            read_cryosparc(tmp_path / "p.cs", rows="relion")


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows="relion")
    whole = (tmp_path / "p.cs").read_bytes()
    (tmp_path / "p.cs").write_bytes(whole[:-10])
    with pytest.raises(FormatError, match=r"p\.cs: truncated"):
        read_cryosparc(tmp_path / "p.cs", rows="relion")
    with (tmp_path / "q.cs").open("wb") as stream:
        np.save(stream, np.zeros(3, dtype=[("uid", "<u8")]))
    with pytest.raises(FormatError, match="location/micrograph_path"):
        read_cryosparc(tmp_path / "q.cs", rows="relion")
    with (tmp_path / "r.cs").open("wb") as stream:
        np.save(stream, np.zeros((3, 2)))
    with pytest.raises(FormatError, match="expected a table of named columns"):
        read_cryosparc(tmp_path / "r.cs", rows="relion")


def test_a_table_of_fewer_than_no_rows_is_refused(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows="relion")
    whole = (tmp_path / "p.cs").read_bytes()
    (tmp_path / "p.cs").write_bytes(re.sub(rb"'shape': \(\d+,\)", b"'shape': (-1,)", whole).replace(b" \n", b"\n", 1))
    with pytest.raises(FormatError, match=r"shape \(-1,\), expected a table"):
        read_cryosparc(tmp_path / "p.cs", rows="relion")


def test_a_micrograph_with_two_sizes_is_inconsistent(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of(), picks_of(shape_yx=(31, 50))], rows="relion")
    with pytest.raises(FormatError, match="two sizes"):
        read_cryosparc(tmp_path / "p.cs", rows="relion")


def test_a_fraction_that_is_no_number_names_its_row(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows="relion")
    table = np.load(tmp_path / "p.cs")
    table["location/center_x_frac"][1] = np.nan
    with (tmp_path / "p.cs").open("wb") as stream:
        np.save(stream, table)
    with pytest.raises(FormatError, match=r"p\.cs row 2: location/center_x_frac is nan"):
        read_cryosparc(tmp_path / "p.cs", rows="relion")


def test_cryosparc_tools_reads_ours_and_we_read_its_both_forms(tmp_path: Path) -> None:
    dataset = pytest.importorskip("cryosparc.dataset", reason="needs cryosparc-tools")
    write_cryosparc(tmp_path / "p.cs", [picks_of()], rows="flipped")
    table = dataset.Dataset.load(str(tmp_path / "p.cs"))
    assert list(table["location/micrograph_path"]) == [NAME] * 2
    assert np.allclose(table["location/center_y_frac"], [0.8, 0.2])
    table.save(str(tmp_path / "plain.cs"), format=dataset.NUMPY_FORMAT)
    table.save(str(tmp_path / "compressed.cs"), format=dataset.CSDAT_FORMAT)
    for name in ("plain.cs", "compressed.cs"):
        again = read_cryosparc(tmp_path / name, rows="flipped")[NAME]
        assert np.allclose(again.xy_px, picks_of().xy_px, atol=1e-5)


def save(path: Path, table: np.ndarray) -> Path:
    with path.open("wb") as stream:
        np.save(stream, table)
    return path


def selected(uids: list[int]) -> np.ndarray:
    """Particles of Select 2D, whose locations are in the passthrough file."""
    table = np.zeros(len(uids), dtype=[("uid", "<u8"), ("blob/path", "S20"), ("alignments2D/class", "<u4")])
    table["uid"] = uids
    return table


def test_a_file_without_locations_is_joined_on_uid_with_the_passthrough_file_beside_it(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "J9_passthrough_particles.cs", [picks_of(), picks_of("m2.mrc")], rows="relion")
    uids = np.load(tmp_path / "J9_passthrough_particles.cs")["uid"].tolist()
    save(tmp_path / "J9_other.cs", selected([5]))
    (tmp_path / "damaged.cs").write_bytes(b"x")
    path = save(tmp_path / "J9_particles_selected.cs", selected([uids[3], uids[0]]))
    found = read_cryosparc(path, rows="relion")
    assert list(found) == ["m2.mrc", NAME]
    assert np.allclose(found["m2.mrc"].xy_px, picks_of().xy_px[1:], atol=1e-5)
    assert np.allclose(found[NAME].xy_px, picks_of().xy_px[:1], atol=1e-5)
    assert "J9_passthrough_particles.cs, by uid" in found[NAME].warnings[0]
    write_cryosparc(tmp_path / "again.cs", [picks_of(), picks_of("m2.mrc")], rows="flipped")
    with pytest.raises(FormatError, match=r"J9_passthrough_particles\.cs, again\.cs beside it have different ones"):
        read_cryosparc(path, rows="relion")


def test_a_file_without_locations_and_without_another_says_which_file_to_give(tmp_path: Path) -> None:
    path = save(tmp_path / "J9_particles_selected.cs", selected([1, 2]))
    write_cryosparc(tmp_path / "of_others.cs", [picks_of()], rows="relion")
    with pytest.raises(FormatError, match=r"passthrough_particles\*\.cs: give the one that has locations"):
        read_cryosparc(path, rows="relion")


def test_pixel_sizes_that_differ_by_rounding_or_are_unknown_in_some_rows_are_one(tmp_path: Path) -> None:
    write_cryosparc(tmp_path / "p.cs", [picks_of(), picks_of()], rows="relion")
    table = np.load(tmp_path / "p.cs")
    size = np.float32(1.1)
    for sizes in ([0, size, np.nextafter(size, np.float32(2)), np.nan], [size, 0, 0, size * np.float32(1.00005)]):
        table["location/micrograph_psize_A"] = sizes
        found = read_cryosparc(save(tmp_path / "q.cs", table), rows="relion")[NAME]
        assert found.pixel_size_angstrom == pytest.approx(1.1)
        assert len(found) == 4
    table["location/micrograph_psize_A"] = [1.1, 1.1, 1.1, 1.12]
    with pytest.raises(FormatError, match="two sizes or pixel sizes"):
        read_cryosparc(save(tmp_path / "q.cs", table), rows="relion")
    table["location/micrograph_psize_A"] = 0
    assert read_cryosparc(save(tmp_path / "q.cs", table), rows="relion")[NAME].pixel_size_angstrom is None
