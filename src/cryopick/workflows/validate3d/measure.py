"""The figures of one reconstruction: resolution of its half maps and against the truth, views, success."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.structures.volume import write_volume
from cryopick.metrics.fourier_shell_correlation import (
    AGAINST_TRUTH,
    HALF_MAPS,
    fourier_shell_correlation,
    half_map_curves,
    resolution_at,
)
from cryopick.metrics.viewing_directions import viewing_directions
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.reconstruction.masks import soft_mask_of
from cryopick.reconstruction.symmetry import operators
from cryopick.types import Volume
from cryopick.workflows.validate3d.engines import Reconstruction
from cryopick.workflows.validate3d.geometry import BoxGeometry

SUCCESS_FSC = 0.8
"""Right maps agree by .93 and more out to a quarter of the diameter, stuck ones by .65, failed ones by less than .2."""
SUCCESS_DIAMETERS = 0.25
CURVES = ("unmasked", "masked", "randomized", "corrected", "truth")


@dataclass(frozen=True, eq=False)
class Figures:
    """What one reconstruction came to.

    Parameters
    ----------
    half_angstrom : where the corrected half-map FSC falls below 0.143; Nyquist where it never does
    truth_angstrom : where the FSC against the true map falls below 0.5; None where it is unknown
    low_fsc : the least FSC out to a quarter of the diameter, against the truth where it is known, else of half maps
    evenness : of the directions of view, see `cryopick.metrics.viewing_directions`
    mirrored : the map fits the truth as its mirror image, which no projection can tell
    curves : (shells,) by name, see `CURVES`
    """

    half_angstrom: float
    truth_angstrom: float | None
    low_fsc: float
    mirrored: bool | None
    evenness: float
    curves: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """Whether the map is right as far as a quarter of the diameter."""
        return self.low_fsc >= SUCCESS_FSC

    def facts(self) -> dict[str, Any]:
        """As JSON takes it; the curves stand in `fsc.csv`."""
        return {
            "half_angstrom": _or_none(self.half_angstrom),
            "truth_angstrom": None if self.truth_angstrom is None else _or_none(self.truth_angstrom),
            "low_fsc": self.low_fsc,
            "mirrored": self.mirrored,
            "evenness": self.evenness,
        }


def measure(
    found: Reconstruction,
    truth: Volume | None,
    geometry: BoxGeometry,
    folder: Path,
    *,
    symmetry: str,
    is_aligned: bool,
) -> Figures:
    """Measure a reconstruction, and write its mask, its curves and, where the truth is known, the map aligned to it."""
    mask = soft_mask_of(found.map, diameter_angstrom=geometry.diameter_angstrom)
    curves = half_map_curves(found.half1.density, found.half2.density, mask)
    every = {name: getattr(curves, name) for name in CURVES[:-1]}
    write_volume(folder / "mask.mrc", Volume(mask, geometry.pixel_size_angstrom))
    truth_angstrom, mirrored, low = None, None, curves.corrected
    if truth is not None:
        aligned = found.map
        if not is_aligned:
            alignment = align_volumes(
                found.map,
                truth,
                diameter_angstrom=geometry.diameter_angstrom,
                symmetry_operators=operators(symmetry),
            )
            aligned, mirrored = alignment.aligned, bool(alignment.is_mirrored)
        true_mask = soft_mask_of(truth, diameter_angstrom=geometry.diameter_angstrom)
        every["truth"] = low = fourier_shell_correlation(aligned.density, truth.density, true_mask)
        truth_angstrom = _resolution(low, AGAINST_TRUTH, geometry)
        write_volume(folder / "aligned.mrc", aligned)
    write_text_atomic(folder / "fsc.csv", curves_csv(every, geometry))
    return Figures(
        half_angstrom=_resolution(curves.corrected, HALF_MAPS, geometry),
        truth_angstrom=truth_angstrom,
        low_fsc=float(low[1 : success_shell(geometry) + 1].min()),
        mirrored=mirrored,
        evenness=viewing_directions(found.poses.rotations, operators(symmetry)).evenness,
        curves=every,
    )


def _resolution(curve: NDArray[np.float64], threshold: float, geometry: BoxGeometry) -> float:
    return resolution_at(curve, threshold, box_px=geometry.scaled_px, pixel_size_angstrom=geometry.pixel_size_angstrom)


def success_shell(geometry: BoxGeometry) -> int:
    """The last shell that must agree for a map to be right: a quarter of the diameter."""
    edge = geometry.scaled_px * geometry.pixel_size_angstrom
    return max(1, int(edge / (SUCCESS_DIAMETERS * geometry.diameter_angstrom)))


def curves_csv(curves: Mapping[str, NDArray[np.float64]], geometry: BoxGeometry) -> str:
    """One row a shell: its number, its resolution in Å, and each curve."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["shell", "angstrom", *curves])
    edge = geometry.scaled_px * geometry.pixel_size_angstrom
    for shell, values in enumerate(zip(*curves.values(), strict=True)):
        angstrom = "" if shell == 0 else f"{edge / shell:.3f}"
        rows.writerow([shell, angstrom, *(f"{value:.6f}" for value in values)])
    return text.getvalue()


def read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """The curves of a file that `curves_csv` made."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name in CURVES]
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def _or_none(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None
