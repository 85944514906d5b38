"""Euler angles back from matrices, for round trips."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_POLE_SINE = 1e-8  # below this sine of the tilt, rot and psi turn about the same axis and only their sum is defined


def matrix_to_euler(matrices: ArrayLike) -> NDArray[np.float64]:
    """The inverse of `euler_to_matrix`: rot and psi in (-180, 180], tilt in [0, 180] degrees.

    Parameters
    ----------
    matrices : (n, 3, 3) or (3, 3), proper rotations

    Returns
    -------
    rot_tilt_psi_deg : (n, 3) or (3,). At the poles (tilt 0 or 180) only rot and psi together are
        defined; rot is then 0.
    """
    m = np.asarray(matrices, dtype=np.float64)
    if m.shape[-2:] != (3, 3) or m.ndim > 3:
        raise ValueError(f"rotation matrices: expected an array (n, 3, 3), got shape {m.shape}")
    sine_tilt = np.hypot(m[..., 2, 0], m[..., 2, 1])
    tilt = np.arctan2(sine_tilt, m[..., 2, 2])
    is_pole = sine_tilt < _POLE_SINE
    rot = np.where(is_pole, 0.0, np.arctan2(m[..., 2, 1], m[..., 2, 0]))
    psi_at_pole = np.arctan2(m[..., 0, 1], np.where(m[..., 2, 2] > 0, m[..., 0, 0], -m[..., 0, 0]))
    psi = np.where(is_pole, psi_at_pole, np.arctan2(m[..., 1, 2], -m[..., 0, 2]))
    return np.asarray(np.degrees(np.stack([rot, tilt, psi], axis=-1)))
