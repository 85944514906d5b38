"""The vocabulary that every layer speaks: `Micrograph` and `Picks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FRAME = "relion"
"""The only frame inside cryopick: centres `(x, y)` in pixels, `(0, 0)` the centre of the first stored pixel, y grows
with the row. Other frames are converted in `cryopick.io`."""

_ALL_MISSING: Any = None
"""Default of the columns of `Picks`; filled with each column's missing value on creation."""

JUNK_MAP = "junk"
"""Name of the map in `Picks.maps` that holds the probability of carbon, ice or contamination, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One motion-corrected, summed micrograph.

    Parameters
    ----------
    pixels : (h, w) float32, as stored (no contrast or axis change); may hold NaN or inf, which pickers must survive
    name : unique within a run; the path relative to the input folder, with `/` as separator
    pixel_size_angstrom : Å per pixel, or None when unknown
    path : where the pixels came from, or None for an array in memory
    """

    pixels: NDArray[np.float32]
    name: str = "micrograph"
    pixel_size_angstrom: float | None = None
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.ndim != 2 or 0 in pixels.shape:
            raise ValueError(f"{self.name}: a micrograph is a 2-D image, got an array of shape {pixels.shape}")
        object.__setattr__(self, "pixels", np.ascontiguousarray(pixels, dtype=np.float32))

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def inverted(self) -> Micrograph:
        """The same micrograph with opposite contrast (negative stain becomes particles-dark)."""
        return replace(self, pixels=-self.pixels)


@dataclass(frozen=True, eq=False)
class Picks:
    """Particle centres of one micrograph, kept and rejected ones alike.

    Parameters
    ----------
    xy_px : (n, 2) float64, centres in the frame named by `FRAME`
    score : (n,) float32, higher is better; NaN where a format carries none
    diameter_px : (n,) float32, NaN where unknown
    class_id : (n,) int32, species or view; 0 where there is only one
    reason : (n,) str, why a candidate was rejected; "" for kept ones (see `cryopick.geometry.selection`)
    micrograph_name, shape_yx, pixel_size_angstrom : of the micrograph; None where a file does not say
    maps : named overview images for the report, any size, each spanning the whole micrograph; particles' heat, junk
    warnings : sentences for the user; the result still stands
    """

    xy_px: NDArray[np.float64]
    score: NDArray[np.float32] = _ALL_MISSING
    diameter_px: NDArray[np.float32] = _ALL_MISSING
    class_id: NDArray[np.int32] = _ALL_MISSING
    reason: NDArray[np.str_] = _ALL_MISSING
    micrograph_name: str = "micrograph"
    shape_yx: tuple[int, int] | None = None
    pixel_size_angstrom: float | None = None
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        xy_px = np.asarray(self.xy_px, dtype=np.float64).reshape(-1, 2)
        n = len(xy_px)
        object.__setattr__(self, "xy_px", xy_px)
        columns: tuple[tuple[str, type, object], ...] = (
            ("score", np.float32, np.nan),
            ("diameter_px", np.float32, np.nan),
            ("class_id", np.int32, 0),
            ("reason", np.str_, ""),
        )
        for name, dtype, missing in columns:
            given: ArrayLike | None = getattr(self, name)
            column: NDArray[Any] = np.asarray(missing if given is None else given, dtype=dtype)
            column = np.full(n, column) if column.ndim == 0 else column
            if column.shape != (n,):
                raise ValueError(f"{self.micrograph_name}: {n} centres but `{name}` has shape {column.shape}")
            object.__setattr__(self, name, column)

    @classmethod
    def none_on(cls, micrograph: Micrograph, *, warnings: tuple[str, ...] = ()) -> Picks:
        """No picks, with what is known of the micrograph."""
        return cls(
            xy_px=np.zeros((0, 2)),
            micrograph_name=micrograph.name,
            shape_yx=micrograph.shape_yx,
            pixel_size_angstrom=micrograph.pixel_size_angstrom,
            warnings=warnings,
        )

    def __len__(self) -> int:
        return len(self.xy_px)

    @property
    def is_kept(self) -> NDArray[np.bool_]:
        """(n,) True where no rejection reason is recorded."""
        return np.asarray(self.reason == "")

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Picks:
        """The picks at `index` (integers or a mask), everything else unchanged."""
        return replace(
            self,
            xy_px=self.xy_px[index],
            score=self.score[index],
            diameter_px=self.diameter_px[index],
            class_id=self.class_id[index],
            reason=self.reason[index],
        )

    def kept(self) -> Picks:
        """Only the accepted picks."""
        return self.take(self.is_kept)


@dataclass(frozen=True, eq=False)
class Volume:
    """A cubic density map.

    Parameters
    ----------
    density : (n, n, n) float32, axes `[z, y, x]`; electrostatic potential in volts above that of the surrounding ice
        where it is physical (simulation), arbitrary units for maps read from files. The rotation centre is voxel
        `n // 2` of every axis, as in RELION.
    voxel_size_angstrom : Å per voxel
    """

    density: NDArray[np.float32]
    voxel_size_angstrom: float
    name: str = "volume"

    def __post_init__(self) -> None:
        density = np.asarray(self.density)
        if density.ndim != 3 or len(set(density.shape)) != 1 or 0 in density.shape:
            raise ValueError(f"{self.name}: a volume is a cube (n, n, n), got an array of shape {density.shape}")
        object.__setattr__(self, "density", np.ascontiguousarray(density, dtype=np.float32))
