"""From a pose on a grid to the most likely one near it, by damped least squares on the transform itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryopick.reconstruction.fourier_images import FourierImages
from cryopick.reconstruction.polar import SliceSource
from cryopick.reconstruction.poses import Poses

_DIFFERENCE = 0.15  # of a frequency pixel at the outermost shell, for numerical derivatives
_LARGEST_TURN = 0.8  # of a frequency pixel at the outermost shell, in one step
_LARGEST_MOVE = 0.25  # of a period of the outermost shell, in one step


@dataclass(frozen=True, eq=False)
class Polished:
    """Poses at a maximum of likelihood.

    Parameters
    ----------
    poses : n
    information : (n, 5, 5) inverse covariance of the rotation vector (image's axes, rad) and the shift (px)
    residual_power : (shells,) mean squared difference between image and CTF times slice
    """

    poses: Poses
    information: NDArray[np.float64]
    residual_power: NDArray[np.float64]


def polish(
    images: FourierImages,
    source: SliceSource,
    poses: Poses,
    *,
    noise_power: NDArray[np.floating],
    steps: int = 3,
) -> Polished:
    """Turn and move every particle a little until its slice fits best (Levenberg and Marquardt).

    Parameters
    ----------
    images : at the frequencies that count
    source : of the volume
    poses : to start from
    noise_power : (shells,) of images without mask; the log-likelihood is minus the squared difference over it

    Returns
    -------
    polished : never less likely than before
    """
    pixels = images.pixels
    xy, box = pixels.xy, pixels.box_px
    radius = float(np.hypot(*xy).max())
    weight = (1 / noise_power[pixels.shell]).astype(np.float32)
    weight[pixels.shell < 2] = 0.0
    rotations, shifts = poses.rotations.copy(), poses.shifts_px.copy()
    step = _DIFFERENCE / radius
    nudges = Rotation.from_rotvec(step * np.eye(3)).as_matrix()  # (3, 3, 3)
    damping = np.full(len(images), 1e-2)

    def compared(turned: NDArray[np.float64], moved: NDArray[np.float64]) -> tuple[NDArray[np.complex64], ...]:
        model = source.slices(turned, xy) * images.transfer
        return model, images.transforms * pixels.shift_factors(-moved) - model

    def cost_of(difference: NDArray[np.complex64]) -> NDArray[np.float64]:
        return np.asarray((np.abs(difference) ** 2) @ weight, dtype=np.float64)

    model, difference = compared(rotations, shifts)
    cost = cost_of(difference)
    information = np.zeros((len(images), 5, 5))
    phase = (-2j * np.pi / box * xy).astype(np.complex64)
    for number in range(steps + 1):
        slopes = np.empty((5, *model.shape), dtype=np.complex64)
        for axis, nudge in enumerate(nudges):
            slopes[axis] = (source.slices(nudge @ rotations, xy) * images.transfer - model) / np.float32(step)
        slopes[3:] = phase[:, None] * model
        information = 2 * np.einsum("anm,bnm,m->nab", slopes.conj(), slopes, weight, optimize=True).real
        if number == steps:
            break
        gradient = 2 * np.einsum("anm,nm,m->na", slopes.conj(), difference, weight, optimize=True).real
        diagonal = np.einsum("naa->na", information)
        damped = information + np.eye(5) * (damping[:, None] * diagonal + 1e-9 * diagonal.max() + 1e-12)[:, None]
        move = np.linalg.solve(damped.astype(np.float64), gradient[..., None])[..., 0]
        turn_size = np.linalg.norm(move[:, :3], axis=1, keepdims=True)
        move[:, :3] *= np.minimum(1, _LARGEST_TURN / radius / np.maximum(turn_size, 1e-12))
        move_size = np.linalg.norm(move[:, 3:], axis=1, keepdims=True)
        move[:, 3:] *= np.minimum(1, _LARGEST_MOVE * box / radius / np.maximum(move_size, 1e-12))
        turned = Rotation.from_rotvec(move[:, :3]).as_matrix() @ rotations
        moved = shifts + move[:, 3:]
        new_model, new_difference = compared(turned, moved)
        new_cost = cost_of(new_difference)
        is_better = new_cost < cost
        rotations[is_better], shifts[is_better] = turned[is_better], moved[is_better]
        model[is_better], difference[is_better], cost[is_better] = (
            new_model[is_better],
            new_difference[is_better],
            new_cost[is_better],
        )
        damping = np.where(is_better, damping / 5, damping * 10)
    score = (np.abs(images.transforms) ** 2) @ weight - cost
    residual = pixels.shell_means((np.abs(difference) ** 2).mean(axis=0))
    return Polished(Poses(rotations=rotations, shifts_px=shifts, score=score), information, residual)
