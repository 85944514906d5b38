"""Who trains and who validates: by micrograph, at random, written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import Dataset
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.files.json_object import read_json_object


@dataclass(frozen=True)
class Split:
    """Which micrographs train, which validate and which are kept for a test; written beside the weights so that nobody
    has to guess."""

    seed: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values; `test` only where something is kept for it."""
        parts = {"train": list(self.train), "validation": list(self.validation)}
        return {"seed": self.seed, **parts, **({"test": list(self.test)} if self.test else {})}


def split_by_micrograph(
    dataset: Dataset,
    *,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.0,
    seed: int = 0,
    needs_labels: bool = True,
) -> Split:
    """Divide the labelled micrographs (all, unless `needs_labels`) at random, within each set, the same way for the
    same names and seed.

    Each set gives at least one micrograph to validation when it has two or more, and at least one to the test where
    there is one and the set has three or more.

    Raises
    ------
    InputError
        If fewer than two micrographs are labelled: training and validation would see the same one. See `divide` for
        fine-tuning on a single one.
    """
    if not 0 < validation_fraction < 1:
        raise SettingsError(f"validation fraction is {validation_fraction:g}, expected more than 0 and less than 1")
    if not 0 <= test_fraction < 1 - validation_fraction:
        raise SettingsError(
            f"test fraction is {test_fraction:g}, expected 0 or more, and less than 1 together with the validation "
            f"fraction of {validation_fraction:g}"
        )
    items = dataset.labelled().items if needs_labels else dataset.items
    if len(items) < 2:
        raise InputError(f"{dataset.path}: one labelled micrograph cannot be split; label at least one more")
    train: list[str] = []
    validation: list[str] = []
    test: list[str] = []
    for number, group in enumerate(sorted({item.group for item in items})):
        names = sorted(item.name for item in items if item.group == group)
        order, count = _drawn(names, validation_fraction, seed=seed, number=number)
        validation += [names[i] for i in order[:count]]
        kept = min(max(round(test_fraction * len(names)), 1), len(names) - count - 1) if test_fraction else 0
        test += [names[i] for i in order[count : count + kept]]
        train += [names[i] for i in order[count + kept :]]
    return Split(seed, tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(test)))


def validating_names(names: Sequence[str], *, validation_fraction: float = 0.2, seed: int = 0) -> list[str]:
    """Which micrographs of one labelled set `divide` would let validate; all of a single one's name, which is cut."""
    names = sorted(names)
    order, count = _drawn(names, validation_fraction, seed=seed, number=0)
    return sorted(names[i] for i in order[:count]) if len(names) > 1 else names


def _drawn(names: Sequence[str], validation_fraction: float, *, seed: int, number: int) -> tuple[list[int], int]:
    """An order of the names of one set, and how many of the first validate."""
    order = np.random.default_rng([seed, number]).permutation(len(names)).tolist()
    return order, min(max(round(validation_fraction * len(names)), 1), len(names) - 1)


def read_split(path: Path, dataset: Dataset, *, needs_validation: bool = True) -> Split:
    """A division that somebody else made: JSON with lists `train`, `validation` and perhaps `test` of names.

    What it does not name takes no part. A `split.json` of a training folder is such a file.

    Parameters
    ----------
    dataset : whose micrographs are meant; names are compared as labels are with images
    needs_validation : whether an empty `validation` is an error

    Raises
    ------
    FormatError
        If the file is no such object.
    InputError
        If a name has no micrograph, a micrograph is in two parts, or a part is empty that must not be.
    """
    content = read_json_object(path, what="a division with lists of names under train, validation and test")
    names: dict[str, list[str]] = {}
    for part in ("train", "validation", "test"):
        listed = content.get(part, [])
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise FormatError(f"{path}: {part} is not a list of names")
        names[part] = listed
    matched = match_micrograph_names([one for part in names.values() for one in part], [item.name for item in dataset])
    parts: dict[str, tuple[str, ...]] = {}
    for part, listed in names.items():
        missing = [one for one in listed if one not in matched]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {len(listed)} names under {part} have no micrograph in {dataset.path}, "
                f"such as {missing[0]}"
            )
        parts[part] = tuple(matched[one] for one in listed)
    everywhere = [name for part in parts.values() for name in part]
    ((twice, count),) = Counter(everywhere).most_common(1) or [("", 0)]
    if count > 1:
        raise InputError(f"{path}: {twice} is in two parts, or twice in one; each micrograph belongs to one part")
    for part in ("train", "validation") if needs_validation else ("train",):
        if not parts[part]:
            raise InputError(f"{path}: names nothing under {part}")
    seed = content.get("seed", 0)
    return Split(seed if isinstance(seed, int) else 0, parts["train"], parts["validation"], parts["test"])


def refuse_shared(train: Dataset, validation: Dataset) -> None:
    """Raise `InputError` where a file, or the same part of one, both teaches and validates."""
    learnt = {(item.source.path.resolve(), item.region_px) for item in train}
    shared = [item.name for item in validation if (item.source.path.resolve(), item.region_px) in learnt]
    if shared:
        raise InputError(
            f"{validation.path}: {len(shared)} of its micrographs are learnt from too, such as {shared[0]}; what "
            "validates must not have been learnt from"
        )


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
