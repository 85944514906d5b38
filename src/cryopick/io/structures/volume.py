"""Density maps in MRC files."""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from cryopick.errors import FormatError, InputError
from cryopick.types import Volume

_LARGEST_ANISOTROPY = 1e-3  # relative difference of voxel edges that headers' rounding explains
_LARGEST_COMPRESSION = 300
"""Bytes of a map per byte of a .gz or .bz2 file: masked maps reach some tens, files made to fill a memory a million."""
_LARGEST_DENSITY = 1e15  # far beyond all units in use; squares and sums of float32 still do not overflow
_VOXEL_SIZES_ANGSTROM = (0.01, 1000.0)


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
        Not an MRC file, truncated, not a cube, voxels not cubic, or values that are not finite or absurdly large.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a density map in MRC format")
    try:
        with mrcfile.open(path, permissive=False, header_only=True) as mrc:
            _require_plausible_size(path, mrc)
        with mrcfile.open(path, permissive=False) as mrc:
            density = np.array(mrc.data)
            header_voxel = mrc.voxel_size
            edges = np.array([header_voxel.x, header_voxel.y, header_voxel.z], dtype=np.float64)
            axes = [int(mrc.header.maps), int(mrc.header.mapr), int(mrc.header.mapc)]
    # the decompressors of packed maps: EOFError, zlib's and OSError; and numbers that overflow
    except (ValueError, OSError, EOFError, zlib.error, OverflowError, MemoryError) as error:
        raise FormatError(f"{path}: not a readable MRC map ({error}); expected a density map in MRC format") from error
    if density.ndim != 3 or len(set(density.shape)) != 1:
        raise FormatError(
            f"{path}: expected a cubic map, got {density.shape} (z, y, x); pad it to a cube, for example with "
            "relion_image_handler --new_box"
        )
    if np.iscomplexobj(density) or not np.isfinite(density).all():
        raise FormatError(f"{path}: the map holds complex, NaN or infinite values; expected finite real numbers")
    if np.abs(density.astype(np.float64)).max() > _LARGEST_DENSITY:
        raise FormatError(f"{path}: the map holds values beyond {_LARGEST_DENSITY:g}; the file is damaged")
    # CCP4 maps may store other axes first; ours is always [z, y, x]
    if sorted(axes) == [1, 2, 3]:
        density = density.transpose([axes.index(axis) for axis in (3, 2, 1)])
    if voxel_size_angstrom is None:
        voxel_size_angstrom = _voxel_size_from_header(path, edges)
    elif not voxel_size_angstrom > 0:
        raise InputError(f"{path}: voxel size {voxel_size_angstrom:g} Å given, expected a positive number")
    return Volume(density.astype(np.float32), float(voxel_size_angstrom), name=path.stem)


def _require_plausible_size(path: Path, mrc: Any) -> None:
    """Compare the size that the header promises with the file, before memory is taken for it."""
    header = mrc.header
    shape_zyx = tuple(int(side) for side in (header.nz, header.ny, header.nx))
    n_bytes = math.prod(shape_zyx) * mrcfile.utils.dtype_from_mode(header.mode).itemsize
    file_bytes = path.stat().st_size
    with path.open("rb") as stream:
        is_packed = stream.read(3)[:2] in (b"\x1f\x8b", b"BZ")
    most_bytes = _LARGEST_COMPRESSION * file_bytes if is_packed else file_bytes
    if min(shape_zyx) < 1 or n_bytes > most_bytes:
        raise FormatError(
            f"{path}: the header says {shape_zyx} voxels (z, y, x), {n_bytes} bytes, but the file has {file_bytes}; "
            "it is truncated or damaged, copy it again"
        )


def _voxel_size_from_header(path: Path, edges: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise InputError(f"{path}: the header holds no voxel size; give it in Å per voxel (voxel_size_angstrom)")
    if np.ptp(edges) > _LARGEST_ANISOTROPY * edges.mean():
        shown = " x ".join(f"{edge:.4g}" for edge in edges)
        raise FormatError(f"{path}: voxels measure {shown} Å, expected cubes; resample it or give voxel_size_angstrom")
    smallest, largest = _VOXEL_SIZES_ANGSTROM
    if not smallest <= edges.mean() <= largest:
        raise FormatError(
            f"{path}: the header says {edges.mean():.4g} Å per voxel, expected {smallest:g} to {largest:g}; "
            "give it (voxel_size_angstrom)"
        )
    return float(edges.mean())


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a map as MRC mode 2 (float32) with its voxel size in the header; an existing file is replaced."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(volume.density)
        mrc.voxel_size = volume.voxel_size_angstrom
