"""Where and how each particle lies: rotation and shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.geometry.rotations import euler_to_matrix, matrix_to_euler


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """Orientation and shift of every particle of a stack.

    Parameters
    ----------
    rotations : (n, 3, 3) from specimen to image, `xyz_image = rotation @ xyz_specimen`
    shifts_px : (n, 2) how far (x, y) the particle's centre lies from pixel `box // 2`, in pixels of the stack
    score : (n,) natural logarithm of how much likelier the image is with the particle than as noise; NaN where nothing
        was matched
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    score: NDArray[np.float64]

    def __post_init__(self) -> None:
        rotations = np.asarray(self.rotations, dtype=np.float64)
        if rotations.ndim != 3 or rotations.shape[1:] != (3, 3):
            raise ValueError(f"rotations: expected an array (n, 3, 3), got shape {rotations.shape}")
        shifts = np.asarray(self.shifts_px, dtype=np.float64)
        score = np.asarray(self.score, dtype=np.float64)
        if shifts.shape != (len(rotations), 2) or score.shape != (len(rotations),):
            raise ValueError(f"{len(rotations)} rotations but shifts {shifts.shape} and scores {score.shape}")
        object.__setattr__(self, "rotations", rotations)
        object.__setattr__(self, "shifts_px", shifts)
        object.__setattr__(self, "score", score)

    @classmethod
    def of_angles(cls, rot_tilt_psi_deg: ArrayLike, shifts_px: ArrayLike | None = None) -> Poses:
        """From RELION's angles (n, 3); `rlnOriginX/YAngst` are minus the shifts in Å."""
        angles = np.asarray(rot_tilt_psi_deg, dtype=np.float64).reshape(-1, 3)
        shifts = np.zeros((len(angles), 2)) if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
        return cls(rotations=euler_to_matrix(angles), shifts_px=shifts, score=np.full(len(angles), np.nan))

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def rot_tilt_psi_deg(self) -> NDArray[np.float64]:
        """(n, 3) `rlnAngleRot`, `rlnAngleTilt`, `rlnAnglePsi`."""
        return matrix_to_euler(self.rotations)

    def origins_angstrom(self, pixel_size_angstrom: float) -> NDArray[np.float64]:
        """(n, 2) `rlnOriginX/YAngst`: the shift that brings the particle back to the centre."""
        return -self.shifts_px * pixel_size_angstrom

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Poses:
        """Those of the particles at `index`, integers or a mask."""
        return replace(self, rotations=self.rotations[index], shifts_px=self.shifts_px[index], score=self.score[index])

    def with_parts(self, parts: list[tuple[NDArray[np.int64], Poses]]) -> Poses:
        """These, with the rows of every part replaced by its poses."""
        rotations, shifts, score = self.rotations.copy(), self.shifts_px.copy(), self.score.copy()
        for rows, poses in parts:
            rotations[rows], shifts[rows], score[rows] = poses.rotations, poses.shifts_px, poses.score
        return Poses(rotations=rotations, shifts_px=shifts, score=score)
