"""Labelled sets whose particles are drawn: folders of `cryopick label`, and images beside masks of one's own.

A folder of `cryopick label` says in `labels.json` where its micrographs are. Masks of one's own lie in `masks/` beside
`images/` (or `micrographs/`), one image per micrograph and of its size, named like it or with `_mask` behind its name,
as CryoSegNet's are. Their grey values are class numbers (0, 1, 2, ...), two values (0 and 255), or evenly used levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.labels import Labels, read_labels
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.extras import require_extra
from cryopick.geometry.units import Length
from cryopick.io.coordinates.names import without_extension
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import probe_image
from cryopick.io.images.raster import read_raster_image
from cryopick.io.inputs.sources import MicrographSource, find_micrographs
from cryopick.io.set_json import read_set_settings

MASKS, INSTANCES, IGNORED, CENTRES = "masks", "instances", "ignore", "centres"
"""Folders that `cryopick label` writes."""
SUMMARY = "labels.json"
IMAGES = ("images", "micrographs")
CLASS_NAMES = "classes.txt"
"""Beside masks (or weights): the name of each class, one a line, class 0 first."""
PARTICLE_WORDS = ("particle", "protein", "molecule")
"""A class among several must be called something like this to count as particles."""
MASK_SUFFIXES = ("", "_mask", "-mask", "_masks", "_label", "_labels", "_seg")
"""What may stand behind a micrograph's name in that of its mask."""
MOST_CLASSES = 32
LOSSY = (".jpg", ".jpeg")
SEARCHED_PX = 1024
"""Particles are told apart on masks shrunk to this side; their centres are then good to a few pixels."""
LEAST_AREA = 0.08
"""Of the disc of a particle's diameter; smaller spots are no particles."""
SPLIT_REACH, SPLIT_SMOOTHING = 0.45, 0.1
"""Touching particles are parted where the distance to the background, smoothed by a Gaussian, has maxima so many
diameters apart; chosen on the silhouettes of three simulated micrographs (`simulate --recipe noise-light --seed 3`),
where a diameter 10 % too small still gives F1 0.998."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The mask of one micrograph.

    Parameters
    ----------
    path : the image
    levels : its grey value for class 0, 1, ...; of a lossy image the nearer one counts
    particle : number of the class that is to be picked
    names : of the classes, or nothing where nobody says
    ignored_path : image that is not 0 where neither answer is wrong, or None
    """

    path: Path
    levels: tuple[int, ...]
    particle: int = 1
    names: tuple[str, ...] = ()
    ignored_path: Path | None = None

    def classes(self, region_px: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
        """(h, w) class of every pixel; of (left, top, right, bottom) only, where that is given."""
        grey = _cut(read_grey(self.path), region_px)
        if self.path.suffix.lower() in LOSSY:
            middles = (np.array(self.levels[1:]) + np.array(self.levels[:-1])) / 2
            return np.asarray(np.searchsorted(middles, grey), np.uint8)
        return np.asarray(np.searchsorted(np.array(self.levels), grey), np.uint8)

    def is_ignored(self, region_px: tuple[int, int, int, int] | None = None) -> NDArray[np.bool_] | None:
        """(h, w) True where neither answer is wrong; None where that is nowhere."""
        return None if self.ignored_path is None else np.asarray(_cut(read_grey(self.ignored_path), region_px) > 0)


def _cut(pixels: NDArray[Any], region_px: tuple[int, int, int, int] | None) -> NDArray[Any]:
    if region_px is None:
        return pixels
    left, top, right, bottom = region_px
    return pixels[top:bottom, left:right]


def read_grey(path: Path) -> NDArray[np.int64]:
    """(h, w) whole grey values of a mask."""
    pixels = read_raster_image(path).pixels
    if not (np.asarray(pixels) == np.rint(pixels)).all():
        raise FormatError(f"{path}: grey values are no whole numbers; expected a mask of 8 or 16 bit")
    return np.asarray(np.rint(pixels), np.int64)


@dataclass(frozen=True, eq=False)
class DrawnMicrograph:
    """One micrograph of such a set: what a data set needs to know of it."""

    source: MicrographSource
    drawing: Drawing
    labels: Labels
    instances_path: Path | None
    completeness: str
    shape_yx: tuple[int, int]
    pixel_size_angstrom: float | None


@dataclass(frozen=True, eq=False)
class DrawnSet:
    """Micrographs with masks, and what must be said about them."""

    layout: str
    items: tuple[DrawnMicrograph, ...]
    warnings: tuple[str, ...]


def is_mask_folder(path: Path) -> bool:
    """Whether a folder is one of `cryopick label`, or holds `masks/` beside `images/` or `micrographs/`."""
    if not (path / MASKS).is_dir() or (path / "truth").is_dir():  # a simulation has masks, too, and knows more
        return False
    return (path / SUMMARY).is_file() or any((path / name).is_dir() for name in IMAGES)


def open_mask_folder(path: Path, *, micrographs: Sequence[Path | str] = (), diameter: Length | None = None) -> DrawnSet:
    """The micrographs of a folder of masks.

    Parameters
    ----------
    micrographs : the images, where they are not where the folder says
    diameter : of particles, by which spots that touch are parted; measured on the masks where nobody says it

    Raises
    ------
    InputError
        If a mask has no image, or there is none.
    FormatError
        If a mask is damaged, has another size than its image, or too many grey values.
    SettingsError
        If nobody says which of several classes is the particle.
    """
    told = _told(path)
    if told is not None and not micrographs:
        return _from_label(path, told)
    return _from_images(path, micrographs, diameter)


def _told(path: Path) -> list[Mapping[str, Any]] | None:
    """What `cryopick label` says of each micrograph; None where it was not asked, or was older."""
    if not (path / SUMMARY).is_file():
        return None
    found = read_json_object(path / SUMMARY, what="the summary of `cryopick label`").get("items")
    if found is None:
        return None
    is_right = isinstance(found, list) and all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("image"), str)
        for one in found
    )
    if not is_right:
        raise FormatError(f"{path / SUMMARY}: items is damaged; run `cryopick label` again")
    return list(found)


def _from_label(path: Path, told: Sequence[Mapping[str, Any]]) -> DrawnSet:
    items, warnings = [], []
    for entry in told:
        name = entry["name"]
        image = Path(entry["image"])
        image = image if image.is_absolute() else path / image
        if not image.is_file():
            raise InputError(
                f"{image}: no such file; {path / SUMMARY} names it as micrograph {name}; give the folder of the images "
                "(--micrographs)"
            )
        info = probe_image(image)
        stem = without_extension(name)
        mask = path / MASKS / f"{stem}.png"
        _require_mask(mask, info.shape_yx, image)
        ignored, centres = path / IGNORED / f"{stem}.png", path / CENTRES / f"{stem}.csv"
        instances = path / INSTANCES / f"{stem}.png"
        drawing = Drawing(path=mask, levels=(0, 255), ignored_path=ignored if ignored.is_file() else None)
        diameter_px, size = _number(entry, "diameter_px", path), _number(entry, "pixel_size_angstrom", path)
        found = next(iter(read_labels(centres).values()), None) if centres.is_file() else None
        if found is None:
            xy_px, is_uncertain = np.zeros((0, 2)), np.zeros(0, np.bool_)
        else:
            xy_px, is_uncertain = found.xy_px, found.is_uncertain
        items.append(
            DrawnMicrograph(
                source=MicrographSource(image, name, size),
                drawing=drawing,
                labels=Labels(xy_px, is_uncertain, diameter_px, name, size),
                instances_path=instances if instances.is_file() else None,
                completeness=str(entry.get("completeness", "complete")),
                shape_yx=info.shape_yx,
                pixel_size_angstrom=size or info.pixel_size_angstrom,
            )
        )
    if not items:
        raise InputError(f"{path / SUMMARY}: names no micrograph; run `cryopick label` again")
    if any(item.labels.diameter_px is None for item in items):
        measured = _typical_diameter_px([item.drawing for item in items])
        if measured is not None:
            warnings.append(_measured_text(path, measured))
        items = [
            item if item.labels.diameter_px else replace(item, labels=replace(item.labels, diameter_px=measured))
            for item in items
        ]
    return DrawnSet("label folder", tuple(items), tuple(warnings))


def _measured_text(path: Path, diameter_px: float) -> str:
    return f"{path}: the particle diameter was measured on the masks, {diameter_px:.0f} px; give it if that is wrong"


def _number(entry: Mapping[str, Any], name: str, path: Path) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise FormatError(f"{path / SUMMARY}: {name} of {entry['name']} is {value!r}, expected a number above 0")
    return float(value)


def _from_images(path: Path, micrographs: Sequence[Path | str], diameter: Length | None) -> DrawnSet:
    images = micrographs or [path / name for name in IMAGES if (path / name).is_dir()][:1]
    if not images:
        raise InputError(f"{path}: does not say where the micrographs of its masks are; give them (--micrographs)")
    sources = find_micrographs(images)
    masks = masks_by_stem(path / MASKS)
    pairs = {source.name: mask for source in sources if (mask := _mask_of(source.name, masks)) is not None}
    orphans = sorted(set(masks.values()) - set(pairs.values()))
    if orphans or not pairs:
        named = ", ".join(one.name for one in orphans[:3]) or "none"
        raise InputError(
            f"{path / MASKS}: masks without an image: {named} ({len(orphans)} of {len(masks)}); expected one image "
            f"each in {images[0]}, named like it"
        )
    levels, names = levels_of(list(pairs.values())), read_class_names(path)
    particle = particle_class(len(levels), names, where=str(path))
    settings = read_set_settings(path)
    diameter_px, warnings = settings.get("diameter_px"), []
    infos = {source.name: probe_image(source.path) for source in sources if source.name in pairs}
    for source in sources:
        if source.name in pairs:
            _require_mask(pairs[source.name], infos[source.name].shape_yx, source.path)
    drawings = {name: Drawing(path=mask, levels=levels, particle=particle, names=names) for name, mask in pairs.items()}
    if diameter_px is None and diameter is None:
        diameter_px = _typical_diameter_px(list(drawings.values()))
        if diameter_px is not None:
            warnings.append(_measured_text(path, diameter_px))
    bare = [source.name for source in sources if source.name not in pairs]
    if bare:
        warnings.append(f"{path}: no masks for {len(bare)} of {len(sources)} micrographs, such as {bare[0]}; left out")
    if levels not in ((0, 1), (0, 255)):
        warnings.append(
            f"{path}: {len(levels)} classes, grey values {', '.join(map(str, levels))}; {particle} is the particle"
        )
    items = []
    for source in sources:
        if source.name not in pairs:
            continue
        info, drawing = infos[source.name], drawings[source.name]
        size = source.pixel_size_angstrom or settings.get("pixel_size_angstrom") or info.pixel_size_angstrom or None
        its_px = diameter_px if diameter is None else diameter.middle_px(size)
        xy_px = particles_in(drawing.classes() == particle, diameter_px=its_px)
        items.append(
            DrawnMicrograph(
                source=source,
                drawing=drawing,
                labels=Labels(xy_px, np.zeros(len(xy_px), np.bool_), its_px, source.name, size),
                instances_path=None,
                completeness=str(settings.get("labels") or "complete"),
                shape_yx=info.shape_yx,
                pixel_size_angstrom=size,
            )
        )
    return DrawnSet("images and masks", tuple(items), tuple(warnings))


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Every mask of a folder and those below it, by its path there without extension."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in (".png", *LOSSY) and file.is_file() and not file.name.startswith("."):
            found[file.relative_to(folder).with_suffix("").as_posix()] = file
    return found


def _mask_of(name: str, masks: Mapping[str, Path]) -> Path | None:
    stem = without_extension(name)
    return next((masks[stem + suffix] for suffix in MASK_SUFFIXES if stem + suffix in masks), None)


def _require_mask(mask: Path, shape_yx: tuple[int, int], image: Path) -> None:
    if not mask.is_file():
        raise InputError(f"{mask}: no such file; expected the mask of {image}")
    found = probe_image(mask).shape_yx
    if tuple(found) != tuple(shape_yx):
        raise FormatError(
            f"{mask}: is {found[1]} x {found[0]}, its micrograph {image.name} {shape_yx[1]} x {shape_yx[0]}"
        )


def levels_of(masks: Sequence[Path]) -> tuple[int, ...]:
    """The grey value of each class, over all masks of a set.

    Values below `MOST_CLASSES` are class numbers, up to the largest that occurs; two values that are larger, or the
    ends of a lossy image, are background and particle; else each value is a class of its own, in their order.

    Raises
    ------
    FormatError
        If there are too many.
    """
    if all(mask.suffix.lower() in LOSSY for mask in masks):
        return 0, 255
    values: set[int] = set()
    for mask in masks:
        if mask.suffix.lower() in LOSSY:
            raise FormatError(f"{mask}: JPEG among masks of other kinds; expected one kind of mask in a folder")
        values |= {int(value) for value in np.unique(read_grey(mask))}
        if len(values) > MOST_CLASSES:
            raise FormatError(f"{mask}: more than {MOST_CLASSES} grey values; expected class numbers, or 0 and 255")
    if max(values, default=0) < MOST_CLASSES:
        return tuple(range(max(2, max(values, default=0) + 1)))
    return tuple(sorted(values | {0}))


def read_class_names(folder: Path) -> tuple[str, ...]:
    """The lines of `classes.txt`; none without that file."""
    path = folder / CLASS_NAMES if folder.is_dir() else folder
    if not path.is_file():
        return ()
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def particle_class(count: int, names: Sequence[str], *, where: str, given: int | None = None) -> int:
    """Which class is to be picked: the given one, the one called so, else the second of two, or the only one.

    Raises
    ------
    SettingsError
        Naming the choices, where there are more and nobody says which, or the given one does not exist.
    """
    choices = ", ".join(
        f"{number} ({names[number]})" if number < len(names) else str(number) for number in range(count)
    )
    if names and len(names) != count:
        raise SettingsError(f"{where}: {CLASS_NAMES} names {len(names)} classes, but there are {count}")
    if given is not None:
        if not 0 <= given < count:
            raise SettingsError(f"{where}: the particle is said to be class {given}; the classes are {choices}")
        return given
    called = [i for i, name in enumerate(names) if any(word in name.lower() for word in PARTICLE_WORDS)]
    if len(called) == 1:
        return called[0]
    if count <= 2 and not called:
        return count - 1
    raise SettingsError(
        f"{where}: which class is the particle is not clear; the classes are {choices}; say it by the setting "
        f"particle_class, or in a file {CLASS_NAMES} with their names, one a line, of which one holds "
        f"{PARTICLE_WORDS[0]!r}"
    )


# --------------------------------------------------------------------------------------------------- particles in masks


def particles_in(is_particle: NDArray[np.bool_], *, diameter_px: float | None) -> NDArray[np.float64]:
    """(n, 2) centres of the spots of a mask; those that touch are parted where a diameter is known.

    Parameters
    ----------
    diameter_px : of a particle; None takes every spot for one
    """
    from scipy import ndimage

    small, factor = _shrunk(is_particle)
    parts, count = ndimage.label(small)
    if diameter_px is not None:
        parts, count = _parted(parts, small, diameter_px * factor)
    if count == 0:
        return np.zeros((0, 2))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    least = 1.0 if diameter_px is None else LEAST_AREA * np.pi / 4 * (diameter_px * factor) ** 2
    numbers = np.flatnonzero(sizes >= least) + 1
    centres = np.array(ndimage.center_of_mass(small, parts, numbers), np.float64).reshape(-1, 2)
    return np.asarray((centres[:, ::-1] + 0.5) / factor - 0.5)


def _shrunk(is_particle: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    import cv2

    step = -(-max(is_particle.shape) // SEARCHED_PX)
    if step == 1:
        return is_particle, 1.0
    height, width = (side // step * step for side in is_particle.shape)
    blocks = is_particle[:height, :width].astype(np.uint8) * 255
    small = cv2.resize(blocks, (width // step, height // step), interpolation=cv2.INTER_AREA)
    return np.asarray(small >= 128), 1 / step


def _parted(parts: NDArray[Any], is_particle: NDArray[np.bool_], diameter_px: float) -> tuple[NDArray[Any], int]:
    require_extra("masks", ("skimage",), "parting particles that touch in a mask")
    import cv2
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    distance = cv2.distanceTransform(is_particle.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = ndimage.gaussian_filter(distance, SPLIT_SMOOTHING * diameter_px)
    reach = max(1, round(SPLIT_REACH * diameter_px))
    peaks = peak_local_max(distance, min_distance=reach, labels=parts, exclude_border=False)  # type: ignore[no-untyped-call]
    seeds = np.zeros(is_particle.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=is_particle), len(peaks)  # type: ignore[no-untyped-call]


def _typical_diameter_px(drawings: Sequence[Drawing]) -> float | None:
    """Of the disc as large as half of the spots; None where there are none."""
    from scipy import ndimage

    areas: list[NDArray[np.float64]] = []
    for drawing in drawings[:8]:
        small, factor = _shrunk(drawing.classes() == drawing.particle)
        parts, count = ndimage.label(small)
        areas.append(np.bincount(parts.ravel(), minlength=count + 1)[1:] / factor**2)
    found = np.concatenate([np.zeros(0), *areas])
    found = found[found >= 12]  # specks
    return float(2 * np.sqrt(np.median(found) / np.pi)) if len(found) else None


# ----------------------------------------------------------------------------------------------------- truth by itself


def drawings_in(path: Path) -> Iterator[tuple[str, Drawing]]:
    """Each micrograph's name and mask, of a folder of `cryopick label`, a simulation, or any folder of masks.

    Images need not be there. Masks of a simulation are those of its silhouettes, seen and hidden.
    """
    folder = path / MASKS if (path / MASKS).is_dir() else path
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; expected masks, as `cryopick label` writes them")
    masks = masks_by_stem(folder)
    if (path / "truth").is_dir():
        instances = {
            stem.removesuffix("_instances"): mask for stem, mask in masks.items() if stem.endswith("_instances")
        }
        yield from ((stem, silhouettes(mask)) for stem, mask in instances.items())
        return
    if not masks:
        raise InputError(f"{folder}: holds no PNG or JPEG; expected masks, as `cryopick label` writes them")
    levels, names = levels_of(list(masks.values())), read_class_names(path)
    particle = particle_class(len(levels), names, where=str(path))
    for stem, mask in masks.items():
        name = next((stem.removesuffix(suffix) for suffix in MASK_SUFFIXES[1:] if stem.endswith(suffix)), stem)
        ignored = path / IGNORED / f"{stem}.png"
        yield (
            name,
            Drawing(
                path=mask,
                levels=levels,
                particle=particle,
                names=names,
                ignored_path=ignored if ignored.is_file() else None,
            ),
        )


class _Silhouettes(Drawing):
    """Numbered silhouettes: every number is a particle."""

    def classes(self, region_px: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
        return np.asarray(_cut(read_grey(self.path), region_px) > 0, np.uint8)


def silhouettes(path: Path) -> Drawing:
    """The masks of a simulated micrograph, 16-bit numbers of particles, as one of two classes."""
    return _Silhouettes(path=path, levels=(0, 1))
