"""Choosing a cut from calibrated probabilities alone, without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expected_scores(probability: NDArray[np.floating], threshold: float) -> tuple[float, float, float]:
    """Expected precision, recall and F1 of keeping what reaches `threshold`.

    Parameters
    ----------
    probability : (n,), of every candidate of a run, each the chance that the candidate is a particle

    Returns
    -------
    precision, recall, f1 : the number of true particles is taken to be the sum of all probabilities; precision is 1
        where nothing is kept, recall 1 where no particle is expected
    """
    p = np.asarray(probability, np.float64)
    kept = p[p >= threshold]
    precision = float(kept.mean()) if len(kept) else 1.0
    recall = float(kept.sum() / p.sum()) if p.sum() > 0 else 1.0
    f1 = 2 * float(kept.sum()) / (len(kept) + p.sum()) if len(kept) + p.sum() > 0 else 0.0
    return precision, recall, f1


def threshold_for_f1(probability: NDArray[np.floating]) -> float:
    """The cut with the highest expected F1; 1.0 when there are no candidates.

    Keeping the k most probable of n candidates has an expected F1 of about `2 sum_k p / (k + sum_n p)`; the best cut
    is half the best F1 (Lipton et al., ECML 2014).
    """
    p = np.sort(np.asarray(probability, np.float64))[::-1]
    if len(p) == 0:
        return 1.0
    kept_count = np.arange(1, len(p) + 1)
    f1 = 2 * np.cumsum(p) / (kept_count + p.sum())
    return float(p[np.argmax(f1)])


def threshold_for_precision(probability: NDArray[np.floating], target: float) -> float:
    """The lowest cut whose kept candidates have a mean probability of at least `target`; 1.0 if none has."""
    p = np.sort(np.asarray(probability, np.float64))[::-1]
    if len(p) == 0:
        return 1.0
    precision = np.cumsum(p) / np.arange(1, len(p) + 1)
    reached = np.flatnonzero(precision >= target)
    return float(p[reached[-1]]) if len(reached) else 1.0
