"""Potential maps against numbers worked out from the scattering tables and against direct sums of Gaussians."""

from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.io.structures.structure import AtomicModel
from cryopick.io.structures.volume import write_volume
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.specimens.specimen import (
    ENVELOPE_CONTRAST_V,
    ICE_DENSITY_G_PER_CM3,
    ICE_POTENTIAL_V,
    PROTEIN_CONTRAST_V,
    SCATTERING_TO_POTENTIAL,
    BandLimitedGrid,
    deposit,
    volume_from_atoms,
    volume_from_map,
    volume_from_structure,
)
from cryopick.types import Volume

AVOGADRO_PER_ANGSTROM3 = 0.602214  # times g/cm^3 over g/mol gives molecules per Å^3


def atoms(elements: str, xyz: list[tuple[float, float, float]], *, b_factor: float = 20.0) -> AtomicModel:
    n = len(xyz)
    return AtomicModel(np.array(xyz, float), np.array(elements.split()), np.full(n, b_factor), np.ones(n), name="test")


def scattering_at_zero(symbol: str) -> float:
    return sum(gemmi.Element(symbol).c4322.get_coefs()[:5])


def residue_ball(radius: float, rng: np.random.Generator) -> AtomicModel:
    """Heavy atoms of mean residues (C5 N1.35 O1.5) spread evenly through a ball at protein density."""
    residues = 4 / 3 * np.pi * radius**3 / 135.0
    elements = np.repeat(["C", "N", "O"], np.round(residues * np.array([5, 1.35, 1.5])).astype(int))
    direction = rng.normal(size=(len(elements), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    xyz = direction * radius * rng.random((len(elements), 1)) ** (1 / 3)
    return AtomicModel(xyz, elements, np.full(len(elements), 20.0), np.ones(len(elements)))


def test_ice_potential_follows_from_its_density() -> None:
    molecules = ICE_DENSITY_G_PER_CM3 * AVOGADRO_PER_ANGSTROM3 / 18.015
    scattering = scattering_at_zero("O") + 2 * scattering_at_zero("H")
    assert pytest.approx(SCATTERING_TO_POTENTIAL * scattering * molecules, abs=0.01) == ICE_POTENTIAL_V


def test_packed_protein_reaches_the_contrast_that_made_up_proteins_use() -> None:
    volume = volume_from_atoms(residue_ball(32.0, np.random.default_rng(0)), 3.0)
    axis = (np.arange(len(volume.density)) - len(volume.density) // 2) * 3.0
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    assert volume.density[radius < 26].mean() == pytest.approx(PROTEIN_CONTRAST_V, rel=0.03)
    assert abs(volume.density[radius > 42].mean()) < 0.01


def test_one_atom_by_direct_sum() -> None:
    """Carbon alone, at a coarse voxel: the map equals the sum of its Gaussians, low-passed as the map is."""
    voxel, b_factor = 0.5, 30.0  # fine enough for the filter not to matter
    volume = volume_from_atoms(atoms("C H", [(0, 0, 0), (20, 0, 0)], b_factor=b_factor), voxel)
    n = len(volume.density)
    column = round(n // 2 - 10 / voxel)  # the carbon; H is present, so none is added
    x = (np.arange(-6, 7)) * voxel
    coefficients = gemmi.Element("C").c4322.get_coefs()
    potential = np.zeros(len(x))
    for a, b in zip(coefficients[:5], coefficients[5:], strict=True):
        width = b + b_factor
        potential += a * (4 * np.pi / width) ** 1.5 * np.exp(-4 * np.pi**2 * x**2 / width)
    displaced = 16.44
    ice_width = 4 * np.pi * displaced ** (2 / 3) + b_factor
    ice = displaced * (4 * np.pi / ice_width) ** 1.5 * np.exp(-4 * np.pi**2 * x**2 / ice_width)
    expected = SCATTERING_TO_POTENTIAL * potential - ICE_POTENTIAL_V * ice
    found = volume.density[n // 2, n // 2, column - 6 : column + 7]
    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


def test_total_potential_does_not_depend_on_the_voxel_size() -> None:
    model = residue_ball(20.0, np.random.default_rng(1))
    fine, coarse = (volume_from_atoms(model, voxel) for voxel in (2.0, 5.0))
    assert fine.density.sum() * 2.0**3 == pytest.approx(coarse.density.sum() * 5.0**3, rel=1e-3)


def test_moved_and_turned_axes_put_atoms_where_they_belong() -> None:
    # A heavy cluster at +x, a light one at -x; y and z stay empty
    model = atoms("S S S C", [(30, 0, 0), (30, 1, 0), (30, 0, 1), (-30, 0, 0)])
    volume = volume_from_atoms(model, 3.0)
    z, y, x = np.unravel_index(volume.density.argmax(), volume.density.shape)
    middle = len(volume.density) // 2
    assert (z, y) == (middle, middle)
    assert x == middle + 5  # the centre of mass is at +15 Å, so the cluster lies 15 Å = 5 voxels from it


def test_box_holds_one_and_a_half_diameters() -> None:
    volume = volume_from_atoms(atoms("C C", [(0, 0, 0), (90, 0, 0)]), 3.0)
    assert len(volume.density) * 3.0 >= 1.5 * 90
    assert len(volume.density) % 2 == 0


def test_structure_file_gives_the_same_map_as_its_atoms(tmp_path: Path) -> None:
    lines = [
        "ATOM      1  CA  GLY A   1       1.000   2.000   3.000  1.00 20.00           C",
        "ATOM      2  N   GLY A   2       7.000   2.000   3.000  1.00 20.00           N",
        "END",
    ]
    (tmp_path / "tiny.pdb").write_text("\n".join(lines))
    expected = volume_from_atoms(atoms("C N", [(1, 2, 3), (7, 2, 3)]), 2.0)
    np.testing.assert_allclose(volume_from_structure(tmp_path / "tiny.pdb", 2.0).density, expected.density, atol=1e-5)


def test_unknown_element_is_named() -> None:
    with pytest.raises(InputError, match="test: no electron scattering factors for element 'X'"):
        volume_from_atoms(atoms("C X", [(0, 0, 0), (5, 0, 0)]), 2.0)


def test_what_is_wrong_with_the_atoms_of_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    line = "ATOM      1  CA  GLY A   1       1.000   2.000   3.000  1.00 20.00           X"
    (tmp_path / "tiny.pdb").write_text(f"{line}\nEND\n")
    with pytest.raises(InputError, match=r"/tiny\.pdb: no electron scattering factors for element 'X'"):
        volume_from_structure(tmp_path / "tiny.pdb", 2.0)


@pytest.mark.parametrize("voxel", [0.0, -1.0, float("nan")])
def test_voxel_size_must_be_positive(voxel: float) -> None:
    with pytest.raises(SettingsError, match="voxel_size_angstrom"):
        volume_from_atoms(atoms("C C", [(0, 0, 0), (5, 0, 0)]), voxel)


def test_hopeless_sizes_are_refused_before_memory_runs_out() -> None:
    with pytest.raises(SettingsError, match="use larger voxels"):
        BandLimitedGrid(5000.0, 1.0)


def test_deposit_keeps_total_and_centre_of_mass() -> None:
    rng = np.random.default_rng(2)
    points, weight = rng.uniform(4, 11, size=(40, 3)), rng.random(40)
    cube = deposit(points, weight, 16)
    assert cube.sum() == pytest.approx(weight.sum(), rel=1e-5)
    z, y, x = np.indices(cube.shape)
    centre = [(axis * cube).sum() / cube.sum() for axis in (x, y, z)]
    np.testing.assert_allclose(centre, np.average(points, axis=0, weights=weight), atol=1e-4)


def test_deposit_refuses_points_outside() -> None:
    with pytest.raises(ValueError, match="beyond the cube of 16 voxels"):
        deposit(np.array([[15.5, 8.0, 8.0]]), np.ones(1), 16)


def test_map_is_scaled_to_volts_above_its_solvent(tmp_path: Path) -> None:
    density = np.full((32, 32, 32), 7.0, np.float32)  # solvent level of an arbitrary map
    density[10:22, 10:22, 10:22] = 57.0
    write_volume(tmp_path / "map.mrc", Volume(density, 3.0))
    volume = volume_from_map(tmp_path / "map.mrc")
    assert volume.density[16, 16, 16] == pytest.approx(ENVELOPE_CONTRAST_V, rel=0.05)
    assert volume.density[0, 0, 0] == 0.0
    assert volume.voxel_size_angstrom == pytest.approx(3.0)


def test_scale_of_a_map_survives_noise_and_arbitrary_units(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = random_protein(rng, family="globular", diameter_angstrom=120.0, voxel_size_angstrom=3.0)
    noisy = 0.004 * (truth.density + rng.normal(0, 0.7, size=truth.density.shape)) - 5.0
    write_volume(tmp_path / "map.mrc", Volume(noisy.astype(np.float32), 3.0))
    found = volume_from_map(tmp_path / "map.mrc")
    # How much solvent the envelope holds varies between proteins, so the scale agrees to a quarter
    assert np.polyfit(truth.density.ravel(), found.density.ravel(), 1)[0] == pytest.approx(1.0, abs=0.25)


def test_flat_map_is_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "flat.mrc", Volume(np.ones((8, 8, 8), np.float32), 3.0))
    with pytest.raises(InputError, match="flat: the map is flat or protein is negative"):
        volume_from_map(tmp_path / "flat.mrc")


def test_map_without_voxel_size_is_refused(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "bare.mrc") as mrc:
        mrc.set_data(np.ones((8, 8, 8), np.float32))
    with pytest.raises(InputError, match="no voxel size"):
        volume_from_map(tmp_path / "bare.mrc")
