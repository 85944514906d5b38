"""Point groups in RELION's axes, and which of equivalent orientations to keep."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryopick.errors import SettingsError

_LARGEST_FOLD = 60
_GOLDEN = (1 + math.sqrt(5)) / 2
_AXES: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, math.sqrt(2), 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (1, 0, 0)), (5, (_GOLDEN, 0, -1)), (3, (_GOLDEN**2, 1, 0))),
    "I2": ((2, (0, 0, 1)), (5, (1, 0, _GOLDEN)), (3, (0, 1, _GOLDEN**2))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, _GOLDEN))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, _GOLDEN))),
}
"""Folds and axes that generate each group, as in RELION's `symmetries.cpp`; I is I2."""


def operators(symmetry: str) -> NDArray[np.float64]:
    """(k, 3, 3) the rotations of a point group, the identity first.

    Axes are RELION's: the n-fold axis of Cn and Dn along z, a two-fold axis of Dn along x; a three-fold axis of T along
    z; four-fold axes of O along x, y and z; I1 with a two-fold axis along x, I2 (also called I) along z, I3 and I4
    with a five-fold axis along z.

    Parameters
    ----------
    symmetry : C1, C2, ..., D1, ..., T, O, I, I1 to I4; small letters do as well

    Raises
    ------
    SettingsError
        No such group.
    """
    return np.array(_operators(symmetry.strip().upper()))


@lru_cache(maxsize=16)
def _operators(name: str) -> NDArray[np.float64]:
    match = re.fullmatch(r"([CD])(\d+)", name)
    generators = _AXES.get("I2" if name == "I" else name)
    if match and 1 <= int(match[2]) <= _LARGEST_FOLD:
        generators = ((int(match[2]), (0, 0, 1)), *(((2, (1, 0, 0)),) if match[1] == "D" else ()))
    if generators is None:
        raise SettingsError(
            f"symmetry {name!r}: expected C1 to C{_LARGEST_FOLD}, D1 to D{_LARGEST_FOLD}, T, O, I, or I1 to I4"
        )
    group = np.eye(3)[None]
    for fold, axis in generators:
        vector = 2 * math.pi / fold * np.array(axis) / np.linalg.norm(axis)
        powers = Rotation.from_rotvec(np.arange(fold)[:, None] * vector).as_matrix()
        group = _closed(np.concatenate([group, powers]))
    return group


def _closed(group: NDArray[np.float64]) -> NDArray[np.float64]:
    """All products of some rotations, each once."""
    while True:
        products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 9)
        _, first = np.unique(np.rint(products * 1e6).astype(np.int64), axis=0, return_index=True)
        distinct = products[np.sort(first)].reshape(-1, 3, 3)
        if len(distinct) == len(group):
            return np.asarray(distinct)
        group = distinct


def in_asymmetric_unit(rotations: NDArray[np.float64], symmetry: str) -> NDArray[np.float64]:
    """The equivalent of every orientation whose direction of view lies nearest to one fixed direction.

    Parameters
    ----------
    rotations : (n, 3, 3) from specimen to image
    symmetry : see `operators`

    Returns
    -------
    rotations : (n, 3, 3), each `rotation @ operator`; the same image of a symmetric particle
    """
    group = operators(symmetry)
    fixed = np.array([0.299, 0.137, 0.944])  # on no axis and in no mirror plane of any of the groups
    nearness = np.einsum("ni,gij,j->ng", rotations[:, 2], group, fixed)
    return np.asarray(np.einsum("nij,njk->nik", rotations, group[nearness.argmax(axis=1)]))
