"""What is in a data set, and what looks wrong, for `cryopick inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.datasets import Dataset, LabelledMicrograph, open_dataset
from cryopick.io.coordinates.grouping import is_inside


@dataclass(frozen=True)
class DatasetSummary:
    """What `cryopick inspect` says of a data set."""

    path: Path
    layout: str
    micrographs: int
    labelled: int
    particles: int
    uncertain: int
    particles_per_micrograph: tuple[int, int, int]
    """Least, median, most, over labelled micrographs."""
    shapes_yx: Mapping[tuple[int, int], int]
    pixel_sizes_angstrom: Mapping[float | None, int]
    diameters_px: Mapping[float | None, int]
    completeness: Mapping[str, int]
    groups: Mapping[str, int]
    orientation: str
    problems: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Plain values by name, as `cryopick inspect` shows them; names carry their units."""
        low, median, high = self.particles_per_micrograph
        return {
            "layout": self.layout,
            "labelled_micrographs": self.labelled,
            "particles": self.particles,
            "uncertain_labels": self.uncertain,
            "particles_per_micrograph": f"{low} to {high}, half {median} or fewer",
            "labels": dict(self.completeness),
            "particle_diameter_px": {_known(size, ""): count for size, count in self.diameters_px.items()},
            **({"sets": dict(self.groups)} if len(self.groups) > 1 else {}),
            "orientation": self.orientation,
        }

    def lines(self) -> list[str]:
        """The summary as text, one fact per line; problems last."""
        low, median, high = self.particles_per_micrograph
        shown = [
            f"{self.path}: data set ({self.layout}), {self.micrographs} micrographs, {self.labelled} labelled",
            f"particles: {self.particles}, uncertain: {self.uncertain}; per micrograph {low} to {high}, half {median}",
            "labels: " + ", ".join(f"{name} on {count}" for name, count in self.completeness.items()),
            "image sizes: " + ", ".join(f"{w} x {h} px ({n})" for (h, w), n in self.shapes_yx.items()),
            "pixel size: " + ", ".join(f"{_known(s, ' Å')} ({n})" for s, n in self.pixel_sizes_angstrom.items()),
            "particle diameter: " + ", ".join(f"{_known(d, ' px')} ({n})" for d, n in self.diameters_px.items()),
            f"orientation: {self.orientation}",
        ]
        if len(self.groups) > 1:
            shown.insert(1, "sets: " + ", ".join(f"{name} ({count})" for name, count in self.groups.items()))
        return shown + [f"problem: {text}" for text in self.problems]


def describe_dataset(dataset: Dataset | Path | str) -> DatasetSummary:
    """Counts, sizes, frame, and what looks wrong; raises as `open_dataset`."""
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset)
    labelled = [item for item in dataset.items if item.labels is not None]
    counts = [len(item.labels) for item in labelled if item.labels is not None]
    fit = dataset.orientation
    return DatasetSummary(
        path=dataset.path,
        layout=dataset.layout,
        micrographs=len(dataset),
        labelled=len(labelled),
        particles=sum(int((~item.labels.is_uncertain).sum()) for item in labelled if item.labels is not None),
        uncertain=sum(int(item.labels.is_uncertain.sum()) for item in labelled if item.labels is not None),
        particles_per_micrograph=(min(counts, default=0), int(np.median(counts or [0])), max(counts, default=0)),
        shapes_yx=_count(item.shape_yx for item in dataset.items),
        pixel_sizes_angstrom=_count(
            item.pixel_size_angstrom and round(item.pixel_size_angstrom, 4) for item in dataset.items
        ),
        diameters_px=_count(item.diameter_px and round(item.diameter_px, 1) for item in labelled),
        completeness=_count(item.completeness for item in labelled),
        groups=_count(item.group for item in dataset.items),
        orientation="not measured (no diameter or no labels)" if fit is None else fit.describe(),
        problems=(*dataset.warnings, *_problems(labelled)),
    )


def _problems(items: Sequence[LabelledMicrograph]) -> Iterator[str]:
    from scipy.spatial import cKDTree

    outside = {i.name: int((~is_inside(i.labels.xy_px, i.shape_yx)).sum()) for i in items if i.labels is not None}
    outside = {name: count for name, count in outside.items() if count}
    if outside:
        yield f"{sum(outside.values())} labels lie outside their image, on {len(outside)} micrographs: {_some(outside)}"
    twins: dict[str, int] = {}
    for item in items:
        if item.labels is not None and len(item.labels) > 1 and item.diameter_px:
            pairs = len(cKDTree(item.labels.xy_px).query_pairs(0.1 * item.diameter_px))
            if pairs:
                twins[item.name] = pairs
    if twins:
        yield f"{sum(twins.values())} pairs of labels are closer than a tenth of a diameter: {_some(twins)}"
    if any(item.diameter_px is None for item in items):
        yield "no particle diameter; give it, or write diameter_px into set.json"
    if any(item.pixel_size_angstrom is None for item in items):
        yield "no pixel size, so lengths in Å cannot be used; write pixel_size_angstrom into set.json"
    empty = [item.name for item in items if item.labels is not None and len(item.labels) == 0]
    if empty and len(empty) < len(items):
        yield f"{len(empty)} micrographs are labelled as empty: {', '.join(empty[:3])}"


def _some(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:3]]
    return ", ".join(shown) + (" …" if len(counts) > 3 else "")


def _count(values: Iterable[Any]) -> dict[Any, int]:
    """How often each value comes, the commonest first."""
    return dict(Counter(values).most_common())


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g}{unit}"
