"""Atomic models from tiny files written here."""

from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, InputError
from cryopick.io.structures.structure import read_structure


def pdb_atom(
    serial: int, name: str, element: str, xyz: tuple[float, float, float], *, residue: str = "GLY", b: float = 20.0
) -> str:
    x, y, z = xyz
    record = "ATOM  " if residue == "GLY" else "HETATM"
    place = f"{x:8.3f}{y:8.3f}{z:8.3f}"
    identity = f"{record}{serial:5d}  {name:<3s} {residue:3s} A{serial:4d}"
    return f"{identity}    {place}{1:6.2f}{b:6.2f}          {element:>2s}"


TWO_ATOMS = "\n".join([pdb_atom(1, "CA", "C", (1, 2, 3), b=31), pdb_atom(2, "O", "O", (4, 5, 6)), "END"])

ASSEMBLY = """REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
"""

MMCIF = """data_tiny
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_asym_id
_atom_site.auth_seq_id
ATOM 1 N N . ALA A 1 0.5 1.5 2.5 1.0 12.0 A 1
ATOM 2 C CA . ALA A 1 1.5 2.5 3.5 0.5 14.0 A 1
"""


def test_pdb_atoms_by_hand(tmp_path: Path) -> None:
    (tmp_path / "two.pdb").write_text(TWO_ATOMS)
    model = read_structure(tmp_path / "two.pdb")
    np.testing.assert_allclose(model.xyz_angstrom, [[1, 2, 3], [4, 5, 6]])
    assert model.element.tolist() == ["C", "O"]
    np.testing.assert_allclose(model.b_factor_angstrom2, [31, 20])
    np.testing.assert_allclose(model.occupancy, [1, 1])
    assert model.name == "two"


def test_mmcif_atoms_by_hand(tmp_path: Path) -> None:
    (tmp_path / "tiny.cif").write_text(MMCIF)
    model = read_structure(tmp_path / "tiny.cif")
    np.testing.assert_allclose(model.xyz_angstrom, [[0.5, 1.5, 2.5], [1.5, 2.5, 3.5]])
    assert model.element.tolist() == ["N", "C"]
    np.testing.assert_allclose(model.occupancy, [1.0, 0.5])


def test_first_assembly_is_built(tmp_path: Path) -> None:
    (tmp_path / "dimer.pdb").write_text(ASSEMBLY + TWO_ATOMS)
    whole = read_structure(tmp_path / "dimer.pdb")
    expected = {(1, 2, 3), (4, 5, 6), (-1, -2, 3), (-4, -5, 6)}
    assert {tuple(row) for row in whole.xyz_angstrom.round().astype(int).tolist()} == expected
    assert len(read_structure(tmp_path / "dimer.pdb", assembly="none")) == 2


def test_unknown_assembly_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "dimer.pdb").write_text(ASSEMBLY + TWO_ATOMS)
    with pytest.raises(InputError, match="no assembly '7'; the file lists: 1"):
        read_structure(tmp_path / "dimer.pdb", assembly="7")


def test_water_is_left_to_the_ice(tmp_path: Path) -> None:
    water = pdb_atom(3, "O", "O", (9, 9, 9), residue="HOH")
    (tmp_path / "wet.pdb").write_text(TWO_ATOMS.replace("END", water + "\nEND"))
    assert len(read_structure(tmp_path / "wet.pdb")) == 2


def test_structure_without_atoms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pdb").write_text("HEADER    NOTHING HERE\nEND\n")
    with pytest.raises(InputError, match=r"empty\.pdb: the structure holds no atoms"):
        read_structure(tmp_path / "empty.pdb")
    (tmp_path / "empty.cif").write_text("data_empty\n_entry.id X\n")
    with pytest.raises(InputError, match="the structure holds no atoms"):
        read_structure(tmp_path / "empty.cif")


def test_only_water_counts_as_no_atoms(tmp_path: Path) -> None:
    (tmp_path / "sea.pdb").write_text(pdb_atom(1, "O", "O", (1, 1, 1), residue="HOH") + "\nEND\n")
    with pytest.raises(InputError, match="no atoms besides water"):
        read_structure(tmp_path / "sea.pdb")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pdb: no such file"):
        read_structure(tmp_path / "absent.pdb")
    (tmp_path / "broken.cif").write_text("loop_ this is no cif {")
    with pytest.raises(FormatError, match=r"broken\.cif: not a readable PDB or mmCIF file"):
        read_structure(tmp_path / "broken.cif")
    (tmp_path / "void.cif").write_text("")
    with pytest.raises(FormatError, match=r"void\.cif: not a readable PDB or mmCIF file"):
        read_structure(tmp_path / "void.cif")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("   1.000", "     nan", "not finite"),
        ("  1.00 31.00", "  7.00 31.00", "occupancy is 7"),
        (" 31.00 ", "   nan ", "not finite"),
    ],
)
def test_numbers_that_no_atom_has_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TWO_ATOMS
    (tmp_path / "a.pdb").write_text(TWO_ATOMS.replace(old, new, 1))
    with pytest.raises(FormatError, match=message):
        read_structure(tmp_path / "a.pdb")


def test_an_assembly_without_operators_is_refused_by_name_not_taken_for_water(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text(ASSEMBLY.replace("BIOMT3", "BIOMT9") + TWO_ATOMS)
    with pytest.raises(InputError, match="assembly 'first' holds no atoms"):
        read_structure(tmp_path / "a.pdb")
    assert len(read_structure(tmp_path / "a.pdb", assembly="none")) == 2
