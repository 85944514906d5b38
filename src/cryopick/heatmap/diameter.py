"""Measuring the particle diameter: the `general` network looks at a few micrographs at many scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import Length
from cryopick.heatmap.emptiness import EMPTY_FILLED_SHARE, MINIMUM_WHERE_UNFILLED, thinned_scores
from cryopick.heatmap.size_votes import (
    HOLDING_SHARE,
    are_faint,
    asked,
    candidates,
    closer_votes_of,
    has_pixel_size,
    holders,
    likeliest,
    middle_piece,
    modes,
    units_per_px,
    votes_of,
)
from cryopick.processing.peaks import vertex_offset
from cryopick.processing.probability import adapted_to_emptier_run, expected_scores, threshold_for_f1
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph

if TYPE_CHECKING:
    from cryopick.heatmap.model import HeatmapModel

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
MEAN_VIEW = "the outlines of most views look a tenth to a quarter smaller"
"""On the simulated suite the measured diameter is 1.20 times the mean width of the outlines (geometric mean; its
logarithm has a deviation of 0.15), and 0.93 times the largest extent (0.06): `benchmarks/size_measurement.py suite`."""
MIN_FIT_PARTICLES = 30
"""Expected particles below which a size is not fitted."""
MIN_FIT_PARTICLES_EACH = 10
"""The same on fewer than three micrographs of which each holds something, for each."""
LIKELY = 0.5
"""Probability from which candidates count as particles that fill a micrograph."""
FIT_LIMIT = 1.3
"""Largest factor between the usual working size and the one that the network works at."""
WORKING_FACTOR = 0.8
"""Size that the network takes particles for, over their diameter: shown a quarter larger than nominal, neighbours come
apart better; on the simulated suite this is as good as the nominal size or better at every noise level."""


@dataclass(frozen=True)
class DiameterEstimate:
    """A measured particle diameter: the largest extent of the species, as the network learnt it from simulation.

    Most views look smaller than that, by how much depends on the shape.

    Parameters
    ----------
    diameter : in Å where the pixel size is known, else in px
    uncertainty : standard error over micrographs together with `SIZE_ERROR`, in the unit of `diameter`
    detection_count, micrograph_count : what it rests on, each particle counted once: the likely ones at the final size
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
            f"diameter {self.diameter.middle:.0f} ± {self.uncertainty:.0f} {unit} from tip to tip of the longest view "
            f"({MEAN_VIEW}), measured on {_counted(self.detection_count, 'particle')} of "
            f"{_counted(self.micrograph_count, 'micrograph')}"
        )
        if len(self.populations) > 1:
            others = ", ".join(f"{size:.0f} {unit}" for size in self.populations[1:])
            text += f"; there are also particles of {others}: pick them in a run of their own with --diameter"
        return text


def estimate_diameter(model: HeatmapModel, micrographs: Sequence[Micrograph]) -> DiameterEstimate | None:
    """Measure the diameter of the commonest particles; None where nothing looks like a particle at any size.

    A cheap look at every scale tells which micrographs hold something and what sizes they vote for; around the size
    that most is seen of, the network looks again, closer, and the size at which it is surest decides. Empty
    micrographs have no vote.

    Parameters
    ----------
    model : a loaded `general` network
    micrographs : spread over the run; particles dark. Of many, at most `MOST_VOTERS` are looked at

    Returns
    -------
    The estimate, in px where a pixel size is unknown
    """
    unit_px = units_per_px(micrographs)
    few = asked(model, micrographs)
    voters, unit_px = [micrographs[i] for i in few], [unit_px[i] for i in few]
    votes = [votes_of(model, one).times(unit) for one, unit in zip(voters, unit_px, strict=True)]
    populations = modes(votes)
    if not populations:
        return None
    first = populations[0]
    if are_faint(votes, first):
        closer = [
            closer_votes_of(model, one, around_px=first / unit).times(unit)
            for one, unit in zip(voters, unit_px, strict=True)
        ]
        if not holders(votes) and not holders(closer):
            return None
        first = likeliest(closer) or first
    fit = _most_confident(model, voters, unit_px, around=first, least_each=bool(holders(votes)))
    if fit is None:
        return None
    unit = "A" if has_pixel_size(micrographs) else "px"
    return DiameterEstimate(
        diameter=Length(fit.size, fit.size, unit),
        uncertainty=float(np.hypot(fit.uncertainty, SIZE_ERROR * fit.size)),
        detection_count=fit.particle_count,
        micrograph_count=fit.micrograph_count,
        populations=(fit.size, *populations[1:]),
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


def holding_particles(model: HeatmapModel, micrographs: Sequence[Micrograph], given: Length | None) -> list[int]:
    """Which micrographs show more that looks like particles, of the given diameter or of any, than noise and dirt do.

    It costs one look at the middle of each where the diameter is given, else one at each scale, which measuring the
    diameter uses again.
    """
    unit_px = units_per_px(micrographs)
    if given is None:
        return holders([votes_of(model, one).times(unit) for one, unit in zip(micrographs, unit_px, strict=True)])
    filled = np.array([_filled_share_of(model, one, given.times(WORKING_FACTOR)) for one in micrographs])
    return np.flatnonzero(filled >= max(EMPTY_FILLED_SHARE, HOLDING_SHARE * filled.max(initial=0.0))).tolist()


_filled: WeakKeyDictionary[HeatmapModel, WeakKeyDictionary[Micrograph, dict[Length, float]]] = WeakKeyDictionary()
"""Of micrographs that still are in memory: they are asked about again with every further one."""


def _filled_share_of(model: HeatmapModel, micrograph: Micrograph, working: Length) -> float:
    known = _filled.setdefault(model, WeakKeyDictionary()).setdefault(micrograph, {})
    if working not in known:
        known[working] = filled_share(look_at_pieces(model, [micrograph], working))
    return known[working]


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
    unit_px = units_per_px(micrographs) if given.unit == "A" else [1.0] * len(micrographs)
    usual = given.middle * WORKING_FACTOR
    fitted = _most_confident(model, micrographs, unit_px, around=usual)
    size = usual if fitted is None else float(np.clip(fitted.size, usual / FIT_LIMIT, usual * FIT_LIMIT))
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


@dataclass(frozen=True)
class _Fit:
    """A fitted size and its standard error, in the unit asked, and the likely particles seen at it."""

    size: float
    uncertainty: float
    particle_count: int
    micrograph_count: int


def _most_confident(
    model: HeatmapModel,
    micrographs: Sequence[Micrograph],
    unit_px: Sequence[float],
    *,
    around: float,
    least_each: bool = False,
) -> _Fit | None:
    """Diameter with the highest expected F1; None where too few particles are seen to tell.

    The network learnt from particles around its nominal size, so its calibrated probabilities are most decided when
    the working scale is right. The curve over `FIT_FACTORS` is interpolated by a parabola; where its top is at an end,
    the factors move there once.
    """
    penalty = DEVIATION_COST * np.log(np.asarray(FIT_FACTORS)) ** 2
    few = evenly_taken(range(len(micrographs)), FIT_MICROGRAPHS)
    least = min(MIN_FIT_PARTICLES, MIN_FIT_PARTICLES_EACH * len(few)) if least_each else MIN_FIT_PARTICLES
    known: dict[int, list[NDArray[np.float64]]] = {}
    """By the step from the first size: steps are equal factors, so that factors which moved meet most sizes again."""
    moved = 0
    for _ in range(2):
        for step, factor in enumerate(FIT_FACTORS, moved):
            if step not in known:
                known[step] = [_scores(model, micrographs[i], diameter_px=around * factor / unit_px[i]) for i in few]
        scores = [known[step] for step in range(moved, moved + len(FIT_FACTORS))]
        pooled = [np.concatenate(row) for row in scores]
        if max(float(score.sum()) for score in pooled) < least:
            return None
        top = _top(np.array([_best_expected_f1(score) for score in pooled]) - penalty)
        if FIT_FACTORS[0] < top < FIT_FACTORS[-1]:
            break
        around, moved, top = around * top, moved + (FIT_FACTORS.index(top) - len(FIT_FACTORS) // 2), 1.0
    each = [_top(np.array([_best_expected_f1(row[i]) for row in scores]) - penalty) for i in range(len(few))]
    spread = float(np.std(np.log(each))) / np.sqrt(len(few)) if len(few) > 1 else float(np.log(FIT_FACTORS[-1])) / 4
    nearest = pooled[int(np.argmin(np.abs(np.log(np.asarray(FIT_FACTORS) / top))))]
    size = around * top
    return _Fit(size, size * spread, int(np.count_nonzero(nearest >= LIKELY)), len(few))


def _top(f1: NDArray[np.float64]) -> float:
    """Where a parabola through the highest value and its neighbours peaks; an end where that is the highest."""
    best = int(np.argmax(f1))
    if best in (0, len(f1) - 1):
        return float(FIT_FACTORS[best])
    shift = float(vertex_offset(*f1[best - 1 : best + 2]))
    step = np.log(FIT_FACTORS[1] / FIT_FACTORS[0])
    return float(FIT_FACTORS[best] * np.exp(shift * step))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _best_expected_f1(score: NDArray[np.float64]) -> float:
    return expected_scores(score, threshold_for_f1(score))[2]


def _scores(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float) -> NDArray[np.float64]:
    """Probabilities of the candidates in the middle piece of a micrograph, thinned as picks are."""
    found = candidates(model, micrograph, diameter_px=diameter_px, working_px=FIT_WORKING_PX)
    return thinned_scores(found).astype(np.float64)
