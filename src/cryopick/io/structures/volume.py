"""Density maps in MRC files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cryopick.errors import FormatError, InputError
from cryopick.io.images.mrc import compression_of, read_mrc_header, read_mrc_sections, write_mrc
from cryopick.io.images.mrc_header import MrcHeader
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
        header = read_mrc_header(path, is_size_checked=False)
        _require_plausible_size(path, header)
        density = read_mrc_sections(path, header)[0]
    except FormatError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise FormatError(f"{path}: not a readable MRC map ({why}); expected a density map in MRC format") from error
    edges = np.array(header.edges_angstrom_xyz, np.float32).astype(np.float64)
    if density.ndim != 3 or len(set(density.shape)) != 1:
        raise FormatError(
            f"{path}: expected a cubic map, got {density.shape} (z, y, x); pad it to a cube, for example with "
            "relion_image_handler --new_box"
        )
    if not np.isfinite(density).all():
        raise FormatError(f"{path}: the map holds complex, NaN or infinite values; expected finite real numbers")
    if np.abs(density.astype(np.float64)).max() > _LARGEST_DENSITY:
        raise FormatError(f"{path}: the map holds values beyond {_LARGEST_DENSITY:g}; the file is damaged")
    # CCP4 maps may store other axes first; ours is always [z, y, x]
    axes = header.axes_of_sections_rows_columns
    if sorted(axes) == [1, 2, 3]:
        density = density.transpose([axes.index(axis) for axis in (3, 2, 1)])
    if voxel_size_angstrom is None:
        voxel_size_angstrom = _voxel_size_from_header(path, edges)
    elif not voxel_size_angstrom > 0:
        raise InputError(f"{path}: voxel size {voxel_size_angstrom:g} Å given, expected a positive number")
    return Volume(density.astype(np.float32), float(voxel_size_angstrom), name=path.stem)


def _require_plausible_size(path: Path, header: MrcHeader) -> None:
    """Compare the size that the header promises with the file, before memory is taken for it."""
    file_bytes = path.stat().st_size
    most_bytes = _LARGEST_COMPRESSION * file_bytes if compression_of(path) else file_bytes
    if header.data_bytes > most_bytes:
        raise FormatError(
            f"{path}: the header says {header.shape_zyx} voxels (z, y, x), {header.data_bytes} bytes, but the file has "
            f"{file_bytes}; it is truncated or damaged, copy it again"
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
    write_mrc(Path(path), volume.density, pixel_size_angstrom=volume.voxel_size_angstrom, is_volume=True)
