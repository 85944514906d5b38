"""Turn, move and, where it fits better, mirror one map onto another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import affine_transform, map_coordinates
from scipy.spatial.transform import Rotation

from cryopick.errors import SettingsError
from cryopick.types import Volume

_STARTS = 4000  # rotations tried in either hand: 16 degrees apart
_START_SHELL = 5
_POLISHED_STARTS = 12  # of each hand
_FINALISTS = 3  # of each hand
_STAGES = (7, 11, 16, 24, 40)
"""Last shells of the polish, one after the other, as long as the maps agree there."""
_AGREES = 0.3
_PADDING = 2
_DIFFERENCE = 0.1  # of a frequency pixel at the outermost shell, for numerical derivatives
_STEPS = 12


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a map was laid onto another.

    Parameters
    ----------
    rotation : (3, 3); a point p = (x, y, z) of the moving map, from its centre voxel `n // 2` and after mirroring,
        comes to lie at `rotation @ p + shift`
    shift_px : (3,) x, y, z in voxels
    is_mirrored : whether the moving map was mirrored in x first: the hand of a map is not known from its images
    correlation : mean FSC over the shells that were compared last
    last_shell : the outermost of them
    aligned : the moving map in its new place, on the fixed map's voxels
    """

    rotation: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    is_mirrored: bool
    correlation: float
    last_shell: int
    aligned: Volume


def align_volumes(
    moving: Volume,
    fixed: Volume,
    *,
    diameter_angstrom: float | None = None,
    symmetry_operators: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> Alignment:
    """Find how one map lies in another, in both hands.

    Spectra are compared shell by shell with every shell made equally strong, so that what is maximised is the mean FSC.
    Thousands of rotations are tried on the first shells; the best are polished there, and the winner on ever more
    shells while both maps agree.

    Parameters
    ----------
    moving, fixed : of the same box and voxel size
    diameter_angstrom : both maps count inside a soft sphere of 1.2 of it; None is the whole box
    symmetry_operators : (k, 3, 3) of the fixed map; of equivalent rotations the smallest is given back
    seed : of the rotations tried

    Raises
    ------
    SettingsError
        If boxes or voxels differ, or a map is flat.
    """
    n = len(fixed.density)
    if len(moving.density) != n or abs(moving.voxel_size_angstrom / fixed.voxel_size_angstrom - 1) > 1e-3:
        raise SettingsError(
            f"maps of {len(moving.density)} and {n} voxels of {moving.voxel_size_angstrom:.4g} and "
            f"{fixed.voxel_size_angstrom:.4g} Å: resample one to the other's box first"
        )
    for one in (moving, fixed):
        if np.ptp(one.density) == 0:
            raise SettingsError(f"{one.name}: the map is flat, there is nothing to align")
    mask = _sphere(n, n / 2 - 1 if diameter_angstrom is None else 0.6 * diameter_angstrom / fixed.voxel_size_angstrom)
    target = _Spectrum(fixed.density * mask)
    rng = np.random.default_rng(seed)
    starts = Rotation.random(_STARTS, rng=rng).as_matrix()
    finalists = []
    for is_mirrored in (False, True):
        density = _mirrored(moving.density) if is_mirrored else moving.density
        fit = _Fit(_Spectrum(density * mask), target)
        found = sorted((fit.polished(one, shift, _STAGES[0]) for one, shift in fit.starts(starts)), key=lambda f: -f[0])
        finalists += [(*fit.polished(one, shift, _STAGES[1]), is_mirrored, fit) for _, one, shift in found[:_FINALISTS]]
    correlation, rotation, shift, is_mirrored, fit = max(finalists, key=lambda f: f[0])
    last = min(_STAGES[1], n // 2 - 1)
    for stage in _STAGES[2:]:
        curve = fit.curve(rotation, shift, min(stage, n // 2 - 1))
        agreed = np.flatnonzero(curve[2:] < _AGREES)
        reached = int(agreed[0]) + 1 if len(agreed) else len(curve) - 1
        if reached <= last:
            break
        last = reached
        correlation, rotation, shift = fit.polished(rotation, shift, last)
    if symmetry_operators is not None:
        equivalent = symmetry_operators @ rotation
        best = int(np.trace(equivalent, axis1=1, axis2=2).argmax())
        rotation, shift = equivalent[best], symmetry_operators[best] @ shift
    density = _mirrored(moving.density) if is_mirrored else moving.density
    aligned = Volume(moved(density, rotation, shift), fixed.voxel_size_angstrom, name=moving.name)
    return Alignment(rotation, shift, is_mirrored, correlation, last, aligned)


def moved(
    density: NDArray[np.floating], rotation: NDArray[np.float64], shift_px: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A map turned about its centre voxel `n // 2`, then moved by (x, y, z); points p go to `rotation @ p + shift`.

    Sampled by cubic splines on voxels half as large, so that frequencies up to Nyquist keep their strength.
    """
    n = density.shape[0]
    fine = _finer(density)
    flip = np.eye(3)[::-1]  # x, y, z to the array's z, y, x
    back = flip @ rotation.T @ flip
    centre = n // 2
    offset = 2 * (centre - back @ (centre + flip @ shift_px))
    return np.asarray(
        affine_transform(fine, 2 * back, offset=offset, output_shape=density.shape, order=3), dtype=np.float32
    )


def _finer(density: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same map on twice as many voxels along each axis; voxel i becomes voxel 2 i."""
    n = density.shape[0]
    spectrum = fft.fftshift(fft.fftn(density, workers=1))
    padded = np.zeros((2 * n,) * 3, dtype=np.complex128)
    inner = slice(n - n // 2, n - n // 2 + n)
    padded[inner, inner, inner] = spectrum
    return np.asarray(8 * fft.ifftn(fft.ifftshift(padded), workers=1).real, dtype=np.float32)


def _mirrored(density: NDArray[np.floating]) -> NDArray[np.floating]:
    """x becomes -x about voxel `n // 2`."""
    flipped = density[:, :, ::-1]
    return np.roll(flipped, 1, axis=2) if density.shape[0] % 2 == 0 else flipped


def _sphere(n: int, radius_px: float) -> NDArray[np.float32]:
    along = np.arange(n) - n // 2
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    edge = max(2.0, 0.1 * radius_px)
    inner = min(radius_px, n / 2 - 1 - edge)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((radius - inner) / edge, 0, 1)), dtype=np.float32)


class _Spectrum:
    """The padded transform of a map about its centre, every shell made equally strong."""

    def __init__(self, density: NDArray[np.floating]) -> None:
        self.n = n = density.shape[0]
        size = _PADDING * n
        distance = np.sinc((np.arange(n) - n // 2) / size) ** 2
        place = (np.arange(n) - n // 2) % size
        padded = np.zeros((size,) * 3, dtype=np.float32)
        padded[np.ix_(place, place, place)] = density / (distance[:, None, None] * distance[:, None] * distance)
        spectrum = fft.rfftn(padded, workers=1)
        self._half = size // 2
        self._spectrum = np.roll(spectrum, (self._half, self._half), axis=(0, 1)).astype(np.complex64)

    def at(self, xyz: NDArray[np.floating]) -> NDArray[np.complex64]:
        """Values at frequencies (3, ...) in cycles per box."""
        points = xyz * _PADDING
        is_negative = points[0] < 0
        points = np.where(is_negative, -points, points)
        place = [points[2] + self._half, points[1] + self._half, points[0]]
        found = map_coordinates(self._spectrum, place, order=1, prefilter=False)
        return np.asarray(np.where(is_negative, found.conj(), found), dtype=np.complex64)


class _Fit:
    """Compares a moving spectrum, turned and moved, with a fixed one."""

    def __init__(self, moving: _Spectrum, fixed: _Spectrum) -> None:
        self.moving, self.fixed, self.n = moving, fixed, fixed.n
        self._points: dict[int, tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.complex64]]] = {}

    def points(self, last_shell: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.complex64]]:
        """Frequencies (3, m) of the shells from 2, half a sphere, their shells, and the fixed map's values there."""
        if last_shell not in self._points:
            along = np.arange(-last_shell, last_shell + 1)
            z, y, x = np.meshgrid(along, along, along[last_shell:], indexing="ij")
            radius = np.rint(np.sqrt(x**2 + y**2 + z**2)).astype(np.int64)
            is_in = (radius >= 2) & (radius <= last_shell) & ((x > 0) | (y > 0) | ((y == 0) & (z > 0)))
            xyz = np.stack([x[is_in], y[is_in], z[is_in]]).astype(np.float64)
            shell = radius[is_in]
            self._points[last_shell] = xyz, shell, _equalized(self.fixed.at(xyz), shell)
        return self._points[last_shell]

    def turned(
        self, rotation: NDArray[np.float64], shift: NDArray[np.float64], last_shell: int
    ) -> NDArray[np.complex64]:
        xyz, shell, _ = self.points(last_shell)
        values = self.moving.at(np.einsum("ji,jm->im", rotation, xyz))
        phase = np.exp(-2j * np.pi / self.n * (shift @ xyz))
        return _equalized(values * phase.astype(np.complex64), shell)

    def starts(self, rotations: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """The best of many rotations, each with the shift that brings both centres of mass together."""
        xyz, shell, fixed = self.points(_START_SHELL)
        centres = [_centre_of_mass(one) for one in (self.moving, self.fixed)]
        shifts = centres[1] - rotations @ centres[0]  # (r, 3)
        scores = np.empty(len(rotations))
        for first in range(0, len(rotations), 500):
            part = slice(first, first + 500)
            values = self.moving.at(np.einsum("rji,jm->irm", rotations[part], xyz))
            values *= np.exp(-2j * np.pi / self.n * (shifts[part] @ xyz)).astype(np.complex64)
            # Shells stay as strong as turning makes them; all rotations are compared on the same scale
            scores[part] = (values * (fixed / np.sqrt(_power(values[0], shell)[shell])).conj()).real.sum(axis=1)
        best = np.argsort(-scores)[:_POLISHED_STARTS]
        return [(rotations[i], shifts[i]) for i in best]

    def curve(self, rotation: NDArray[np.float64], shift: NDArray[np.float64], last_shell: int) -> NDArray[np.float64]:
        """(last_shell + 1,) FSC, from shell 2 on."""
        _, shell, fixed = self.points(last_shell)
        products = (self.turned(rotation, shift, last_shell) * fixed.conj()).real
        return np.bincount(shell, products) / np.maximum(np.bincount(shell), 1)

    def polished(
        self, rotation: NDArray[np.float64], shift: NDArray[np.float64], last_shell: int
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Mean FSC, rotation and shift at the maximum near a start (Levenberg and Marquardt)."""
        last_shell = min(last_shell, self.n // 2 - 1)
        xyz, shell, fixed = self.points(last_shell)
        weight = 1 / np.bincount(shell)[shell]  # every shell counts once
        nudges = Rotation.from_rotvec(_DIFFERENCE / last_shell * np.eye(3)).as_matrix()
        phase = -2j * np.pi / self.n * xyz
        damping, model = 1e-2, self.turned(rotation, shift, last_shell)
        for _ in range(_STEPS):
            slopes = [(self.turned(one @ rotation, shift, last_shell) - model) for one in nudges]
            jacobian = np.stack([*(one * last_shell / _DIFFERENCE for one in slopes), *(phase * model)])
            difference = fixed - model
            cost = float((np.abs(difference) ** 2 * weight).sum())
            information = ((jacobian.conj() * weight) @ jacobian.T).real
            gradient = ((jacobian.conj() * weight) @ difference).real
            damped = information + np.diag(damping * np.diag(information) + 1e-9)
            step = np.linalg.solve(damped, gradient)
            turn = Rotation.from_rotvec(step[:3]).as_matrix()
            tried_rotation, tried_shift = turn @ rotation, shift + step[3:]
            tried = self.turned(tried_rotation, tried_shift, last_shell)
            if float((np.abs(fixed - tried) ** 2 * weight).sum()) < cost:
                rotation, shift, model, damping = tried_rotation, tried_shift, tried, damping / 5
                if np.abs(step[:3]).max() < 1e-4 and np.abs(step[3:]).max() < 1e-3:
                    break
            else:
                damping *= 10
                if damping > 1e4:
                    break
        return float(self.curve(rotation, shift, last_shell)[2:].mean()), rotation, shift


def _power(values: NDArray[np.complexfloating], shell: NDArray[np.int64]) -> NDArray[np.float64]:
    """(shells,) mean squared modulus, never 0."""
    power = np.bincount(shell, np.abs(values) ** 2) / np.maximum(np.bincount(shell), 1)
    return np.maximum(power, 1e-12 * max(float(power.max()), 1e-30))


def _equalized(values: NDArray[np.complexfloating], shell: NDArray[np.int64]) -> NDArray[np.complex64]:
    """Divided by the root mean square of each shell."""
    return np.asarray(values / np.sqrt(_power(values, shell))[shell], dtype=np.complex64)


def _centre_of_mass(spectrum: _Spectrum) -> NDArray[np.float64]:
    """(3,) x, y, z of the low-passed positive density, in voxels from the centre voxel."""
    n = spectrum.n
    k = np.arange(-4, 5)
    z, y, x = np.meshgrid(k, k, k, indexing="ij")
    is_in = x**2 + y**2 + z**2 <= 16
    xyz = np.stack([x[is_in], y[is_in], z[is_in]]).astype(np.float64)
    values = spectrum.at(xyz)
    along = np.arange(0, n, 2) - n // 2
    waves = [np.exp(2j * np.pi / n * along[:, None] * one) for one in xyz]  # (g, m) each
    density = np.einsum("zm,ym,xm->zyx", waves[2] * values, waves[1], waves[0], optimize=True).real
    density = np.maximum(density - 0.3 * density.max(), 0)
    total = density.sum()
    return np.array([(density.sum(axis=axes) * along).sum() / total for axes in ((0, 1), (0, 2), (1, 2))])
