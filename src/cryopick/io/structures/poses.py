"""Refined particles from RELION's tables: orientation and exact centre of each, by micrograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, SettingsError
from cryopick.io.coordinates.grouping import MAX_COORDINATE_PX
from cryopick.io.star import StarTable, read_star

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True, eq=False)
class Poses:
    """The refined particles of one micrograph.

    Parameters
    ----------
    xy_px : (n, 2) centres after refinement (coordinate minus origin) in pixels of the micrograph
    rot_tilt_psi_deg : (n, 3) RELION's Euler angles
    class_id : (n,) rlnClassNumber, 1 where the file has none
    pixel_size_angstrom : of the micrograph
    """

    xy_px: NDArray[np.float64]
    rot_tilt_psi_deg: NDArray[np.float64]
    class_id: NDArray[np.int64]
    pixel_size_angstrom: float


def read_poses(path: Path | str, *, pixel_size_angstrom: float | None = None) -> dict[str, Poses]:
    """Poses by micrograph name, from a RELION 3.0 to 5 particles table.

    Origins are rlnOriginXAngst, or rlnOriginX in pixels of the particle images (3.0).

    Parameters
    ----------
    pixel_size_angstrom : of the micrographs, above what the file says

    Raises
    ------
    FormatError
        If coordinates, angles or pixel sizes are missing, malformed or impossible.
    SettingsError
        If the pixel size is needed and unknown, or the given one is not positive.
    """
    path = Path(path)
    tables = read_star(path)
    table = next((one for one in tables.values() if "rlnCoordinateX" in one), None)
    if table is None or "rlnMicrographName" not in table or not all(angle in table for angle in ANGLES):
        raise FormatError(
            f"{path}: expected a table of refined particles with rlnMicrographName, rlnCoordinateX/Y and "
            f"{', '.join(ANGLES)}; give the particles.star of a refinement"
        )
    micrograph_px = _sizes(path, tables, table, "rlnMicrographPixelSize", given=pixel_size_angstrom)
    origin_angstrom = np.zeros((len(table), 2))
    for axis, name in enumerate("XY"):
        if f"rlnOrigin{name}Angst" in table:
            origin_angstrom[:, axis] = table.floats(f"rlnOrigin{name}Angst")
        elif f"rlnOrigin{name}" in table:
            image_px = _sizes(path, tables, table, "rlnImagePixelSize", given=None)
            origin_angstrom[:, axis] = table.floats(f"rlnOrigin{name}") * image_px
    coordinates = np.stack([table.floats("rlnCoordinateX"), table.floats("rlnCoordinateY")], axis=1)
    with np.errstate(all="ignore"):
        xy_px = coordinates - origin_angstrom / micrograph_px[:, None]
    is_far = ~(np.abs(xy_px) < MAX_COORDINATE_PX).all(axis=1)
    if is_far.any():
        raise FormatError(
            f"{path}: particle {int(np.argmax(is_far)) + 1} lies at {xy_px[np.argmax(is_far)]} px, beyond any "
            "micrograph; fix or delete the row"
        )
    angles = np.stack([table.floats(angle) for angle in ANGLES], axis=1)
    class_id = table.ints("rlnClassNumber") if "rlnClassNumber" in table else np.ones(len(table), dtype=np.int64)
    names = np.array(table.text("rlnMicrographName"))
    poses = {}
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        poses[name] = Poses(xy_px[rows], angles[rows], class_id[rows], float(micrograph_px[rows[0]]))
    return poses


def _sizes(
    path: Path, tables: dict[str, StarTable], table: StarTable, label: str, *, given: float | None
) -> NDArray[np.float64]:
    """(n,) Å per pixel of each particle: given, by optics group, or from detector pixel and magnification (3.0)."""
    if given is not None:
        if not 0 < given < np.inf:
            raise SettingsError(f"{path}: the pixel size is given as {given:g} Å, expected a positive number")
        return np.full(len(table), float(given))
    with np.errstate(all="ignore"):  # what a magnification of 0 gives is refused below
        sizes = _listed_sizes(path, tables, table, label)
    is_bad = ~((sizes > 0) & (sizes < np.inf))
    if is_bad.any():
        raise FormatError(
            f"{path}: {label} of row {int(np.argmax(is_bad)) + 1} is {sizes[np.argmax(is_bad)]:g} Å, expected a "
            "positive number; correct it, or give the pixel size (--pixel-size)"
        )
    return sizes


def _listed_sizes(path: Path, tables: dict[str, StarTable], table: StarTable, label: str) -> NDArray[np.float64]:
    if label in table:
        return table.floats(label)
    optics = tables.get("optics")
    if optics is not None and label in optics and "rlnOpticsGroup" in table:
        groups = dict(zip(optics.ints("rlnOpticsGroup").tolist(), optics.floats(label).tolist(), strict=True))
        used = table.ints("rlnOpticsGroup").tolist()
        unknown = sorted(set(used) - set(groups))
        if unknown:
            raise FormatError(f"{path}: optics group {unknown[0]} is used but not in data_optics; add it there")
        return np.array([groups[group] for group in used])
    is_of_images = "rlnImageName" in table  # whose pixels may be rescaled ones, not the micrograph's
    is_told = label == "rlnImagePixelSize" or not is_of_images
    if is_told and "rlnDetectorPixelSize" in table and "rlnMagnification" in table:
        sizes: NDArray[np.float64] = 1e4 * table.floats("rlnDetectorPixelSize") / table.floats("rlnMagnification")
        return sizes
    raise SettingsError(f"{path}: does not say {label}; give the pixel size (--pixel-size)")
