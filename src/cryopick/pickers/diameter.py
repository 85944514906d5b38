"""Measuring the particle diameter: the `general` network looks at a few micrographs at many scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from cryopick.pickers.general import HeatmapModel

SMALLEST_PX = 14.0
"""Smaller particles do not hold enough pixels to be told from noise."""
LARGEST_SHARE = 0.4
"""Largest diameter tried, as a share of the shorter side of the micrograph."""
SCALE_STEP = 1.3
"""Ratio of neighbouring scales; the network sizes particles up to about 1.5 times off its nominal size."""
TRUSTED_LOG_SIZE = float(np.log(1.4))
WORKING_PX = 1024
"""Side of the middle piece of a micrograph that is looked at, working pixels."""
MIN_SCORE = 0.4
BIN = 0.04
"""Width of the histogram bins, in the natural logarithm of the diameter."""
MIN_DETECTIONS = 3
MIN_FIT_DETECTIONS = 30
FIT_LIMIT = 1.3
"""Largest factor between a given diameter and the size that the network works at."""
POPULATION_SHARE = 0.25
"""A second size is reported when it explains at least this share of what the first one does."""


@dataclass(frozen=True)
class DiameterEstimate:
    """A measured particle diameter.

    Parameters
    ----------
    diameter : in Å where the pixel size is known, else in px
    uncertainty : standard error over detections and micrographs, in the unit of `diameter`
    detection_count, micrograph_count : what it rests on
    populations : all distinct diameters found, the main one first, same unit
    """

    diameter: Length
    uncertainty: float
    detection_count: int
    micrograph_count: int
    populations: tuple[float, ...]

    def __str__(self) -> str:
        unit = "Å" if self.diameter.unit == "A" else "px"
        text = (
            f"diameter {self.diameter.middle:.0f} ± {self.uncertainty:.0f} {unit}, measured on {self.detection_count} "
            f"particles of {self.micrograph_count} micrographs"
        )
        if len(self.populations) > 1:
            others = ", ".join(f"{size:.0f} {unit}" for size in self.populations[1:])
            text += f"; there are also particles of {others}: pick them in a run of their own with --diameter"
        return text


@dataclass(frozen=True, eq=False)
class _Detections:
    """Confident particles of one micrograph at one scale; `weight` is the share of the area that each explains."""

    diameter_px: NDArray[np.float64]
    weight: NDArray[np.float64]


def estimate_diameter(model: HeatmapModel, micrographs: Sequence[Micrograph]) -> DiameterEstimate | None:
    """Measure the diameter of the commonest particles; None where nothing looks like a particle at any size.

    Every scale's confident detections vote for the size that the network reads off them, each with the area that it
    explains, so that many small specks do not outvote the particles that they make up. The highest vote is refined at
    its own scale.

    Parameters
    ----------
    model : a loaded `general` network
    micrographs : a few, spread over the run; particles dark

    Raises
    ------
    SettingsError
        Never; micrographs of unknown pixel size give a diameter in px.
    """
    unit_px = _unit_px(micrographs)
    votes = [
        _in_unit(_detect(model, micrograph, diameter_px=diameter_px), scale)
        for micrograph, scale in zip(micrographs, unit_px, strict=True)
        for diameter_px in _scales_px(micrograph)
    ]
    sizes = np.concatenate([vote.diameter_px for vote in votes]) if votes else np.zeros(0)
    weights = np.concatenate([vote.weight for vote in votes]) if votes else np.zeros(0)
    populations = _modes(sizes, weights)
    if not populations:
        return None
    found = _refine(model, micrographs, diameter=populations[0], unit_px=unit_px)
    if found is None:
        return None
    medians = [float(np.median(sizes)) for sizes in found if len(sizes) >= MIN_DETECTIONS]
    every = np.concatenate(found)
    diameter, count = float(np.median(every)), len(every)
    spread = float(np.std(medians)) / np.sqrt(len(medians)) if len(medians) > 1 else 0.0
    own_error = 1.2533 * float(np.std(every)) / np.sqrt(count)  # standard error of a median
    unit = "A" if _has_pixel_size(micrographs) else "px"
    return DiameterEstimate(
        diameter=Length(diameter, diameter, unit),
        uncertainty=float(np.hypot(spread, own_error)),
        detection_count=count,
        micrograph_count=len(micrographs),
        populations=(diameter, *populations[1:]),
    )


def fit_working_diameter(model: HeatmapModel, micrographs: Sequence[Micrograph], given: Length) -> Length:
    """The size at which the network sees these particles best, near a given diameter.

    Users count a diameter to the tips of the longest view, or with a margin; the network knows the extent that it can
    see. Working at that size finds more. At most `FIT_LIMIT` away from the given one; where the network sees too few
    particles to tell, the given one.
    """
    unit_px = _unit_px(micrographs) if given.unit == "A" else [1.0] * len(micrographs)
    found = _refine(model, micrographs, diameter=given.middle, unit_px=unit_px)
    if found is None or sum(map(len, found)) < MIN_FIT_DETECTIONS:
        return given
    fitted = float(np.median(np.concatenate(found)))
    fitted = float(np.clip(fitted, given.middle / FIT_LIMIT, given.middle * FIT_LIMIT))
    return Length(fitted, fitted, given.unit)


def _refine(
    model: HeatmapModel, micrographs: Sequence[Micrograph], *, diameter: float, unit_px: Sequence[float]
) -> list[NDArray[np.float64]] | None:
    """Sizes of the confident detections of each micrograph, read twice, since they are most exact at the right scale.

    None where there are fewer than `MIN_DETECTIONS`.
    """
    found: list[NDArray[np.float64]] = []
    for _ in range(2):
        found = [
            _in_unit(_detect(model, micrograph, diameter_px=diameter / scale), scale).diameter_px
            for micrograph, scale in zip(micrographs, unit_px, strict=True)
        ]
        every = np.concatenate(found)
        if len(every) < MIN_DETECTIONS:
            return None
        diameter = float(np.median(every))
    return found


def _has_pixel_size(micrographs: Sequence[Micrograph]) -> bool:
    return all(micrograph.pixel_size_angstrom is not None for micrograph in micrographs)


def _unit_px(micrographs: Sequence[Micrograph]) -> list[float]:
    """Units (Å, or px where a pixel size is unknown) per pixel of each micrograph."""
    if not _has_pixel_size(micrographs):
        return [1.0] * len(micrographs)
    return [float(micrograph.pixel_size_angstrom or 1.0) for micrograph in micrographs]


def _in_unit(found: _Detections, units_per_px: float) -> _Detections:
    return _Detections(found.diameter_px * units_per_px, found.weight)


def _scales_px(micrograph: Micrograph) -> NDArray[np.float64]:
    largest = LARGEST_SHARE * min(micrograph.shape_yx)
    if largest <= SMALLEST_PX:
        return np.zeros(0)
    count = 1 + int(np.ceil(np.log(largest / SMALLEST_PX) / np.log(SCALE_STEP)))
    return np.geomspace(SMALLEST_PX, largest, count)


def _detect(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float) -> _Detections:
    from cryopick.pickers.general import NOMINAL_PARTICLE_PX, picks_at_scale

    height, width = micrograph.shape_yx
    side = round(WORKING_PX * diameter_px / NOMINAL_PARTICLE_PX)
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    piece = Micrograph(micrograph.pixels[top : top + side, left : left + side], name=micrograph.name)
    found = picks_at_scale(model, piece, diameter_px=diameter_px)
    thinned = select(_with_one_diameter(found, diameter_px), SelectionSettings(), threshold=MIN_SCORE).is_kept
    sizes = found.diameter_px.astype(np.float64)
    is_trusted = thinned & (np.abs(np.log(sizes / diameter_px)) < TRUSTED_LOG_SIZE)
    area = piece.shape_yx[0] * piece.shape_yx[1]
    weight = found.score[is_trusted].astype(np.float64) * sizes[is_trusted] ** 2 / area
    return _Detections(sizes[is_trusted], weight)


def _with_one_diameter(picks: Picks, diameter_px: float) -> Picks:
    return Picks(
        xy_px=picks.xy_px,
        score=picks.score,
        diameter_px=np.full(len(picks), diameter_px),
        shape_yx=picks.shape_yx,
    )


def _modes(sizes: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """Diameters at the peaks of the smoothed, weighted histogram of log size, the highest first."""
    from scipy.ndimage import gaussian_filter1d

    if len(sizes) < MIN_DETECTIONS:
        return []
    log_size = np.log(sizes)
    edges = np.arange(log_size.min() - 10 * BIN, log_size.max() + 11 * BIN, BIN)
    histogram, _ = np.histogram(log_size, bins=edges, weights=weights)
    smooth = gaussian_filter1d(histogram, 2.0, mode="constant")
    is_peak = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])
    peaks = np.flatnonzero(is_peak) + 1
    peaks = peaks[np.argsort(-smooth[peaks], kind="stable")]
    chosen: list[float] = []
    for peak in peaks:
        size = float(np.exp(edges[peak] + BIN / 2))
        is_strong = smooth[peak] >= POPULATION_SHARE * smooth[peaks[0]]
        if is_strong and all(abs(np.log(size / other)) > np.log(1.35) for other in chosen):
            chosen.append(size)
    return chosen
