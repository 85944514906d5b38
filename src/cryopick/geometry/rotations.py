"""RELION's Euler angles (ZYZ, degrees) as rotation matrices, and uniform random orientations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def euler_to_matrix(rot_tilt_psi_deg: ArrayLike) -> NDArray[np.float64]:
    """Matrices that carry the specimen's coordinates into the image's: `xyz_image = matrix @ xyz_specimen`.

    Parameters
    ----------
    rot_tilt_psi_deg : (n, 3) or (3,), degrees, `rlnAngleRot`, `rlnAngleTilt`, `rlnAnglePsi`

    Returns
    -------
    matrices : (n, 3, 3) for (n, 3), (3, 3) for (3,). A projection integrates over the image's z, so row 0 is the
        image's x axis and row 1 its y axis (growing with the rows, as stored), both seen in the volume.

    References
    ----------
    Heymann, Chagoyen and Belnap, J. Struct. Biol. 151 (2005), the 3DEM convention: passive turns about z by rot, about
    the new y by tilt, about the new z by psi.
    """
    angles = np.radians(np.asarray(rot_tilt_psi_deg, dtype=np.float64))
    if angles.shape[-1:] != (3,) or angles.ndim > 2:
        raise ValueError(f"Euler angles: expected an array (n, 3) of rot, tilt, psi, got shape {angles.shape}")
    (ca, cb, cg), (sa, sb, sg) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def random_rotations(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Orientations uniform over all rotations.

    Parameters
    ----------
    n : how many
    rng : source of randomness

    Returns
    -------
    rot_tilt_psi_deg : (n, 3); rot and psi uniform in [-180, 180), the cosine of tilt uniform in [-1, 1]
    """
    rot, psi = rng.uniform(-180.0, 180.0, size=(2, n))
    tilt = np.degrees(np.arccos(rng.uniform(-1.0, 1.0, size=n)))
    return np.stack([rot, tilt, psi], axis=-1)


def matrix_to_euler(matrices: ArrayLike) -> NDArray[np.float64]:
    """RELION's angles of rotation matrices: the inverse of `euler_to_matrix`.

    Parameters
    ----------
    matrices : (n, 3, 3) or (3, 3), rotations

    Returns
    -------
    rot_tilt_psi_deg : (n, 3) or (3,); rot and psi in (-180, 180], tilt in [0, 180]; psi is 0 where tilt is 0 or 180
    """
    matrix = np.asarray(matrices, dtype=np.float64)
    if matrix.shape[-2:] != (3, 3) or matrix.ndim > 3:
        raise ValueError(f"rotation matrices: expected an array (n, 3, 3), got shape {matrix.shape}")
    sine = np.hypot(matrix[..., 2, 0], matrix[..., 2, 1])
    tilt = np.arctan2(sine, matrix[..., 2, 2])
    is_polar = sine < 1e-9
    sign = np.where(matrix[..., 2, 2] < 0, -1.0, 1.0)
    rot = np.where(
        is_polar,
        np.arctan2(sign * matrix[..., 0, 1], sign * matrix[..., 0, 0]),
        np.arctan2(matrix[..., 2, 1], matrix[..., 2, 0]),
    )
    psi = np.where(is_polar, 0.0, np.arctan2(matrix[..., 1, 2], -matrix[..., 0, 2]))
    return np.asarray(np.degrees(np.stack([rot, tilt, psi], axis=-1)))


def rotation_angle_deg(matrices: ArrayLike) -> NDArray[np.float64]:
    """By how much each rotation turns, 0 to 180 degrees, for matrices (..., 3, 3)."""
    trace = np.trace(np.asarray(matrices, dtype=np.float64), axis1=-2, axis2=-1)
    return np.asarray(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0))))
