"""Low-pass and sphere: what references go through before images are compared with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.reconstruction.fourier_images import cosine_edge

SPHERE_PER_DIAMETER = 1.1
_EDGE_PX = 4.0


def radius_from_centre(box_px: int) -> NDArray[np.float64]:
    """(box, box, box) distance of every voxel from voxel `box // 2`."""
    along = np.arange(box_px) - box_px // 2
    return np.asarray(np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2))


def soft_sphere(box_px: int, diameter_px: float) -> NDArray[np.float32]:
    """(box, box, box) 1 inside 1.1 diameters, falling to 0 over four pixels; all of it fits into the box."""
    radius = min(SPHERE_PER_DIAMETER * diameter_px / 2, box_px / 2 - _EDGE_PX)
    return cosine_edge(radius_from_centre(box_px) - radius, _EDGE_PX)


def low_passed(density: NDArray[np.floating], last_shell: float, *, edge_shells: float = 2.0) -> NDArray[np.float32]:
    """Cut the spectrum: whole up to a shell, nothing from `edge_shells` on beyond it."""
    n = density.shape[0]
    along = np.fft.fftfreq(n) * n
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + np.arange(n // 2 + 1) ** 2)
    spectrum = fft.rfftn(density, workers=1) * cosine_edge(radius - last_shell, edge_shells)
    return np.asarray(fft.irfftn(spectrum, s=density.shape, workers=1), dtype=np.float32)


def on_finer_voxels(density: NDArray[np.floating], box_px: int) -> NDArray[np.float32]:
    """The same map on `box_px` voxels along each axis, at least as many as it has; both even.

    Slices of the result have the transforms that slices of the given map have: the sum over all voxels stays.
    """
    n = density.shape[0]
    if box_px == n:
        return np.asarray(density, dtype=np.float32)
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(density), workers=1))
    padded = np.zeros((box_px,) * 3, dtype=np.complex128)
    inner = slice(box_px // 2 - n // 2, box_px // 2 - n // 2 + n)
    padded[inner, inner, inner] = spectrum
    found = fft.fftshift(fft.ifftn(fft.ifftshift(padded), workers=1))
    return np.asarray(found.real, dtype=np.float32)
