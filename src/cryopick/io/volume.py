"""Density maps in MRC files."""

from __future__ import annotations

import os
from pathlib import Path

import mrcfile
import numpy as np

from cryopick.errors import FormatError, InputError
from cryopick.types import Volume

_LARGEST_ANISOTROPY = 1e-3  # relative difference of voxel edges that headers' rounding explains


def read_volume(path: str | os.PathLike[str], *, voxel_size_angstrom: float | None = None) -> Volume:
    """Read a cubic density map.

    Parameters
    ----------
    path : an MRC or CCP4 map
    voxel_size_angstrom : overrides the header, which is often empty or wrong

    Returns
    -------
    volume : axes `[z, y, x]`, values as stored

    Raises
    ------
    InputError
        No such file; the header holds no voxel size and none is given.
    FormatError
        Not an MRC file, not a cube, voxels not cubic, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a density map in MRC format")
    try:
        with mrcfile.open(path, permissive=False) as mrc:
            density = np.array(mrc.data)
            header_voxel = mrc.voxel_size
            edges = np.array([header_voxel.x, header_voxel.y, header_voxel.z], dtype=np.float64)
            axes = [int(mrc.header.maps), int(mrc.header.mapr), int(mrc.header.mapc)]
    except ValueError as error:
        raise FormatError(f"{path}: not a readable MRC map ({error}); expected a density map in MRC format") from error
    if density.ndim != 3 or len(set(density.shape)) != 1:
        raise FormatError(
            f"{path}: expected a cubic map, got {density.shape} (z, y, x); pad it to a cube, for example with "
            "relion_image_handler --new_box"
        )
    if np.iscomplexobj(density) or not np.isfinite(density).all():
        raise FormatError(f"{path}: the map holds complex, NaN or infinite values; expected finite real numbers")
    # CCP4 maps may store other axes first; ours is always [z, y, x]
    if sorted(axes) == [1, 2, 3]:
        density = density.transpose([axes.index(axis) for axis in (3, 2, 1)])
    if voxel_size_angstrom is None:
        voxel_size_angstrom = _voxel_size_from_header(path, edges)
    elif not voxel_size_angstrom > 0:
        raise InputError(f"{path}: voxel size {voxel_size_angstrom:g} Å given, expected a positive number")
    return Volume(density.astype(np.float32), float(voxel_size_angstrom), name=path.stem)


def _voxel_size_from_header(path: Path, edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise InputError(f"{path}: the header holds no voxel size; give it in Å per voxel (voxel_size_angstrom)")
    if np.ptp(edges) > _LARGEST_ANISOTROPY * edges.mean():
        shown = " x ".join(f"{edge:.4g}" for edge in edges)
        raise FormatError(f"{path}: voxels measure {shown} Å, expected cubes; resample it or give voxel_size_angstrom")
    return float(edges.mean())


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a map as MRC mode 2 (float32) with its voxel size in the header; an existing file is replaced."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(volume.density)
        mrc.voxel_size = volume.voxel_size_angstrom
