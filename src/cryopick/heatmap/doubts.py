"""Whether contrast and diameter fit what is seen: one coarse look, at all sizes, at some micrographs and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length, meant_by_slip, share_text
from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.heatmap.size_votes import LARGEST_SHARE, middle_piece
from cryopick.inference.looks import ONE_LOOK
from cryopick.processing.probability import expected_scores, threshold_for_f1
from cryopick.processing.spread import evenly_taken
from cryopick.types import Micrograph

if TYPE_CHECKING:
    from cryopick.heatmap.model import HeatmapModel

# Chosen on 64 simulated sets of 8 families, hollow and packed ones among them, at SNR 6 to 60, and on 6 without
# particles, of the kinds of `benchmarks/doubts.py`, which judges others; the real sets were only measured.
LOOKED_AT = 3
"""Micrographs, spread over the sample; the median of what is seen on them counts."""
LOOK_WORKING_PX = 384
"""Side of the middle piece that is looked at, working pixels: 19 particles."""
SCALE_STEP = 2.0
"""Ratio of neighbouring sizes: the network sees particles, and reads their size off, at sizes half and twice theirs."""
SMALLEST_LOOK_PX = 10.0
LEAST_OVERSAMPLING = 2.0
"""Pixels per pixel of the network down to which large images are averaged before they are resampled, to save time."""
LIKELY = 0.5
"""Probability from which a candidate counts as seen."""
SEEN_SHARE = 0.03
"""Share of the area that seen particles must cover for the sureness of a scale to count."""
SIZED_SHARE = 0.05
"""The same for the size read off. Right ones cover 0.06 to 0.8, faint ones less; noise and ice where the size fits
0.034 at most, and sizes that fit nothing 0.1."""
SEEN_COUNT = 8
"""Particles that must be seen, on all pieces together, for the sureness of a scale to count."""
READ_COUNT = 3
"""Particles from which a size is read off a scale."""
LEAST_SURE = 0.6
"""Expected F1 from which on something is seen at all; what noise looks like where it covers most has 0.57 at most."""
SURER = 1.5
"""How many times less doubtful (1 less the expected F1) the negatives must be; with the right contrast they are 1.7
times as doubtful or more, hollow particles side by side, which look like particles both ways, included."""
FLOOR_OF_DOUBT = 0.003
"""Doubts smaller than this are alike."""
READ_OFF = 0.96
"""Size read off over the largest extent, the median over the simulated sets."""
DIFFERENT_FACTOR = 1.4
"""Ratio of the size read off and the given one from which on the given one is doubted. With right diameters it is 0.79
to 1.17 on the clear simulated sets and 0.84 to 1.31 on four real ones."""
DIFFERENT_FACTOR_IF_UNSURE = 1.6
"""The same where the network is less sure than `SURE`: long particles that lie close look shorter in noise (0.68)."""
SURE = 0.92


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """What does not fit on a sample of a run.

    Parameters
    ----------
    contrast : why particles may be bright where they should be dark; None where nothing says so
    size : why the given diameter may be wrong, and what it may have been meant to be; None where nothing says so
    size_seen : the diameter read off, in the unit of the given one, where that is doubted
    """

    contrast: str | None = None
    size: str | None = None
    size_seen: Length | None = None


def doubts_about_sample(
    model: HeatmapModel, micrographs: Sequence[Micrograph], *, given: Length | None, measured: Length | None = None
) -> Doubts:
    """Compare contrast and diameter, as the user says them, with what the network sees. Nothing is changed for it.

    Parameters
    ----------
    micrographs : a few, spread over the run, in the contrast that the user says
    given : the diameter that the user gave, if any
    measured : the diameter that was measured, if none was given; it only saves that sizes between two looks are missed
    """
    around = given or measured or Length(SMALLEST_LOOK_PX, SMALLEST_LOOK_PX, "px")
    few = evenly_taken(micrographs, LOOKED_AT)
    seen, opposite = _look(model, few, around)
    sure, sure_opposite = _sureness(seen), _sureness(opposite)
    contrast = None
    if sure_opposite >= LEAST_SURE and SURER * _doubt(sure_opposite) <= _doubt(sure):
        contrast = _contrast_sentence(sure, sure_opposite)
        seen = opposite
    if given is None:
        return Doubts(contrast=contrast)
    size, size_seen = _size_doubt(seen, given, few)
    return Doubts(contrast=contrast, size=size, size_seen=size_seen)


@dataclass(frozen=True, eq=False)
class _SeenAt:
    """What is seen at one size, on a few pieces of micrographs together.

    Parameters
    ----------
    size : at which the network looked, in the unit of the length that was looked around
    covered : share of the area that the seen particles cover, the median piece
    count : seen particles on all pieces
    log_read : logarithm of the size read off them over `size`; NaN where too few
    sure : expected F1 of the best choice among the candidates, the median piece
    """

    size: float
    covered: float
    count: int
    log_read: float
    sure: float


def _look(
    model: HeatmapModel, micrographs: Sequence[Micrograph], around: Length
) -> tuple[list[_SeenAt], list[_SeenAt]]:
    """Look at the middle of micrographs at every size, in steps from the one at which the network would work.

    Returns
    -------
    seen, opposite : at each size, on the micrographs and on their negatives
    """
    usual = around.times(WORKING_FACTOR)
    usual_px = [usual.middle_px(micrograph.pixel_size_angstrom) for micrograph in micrographs]
    widest_px = LARGEST_SHARE * min(min(micrograph.shape_yx) for micrograph in micrographs)
    lowest = int(np.ceil(np.log(SMALLEST_LOOK_PX / min(usual_px)) / np.log(SCALE_STEP)))
    highest = int(np.floor(np.log(widest_px / max(usual_px)) / np.log(SCALE_STEP)))
    steps = [SCALE_STEP**step for step in range(lowest, highest + 1)]
    seen, opposite = [], []
    for step in steps:
        both = [
            _sizes_seen(model, micrograph, diameter_px=px * step)
            for micrograph, px in zip(micrographs, usual_px, strict=True)
        ]
        seen.append(_seen_at(usual.middle * step, [one for one, _ in both]))
        opposite.append(_seen_at(usual.middle * step, [one for _, one in both]))
    return seen, opposite


@dataclass(frozen=True, eq=False)
class _Piece:
    """Candidates of one piece: probability, and the size read off over the size looked at; `slots` in such squares."""

    score: NDArray[np.float64]
    read: NDArray[np.float64]
    slots: float


def _sizes_seen(model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float) -> tuple[_Piece, _Piece]:
    """What is seen at one size in the middle of a micrograph, and in its negative."""
    from cryopick.processing.scale import NOMINAL_PARTICLE_PX

    piece = middle_piece(micrograph, side_px=round(LOOK_WORKING_PX * diameter_px / NOMINAL_PARTICLE_PX))
    by = max(1, int(diameter_px / (LEAST_OVERSAMPLING * NOMINAL_PARTICLE_PX)))
    piece, diameter_px = _block_means(piece, by), diameter_px / by
    return _seen_in(model, piece, diameter_px), _seen_in(model, piece.inverted(), diameter_px)


def _seen_in(model: HeatmapModel, piece: Micrograph, diameter_px: float) -> _Piece:
    from cryopick.heatmap.model import picks_at_scale

    found = picks_at_scale(model, piece, diameter_px=diameter_px, looks=ONE_LOOK)
    alike = replace(found, diameter_px=np.full(len(found), diameter_px, np.float32))
    is_apart = select(alike, SelectionSettings(), threshold=-np.inf).is_kept
    return _Piece(
        score=found.score[is_apart].astype(np.float64),
        read=found.diameter_px[is_apart].astype(np.float64) / diameter_px,
        slots=piece.pixels.size / diameter_px**2,
    )


def _block_means(micrograph: Micrograph, by: int) -> Micrograph:
    """Means of blocks of `by` x `by` pixels, without the rest at the right and below; for looks, not for picks."""
    import cv2

    if by == 1:
        return micrograph
    height, width = (side // by for side in micrograph.shape_yx)
    whole = micrograph.pixels[: height * by, : width * by]
    means = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return replace(micrograph, pixels=np.asarray(means, np.float32))


def _seen_at(size: float, pieces: Sequence[_Piece]) -> _SeenAt:
    likely = [one.score >= LIKELY for one in pieces]
    covered = [
        float((one.score[is_likely] * one.read[is_likely] ** 2).sum() / one.slots)
        for one, is_likely in zip(pieces, likely, strict=True)
    ]
    read = np.concatenate([one.read[is_likely] for one, is_likely in zip(pieces, likely, strict=True)])
    sure = [expected_scores(one.score, threshold_for_f1(one.score))[2] if len(one.score) else 0.0 for one in pieces]
    return _SeenAt(
        size=size,
        covered=float(np.median(covered)),
        count=len(read),
        log_read=_median_by_area(read) if len(read) >= READ_COUNT else float("nan"),
        sure=float(np.median(sure)),
    )


def _median_by_area(read: NDArray[np.float64]) -> float:
    """Logarithm of the size such that smaller ones cover half of what all cover."""
    ordered = np.sort(read)
    area = np.cumsum(ordered**2)
    return float(np.log(ordered[np.searchsorted(area, area[-1] / 2)]))


def _sureness(looks: Sequence[_SeenAt]) -> float:
    """The highest expected F1 of the sizes at which enough is seen; 0 where that is none, or no surer than noise."""
    sure = max(
        (look.sure for look in looks if look.covered >= SEEN_SHARE and look.count >= SEEN_COUNT),
        default=0.0,
    )
    return sure if sure >= LEAST_SURE else 0.0


def _doubt(sure: float) -> float:
    return 1 - sure + FLOOR_OF_DOUBT


def _contrast_sentence(sure: float, sure_opposite: float) -> str:
    as_they_are = f"reach {share_text(sure)}" if sure else "are no surer than noise"
    return (
        "particles look as if they had the opposite contrast: picks on the negatives of a few micrographs would reach "
        f"an expected F1 of {share_text(sure_opposite)}, those on the images as they are {as_they_are}. If they are "
        "brighter than their surroundings, as in "
        "negative stain, pick again with --contrast bright; if that is what was given, leave it out"
    )


def _size_that_fits(looks: Sequence[_SeenAt]) -> tuple[float, float] | None:
    """The size at which the network reads off what it looks for, and how sure it is there; None where it is not seen.

    Shown particles that are too large it says so, and of those too small too, if not how far: between the two the
    size read off is the size looked for. Where that happens more than once, that which covers most area is it.
    """
    best: tuple[float, float, float] | None = None
    for small, large in pairwise(looks):
        if not small.log_read > 0 >= large.log_read:
            continue
        covered = max(small.covered, large.covered)
        count = max(small.count, large.count)
        sure = max(small.sure, large.sure)
        if covered < SIZED_SHARE or count < SEEN_COUNT or sure < LEAST_SURE or (best and covered <= best[0]):
            continue
        share = small.log_read / (small.log_read - large.log_read)
        best = covered, float(small.size * (large.size / small.size) ** share) / READ_OFF, sure
    return None if best is None else best[1:]


def _size_doubt(
    looks: Sequence[_SeenAt], given: Length, micrographs: Sequence[Micrograph]
) -> tuple[str | None, Length | None]:
    fitting = _size_that_fits(looks)
    if fitting is None:
        return None, None
    size, sure = fitting
    factor = DIFFERENT_FACTOR if sure >= SURE else DIFFERENT_FACTOR_IF_UNSURE
    if given.low / factor <= size <= given.high * factor:
        return None, None
    size = float(f"{size:.2g}")
    seen = Length(size, size, given.unit)
    pixel_size = float(np.median([one.pixel_size_angstrom or np.nan for one in micrographs]))
    known = pixel_size if np.isfinite(pixel_size) else None
    meant = meant_by_slip(given, seen, pixel_size_angstrom=known)
    as_px = (
        "" if known is None or given.unit == "px" else f" ({seen.middle_px(known):.3g} px at {known:.4g} Å per pixel)"
    )
    return (
        f"the diameter {given.as_typed} does not fit what is seen: particles look about {size:g} {seen.unit_symbol} "
        f"wide{as_px}, {size / given.middle:.2g} times as much; {meant}look at the picks, and if that is so "
        f"pick again with --diameter {size:g}{given.unit}; the pixel size too may be wrong"
    ), seen
