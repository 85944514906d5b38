"""Labelled micrographs on disk, whatever the layout: what there is, and which image goes with which labels.

Layouts, told apart by what a folder holds: CryoPPP as published (one set, or a folder of sets); a simulation; a run of
`cryopick pick` or a RELION project (`micrographs.star` with `particles.star` or `autopick.star`); a part of a data set
with COCO labels (`train/` beside `annotations/instances_train.json`); a folder of images with label files beside them;
folders of `cryopick label` and images beside masks (`data.mask_folders`); a folder that holds nothing but folders, each
a set in any of these layouts. A coordinate file (STAR, .cs, .cbox, COCO, …) is a data set too, with the micrographs
that it names or those given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.data.id_lists import choose_sets
from cryopick.data.labels import Labels, read_labels
from cryopick.data.mask_folders import (
    PARTICLE_WORDS,
    Drawing,
    DrawnMicrograph,
    is_mask_folder,
    open_mask_folder,
)
from cryopick.data.parts import Part, annotations_of, parts_of
from cryopick.data.prepared_cache import Prepared
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.transforms import TRANSFORMS
from cryopick.geometry.units import Length
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.files.json_object import read_json_object
from cryopick.io.files.reading import dangling_link
from cryopick.io.images.formats import is_image_name
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
FLIPS = ("auto", "yes", "no")
CONTRASTS = ("dark", "bright")
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
    is_bright : particles are brighter than the background in the file; what is read is inverted
    stated_diameter_px : what the files of its set say of the particle diameter, where labels are not read
    drawing : its mask, of the whole image, where particles are drawn; see `data.mask_folders`
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
    is_bright: bool = False
    stated_diameter_px: float | None = None
    drawing: Drawing | None = None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def is_complete(self) -> bool:
        return self.completeness == "complete"

    @property
    def diameter_px(self) -> float | None:
        """Particle diameter, or None when the labels, or the files of the set, do not say."""
        return self.stated_diameter_px if self.labels is None else self.labels.diameter_px

    def read(self) -> Micrograph:
        """The pixels of the item, particles dark."""
        micrograph = read_source(self.source, pixel_size_angstrom=self.pixel_size_angstrom)
        if self.is_bright:
            micrograph = micrograph.inverted()
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
            x, y = labels.background_xy_px.T
            is_here = (x >= left - 0.5) & (x < right - 0.5) & (y >= top - 0.5) & (y < bottom - 0.5)
            labels = replace(
                labels,
                xy_px=xy_px,
                is_uncertain=labels.is_uncertain[is_in],
                class_id=class_id,
                score=None if labels.score is None else labels.score[is_in],
                background_xy_px=labels.background_xy_px[is_here] - [left, top],
            )
        return replace(self, labels=labels, shape_yx=(bottom - top, right - left), region_px=region_px)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Micrographs with their labels.

    Parameters
    ----------
    layout : "cryoppp", "simulation", "run or project", "coco", "folder" or "coordinates"
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

    def with_contrast(self, contrast: str) -> Dataset:
        """The same micrographs, whose particles are "dark" or "bright" in their files."""
        if contrast not in CONTRASTS:
            raise SettingsError(f"contrast is {contrast!r}, expected dark or bright")
        return replace(self, items=tuple(replace(item, is_bright=contrast == "bright") for item in self.items))

    def doubting_below(self, min_score: float | None) -> Dataset:
        """The same micrographs, on which labels that score less are uncertain and teach neither way; None doubts none.

        Raises
        ------
        InputError
            If a label has no score, or none scores as much.
        """
        if min_score is None:
            return self
        items = tuple(
            replace(item, labels=item.labels.doubting_below(min_score)) if item.labels is not None else item
            for item in self.items
        )
        if all(item.labels is None or item.labels.is_uncertain.all() for item in items):
            raise InputError(f"{self.path}: no pick has a score of {min_score:g} or more; give a lower least score")
        return replace(self, items=items)

    def labels_digest(self) -> str:
        """SHA-256 of what is to be learnt: names, centres, doubts and sizes of every micrograph."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.name} {item.completeness} {item.region_px} {item.pixel_size_angstrom}\n".encode())
            if item.labels is not None:
                digest.update(f"{item.labels.diameter_px} {len(item.labels)}\n".encode())
                digest.update(np.round(item.labels.xy_px, 3).astype("<f8").tobytes())
                digest.update(item.labels.is_uncertain.tobytes())
                digest.update(np.round(item.labels.background_xy_px, 3).astype("<f8").tobytes())
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
    part: Part | None = None,
    ids: Sequence[str] = (),
) -> Dataset:
    """Find the micrographs and labels of a data set and check that they belong together; no pixels are kept.

    Parameters
    ----------
    path : a folder in one of the layouts above, or a coordinate file
    micrographs : the images, where they do not lie where the layout has them
    diameter, pixel_size_angstrom : above what the files say
    completeness : "complete" or "sparse"; None takes what `set.json` says under `labels`, else complete; what it
        names under `complete` is complete also where the others are sparse
    labels : by micrograph, where more is known than the files in `path` say (of a run, from its candidates); they lie
        on the images as they are
    flip_y : whether y must be counted from the other end than the format says. None checks the orientation on the
        images and raises when it is clearly another; "auto" takes the measured one and raises when that is unclear
    part : which part of a data set whose authors keep parts apart; see `cryopick.data.parts`
    ids : of a folder of sets, only these EMPIAR numbers or lists of them; see `cryopick.data.id_lists`

    Raises
    ------
    InputError
        If there are no micrographs or no labels, labels without images, coordinates in another frame, or parts that
        are kept apart and none is named.
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
    folders = _folders_of_part(path, part, ids)
    is_drawn = not folders and is_mask_folder(path)
    folders = folders or ({} if is_drawn else _folders_of_sets(path, ids, micrographs))
    if folders:
        opened = {
            name: open_dataset(
                folder,
                micrographs=micrographs,
                diameter=diameter,
                pixel_size_angstrom=pixel_size_angstrom,
                completeness=completeness,
                flip_y=flip_y,
                labels=labels,
            )
            for name, folder in folders.items()
        }
        return join_datasets(path, opened)
    if is_drawn:
        return _open_drawn(
            path,
            micrographs,
            diameter=diameter,
            pixel_size_angstrom=pixel_size_angstrom,
            completeness=completeness,
            flip_y=flip_y,
        )
    layout, sets = _layout(path, micrographs)
    sets = _chosen(sets, ids, path)
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
    if flip_y is None and labels is not None:
        flip_y = "no"  # a run picked on these images: its picks lie where it found them, right or wrong
    items, fit = _oriented(items, path, flip_y)
    if fit is not None and not fit.is_clear:
        warnings.append(f"orientation not checked: {fit.describe()}")
    return Dataset(path, layout, tuple(items), fit, tuple(warnings))


def _folders_of_part(path: Path, part: Part | None, ids: Sequence[str]) -> dict[str, Path]:
    """The folders of a part, by the name of the set; none where the data set keeps no parts apart."""
    parts = parts_of(path)
    if not parts:
        if part is not None:
            raise InputError(f"{path}: keeps no {part} part apart; expected folders train, val or test")
        return {}
    if part is None:
        shown = ", ".join(str(folder) for folders in parts.values() for folder in list(folders.values())[:1])
        raise InputError(
            f"{path}: its authors keep {' and '.join(parts)} apart, and they are not read together; give one of them "
            f"({shown}), or train with --data {path.name}, which learns from one and validates on the other"
        )
    if part not in parts:
        raise InputError(f"{path}: has no {part} part, only {' and '.join(parts)}")
    folders = parts[part]
    chosen = choose_sets(folders, ids, where=path) if ids else list(folders)
    return {name: folders[name] for name in chosen}


def _folders_of_sets(path: Path, ids: Sequence[str], micrographs: Sequence[Path | str]) -> dict[str, Path]:
    """The folders in a folder that holds nothing else, each a data set of its own; none where `path` is a set.

    Images and labels in folders side by side are one set, and so is what is given with images of its own.
    """
    if micrographs or not path.is_dir() or _layout(path, ())[0] != "folder":
        return {}
    inside = [child for child in sorted(path.iterdir()) if not child.name.startswith((".", "README"))]
    if not all(child.is_dir() and _has_images(child) for child in inside):
        return {}
    folders = {child.name: child for child in inside}
    return {name: folders[name] for name in choose_sets(folders, ids, where=path)} if ids else folders


def _has_images(folder: Path) -> bool:
    """Whether a folder could be a data set: in a layout that is known, or with images somewhere in it."""
    if is_mask_folder(folder) or _layout(folder, ())[0] != "folder":
        return True
    return any(is_image_name(file.name) for file in folder.rglob("*"))


def _chosen(sets: list[_Set], ids: Sequence[str], path: Path) -> list[_Set]:
    if not ids:
        return sets
    by_name = {one.group: one for one in sets}
    return [by_name[name] for name in choose_sets(by_name, ids, where=path)]


def join_datasets(path: Path, opened: Mapping[str, Dataset]) -> Dataset:
    """Several data sets as one, by the names of their sets, which stand before the names of their micrographs."""
    items: list[LabelledMicrograph] = []
    for name, one in opened.items():
        for item in one.items:
            named = replace(item.source, name=f"{name}/{item.name}") if len(opened) > 1 else item.source
            items.append(replace(item, source=named, group=name))
    fits = [one.orientation for one in opened.values() if one.orientation is not None]
    return Dataset(
        path,
        next(iter(opened.values())).layout,
        tuple(items),
        fits[0] if len(opened) == 1 and fits else None,
        tuple(text for one in opened.values() for text in one.warnings),
        next(iter(opened.values())).diameter,
    )


def _open_drawn(
    path: Path,
    micrographs: Sequence[Path | str],
    *,
    diameter: Length | None,
    pixel_size_angstrom: float | None,
    completeness: str | None,
    flip_y: str | None,
) -> Dataset:
    """A data set of a folder of masks; masks lie on their images as they are."""
    if flip_y not in (None, "no"):
        raise SettingsError(f"{path}: masks lie on their images as they are; leave flip_y out")
    found = open_mask_folder(path, micrographs=micrographs, diameter=diameter)
    drawn = (
        _of_drawn(one, path.name, pixel_size_angstrom=pixel_size_angstrom, completeness=completeness)
        for one in found.items
    )
    items = tuple(_of_possible_size(_with_diameter(item, diameter)) for item in drawn)
    return Dataset(path, found.layout, items, None, tuple(found.warnings))


def _of_drawn(
    one: DrawnMicrograph, group: str, *, pixel_size_angstrom: float | None, completeness: str | None
) -> LabelledMicrograph:
    return LabelledMicrograph(
        source=one.source,
        labels=one.labels,
        completeness=completeness or one.completeness,
        group=group,
        shape_yx=one.shape_yx,
        pixel_size_angstrom=pixel_size_angstrom or one.pixel_size_angstrom,
        instances_path=one.instances_path,
        drawing=one.drawing,
    )


def open_micrographs(
    path: Path | str,
    *,
    micrographs: Sequence[Path | str] = (),
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    part: Part | None = None,
    ids: Sequence[str] = (),
) -> Dataset:
    """Find the micrographs of a folder, a list or a data set for training without labels; labels there are not kept.

    Of labels in the layout of CryoPPP or a simulation, of masks, and beside a `set.json`, the particle diameter is
    read, and nothing else: sets of different particles that are learnt from together have one each.

    Parameters
    ----------
    path : a folder of images or in a layout of `open_dataset`, an image, or anything else that `cryopick pick` takes
    others : as in `open_dataset`

    Raises
    ------
    InputError
        If there are no micrographs, or parts that are kept apart and none is named.
    """
    path = Path(path)
    folders = _folders_of_part(path, part, ids)
    if not folders and is_mask_folder(path):  # its masks are images too, and no micrographs
        drawn = _open_drawn(
            path,
            micrographs,
            diameter=diameter,
            pixel_size_angstrom=pixel_size_angstrom,
            completeness=None,
            flip_y=None,
        )
        return replace(
            drawn, layout="micrographs", items=tuple(_without_labels(item) for item in drawn), diameter=diameter
        )
    folders = folders or _folders_of_sets(path, ids, micrographs)
    if folders:
        opened = {
            name: open_micrographs(
                folder, micrographs=micrographs, diameter=diameter, pixel_size_angstrom=pixel_size_angstrom
            )
            for name, folder in folders.items()
        }
        return join_datasets(path, opened)
    sets = _layout(path, micrographs)[1] if path.is_dir() else [_Set(path.stem, micrographs or [path], path)]
    sets = _chosen(sets, ids, path)
    items, warnings = [], []
    for one in sets:
        infos = {}
        sources = find_micrographs(one.images)
        for source in sources:
            if not source.path.exists():
                reason = dangling_link(source.path) or "no such file"
                raise InputError(f"{source.path}: {reason}; from {one.images[0]}")
            infos[source.name] = probe_image(source.path)
        stated, problem = _stated_diameters(one, {name: info.shape_yx for name, info in infos.items()})
        warnings += [problem] if problem and diameter is None else []
        for source in sources:
            info = infos[source.name]
            size = pixel_size_angstrom or source.pixel_size_angstrom or info.pixel_size_angstrom or None
            named = replace(source, name=f"{one.group}/{source.name}") if len(sets) > 1 else source
            item = LabelledMicrograph(named, None, "sparse", one.group, info.shape_yx, size)
            items.append(_of_possible_size(replace(item, stated_diameter_px=stated.get(source.name))))
    return Dataset(path, "micrographs", tuple(items), warnings=tuple(warnings), diameter=diameter)


def _without_labels(item: LabelledMicrograph) -> LabelledMicrograph:
    """The micrograph alone, and what its labels said of the diameter."""
    return replace(
        item,
        labels=None,
        completeness="sparse",
        instances_path=None,
        junk_path=None,
        drawing=None,
        stated_diameter_px=item.diameter_px,
    )


def _stated_diameters(one: _Set, shapes_yx: Mapping[str, tuple[int, int]]) -> tuple[dict[str, float], str]:
    """The particle diameter of each micrograph that the labels of a set know, pixels; and what is wrong with them."""
    is_plain_folder = (
        one.labels.is_dir() and one.simulation is None and not one.labels.as_posix().endswith(CRYOPPP_LABELS)
    )
    if not one.labels.is_dir() or (is_plain_folder and not (one.labels / SETTINGS_FILE).is_file()):
        return {}, ""
    try:
        labels = read_labels(one.labels, shapes_yx=dict(shapes_yx))
        matched = match_micrograph_names(labels, list(shapes_yx))
    except (InputError, FormatError, SettingsError) as error:
        return {}, f"{one.labels}: the particle diameter of the set cannot be read ({error})"
    found = {matched[name]: each.diameter_px for name, each in labels.items() if name in matched}
    known = {name: diameter_px for name, diameter_px in found.items() if diameter_px}
    if known:  # a micrograph without labels is of the same particles
        usual = float(np.median(list(known.values())))
        known = {name: known.get(name, usual) for name in shapes_yx}
    return known, ""


def looks_like_dataset(path: Path) -> bool:
    """True for a folder in the layout of CryoPPP, a simulation or masks, or with `set.json` beside images or labels."""
    inside = [path, *(one for one in path.iterdir() if one.is_dir())] if path.is_dir() else []
    return any(
        (one / CRYOPPP_LABELS).is_dir() or (one / SETTINGS_FILE).is_file() or is_mask_folder(one) for one in inside
    )


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
    annotations = annotations_of(path)
    if annotations is not None:
        return "coco", [_Set(path.name, micrographs or [path], annotations)]
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
    settings = read_set_settings(one.labels)
    stated = completeness or settings.get("labels") or "complete"
    whole = set(match_micrograph_names(settings.get("complete", []), source_of).values())
    items = []
    for key, source in source_of.items():
        found = labels_of.get(key)
        sizes = (pixel_size_angstrom, source.pixel_size_angstrom, found.pixel_size_angstrom if found else None)
        size = next((value for value in sizes if value), infos[source.name].pixel_size_angstrom or None)
        shape_yx = infos[source.name].shape_yx
        its = "complete" if key in whole else str(stated)
        item = LabelledMicrograph(source, found, its, one.group, shape_yx, size)
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
