"""The table that CryoTransformer and CryoSegNet share: precision, recall, F1, Dice of discs, per set and on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cryopick.evaluation.scores import Evaluation
from cryopick.workflows.reproduce.bench import Bench, Method
from cryopick.workflows.reproduce.results import Cell

NUMBERS = ("precision", "recall", "F1", "Dice")
PIXEL_NOTE = (
    "pixels of discs drawn at picks and labels are compared; mean over the micrographs of a set. The authors' script "
    "takes the best micrograph for each number instead, which flatters"
)


def pixel_numbers(evaluation: Evaluation | None) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and Dice, mean over micrographs; NaN where there is no evaluation."""
    if evaluation is None or evaluation.pixel_mask is None:
        return (float("nan"),) * 4
    mean = evaluation.pixel_mask.mean
    return mean.precision, mean.recall, mean.f1, mean.dice


def pixel_rows(bench: Bench, methods: Sequence[Method]) -> list[tuple[Cell, ...]]:
    """(set, particles, method, precision, recall, F1, Dice) of every method on every test set, then the averages."""
    numbers: dict[tuple[str, str], tuple[float, ...]] = {}
    rows: list[tuple[Cell, ...]] = []
    for name, data in bench.test.items():
        for method in methods:
            found = pixel_numbers(bench.evaluation(method, data))
            numbers[name, method.label] = found
            rows.append((name, data.particle_count, method.label, *found))
    for method in methods:
        rows.append(("average", None, method.label, *averages(numbers, method.label, bench.test)))
    return rows


def averages(
    numbers: Mapping[tuple[str, str], Sequence[float]], label: str, sets: Mapping[str, object]
) -> tuple[float, ...]:
    """Mean over sets of each number; a set on which the method failed makes it NaN, so that none is left out unseen."""
    return tuple(np.mean([numbers[name, label] for name in sets], axis=0).tolist())
