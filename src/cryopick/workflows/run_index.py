"""All scores, reasons and local powers of a run as flat arrays: counts and expectations at any cut, in milliseconds."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cryopick.io.files.atomic import write_bytes_atomic
from cryopick.runs.cut_curve import CURVE_POINTS, CutCurve, curve_range, cut_curve
from cryopick.types import Picks

LOWEST = -float(np.finfo(np.float32).max)
"""The cut that keeps all, candidates without a score too."""
SCORE_BINS, POWER_BINS = 100, 128
LOG2_POWER_RANGE = (-4.0, 6.0)
"""Of the histogram; power below or above is counted in its outermost bins."""
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Part:
    """The candidates of one micrograph that no rule but the cut rejects.

    Parameters
    ----------
    stamp : by which a newer record is known
    score, power : (n,) float32 of the open candidates; NaN where unknown
    candidates : how many there are with the rejected ones
    """

    stamp: str
    score: NDArray[np.float32]
    power: NDArray[np.float32]
    candidates: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve(CutCurve):
    """The curve of a run at 1001 thresholds, and how its candidates lie.

    Parameters
    ----------
    histogram : (100, 128) float32, open candidates by score (from the lowest to the highest) and log2 power (-4 to 6)
    """

    histogram: NDArray[np.float32]


@dataclass(frozen=True)
class AtCut:
    """A run at one cut: exact numbers; the shares are None where scores are no probabilities, or nothing is kept."""

    kept: int
    precision: float | None
    recall: float | None
    per_micrograph: NDArray[np.uint32] = field(compare=False)


def is_above(
    score: NDArray[np.float32],
    power: NDArray[np.float32],
    *,
    threshold: float,
    power_limits: tuple[float, float] = (0.0, float("inf")),
) -> NDArray[np.bool_]:
    """(n,) Which open candidates a cut keeps: a NaN score passes the lowest cut alone, a NaN power any limits."""
    passes = score >= np.float32(threshold)
    if threshold <= LOWEST:
        passes = passes | np.isnan(score)
    low, high = np.float32(power_limits[0]), np.float32(power_limits[1])
    return np.asarray(passes & ~(power < low) & ~(power > high))


class RunIndex:
    """Parts by the micrograph's key, in the order in which they were put; numbers are made anew when they change.

    Parameters
    ----------
    probability_of : makes (n,) probabilities of all open scores of a run; None where scores are none
    """

    def __init__(self, probability_of: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None = None) -> None:
        self._probability_of = probability_of
        self._parts: dict[str, Part] = {}
        self._joined: _Joined | None = None

    def __len__(self) -> int:
        return len(self._parts)

    def put(self, key: str, part: Part) -> None:
        """Add or replace what is known of one micrograph."""
        self._parts[key] = part
        self._joined = None

    def has(self, key: str, stamp: str) -> bool:
        """True where this very state of a micrograph is held."""
        part = self._parts.get(key)
        return part is not None and part.stamp == stamp

    def part(self, key: str) -> Part | None:
        return self._parts.get(key)

    def names(self) -> list[str]:
        """In the order of `AtCut.per_micrograph`."""
        return list(self._parts)

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Of the finite scores; None without any."""
        return self._join().score_range

    def at(
        self,
        threshold: float,
        *,
        power_limits: tuple[float, float] = (0.0, float("inf")),
        belief: Mapping[str, float] | None = None,
    ) -> AtCut:
        """Exact numbers at a cut, those that `cryopick rethreshold` tells where there are no limits on power.

        Parameters
        ----------
        belief : of micrographs by key, by which their scores are multiplied; 1 where not given
        """
        joined = self._join()
        factor = None
        if belief:
            factor = np.array([belief.get(key, 1.0) for key in self._parts], np.float32)
        if power_limits == (0.0, float("inf")):
            per, right, total = joined.above(threshold, factor)
        else:
            per, right, total = joined.within(threshold, factor, power_limits)
        kept = int(per.sum())
        if right is None or total is None or not kept:
            return AtCut(kept=kept, precision=None, recall=None, per_micrograph=per)
        return AtCut(kept=kept, precision=right / kept, recall=right / total if total > 0 else 1.0, per_micrograph=per)

    def curve(self) -> Curve:
        """See `Curve`; all zeros and NaN where no score is known."""
        joined = self._join()
        score = joined.sorted_score
        low, high = curve_range(score, is_probability=self._probability_of is not None)
        thresholds = np.linspace(low, high, CURVE_POINTS).astype(np.float32)
        probability = None if self._probability_of is None else joined.sorted_probability
        found = cut_curve(score, probability, thresholds=thresholds)
        return Curve(**vars(found), histogram=joined.histogram(low, high))

    def _join(self) -> _Joined:
        if self._joined is None:
            self._joined = _Joined(list(self._parts.values()), self._probability_of)
        return self._joined

    def save(self, path: Path) -> None:
        """Keep all parts in one file; errors as in `write_bytes_atomic`."""
        parts = list(self._parts.values())
        names = json.dumps([[key, part.stamp, part.candidates, len(part.score)] for key, part in self._parts.items()])
        nothing = np.zeros(0, np.float32)
        stream = io.BytesIO()
        np.savez(
            stream,
            version=np.array(_VERSION),
            names=np.frombuffer(names.encode("ascii"), np.uint8),
            score=np.concatenate([nothing, *(part.score for part in parts)]),
            power=np.concatenate([nothing, *(part.power for part in parts)]),
        )
        write_bytes_atomic(path, stream.getvalue())

    def load(self, path: Path, *, stamps: Mapping[str, str]) -> int:
        """Take over the parts of a saved index whose stamps are still these; how many. A damaged file gives none."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                if int(stored["version"]) != _VERSION:
                    return 0
                rows = json.loads(stored["names"].tobytes().decode("ascii"))
                score, power = np.asarray(stored["score"], np.float32), np.asarray(stored["power"], np.float32)
            lengths = [int(row[3]) for row in rows]
            ends = np.cumsum([0, *lengths])
            if len(score) != len(power) or ends[-1] != len(score) or min(lengths, default=0) < 0:
                return 0
            found = 0
            for row, start, end in zip(rows, ends[:-1], ends[1:], strict=True):
                key, stamp, count = str(row[0]), str(row[1]), int(row[2])
                if stamps.get(key) == stamp:
                    self.put(key, Part(stamp=stamp, score=score[start:end], power=power[start:end], candidates=count))
                    found += 1
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, RecursionError, BadZipFile, zlib.error):
            return 0  # it is made again
        return found


_Found = tuple[NDArray[np.uint32], float | None, float | None]
"""Kept of each micrograph; of all, the sums of the probabilities of what is kept, and of everything."""


class _Joined:
    """All parts end to end; inside each the best score comes first and NaN last, so that a cut is one place in it."""

    def __init__(
        self, parts: list[Part], probability_of: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None
    ) -> None:
        nothing = np.zeros(0, np.float32)
        orders = [np.argsort(-part.score) for part in parts]
        self.score = np.concatenate([nothing, *(part.score[o] for part, o in zip(parts, orders, strict=True))])
        self.power = np.concatenate([nothing, *(part.power[o] for part, o in zip(parts, orders, strict=True))])
        self.lengths = np.array([len(part.score) for part in parts], np.int64)
        self.starts = np.cumsum([0, *self.lengths[:-1]])[: len(parts)]
        self._probability_of = probability_of

    def above(self, threshold: float, factor: NDArray[np.float32] | None) -> _Found:
        """What reaches a threshold, times a factor by micrograph: a search in each of them, all at the same time."""
        low, high = self.starts.copy(), self.starts + self.lengths
        if threshold > LOWEST:
            wanted = np.float32(threshold)
            times = np.float32(1) if factor is None else factor
            last = max(len(self.score) - 1, 0)
            while (is_open := low < high).any():
                middle = (low + high) // 2
                # one product of two float32 rises with the score, rounding included, so the search finds the same
                # candidates as a comparison of each; NaN reaches nothing
                reaches = self.score[np.minimum(middle, last)] * times >= wanted
                low = np.where(is_open & reaches, middle + 1, low)
                high = np.where(is_open & ~reaches, middle, high)
        ends = high
        per = (ends - self.starts).astype(np.uint32)
        if self.probability is None:
            return per, None, None
        summed = self._summed_probability
        return per, float((summed[ends] - summed[self.starts]).sum()), float(summed[-1])

    def within(self, threshold: float, factor: NDArray[np.float32] | None, limits: tuple[float, float]) -> _Found:
        """As `above`, of candidates whose power lies within limits: each is looked at."""
        score = self.score if factor is None else self.score * np.repeat(factor, self.lengths)
        is_kept = is_above(score, self.power, threshold=threshold, power_limits=limits)
        counted = np.append(0, np.cumsum(is_kept, dtype=np.int64))
        per = (counted[self.starts + self.lengths] - counted[self.starts]).astype(np.uint32)
        if self.probability is None:
            return per, None, None
        return per, float(self.probability[is_kept].sum()), float(self.probability.sum())

    @cached_property
    def score_range(self) -> tuple[float, float] | None:
        finite = self.score[np.isfinite(self.score)]
        return None if not len(finite) else (float(finite.min()), float(finite.max()))

    @cached_property
    def probability(self) -> NDArray[np.float64] | None:
        return None if self._probability_of is None else np.asarray(self._probability_of(self.score), np.float64)

    @cached_property
    def _summed_probability(self) -> NDArray[np.float64]:
        """(n + 1,)"""
        assert self.probability is not None
        return np.append(0.0, np.cumsum(self.probability))

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        order = np.argsort(self.score)
        return order[: np.count_nonzero(np.isfinite(self.score))]  # NaN sorts last

    @cached_property
    def sorted_score(self) -> NDArray[np.float32]:
        if self._probability_of is None:
            return np.sort(self.score[np.isfinite(self.score)])
        return np.asarray(self.score[self._order])

    @cached_property
    def sorted_probability(self) -> NDArray[np.float64]:
        return np.zeros(0) if self.probability is None else np.asarray(self.probability[self._order])

    def histogram(self, low: float, high: float) -> NDArray[np.float32]:
        known = np.isfinite(self.score) & (self.power > 0)
        x = (self.score[known] - low) / max(high - low, 1e-30) * SCORE_BINS
        bottom, top = LOG2_POWER_RANGE
        y = (np.log2(self.power[known]) - bottom) / (top - bottom) * POWER_BINS
        column = np.clip(x, 0, SCORE_BINS - 1).astype(np.int64)
        row = np.clip(y, 0, POWER_BINS - 1).astype(np.int64)
        counts = np.bincount(column * POWER_BINS + row, minlength=SCORE_BINS * POWER_BINS)
        return counts.reshape(SCORE_BINS, POWER_BINS).astype(np.float32)


def part_of(candidates: Picks, *, power: NDArray[np.float32] | None, stamp: str) -> Part:
    """The part of one micrograph; `power` (n,) of all its candidates, None where it is unknown."""
    is_open = candidates.is_kept
    known = np.full(len(candidates), np.nan, np.float32) if power is None else power
    return Part(stamp=stamp, score=candidates.score[is_open], power=known[is_open], candidates=len(candidates))
