"""The vocabulary that every layer speaks: `Micrograph` and `Picks`."""

from __future__ import annotations

import math
import numbers
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryopick.errors import SettingsError
from cryopick.extras import require_extra

if TYPE_CHECKING:
    import pandas

    from cryopick.pages.picture import Picture

FRAME = "relion"
"""The only frame inside cryopick: centres `(x, y)` in pixels, `(0, 0)` the centre of the first stored pixel, y grows
with the row. Other frames are converted in `cryopick.io`."""

_ALL_MISSING: Any = None
"""Default of the columns of `Picks`; filled with each column's missing value on creation."""

JUNK_MAP = "junk"
"""Name of the map in `Picks.maps` that holds the probability of carbon, ice or contamination, 0 to 1."""
PARTICLE_MAP = "particle probability"
"""Name of the map that holds the probability of a particle's silhouette, 0 to 1, which `evaluate --masks` scores."""
UNREFINED = " before the random field"
"""Behind the name of such a map: what it was before a conditional random field refined it."""
CLASS_MAP = "class {} probability"
"""Names of the maps of all classes, by number, where there are more than background and particle."""

JUNK_PROBABILITY = 0.3
"""From this probability of junk on nothing is picked. On simulated crops with much carbon and ice the masks overlap
with the truth better than at 0.5 and no particle beside them is lost; lower ones cost particles near real carbon."""


def plain_number(value: Any, what: str) -> float:
    """A Python number from one of Python or numpy, arrays without axes such as an MRC header's values included.

    Numpy's short floats become what they print as: `np.float32(1.1)` is 1.1, as whoever wrote it meant.

    Raises
    ------
    SettingsError
        If it is no number (booleans are none), not a number (NaN), or infinite.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.bool_ | bool) or not isinstance(value, numbers.Real | np.floating):
        raise SettingsError(f"{what}: expected a number, got {value!r}")
    if isinstance(value, np.floating):
        value = float(str(value))
    number: float = int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(number, int) and abs(number) > sys.float_info.max:
        raise SettingsError(f"{what} is a whole number of {number.bit_length()} bits, more than a float holds")
    if not math.isfinite(number):
        raise SettingsError(f"{what} is {number}, expected a finite number")
    return number


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
        size = self.pixel_size_angstrom
        if size is not None:
            number = float(plain_number(size, f"{self.name}: pixel size"))
            if number <= 0:
                raise SettingsError(
                    f"{self.name}: pixel size is {number:g}, expected Å per pixel, above 0; leave it out where it is "
                    "unknown"
                )
            object.__setattr__(self, "pixel_size_angstrom", number)

    def __repr__(self) -> str:
        height, width = self.shape_yx
        size = "unknown pixel size" if self.pixel_size_angstrom is None else f"{self.pixel_size_angstrom:.4g} Å/px"
        return f"<Micrograph {self.name!r}: {width} x {height} px, {size}>"

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def draw(self, *, width_px: int = 900) -> Picture:
        """As a picture, its contrast stretched; a notebook shows it, `.save("x.png")` writes it."""
        from cryopick.pages.picture import picture_of

        return picture_of(self.pixels, width_px=width_px)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.draw().png

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
    least_centring_error_px : median distance of the centres from those of the particles that they have at least, by
        whose they are: the picker's, and its members' where it has such, of whom one that lacks an error which the
        others share is said to have it; empty where it estimates none
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
    least_centring_error_px: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        xy_px = np.asarray(self.xy_px, dtype=np.float64)
        if xy_px.size and xy_px.shape != (2,) and (xy_px.ndim != 2 or xy_px.shape[1] != 2):
            raise ValueError(
                f"{self.micrograph_name}: centres are an array of shape {xy_px.shape}, expected (n, 2): x and y of each"
            )
        xy_px = xy_px.reshape(-1, 2)
        n = len(xy_px)
        object.__setattr__(self, "xy_px", xy_px)
        if self.pixel_size_angstrom is not None:
            number = float(plain_number(self.pixel_size_angstrom, f"{self.micrograph_name}: pixel size"))
            object.__setattr__(self, "pixel_size_angstrom", number)
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

    @classmethod
    def of_candidates(
        cls,
        micrograph: Micrograph,
        xy_px: NDArray[np.float64],
        score: NDArray[np.float32],
        diameter_px: NDArray[np.floating] | float,
        *,
        rank: NDArray[np.floating] | None = None,
        class_id: NDArray[np.integer] | int = 0,
        maps: Mapping[str, NDArray[np.float32]] | None = None,
        warnings: tuple[str, ...] = (),
        least_centring_error_px: Mapping[str, float] | None = None,
    ) -> Picks:
        """The candidates that a picker found on a micrograph: those inside it, best first.

        Parameters
        ----------
        xy_px : (n, 2) centres in stored pixels; those beyond the outer edges of the border pixels are left out
        score, diameter_px, class_id : (n,), or one value for all
        rank : (n,) what orders them, highest first, where it tells apart what the score calls equal; equal ones stay in
            the order in which they came
        """
        xy = np.asarray(xy_px, np.float64).reshape(-1, 2)
        n = len(xy)
        height, width = micrograph.shape_yx
        is_inside = ((xy >= -0.5) & (xy < np.array([width - 0.5, height - 0.5]))).all(axis=1)
        order = np.flatnonzero(is_inside)
        order = order[np.argsort(-np.asarray(score if rank is None else rank)[order], kind="stable")]
        return cls(
            xy_px=xy[order],
            score=np.asarray(score, np.float32)[order],
            diameter_px=np.broadcast_to(np.asarray(diameter_px, np.float32), n)[order],
            class_id=np.broadcast_to(np.asarray(class_id, np.int32), n)[order],
            micrograph_name=micrograph.name,
            shape_yx=micrograph.shape_yx,
            pixel_size_angstrom=micrograph.pixel_size_angstrom,
            maps=maps or {},
            warnings=warnings,
            least_centring_error_px=least_centring_error_px or {},
        )

    def __len__(self) -> int:
        return len(self.xy_px)

    def __repr__(self) -> str:
        known = self.score[np.isfinite(self.score)]
        score = f"score {known.min():.4g} to {known.max():.4g}" if len(known) else "no score"
        kept = np.count_nonzero(self.is_kept)
        return f"<Picks on {self.micrograph_name!r}: {len(self)} candidates, {kept} kept, {score}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: how many candidates became what, and the best picks."""
        from cryopick.pages.render import render

        kept = self.kept()
        best = kept.take(np.argsort(-kept.score, kind="stable")[:5])  # NaN last
        return render(
            "picks.html", picks=self, kept=kept, best=best, rejected=Counter(self.reason[~self.is_kept].tolist())
        )

    def draw(self, micrograph: Micrograph, *, rejected: bool = False, width_px: int = 900) -> Picture:
        """On their micrograph, kept ones green; with `rejected` the others amber. A notebook shows the picture.

        Raises
        ------
        SettingsError
            If the micrograph has another shape than the one that was picked.
        """
        from cryopick.pages.picture import picture_of

        if self.shape_yx is not None and self.shape_yx != micrograph.shape_yx:
            raise SettingsError(
                f"picks of {self.micrograph_name} are on {self.shape_yx[1]} x {self.shape_yx[0]} px, {micrograph.name} "
                f"has {micrograph.shape_yx[1]} x {micrograph.shape_yx[0]}; give the micrograph that they were picked on"
            )
        drawn = self if rejected else self.kept()
        return picture_of(
            micrograph.pixels,
            xy_px=drawn.xy_px,
            diameter_px=drawn.diameter_px,
            is_kept=drawn.is_kept,
            width_px=width_px,
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per candidate with its micrograph, place, score, diameter, class and reason ("" where it is kept).

        Raises
        ------
        MissingExtraError
            If pandas is not installed; the error says how to install it.
        """
        require_extra("notebook", ["pandas"], "a table of picks")
        import pandas

        return pandas.DataFrame(
            {
                "micrograph": self.micrograph_name,
                "x_px": self.xy_px[:, 0],
                "y_px": self.xy_px[:, 1],
                "score": self.score,
                "diameter_px": self.diameter_px,
                "class_id": self.class_id,
                "reason": self.reason,
            }
        )

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
