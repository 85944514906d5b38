"""Intervals by resampling whole micrographs, because the picks of one micrograph rise and fall together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.metrics.detection import Counts, RankedOutcomes, precision_recall_curve


@dataclass(frozen=True)
class Interval:
    """A percentile interval; both ends NaN when it cannot be estimated (fewer than two micrographs)."""

    low: float
    high: float


@dataclass(frozen=True)
class DetectionIntervals:
    """Intervals of the pooled scores."""

    precision: Interval
    recall: Interval
    f1: Interval


def bootstrap_counts(
    counts: Sequence[Counts], *, generator: np.random.Generator, resamples: int = 2000, confidence: float = 0.95
) -> DetectionIntervals:
    """Intervals of pooled precision, recall and F1.

    Parameters
    ----------
    counts : one entry per micrograph
    confidence : in (0, 1)

    References
    ----------
    B. Efron, Annals of Statistics 7(1), 1979 (percentile method).
    """
    table = np.array([[c.true_positive, c.false_positive, c.false_negative] for c in counts], dtype=np.float64)
    table = table.reshape(-1, 3)

    def scores(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        true, false, missed = weights @ table
        denominators = np.array([true + false, true + missed, 2 * true + false + missed])
        numerators = np.array([true, true, 2 * true])
        result = np.full(3, np.nan)
        np.divide(numerators, denominators, out=result, where=denominators > 0)
        return result

    intervals = bootstrap(
        scores, micrograph_count=len(counts), generator=generator, resamples=resamples, confidence=confidence, size=3
    )
    return DetectionIntervals(*intervals)


def bootstrap_average_precision(
    outcomes: Sequence[RankedOutcomes],
    *,
    generator: np.random.Generator,
    resamples: int = 200,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the average precision; outcomes are per micrograph."""

    def score(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([precision_recall_curve(outcomes, weights=weights).average_precision])

    return bootstrap(
        score, micrograph_count=len(outcomes), generator=generator, resamples=resamples, confidence=confidence, size=1
    )[0]


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    micrograph_count: int,
    generator: np.random.Generator,
    resamples: int,
    confidence: float,
    size: int,
) -> list[Interval]:
    """Percentile intervals of the `size` numbers that `statistic` returns for (m,) micrograph weights.

    Resamples in which a number is undefined (no picks at all) are left out of that number's interval.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1")
    if micrograph_count < 2:
        return [Interval(float("nan"), float("nan"))] * size
    share = np.full(micrograph_count, 1 / micrograph_count)
    weights = generator.multinomial(micrograph_count, share, size=resamples).astype(np.float64)
    values = np.array([statistic(w) for w in weights])  # (resamples, size)
    tail = 50 * (1 - confidence)
    return [_interval(column[np.isfinite(column)], tail) for column in values.T]


def _interval(values: NDArray[np.float64], tail_percent: float) -> Interval:
    if len(values) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.percentile(values, [tail_percent, 100 - tail_percent])
    return Interval(float(low), float(high))
