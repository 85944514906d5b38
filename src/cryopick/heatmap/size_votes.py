"""Which sizes a few micrographs vote for, and which of them hold something: one cheap look at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.inference.looks import ONE_LOOK
from cryopick.inference.progress import tell
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from cryopick.heatmap.model import HeatmapModel

SMALLEST_PX = 14.0
"""Smaller particles do not hold enough pixels to be told from noise."""
LARGEST_SHARE = 0.4
"""Largest diameter tried, as a share of the shorter side of the micrograph."""
SCALE_STEP = 1.5
"""Largest ratio of neighbouring scales; the network sizes particles up to about 1.5 times off its nominal size."""
TRUSTED_LOG_SIZE = float(np.log(1.4))
VOTING_PX = 376
"""Side of the middle piece of a micrograph that is looked at, working pixels: 19 diameters, and the same shape at every
scale, since 8-bit networks are packed anew for each shape."""
FAINT_SHARE = 0.12
"""Mean area share that votes explain below which a larger piece is looked at: of 16 simulated sets of other proteins
than the suite's that holds for the faintest, a flexible one at the hard level."""
CLOSER_FACTORS = (1.0, 1.3, 1.3**2)
CLOSER_PX = 1016
"""Sizes around the first guess, and the side of the piece in working pixels, of that closer look. Faint particles are
first taken for too small ones, so the sizes are larger. Chosen on flexible and rod-like proteins at the hard
level, of the suite and others."""
MIN_SCORE = 0.4
BIN = 0.04
"""Width of the histogram bins, in the natural logarithm of the diameter."""
VOTE_WIDTH = 0.12
"""Standard deviation by which the network's sizes of one kind of particles differ, natural logarithm."""
CERTAINTY = 1.5
"""Standard deviations of counting that are taken off every share: one or two votes are none, however large they are."""
NOISE_SHARE = 0.03
"""Area share that noise and dirt explain at some size. Chosen on 18 simulated micrographs without particles (two of
them white noise): above it lie 3; of 64 filled ones of other proteins at the suite's easy and hard level below it 3,
all of a flexible protein at the hard level. `benchmarks/size_measurement.py noise --seed 77123 --levels easy hard`
counts anew on as many of that kind."""
LONE_WEIGHT = 0.25
"""What the micrograph with most votes for a size counts beside the others: a size that is seen on several goes before
round ice on one, and the only filled micrograph before nothing."""
HOLDING_SHARE = 0.2
"""Share of the fullest micrograph's votes for a size that another needs to be asked about it."""
POPULATION_SHARE = 0.5
"""A second size is reported when it explains at least this share of what the first one does."""
DISTINCT_LOG_SIZE = float(np.log(1.35))
AGREEING_MICROGRAPHS = 3
SURE_LOG_SIZE = 0.05
"""So many that hold something, and whose sizes have this standard error at most, natural logarithm, are enough."""
MOST_VOTERS = 24
"""Micrographs that are looked at, spread over those given, until enough hold something."""
MOST_HOLDERS = 6
MEASURING = "measuring the particle diameter"


@dataclass(frozen=True, eq=False)
class Votes:
    """Likely particles of one micrograph at all scales; `weight` is the share of the area that each explains."""

    diameter_px: NDArray[np.float64]
    weight: NDArray[np.float64]

    def times(self, factor: float) -> Votes:
        """The same in another unit of length."""
        return Votes(self.diameter_px * factor, self.weight)


_votes: WeakKeyDictionary[HeatmapModel, WeakKeyDictionary[Micrograph, Votes]] = WeakKeyDictionary()
"""Of micrographs that still are in memory: the sample is chosen by the same look that measures."""


def is_known(model: HeatmapModel, micrograph: Micrograph) -> bool:
    """Whether it has voted already."""
    return micrograph in _votes.get(model, ())


def votes_of(model: HeatmapModel, micrograph: Micrograph) -> Votes:
    """The votes of one micrograph; given again while model and micrograph live."""
    known = _votes.setdefault(model, WeakKeyDictionary())
    if micrograph not in known:
        known[micrograph] = _looks(model, micrograph, scales_px(micrograph), working_px=VOTING_PX)
    return known[micrograph]


def closer_votes_of(model: HeatmapModel, micrograph: Micrograph, *, around_px: float) -> Votes:
    """The votes of a larger piece of it for sizes around one."""
    return _looks(model, micrograph, around_px * np.asarray(CLOSER_FACTORS), working_px=CLOSER_PX)


def _looks(model: HeatmapModel, micrograph: Micrograph, sizes_px: NDArray[np.float64], *, working_px: int) -> Votes:
    each = [_look(model, micrograph, diameter_px=size, working_px=working_px) for size in sizes_px.tolist()]
    nothing = np.zeros(0)
    return Votes(
        np.concatenate([nothing, *[one.diameter_px for one in each]]),
        np.concatenate([nothing, *[one.weight for one in each]]),
    )


def scales_px(micrograph: Micrograph) -> NDArray[np.float64]:
    """Diameters at which a micrograph is looked at, none where it is too small for any."""
    largest = LARGEST_SHARE * min(micrograph.shape_yx)
    if largest <= SMALLEST_PX:
        return np.zeros(0)
    count = 1 + int(np.ceil(np.log(largest / SMALLEST_PX) / np.log(SCALE_STEP)))
    return np.geomspace(SMALLEST_PX, largest, count)


def middle_piece(micrograph: Micrograph, *, side_px: int) -> Micrograph:
    """The middle of a micrograph, at most `side_px` wide and high."""
    height, width = micrograph.shape_yx
    top, left = max(0, (height - side_px) // 2), max(0, (width - side_px) // 2)
    return replace(micrograph, pixels=micrograph.pixels[top : top + side_px, left : left + side_px])


def candidates(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float, working_px: int) -> Picks:
    """All candidates of the middle piece, `working_px` wide at working scale."""
    from cryopick.heatmap.model import picks_at_scale
    from cryopick.processing.scale import NOMINAL_PARTICLE_PX

    piece = middle_piece(micrograph, side_px=round(working_px * diameter_px / NOMINAL_PARTICLE_PX))
    return picks_at_scale(model, piece, diameter_px=diameter_px, looks=ONE_LOOK)


def _look(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float, working_px: int) -> Votes:
    found = candidates(model, micrograph, diameter_px=diameter_px, working_px=working_px)
    sizes = found.diameter_px.astype(np.float64)
    thinned = select(
        replace(found, diameter_px=np.full(len(found), diameter_px)), SelectionSettings(), threshold=MIN_SCORE
    )
    is_trusted = thinned.is_kept & (np.abs(np.log(sizes / diameter_px)) < TRUSTED_LOG_SIZE)
    height, width = found.shape_yx or (1, 1)
    weight = found.score[is_trusted].astype(np.float64) * sizes[is_trusted] ** 2 / (height * width)
    return Votes(sizes[is_trusted], weight)


def asked(model: HeatmapModel, micrographs: Sequence[Micrograph]) -> list[int]:
    """Which of the micrographs to ask for their size, in order: those looked at that hold something, else the first.

    At most `MOST_VOTERS`, spread over all, are looked at, and fewer where `AGREEING_MICROGRAPHS` are sure already.
    """
    unit_px = units_per_px(micrographs)
    places = evenly_taken(range(len(micrographs)), MOST_VOTERS)
    wanted = min(len(places), MOST_HOLDERS)
    order = spread_order(len(places))
    seen: dict[int, Votes] = {}
    for place in (places[number] for number in order):
        if not is_known(model, micrographs[place]):
            tell(MEASURING, min(len(seen) + 1, wanted), wanted)
        seen[place] = votes_of(model, micrographs[place]).times(unit_px[place])
        if are_sure(list(seen.values())):
            break
    looked_at = sorted(seen)
    holding = holders([seen[index] for index in looked_at])
    return [looked_at[index] for index in holding] or sorted([places[number] for number in order][:MOST_HOLDERS])


def are_sure(votes: Sequence[Votes]) -> bool:
    """Whether enough micrographs hold something and see nearly the same size."""
    few = [votes[index] for index in holders(votes)]
    if len(few) < AGREEING_MICROGRAPHS:
        return False
    if len(few) >= MOST_HOLDERS:
        return True
    around = modes(few)[0]
    grid, each = _shares(few)
    near = np.abs(grid - np.log(around)) < DISTINCT_LOG_SIZE
    own = grid[near][np.argmax(each[:, near], axis=1)]
    return bool(np.std(own) / np.sqrt(len(own)) < SURE_LOG_SIZE)


def spread_order(count: int) -> list[int]:
    """0 to `count - 1`, so that every beginning is spread over the whole."""
    order = list(range(count))[:1]
    left = set(range(count)) - set(order)
    while left:
        farthest = max(sorted(left), key=lambda index: min(abs(index - taken) for taken in order))
        order.append(farthest)
        left.remove(farthest)
    return order


def holders(votes: Sequence[Votes]) -> list[int]:
    """Which of the micrographs hold particles of the size that most is seen of."""
    grid, each = _shares(votes)
    above = np.maximum(each - NOISE_SHARE, 0.0)
    if not above.size or not above.max() > 0:
        return []
    best = int(np.argmax(_agreed(above)))
    near = np.abs(grid - grid[best]) < DISTINCT_LOG_SIZE
    most = above[:, near].max(axis=1)
    return np.flatnonzero((most > 0) & (most >= HOLDING_SHARE * most.max())).tolist()


def modes(votes: Sequence[Votes]) -> list[float]:
    """Diameters at the peaks of what the micrographs agree on, the highest first, in the unit of the votes."""
    grid, each = _shares(votes)
    for floor in (NOISE_SHARE, 0.0):  # where nothing is above noise, what comes nearest
        agreed = _agreed(np.maximum(each - floor, 0.0))
        if agreed.size and agreed.max() > 0:
            return _peaks(grid, agreed)
    return []


def largest_share(votes: Votes) -> float:
    """The largest area share that the votes of one micrograph surely explain near any size; `NOISE_SHARE` cuts it."""
    _, each = _shares([votes])
    return float(each.max(initial=0.0))


def likeliest(votes: Sequence[Votes]) -> float | None:
    """The diameter that most is seen of, noise and all, on micrographs that hold something."""
    grid, each = _shares(votes, certainty=0.0)
    return float(np.exp(grid[np.argmax(each.sum(axis=0))])) if each.size else None


def are_faint(votes: Sequence[Votes], size: float) -> bool:
    """Whether so little is seen of a size that a larger piece should be looked at."""
    grid, each = _shares(votes)
    near = np.abs(grid - np.log(size)) < DISTINCT_LOG_SIZE
    return bool(each[:, near].max(axis=1).mean() < FAINT_SHARE)


def _peaks(grid: NDArray[np.float64], height: NDArray[np.float64]) -> list[float]:
    is_peak = (height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])
    peaks = np.flatnonzero(is_peak) + 1
    peaks = peaks[np.argsort(-height[peaks], kind="stable")]
    chosen: list[float] = []
    for peak in peaks:
        is_strong = height[peak] >= POPULATION_SHARE * height[peaks[0]]
        if is_strong and all(abs(grid[peak] - np.log(other)) > DISTINCT_LOG_SIZE for other in chosen):
            chosen.append(float(np.exp(grid[peak])))
    return chosen


def _agreed(each: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, sizes) shares of several micrographs to one for each size; the fullest micrograph counts `LONE_WEIGHT`."""
    agreed: NDArray[np.float64] = each.sum(axis=0)
    return agreed - (1 - LONE_WEIGHT) * each.max(axis=0) if len(each) > 1 else agreed


def _shares(votes: Sequence[Votes], *, certainty: float = CERTAINTY) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Natural logarithms of sizes, and the area share that each micrograph's votes near each surely explain.

    Returns
    -------
    grid : (sizes,)
    each : (micrographs, sizes), 0 or more
    """
    logs = [np.log(one.diameter_px) for one in votes]
    every = np.concatenate([np.zeros(0), *logs])
    if not len(every):
        return np.zeros(0), np.zeros((len(votes), 0))
    grid = np.arange(every.min() - 4 * BIN, every.max() + 5 * BIN, BIN)
    each = []
    for size, one in zip(logs, votes, strict=True):
        nearness = np.exp(-0.5 * ((grid[:, None] - size) / VOTE_WIDTH) ** 2)  # (sizes, votes)
        share, variance = nearness @ one.weight, nearness**2 @ one.weight**2
        each.append(np.maximum(share - certainty * np.sqrt(variance), 0.0))
    return grid, np.stack(each)


def has_pixel_size(micrographs: Sequence[Micrograph]) -> bool:
    """Whether all of them say one."""
    return all(micrograph.pixel_size_angstrom is not None for micrograph in micrographs)


def units_per_px(micrographs: Sequence[Micrograph]) -> list[float]:
    """Units (Å, or px where a pixel size is unknown) per pixel of each micrograph."""
    if not has_pixel_size(micrographs):
        return [1.0] * len(micrographs)
    return [float(micrograph.pixel_size_angstrom or 1.0) for micrograph in micrographs]
