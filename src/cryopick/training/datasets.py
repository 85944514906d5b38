"""Labelled micrographs on disk, whatever the layout: what there is, which image goes with which labels, who validates.

Layouts, told apart by what a folder holds: CryoPPP as published (one set, or a folder of sets); a run of
`cryopick pick`, a simulation or a RELION project (`micrographs.star` with `particles.star` or `autopick.star`); a
folder of images with label files beside them. A coordinate file (STAR, .cs, .cbox, COCO, …) is a data set too, with
the micrographs that it names or those given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.transforms import TRANSFORMS
from cryopick.geometry.units import Length
from cryopick.io.images import probe_image
from cryopick.io.inputs import MicrographSource, find_micrographs, read_source
from cryopick.io.labels import SETTINGS_FILE, Labels, read_labels
from cryopick.io.names import match_micrograph_names
from cryopick.processing.orientation import OrientationFit, measure_orientation
from cryopick.types import Micrograph

COMPLETENESS = ("complete", "sparse")
"""Whether what is not labelled is background, or may hold particles too."""
CRYOPPP_IMAGES, CRYOPPP_LABELS = "micrographs", "ground_truth/particle_coordinates"
MICROGRAPHS_STAR, LABEL_STARS = "micrographs.star", ("truth.star", "particles.star", "autopick.star")
FLIPS = ("auto", "yes", "no")
_MAX_MEASURED = 4  # micrographs read to check the orientation


@dataclass(frozen=True, eq=False)
class LabelledMicrograph:
    """One micrograph of a data set.

    Parameters
    ----------
    source : where the pixels are
    labels : its particles, an empty table when it is known to hold none; None when nothing is known
    completeness : "complete" when everything unlabelled is background, "sparse" when not all particles are labelled
    group : the set it is from; splits are made within each
    shape_yx : rows, columns
    pixel_size_angstrom : Å per pixel, or None
    """

    source: MicrographSource
    labels: Labels | None
    completeness: str
    group: str
    shape_yx: tuple[int, int]
    pixel_size_angstrom: float | None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def is_complete(self) -> bool:
        return self.completeness == "complete"

    @property
    def diameter_px(self) -> float | None:
        """Particle diameter, or None when the labels do not say."""
        return None if self.labels is None else self.labels.diameter_px

    def read(self) -> Micrograph:
        return read_source(self.source, pixel_size_angstrom=self.pixel_size_angstrom)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Micrographs with their labels.

    Parameters
    ----------
    layout : "cryoppp", "run or project", "folder" or "coordinates"
    orientation : what was measured on the images, or None where it could not be
    warnings : sentences for the user; the data can still be used
    """

    path: Path
    layout: str
    items: tuple[LabelledMicrograph, ...]
    orientation: OrientationFit | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[LabelledMicrograph]:
        return iter(self.items)

    def labelled(self) -> Dataset:
        """Only the micrographs whose particles are known, also when there are none on them.

        Raises
        ------
        InputError
            If none is labelled.
        """
        items = tuple(item for item in self.items if item.labels is not None)
        if not items:
            raise InputError(f"{self.path}: none of {len(self)} micrographs is labelled; give labels to learn from")
        return replace(self, items=items)

    def take(self, names: Sequence[str]) -> Dataset:
        """The micrographs of these names, in this order."""
        by_name = {item.name: item for item in self.items}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise InputError(f"{self.path}: no micrograph {missing[0]!r}; the split was made for other data")
        return replace(self, items=tuple(by_name[name] for name in names))

    def card_entry(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "path": self.path.name,
            "layout": self.layout,
            "micrographs": len(self),
            "particles": sum(len(item.labels) for item in self.items if item.labels is not None),
            "names": [item.name for item in self.items],
        }


def open_dataset(
    path: Path | str,
    *,
    micrographs: Sequence[Path | str] = (),
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    completeness: str | None = None,
    flip_y: str | None = None,
) -> Dataset:
    """Find the micrographs and labels of a data set and check that they belong together; no pixels are kept.

    Parameters
    ----------
    path : a folder in one of the layouts above, or a coordinate file
    micrographs : the images, where they do not lie where the layout has them
    diameter, pixel_size_angstrom : above what the files say
    completeness : "complete" or "sparse"; None takes what `set.json` says under `labels`, else complete
    flip_y : whether y must be counted from the other end than the format says. None checks the orientation on the
        images and raises when it is clearly another; "auto" takes the measured one and raises when that is unclear

    Raises
    ------
    InputError
        If there are no micrographs or no labels, labels without images, or coordinates in another frame.
    FormatError, SettingsError
        If a file is malformed, or something needed is missing.
    """
    path = Path(path)
    if completeness is not None and completeness not in COMPLETENESS:
        raise SettingsError(f"completeness is {completeness!r}, expected complete or sparse")
    if flip_y is not None and flip_y not in FLIPS:
        raise SettingsError(f"flip_y is {flip_y!r}, expected one of: {', '.join(FLIPS)}")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a data set")
    layout, sets = _layout(path, micrographs)
    items: list[LabelledMicrograph] = []
    warnings: list[str] = []
    for one in sets:
        found = _pair(one, pixel_size_angstrom=pixel_size_angstrom, completeness=completeness)
        items += [_with_diameter(item, diameter) for item in found]
        bare = [item.name for item in found if item.labels is None]
        if bare:
            warnings.append(f"{one.labels}: no labels for {len(bare)} of {len(found)} micrographs, such as {bare[0]}")
    items, fit = _oriented(items, path, flip_y)
    if fit is not None and not fit.is_clear:
        warnings.append(f"orientation not checked: {fit.describe()}")
    return Dataset(path, layout, tuple(items), fit, tuple(warnings))


@dataclass(frozen=True)
class _Set:
    """Images and labels that belong together."""

    group: str
    images: Sequence[Path | str]
    labels: Path
    is_named_by_star: bool = False
    format: str | None = None


def _layout(path: Path, micrographs: Sequence[Path | str]) -> tuple[str, list[_Set]]:
    if path.is_file():
        return "coordinates", [_Set(path.stem, micrographs or [path], path, is_named_by_star=not micrographs)]
    published = [folder for folder in (path, *sorted(path.iterdir())) if (folder / CRYOPPP_LABELS).is_dir()]
    if published:
        sets = [_Set(one.name, micrographs or [one / CRYOPPP_IMAGES], one / CRYOPPP_LABELS) for one in published]
        return "cryoppp", sets
    simulated = path / CRYOPPP_IMAGES  # of `cryopick simulate`, whose CSV files tell hidden particles from plain ones
    if (simulated / SETTINGS_FILE).is_file():
        return "folder", [_Set(path.name, micrographs or [simulated], simulated)]
    star = next((path / name for name in LABEL_STARS if (path / name).is_file()), None)
    if star is not None:
        listed = path / MICROGRAPHS_STAR
        images = micrographs or [listed if listed.is_file() else star]
        return "run or project", [_Set(path.name, images, star, is_named_by_star=not micrographs)]
    return "folder", [_Set(path.name, micrographs or [path], path)]


def _pair(one: _Set, *, pixel_size_angstrom: float | None, completeness: str | None) -> list[LabelledMicrograph]:
    """The micrographs of a set with their labels; labels without an image are an error."""
    if one.is_named_by_star and Path(one.images[0]).suffix.lower() != ".star":
        raise InputError(f"{one.labels}: does not say where its micrographs are; give their folder (--micrographs)")
    sources = find_micrographs(one.images)
    infos = {source.name: probe_image(source.path) for source in sources if source.path.exists()}
    missing = [source for source in sources if source.name not in infos]
    if missing:
        raise InputError(f"{missing[0].path}: no such file, listed in {one.images[0]}; give the folder (--micrographs)")
    shapes_yx = {source.listed_name or source.name: infos[source.name].shape_yx for source in sources}
    labels = read_labels(one.labels, format=one.format, shapes_yx=shapes_yx)
    source_of = {source.listed_name or source.name: source for source in sources}
    matched = match_micrograph_names(labels, source_of)
    orphans = [name for name in labels if name not in matched]
    if orphans:
        raise InputError(
            f"{one.labels}: labels without images: {', '.join(orphans[:3])}{' …' if len(orphans) > 3 else ''} "
            f"({len(orphans)} of {len(labels)}); expected one micrograph each in {one.images[0]}, "
            f"which holds names such as {sources[0].name}"
        )
    labels_of = {matched[name]: found for name, found in labels.items()}
    settings = _read_set_json(one.labels)
    stated = completeness or settings.get("labels") or "complete"
    if stated not in COMPLETENESS:
        raise FormatError(f"{one.labels}: {SETTINGS_FILE} says labels are {stated!r}, expected complete or sparse")
    items = []
    for key, source in source_of.items():
        found = labels_of.get(key)
        sizes = (pixel_size_angstrom, source.pixel_size_angstrom, found.pixel_size_angstrom if found else None)
        size = next((value for value in sizes if value), infos[source.name].pixel_size_angstrom or None)
        shape_yx = infos[source.name].shape_yx
        items.append(LabelledMicrograph(source, found, str(stated), one.group, shape_yx, size))
    return items


def _read_set_json(labels: Path) -> Mapping[str, Any]:
    path = (labels if labels.is_dir() else labels.parent) / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error}); fix or remove it") from error
    return settings if isinstance(settings, dict) else {}


def _with_diameter(item: LabelledMicrograph, diameter: Length | None) -> LabelledMicrograph:
    if diameter is None or item.labels is None:
        return item
    px = diameter.middle_px(item.pixel_size_angstrom)
    return replace(item, labels=replace(item.labels, diameter_px=px))


def _oriented(
    items: list[LabelledMicrograph], path: Path, flip_y: str | None
) -> tuple[list[LabelledMicrograph], OrientationFit | None]:
    """Check or choose the orientation; see `open_dataset`."""
    fit = None if flip_y in ("yes", "no") else _measure(items)
    if flip_y == "auto" and (fit is None or not fit.is_clear):
        measured = "there are no labels with a diameter" if fit is None else fit.describe()
        raise InputError(
            f"{path}: the orientation is unclear ({measured}); pass flip_y yes or no, and look at overlays"
        )
    wanted = {"yes": "flip_y", "no": "identity"}.get(flip_y or "", "identity")
    if fit is not None and fit.is_clear and fit.best != "identity":
        if flip_y is None:
            raise InputError(
                f"{path}: the labels do not fit the images as their format says: {fit.describe()}; "
                "pass flip_y auto to turn them, or no to keep them"
            )
        wanted = fit.best
    if wanted == "identity":
        return items, fit
    turned = []
    for item in items:
        labels = item.labels
        if labels is not None:
            labels = replace(labels, xy_px=TRANSFORMS[wanted](labels.xy_px, item.shape_yx))
        turned.append(replace(item, labels=labels))
    return turned, fit


def _measure(items: Sequence[LabelledMicrograph]) -> OrientationFit | None:
    """On the most labelled micrographs that have the commonest diameter; None where no diameter is known."""
    usable = [item for item in items if item.labels is not None and len(item.labels) and item.diameter_px]
    if not usable:
        return None
    usable = sorted(usable, key=lambda item: -len(item.labels or ()))[:_MAX_MEASURED]
    diameter_px = float(np.median([item.diameter_px for item in usable if item.diameter_px]))
    images = [item.read().pixels for item in usable]
    centres = [item.labels.xy_px for item in usable if item.labels is not None]
    return measure_orientation(images, centres, diameter_px=diameter_px)


# ------------------------------------------------------------------------------------------------------------ splits


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
        If fewer than two micrographs are labelled: training and validation would see the same one.
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


# ------------------------------------------------------------------------------------------------------- description


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
    problems: tuple[str, ...] = field(default=())

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

    from cryopick.io.grouping import is_inside

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


def _count(values: Any) -> dict[Any, int]:
    """How often each value comes, the commonest first."""
    from collections import Counter

    return dict(Counter(values).most_common())


def _known(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g}{unit}"
