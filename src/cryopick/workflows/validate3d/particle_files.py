"""A stack of particles as files that RELION reads, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.io.images.mrc import read_mrc_header, read_mrc_sections, write_mrc
from cryopick.io.star import StarTable, make_table, read_star, write_star
from cryopick.reconstruction.particles import ContrastTransfer, ParticleStack
from cryopick.workflows.validate3d.geometry import BoxGeometry
from cryopick.workflows.validate3d.optics import RELION_VERSION, linked_name
from cryopick.workflows.validate3d.picks import Image

STACK, TABLE = "particles.mrcs", "particles.star"


def write_particles(
    folder: Path,
    stack: ParticleStack,
    halves: NDArray[np.int64],
    images: Sequence[Image],
    geometry: BoxGeometry,
    *,
    stack_name: str,
) -> None:
    """`particles.mrcs` and `particles.star`, its images named as RELION finds them from the validation's folder.

    Parameters
    ----------
    halves : (n,) 1 or 2, written as rlnRandomSubset
    stack_name : the stack's path from the validation's folder, where the stage will stand
    """
    write_mrc(folder / STACK, stack.images, pixel_size_angstrom=stack.pixel_size_angstrom)
    write_star(folder / TABLE, particle_tables(stack, halves, images, geometry, stack_name), version=RELION_VERSION)


def particle_tables(
    stack: ParticleStack,
    halves: NDArray[np.int64],
    images: Sequence[Image],
    geometry: BoxGeometry,
    stack_name: str,
    *,
    rows: NDArray[np.int64] | None = None,
    extra: dict[str, Any] | None = None,
) -> list[Any]:
    """RELION's tables of optics groups and particles.

    Parameters
    ----------
    rows : of each particle in the stack's file, from 0; None where they are all of it
    extra : further columns, such as the poses
    """
    n = len(stack)
    ctf = stack.ctf
    if ctf is None:  # RELION needs a group; without CTF columns and --ctf it corrects nothing
        keys = np.tile([300.0, 2.7, 0.1], (n, 1))
    else:
        keys = np.stack([ctf.voltage_kv, ctf.cs_mm, ctf.amplitude_contrast], axis=1)
    groups, which = np.unique(keys, axis=0, return_inverse=True)
    k = len(groups)
    optics = make_table(
        "optics",
        {
            "rlnOpticsGroupName": [f"opticsGroup{number}" for number in range(1, k + 1)],
            "rlnOpticsGroup": np.arange(1, k + 1),
            "rlnVoltage": groups[:, 0],
            "rlnSphericalAberration": groups[:, 1],
            "rlnAmplitudeContrast": groups[:, 2],
            "rlnMicrographOriginalPixelSize": np.full(k, geometry.micrograph_pixel_angstrom),
            "rlnMicrographPixelSize": np.full(k, geometry.micrograph_pixel_angstrom),
            "rlnImagePixelSize": np.full(k, stack.pixel_size_angstrom),
            "rlnImageSize": np.full(k, stack.box_px),
            "rlnImageDimensionality": np.full(k, 2),
        },
    )
    numbers = np.arange(n) if rows is None else rows
    names = [f"micrographs/{linked_name(one)}" for one in images]
    columns: dict[str, Any] = {
        "rlnCoordinateX": stack.centres_px[:, 0],
        "rlnCoordinateY": stack.centres_px[:, 1],
        "rlnMicrographName": [names[number] for number in stack.micrograph.tolist()],
        "rlnImageName": [f"{number + 1:06d}@{stack_name}" for number in numbers.tolist()],
        "rlnOpticsGroup": which.reshape(-1).astype(np.int64) + 1,
        "rlnRandomSubset": halves,
    }
    if ctf is not None:
        columns |= {
            "rlnDefocusU": ctf.defocus_u_angstrom,
            "rlnDefocusV": ctf.defocus_v_angstrom,
            "rlnDefocusAngle": ctf.astigmatism_angle_deg,
            "rlnPhaseShift": ctf.phase_shift_deg,
            "rlnCtfBfactor": ctf.b_factor_angstrom2,
        }
    return [optics, make_table("particles", columns | (extra or {}))]


def read_particles(
    folder: Path, images: Sequence[Image], geometry: BoxGeometry
) -> tuple[ParticleStack, NDArray[np.int64]]:
    """What `write_particles` wrote: the stack and its half sets."""
    tables = read_star(folder / TABLE)
    table, optics = tables["particles"], tables["optics"]
    path = folder / STACK
    pixels, _ = read_mrc_sections(path, read_mrc_header(path))
    shape = geometry.scaled_px
    stack = np.asarray(pixels, np.float32).reshape(-1, shape, shape)
    number_of = {f"micrographs/{linked_name(one)}": number for number, one in enumerate(images)}
    return (
        ParticleStack(
            images=stack,
            pixel_size_angstrom=geometry.pixel_size_angstrom,
            diameter_angstrom=geometry.diameter_angstrom,
            ctf=contrast_transfer_of(table, optics),
            micrograph=np.array([number_of[name] for name in table.text("rlnMicrographName")], dtype=np.int64),
            centres_px=np.stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")], axis=1),
        ),
        table.ints("rlnRandomSubset"),
    )


def contrast_transfer_of(particles: StarTable, optics: StarTable) -> ContrastTransfer | None:
    """The CTF of each row of a table of particles with its optics; None where it has no defocus."""
    if "rlnDefocusU" not in particles:
        return None
    group = particles.ints("rlnOpticsGroup") - 1
    return ContrastTransfer(
        defocus_u_angstrom=particles.floats("rlnDefocusU"),
        defocus_v_angstrom=particles.floats("rlnDefocusV"),
        astigmatism_angle_deg=particles.floats("rlnDefocusAngle"),
        voltage_kv=optics.floats("rlnVoltage")[group],
        cs_mm=optics.floats("rlnSphericalAberration")[group],
        amplitude_contrast=optics.floats("rlnAmplitudeContrast")[group],
        phase_shift_deg=particles.floats("rlnPhaseShift"),
        b_factor_angstrom2=particles.floats("rlnCtfBfactor"),
    )
