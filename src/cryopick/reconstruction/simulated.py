"""Particle stacks made straight from a volume, pose and optics known: to try reconstruction without micrographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.processing.ctf import CtfParameters, interaction_constant
from cryopick.processing.projection import Projector
from cryopick.reconstruction.particles import (
    ContrastTransfer,
    ParticleStack,
    background_radius,
    normalized_background,
)
from cryopick.reconstruction.poses import Poses
from cryopick.simulation.specimens.proteins import particle_diameter_angstrom
from cryopick.types import Volume

_BOX_SPACING = 1.0  # centres stand on a grid, so that no two boxes overlap


def simulated_stack(
    volume: Volume,
    count: int,
    *,
    dose_e_per_angstrom2: float,
    rng: np.random.Generator,
    defocus_um: tuple[float, float] = (1.0, 2.5),
    largest_shift_px: float = 1.0,
    n_micrographs: int = 10,
    diameter_angstrom: float | None = None,
) -> tuple[ParticleStack, Poses]:
    """Images of a volume in uniform random orientations, each through the lens and with the noise of counted electrons.

    Parameters
    ----------
    volume : V above ice; its box and voxel size become those of the images
    count : particles, dealt out evenly over the micrographs
    dose_e_per_angstrom2 : the noise is white, of the spread of counting so many electrons
    rng : source of randomness
    defocus_um : of micrographs, uniform; astigmatism up to 0.05 µm, 300 kV, Cs 2.7 mm, 10 % amplitude contrast
    largest_shift_px : shifts along x and y are uniform in plus and minus this
    diameter_angstrom : None measures it

    Returns
    -------
    stack, poses : the images and the truth
    """
    optics = []
    for _ in range(n_micrographs):
        defocus, difference = rng.uniform(*defocus_um), rng.uniform(-0.05, 0.05)
        optics.append(
            CtfParameters(
                defocus_u_um=defocus + difference / 2,
                defocus_v_um=defocus - difference / 2,
                astigmatism_angle_deg=rng.uniform(0, 180),
            )
        )
    micrograph = np.arange(count) % n_micrographs
    ctf = ContrastTransfer.of_micrographs(optics, micrograph)
    rotations = euler_to_matrix(random_rotations(count, rng))
    shifts = rng.uniform(-largest_shift_px, largest_shift_px, size=(count, 2))
    images = through_the_lens(Projector(volume).project(rotations, shifts_px=shifts), volume.voxel_size_angstrom, ctf)
    images /= 1 / np.sqrt(dose_e_per_angstrom2 * volume.voxel_size_angstrom**2)  # of counting, per pixel
    images += rng.normal(size=images.shape).astype(np.float32)
    diameter = particle_diameter_angstrom(volume) if diameter_angstrom is None else diameter_angstrom
    box = images.shape[1]
    images = normalized_background(images, radius_px=background_radius(box, diameter / volume.voxel_size_angstrom))
    row = np.arange(count) // n_micrographs
    columns = int(np.ceil(np.sqrt(row.max(initial=0) + 1)))
    centres = box * (_BOX_SPACING * np.stack([row % columns, row // columns], axis=1) + 0.5)
    stack = ParticleStack(
        images=images,
        pixel_size_angstrom=volume.voxel_size_angstrom,
        diameter_angstrom=diameter,
        ctf=ctf,
        micrograph=micrograph,
        centres_px=centres,
    )
    return stack, Poses(rotations=rotations, shifts_px=shifts, score=np.full(count, np.nan))


def through_the_lens(
    projections: NDArray[np.float32], pixel_size_angstrom: float, ctf: ContrastTransfer
) -> NDArray[np.float32]:
    """Contrast (intensity over mean, minus 1, protein bright) of projected potential in V Å."""
    n = projections.shape[1]
    y, x = np.meshgrid(np.fft.fftfreq(n), np.arange(n // 2 + 1) / n, indexing="ij")
    transfer = ctf.at(x.ravel() / pixel_size_angstrom, y.ravel() / pixel_size_angstrom).reshape(-1, n, n // 2 + 1)
    scale = 2 * np.array([interaction_constant(one) for one in ctf.voltage_kv], dtype=np.float32)
    seen = fft.irfft2(fft.rfft2(projections, axes=(1, 2)) * transfer, s=(n, n), axes=(1, 2))
    return np.asarray(seen * scale[:, None, None], dtype=np.float32)
