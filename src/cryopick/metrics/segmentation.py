"""Scores of pixel classes under their usual names, from a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Pixels by true class (rows) and found class (columns); matrices of several images are added.

    Precision looks down a column (what was found), recall along a row (what is there). Scores of a class that neither
    occurs nor is found are NaN; means are over the classes that have a score.

    Parameters
    ----------
    counts : (classes, classes) int64
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts, np.int64)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
            raise ValueError(f"a confusion matrix is square, got shape {counts.shape}")
        object.__setattr__(self, "counts", counts)

    @classmethod
    def empty(cls, classes: int) -> Self:
        """No pixel yet."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, truth: ArrayLike, found: ArrayLike, *, classes: int) -> Self:
        """Of two images of class numbers, same shape.

        Raises
        ------
        ValueError
            If shapes differ or a class is not in 0 … classes - 1.
        """
        rows, columns = np.asarray(truth, np.int64), np.asarray(found, np.int64)
        if rows.shape != columns.shape:
            raise ValueError(f"the truth has shape {rows.shape}, what was found {columns.shape}")
        for name, image in (("truth", rows), ("found", columns)):
            if image.size and (image.min() < 0 or image.max() >= classes):
                raise ValueError(f"{name} holds classes {image.min()} to {image.max()}, expected 0 to {classes - 1}")
        flat = np.bincount((rows * classes + columns).ravel(), minlength=classes**2)
        return cls(flat.reshape(classes, classes))

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def accuracy(self) -> float:
        """Share of all pixels whose class is right; NaN without pixels."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")

    @property
    def precision(self) -> NDArray[np.float64]:
        """(classes,) share of the pixels found to be of a class that are."""
        return _ratio(self._right, self.counts.sum(axis=0))

    @property
    def recall(self) -> NDArray[np.float64]:
        """(classes,) share of the pixels of a class that were found to be."""
        return _ratio(self._right, self.counts.sum(axis=1))

    @property
    def iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union."""
        return _ratio(self._right, self.counts.sum(axis=0) + self.counts.sum(axis=1) - self._right)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(classes,) harmonic mean of precision and recall (Dice's coefficient)."""
        return _ratio(2 * self._right, self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def mean_iou(self) -> float:
        """Over the classes."""
        return float(np.nanmean(self.iou))

    @property
    def _right(self) -> NDArray[np.int64]:
        return np.diag(self.counts)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(len(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
