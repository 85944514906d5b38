"""Atomic models in PDB and mmCIF files, read through gemmi."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError

FIRST_ASSEMBLY = "first"
AS_DEPOSITED = "none"
_LARGEST_COORDINATE_ANGSTROM = 1e6
"""No single particle is a tenth of a millimetre wide; a PDB file has room for less than 1e4 Å."""


@dataclass(frozen=True, eq=False)
class AtomicModel:
    """The atoms of one structure.

    Parameters
    ----------
    xyz_angstrom : (n, 3) float64, `(x, y, z)`
    element : (n,) str, symbols as in the periodic table, such as "C" or "Fe"
    b_factor_angstrom2 : (n,) float64, isotropic
    occupancy : (n,) float64 in [0, 1]
    name : of the structure
    """

    xyz_angstrom: NDArray[np.float64]
    element: NDArray[np.str_]
    b_factor_angstrom2: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    name: str = "structure"

    def __len__(self) -> int:
        return len(self.xyz_angstrom)


def read_structure(path: str | os.PathLike[str], *, assembly: str = FIRST_ASSEMBLY) -> AtomicModel:
    """Read the first model of a PDB or mmCIF file, built up to its biological assembly.

    Parameters
    ----------
    path : .pdb, .ent, .cif or .mmcif, possibly ending in .gz
    assembly : name of the assembly, "first" (the first one listed; as deposited when the file lists none) or "none"
        (as deposited)

    Returns
    -------
    model : all atoms but water, which is counted as ice

    Raises
    ------
    InputError
        No such file, no atoms in it, or an assembly that the file does not list.
    FormatError
        The file cannot be parsed, or holds coordinates, B factors or occupancies that no atom has.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an atomic model (.pdb, .ent, .cif, .mmcif, also .gz)")
    try:
        structure = gemmi.read_structure(str(path))
    except Exception as error:  # gemmi documents none: ValueError, RuntimeError, IndexError, UnicodeDecodeError, …
        reason = str(error).partition("\n")[0]
        raise FormatError(f"{path}: not a readable PDB or mmCIF file ({reason})") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise InputError(f"{path}: the structure holds no atoms; expected ATOM records or a complete _atom_site loop")
    try:
        structure.setup_entities()
        structure.remove_waters()
        model = _assembled(structure, assembly, path)
    except (ValueError, RuntimeError, IndexError) as error:
        raise FormatError(f"{path}: chains or assemblies cannot be understood ({error}); export it again") from error
    if model.count_atom_sites() == 0 and structure[0].count_atom_sites() > 0:
        raise InputError(
            f"{path}: assembly {assembly!r} holds no atoms, since its operators or chains are missing; give another, "
            f"or {AS_DEPOSITED!r}"
        )
    rows = [(*site.atom.pos.tolist(), site.atom.b_iso, site.atom.occ) for site in model.all() if site.atom.occ > 0]
    elements = [site.atom.element.name for site in model.all() if site.atom.occ > 0]
    if not rows:
        raise InputError(f"{path}: the structure holds no atoms besides water; expected a macromolecule")
    table = np.array(rows, dtype=np.float64)  # (n, 5)
    if not (np.isfinite(table).all() and np.abs(table[:, :3]).max() < _LARGEST_COORDINATE_ANGSTROM):
        raise FormatError(
            f"{path}: holds coordinates, B factors or occupancies that are not finite or beyond "
            f"{_LARGEST_COORDINATE_ANGSTROM:g} Å; export the model again"
        )
    if table[:, 4].max() > 1:
        raise FormatError(f"{path}: an occupancy is {table[:, 4].max():g}, expected at most 1; export the model again")
    return AtomicModel(table[:, :3], np.array(elements), table[:, 3], table[:, 4], name=path.name.split(".")[0])


def _assembled(structure: gemmi.Structure, assembly: str, path: Path) -> gemmi.Model:
    listed = [entry.name for entry in structure.assemblies]
    if assembly == AS_DEPOSITED or (assembly == FIRST_ASSEMBLY and not listed):
        return structure[0]
    name = listed[0] if assembly == FIRST_ASSEMBLY else assembly
    if name not in listed:
        known = ", ".join(listed) or "none"
        raise InputError(f"{path}: no assembly {name!r}; the file lists: {known}; or give {AS_DEPOSITED!r}")
    chosen = structure.assemblies[listed.index(name)]
    return gemmi.make_assembly(chosen, structure[0], gemmi.HowToNameCopiedChain.Dup)
