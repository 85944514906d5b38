"""Point groups: group axioms, and RELION's own lists of operators."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import euler_to_matrix, random_rotations, rotation_angle_deg
from cryopick.reconstruction.symmetry import in_asymmetric_unit, operators

SIZES = {
    "C1": 1,
    "C4": 4,
    "D1": 2,
    "D2": 4,
    "D7": 14,
    "T": 12,
    "O": 24,
    "I": 60,
    "I1": 60,
    "I2": 60,
    "I3": 60,
    "I4": 60,
}


def is_same_set(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    distance = np.abs(first[:, None] - second[None]).max(axis=(2, 3))
    return len(first) == len(second) and bool((distance.min(axis=0) < tolerance).all())


@pytest.mark.parametrize("symmetry", SIZES)
def test_group_has_its_size_its_inverses_and_its_products(symmetry: str) -> None:
    group = operators(symmetry)
    assert len(group) == SIZES[symmetry]
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(group), 1.0)
    assert is_same_set(group, group.transpose(0, 2, 1), 1e-9)
    for one in group:
        assert is_same_set(group, one @ group, 1e-9)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="needs RELION's relion_refine")
@pytest.mark.parametrize("symmetry", ["C3", "D2", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_operators_are_those_that_relion_prints(symmetry: str) -> None:
    printed = subprocess.run(
        ["relion_refine", "--sym", symmetry, "--print_symmetry_ops"], capture_output=True, text=True, check=True
    ).stdout
    rows = [block.split("Euler")[0] for block in re.split(r"R\(\d+\)=", printed)[1:]]
    theirs = np.array([[float(word) for word in row.split()[:9]] for row in rows]).reshape(-1, 3, 3)
    assert is_same_set(operators(symmetry), theirs, 1e-4)


def test_unknown_group_is_named() -> None:
    for wrong in ("X7", "C0", "I5", ""):
        with pytest.raises(SettingsError, match="expected C1 to"):
            operators(wrong)


@pytest.mark.parametrize("symmetry", ["C1", "D3", "O", "I3"])
def test_equivalent_orientations_become_one(symmetry: str) -> None:
    group = operators(symmetry)
    rotations = euler_to_matrix(random_rotations(20, np.random.default_rng(0)))
    kept = in_asymmetric_unit(rotations, symmetry)
    other = np.einsum("nij,jk->nik", rotations, group[-1])
    difference = np.einsum("nij,nkj->nik", kept, in_asymmetric_unit(other, symmetry))
    assert rotation_angle_deg(difference).max() < 1e-4
    relative = np.einsum("nji,njk->nik", rotations, kept)  # an operator of the group
    assert all(np.abs(group - one).max(axis=(1, 2)).min() < 1e-9 for one in relative)
