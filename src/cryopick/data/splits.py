"""Who trains and who validates: by micrograph, at random, written down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopick.data.datasets import Dataset
from cryopick.errors import InputError, SettingsError


@dataclass(frozen=True)
class Split:
    """Which micrographs train and which validate; written beside the weights so that nobody has to guess."""

    seed: int
    train: tuple[str, ...]
    validation: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "train": list(self.train), "validation": list(self.validation)}


def split_by_micrograph(dataset: Dataset, *, validation_fraction: float = 0.2, seed: int = 0) -> Split:
    """Divide the labelled micrographs at random, within each set, the same way for the same names and seed.

    Each set gives at least one micrograph to validation when it has two or more.

    Raises
    ------
    InputError
        If fewer than two micrographs are labelled: training and validation would see the same one. See `divide` for
        fine-tuning on a single one.
    """
    if not 0 < validation_fraction < 1:
        raise SettingsError(f"validation fraction is {validation_fraction:g}, expected more than 0 and less than 1")
    items = dataset.labelled().items
    if len(items) < 2:
        raise InputError(f"{dataset.path}: one labelled micrograph cannot be split; label at least one more")
    train: list[str] = []
    validation: list[str] = []
    for number, group in enumerate(sorted({item.group for item in items})):
        names = sorted(item.name for item in items if item.group == group)
        order = np.random.default_rng([seed, number]).permutation(len(names))
        count = min(max(round(validation_fraction * len(names)), 1), len(names) - 1)
        validation += [names[i] for i in order[:count]]
        train += [names[i] for i in order[count:]]
    return Split(seed, tuple(sorted(train)), tuple(sorted(validation)))


def divide(dataset: Dataset, *, validation_fraction: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset, Split]:
    """Training and validation data for fine-tuning; a single micrograph is cut in two between its upper and lower rows.

    The lower part validates and holds `validation_fraction` of the labels.

    Raises
    ------
    InputError
        If nothing is labelled, or a single micrograph has fewer than two labels.
    """
    items = dataset.labelled().items
    if len(items) > 1:
        split = split_by_micrograph(dataset, validation_fraction=validation_fraction, seed=seed)
        return dataset.take(split.train), dataset.take(split.validation), split
    (item,) = items
    labels = item.labels
    if labels is None or len(labels) < 2:
        raise InputError(f"{dataset.path}: fewer than two labels; label more particles, or a second micrograph")
    height, width = item.shape_yx
    cut = int(np.clip(round(float(np.quantile(labels.xy_px[:, 1], 1 - validation_fraction))), 1, height - 1))
    upper, lower = item.part((0, 0, width, cut)), item.part((0, cut, width, height))
    names = tuple(f"{item.name} rows {low} to {high}" for low, high in ((0, cut - 1), (cut, height - 1)))
    split = Split(seed, names[:1], names[1:])
    return replace(dataset, items=(upper,)), replace(dataset, items=(lower,)), split
