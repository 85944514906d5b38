"""Labelled micrographs on disk, whatever the layout: what there is, and which image goes with which labels.

Layouts, told apart by what a folder holds: CryoPPP as published (one set, or a folder of sets); a simulation; a run of
`cryopick pick` or a RELION project (`micrographs.star` with `particles.star` or `autopick.star`); a folder of images
with label files beside them. A coordinate file (STAR, .cs, .cbox, COCO, …) is a data set too, with the micrographs that
it names or those given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.labels import Labels, read_labels
from cryopick.data.prepared_cache import Prepared
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.transforms import TRANSFORMS
from cryopick.geometry.units import Length
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.files.json_object import read_json_object
from cryopick.io.files.reading import dangling_link
from cryopick.io.images.micrographs import probe_image
from cryopick.io.inputs.sources import MicrographSource, find_micrographs, read_source
from cryopick.io.set_json import (
    COMPLETENESS,
    LARGEST_DIAMETER_PX,
    SETTINGS_FILE,
    positive_or_none,
    read_set_settings,
)
from cryopick.processing.orientation import OrientationFit, measure_orientation
from cryopick.types import Micrograph

SMALLEST_DIAMETER_PX = 4.0
CRYOPPP_IMAGES, CRYOPPP_LABELS = "micrographs", "ground_truth/particle_coordinates"
MICROGRAPHS_STAR, LABEL_STARS = "micrographs.star", ("autopick.star", "particles.star")
SIMULATED_IMAGES, SIMULATED_TRUTH, SIMULATED_MASKS = "micrographs", "truth", "masks"
PARTICLE_WORDS = ("particle", "protein", "molecule")
"""A class of a COCO file with several classes must be called something like this to count as particles."""
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
    instances_path, junk_path : exact silhouettes and junk of simulated micrographs: 16-bit PNG with 0 background and
        i + 1 particle i; 8-bit PNG with 255 junk
    region_px : (left, top, right, bottom), the part of the image that belongs to this item; None for all. `labels` and
        `shape_yx` are those of the part
    """

    source: MicrographSource
    labels: Labels | None
    completeness: str
    group: str
    shape_yx: tuple[int, int]
    pixel_size_angstrom: float | None
    instances_path: Path | None = None
    junk_path: Path | None = None
    region_px: tuple[int, int, int, int] | None = None

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
        """The pixels of the item."""
        micrograph = read_source(self.source, pixel_size_angstrom=self.pixel_size_angstrom)
        if self.region_px is None:
            return micrograph
        left, top, right, bottom = self.region_px
        return replace(micrograph, pixels=micrograph.pixels[top:bottom, left:right])

    def part(self, region_px: tuple[int, int, int, int]) -> LabelledMicrograph:
        """Only what lies in `(left, top, right, bottom)`, pixel edges; of an item that is not itself a part."""
        if self.region_px is not None:
            raise ValueError(f"{self.name}: is itself a part of a micrograph")
        left, top, right, bottom = region_px
        labels = self.labels
        if labels is not None:
            x, y = labels.xy_px[:, 0], labels.xy_px[:, 1]
            is_in = (x >= left - 0.5) & (x < right - 0.5) & (y >= top - 0.5) & (y < bottom - 0.5)
            xy_px = labels.xy_px[is_in] - [left, top]
            class_id = None if labels.class_id is None else labels.class_id[is_in]
            labels = replace(labels, xy_px=xy_px, is_uncertain=labels.is_uncertain[is_in], class_id=class_id)
        return replace(self, labels=labels, shape_yx=(bottom - top, right - left), region_px=region_px)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Micrographs with their labels.

    Parameters
    ----------
    layout : "cryoppp", "simulation", "run or project", "folder" or "coordinates"
    orientation : what was measured on the images, or None where it could not be
    warnings : sentences for the user; the data can still be used
    diameter : of the particles as the user gave it, for micrographs without labels
    prepared : where what is costly to make of the micrographs is kept
    """

    path: Path
    layout: str
    items: tuple[LabelledMicrograph, ...]
    orientation: OrientationFit | None = None
    warnings: tuple[str, ...] = ()
    diameter: Length | None = None
    prepared: Prepared = field(default_factory=Prepared)

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

    def labels_digest(self) -> str:
        """SHA-256 of what is to be learnt: names, centres, doubts and sizes of every micrograph."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.name} {item.completeness} {item.region_px} {item.pixel_size_angstrom}\n".encode())
            if item.labels is not None:
                digest.update(f"{item.labels.diameter_px} {len(item.labels)}\n".encode())
                digest.update(np.round(item.labels.xy_px, 3).astype("<f8").tobytes())
                digest.update(item.labels.is_uncertain.tobytes())
        return digest.hexdigest()

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
    labels: Mapping[str, Labels] | None = None,
) -> Dataset:
    """Find the micrographs and labels of a data set and check that they belong together; no pixels are kept.

    Parameters
    ----------
    path : a folder in one of the layouts above, or a coordinate file
    micrographs : the images, where they do not lie where the layout has them
    diameter, pixel_size_angstrom : above what the files say
    completeness : "complete" or "sparse"; None takes what `set.json` says under `labels`, else complete
    labels : by micrograph, where more is known than the files in `path` say (of a run, from its candidates)
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
        found = _pair(one, labels, pixel_size_angstrom=pixel_size_angstrom, completeness=completeness)
        if len(sets) > 1:  # sets may share names
            found = [replace(i, source=replace(i.source, name=f"{one.group}/{i.name}")) for i in found]
        items += [_of_possible_size(_with_diameter(item, diameter)) for item in found]
        bare = [item.name for item in found if item.labels is None]
        if bare:
            warnings.append(f"{one.labels}: no labels for {len(bare)} of {len(found)} micrographs, such as {bare[0]}")
    items, fit = _oriented(items, path, flip_y)
    if fit is not None and not fit.is_clear:
        warnings.append(f"orientation not checked: {fit.describe()}")
    return Dataset(path, layout, tuple(items), fit, tuple(warnings))


def open_micrographs(
    path: Path | str,
    *,
    micrographs: Sequence[Path | str] = (),
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
) -> Dataset:
    """Find the micrographs of a folder, a list or a data set for training without labels; labels there are not read.

    Parameters
    ----------
    path : a folder of images or in a layout of `open_dataset`, an image, or anything else that `cryopick pick` takes
    others : as in `open_dataset`

    Raises
    ------
    InputError
        If there are no micrographs.
    """
    path = Path(path)
    sets = _layout(path, micrographs)[1] if path.is_dir() else [_Set(path.stem, micrographs or [path], path)]
    items = []
    for one in sets:
        for source in find_micrographs(one.images):
            if not source.path.exists():
                reason = dangling_link(source.path) or "no such file"
                raise InputError(f"{source.path}: {reason}; from {one.images[0]}")
            info = probe_image(source.path)
            size = pixel_size_angstrom or source.pixel_size_angstrom or info.pixel_size_angstrom or None
            named = replace(source, name=f"{one.group}/{source.name}") if len(sets) > 1 else source
            items.append(LabelledMicrograph(named, None, "sparse", one.group, info.shape_yx, size))
    return Dataset(path, "micrographs", tuple(items), diameter=diameter)


def looks_like_dataset(path: Path) -> bool:
    """True for a folder in the layout of CryoPPP or a simulation, or with `set.json` beside images or labels."""
    inside = [path, *(one for one in path.iterdir() if one.is_dir())] if path.is_dir() else []
    return any((one / CRYOPPP_LABELS).is_dir() or (one / SETTINGS_FILE).is_file() for one in inside)


@dataclass(frozen=True)
class _Set:
    """Images and labels that belong together."""

    group: str
    images: Sequence[Path | str]
    labels: Path
    is_named_by_star: bool = False
    simulation: Path | None = None


def _layout(path: Path, micrographs: Sequence[Path | str]) -> tuple[str, list[_Set]]:
    if path.is_file():
        return "coordinates", [_Set(path.stem, micrographs or [path], path, is_named_by_star=not micrographs)]
    published = [folder for folder in (path, *sorted(path.iterdir())) if (folder / CRYOPPP_LABELS).is_dir()]
    if published:
        sets = [_Set(one.name, micrographs or [one / CRYOPPP_IMAGES], one / CRYOPPP_LABELS) for one in published]
        return "cryoppp", sets
    folder = path / SIMULATED_IMAGES  # its CSV files tell hidden particles from plain ones, particles.star does not
    if (path / SIMULATED_TRUTH).is_dir() and folder.is_dir():
        return "simulation", [_Set(path.name, micrographs or [folder], folder, simulation=path)]
    star = next((path / name for name in LABEL_STARS if (path / name).is_file()), None)
    if star is not None:
        listed = path / MICROGRAPHS_STAR
        images = micrographs or [listed if listed.is_file() else star]
        return "run or project", [_Set(path.name, images, star, is_named_by_star=not micrographs)]
    return "folder", [_Set(path.name, micrographs or [path], path)]


def _pair(
    one: _Set,
    labels: Mapping[str, Labels] | None,
    *,
    pixel_size_angstrom: float | None,
    completeness: str | None,
) -> list[LabelledMicrograph]:
    """The micrographs of a set with their labels; labels without an image are an error."""
    if one.is_named_by_star and Path(one.images[0]).suffix.lower() != ".star":
        raise InputError(f"{one.labels}: does not say where its micrographs are; give their folder (--micrographs)")
    sources = find_micrographs(one.images)
    infos = {source.name: probe_image(source.path) for source in sources if source.path.exists()}
    missing = [source for source in sources if source.name not in infos]
    if missing:
        reason = dangling_link(missing[0].path) or "no such file"
        raise InputError(f"{missing[0].path}: {reason}; from {one.images[0]}; give the folder (--micrographs)")
    shapes_yx = {source.listed_name or source.name: infos[source.name].shape_yx for source in sources}
    if one.labels.suffix.lower() == ".json":
        check_coco_classes(one.labels)
    if labels is None:
        labels = read_labels(one.labels, shapes_yx=shapes_yx)
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
    stated = completeness or read_set_settings(one.labels).get("labels") or "complete"
    items = []
    for key, source in source_of.items():
        found = labels_of.get(key)
        sizes = (pixel_size_angstrom, source.pixel_size_angstrom, found.pixel_size_angstrom if found else None)
        size = next((value for value in sizes if value), infos[source.name].pixel_size_angstrom or None)
        shape_yx = infos[source.name].shape_yx
        item = LabelledMicrograph(source, found, str(stated), one.group, shape_yx, size)
        items.append(item if one.simulation is None else _with_truth(item, one.simulation))
    return items


def _with_truth(item: LabelledMicrograph, folder: Path) -> LabelledMicrograph:
    """The masks of a simulated micrograph, and its own diameter instead of the mean one of the set."""
    name = Path(without_extension(item.name)).name
    instances, junk = (folder / SIMULATED_MASKS / f"{name}_{kind}.png" for kind in ("instances", "junk"))
    labels, facts_path = item.labels, folder / SIMULATED_TRUTH / f"{name}.json"
    if labels is not None and facts_path.is_file():
        facts = read_json_object(facts_path, what="the facts of a simulated micrograph")
        where = f"{facts_path}: diameter_px"
        diameter_px = positive_or_none(facts.get("diameter_px"), largest=LARGEST_DIAMETER_PX, where=where)
        labels = replace(labels, diameter_px=diameter_px or labels.diameter_px)
    return replace(
        item,
        labels=labels,
        instances_path=instances if instances.is_file() else None,
        junk_path=junk if junk.is_file() else None,
    )


def check_coco_classes(path: Path) -> None:
    """Refuse a COCO file whose annotations are of several classes that are not all particles.

    Raises
    ------
    FormatError
        Naming the foreign classes.
    """
    content = read_json_object(path, what="EMAN2 boxes or COCO annotations")
    categories, annotations = content.get("categories"), content.get("annotations")
    if not isinstance(categories, list) or not isinstance(annotations, list):
        return  # another kind of JSON; its own reader judges it
    name_of = {one.get("id"): str(one.get("name")) for one in categories if isinstance(one, dict)}
    used = {one.get("category_id") for one in annotations if isinstance(one, dict)}
    undeclared = sorted(str(identity) for identity in used - name_of.keys())
    if undeclared and name_of:
        raise FormatError(f"{path}: annotations of category {undeclared[0]}, which `categories` does not declare")
    names = {name_of[identity] for identity in used if identity in name_of}
    foreign = sorted(name for name in names if not any(word in name.lower() for word in PARTICLE_WORDS))
    if foreign and len(names) > 1:
        raise FormatError(
            f"{path}: foreign classes {', '.join(foreign[:5])}; expected particles only: delete the annotations of "
            f"other classes, or call the classes of particles {PARTICLE_WORDS[0]}"
        )


def _with_diameter(item: LabelledMicrograph, diameter: Length | None) -> LabelledMicrograph:
    if diameter is None or item.labels is None:
        return item
    px = diameter.middle_px(item.pixel_size_angstrom)
    return replace(item, labels=replace(item.labels, diameter_px=px))


def _of_possible_size(item: LabelledMicrograph) -> LabelledMicrograph:
    """The item, unless no particle of its diameter can be seen on it."""
    px = item.diameter_px
    if px is not None and not SMALLEST_DIAMETER_PX <= px <= max(item.shape_yx):
        height, width = item.shape_yx
        raise SettingsError(
            f"{item.name}: the particle diameter is {px:.4g} px, expected at least {SMALLEST_DIAMETER_PX:g} px and at "
            f"most the size of the micrograph, {width} x {height} px; check it and its unit (--diameter 180A or 108px) "
            "and the pixel size"
        )
    return item


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
