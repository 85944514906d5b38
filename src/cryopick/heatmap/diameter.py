"""Measuring the particle diameter: the `general` network looks at a few micrographs at many scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.heatmap.emptiness import EMPTY_FILLED_SHARE, MINIMUM_WHERE_UNFILLED, thinned_scores
from cryopick.inference.looks import ONE_LOOK
from cryopick.processing.peaks import vertex_offset
from cryopick.processing.probability import adapted_to_emptier_run, expected_scores, threshold_for_f1
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from cryopick.heatmap.model import HeatmapModel

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
ENOUGH_MICROGRAPHS = 3
"""From which on a size must be seen on more than one of them."""
FIT_FACTORS = tuple(float(factor) for factor in np.geomspace(0.72, 1 / 0.72, 5))
"""Sizes tried around the first estimate or the given one."""
DEVIATION_COST = 2.0
"""Expected F1 that a size costs per squared logarithm of its ratio to what the user says, or to what the network reads
off; noise decides nothing."""
SIZE_ERROR = 0.1
"""Of a measured diameter, rms of its logarithm on the simulated suite: some proteins look smaller than they are, which
more particles do not mend."""
FIT_MICROGRAPHS = 3
FIT_WORKING_PX = 512
MIN_FIT_PARTICLES = 30
"""Expected particles below which a size is not fitted."""
LIKELY = 0.5
"""Probability from which candidates count as particles that fill a micrograph."""
FIT_LIMIT = 1.3
"""Largest factor between the usual working size and the one that the network works at."""
WORKING_FACTOR = 0.8
"""Size that the network takes particles for, over their diameter: shown a quarter larger than nominal, neighbours come
apart better; on the simulated suite this is as good as the nominal size or better at every noise level."""
POPULATION_SHARE = 0.5
"""A second size is reported when it explains at least this share of what the first one does."""


@dataclass(frozen=True)
class DiameterEstimate:
    """A measured particle diameter.

    Parameters
    ----------
    diameter : in Å where the pixel size is known, else in px
    uncertainty : standard error over micrographs together with `SIZE_ERROR`, in the unit of `diameter`
    detection_count, micrograph_count : what it rests on
    populations : all distinct diameters found, the main one first, same unit
    """

    diameter: Length
    uncertainty: float
    detection_count: int
    micrograph_count: int
    populations: tuple[float, ...]

    def __str__(self) -> str:
        unit = self.diameter.unit_symbol
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
    explains, so that many small specks do not outvote the particles that they make up. Near the highest vote the size
    at which the network is surest decides.

    Parameters
    ----------
    model : a loaded `general` network
    micrographs : a few, spread over the run; particles dark

    Returns
    -------
    The estimate, in px where a pixel size is unknown
    """
    unit_px = _unit_px(micrographs)
    votes = [
        _joined([_in_unit(_detect(model, micrograph, diameter_px=size), scale) for size in _scales_px(micrograph)])
        for micrograph, scale in zip(micrographs, unit_px, strict=True)
    ]
    sizes = _joined(votes).diameter_px
    populations = _modes(votes)
    if not populations:
        return None
    fitted = _most_confident(model, micrographs, unit_px, around=populations[0])
    if fitted is None:
        return None
    diameter, uncertainty = fitted
    is_near = np.abs(np.log(sizes / diameter)) < TRUSTED_LOG_SIZE
    unit = "A" if _has_pixel_size(micrographs) else "px"
    return DiameterEstimate(
        diameter=Length(diameter, diameter, unit),
        uncertainty=float(np.hypot(uncertainty, SIZE_ERROR * diameter)),
        detection_count=int(is_near.sum()),
        micrograph_count=len(micrographs),
        populations=(diameter, *populations[1:]),
    )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run's particles: given, fitted or measured.

    Parameters
    ----------
    diameter : of the particles; None where nothing looks like a particle at any size
    working : at which the network looks
    uncertainty : standard error of a measured diameter, in its unit
    sentence : what was measured, for the user; "" where the diameter was given
    """

    diameter: Length | None
    working: Length | None = None
    uncertainty: float | None = None
    sentence: str = ""


def measured_size(model: HeatmapModel, micrographs: Sequence[Micrograph]) -> Sizes:
    """The diameter that `estimate_diameter` finds, if any, and a sentence about it."""
    estimate = estimate_diameter(model, micrographs)
    if estimate is None:
        sentence = "nothing looks like a particle at any size; --diameter searches for one"
        return Sizes(diameter=None, sentence=sentence)
    working = estimate.diameter.times(WORKING_FACTOR)
    return Sizes(diameter=estimate.diameter, working=working, uncertainty=estimate.uncertainty, sentence=str(estimate))


def find_sizes(model: HeatmapModel, micrographs: Sequence[Micrograph], given: Length | None) -> Sizes:
    """The diameter, given or measured, and the size at which `general` works."""
    if given is None:
        return measured_size(model, micrographs)
    return Sizes(diameter=given, working=fit_working_diameter(model, micrographs, given))


def empty_run(likeliest: Length) -> str:
    """What is said of a run that looks empty, instead of the size that its noise and ice come nearest to."""
    return (
        "where the diameter was measured, nothing stands out from noise and ice, not even at the likeliest one, "
        f"{likeliest.middle:.0f} {likeliest.unit_symbol}; --diameter sets another"
    )


def fit_working_diameter(model: HeatmapModel, micrographs: Sequence[Micrograph], given: Length) -> Length:
    """The size, near a given one, at which the network is surest of what it sees.

    Users count a diameter to the tips of the longest view, or with a margin; working at the size that the network
    takes particles for finds more. At most `FIT_LIMIT` away from `WORKING_FACTOR` diameters; just that where too few
    particles are seen to tell.
    """
    unit_px = _unit_px(micrographs) if given.unit == "A" else [1.0] * len(micrographs)
    usual = given.middle * WORKING_FACTOR
    fitted = _most_confident(model, micrographs, unit_px, around=usual)
    size = usual if fitted is None else float(np.clip(fitted[0], usual / FIT_LIMIT, usual * FIT_LIMIT))
    return Length(size, size, given.unit)


@dataclass(frozen=True, eq=False)
class Piece:
    """The middle piece of one micrograph of a run, as it looks at the working size.

    Parameters
    ----------
    scores : (n,), probabilities of its candidates
    particle_share : share of the piece that one particle covers, a square of the working size
    """

    scores: NDArray[np.float64]
    particle_share: float


def look_at_pieces(model: HeatmapModel, micrographs: Sequence[Micrograph], working: Length) -> list[Piece]:
    """The middle pieces of a few micrographs, from which `filled_share` and `looks_empty` judge the run."""
    from cryopick.processing.scale import NOMINAL_PARTICLE_PX

    pieces = []
    diameters = FIT_WORKING_PX / NOMINAL_PARTICLE_PX
    for piece in middle_pieces(micrographs, working, count=FIT_MICROGRAPHS, diameters=diameters):
        size_px = working.middle_px(piece.pixel_size_angstrom)
        pieces.append(Piece(_scores(model, piece, diameter_px=size_px), size_px**2 / piece.pixels.size))
    return pieces


def filled_share(pieces: Sequence[Piece]) -> float:
    """Share of the area that likely particles cover: the median of a few pieces.

    One piece full of round ice must not speak for the run, and noise looks likely here and there, but not often.
    """
    return float(np.median([piece.scores[piece.scores >= LIKELY].sum() * piece.particle_share for piece in pieces]))


def looks_empty(pieces: Sequence[Piece], *, filled: float, calibrated_share: float) -> bool:
    """Whether `general` itself would keep nothing on these pieces, of whose area particles cover `filled`.

    Pickers that go by its measurements are surer of round ice than it is.
    """
    if filled >= EMPTY_FILLED_SHARE:
        return False
    scores = np.concatenate([piece.scores for piece in pieces])
    probability = adapted_to_emptier_run(scores, share=calibrated_share)
    return bool(probability.max(initial=0.0) < MINIMUM_WHERE_UNFILLED)


def middle_pieces(
    micrographs: Sequence[Micrograph], diameter: Length, *, count: int, diameters: float
) -> list[Micrograph]:
    """The middles of a few micrographs, spread over the run, at most so many diameters wide and high."""
    return [
        middle_piece(one, side_px=round(diameters * diameter.middle_px(one.pixel_size_angstrom)))
        for one in evenly_taken(micrographs, count)
    ]


def middle_piece(micrograph: Micrograph, *, side_px: int) -> Micrograph:
    """The middle of a micrograph, at most `side_px` wide and high."""
    height, width = micrograph.shape_yx
    top, left = max(0, (height - side_px) // 2), max(0, (width - side_px) // 2)
    return replace(micrograph, pixels=micrograph.pixels[top : top + side_px, left : left + side_px])


def _most_confident(
    model: HeatmapModel,
    micrographs: Sequence[Micrograph],
    unit_px: Sequence[float],
    *,
    around: float,
) -> tuple[float, float] | None:
    """Diameter with the highest expected F1, and its standard error; None where too few particles are seen to tell.

    The network learnt from particles around its nominal size, so its calibrated probabilities are most decided when
    the working scale is right. The curve over `FIT_FACTORS` is interpolated by a parabola; where its top is at an end,
    the factors move there once.
    """
    penalty = DEVIATION_COST * np.log(np.asarray(FIT_FACTORS)) ** 2
    few = evenly_taken(range(len(micrographs)), FIT_MICROGRAPHS)
    for _ in range(2):
        scores = [
            [_scores(model, micrographs[i], diameter_px=around * factor / unit_px[i]) for i in few]
            for factor in FIT_FACTORS
        ]
        pooled = [np.concatenate(row) for row in scores]
        if max(float(score.sum()) for score in pooled) < MIN_FIT_PARTICLES:
            return None
        top = _top(np.array([_best_expected_f1(score) for score in pooled]) - penalty)
        if FIT_FACTORS[0] < top < FIT_FACTORS[-1]:
            break
        around, top = around * top, 1.0
    each = [_top(np.array([_best_expected_f1(row[i]) for row in scores]) - penalty) for i in range(len(few))]
    spread = float(np.std(np.log(each))) / np.sqrt(len(few)) if len(few) > 1 else float(np.log(FIT_FACTORS[-1])) / 4
    return around * top, around * top * spread


def _top(f1: NDArray[np.float64]) -> float:
    """Where a parabola through the highest value and its neighbours peaks; an end where that is the highest."""
    best = int(np.argmax(f1))
    if best in (0, len(f1) - 1):
        return float(FIT_FACTORS[best])
    shift = float(vertex_offset(*f1[best - 1 : best + 2]))
    step = np.log(FIT_FACTORS[1] / FIT_FACTORS[0])
    return float(FIT_FACTORS[best] * np.exp(shift * step))


def _best_expected_f1(score: NDArray[np.float64]) -> float:
    return expected_scores(score, threshold_for_f1(score))[2]


def _scores(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float) -> NDArray[np.float64]:
    """Probabilities of the candidates in the middle piece of a micrograph, thinned as picks are."""
    found = _candidates(model, micrograph, diameter_px=diameter_px, working_px=FIT_WORKING_PX)
    return thinned_scores(found).astype(np.float64)


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
    found = _candidates(model, micrograph, diameter_px=diameter_px, working_px=WORKING_PX)
    sizes = found.diameter_px.astype(np.float64)
    thinned = select(
        replace(found, diameter_px=np.full(len(found), diameter_px)), SelectionSettings(), threshold=MIN_SCORE
    )
    is_trusted = thinned.is_kept & (np.abs(np.log(sizes / diameter_px)) < TRUSTED_LOG_SIZE)
    height, width = found.shape_yx or (1, 1)
    weight = found.score[is_trusted].astype(np.float64) * sizes[is_trusted] ** 2 / (height * width)
    return _Detections(sizes[is_trusted], weight)


def _candidates(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float, working_px: int) -> Picks:
    """All candidates of the middle piece, `working_px` wide at working scale."""
    from cryopick.heatmap.model import picks_at_scale
    from cryopick.processing.scale import NOMINAL_PARTICLE_PX

    piece = middle_piece(micrograph, side_px=round(working_px * diameter_px / NOMINAL_PARTICLE_PX))
    return picks_at_scale(model, piece, diameter_px=diameter_px, looks=ONE_LOOK)


def _joined(found: Sequence[_Detections]) -> _Detections:
    nothing = np.zeros(0)
    return _Detections(
        np.concatenate([nothing, *[one.diameter_px for one in found]]),
        np.concatenate([nothing, *[one.weight for one in found]]),
    )


def _modes(votes: Sequence[_Detections]) -> list[float]:
    """Diameters at the peaks of the smoothed, weighted histogram of log size, the highest first.

    Of each size's votes those of the micrograph with most are left out, where there are enough: round ice on one of
    them is no population.
    """
    from scipy.ndimage import gaussian_filter1d

    log_size = np.log(_joined(votes).diameter_px)
    if len(log_size) < MIN_DETECTIONS:
        return []
    edges = np.arange(log_size.min() - 10 * BIN, log_size.max() + 11 * BIN, BIN)
    each = np.stack([np.histogram(np.log(one.diameter_px), bins=edges, weights=one.weight)[0] for one in votes])
    each = gaussian_filter1d(each, 2.0, axis=1, mode="constant")
    smooth = each.sum(axis=0) - (each.max(axis=0) if len(votes) >= ENOUGH_MICROGRAPHS else 0.0)
    if not smooth.max() > 0:
        return []
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
